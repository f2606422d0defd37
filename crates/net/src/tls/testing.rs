//! Certificates for tests, also of the old shapes that no current library makes any more.

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData, SigningKey,
};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::tls::certificate;
use crate::tls::pem::Pem;

/// Somebody who signs certificates.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

/// A certificate with its chain and key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub(crate) fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let params = ca_params(name, change);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    /// A root of version 1, which has no way to say that it is a CA.
    pub(crate) fn root_v1(name: &str) -> Self {
        let maker = Self::root(name);
        let subject = certificate::parse(&maker.der)
            .unwrap()
            .subject()
            .as_raw()
            .to_vec();
        let der = v1(&subject, &subject, &maker.key, &maker.key);
        Self { der, ..maker }
    }

    pub(crate) fn intermediate(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let params = ca_params(name, change);
        let key = KeyPair::generate().unwrap();
        let der = params
            .signed_by(&key, &self.issuer())
            .unwrap()
            .der()
            .clone();
        Self { params, key, der }
    }

    /// A certificate as they are made today.
    pub(crate) fn leaf(&self, common_name: &str, alternative_names: &[&str]) -> Identity {
        self.leaf_with(common_name, alternative_names, |_| {})
    }

    pub(crate) fn leaf_with(
        &self,
        common_name: &str,
        alternative_names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<_> = alternative_names
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params
            .signed_by(&key, &self.issuer())
            .unwrap()
            .der()
            .clone();
        Identity {
            chain: vec![der],
            key,
        }
    }

    /// A certificate of version 1.
    pub(crate) fn leaf_v1(&self, common_name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let issuer = certificate::parse(&self.der)
            .unwrap()
            .subject()
            .as_raw()
            .to_vec();
        let subject = subject(common_name);
        Identity {
            chain: vec![v1(&issuer, &subject, &key, &self.key)],
            key,
        }
    }

    pub(crate) fn pem(&self) -> Pem {
        pem_of("ca.crt", std::slice::from_ref(&self.der))
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl Identity {
    /// An issuer that is no CA: the holder of a certificate who signs with its key.
    pub(crate) fn into_authority(self, name: &str) -> Authority {
        let der = self.chain[0].clone();
        Authority {
            params: ca_params(name, |_| {}),
            key: self.key,
            der,
        }
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    pub(crate) fn with(mut self, intermediate: &Authority) -> Self {
        self.chain.push(intermediate.der.clone());
        self
    }

    pub(crate) fn certificate_pem(&self) -> Pem {
        pem_of("leaf.crt", &self.chain)
    }

    pub(crate) fn key_pem(&self) -> Pem {
        Pem::from_bytes("leaf.key", self.key.serialize_pem().into_bytes())
    }
}

pub(crate) fn pem_of(name: &str, certificates: &[CertificateDer<'_>]) -> Pem {
    let mut text = String::new();
    for der in certificates {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        text += &format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    }
    Pem::from_bytes(name, text.into_bytes())
}

pub(crate) fn year(year: i32) -> UnixTime {
    let seconds = rcgen::date_time_ymd(year, 1, 1).unix_timestamp();
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.try_into().unwrap()))
}

fn ca_params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    params
}

/// Valid from 2020 to 2040: `[serial, algorithm, issuer, validity, subject, key]`, signed.
fn v1(issuer: &[u8], subject: &[u8], key: &KeyPair, signer: &KeyPair) -> CertificateDer<'static> {
    const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let validity = tlv(
        0x30,
        &[tlv(0x17, b"200101000000Z"), tlv(0x17, b"400101000000Z")].concat(),
    );
    let to_be_signed = tlv(
        0x30,
        &[
            &tlv(0x02, &[1]),
            ECDSA_WITH_SHA256,
            issuer,
            &validity,
            subject,
            &key.subject_public_key_info(),
        ]
        .concat(),
    );
    let mut signature = vec![0];
    signature.extend(signer.sign(&to_be_signed).unwrap());
    let whole = [&to_be_signed, ECDSA_WITH_SHA256, &tlv(0x03, &signature)].concat();
    CertificateDer::from(tlv(0x30, &whole))
}

fn subject(common_name: &str) -> Vec<u8> {
    let attribute = [b"\x06\x03\x55\x04\x03", &*tlv(0x0c, common_name.as_bytes())].concat();
    tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute)))
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut out = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        _ => vec![tag, 0x82, high, low],
    };
    // DER wants the shortest form of a length.
    if let (0, 0x80..) = (high, low) {
        out = vec![tag, 0x81, low];
    }
    out.extend_from_slice(content);
    out
}
