//! The checks that the TLS library calls during a handshake.
//!
//! The path is `chain`'s business and the name `name`'s. What is left is the proof that the peer
//! has its certificate's key. It is always asked for, also where nothing else about the certificate
//! is checked. The library cannot read a v1 certificate to find the key in it, so for those the key
//! is taken out here and the signature checked against it alone.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use webpki::{EndEntityCert, RawPublicKeyEntity};

use crate::tls::certificate;
use crate::tls::chain::{Role, Roots};
use crate::tls::name;

/// What is checked of a server's certificate.
pub(crate) enum ServerCheck {
    /// Nothing: encryption without knowing to whom.
    Nothing,
    /// That a root vouches for it.
    Chain(Roots),
    /// And that it is for the host that was called.
    ChainAndName(Roots),
}

/// Checks servers' certificates.
pub(crate) struct ServerVerifier {
    pub(crate) check: ServerCheck,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain =
            |roots: &Roots| roots.verify(leaf, intermediates, Role::Server, now, &self.algorithms);
        match &self.check {
            ServerCheck::Nothing => {}
            ServerCheck::Chain(roots) => chain(roots)?,
            ServerCheck::ChainAndName(roots) => {
                chain(roots)?;
                name::check(leaf, host)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks clients' certificates.
pub(crate) struct ClientVerifier {
    roots: Roots,
    subjects: Vec<DistinguishedName>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    /// A client without a certificate is let in unless it is mandatory; a bad one never.
    pub(crate) fn new(
        roots: Roots,
        mandatory: bool,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Arc<Self> {
        let subjects = roots.subjects();
        Arc::new(Self {
            roots,
            subjects,
            mandatory,
            algorithms,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.roots
            .verify(leaf, intermediates, Role::Client, now, &self.algorithms)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn tls13_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if EndEntityCert::try_from(leaf).is_ok() {
        return verify_tls13_signature(message, leaf, signed, algorithms);
    }
    verify_tls13_signature_with_raw_key(message, &raw_key(leaf)?, signed, algorithms)
}

fn tls12_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if EndEntityCert::try_from(leaf).is_ok() {
        return verify_tls12_signature(message, leaf, signed, algorithms);
    }
    let key = raw_key(leaf)?;
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
    // TLS 1.2 names hash and kind of key but not the curve, so several algorithms may be meant.
    let Some((_, meant)) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme)
    else {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    };
    let fits = meant.iter().any(|algorithm| {
        key.verify_signature(*algorithm, message, signed.signature())
            .is_ok()
    });
    if fits {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

fn raw_key(leaf: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let certificate = certificate::parse(leaf).ok_or(CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(
        certificate.public_key().raw.to_vec(),
    ))
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.check {
            ServerCheck::Nothing => "ServerVerifier(nothing)",
            ServerCheck::Chain(_) => "ServerVerifier(chain)",
            ServerCheck::ChainAndName(_) => "ServerVerifier(chain and name)",
        })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}
