//! Where something is served: addresses with their ports, and paths of Unix sockets.

use super::{Invalid, Kind, Value};

/// One place to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A name or an address, or `*` for all of them, and a port.
    Tcp {
        /// Without the brackets of IPv6.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(String),
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self::Unix(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port > 0)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':'))?,
            None => Some(host).filter(|host| !host.contains(['[', ']', ':', '/']))?,
        };
        (!host.is_empty()).then(|| Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

/// A list of places, divided by commas; an empty one is nowhere.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    text: String,
    list: Vec<Endpoint>,
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Endpoints {
    /// The places in the order they were written.
    pub fn list(&self) -> &[Endpoint] {
        &self.list
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Value for Endpoints {
    const KIND: Kind = Kind::Endpoints;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let list = words.map(Endpoint::parse).collect::<Option<Vec<_>>>();
        Ok(Self {
            list: list.ok_or(Invalid::Malformed(Self::KIND))?,
            text: String::parse(text)?,
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_round_trip;
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        let host = host.to_owned();
        Endpoint::Tcp { host, port }
    }

    #[test]
    fn addresses_and_paths_are_read() {
        let text = "127.0.0.1:9127, [::1]:9128,*:80 localhost:1,/run/weir/http";
        let places = Endpoints::parse(text).expect("a list");
        let expected = [
            tcp("127.0.0.1", 9127),
            tcp("::1", 9128),
            tcp("*", 80),
            tcp("localhost", 1),
            Endpoint::Unix("/run/weir/http".to_owned()),
        ];
        assert_eq!(places.list(), expected);
        assert_round_trip(&places);
        assert_eq!(Endpoints::parse(""), Ok(Endpoints::default()));
    }

    #[test]
    fn what_has_no_port_or_no_address_is_refused() {
        for text in [
            "127.0.0.1",
            "9127",
            ":9127",
            "::1:9127",
            "[::1]",
            "[a]:1",
            "a:0",
            "a:65536",
            "a:b",
            "http://a:1",
        ] {
            let refused = Endpoints::parse(text);
            assert_eq!(refused, Err(Invalid::Malformed(Kind::Endpoints)), "{text}");
        }
    }
}
