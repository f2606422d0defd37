//! A PostgreSQL with TLS, and a pooler that has a certificate.

use std::sync::OnceLock;

use pgweir_tests::{
    Authority, Begin, Cluster, ClusterOptions, Identity, Ini, Pooler, RawClient, Tenant, TlsWire,
};
use rustls::pki_types::CertificateDer;

pub(crate) const PID: &str = "select pg_backend_pid()";
pub(crate) const IS_ENCRYPTED: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct Scene {
    pub(crate) tenant: Tenant,
    pub(crate) authority: &'static Authority,
    /// What the pooler shows its clients.
    pub(crate) leaf: Identity,
}

impl Scene {
    pub(crate) fn new() -> Option<Self> {
        let (postgres, authority) = tls_postgres()?;
        Some(Self {
            tenant: Tenant::of(postgres),
            authority,
            leaf: authority.leaf("localhost", &["localhost", "127.0.0.1"]),
        })
    }

    pub(crate) fn authority_file(&self, ini: Ini) -> Ini {
        ini.file("ca.crt", &self.authority.pem())
    }

    pub(crate) fn with_certificate(&self) -> Ini {
        let ini = self.authority_file(self.tenant.ini());
        self.leaf.towards_clients(ini)
    }

    pub(crate) fn psql(&self, pooler: &Pooler, conninfo: &str) -> Result<String, String> {
        let name = &self.tenant.name;
        pooler
            .try_psql(&format!("dbname={name} {conninfo}"), name, "select 1")
            .map_err(|error| error.to_string())
    }

    /// What PostgreSQL stores for the tenant's password.
    pub(crate) fn scram_secret(&self) -> String {
        let mut root = self.tenant.root();
        let name = &self.tenant.name;
        root.rows(&format!("alter role {name} password '{PASSWORD}'"));
        root.value(&format!(
            "select rolpassword from pg_authid where rolname = '{name}'"
        ))
    }

    pub(crate) fn tls_client(&self, pooler: &Pooler, begin: Begin) -> RawClient {
        let wire = self.tls_wire(pooler, begin);
        let mut client = RawClient::on(Box::new(wire), pooler.port).expect("a socket");
        client.start_login(&[("user", &self.tenant.name), ("database", &self.tenant.name)]);
        assert_eq!(client.finish_login(), Ok(()));
        client
    }

    /// The certificate that a new client is shown.
    pub(crate) fn certificate_of(&self, pooler: &Pooler) -> CertificateDer<'static> {
        self.tls_wire(pooler, Begin::Asked).peer_certificate()
    }

    pub(crate) fn tls_wire(&self, pooler: &Pooler, begin: Begin) -> TlsWire {
        TlsWire::connect(pooler.port, &self.authority.der, begin)
    }
}

pub(crate) fn console_over_tls(scene: &Scene, pooler: &Pooler) -> RawClient {
    let wire = scene.tls_wire(pooler, Begin::Asked);
    let mut client = RawClient::on(Box::new(wire), pooler.port).expect("a socket");
    client.start_login(&[("user", "postgres"), ("database", "pgbouncer")]);
    assert_eq!(client.finish_login(), Ok(()));
    client
}

/// The PostgreSQL with TLS that the tests of this file share, and who signed its certificate.
pub(crate) fn tls_postgres() -> Option<(&'static Cluster, &'static Authority)> {
    static SHARED: OnceLock<Option<(Cluster, Authority)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let authority = Authority::new("authority");
        let leaf = authority.leaf("postgresql", &["localhost", "127.0.0.1"]);
        let postgres = Cluster::start_or_skip(ClusterOptions {
            hba: vec![
                "hostssl all +wants_cert 127.0.0.1/32 cert".to_owned(),
                "host all +wants_scram 127.0.0.1/32 scram-sha-256".to_owned(),
            ],
            tls: Some(leaf.of_postgresql(&authority)),
            ..ClusterOptions::default()
        })?;
        postgres.psql("postgres", "create role wants_cert");
        postgres.psql("postgres", "create role wants_scram");
        Some((postgres, authority))
    });
    shared
        .as_ref()
        .map(|(postgres, authority)| (postgres, authority))
}

/// Replaces one of the files that the pooler was started with.
pub(crate) fn rewrite(pooler: &Pooler, name: &str, text: &str) {
    let path = pooler.ini_path().with_file_name(name);
    std::fs::write(path, text).expect("it is written");
}
