//! TLS versions, as libtls writes lists of them.

use super::{Invalid, Kind, Value};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.0
    V1_0,
    /// TLS 1.1
    V1_1,
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

impl TlsVersion {
    const ALL: [Self; 4] = [Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3];

    /// The versions that are safe to use today.
    const SECURE: [Self; 2] = [Self::V1_2, Self::V1_3];
}

/// The TLS versions that a connection may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProtocols {
    text: String,
    versions: Vec<TlsVersion>,
}

impl TlsProtocols {
    /// The versions, oldest first, each once.
    pub fn versions(&self) -> &[TlsVersion] {
        &self.versions
    }

    /// Whether `version` may be used.
    pub fn allows(&self, version: TlsVersion) -> bool {
        self.versions.contains(&version)
    }
}

impl Value for TlsProtocols {
    const KIND: Kind = Kind::Protocols;

    /// Nothing is as good as `secure`. Reads from left to right; `!` takes a version away, from all of them if it comes first.
    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self {
                text: String::new(),
                versions: TlsVersion::SECURE.to_vec(),
            });
        }
        let mut versions: Vec<TlsVersion> = Vec::new();
        for word in text.split([',', ':']) {
            let word = word.trim_matches([' ', '\t']);
            let (taken_away, word) = match word.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, word),
            };
            let named = named(word).ok_or(Invalid::Malformed(Self::KIND))?;
            if taken_away {
                if versions.is_empty() {
                    versions.extend(TlsVersion::ALL);
                }
                versions.retain(|version| !named.contains(version));
            } else {
                versions.extend(named);
            }
        }
        versions.sort_unstable();
        versions.dedup();
        Ok(Self {
            text: text.to_owned(),
            versions,
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

/// The versions that a word stands for.
fn named(word: &str) -> Option<&'static [TlsVersion]> {
    match word.to_ascii_lowercase().as_str() {
        "all" | "legacy" | "tlsv1" => Some(&TlsVersion::ALL),
        "secure" | "default" => Some(&TlsVersion::SECURE),
        "tlsv1.0" => Some(&[TlsVersion::V1_0]),
        "tlsv1.1" => Some(&[TlsVersion::V1_1]),
        "tlsv1.2" => Some(&[TlsVersion::V1_2]),
        "tlsv1.3" => Some(&[TlsVersion::V1_3]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_round_trip;
    use super::*;

    fn versions(text: &str) -> Vec<TlsVersion> {
        TlsProtocols::parse(text).expect(text).versions().to_vec()
    }

    #[test]
    fn words_stand_for_sets() {
        assert_eq!(versions("secure"), [TlsVersion::V1_2, TlsVersion::V1_3]);
        assert_eq!(versions("all"), TlsVersion::ALL);
        assert_eq!(versions("legacy"), TlsVersion::ALL);
        assert_eq!(versions(""), [TlsVersion::V1_2, TlsVersion::V1_3]);
    }

    #[test]
    fn lists_divide_at_commas_and_colons() {
        assert_eq!(
            versions("tlsv1.3, TLSv1.2"),
            [TlsVersion::V1_2, TlsVersion::V1_3]
        );
        assert_eq!(versions("tlsv1.1:tlsv1.1"), [TlsVersion::V1_1]);
    }

    #[test]
    fn an_exclamation_mark_takes_versions_away() {
        assert_eq!(
            versions("all,!tlsv1.0"),
            [TlsVersion::V1_1, TlsVersion::V1_2, TlsVersion::V1_3]
        );
        assert_eq!(versions("!secure"), [TlsVersion::V1_0, TlsVersion::V1_1]);
    }

    #[test]
    fn unknown_words_are_refused() {
        for text in [" ", "sslv3", "tlsv1.2,", "!"] {
            assert_eq!(
                TlsProtocols::parse(text),
                Err(Invalid::Malformed(Kind::Protocols))
            );
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        assert_round_trip(&TlsProtocols::parse("tlsv1.3: TLSv1.2").expect("a list"));
    }
}
