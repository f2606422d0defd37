//! Protocol versions, ciphers and curves, from the words of the configuration.
//!
//! The words are OpenSSL's and PgBouncer's. A word for something that this library never speaks is
//! not an error, because old configurations are full of them; it becomes a warning.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};
use sha2::{Digest, Sha256};

use crate::tls::error::TlsError;
use crate::tls::info::suite_named;

/// What may be negotiated, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Versions, separated by commas or colons, each with `!` to take it away again.
    pub protocols: String,
    /// Cipher list for TLS 1.2; `default`, `secure`, `fast` and `normal` leave the choice open.
    pub ciphers: String,
    /// Cipher suites of TLS 1.3, separated by colons; empty leaves the choice open.
    pub tls13_ciphers: String,
    /// Curve of the key exchange; `auto` and `none` leave the choice open.
    pub ecdh_curve: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            protocols: "secure".to_owned(),
            ciphers: "default".to_owned(),
            tls13_ciphers: String::new(),
            ecdh_curve: "auto".to_owned(),
        }
    }
}

/// [`Parameters`] as the library takes them.
#[derive(Debug)]
pub(crate) struct Negotiable {
    pub(crate) provider: Arc<CryptoProvider>,
    /// Empty when only versions are configured that cannot be spoken.
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) warnings: Vec<String>,
}

/// The one crypto provider.
pub(crate) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

impl Parameters {
    pub(crate) fn parse(&self) -> Result<Negotiable, TlsError> {
        let mut warnings = Vec::new();
        let protocols = Protocols::parse(&self.protocols)?;
        let versions = protocols.spoken(&self.protocols, &mut warnings);
        let mut provider = provider();
        let (mut tls13, mut tls12): (Vec<_>, Vec<_>) = provider
            .cipher_suites
            .iter()
            .partition(|suite| suite.tls13().is_some());
        if protocols.has(Protocols::TLS13) && !self.tls13_ciphers.is_empty() {
            tls13 = tls13_suites(&self.tls13_ciphers, &tls13, &mut warnings)?;
        }
        tls12 = tls12_suites(&self.ciphers, &tls12, &mut warnings)?;
        provider.cipher_suites = tls13.into_iter().chain(tls12).collect();
        if let Some(group) = curve(&self.ecdh_curve, &provider.kx_groups, &mut warnings)? {
            provider.kx_groups = vec![group];
        }
        Ok(Negotiable {
            provider: Arc::new(provider),
            versions,
            warnings,
        })
    }

    /// Adds everything that decides whether two settings are the same.
    pub(crate) fn fingerprint(&self, into: &mut Sha256) {
        let Self {
            protocols,
            ciphers,
            tls13_ciphers,
            ecdh_curve,
        } = self;
        for word in [protocols, ciphers, tls13_ciphers, ecdh_curve] {
            into.update(Sha256::digest(word));
        }
    }
}

/// A set of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocols(u8);

impl Protocols {
    const TLS10: Self = Self(1);
    const TLS11: Self = Self(2);
    const TLS12: Self = Self(4);
    const TLS13: Self = Self(8);
    const SECURE: Self = Self(4 | 8);
    const ALL: Self = Self(1 | 2 | 4 | 8);

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn parse(list: &str) -> Result<Self, TlsError> {
        if list.is_empty() {
            return Ok(Self::SECURE);
        }
        let mut set = Self(0);
        for item in list.split([',', ':']) {
            let item = item.trim();
            let (word, negated) = match item.strip_prefix('!') {
                Some(word) => (word, true),
                None => (item, false),
            };
            let named = match word.to_ascii_lowercase().as_str() {
                "all" | "legacy" | "tlsv1" => Self::ALL,
                "default" | "secure" => Self::SECURE,
                "tlsv1.0" => Self::TLS10,
                "tlsv1.1" => Self::TLS11,
                "tlsv1.2" => Self::TLS12,
                "tlsv1.3" => Self::TLS13,
                _ => {
                    return Err(TlsError::Protocol {
                        word: word.to_owned(),
                    });
                }
            };
            // A list that begins by taking away takes away from everything.
            if negated && set == Self(0) {
                set = Self::ALL;
            }
            set = if negated {
                Self(set.0 & !named.0)
            } else {
                Self(set.0 | named.0)
            };
        }
        Ok(set)
    }

    fn spoken(
        self,
        list: &str,
        warnings: &mut Vec<String>,
    ) -> Vec<&'static SupportedProtocolVersion> {
        let mut versions = Vec::new();
        if self.has(Self::TLS13) {
            versions.push(&TLS13);
        }
        if self.has(Self::TLS12) {
            versions.push(&TLS12);
        }
        if versions.is_empty() {
            warnings.push(format!(
                "TLS protocols \"{list}\": only TLSv1.2 and TLSv1.3 can be spoken, so every TLS \
                 handshake will fail"
            ));
        } else if self.has(Self::TLS10) || self.has(Self::TLS11) {
            warnings.push(format!(
                "TLS protocols \"{list}\": TLSv1.0 and TLSv1.1 cannot be spoken, only TLSv1.2 and \
                 TLSv1.3"
            ));
        }
        versions
    }
}

/// Suites of TLS 1.3 that OpenSSL has and this library does not.
const TLS13_NOT_SPOKEN: [&str; 2] = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"];

fn tls13_suites(
    list: &str,
    spoken: &[SupportedCipherSuite],
    warnings: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut chosen = Vec::new();
    for word in list.split(':').map(str::trim) {
        match find(word, spoken) {
            Some(suite) => chosen.push(suite),
            None if TLS13_NOT_SPOKEN.contains(&word) => {
                warnings.push(format!("TLSv1.3 cipher suite {word} cannot be spoken"));
            }
            None => {
                let reason = format!("\"{word}\" is not known");
                return Err(TlsError::Tls13Ciphers {
                    list: list.to_owned(),
                    reason,
                });
            }
        }
    }
    if chosen.is_empty() {
        let reason = "none can be spoken".to_owned();
        return Err(TlsError::Tls13Ciphers {
            list: list.to_owned(),
            reason,
        });
    }
    Ok(chosen)
}

/// OpenSSL's cipher lists are a language of their own. Names of suites are obeyed, also with `!` or
/// `-`; of the rest, words that add whole families keep everything, because all that is left to
/// add is strong.
fn tls12_suites(
    list: &str,
    spoken: &[SupportedCipherSuite],
    warnings: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    const OPEN: [&str; 7] = ["", "default", "secure", "normal", "fast", "all", "high"];
    if OPEN.contains(&list.trim_matches('"').to_ascii_lowercase().as_str()) {
        return Ok(spoken.to_vec());
    }
    let (mut named, mut removed, mut families) = (Vec::new(), Vec::new(), Vec::new());
    for word in list
        .trim_matches('"')
        .split([':', ',', ' ', ';'])
        .filter(|word| !word.is_empty())
    {
        match word.strip_prefix(['!', '-']) {
            Some(word) => removed.extend(find(word, spoken)),
            None => match find(word, spoken) {
                Some(suite) => named.push(suite),
                None if word.starts_with(['@', '+']) => {}
                None => families.push(word),
            },
        }
    }
    if !families.is_empty() {
        warnings.push(format!(
            "TLS ciphers \"{list}\": only names of cipher suites are obeyed, so {} means all that \
             can be spoken",
            families.join(", ")
        ));
        named = spoken.to_vec();
    } else if named.is_empty() {
        named = spoken.to_vec();
    }
    named.retain(|suite| !removed.contains(suite));
    if named.is_empty() {
        return Err(TlsError::Ciphers {
            list: list.to_owned(),
        });
    }
    Ok(named)
}

fn find(name: &str, spoken: &[SupportedCipherSuite]) -> Option<SupportedCipherSuite> {
    let wanted: CipherSuite = suite_named(name)?;
    spoken.iter().find(|suite| suite.suite() == wanted).copied()
}

fn curve(
    name: &str,
    spoken: &[&'static dyn SupportedKxGroup],
    warnings: &mut Vec<String>,
) -> Result<Option<&'static dyn SupportedKxGroup>, TlsError> {
    let wanted = match name.to_ascii_lowercase().as_str() {
        "" | "auto" | "none" => return Ok(None),
        "prime256v1" | "secp256r1" | "p-256" => NamedGroup::secp256r1,
        "secp384r1" | "p-384" => NamedGroup::secp384r1,
        "secp521r1" | "p-521" => NamedGroup::secp521r1,
        "x25519" => NamedGroup::X25519,
        "x25519mlkem768" => NamedGroup::X25519MLKEM768,
        _ => {
            return Err(TlsError::Curve {
                name: name.to_owned(),
            });
        }
    };
    let group = spoken.iter().find(|group| group.name() == wanted).copied();
    if group.is_none() {
        warnings.push(format!(
            "curve {name} cannot be used for the key exchange; choosing freely"
        ));
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut Parameters)) -> Result<Negotiable, TlsError> {
        let mut parameters = Parameters::default();
        change(&mut parameters);
        parameters.parse()
    }

    fn suites(negotiable: &Negotiable, tls13: bool) -> Vec<CipherSuite> {
        let all = negotiable.provider.cipher_suites.iter();
        all.filter(|suite| suite.tls13().is_some() == tls13)
            .map(|suite| suite.suite())
            .collect()
    }

    #[test]
    fn reads_lists_of_protocols() {
        let set = |list| Protocols::parse(list).unwrap().0;
        assert_eq!(set("secure"), 12);
        assert_eq!(set("all"), 15);
        assert_eq!(set("tlsv1.0"), 1);
        assert_eq!(set("TLSv1.2, tlsv1.3"), 12);
        assert_eq!(set("!tlsv1.0:!tlsv1.1"), 12);
        assert_eq!(set("all,!tlsv1.3"), 7);
        let error = Protocols::parse("sslv3").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("invalid TLS protocol \"sslv3\"")
        );
    }

    #[test]
    fn warns_of_versions_that_cannot_be_spoken() {
        let old = parsed(|p| p.protocols = "tlsv1.0".to_owned()).unwrap();
        assert!(old.versions.is_empty());
        assert!(old.warnings[0].ends_with("every TLS handshake will fail"));
        let all = parsed(|p| p.protocols = "all".to_owned()).unwrap();
        assert_eq!((all.versions.len(), all.warnings.len()), (2, 1));
        let default = Parameters::default().parse().unwrap();
        assert_eq!((default.versions.len(), default.warnings.len()), (2, 0));
    }

    #[test]
    fn restricts_the_suites_of_tls13_by_their_names() {
        let list = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256";
        let some = parsed(|p| p.tls13_ciphers = list.to_owned()).unwrap();
        assert_eq!(
            suites(&some, true),
            [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256]
        );
        assert_eq!(
            some.warnings,
            ["TLSv1.3 cipher suite TLS_AES_128_CCM_SHA256 cannot be spoken"]
        );

        for bad in [
            "foo",
            "TLS_AES_128_CCM_SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ] {
            let error = parsed(|p| p.tls13_ciphers = bad.to_owned())
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("failed to set the TLSv1.3 cipher suites: "),
                "{error}"
            );
        }
        // Without TLS 1.3 nobody looks at the list, as with OpenSSL.
        let unused = |p: &mut Parameters| {
            (p.protocols, p.tls13_ciphers) = ("tlsv1.2".to_owned(), "foo".to_owned());
        };
        parsed(unused).unwrap();
    }

    #[test]
    fn obeys_names_of_suites_and_warns_of_words() {
        let with = |list: &str| parsed(|p| p.ciphers = list.to_owned());
        for word in ["default", "secure", "fast", "normal", "all", "HIGH", "\"\""] {
            let open = with(word).unwrap();
            assert_eq!(
                (suites(&open, false).len(), open.warnings.len()),
                (6, 0),
                "{word}"
            );
        }
        let one = with("ECDHE-RSA-AES256-GCM-SHA384").unwrap();
        assert_eq!(
            suites(&one, false),
            [CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
        );
        let less = with("HIGH:!ECDHE-RSA-AES256-GCM-SHA384:!aNULL:@STRENGTH").unwrap();
        assert_eq!((suites(&less, false).len(), less.warnings.len()), (5, 1));
        let one = "ECDHE-RSA-AES256-GCM-SHA384:!ECDHE-RSA-AES256-GCM-SHA384";
        assert_eq!(
            with(one).unwrap_err().to_string(),
            format!("no ciphers for \"{one}\"")
        );
    }

    #[test]
    fn restricts_the_curve() {
        let groups = |name: &str| parsed(|p| p.ecdh_curve = name.to_owned());
        let one = groups("prime256v1").unwrap();
        assert_eq!(one.provider.kx_groups[0].name(), NamedGroup::secp256r1);
        assert_eq!(one.provider.kx_groups.len(), 1);
        let other = groups("secp521r1").unwrap();
        assert!(other.provider.kx_groups.len() > 1 && other.warnings.len() == 1);
        groups("round").unwrap_err();
    }
}
