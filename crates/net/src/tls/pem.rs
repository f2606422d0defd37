//! PEM files. [`Pem::read`] is the only place in this crate that reads one.

use std::fmt;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::tls::certificate;
use crate::tls::error::TlsError;
use crate::tls::parameters::provider;

/// The contents of a PEM file and the name to call it in errors. Wiped when dropped, as it may be a
/// key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    name: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl Pem {
    /// Reads a file. It blocks, and belongs where the configuration is loaded.
    pub fn read(path: &str) -> Result<Self, TlsError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self::from_bytes(path, bytes)),
            Err(source) => Err(TlsError::File {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Contents that were read elsewhere.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes: Zeroizing::new(bytes),
        }
    }

    /// The name to call it in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When the first of the file's certificates to expire does so, in seconds since 1970.
    pub fn expiry(&self) -> Option<i64> {
        let certificates = self.certificates().ok()?;
        let expiries = certificates
            .iter()
            .filter_map(|der| certificate::expiry(der));
        expiries.min()
    }

    /// All certificates in the file; at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.unusable("certificate", error.to_string()))?;
        if certificates.is_empty() {
            return Err(self.unusable("certificate", "no certificate in the file".to_owned()));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        if contains(&self.bytes, b"BEGIN ENCRYPTED PRIVATE KEY")
            || contains(&self.bytes, b"Proc-Type: 4,ENCRYPTED")
        {
            let hint = "the key is encrypted; decrypt it with \"openssl pkey\"".to_owned();
            return Err(self.unusable("private key", hint));
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| {
            let reason = match error {
                rustls::pki_types::pem::Error::NoItemsFound => "no private key in the file".into(),
                other => other.to_string(),
            };
            self.unusable("private key", reason)
        })
    }

    fn unusable(&self, what: &'static str, reason: String) -> TlsError {
        TlsError::Content {
            what,
            name: self.name.clone(),
            reason,
        }
    }

    /// Adds everything that decides whether two settings are the same.
    pub(crate) fn fingerprint(pem: Option<&Self>, into: &mut Sha256) {
        let Some(pem) = pem else {
            into.update([0]);
            return;
        };
        into.update([1]);
        into.update(Sha256::digest(&pem.name));
        into.update(Sha256::digest(&pem.bytes));
    }
}

/// A certificate with its chain and key, ready to be shown.
///
/// The library would refuse an X.509 v1 certificate here, which a small CA made with `openssl x509`
/// still hands out and which every libpq accepts; so the pair is put together by hand, and that the
/// key is the certificate's is checked here.
pub(crate) fn identity(certificate: &Pem, key: &Pem) -> Result<CertifiedKey, TlsError> {
    let chain = certificate.certificates()?;
    let signer = provider()
        .key_provider
        .load_private_key(key.private_key()?)
        .map_err(|error| key.unusable("private key", error.to_string()))?;
    let leaf = chain
        .first()
        .and_then(|leaf| certificate::parse(leaf))
        .ok_or_else(|| {
            certificate.unusable("certificate", "the first one is not X.509".to_owned())
        })?;
    let of_key = signer.public_key();
    let of_key = of_key
        .as_ref()
        .and_then(|spki| match SubjectPublicKeyInfo::from_der(spki) {
            Ok((_, spki)) => Some(spki.subject_public_key.data.into_owned()),
            Err(_) => None,
        });
    if of_key.as_deref() != Some(leaf.public_key().subject_public_key.data.as_ref()) {
        return Err(TlsError::KeyMismatch {
            certificate: certificate.name.clone(),
            key: key.name.clone(),
        });
    }
    Ok(CertifiedKey::new(chain, signer))
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({:?})", self.name)
    }
}
