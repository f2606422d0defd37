//! What clients and servers prove themselves with: certificates, and one password as PostgreSQL keeps it.

use pgweir_harness::{Cluster, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_RSA_SHA256,
};

use crate::step::Failure;

/// Of `postgres`, where a password is asked for.
pub(crate) const PASSWORD: &str = "secret";

/// A certificate and its key, as the text of PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Certificates with RSA keys of 2048 bits, because that is what most servers have.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: Pair,
    /// For the user `postgres`.
    pub(crate) client: Pair,
}

/// The password as it stands in a file of users.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) md5: String,
    pub(crate) scram: String,
}

impl Certificates {
    pub(crate) fn make() -> Result<Self, Failure> {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
        let mut ca = params("pgweir benchmarks", &[])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&key)?.pem();
        let issuer = Issuer::from_params(&ca, &key);
        let leaf = |name: &str, hosts: &[&str]| -> Result<Pair, Failure> {
            let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
            let cert = params(name, hosts)?.signed_by(&key, &issuer)?;
            Ok(Pair {
                cert: cert.pem(),
                key: key.serialize_pem(),
            })
        };
        Ok(Self {
            ca: root,
            server: leaf("localhost", &["localhost", "127.0.0.1"])?,
            client: leaf("postgres", &[])?,
        })
    }

    /// For PostgreSQL.
    pub(crate) fn for_server(&self) -> Tls {
        Tls {
            cert: self.server.cert.clone(),
            key: self.server.key.clone(),
            ca: None,
        }
    }
}

fn params(name: &str, hosts: &[&str]) -> Result<CertificateParams, Failure> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    Ok(params)
}

impl Secrets {
    /// PostgreSQL makes them.
    pub(crate) fn make(cluster: &Cluster) -> Result<Self, Failure> {
        let md5 = format!("SELECT 'md5' || md5('{PASSWORD}postgres')");
        let scram = format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE bench PASSWORD '{PASSWORD}'; \
             SELECT rolpassword FROM pg_authid WHERE rolname = 'bench'"
        );
        Ok(Self {
            md5: cluster.try_psql("postgres", &md5)?,
            scram: cluster.try_psql("postgres", &scram)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_have_keys_of_their_own() {
        let made = Certificates::make().expect("keys and names are plain");
        assert_ne!(made.server.key, made.client.key);
        assert!(made.ca.contains("BEGIN CERTIFICATE"));
    }
}
