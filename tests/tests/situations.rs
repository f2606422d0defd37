//! The promise: whatever happens to a client, it is told once, in the words and with the code of its dialect, whatever
//! form it asked in and whether or not it uses TLS; and where its connection is said to go on, it does.

use std::time::Duration;

use pgweir_tests::{
    Batch, Begin, Ini, Pooler, RawClient, Tenant, TlsWire, console, eventually, self_signed_tls,
    start, story,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

const PATIENCE: Duration = Duration::from_secs(5);

/// How a client speaks with the pooler.
#[derive(Clone, Copy, Debug)]
struct Way {
    codes: &'static str,
    encrypted: bool,
}

const WAYS: [Way; 4] = [
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
    fn kept(self, code: &str, text: &str) -> String {
        match self.codes {
            "postgres" => format!("E({code} {text}) Z(I)"),
            _ => format!("E(FATAL 08P01 {text})"),
        }
    }

    /// What a client is told whose connection ends.
    fn closed(self, code: &str, text: &str) -> String {
        match self.codes {
            "postgres" => format!("E(FATAL {code} {text})"),
            _ => format!("E(FATAL 08P01 {text})"),
        }
    }
}

/// A pool of one.
struct Scene {
    way: Way,
    tenant: Tenant,
    pooler: Pooler,
    root: CertificateDer<'static>,
}

impl Scene {
    fn new(way: Way, change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
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
        let pooler = start(change(ini));
        Some(Self {
            way,
            tenant,
            pooler,
            root,
        })
    }

    fn connect(&self) -> RawClient {
        let port = self.pooler.port;
        match self.way.encrypted {
            true => {
                let wire = TlsWire::connect(port, &self.root, Begin::Asked);
                RawClient::on(Box::new(wire), port).expect("a socket")
            }
            false => RawClient::connect(port),
        }
    }

    fn try_login(&self, database: &str) -> Result<RawClient, String> {
        let mut client = self.connect();
        client.start_login(&[("user", &self.tenant.name), ("database", database)]);
        client.finish_login()?;
        Ok(client)
    }

    #[track_caller]
    fn client(&self) -> RawClient {
        self.try_login(&self.tenant.name).expect("it is let in")
    }

    /// The console, in the clear or not.
    #[track_caller]
    fn order(&self, sql: &str) {
        let mut client = self.connect();
        client.start_login(&[("user", "postgres"), ("database", "pgbouncer")]);
        client.finish_login().expect("an admin");
        let said = client.query(sql);
        assert!(
            said.ends_with("Z(I)") && !said.contains("E("),
            "{sql}: {said}"
        );
    }

    /// Sends a batch and compares all that is said, up to the end of the connection if the client is to be sent away.
    /// A connection that goes on serves the next query, once `free` has been called.
    #[track_caller]
    fn hears(&self, form: &str, batch: &Batch, expected: &str) -> Option<RawClient> {
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

    /// Those who are still there are served, and nothing that was refused has been run.
    #[track_caller]
    fn serves_again(&self, kept: Vec<RawClient>) {
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

const INSERT: &str = "insert into trace values ('ran')";

/// Every way to ask for something that needs a server.
fn forms() -> [(&'static str, Batch); 6] {
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

#[test]
fn who_waits_in_vain_is_told_so() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_wait_timeout", "0.2")) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let expected = way.kept("53300", "query_wait_timeout");
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}

#[test]
fn who_finds_the_queue_full_is_told_so() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("max_pool_waiting", 1)) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = scene.client();
        waiter.send(&Batch::new().query("select 'patient'"));
        scene.waits(1);
        let expected = way.kept("53300", "too many clients waiting for a server");
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(
            story(&waiter.until_ready()),
            "T D(patient) C(SELECT 1) Z(I)"
        );
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}

#[test]
fn who_waits_for_a_paused_database_in_vain_is_told_why() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_wait_timeout", "0.2")) else {
            return;
        };
        scene.serves_again(vec![scene.client()]);
        let name = &scene.tenant.name;
        scene.order(&format!("PAUSE {name}"));
        let expected = match way.codes {
            "postgres" => format!("E(57P03 database \"{name}\" is paused) Z(I)"),
            _ => "E(FATAL 08P01 query_wait_timeout)".to_owned(),
        };
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        scene.order(&format!("RESUME {name}"));
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}

#[test]
fn who_comes_during_maintenance_is_told_what_the_operator_says() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let on = format!("MAINTENANCE ON {name} MODE reject MESSAGE 'back at noon'");
        let expected = way.kept("57P03", "back at noon");
        let mut kept = Vec::new();
        for (form, batch) in forms() {
            let mut client = scene.client();
            scene.order(&on);
            client.send(&batch);
            if expected.ends_with("Z(I)") {
                assert_eq!(story(&client.until_ready()), expected, "{form}, {way:?}");
                kept.push(client);
            } else {
                assert_eq!(client.until_closed(), expected, "{form}, {way:?}");
            }
            let login = scene.try_login(name).expect_err("maintenance");
            assert_eq!(login, way.closed("57P03", "back at noon"), "{way:?}");
            scene.order(&format!("MAINTENANCE OFF {name}"));
        }
        scene.serves_again(kept);
    }
}

/// What a client may be doing when its connection is ended, and all that it has been told by then.
fn doings() -> [(&'static str, Batch, &'static str); 6] {
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
    fn busy(&self, doing: &str, batch: &Batch) -> RawClient {
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
    fn is_sent_away(&self, doing: &str, mut client: RawClient, expected: &str) {
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

    fn waits(&self, count: i64) {
        let mut operator = match self.way.encrypted {
            true => {
                let mut client = self.connect();
                client.start_login(&[("user", "postgres"), ("database", "pgbouncer")]);
                client.finish_login().expect("an admin");
                client
            }
            false => console(&self.pooler),
        };
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

#[test]
fn who_is_killed_is_told_so_whatever_it_was_doing() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let expected = way.closed("57P01", "admin forced disconnect");
        for (doing, batch, _) in doings() {
            let client = scene.busy(doing, &batch);
            scene.order(&format!("KILL CLIENTS WHERE user = '{name}'"));
            scene.is_sent_away(doing, client, &expected);
        }
        let expected = way.closed("57P01", "database removed");
        for (doing, batch, _) in doings() {
            let client = scene.busy(doing, &batch);
            scene.order(&format!("KILL {name}"));
            scene.is_sent_away(doing, client, &expected);
            scene.order(&format!("RESUME {name}"));
        }
        scene.serves_again(vec![scene.client()]);
    }
}

#[test]
fn what_postgresql_says_at_its_end_is_said_once() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let expected = "E(FATAL 57P01 terminating connection due to administrator command)";
        let terminate = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'"
        );
        for (doing, batch, told) in doings() {
            let mut client = scene.busy(doing, &batch);
            scene.tenant.root().rows(&terminate);
            if doing == "idle" {
                // Its server was not its own any more.
                eventually(PATIENCE, || scene.tenant.backends(), |count| *count == 0);
                assert_eq!(client.query("select 1"), told, "{way:?}");
            } else if doing == "copy" {
                // PostgreSQL notices when it reads.
                client.send(&Batch::new().copy_data(b"more\n"));
                scene.is_sent_away(doing, client, expected);
            } else {
                scene.is_sent_away(doing, client, expected);
            }
        }
        scene.serves_again(vec![scene.client()]);
    }
}

#[test]
fn a_query_that_takes_too_long_is_canceled_and_its_client_kept_where_that_can_be() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_timeout", "0.5")) else {
            return;
        };
        let canceled = "E(57014 canceling statement due to user request) Z(I)";
        let mut kept = Vec::new();
        for (doing, batch, told) in doings() {
            if matches!(doing, "idle" | "copy" | "transaction") {
                continue;
            }
            let mut client = scene.client();
            client.send(&batch);
            match way.codes {
                "postgres" => {
                    let said = story(&client.until_ready());
                    assert!(
                        said.starts_with(told) && said.ends_with(canceled),
                        "{doing}: {said}"
                    );
                    kept.push(client);
                }
                _ => scene.is_sent_away(doing, client, "E(FATAL 08P01 query timeout)"),
            }
        }
        scene.serves_again(kept);
        // A server that waits for the client's data does not hear a cancel.
        let copying = Batch::new()
            .query("copy trace from stdin")
            .copy_data(b"ran\n");
        let client = scene.busy("copy", &copying);
        scene.is_sent_away("copy", client, &way.closed("57014", "query timeout"));
        scene.serves_again(vec![scene.client()]);
    }
}

#[test]
fn transactions_and_silence_have_their_limits() {
    for way in WAYS {
        for (key, batch, code, text) in [
            (
                "transaction_timeout",
                "begin",
                "25P04",
                "transaction timeout",
            ),
            (
                "idle_transaction_timeout",
                "begin",
                "25P03",
                "idle transaction timeout",
            ),
            (
                "client_idle_timeout",
                "select 1",
                "57P05",
                "client_idle_timeout",
            ),
        ] {
            let Some(scene) = Scene::new(way, |ini| ini.set(key, 1)) else {
                return;
            };
            let mut client = scene.client();
            client.query(batch);
            assert_eq!(
                client.until_closed(),
                way.closed(code, text),
                "{key}, {way:?}"
            );
        }
    }
}

#[test]
fn who_is_not_let_in_is_told_why() {
    for way in WAYS {
        let limited = |ini: Ini| {
            ini.set("max_user_client_connections", 1)
                .set("client_login_timeout", 1)
        };
        let Some(scene) = Scene::new(way, limited) else {
            return;
        };
        let name = &scene.tenant.name;
        let missing = scene.try_login("nowhere").expect_err("no such database");
        // The configuration has a template, so it is PostgreSQL that does not know it.
        let expected = "E(FATAL 3D000 database \"nowhere\" does not exist)";
        assert_eq!(missing, expected, "{way:?}");
        let mut slow = scene.connect();
        slow.send_bytes(&[0, 0, 0]);
        assert_eq!(
            slow.until_closed(),
            way.closed("57014", "client_login_timeout")
        );
        let _first = scene.client();
        let second = scene.try_login(name).expect_err("one is allowed");
        let text = "client connections exceeded (max_user_client_connections)";
        assert_eq!(second, way.closed("53300", text), "{way:?}");

        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        scene.order(&format!("DISABLE {}", scene.tenant.name));
        let disabled = scene
            .try_login(&scene.tenant.name)
            .expect_err("it is disabled");
        let text = format!("database \"{}\" is disabled", scene.tenant.name);
        assert_eq!(disabled, way.closed("57P03", &text));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    }
}

#[test]
fn what_no_protocol_knows_ends_the_connection_with_08p01_in_either_dialect() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let mut client = scene.client();
        client.send_bytes(b"y\0\0\0\x04");
        let said = client.until_closed();
        assert!(said.starts_with("E(FATAL 08P01 "), "{way:?}: {said}");
    }
}
