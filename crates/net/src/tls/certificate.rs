//! What is read out of a certificate: its subject, and its hash for channel binding.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, X509Name};

/// The certificate that the other side of a TLS connection showed.
#[derive(Clone, Copy, Debug)]
pub struct PeerCertificate<'a>(&'a CertificateDer<'static>);

impl<'a> PeerCertificate<'a> {
    pub(crate) fn new(der: &'a CertificateDer<'static>) -> Self {
        Self(der)
    }

    /// The certificate as it came.
    pub fn der(&self) -> &'a [u8] {
        self.0
    }

    /// The subject's common name, which is the user name in `cert` authentication. `None` when
    /// there is none, or one that is not text, such as a name with a NUL inside.
    pub fn common_name(&self) -> Option<String> {
        common_name(parse(self.0)?.subject())
    }

    /// When it expires, in seconds since 1970.
    pub fn expiry(&self) -> Option<i64> {
        expiry(self.0)
    }

    /// Whether the certificate is that of a user: by its common name, or by a name among the
    /// alternative ones, where new authorities put it. Stars stand for nobody.
    pub fn names_user(&self, user: &str) -> bool {
        let Some(certificate) = parse(self.0) else {
            return false;
        };
        let is_alternative = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .any(|name| matches!(name, GeneralName::DNSName(name) if *name == user)),
            Ok(None) | Err(_) => false,
        };
        is_alternative || common_name(certificate.subject()).is_some_and(|name| name == user)
    }

    /// See [`crate::Stream::server_end_point_binding`].
    pub(crate) fn end_point_binding(&self) -> Option<Vec<u8>> {
        end_point_binding(self.0)
    }
}

/// Reads a certificate of any version; `None` when it is not one, or something follows it.
pub(crate) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

/// When a certificate expires, in seconds since 1970.
pub(crate) fn expiry(der: &[u8]) -> Option<i64> {
    Some(parse(der)?.validity().not_after.timestamp())
}

/// The first common name of a subject. OpenSSL and PostgreSQL look at the first one too.
pub(crate) fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty() && !name.contains('\0')).then(|| name.to_owned())
}

/// The hash of a certificate for `tls-server-end-point` (RFC 5929, section 4.1): with the hash of
/// the certificate's own signature, or SHA-256 where that is MD5 or SHA-1.
pub(crate) fn end_point_binding(der: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(&parse(der)?.signature_algorithm)? {
        Hash::Sha256 => Sha256::digest(der).to_vec(),
        Hash::Sha384 => Sha384::digest(der).to_vec(),
        Hash::Sha512 => Sha512::digest(der).to_vec(),
    })
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

fn signature_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    if algorithm.algorithm == OID_PKCS1_RSASSAPSS {
        let params = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
        return HASHES
            .iter()
            .find(|(_, oid)| *oid == *params.hash_algorithm_oid())
            .map(|(h, _)| *h);
    }
    SIGNATURES
        .iter()
        .find(|(_, oid)| *oid == algorithm.algorithm)
        .map(|(hash, _)| *hash)
}

const SIGNATURES: [(Hash, Oid<'static>); 7] = [
    (Hash::Sha256, OID_PKCS1_SHA1WITHRSA),
    (Hash::Sha256, OID_PKCS1_SHA256WITHRSA),
    (Hash::Sha384, OID_PKCS1_SHA384WITHRSA),
    (Hash::Sha512, OID_PKCS1_SHA512WITHRSA),
    (Hash::Sha256, OID_SIG_ECDSA_WITH_SHA256),
    (Hash::Sha384, OID_SIG_ECDSA_WITH_SHA384),
    (Hash::Sha512, OID_SIG_ECDSA_WITH_SHA512),
];

const HASHES: [(Hash, Oid<'static>); 3] = [
    (
        Hash::Sha256,
        x509_parser::oid_registry::OID_NIST_HASH_SHA256,
    ),
    (
        Hash::Sha384,
        x509_parser::oid_registry::OID_NIST_HASH_SHA384,
    ),
    (
        Hash::Sha512,
        x509_parser::oid_registry::OID_NIST_HASH_SHA512,
    ),
];
