//! The promise: an operator who comes late still sees what happened, second by second, also while PostgreSQL is down; and
//! what is handed on has no secrets in it.

use std::{process::Command, thread, time::Duration};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, Pooler, Program, RawClient, Run, Stop, Tenant, console,
    eventually, finish_within, start,
};

/// Longer than everything that a command waits for by itself.
const COMMAND_MAX: Duration = Duration::from_secs(30);

fn run_in(program: &Program, pooler: &Pooler, arguments: &[&str]) -> Run {
    let mut command = program.command();
    let (word, rest) = arguments.split_at(1);
    command
        .args(word)
        .arg("--config")
        .arg(pooler.ini_path())
        .args(rest);
    finish_within(&mut command, COMMAND_MAX)
}

fn tool(pooler: &Pooler, arguments: &[&str]) -> Run {
    run_in(&Program::new(), pooler, arguments)
}

#[track_caller]
fn ends_with(run: &Run, code: i32, parts: &[&str]) {
    assert_eq!(run.code, Some(code), "{run:?}");
    for part in parts {
        assert!(run.stdout.contains(part), "{part} is not in {}", run.stdout);
    }
}

#[test]
fn waits_that_are_over_are_on_the_time_line() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    ends_with(
        &tool(&pooler, &["incident"]),
        0,
        &["no client waited for a second"],
    );
    let mut holder = tenant.client_named(&pooler, "checkout");
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client_named(&pooler, "web");
    waiter.send(&Batch::new().query("select 1"));
    thread::sleep(Duration::from_millis(3_500));
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    waiter.until_ready();
    let database = format!(
        "{}: clients waited; up to 1 client in the queue",
        tenant.name
    );
    let over = || tool(&pooler, &["incident"]);
    let run = eventually(Duration::from_secs(5), over, |run| {
        run.stdout.contains(&database)
    });
    ends_with(
        &run,
        1,
        &[
            "1. clients held servers in an open transaction and said nothing",
            "100 % of",
        ],
    );
    ends_with(&tool(&pooler, &["incident", "nobody"]), 0, &[]);
    ends_with(
        &tool(&pooler, &["incident", "--json"]),
        1,
        &["\"matter\": \"waiting\""],
    );
    let later = || tool(&pooler, &["incident", "--last", "1s"]).code;
    eventually(Duration::from_secs(5), later, |code| *code == Some(0));
}

/// A PostgreSQL of the test's own, with a pooler that has secrets in its configuration.
fn scene() -> Option<(Cluster, Pooler)> {
    let postgres = Cluster::start_or_skip(ClusterOptions::default())?;
    postgres.psql("postgres", "create role app login");
    postgres.psql("postgres", "create database app owner app");
    let server = format!(
        "host=127.0.0.1 port={} user=app password=hunter2",
        postgres.port()
    );
    let ini = Ini::in_front_of(&postgres)
        .database("app", &server)
        .set("server_login_retry", 1)
        .set("server_down_timeout", 1)
        .set(
            "auth_ldap_options",
            "ldapserver=127.0.0.1 ldapbinddn=\"cn=x\" ldapbindpasswd=hunter3",
        )
        .file("userlist.txt", "\"postgres\" \"hunter4\"\n");
    Some((postgres, start(ini)))
}

#[test]
fn a_postgres_that_was_down_is_on_the_time_line_while_it_is() {
    let Some((mut postgres, pooler)) = scene() else {
        return;
    };
    let mut client = RawClient::login(pooler.port, "app", "postgres");
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let mut operator = console(&pooler);
    let order = "SET auth_ldap_options = 'ldapserver=::1 ldapbindpasswd=hunter5' TTL 1h";
    assert_eq!(operator.query(order), "C(SET) Z(I)");
    let overrides = operator.table("show overrides");
    let row = overrides.find("key", "auth_ldap_options").expect("a row");
    let values = (row.get("value"), row.get("reverts_to"));
    assert_eq!(values, (Some("****"), Some("****")));
    let report = tool(&pooler, &["report"]);
    assert!(
        report.stdout.contains("auth_ldap_options = ****"),
        "{report:?}"
    );
    postgres.stop(Stop::Fast).expect("it stops");
    for _ in 0..3 {
        let parameters = [("user", "postgres"), ("database", "app")];
        if let Ok(mut client) = RawClient::try_login(pooler.port, &parameters) {
            client.send(&Batch::new().query("select 1"));
            client.until_end();
        }
        thread::sleep(Duration::from_millis(700));
    }
    let program = Program::new();
    let bundle = program.path("incident.tar");
    let bundle = bundle.to_str().expect("a plain path");
    let run = run_in(&program, &pooler, &["incident", "--bundle", bundle]);
    ends_with(
        &run,
        1,
        &[
            "app: servers could not be opened (tcp: ",
            "Connection refused",
            "1. PostgreSQL is down",
        ],
    );
    let listed = tar(&["-tf", bundle]);
    for name in [
        "incident/report.txt",
        "incident/tables/samples.json",
        "incident/tables/config.json",
    ] {
        assert!(listed.contains(name), "{listed}");
    }
    let everything = tar(&["-xOf", bundle]);
    assert!(
        everything.contains("auth_ldap_options") && everything.contains("(removed)"),
        "{everything}"
    );
    assert!(!everything.contains("hunter"), "{everything}");
}

fn tar(arguments: &[&str]) -> String {
    let output = Command::new("tar")
        .args(arguments)
        .output()
        .expect("tar is everywhere");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_top_of_the_pools_is_shown_once_for_scripts() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client_named(&pooler, "web");
    client.query("begin");
    let run = tool(&pooler, &["top", "--once", "--interval", "200ms"]);
    ends_with(
        &run,
        0,
        &[
            "1 client at work or idle, 0 waiting",
            &tenant.name,
            "idle in transaction",
        ],
    );
    assert!(!run.stdout.contains('\x1b'), "{run:?}");
    ends_with(
        &tool(&pooler, &["top", "--once", "--json"]),
        0,
        &["queries_per_second"],
    );
}

#[test]
fn a_report_compares_limits_with_what_was_needed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("max_db_connections", 50)
            .set("max_client_conn", 4),
    );
    let _clients: Vec<_> = (0..3).map(|_| tenant.client(&pooler)).collect();
    tenant.client(&pooler).query("select 1");
    let part = format!(
        "max_db_connections of {} is much larger than needed",
        tenant.name
    );
    ends_with(
        &tool(&pooler, &["report"]),
        1,
        &[&part, "max_client_conn was reached"],
    );
}

#[test]
fn the_log_is_counted_minute_by_minute() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for _ in 0..5 {
        let refused = RawClient::try_login(pooler.port, &[("user", "stranger"), ("database", "x")]);
        assert!(refused.is_err());
    }
    let table = console(&pooler).table("show events");
    let text = table.to_string();
    let counted: i64 = table
        .iter()
        .filter(|row| {
            row.get("text")
                .is_some_and(|text| text.starts_with("pooler error: "))
        })
        .map(|row| row.number("count"))
        .sum();
    assert_eq!(counted, 5, "{text}");
    let samples = || console(&pooler).table("show samples").rows.len();
    tenant.client(&pooler).query("select 1");
    eventually(Duration::from_secs(5), samples, |count| *count > 0);
}
