//! `/etc/hosts`: names whose addresses the machine's administrator has written down.

use std::net::IpAddr;

pub(crate) const FILE: &str = "/etc/hosts";

/// The addresses that a file has for a name.
pub(crate) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let found = text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let ip = words.next()?.parse::<IpAddr>().ok()?;
        let mut names = words;
        names
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(ip)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_aliases() {
        let text = "# a comment\n127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # six\n\
                    10.0.0.1 db.test db # one\n10.0.0.2 DB\nbroken db\n";
        let shown = |name| {
            let found = addresses(text, name);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(shown("ip6-localhost"), ["::1"]);
        assert_eq!(shown("db"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(shown("db.test"), ["10.0.0.1"]);
        assert_eq!(shown("one"), [""; 0]);
    }
}
