//! The promise: whatever is wrong between a client and PostgreSQL, `pgweir doctor` names it first, by name, and says what
//! to do; `pgweir why` says whom everybody waits for.

use std::{thread, time::Duration};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, Pooler, Program, RawClient, Run, Stop, Tenant, Tls,
    console, eventually, finish_within, start,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

/// Longer than everything that a command waits for by itself.
const COMMAND_MAX: Duration = Duration::from_secs(40);

/// Runs a command against a pooler, as an administrator who knows its configuration.
fn tool(pooler: &Pooler, arguments: &[&str]) -> Run {
    let program = Program::new();
    let mut command = program.command();
    let (word, rest) = arguments.split_at(1);
    command
        .args(word)
        .arg("--config")
        .arg(pooler.ini_path())
        .args(rest);
    finish_within(&mut command, COMMAND_MAX)
}

/// Runs a command that has to find something.
#[track_caller]
fn finds(pooler: &Pooler, arguments: &[&str], parts: &[&str]) -> String {
    let run = tool(pooler, arguments);
    assert_eq!(run.code, Some(1), "{run:?}");
    for part in parts {
        assert!(run.stdout.contains(part), "{part} is not in {}", run.stdout);
    }
    run.stdout
}

/// What happened is told alike: `pgweir incident` names the same cause first.
#[track_caller]
fn incident_names(pooler: &Pooler, first: &str) {
    let ask = || tool(pooler, &["incident"]).stdout;
    eventually(Duration::from_secs(10), ask, |text| text.contains(first));
}

fn asks(mut client: RawClient, sql: &str) -> RawClient {
    client.send(&Batch::new().query(sql));
    client
}

/// Waits until so many clients wait for a server.
fn until_waiting(pooler: &Pooler, tenant: &Tenant, count: i64) {
    let waiting = || {
        let table = console(pooler).table("show pools");
        let row = table
            .find("database", &tenant.name)
            .map(|row| row.number("cl_waiting"));
        row.unwrap_or_default()
    };
    eventually(Duration::from_secs(5), waiting, |waiting| *waiting == count);
}

#[test]
fn nothing_is_wrong_where_all_is_well() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    tenant.client(&pooler).query("select 1");
    let run = tool(
        &pooler,
        &["doctor", &tenant.name, "--verify", "--for", "2s"],
    );
    assert_eq!(run.code, Some(0), "{run:?}");
    for part in [
        "auth",
        "PostgreSQL has",
        "nothing is wrong",
        "verified for 2.0 s",
    ] {
        assert!(run.stdout.contains(part), "{part} is not in {}", run.stdout);
    }
    assert_eq!(tool(&pooler, &["why", &tenant.name]).code, Some(0));
    assert_eq!(tool(&pooler, &["doctor", "--json"]).code, Some(0));
    // What was opened for the question is closed again, and the books balance.
    eventually(
        Duration::from_secs(5),
        || tenant.backends(),
        |count| *count <= 1,
    );
    assert!(!pooler.log().contains("the books do not balance"));
}

#[test]
fn an_application_that_leaks_transactions_is_named() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 2)
            .set("leak_after", 600),
    );
    let mut leaking: Vec<_> = (0..2)
        .map(|_| tenant.client_named(&pooler, "checkout"))
        .collect();
    for client in &mut leaking {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    let _waiter = asks(tenant.client_named(&pooler, "web"), "select 1");
    until_waiting(&pooler, &tenant, 1);
    thread::sleep(Duration::from_millis(1_200));
    finds(
        &pooler,
        &["doctor", &tenant.name],
        &[
            "1. an application leaks transactions: checkout",
            "2 servers held in silence",
            "its last statement: begin",
        ],
    );
    incident_names(&pooler, "1. an application leaks transactions: checkout");
    let text = finds(
        &pooler,
        &["why", &tenant.name],
        &["pool_size of", "app=checkout"],
    );
    assert!(
        text.contains("idle in transaction, last statement: begin"),
        "{text}"
    );
    finds(
        &pooler,
        &["doctor", &tenant.name, "--verify", "--for", "1s"],
        &["NOT WELL", "clients waited in"],
    );
}

#[test]
fn a_session_that_keeps_its_server_is_ended_as_advised() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("pool_mode", "session");
    let pooler = start(ini.set("default_pool_size", 1).set("leak_after", 600));
    let mut keeping = tenant.client_named(&pooler, "checkout");
    assert_eq!(keeping.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let mut waiter = asks(tenant.client_named(&pooler, "web"), "select 1");
    until_waiting(&pooler, &tenant, 1);
    thread::sleep(Duration::from_millis(1_200));
    finds(
        &pooler,
        &["doctor", &tenant.name],
        &[
            "1. an application keeps servers between transactions: checkout",
            "pgweir kill --app 'checkout' --state idle --held 1s --idle 1s --dry-run",
            "client_idle_timeout",
        ],
    );
    let advised = ["--state", "idle", "--held", "1s", "--idle", "1s"];
    let run = tool(
        &pooler,
        &[&["kill", "--app", "checkout"], &advised[..]].concat(),
    );
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("1 client ended"), "{run:?}");
    waiter.until_ready();
}

#[test]
fn a_storm_of_slow_queries_is_named() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let ask = |_| {
        asks(
            tenant.client_named(&pooler, "report"),
            "select pg_sleep(30)",
        )
    };
    let _slow: Vec<_> = (0..2).map(ask).collect();
    let _waiter = asks(tenant.client_named(&pooler, "web"), "select 1");
    until_waiting(&pooler, &tenant, 1);
    thread::sleep(Duration::from_millis(1_200));
    finds(
        &pooler,
        &["doctor", &tenant.name],
        &[
            "1. a storm of slow queries",
            "2 for report",
            "select pg_sleep(?)",
        ],
    );
    incident_names(&pooler, "1. a storm of slow queries");
}

#[test]
fn a_lock_pile_up_is_led_back_to_the_client_behind_the_pooler() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.direct().rows("create table stock (id int)");
    let pooler = tenant.pooler(4);
    let mut blocker = tenant.client_named(&pooler, "nightly");
    assert_eq!(blocker.query("begin"), "C(BEGIN) Z(T)");
    blocker.query("lock table stock in access exclusive mode");
    let ask = |_| asks(tenant.client_named(&pooler, "web"), "select * from stock");
    let mut blocked: Vec<_> = (0..3).map(ask).collect();
    let _waiter = asks(tenant.client_named(&pooler, "web"), "select 1");
    until_waiting(&pooler, &tenant, 1);
    let text = finds(
        &pooler,
        &["why", &tenant.name],
        &[
            "3 servers wait for pid ",
            "by app=nightly at 127.0.0.1:",
            "idle in transaction",
            "waiting: web 3",
        ],
    );
    assert!(
        text.contains("last statement: lock table stock in access exclusive mode"),
        "{text}"
    );
    let text = finds(
        &pooler,
        &["doctor", &tenant.name],
        &["1. a lock pile-up: 3 servers wait", "pgweir kill --client "],
    );
    incident_names(&pooler, "1. a lock pile-up: 3 servers wait");
    // The advice is good.
    let client = text
        .split("--client ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let run = tool(&pooler, &["kill", "--client", client.expect("a number")]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for client in &mut blocked {
        client.until_ready();
    }
}

#[test]
fn a_question_for_which_a_limit_leaves_no_room_is_answered_honestly() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("max_db_connections", 2);
    let pooler = start(ini.set("leak_after", 600));
    let mut leaking: Vec<_> = (0..2)
        .map(|_| tenant.client_named(&pooler, "checkout"))
        .collect();
    for client in &mut leaking {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    let _waiter = asks(tenant.client_named(&pooler, "web"), "select 1");
    until_waiting(&pooler, &tenant, 1);
    thread::sleep(Duration::from_millis(1_200));
    let watch = tenant.watch();
    let room = format!("max_db_connections of {} is 2, 2 in use", tenant.name);
    finds(
        &pooler,
        &["why", &tenant.name],
        &["PostgreSQL could not be asked", &room, "app=checkout"],
    );
    let first = "1. an application leaks transactions: checkout";
    finds(&pooler, &["doctor", &tenant.name], &[first, &room]);
    assert_eq!(watch.end().most, 2);
}

#[test]
fn a_blocker_past_the_pooler_is_named_as_such() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.direct().rows("create table stock (id int)");
    let pooler = tenant.pooler(2);
    let port = tenant.postgres.port();
    let name = tenant.name.as_str();
    let mut psql = RawClient::login_with(
        port,
        &[
            ("user", name),
            ("database", name),
            ("application_name", "by hand"),
        ],
    );
    psql.query("begin");
    psql.query("lock table stock in access exclusive mode");
    let ask = |_| asks(tenant.client_named(&pooler, "web"), "select * from stock");
    let _blocked: Vec<_> = (0..2).map(ask).collect();
    let answer = || tool(&pooler, &["why", name]).stdout;
    let text = eventually(Duration::from_secs(5), answer, |text| {
        text.contains("2 servers wait")
    });
    assert!(
        text.contains("which is not behind this pooler: by hand at 127.0.0.1"),
        "{text}"
    );
}

#[test]
fn a_lock_in_another_database_keeps_nobody_waiting_here() {
    let (Some(tenant), Some(neighbour)) = (Tenant::new(), Tenant::new()) else {
        return;
    };
    let pooler = start(
        tenant
            .ini()
            .database(
                "alias",
                &format!(
                    "host=127.0.0.1 port={} dbname={}",
                    neighbour.postgres.port(),
                    neighbour.name
                ),
            )
            .set("default_pool_size", 4),
    );
    tenant.client(&pooler).query("select 1");
    let mut blocker = neighbour.direct();
    blocker.query("create table stock (id int)");
    blocker.query("grant select on stock to public");
    blocker.query("begin");
    blocker.query("lock table stock in access exclusive mode");
    let parameters = [("user", &*tenant.name), ("database", "alias")];
    let ask = |_| {
        let client = RawClient::login_with(pooler.port, &parameters);
        asks(client, "select * from stock")
    };
    let _blocked: Vec<_> = (0..2).map(ask).collect();
    let there = || tool(&pooler, &["why", "alias"]).stdout;
    eventually(Duration::from_secs(5), there, |text| {
        text.contains("2 servers wait for pid ")
    });
    let here = tool(&pooler, &["why", &tenant.name]);
    assert!(here.stdout.contains("no server for a lock"), "{here:?}");
    assert_eq!(here.code, Some(0), "{here:?}");
    assert_eq!(tool(&pooler, &["doctor", &tenant.name]).code, Some(0));
}

/// A PostgreSQL of the test's own.
fn cluster(options: ClusterOptions) -> Option<Cluster> {
    let cluster = Cluster::start_or_skip(options)?;
    cluster.psql("postgres", "create role app login password 'first secret'");
    cluster.psql("postgres", "create database app owner app");
    Some(cluster)
}

fn in_front_of(cluster: &Cluster) -> Ini {
    let server = format!("host=127.0.0.1 port={} dbname=app user=app", cluster.port());
    Ini::in_front_of(cluster)
        .database("app", &server)
        .set("server_login_retry", 1)
        .set("pool_mode", "transaction")
}

#[test]
fn a_prepared_transaction_that_is_waited_for_is_named() {
    let options = ClusterOptions {
        conf: vec!["max_prepared_transactions = 4".to_owned()],
        ..ClusterOptions::default()
    };
    let Some(postgres) = cluster(options) else {
        return;
    };
    let pooler = start(in_front_of(&postgres));
    let mut direct = RawClient::login(postgres.port(), "app", "app");
    for sql in [
        "create table stock (id int, n int)",
        "create table other (id int)",
        "insert into stock values (1, 1)",
        "begin",
        "insert into other values (1)",
        "prepare transaction 'innocent'",
        "begin",
        "update stock set n = 2 where id = 1",
        "prepare transaction 'it''s 7'",
    ] {
        direct.query(sql);
    }
    // One waits for a row, and one for the table.
    let _blocked = [
        "update stock set n = 3 where id = 1",
        "lock table stock in access exclusive mode",
    ]
    .map(|sql| {
        let mut client = RawClient::login(pooler.port, "app", "postgres");
        client.query("begin");
        asks(client, sql)
    });
    let ask = || tool(&pooler, &["why", "app"]).stdout;
    let text = eventually(Duration::from_secs(5), ask, |text| {
        text.contains("2 servers wait for a prepared transaction of user app")
    });
    assert!(
        text.contains("COMMIT PREPARED 'it''s 7' or ROLLBACK PREPARED 'it''s 7'"),
        "{text}"
    );
    assert!(!text.contains("innocent"), "{text}");
    let text = finds(
        &pooler,
        &["doctor", "app"],
        &["1. a lock pile-up: 2 servers wait for a prepared transaction"],
    );
    assert!(
        text.contains("as user app: COMMIT PREPARED 'it''s 7', or ROLLBACK PREPARED 'it''s 7'"),
        "{text}"
    );
    assert!(!text.contains("pg_cancel_backend"), "{text}");
    direct.query("rollback prepared 'it''s 7'");
    direct.query("rollback prepared 'innocent'");
}

#[test]
fn a_postgres_that_is_down_is_named() {
    let Some(mut postgres) = cluster(ClusterOptions::default()) else {
        return;
    };
    let pooler = start(in_front_of(&postgres));
    RawClient::login(pooler.port, "app", "postgres").query("select 1");
    postgres.stop(Stop::Fast).expect("it stops");
    finds(
        &pooler,
        &["doctor", "app"],
        &[
            "1. PostgreSQL is down",
            "tcp",
            "Connection refused",
            "start PostgreSQL",
        ],
    );
    incident_names(&pooler, "1. PostgreSQL is down");
    let run = tool(&pooler, &["why", "app"]);
    assert!(
        run.stdout.contains("PostgreSQL could not be asked"),
        "{run:?}"
    );
    postgres.start_again().expect("it starts");
    let again = || tool(&pooler, &["doctor", "app"]).code;
    eventually(Duration::from_secs(20), again, |code| *code == Some(0));
}

#[test]
fn sessions_that_eat_postgres_are_named() {
    let options = ClusterOptions {
        max_connections: 12,
        ..ClusterOptions::default()
    };
    let Some(postgres) = cluster(options) else {
        return;
    };
    let pooler = start(in_front_of(&postgres));
    let mut client = RawClient::login(pooler.port, "app", "postgres");
    client.query("select 1");
    let parameters = [
        ("user", "app"),
        ("database", "app"),
        ("application_name", "cron"),
    ];
    let mut strangers = Vec::new();
    while let Ok(stranger) = RawClient::try_login(postgres.port(), &parameters) {
        strangers.push(stranger);
    }
    assert!(strangers.len() > 5);
    finds(
        &pooler,
        &["doctor", "app"],
        &[
            "1. PostgreSQL's connections are taken by sessions that do not come through this pooler",
            "of application cron",
        ],
    );
    incident_names(
        &pooler,
        "1. PostgreSQL's connections are taken by sessions that do not come through this pooler",
    );
}

#[test]
fn a_password_that_was_changed_on_one_side_is_named_and_not_shown() {
    let options = ClusterOptions {
        hba: vec!["host app app 127.0.0.1/32 scram-sha-256".to_owned()],
        ..ClusterOptions::default()
    };
    let Some(postgres) = cluster(options) else {
        return;
    };
    let users = "\"postgres\" \"\"\n\"app\" \"first secret\"\n";
    let pooler = start(in_front_of(&postgres).file("userlist.txt", users));
    let run = tool(&pooler, &["doctor", "app", "--auth", "app"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.stdout.contains("with a password from the auth_file"),
        "{run:?}"
    );
    postgres.psql("postgres", "alter role app password 'second secret'");
    let text = finds(
        &pooler,
        &["doctor", "app", "--auth", "app"],
        &[
            "1. PostgreSQL refuses the pooler's password",
            "(28P01)",
            "then RELOAD",
        ],
    );
    incident_names(&pooler, "1. PostgreSQL refuses the pooler's password");
    assert!(!text.contains("secret\""), "{text}");
    assert!(
        !text.contains("first secret") && !text.contains("second secret"),
        "{text}"
    );
}

#[test]
fn a_certificate_that_has_expired_is_named() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let mut expired = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let expired = expired.signed_by(&own, &issuer).expect("a certificate");
    let options = ClusterOptions {
        tls: Some(Tls {
            cert: expired.pem(),
            key: own.serialize_pem(),
            ca: None,
        }),
        ..ClusterOptions::default()
    };
    let Some(postgres) = cluster(options) else {
        return;
    };
    let ini = in_front_of(&postgres)
        .set("server_tls_sslmode", "verify-ca")
        .set("server_tls_ca_file", "{dir}/ca.crt")
        .file("ca.crt", &authority.pem());
    let pooler = start(ini);
    finds(
        &pooler,
        &["doctor", "app"],
        &[
            "1. PostgreSQL's certificate has expired",
            "tls",
            "renew the server's certificate",
        ],
    );
    incident_names(&pooler, "1. PostgreSQL's certificate has expired");
}

#[test]
fn an_order_of_an_operator_is_the_first_cause() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    tenant.client(&pooler).query("select 1");
    console(&pooler).query(&format!("maintenance on {} ttl 1h", tenant.name));
    let advice = format!("pgweir maintenance off {}", tenant.name);
    finds(
        &pooler,
        &["doctor", &tenant.name],
        &["1. ", "is under maintenance", &advice],
    );
    incident_names(&pooler, &format!("1. {} is under maintenance", tenant.name));
}

#[test]
fn a_pause_of_everything_or_of_one_database_is_the_first_cause() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let name = tenant.name.as_str();
    let mut client = tenant.client(&pooler);
    client.query("select 1");
    for (database, title) in [
        (
            "",
            "1. every database is paused (PAUSE on the console".to_owned(),
        ),
        (name, format!("1. {name} is paused (PAUSE or KILL")),
    ] {
        let mut operator = console(&pooler);
        assert_eq!(
            operator.query(&format!("pause {database}")),
            "C(PAUSE) Z(I)"
        );
        client.send(&Batch::new().query("select 1"));
        until_waiting(&pooler, &tenant, 1);
        finds(&pooler, &["doctor", name], &[&title]);
        incident_names(&pooler, &title);
        assert_eq!(
            operator.query(&format!("resume {database}")),
            "C(RESUME) Z(I)"
        );
        client.until_ready();
    }
}
