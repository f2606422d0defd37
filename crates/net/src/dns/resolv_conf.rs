//! `resolv.conf`: which name servers are asked, and how.
//!
//! As resolv.conf(5) has it, with one addition that c-ares and evdns have too: a name server can
//! have a port, as in `127.0.0.1:5353` or `[::1]:5353`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(crate) const SYSTEM_FILE: &str = "/etc/resolv.conf";

const DNS_PORT: u16 = 53;
/// The resolver's own bounds, which glibc has too.
const SERVERS_MAX: usize = 3;
const NDOTS_MAX: usize = 15;
const TIMEOUT_MAX: u64 = 30;
const ATTEMPTS_MAX: usize = 5;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<SocketAddr>,
    /// Domains to look for a short name in.
    pub(crate) search: Vec<String>,
    /// A name with fewer dots than this is short.
    pub(crate) ndots: usize,
    pub(crate) timeout: Duration,
    /// How often each server is asked.
    pub(crate) attempts: usize,
    pub(crate) rotate: bool,
}

impl ResolvConf {
    /// Reads a file's content. What is not understood is passed over, as every resolver does.
    pub(crate) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                // The last of them counts.
                Some("domain" | "search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| conf.set(word)),
                _ => {}
            }
        }
        conf.servers.truncate(SERVERS_MAX);
        if conf.servers.is_empty() {
            conf.servers
                .push((IpAddr::from([127, 0, 0, 1]), DNS_PORT).into());
        }
        conf
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u64>()) {
            ("ndots", Ok(value)) => self.ndots = small(value).min(NDOTS_MAX),
            ("timeout", Ok(value)) => {
                self.timeout = Duration::from_secs(value.clamp(1, TIMEOUT_MAX));
            }
            ("attempts", Ok(value)) => self.attempts = small(value).clamp(1, ATTEMPTS_MAX),
            ("rotate", _) => self.rotate = true,
            _ => {}
        }
    }
}

fn small(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn server(text: &str) -> Option<SocketAddr> {
    // A scope, as in fe80::1%eth0, cannot be said to the resolver; the address alone may do.
    let address = text.split('%').next().unwrap_or_default();
    let ip = address.parse::<IpAddr>().map(|ip| (ip, DNS_PORT).into());
    ip.or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        let conf = ResolvConf::parse(text);
        conf.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn name_servers_have_the_usual_port_or_their_own() {
        let text = "# x\nnameserver 10.0.0.1\nnameserver [::1]:5353 ; y\nnameserver nonsense\n\
                    nameserver 127.0.0.1:54\nnameserver 10.0.0.4\n";
        assert_eq!(servers(text), ["10.0.0.1:53", "[::1]:5353", "127.0.0.1:54"]);
        assert_eq!(servers("nameserver fe80::1%eth0\n"), ["[fe80::1]:53"]);
        assert_eq!(servers("search x\n"), ["127.0.0.1:53"], "nobody else");
    }

    #[test]
    fn options_keep_within_bounds() {
        let conf = ResolvConf::parse(
            "domain old.example\nsearch a.example b.example\n\
             options ndots:2 timeout:1\noptions attempts:99 rotate edns0 ndots:x\n",
        );
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(
            (conf.ndots, conf.attempts, conf.rotate),
            (2, ATTEMPTS_MAX, true)
        );
        assert_eq!(conf.timeout, Duration::from_secs(1));
        let plain = ResolvConf::parse("");
        assert_eq!((plain.ndots, plain.attempts, plain.rotate), (1, 2, false));
        assert!(plain.search.is_empty());
    }
}
