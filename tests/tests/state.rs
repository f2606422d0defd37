//! The promise: what a client sets stays with this client, on whatever server it is served, and reaches nobody else.
//!
//! In transaction mode that holds for parameters that PostgreSQL reports; in session mode for everything.

use std::time::Duration;

use pgweir_tests::{Batch, RawClient, Tenant, start, story};

/// Parameters that PostgreSQL 15 reports, with two values each, as `SHOW` gives them.
const REPORTED: [(&str, &str, &str); 6] = [
    ("application_name", "first", "it's \\the \"second\""),
    ("DateStyle", "ISO, DMY", "SQL, MDY"),
    ("TimeZone", "Europe/Paris", "America/New_York"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("IntervalStyle", "iso_8601", "sql_standard"),
    ("standard_conforming_strings", "off", "on"),
];

#[test]
fn parameters_that_two_clients_set_stay_with_them_over_one_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    for (name, one, two) in REPORTED {
        first.rows(&set(name, one));
        second.rows(&set(name, two));
    }
    for _ in 0..3 {
        for (name, one, two) in REPORTED {
            assert_eq!(first.value(&show(name)), one);
            assert_eq!(second.value(&show(name)), two);
            assert_eq!(value_extended(&mut first, name), one);
            assert_eq!(value_extended(&mut second, name), two);
        }
    }
    assert_eq!(tenant.backends(), 1);
}

#[test]
fn parameters_of_the_startup_message_stay_with_their_clients() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let login = |pick: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        let mut parameters = vec![("user", &*tenant.name), ("database", &*tenant.name)];
        // PostgreSQL's startup message carries this one, but not through PgBouncer.
        let settable = REPORTED
            .iter()
            .filter(|(name, _, _)| *name != "standard_conforming_strings");
        parameters.extend(settable.map(|entry| (entry.0, pick(entry))));
        RawClient::login_with(pooler.port, &parameters)
    };
    let mut first = login(|entry| entry.1);
    let mut second = login(|entry| entry.2);
    for _ in 0..2 {
        for (name, one, two) in REPORTED {
            if name == "standard_conforming_strings" {
                continue;
            }
            assert_eq!(first.value(&show(name)), one);
            assert_eq!(second.value(&show(name)), two);
        }
    }
}

#[test]
fn a_client_that_sets_nothing_has_the_servers_own_values() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let defaults: Vec<String> = REPORTED
        .iter()
        .map(|(name, _, _)| tenant.direct().value(&show(name)))
        .collect();
    let mut setter = tenant.client(&pooler);
    for (name, one, _) in REPORTED {
        setter.rows(&set(name, one));
    }

    let mut fresh = tenant.client(&pooler);

    for ((name, one, _), default) in REPORTED.iter().zip(defaults) {
        assert_eq!(fresh.value(&show(name)), default, "{name}");
        assert_eq!(setter.value(&show(name)), *one);
    }
}

#[test]
fn clients_are_told_of_their_own_changes_only() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);

    assert_eq!(
        first.query("set TimeZone = 'Europe/Paris'"),
        "C(SET) S(TimeZone=Europe/Paris) Z(I)"
    );
    assert_eq!(second.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(first.query("select 2"), "T D(2) C(SELECT 1) Z(I)");
    assert_eq!(second.query("select 3"), "T D(3) C(SELECT 1) Z(I)");
}

#[test]
fn a_change_that_is_rolled_back_is_forgotten() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    first.rows("set application_name = 'kept'");

    first.rows("begin; set application_name = 'lost'");
    assert_eq!(first.value("show application_name"), "lost");
    first.rows("rollback");
    first.rows("begin; set local application_name = 'local'; commit");
    assert_eq!(second.value("select 1"), "1");

    assert_eq!(first.value("show application_name"), "kept");
}

#[test]
fn what_a_vanished_client_had_set_reaches_nobody() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let default = tenant.direct().value("show DateStyle");
    let mut vanishing = tenant.client(&pooler);
    vanishing.rows("begin; set DateStyle = 'German, DMY'");
    vanishing.send(&Batch::new().query("select pg_sleep(5)"));
    drop(vanishing);
    let mut gone_idle = tenant.client(&pooler);
    gone_idle.rows("set DateStyle = 'Postgres, DMY'");
    drop(gone_idle);

    assert_eq!(tenant.client(&pooler).value("show DateStyle"), default);
}

#[test]
fn parameters_follow_their_client_to_another_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    client.rows("set IntervalStyle = 'iso_8601'");
    let first = client.value("select pg_backend_pid()");

    let mut holder = tenant.client(&pooler);
    assert_eq!(
        holder.value("begin; select pg_backend_pid()"),
        first,
        "the last used server is used first"
    );

    assert_ne!(client.value("select pg_backend_pid()"), first);
    assert_eq!(client.value("select interval '1 day'"), "P1D");
}

#[test]
fn options_of_the_startup_message_set_parameters() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let login = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("options", "-c datestyle=German,DMY --timezone=Asia/Tokyo"),
    ];
    let mut client = RawClient::login_with(pooler.port, &login);
    assert_eq!(client.value("show datestyle"), "German, DMY");
    assert_eq!(client.value("show timezone"), "Asia/Tokyo");
}

#[test]
fn parameters_that_cannot_be_kept_are_refused_or_ignored_as_configured() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("ignore_startup_parameters", "extra_float_digits"),
    );
    let login = |name: &str, value: &str| {
        let parameters = [
            ("user", &*tenant.name),
            ("database", &*tenant.name),
            (name, value),
        ];
        RawClient::try_login(pooler.port, &parameters).map(|_| ())
    };
    assert_eq!(login("extra_float_digits", "3"), Ok(()));
    assert_eq!(
        login("work_mem", "1MB"),
        Err("E(FATAL 08P01 unsupported startup parameter: work_mem)".to_owned())
    );
    assert_eq!(
        login("options", "-c work_mem=1MB"),
        Err("E(FATAL 08P01 unsupported startup parameter in options: work_mem)".to_owned())
    );
    assert_eq!(
        login("options", "-s"),
        Err(
            "E(FATAL 08P01 unsupported options startup parameter: only '-c config=val' and \
             '--config=val' are allowed)"
                .to_owned()
        )
    );
}

#[test]
fn the_clients_address_can_be_added_to_its_name() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("application_name_add_host", 1));
    let login = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("application_name", "shop"),
    ];
    let mut client = RawClient::login_with(pooler.port, &login);
    let name = client.value("show application_name");
    assert!(name.starts_with("shop - 127.0.0.1:"), "{name}");
}

#[test]
fn the_welcome_is_that_of_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut reported = tenant.direct().parameters;
    let mut through = tenant.client(&pooler).parameters;
    reported.sort();
    through.sort();
    assert_eq!(through, reported);
}

#[test]
fn a_session_leaves_nothing_to_the_next_one() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("pool_mode", "session")
            .set("default_pool_size", 1),
    );
    let mut first = tenant.client(&pooler);
    let pid = first.value("select pg_backend_pid()");
    first.rows("set work_mem = '1MB'");
    first.rows("create temp table mine (x int)");
    first.rows("listen news");
    first.rows("prepare p as select 1");
    first.rows("select pg_advisory_lock(7)");
    first.rows("declare c cursor with hold for select 1");
    assert_eq!(first.value("show work_mem"), "1MB");
    first.send(&Batch::new().terminate());
    drop(first);

    let mut second = tenant.client(&pooler);

    assert_eq!(second.value("select pg_backend_pid()"), pid);
    assert_eq!(second.value("show work_mem"), "4MB");
    assert_eq!(second.value("select to_regclass('pg_temp.mine')"), "NULL");
    for left in [
        "pg_listening_channels()",
        "pg_prepared_statements",
        "pg_locks where locktype = 'advisory'",
        "pg_cursors",
    ] {
        assert_eq!(
            second.value(&format!("select count(*) from {left}")),
            "0",
            "{left}"
        );
    }
}

#[test]
fn a_session_that_vanishes_in_a_transaction_leaves_nothing_to_the_next_one() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("pool_mode", "session")
            .set("default_pool_size", 1),
    );
    let mut first = tenant.client(&pooler);
    let pid = first.value("select pg_backend_pid()");
    first.rows("set work_mem = '1MB'; listen news");
    first.rows("begin; create table unfinished (x int)");
    drop(first);

    let mut second = tenant.client(&pooler);
    assert_eq!(second.value("select pg_backend_pid()"), pid);
    assert_eq!(second.value("show work_mem"), "4MB");
    assert_eq!(second.value("select to_regclass('unfinished')"), "NULL");
}

#[test]
fn a_session_keeps_what_is_its_own_while_it_lasts() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("pool_mode", "session")
            .set("default_pool_size", 2),
    );
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    first.rows("set work_mem = '1MB'");
    second.rows("set work_mem = '2MB'");
    first.rows("listen news");
    assert_eq!(second.query("notify news, 'hello'"), "C(NOTIFY) Z(I)");

    let told = first.read().expect("a notification").to_string();
    assert!(told.ends_with(",news,hello)"), "{told}");
    assert_eq!(first.value("show work_mem"), "1MB");
    assert_eq!(second.value("show work_mem"), "2MB");
}

#[test]
fn the_reset_query_can_be_another_or_none_or_always_run() {
    let Some(tenant) = Tenant::new() else { return };
    let session = || {
        tenant
            .ini()
            .set("pool_mode", "session")
            .set("default_pool_size", 1)
    };
    let leftover = |pooler: &pgweir_tests::Pooler| {
        tenant.client(pooler).rows("set work_mem = '1MB'");
        tenant.client(pooler).value("show work_mem")
    };
    assert_eq!(
        leftover(&start(session().set("server_reset_query", ""))),
        "1MB"
    );
    assert_eq!(
        leftover(&start(
            session().set("server_reset_query", "set work_mem = '3MB'")
        )),
        "3MB"
    );
    let always = session()
        .set("pool_mode", "transaction")
        .set("server_reset_query_always", 1);
    assert_eq!(leftover(&start(always)), "4MB");
}

#[test]
fn a_reset_query_that_fails_closes_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("pool_mode", "session");
    let pooler = start(
        ini.set("default_pool_size", 1)
            .set("server_reset_query", "select 1/0"),
    );
    let first = tenant.client(&pooler).value("select pg_backend_pid()");
    let second = tenant.client(&pooler).value("select pg_backend_pid()");
    assert_ne!(first, second, "nobody gets a server in an unknown state");
}

#[test]
fn statement_mode_refuses_transactions() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("pool_mode", "statement");
    let pooler = start(ini.set("default_pool_size", 1));
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    client.send(&Batch::new().query("begin"));
    let said = client.until_closed();
    assert!(
        said.ends_with("E(FATAL 08P01 transaction blocks not allowed in statement pooling mode)"),
        "{said}"
    );
    assert_eq!(
        tenant.client(&pooler).query("select 2"),
        "T D(2) C(SELECT 1) Z(I)"
    );
}

#[test]
fn a_server_that_speaks_up_while_idle_is_not_lent_with_old_news() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("session_state", "pgbouncer");
    let pooler = start(ini.set("default_pool_size", 1));
    let mut listener = tenant.client(&pooler);
    // LISTEN stays on the server like that; what then arrives there is nobody's.
    listener.rows("listen news");
    tenant.direct().rows("notify news, 'gossip'");
    std::thread::sleep(Duration::from_millis(100));
    let mut other = tenant.client(&pooler);
    assert_eq!(other.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    listener.send(&Batch::new().query("select 2"));
    assert_eq!(story(&listener.until_ready()), "T D(2) C(SELECT 1) Z(I)");
}

fn set(name: &str, value: &str) -> String {
    format!("set {name} = '{}'", value.replace('\'', "''"))
}

fn show(name: &str) -> String {
    format!("show {name}")
}

fn value_extended(client: &mut RawClient, name: &str) -> String {
    client.send(&Batch::new().run(&show(name)).sync());
    let answer = client.until_ready();
    let row = answer.iter().find(|message| message.tag == b'D');
    row.map(|row| row.values().join("|")).unwrap_or_default()
}
