//! A pool of one, and whoever comes to it in one of four ways.

use std::time::Duration;

use pgweir_tests::{
    Batch, Begin, Ini, Pooler, RawClient, Tenant, TlsWire, eventually, self_signed_tls, start,
    story,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How a client speaks with the pooler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) codes: &'static str,
    pub(crate) encrypted: bool,
}

pub(crate) const WAYS: [Way; 4] = [
    Way {
        codes: "postgres",
        encrypted: false,
    },
    Way {
        codes: "postgres",
        encrypted: true,
    },
    Way {
        codes: "pgbouncer",
        encrypted: false,
    },
    Way {
        codes: "pgbouncer",
        encrypted: true,
    },
];

impl Way {
    /// What a client is told whose connection goes on, where the dialect has a way to.
    pub(crate) fn kept(self, code: &str, text: &str) -> String {
        match self.codes {
            "postgres" => format!("E({code} {text}) Z(I)"),
            _ => format!("E(FATAL 08P01 {text})"),
        }
    }

    /// What a client is told whose connection ends.
    pub(crate) fn closed(self, code: &str, text: &str) -> String {
        match self.codes {
            "postgres" => format!("E(FATAL {code} {text})"),
            _ => format!("E(FATAL 08P01 {text})"),
        }
    }
}

/// A pool of one.
pub(crate) struct Scene {
    pub(crate) way: Way,
    pub(crate) tenant: Tenant,
    pub(crate) pooler: Pooler,
    /// What the pooler was started with.
    pub(crate) ini: Ini,
    root: CertificateDer<'static>,
}

impl Scene {
    pub(crate) fn new(way: Way, change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        tenant.direct().rows("create table trace (line text)");
        let tls = self_signed_tls();
        let root = CertificateDer::from_pem_slice(tls.cert.as_bytes()).expect("a certificate");
        let ini = tenant
            .ini()
            .set("default_pool_size", 1)
            .set("error_codes", way.codes);
        let ini = match way.encrypted {
            true => ini
                .set("client_tls_sslmode", "require")
                .set("client_tls_key_file", "tls.key")
                .set("client_tls_cert_file", "tls.crt")
                .file("tls.key", &tls.key)
                .file("tls.crt", &tls.cert),
            false => ini,
        };
        let ini = change(ini);
        let pooler = start(ini.clone());
        Some(Self {
            way,
            tenant,
            pooler,
            ini,
            root,
        })
    }

    pub(crate) fn connect(&self) -> RawClient {
        let port = self.pooler.port;
        match self.way.encrypted {
            true => {
                let wire = TlsWire::connect(port, &self.root, Begin::Asked);
                RawClient::on(Box::new(wire), port).expect("a socket")
            }
            false => RawClient::connect(port),
        }
    }

    pub(crate) fn try_login(&self, database: &str) -> Result<RawClient, String> {
        let mut client = self.connect();
        client.start_login(&[("user", &self.tenant.name), ("database", database)]);
        client.finish_login()?;
        Ok(client)
    }

    #[track_caller]
    pub(crate) fn client(&self) -> RawClient {
        self.try_login(&self.tenant.name).expect("it is let in")
    }

    /// The console, in the clear or not.
    #[track_caller]
    pub(crate) fn operator(&self) -> RawClient {
        let mut client = self.connect();
        client.start_login(&[("user", "postgres"), ("database", "pgbouncer")]);
        client.finish_login().expect("an admin");
        client
    }

    #[track_caller]
    pub(crate) fn order(&self, sql: &str) {
        let said = self.operator().query(sql);
        assert!(
            said.ends_with("Z(I)") && !said.contains("E("),
            "{sql}: {said}"
        );
    }

    /// Sends a batch and compares all that is said, up to the end of the connection if the client is to be sent away.
    /// A connection that goes on serves the next query, once `free` has been called.
    #[track_caller]
    pub(crate) fn hears(&self, form: &str, batch: &Batch, expected: &str) -> Option<RawClient> {
        let mut client = self.client();
        client.send(batch);
        if expected.ends_with("Z(I)") {
            assert_eq!(
                story(&client.until_ready()),
                expected,
                "{form}, {:?}",
                self.way
            );
            return Some(client);
        }
        assert_eq!(client.until_closed(), expected, "{form}, {:?}", self.way);
        None
    }

    /// The server of the pool is gone, and who comes next wants another one.
    pub(crate) fn lose_servers(&self) {
        let terminate = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
            self.tenant.name
        );
        self.tenant.root().rows(&terminate);
        eventually(PATIENCE, || self.tenant.backends(), |count| *count == 0);
    }

    /// Those who are still there are served, and nothing that was refused has been run.
    #[track_caller]
    pub(crate) fn serves_again(&self, kept: Vec<RawClient>) {
        for mut client in kept {
            assert_eq!(
                client.query("select 1"),
                "T D(1) C(SELECT 1) Z(I)",
                "{:?}",
                self.way
            );
        }
        assert_eq!(
            self.tenant.direct().value("select count(*) from trace"),
            "0"
        );
    }
}

pub(crate) const INSERT: &str = "insert into trace values ('ran')";

/// Every way to ask for something that needs a server.
pub(crate) fn forms() -> [(&'static str, Batch); 6] {
    let copy = Batch::new().query("copy trace from stdin");
    [
        ("simple", Batch::new().query(INSERT)),
        ("extended", Batch::new().run(INSERT).sync()),
        ("pipelined", Batch::new().run(INSERT).run(INSERT).sync()),
        (
            "flushed",
            Batch::new().run(INSERT).flush().run(INSERT).sync(),
        ),
        ("copy", copy.copy_data(b"ran\n").copy_done()),
        ("transaction", Batch::new().query("begin")),
    ]
}

/// What a client may be doing when its connection is ended, and all that it has been told by then.
pub(crate) fn doings() -> [(&'static str, Batch, &'static str); 6] {
    let copy = Batch::new().query("copy trace from stdin");
    [
        (
            "idle",
            Batch::new().query("select 1"),
            "T D(1) C(SELECT 1) Z(I)",
        ),
        ("simple", Batch::new().query("select pg_sleep(20)"), ""),
        (
            "extended",
            Batch::new().run("select pg_sleep(20)").sync(),
            "",
        ),
        (
            "pipelined",
            Batch::new()
                .run("select 1")
                .flush()
                .run("select pg_sleep(20)")
                .sync(),
            "1 2 D(1) C(SELECT 1)",
        ),
        ("copy", copy.copy_data(b"ran\n"), "G"),
        ("transaction", Batch::new().query("begin"), "C(BEGIN) Z(T)"),
    ]
}

impl Scene {
    /// A client in the middle of something.
    #[track_caller]
    pub(crate) fn busy(&self, doing: &str, batch: &Batch) -> RawClient {
        let mut client = self.client();
        client.send(batch);
        if doing == "idle" || doing == "transaction" {
            client.until_ready();
        }
        let state = match doing {
            "idle" => return client,
            "transaction" => "idle in transaction",
            _ => "active",
        };
        let name = &self.tenant.name;
        let count = format!(
            "select count(*) from pg_stat_activity where usename = '{name}' and state = '{state}'"
        );
        let mut root = self.tenant.root();
        eventually(PATIENCE, || root.value(&count), |count| count == "1");
        client
    }

    /// The client is told one thing at the end, and its connection is closed.
    #[track_caller]
    pub(crate) fn is_sent_away(&self, doing: &str, mut client: RawClient, expected: &str) {
        let said = client.until_closed();
        assert!(said.ends_with(expected), "{doing}, {:?}: {said}", self.way);
        assert_eq!(
            said.matches("E(").count(),
            1,
            "{doing}, {:?}: {said}",
            self.way
        );
        assert!(!said.ends_with("Z(I)"), "{doing}, {:?}: {said}", self.way);
    }

    pub(crate) fn waits(&self, count: i64) {
        let mut operator = self.operator();
        eventually(
            PATIENCE,
            || {
                let pools = operator.table("show pools");
                pools
                    .iter()
                    .map(|row| row.number("cl_waiting"))
                    .sum::<i64>()
            },
            |waiting| *waiting == count,
        );
    }
}
