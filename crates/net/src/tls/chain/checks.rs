//! What is asked of one certificate where the library is not asked: dates, purpose, the right to issue
//! others, and whether one has signed another.

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::x509::X509Version;

use super::Role;

pub(super) fn check_dates(
    certificate: &X509Certificate<'_>,
    now: UnixTime,
) -> Result<(), CertificateError> {
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
pub(super) fn check_purpose(
    certificate: &X509Certificate<'_>,
    role: Role,
) -> Result<(), CertificateError> {
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
pub(super) fn may_sign(
    issuer: &X509Certificate<'_>,
    below: usize,
    role: Role,
    now: UnixTime,
) -> bool {
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
pub(super) fn is_signed_by(
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
