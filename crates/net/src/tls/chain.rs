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

mod checks;

use checks::{check_dates, check_purpose, is_signed_by, may_sign};
use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::{DistinguishedName, OtherError};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
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
mod tests;
