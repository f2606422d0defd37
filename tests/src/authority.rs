//! Certificates for tests.

use pgweir_harness::{Ini, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::CertificateDer;

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// Its own certificate.
    pub der: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The same as a PEM file.
    pub cert: String,
    /// Its private key, as a PEM file.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If there is no key or certificate.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Self {
            der: cert.der().clone(),
            pem: cert.pem(),
            params,
            key,
        }
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate for a name, and more names of hosts.
    ///
    /// # Panics
    /// If there is no key or certificate.
    pub fn leaf(&self, common_name: &str, names: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let signed = params(common_name, names).signed_by(&key, &issuer);
        let cert = signed.expect("a certificate");
        Identity {
            der: cert.der().clone(),
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    /// The pooler shows this to its clients.
    pub fn towards_clients(&self, ini: Ini) -> Ini {
        ini.file("server.crt", &self.cert)
            .file("server.key", &self.key)
            .set("client_tls_cert_file", "{dir}/server.crt")
            .set("client_tls_key_file", "{dir}/server.key")
    }

    /// Files for somebody who shows this to a server.
    pub fn of_client(&self, ini: Ini, name: &str) -> Ini {
        ini.file(&format!("{name}.crt"), &self.cert)
            .file(&format!("{name}.key"), &self.key)
    }

    /// PostgreSQL shows this, and asks for certificates of this authority.
    pub fn of_postgresql(&self, authority: &Authority) -> Tls {
        Tls {
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: Some(authority.pem()),
        }
    }
}

/// What a certificate says of whom it names.
fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}
