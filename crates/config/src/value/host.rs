//! Where the servers of a database are.

use super::{Invalid, Kind, Value};

/// One place to connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name or an address, reached over TCP.
    Tcp(String),
    /// The directory of a Unix socket; a leading `@` means the abstract name space.
    Unix(String),
}

impl Host {
    fn new(text: &str) -> Self {
        if text.starts_with(['/', '@']) {
            Self::Unix(text.to_owned())
        } else {
            Self::Tcp(text.to_owned())
        }
    }

    /// The host as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tcp(text) | Self::Unix(text) => text,
        }
    }
}

/// The hosts of one `host=` parameter: never empty. However they are written, the same hosts are
/// the same.
#[derive(Debug, Clone, Eq)]
pub struct Hosts {
    text: String,
    list: Vec<Host>,
}

impl PartialEq for Hosts {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Hosts {
    /// The hosts in the order they were written.
    pub fn list(&self) -> &[Host] {
        &self.list
    }

    /// The text as it was written, which the console shows.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Value for Hosts {
    const KIND: Kind = Kind::Hosts;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let words = String::parse(text)?;
        let words = words
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let list: Vec<Host> = words.map(Host::new).collect();
        if list.is_empty() {
            return Err(Invalid::Malformed(Self::KIND));
        }
        Ok(Self {
            text: text.to_owned(),
            list,
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

    #[test]
    fn slashes_and_at_signs_mean_unix_sockets() {
        let hosts = Hosts::parse("db1, /run/pg,@abstract,::1").expect("hosts");
        let expected = [
            Host::Tcp("db1".to_owned()),
            Host::Unix("/run/pg".to_owned()),
            Host::Unix("@abstract".to_owned()),
            Host::Tcp("::1".to_owned()),
        ];
        assert_eq!(hosts.list(), expected);
        assert_round_trip(&hosts);
    }

    #[test]
    fn at_least_one_host_is_needed() {
        assert_eq!(Hosts::parse(" ,"), Err(Invalid::Malformed(Kind::Hosts)));
    }
}
