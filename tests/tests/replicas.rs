//! The promise: with `target_session_attrs` servers are opened where PostgreSQL is what its words say, and nowhere else,
//! also after a standby has been promoted.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::OnceLock,
    thread,
    time::Duration,
};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, Pooler, RawClient, Stop, console, eventually, skip, start,
};

const PRIMARY: &str = "127.0.0.1";
const STANDBY: &str = "127.0.0.2";
const MUTE: &str = "127.0.0.5";
const SOON: Duration = Duration::from_secs(20);

/// A primary and its standby, on one port of two addresses.
struct Pair {
    primary: Cluster,
    standby: Cluster,
}

impl Pair {
    #[track_caller]
    fn new() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            skip("only Linux has all of 127.0.0.0/8");
            return None;
        }
        let primary = Cluster::start_or_skip(ClusterOptions {
            hba: vec!["host all all 127.0.0.0/8 trust".to_owned()],
            ..ClusterOptions::default()
        })?;
        let backup = primary.endpoint().postgres.bin_dir.join("pg_basebackup");
        if !backup.is_file() {
            skip("this PostgreSQL comes without pg_basebackup");
            return None;
        }
        primary.psql("postgres", "create database app");
        let standby = primary.standby(STANDBY).expect("a standby");
        Some(Self { primary, standby })
    }

    /// Of all tests that leave it as it is.
    #[track_caller]
    fn shared() -> Option<&'static Self> {
        static PAIR: OnceLock<Option<Pair>> = OnceLock::new();
        let pair = PAIR.get_or_init(Self::new).as_ref();
        if pair.is_none() {
            skip("there is no pair of servers");
        }
        pair
    }

    /// An entry with both hosts.
    fn entry(&self, wanted: &str) -> String {
        self.at(&format!("{PRIMARY},{STANDBY}"), wanted)
    }

    fn at(&self, hosts: &str, wanted: &str) -> String {
        let port = self.primary.port();
        format!("host={hosts} port={port} dbname=app target_session_attrs={wanted}")
    }

    fn ini(&self) -> Ini {
        Ini::in_front_of(&self.primary)
            .set("pool_mode", "transaction")
            .set("server_login_retry", 2)
            .set("query_wait_timeout", 20)
    }
}

fn client(pooler: &Pooler, database: &str) -> RawClient {
    RawClient::login(pooler.port, database, "postgres")
}

/// A client in a transaction, which keeps a server to itself.
#[track_caller]
fn busy(pooler: &Pooler, database: &str) -> RawClient {
    let mut client = client(pooler, database);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    client
}

/// The addresses of a database's servers, sorted.
fn servers(pooler: &Pooler, database: &str) -> Vec<String> {
    let shown = pooler.console("show servers");
    let rows = shown.iter();
    let mut at: Vec<_> = rows
        .filter(|row| row.get("database") == Some(database))
        .filter_map(|row| row.get("addr").map(str::to_owned))
        .collect();
    at.sort();
    at
}

/// What a client is told for which there is no server.
#[track_caller]
fn refusal(pooler: &Pooler, database: &str) -> String {
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", "postgres"), ("database", database)]);
    client.until_closed();
    pooler.log()
}

#[test]
fn each_word_leads_to_the_hosts_that_fit() {
    let Some(pair) = Pair::shared() else { return };
    let both = [PRIMARY, PRIMARY, STANDBY, STANDBY];
    let words = [
        ("any", both),
        ("read-write", [PRIMARY; 4]),
        ("read-only", [STANDBY; 4]),
        ("primary", [PRIMARY; 4]),
        ("standby", [STANDBY; 4]),
        ("prefer-standby", [STANDBY; 4]),
    ];
    for balance in ["round-robin", "disable"] {
        for hosts in [
            format!("{PRIMARY},{STANDBY}"),
            format!("{STANDBY},{PRIMARY}"),
        ] {
            let mut ini = pair.ini();
            for (word, _) in words {
                let entry = format!("{} load_balance_hosts={balance}", pair.at(&hosts, word));
                ini = ini.database(word, &entry);
            }
            let pooler = start(ini);
            for (word, expected) in words {
                let _clients: Vec<_> = (0..4).map(|_| busy(&pooler, word)).collect();
                let at = servers(&pooler, word);
                if word != "any" || balance == "round-robin" {
                    assert_eq!(at, expected, "{word} {balance} {hosts}: {}", pooler.log());
                }
            }
            // A host that does not fit is not asked for each server.
            let passed_over = pooler
                .log()
                .matches("server is in hot standby mode")
                .count();
            assert!(passed_over <= 2, "{passed_over}: {}", pooler.log());
        }
    }
}

#[test]
fn where_none_fits_it_is_said_why() {
    let Some(pair) = Pair::shared() else { return };
    let hosts = format!("{PRIMARY},127.0.0.4");
    let ini = pair.ini().set("server_down_timeout", 1);
    let ini = ini
        .database("alone", &pair.at(PRIMARY, "standby"))
        .database("list", &pair.at(&hosts, "standby"))
        .database("preferred", &pair.at(&hosts, "prefer-standby"));
    let pooler = start(ini);
    let port = pair.primary.port();
    let log = refusal(&pooler, "list");
    let why = format!(
        "no host for target_session_attrs=standby: {PRIMARY}:{port}: server is not in hot standby mode; \
         127.0.0.4:{port}: connect failed"
    );
    let why_in_other_order = format!(
        "no host for target_session_attrs=standby: 127.0.0.4:{port}: connect failed; \
         {PRIMARY}:{port}: server is not in hot standby mode"
    );
    assert!(
        log.contains("closing because: server is not in hot standby mode"),
        "{log}"
    );
    let told = || {
        let mut client = RawClient::connect(pooler.port);
        client.start_login(&[("user", "postgres"), ("database", "list")]);
        client.until_closed()
    };
    let text = |told: &String| told.contains(&why) || told.contains(&why_in_other_order);
    eventually(SOON, told, text);
    refusal(&pooler, "alone");
    let diagnosis = console(&pooler).table("diagnose alone user postgres");
    let row = diagnosis.find("outcome", "failed").expect("a failed step");
    assert_eq!(
        (row.get("step"), row.get("detail")),
        (Some("role"), Some("server is not in hot standby mode"))
    );
    let mut writer = client(&pooler, "preferred");
    assert_eq!(writer.value("select pg_is_in_recovery()"), "f");
}

#[test]
fn a_standby_that_has_no_room_is_waited_for() {
    let Some(pair) = Pair::shared() else { return };
    let ini = pair.ini().set("max_host_connections", 1);
    let ini = ini
        .set("server_down_timeout", 1)
        .set("server_idle_timeout", 1)
        .set("server_login_retry", "0.5");
    let ini = ini.database("first", &pair.entry("standby"));
    let pooler = start(ini.database("second", &pair.entry("standby")));
    let mut first = busy(&pooler, "first");
    let port = pooler.port;
    let second = thread::spawn(move || {
        RawClient::login(port, "second", "postgres").value("select pg_is_in_recovery()")
    });
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(first.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(second.join().expect("it waits"), "t");
    let log = pooler.log();
    assert!(log.contains("server is not in hot standby mode"), "{log}");
}

#[test]
fn what_a_database_is_set_to_counts() {
    let Some(pair) = Pair::shared() else { return };
    let primary = &pair.primary;
    primary.psql("postgres", "create database archive");
    primary.psql(
        "postgres",
        "alter database archive set default_transaction_read_only = on",
    );
    let entry = |wanted| {
        pair.at(PRIMARY, wanted)
            .replace("dbname=app", "dbname=archive")
    };
    let ini = pair.ini().set("query_wait_timeout", 1);
    let pooler = start(
        ini.database("read", &entry("read-only"))
            .database("write", &entry("read-write")),
    );
    assert_eq!(
        client(&pooler, "read").value("select pg_is_in_recovery()"),
        "f"
    );
    let log = refusal(&pooler, "write");
    assert!(
        log.contains("closing because: session is read-only"),
        "{log}"
    );
}

#[test]
fn an_older_postgresql_is_asked() {
    let Some(pair) = Pair::shared() else { return };
    let port = pair.primary.port();
    let ways = [PRIMARY, STANDBY].map(|host| silent_about_its_role(host, port));
    let mut ini = pair.ini().set("query_wait_timeout", 1);
    for (way, role) in ways.iter().zip(["p", "s"]) {
        for word in [
            "read-write",
            "read-only",
            "primary",
            "standby",
            "prefer-standby",
        ] {
            let entry = format!("host=127.0.0.1 port={way} dbname=app target_session_attrs={word}");
            ini = ini.database(&format!("{role}-{word}"), &entry);
        }
    }
    let pooler = start(ini);
    for (database, standby) in [
        ("p-read-write", "f"),
        ("p-primary", "f"),
        ("p-prefer-standby", "f"),
        ("s-read-only", "t"),
        ("s-standby", "t"),
        ("s-prefer-standby", "t"),
    ] {
        let answer = client(&pooler, database).value("select pg_is_in_recovery()");
        assert_eq!(answer, standby, "{database}");
    }
    for (database, why) in [
        ("p-read-only", "session is not read-only"),
        ("p-standby", "server is not in hot standby mode"),
        ("s-read-write", "session is read-only"),
        ("s-primary", "server is in hot standby mode"),
    ] {
        let log = refusal(&pooler, database);
        let mut lines = log
            .lines()
            .filter(|line| line.contains(&format!("{database}/")));
        let why = format!("closing because: {why}");
        assert!(lines.any(|line| line.contains(&why)), "{database}: {log}");
    }
}

#[test]
fn after_a_promotion_each_pool_finds_its_own() {
    let Some(mut pair) = Pair::new() else { return };
    let ini = pair
        .ini()
        .set("server_login_retry", "0.5")
        .set("default_pool_size", 4);
    let pooler = start(
        ini.database("rw", &pair.entry("read-write"))
            .database("ro", &pair.entry("standby"))
            .database("any", &pair.at(STANDBY, "any")),
    );
    let mut writer = client(&pooler, "rw");
    writer.rows("create table t(n int)");
    let mut readers = [
        busy(&pooler, "ro"),
        busy(&pooler, "ro"),
        busy(&pooler, "ro"),
    ];
    let mut indifferent = client(&pooler, "any");
    indifferent.value("select 1");
    assert_eq!(servers(&pooler, "rw"), [PRIMARY]);
    assert_eq!(servers(&pooler, "ro"), [STANDBY; 3]);

    pair.primary.stop(Stop::Immediate).expect("it stops");
    pair.standby.psql("postgres", "select pg_promote()");
    // The old one has gone with its connections.
    let mut writer = eventually(
        SOON,
        || {
            let mut writer = client(&pooler, "rw");
            let answer = writer.query("insert into t values (1)");
            (answer, writer)
        },
        |(answer, _)| answer.contains("INSERT"),
    )
    .1;
    assert_eq!(servers(&pooler, "rw"), [STANDBY]);

    // PostgreSQL says it with its next answer, to one of them, and that counts for all.
    let [first, second, third] = &mut readers;
    let answer = first.query("commit");
    assert!(answer.contains("S(in_hot_standby=off)"), "{answer}");
    let log = eventually(
        SOON,
        || pooler.log(),
        |log| log.contains("no longer in hot standby mode"),
    );
    assert!(log.contains("3 servers do not fit any more"), "{log}");
    eventually(SOON, || servers(&pooler, "ro").len(), |&count| count == 2);
    assert!(
        second.query("select 1").contains("D(1)"),
        "a lent one is left alone"
    );
    assert!(second.query("commit").contains("C(COMMIT)"));
    assert!(third.query("rollback").contains("C(ROLLBACK)"));
    eventually(SOON, || servers(&pooler, "ro"), Vec::is_empty);
    // Nothing is a standby now.
    first.send(&Batch::new().query("select pg_is_in_recovery()"));
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(servers(&pooler, "ro"), Vec::<String>::new());
    assert_eq!(writer.value("select count(*) from t"), "1");
    assert_eq!(indifferent.value("select 1"), "1");
    assert_eq!(servers(&pooler, "any"), [STANDBY]);
    let log = pooler.log();
    let said = log.matches("no longer in hot standby mode").count();
    assert_eq!(
        said, 1,
        "each session says it, and the first one is heard: {log}"
    );
}

#[test]
fn a_host_that_took_long_to_fail_is_followed_by_the_next() {
    let Some(pair) = Pair::shared() else { return };
    let _silent = silent(MUTE, pair.primary.port());
    let ini = pair
        .ini()
        .set("server_connect_timeout", 2)
        .set("server_close_timeout", 1)
        .set("server_login_retry", 60);
    let entry = pair.at(&format!("{MUTE},{PRIMARY}"), "read-write");
    let pooler = start(ini.database("app", &entry));
    assert_eq!(client(&pooler, "app").value("select 1"), "1");
    assert_eq!(servers(&pooler, "app"), [PRIMARY]);
    let log = pooler.log();
    assert!(log.contains("closing because: connect timeout"), "{log}");
}

#[test]
fn logins_that_are_given_up_are_not_tried_elsewhere() {
    let Some(pair) = Pair::shared() else { return };
    let port = pair.primary.port();
    let _silent = [silent("127.0.0.6", port), silent("127.0.0.7", port)];
    let ini = pair.ini().set("suspend_timeout", 1);
    let pooler = start(ini.database("app", &pair.at("127.0.0.6,127.0.0.7", "primary")));
    let mut newcomer = RawClient::connect(pooler.port);
    newcomer.start_login(&[("user", "postgres"), ("database", "app")]);
    let at = || servers(&pooler, "app");
    eventually(SOON, at, |at| *at == ["127.0.0.6"]);
    assert_eq!(console(&pooler).query("suspend"), "C(SUSPEND) Z(I)");
    let log = pooler.log();
    let given_up = log
        .lines()
        .filter(|line| line.contains("S-") && line.contains("suspend_timeout"));
    assert_eq!(given_up.count(), 1, "{log}");
}

/// A host that accepts connections and says nothing on them, and closes them when we do.
fn silent(host: &str, port: u16) -> thread::JoinHandle<()> {
    let listener = TcpListener::bind((host, port)).expect("the port is free there");
    thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = std::io::copy(&mut near, &mut std::io::sink());
            });
        }
    })
}

/// A way to PostgreSQL on which it does not tell what it is at a login, as before version 14.
fn silent_about_its_role(host: &'static str, port: u16) -> u16 {
    let listener = TcpListener::bind((PRIMARY, 0)).expect("a free port");
    let here = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect((host, port)) else {
                continue;
            };
            let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            let (from_near, to_far) = (clone(&near), clone(&far));
            thread::spawn(move || pass(from_near, to_far));
            thread::spawn(move || pass(far, near));
        }
    });
    here
}

/// One direction, up to its end. A login's answer comes in one piece.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..len];
        for name in ["in_hot_standby", "default_transaction_read_only"] {
            let at = bytes
                .windows(name.len())
                .position(|part| part == name.as_bytes());
            if let Some(at) = at {
                bytes[at] = b'x';
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
