//! Whether a certificate leads to a root that is trusted: what `verify-ca` asks.
//!
//! The library's path validation decides. It refuses two shapes that OpenSSL accepts and that small
//! private CAs have been handing out for decades, so for these alone there is a second look here:
//!
//! 1. The peer's certificate is, byte for byte, one of the configured roots, such as the output of
//!    `openssl req -x509` used on both sides. It is trusted because it was named; its dates and
//!    purposes are checked.
//! 2. The peer's certificate is X.509 v1, as `openssl x509 -req` made them by default before
//!    OpenSSL 3.2. It has no extensions to check; signature, dates and issuer are checked, and
//!    every certificate above it must be a CA by version 3's rules, except that a configured root
//!    may be version 1 too.
//!
//! Everything else stays refused.

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use rustls::{DistinguishedName, OtherError};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::x509::X509Version;

use crate::tls::certificate;
use crate::tls::error::TlsError;
use crate::tls::pem::Pem;

/// The certificates that are trusted by themselves.
#[derive(Debug)]
pub(crate) struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Which side of a connection a certificate speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

impl Roots {
    /// The roots in a CA file. All of them must be usable: an operator who names a file means all
    /// of it.
    pub(crate) fn from_pem(pem: &Pem) -> Result<Self, TlsError> {
        let certificates = pem.certificates()?;
        let mut anchors = Vec::with_capacity(certificates.len());
        for (index, certificate) in certificates.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(|error| {
                TlsError::Content {
                    what: "CA",
                    name: pem.name().to_owned(),
                    reason: format!("certificate {} is not usable: {error}", index + 1),
                }
            })?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self {
            certificates,
            anchors,
        })
    }

    /// The roots that this system trusts. Some in such collections are always odd; they are left
    /// out.
    pub(crate) fn of_system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = Self {
            certificates: Vec::new(),
            anchors: Vec::new(),
        };
        for certificate in found.certs {
            if let Ok(anchor) = webpki::anchor_from_trusted_cert(&certificate) {
                roots.anchors.push(anchor.to_owned());
                roots.certificates.push(certificate);
            }
        }
        if roots.anchors.is_empty() {
            let reason = match found.errors.first() {
                Some(error) => error.to_string(),
                None => "it is empty; name a CA file in the configuration".to_owned(),
            };
            let name = "the system's certificate store".to_owned();
            return Err(TlsError::Content {
                what: "CA",
                name,
                reason,
            });
        }
        Ok(roots)
    }

    /// The roots' names, to tell clients which certificates would do.
    pub(crate) fn subjects(&self) -> Vec<DistinguishedName> {
        self.anchors
            .iter()
            .map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
            .collect()
    }

    /// Checks the path from a peer's certificate to a root, and every date and purpose on it.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateError> {
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let stock = EndEntityCert::try_from(leaf).and_then(|certificate| {
            certificate
                .verify_for_usage(
                    algorithms.all,
                    &self.anchors,
                    intermediates,
                    now,
                    usage,
                    None,
                    None,
                )
                .map(|_| ())
        });
        let refusal = match stock {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        let may_be_named = matches!(
            refusal,
            webpki::Error::UnsupportedCertVersion
                | webpki::Error::CaUsedAsEndEntity
                | webpki::Error::UnknownIssuer
        );
        if may_be_named && self.certificates.iter().any(|root| root == leaf) {
            let certificate = certificate::parse(leaf).ok_or(CertificateError::BadEncoding)?;
            check_dates(&certificate, now)?;
            return check_purpose(&certificate, role);
        }
        if matches!(refusal, webpki::Error::UnsupportedCertVersion)
            && let Some(certificate) = certificate::parse(leaf)
            && certificate.version() == X509Version::V1
            && certificate.extensions().is_empty()
        {
            return self.verify_v1(certificate, intermediates, role, now, algorithms);
        }
        Err(library_error(refusal))
    }

    fn verify_v1(
        &self,
        leaf: X509Certificate<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateError> {
        check_dates(&leaf, now)?;
        let roots: Vec<_> = self
            .certificates
            .iter()
            .filter_map(|der| certificate::parse(der))
            .collect();
        // A peer may send any number of certificates. Each is looked at once per step, and each
        // step costs at most as many signature checks as there are issuers of the same name.
        let mut candidates: Vec<_> = intermediates
            .iter()
            .take(INTERMEDIATES_MAX)
            .filter_map(|der| certificate::parse(der))
            .collect();
        let mut current = leaf;
        for below in 0..=INTERMEDIATES_MAX {
            let issued_by = |issuer: &X509Certificate<'_>| {
                current.issuer().as_raw() == issuer.subject().as_raw()
                    && may_sign(issuer, below, role, now)
                    && is_signed_by(&current, issuer, algorithms)
            };
            let is_v1 = |root: &X509Certificate<'_>| {
                root.version() == X509Version::V1
                    && current.issuer().as_raw() == root.subject().as_raw()
                    && check_dates(root, now).is_ok()
                    && is_signed_by(&current, root, algorithms)
            };
            if roots.iter().any(|root| issued_by(root) || is_v1(root)) {
                return Ok(());
            }
            let Some(next) = candidates.iter().position(issued_by) else {
                break;
            };
            current = candidates.swap_remove(next);
        }
        Err(CertificateError::UnknownIssuer)
    }
}

/// Certificates between a v1 leaf and its root. Private CAs have one or two.
const INTERMEDIATES_MAX: usize = 6;

fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        Err(CertificateError::NotValidYet)
    } else if now > validity.not_after.timestamp() {
        Err(CertificateError::Expired)
    } else {
        Ok(())
    }
}

/// An extended key usage, where there is one, must allow the role.
fn check_purpose(certificate: &X509Certificate<'_>, role: Role) -> Result<(), CertificateError> {
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) => {
            let allowed = match role {
                Role::Server => usage.value.server_auth,
                Role::Client => usage.value.client_auth,
            };
            if allowed || usage.value.any {
                Ok(())
            } else {
                Err(CertificateError::InvalidPurpose)
            }
        }
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

/// Whether a version 3 certificate may issue others, with `below` CAs between it and the leaf.
/// One with an extension that is critical and not checked here may not; a name constraint is
/// such, and a constraint that is not critical is not ignored either.
fn may_sign(issuer: &X509Certificate<'_>, below: usize, role: Role, now: UnixTime) -> bool {
    if issuer.version() != X509Version::V3 || check_dates(issuer, now).is_err() {
        return false;
    }
    let extensions_are_known =
        issuer
            .extensions()
            .iter()
            .all(|extension| match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_) => true,
                ParsedExtension::NameConstraints(_) => false,
                _ => !extension.critical,
            });
    let is_ca = match issuer.basic_constraints() {
        Ok(Some(constraints)) => {
            let depth = constraints.value.path_len_constraint;
            constraints.value.ca
                && depth.is_none_or(|max| usize::try_from(max).is_ok_and(|max| below <= max))
        }
        Ok(None) | Err(_) => false,
    };
    let may_use_key = match issuer.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    extensions_are_known && is_ca && may_use_key && check_purpose(issuer, role).is_ok()
}

/// Checks one signature. The algorithm is the one that the certificate names, the same inside the
/// signed part and outside, and encoded as the library knows it.
fn is_signed_by(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let same_inside = certificate.signature_algorithm == certificate.tbs_certificate.signature;
    if !same_inside || certificate.signature_value.unused_bits != 0 {
        return false;
    }
    let Some(named) = outer_algorithm(certificate) else {
        return false;
    };
    let key = SubjectPublicKeyInfoDer::from(issuer.public_key().raw);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
        return false;
    };
    let message = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data;
    // One identifier may stand for several algorithms, told apart by the curve of the key.
    let mut meant = algorithms
        .all
        .iter()
        .filter(|algorithm| algorithm.signature_alg_id().as_ref() == named);
    meant.any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
}

/// What stands between the signed part and the signature: the content of one SEQUENCE. All known
/// algorithm identifiers are shorter than 128 bytes, so the length is one byte.
fn outer_algorithm<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    const SEQUENCE: u8 = 0x30;
    let raw = certificate.as_raw();
    let signed = certificate.tbs_certificate.as_ref();
    // The whole begins with a tag and a length of up to five bytes.
    let rest = (2..=6).find_map(|header| raw.get(header..)?.strip_prefix(signed))?;
    match rest {
        [SEQUENCE, length @ 0..0x80, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    }
}

/// The library's reasons in the words that become TLS alerts.
fn library_error(error: webpki::Error) -> CertificateError {
    use webpki::Error;
    match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        Error::CertExpired { .. } | Error::InvalidCertValidity => CertificateError::Expired,
        Error::UnknownIssuer => CertificateError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(std::sync::Arc::new(other))),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

    use super::*;
    use crate::tls::parameters::provider;
    use crate::tls::testing::{Authority, Identity, pem_of, year};

    /// Verifies a chain as a server's in 2030.
    fn verify(roots: &[&Authority], identity: &Identity) -> Result<(), CertificateError> {
        verify_as(roots, identity, Role::Server, 2030)
    }

    fn verify_as(
        roots: &[&Authority],
        identity: &Identity,
        role: Role,
        in_year: i32,
    ) -> Result<(), CertificateError> {
        let ders: Vec<_> = roots.iter().map(|root| root.der.clone()).collect();
        let roots = Roots::from_pem(&pem_of("ca.crt", &ders)).unwrap();
        let (leaf, rest) = identity.chain.split_first().unwrap();
        let algorithms = provider().signature_verification_algorithms;
        roots.verify(leaf, rest, role, year(in_year), &algorithms)
    }

    #[test]
    fn a_current_certificate_needs_no_second_look() {
        let root = Authority::root("root");
        verify(&[&root], &root.leaf("db", &["db"])).unwrap();
        let middle = root.intermediate("middle", |_| {});
        verify(&[&root], &middle.leaf("db", &["db"]).with(&middle)).unwrap();
        let stranger = Authority::root("root");
        verify(&[&stranger], &root.leaf("db", &["db"])).unwrap_err();
    }

    #[test]
    fn a_v1_certificate_is_good_when_a_root_signed_it() {
        let root = Authority::root("root");
        let leaf = root.leaf_v1("db");
        verify(&[&root], &leaf).unwrap();
        verify_as(&[&root], &leaf, Role::Client, 2030).unwrap();
        let other = Authority::root("other");
        verify(&[&other, &root], &leaf).unwrap();
        assert_eq!(
            verify(&[&other], &leaf),
            Err(CertificateError::UnknownIssuer)
        );
    }

    #[test]
    fn a_v1_root_may_sign_a_v1_certificate() {
        let root = Authority::root_v1("root");
        verify(&[&root], &root.leaf_v1("db")).unwrap();
    }

    #[test]
    fn the_issuers_name_alone_is_not_enough() {
        let root = Authority::root("root");
        let namesake = Authority::root("root");
        let leaf = namesake.leaf_v1("db");
        assert_eq!(
            verify(&[&root], &leaf),
            Err(CertificateError::UnknownIssuer)
        );
    }

    #[test]
    fn a_changed_v1_certificate_is_refused() {
        let root = Authority::root("root");
        let leaf = root.leaf_v1("db1");
        let mut bytes = leaf.leaf().to_vec();
        let at = bytes
            .windows(3)
            .position(|window| window == b"db1")
            .unwrap();
        bytes[at + 2] = b'2';
        let forged = Identity {
            chain: vec![bytes.into()],
            ..leaf
        };
        assert_eq!(
            verify(&[&root], &forged),
            Err(CertificateError::UnknownIssuer)
        );
    }

    #[test]
    fn the_dates_of_a_v1_certificate_count() {
        let root = Authority::root("root");
        let leaf = root.leaf_v1("db");
        let at = |when| verify_as(&[&root], &leaf, Role::Server, when);
        assert_eq!(at(2019), Err(CertificateError::NotValidYet));
        assert_eq!(at(2041), Err(CertificateError::Expired));
    }

    #[test]
    fn the_dates_above_a_v1_certificate_count() {
        let old = |params: &mut rcgen::CertificateParams| {
            params.not_after = rcgen::date_time_ymd(2025, 1, 1);
        };
        let root = Authority::root_with("root", old);
        verify(&[&root], &root.leaf_v1("db")).unwrap_err();
        let root = Authority::root("root");
        let middle = root.intermediate("middle", old);
        verify(&[&root], &middle.leaf_v1("db").with(&middle)).unwrap_err();
    }

    #[test]
    fn a_v1_certificate_may_come_through_cas() {
        let root = Authority::root("root");
        let upper = root.intermediate("upper", |_| {});
        let lower = upper.intermediate("lower", |params| {
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        });
        verify(&[&root], &lower.leaf_v1("db").with(&lower).with(&upper)).unwrap();
        verify(&[&root], &lower.leaf_v1("db").with(&upper).with(&lower)).unwrap();
        verify(&[&root], &lower.leaf_v1("db").with(&lower)).unwrap_err();
    }

    #[test]
    fn nobody_but_a_ca_may_stand_between() {
        let root = Authority::root("root");
        let refused: [&dyn Fn() -> Authority; 7] = [
            &|| root.leaf_v1("middle").into_authority("middle"),
            &|| root.leaf("middle", &["middle"]).into_authority("middle"),
            &|| root.intermediate("middle", |p| p.is_ca = IsCa::ExplicitNoCa),
            &|| {
                root.intermediate("middle", |p| {
                    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                })
            },
            &|| {
                root.intermediate("middle", |p| {
                    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                })
            },
            &|| {
                root.intermediate("middle", |p| {
                    p.name_constraints = Some(rcgen::NameConstraints {
                        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("db".into())],
                        excluded_subtrees: Vec::new(),
                    });
                })
            },
            &|| {
                root.intermediate("middle", |p| {
                    let oid = &[1, 3, 6, 1, 4, 1, 99999, 1];
                    let mut unknown = rcgen::CustomExtension::from_oid_content(oid, vec![5, 0]);
                    unknown.set_criticality(true);
                    p.custom_extensions = vec![unknown];
                })
            },
        ];
        for (case, make) in refused.iter().enumerate() {
            let middle = make();
            let leaf = middle.leaf_v1("db").with(&middle);
            assert_eq!(
                verify(&[&root], &leaf),
                Err(CertificateError::UnknownIssuer),
                "{case}"
            );
        }
    }

    #[test]
    fn a_path_length_counts_for_v1_certificates() {
        let short = |params: &mut rcgen::CertificateParams| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        };
        let root = Authority::root_with("root", short);
        verify(&[&root], &root.leaf_v1("db")).unwrap();
        let middle = root.intermediate("middle", |_| {});
        verify(&[&root], &middle.leaf_v1("db").with(&middle)).unwrap_err();
    }

    #[test]
    fn a_certificate_that_is_itself_a_root_is_good() {
        let own_root = Authority::root("db");
        let identity = |root: &Authority| Identity {
            chain: vec![root.der.clone()],
            ..root.leaf("x", &[])
        };
        verify(&[&own_root], &identity(&own_root)).unwrap();
        let own_v1 = Authority::root_v1("db");
        verify(&[&own_v1], &identity(&own_v1)).unwrap();
        verify(&[&Authority::root("db")], &identity(&own_root)).unwrap_err();

        let issuer = Authority::root("issuer");
        let named = issuer.leaf("db", &["db"]).into_authority("db");
        verify(&[&named], &identity(&named)).unwrap();

        assert_eq!(
            verify_as(&[&own_v1], &identity(&own_v1), Role::Server, 2041),
            Err(CertificateError::Expired)
        );
        let client_only = Authority::root_with("db", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        assert_eq!(
            verify(&[&client_only], &identity(&client_only)),
            Err(CertificateError::InvalidPurpose)
        );
        verify_as(&[&client_only], &identity(&client_only), Role::Client, 2030).unwrap();
    }

    #[test]
    fn a_ca_that_is_no_root_cannot_be_a_peer() {
        let root = Authority::root("root");
        let middle = root.intermediate("middle", |_| {});
        let peer = Identity {
            chain: vec![middle.der.clone()],
            ..root.leaf("x", &[])
        };
        let error = verify(&[&root], &peer).unwrap_err();
        assert!(error.to_string().contains("CaUsedAsEndEntity"), "{error}");
    }
    /// Whatever bit of a certificate is turned over, it is not the one that was signed any more;
    /// and reading it never panics.
    #[test]
    fn no_bit_of_a_v1_certificate_can_be_changed() {
        let root = Authority::root("root");
        let leaf = root.leaf_v1("db");
        let roots = Roots::from_pem(&root.pem()).unwrap();
        let algorithms = provider().signature_verification_algorithms;
        let now = year(2030);
        let good = leaf.leaf().to_vec();
        roots
            .verify(leaf.leaf(), &[], Role::Server, now, &algorithms)
            .unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = CertificateDer::from(bad);
            let verdict = roots.verify(&bad, &[], Role::Server, now, &algorithms);
            assert!(verdict.is_err(), "bit {bit}");
        }
    }
}
