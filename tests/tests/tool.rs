//! The promise: an operator's question is one command, answered in words by the program itself, with an exit code that
//! scripts can go by.

use std::{fs, time::Duration};

use pgweir_tests::{
    Batch, Ini, Pooler, Program, RawClient, Run, Tenant, console, eventually, finish,
    self_signed_tls, start,
};

/// Runs a command against a pooler, as an administrator who knows its configuration.
fn tool(pooler: &Pooler, arguments: &[&str]) -> Run {
    let program = Program::new();
    let mut command = program.command();
    let (config, (words, rest)) = (pooler.ini_path(), arguments.split_at(1));
    command.args(words).arg("--config").arg(config).args(rest);
    finish(&mut command)
}

#[track_caller]
fn ends_with(run: &Run, code: i32, parts: &[&str]) {
    assert_eq!(run.code, Some(code), "{run:?}");
    for part in parts {
        assert!(run.all().contains(part), "{part} is not in {}", run.all());
    }
}

/// A client in the middle of a transaction.
fn holder(tenant: &Tenant, pooler: &Pooler, application: &str) -> RawClient {
    let mut client = tenant.client_named(pooler, application);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    client
}

#[test]
fn a_budget_is_planned_without_a_pooler() {
    let program = Program::new();
    let ini = "[databases]\nshop = host=db\nblog = host=db user=writer\n[pgbouncer]\ndefault_pool_size = 20\n";
    program.write("a.ini", ini);
    let run = program.run(&["budget", "a.ini", "--postgres-max", "100", "--users", "3"]);
    ends_with(
        &run,
        0,
        &[
            "PostgreSQL at db:5432",
            "one pooler with 3 users: 80",
            "it fits",
        ],
    );
    let run = program.run(&[
        "budget",
        "a.ini",
        "--postgres-max",
        "100",
        "--users",
        "3",
        "--replicas",
        "2",
    ]);
    ends_with(
        &run,
        1,
        &[
            "2 poolers: 160",
            "IT DOES NOT FIT",
            "max_host_connections = 86 with fleet = 2",
        ],
    );
    let run = program.run(&[
        "budget",
        "a.ini",
        "--postgres-max",
        "100",
        "--users",
        "9",
        "--json",
    ]);
    ends_with(&run, 1, &["\"fits\": false", "\"servers_of_all\": 200"]);
    let run = program.run(&["budget", "a.ini"]);
    ends_with(
        &run,
        2,
        &["not known at db:5432: give it with --postgres-max"],
    );
    let run = program.run(&["budget", "missing.ini"]);
    ends_with(&run, 2, &["missing.ini cannot be used"]);
}

#[test]
fn a_byte_that_is_no_text_is_no_reason_to_refuse_a_configuration() {
    let program = Program::new();
    let ini = b"; f\xfcr den Laden\n[databases]\nshop = host=db\n[pgbouncer]\n";
    fs::write(program.path("a.ini"), ini).expect("a directory of ours");
    let run = program.run(&["budget", "a.ini", "--postgres-max", "100", "--users", "1"]);
    ends_with(&run, 0, &["it fits"]);
}

/// A database with a forced user, as whom PostgreSQL can be asked.
fn forced(tenant: &Tenant) -> Ini {
    let server = format!(
        "host=127.0.0.1 port={} dbname={1} user={1}",
        tenant.postgres.port(),
        tenant.name
    );
    tenant.ini().database("forced", &server)
}

#[test]
fn a_budget_asks_postgres_or_the_pooler_what_there_is() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(forced(&tenant).set("default_pool_size", 80));
    let run = tool(&pooler, &["budget"]);
    ends_with(
        &run,
        0,
        &[
            "PostgreSQL has 297 for ordinary users (max_connections 300 less 3 reserved, as PostgreSQL says)",
        ],
    );
    let mut client = RawClient::login(pooler.port, "forced", &tenant.name);
    client.query("select 1");
    let ask = || tool(&pooler, &["budget"]).stdout;
    eventually(Duration::from_secs(5), ask, |text| {
        text.contains("as the running pooler was told")
    });
    let run = tool(&pooler, &["budget", "--users", "2", "--replicas", "2"]);
    ends_with(&run, 1, &["IT DOES NOT FIT"]);
}

#[test]
fn leaks_are_told_in_words_and_can_be_ended() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 3)
            .set("leak_after", 1),
    );
    ends_with(
        &tool(&pooler, &["leaks"]),
        0,
        &["nobody is suspected of a leak"],
    );
    let mut client = holder(&tenant, &pooler, "checkout");
    let ask = || tool(&pooler, &["leaks"]);
    let run = eventually(Duration::from_secs(5), ask, |run| run.code == Some(1));
    ends_with(
        &run,
        1,
        &[
            "app=checkout",
            "idle in transaction",
            "last: begin",
            "pgweir kill --client",
        ],
    );
    ends_with(
        &tool(&pooler, &["leaks", "--json"]),
        1,
        &["\"application_name\": \"checkout\""],
    );
    ends_with(&tool(&pooler, &["leaks", "nobody"]), 0, &[]);
    ends_with(
        &tool(&pooler, &["leaks", "--held", "1s"]),
        1,
        &["held for 1.0 s or longer", "checkout"],
    );

    ends_with(
        &tool(&pooler, &["kill", "--app", "other"]),
        1,
        &["no client fits"],
    );
    ends_with(
        &tool(&pooler, &["kill", "--app", "checkout", "--dry-run"]),
        0,
        &["1 client would be ended"],
    );
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
    let run = tool(
        &pooler,
        &[
            "kill",
            "--app",
            "checkout",
            "--state",
            "idle in transaction",
        ],
    );
    ends_with(&run, 0, &["1 client ended"]);
    assert!(client.until_closed().contains("admin forced disconnect"));
    ends_with(&tool(&pooler, &["kill"]), 2, &["say which clients"]);
    ends_with(
        &tool(&pooler, &["kill", "colour = red"]),
        2,
        &["syntax error at \"colour\""],
    );
}

#[test]
fn maintenance_is_begun_watched_and_ended() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(3);
    let name = tenant.name.as_str();
    let mut client = holder(&tenant, &pooler, "batch");
    let run = on(
        &pooler,
        &[
            "on",
            name,
            "--message",
            "back soon",
            "--ttl",
            "1h",
            "--wait",
            "300ms",
        ],
    );
    ends_with(
        &run,
        1,
        &[
            "mode hold, ends in 60 min",
            "back soon",
            "still busy: app=batch",
        ],
    );
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    ends_with(
        &on(&pooler, &["on", name, "--mode", "reject", "--wait", "2s"]),
        0,
        &["mode reject, until it is ended"],
    );
    ends_with(&on(&pooler, &["status"]), 0, &[name]);
    ends_with(&on(&pooler, &["off", name]), 0, &["is open"]);
    ends_with(
        &on(&pooler, &["off", name]),
        1,
        &["the pooler refuses", "is not under maintenance"],
    );
    assert_eq!(
        tenant.client_named(&pooler, "x").query("select 1"),
        "T D(1) C(SELECT 1) Z(I)"
    );
}

/// `pgweir maintenance`, whose options stand behind its second word.
fn on(pooler: &Pooler, arguments: &[&str]) -> Run {
    let program = Program::new();
    let mut command = program.command();
    command
        .arg("maintenance")
        .args(arguments)
        .arg("--config")
        .arg(pooler.ini_path());
    finish(&mut command)
}

#[test]
fn a_key_is_changed_for_a_while_if_that_fits() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(forced(&tenant).set("default_pool_size", 3));
    RawClient::login(pooler.port, "forced", &tenant.name).query("select 1");
    let facts = || console(&pooler).table("show budget");
    eventually(Duration::from_secs(5), facts, |table| {
        table.find("name", "max_connections").is_some()
    });
    let run = tool(
        &pooler,
        &[
            "resize",
            "pool_size=400",
            "--database",
            "forced",
            "--ttl",
            "1h",
        ],
    );
    ends_with(
        &run,
        1,
        &["it does not fit", "forced", "nothing was changed"],
    );
    let run = tool(
        &pooler,
        &[
            "resize",
            "pool_size=5",
            "--database",
            "forced",
            "--ttl",
            "1h",
        ],
    );
    ends_with(
        &run,
        0,
        &["pool_size is 5 for 60 min, and then what the main section says again"],
    );
    let overrides = console(&pooler).table("show overrides");
    assert_eq!(
        overrides
            .find("key", "pool_size")
            .and_then(|row| row.get("value")),
        Some("5")
    );
    let run = tool(
        &pooler,
        &[
            "resize",
            "pool_size=400",
            "--database",
            "forced",
            "--ttl",
            "1h",
            "--force",
        ],
    );
    ends_with(&run, 0, &["forced although it does not fit"]);
    ends_with(
        &tool(&pooler, &["resize", "pol_size=5", "--ttl", "1h"]),
        2,
        &["unknown parameter: pol_size"],
    );
    ends_with(
        &tool(&pooler, &["resize", "pool_size", "--ttl", "1h"]),
        2,
        &["write KEY=VALUE"],
    );
}

#[test]
fn a_drain_lets_transactions_end_and_lists_whom_it_cut() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(3);
    let _idle = tenant.client_named(&pooler, "idle");
    ends_with(
        &tool(&pooler, &["drain", &tenant.name, "--within", "1s"]),
        0,
        &["1 client of"],
    );
    let _busy = holder(&tenant, &pooler, "stubborn");
    let run = tool(&pooler, &["drain", &tenant.name, "--within", "1s"]);
    ends_with(&run, 1, &["cut in the middle", "stubborn"]);
}

#[test]
fn the_console_is_spoken_to_with_tls_where_it_is_offered() {
    let Some(tenant) = Tenant::new() else { return };
    let (own, strange) = (self_signed_tls(), self_signed_tls());
    let ini = tenant
        .ini()
        .set("client_tls_sslmode", "require")
        .set("client_tls_cert_file", "{dir}/server.crt")
        .set("client_tls_key_file", "{dir}/server.key")
        .file("server.crt", &own.cert)
        .file("server.key", &own.key);
    let pooler = start(ini);
    let program = Program::new();
    program.write("strange.crt", &strange.cert);
    let port = pooler.port.to_string();
    let place = [
        "leaks",
        "--host",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "postgres",
    ];
    ends_with(&program.run(&place), 0, &["nobody is suspected"]);
    assert!(
        pooler.log().contains("tls=TLSv1.3/TLS_"),
        "{}",
        pooler.log()
    );
    let run = program.run(&[&place[..], &["--tls-ca", "strange.crt"]].concat());
    ends_with(&run, 2, &["certificate verify failed"]);
}

#[test]
fn a_console_that_is_not_there_is_told_apart_from_one_that_refuses() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::new();
    let run = program.run(&["leaks", "--host", "127.0.0.1", "-p", "1"]);
    ends_with(&run, 2, &["no console at 127.0.0.1 port 1", "refused"]);
    let pooler = tenant.pooler(1);
    let port = pooler.port.to_string();
    let run = program.run(&[
        "leaks",
        "--host",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        &tenant.name,
    ]);
    ends_with(&run, 2, &["not allowed"]);
    let run = program.run(&[
        "leaks",
        "--host",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "postgres",
    ]);
    ends_with(&run, 0, &[]);
    let mut command = program.command();
    command.envs([
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &*port),
        ("PGUSER", "postgres"),
    ]);
    ends_with(&finish(command.arg("leaks")), 0, &[]);
    // A client of the pooler is not disturbed by any of this.
    let mut client = tenant.client_named(&pooler, "x");
    client.send(&Batch::new().query("select 1"));
    client.until_ready();
    ends_with(
        &program.run(&["help", "leaks"]),
        0,
        &["Usage: pgweir leaks", "Exit codes: "],
    );
    ends_with(
        &program.run(&["leaks", "--nonsense"]),
        2,
        &["unexpected argument"],
    );
}
