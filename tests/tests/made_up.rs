//! The promise: clients that make up names of databases, where every name leads somewhere, cost PostgreSQL no more than the
//! login that says that there is no such database, and nothing of them stays.

use std::{thread, time::Duration};

use pgweir_tests::{Http, Ini, Pooler, RawClient, Tenant, console, eventually, start};

const SOON: Duration = Duration::from_secs(15);

fn login(pooler: &Pooler, database: &str, user: &str) -> String {
    let parameters = [("user", user), ("database", database)];
    match RawClient::try_login(pooler.port, &parameters) {
        Err(said) => said,
        Ok(_) => panic!("{user} is let in to {database}"),
    }
}

/// How often PostgreSQL has refused the pooler.
fn refusals(pooler: &Pooler) -> usize {
    pooler.log().matches("server login failed: ").count()
}

#[test]
fn whoever_the_rules_send_away_makes_nobody_ask_postgres() {
    let Some(tenant) = Tenant::new() else { return };
    let rules = "host all rejected 127.0.0.1/32 reject\nhost there all 127.0.0.1/32 trust\n";
    let pooler = start(
        tenant
            .ini()
            .file("userlist.txt", "\"postgres\" \"\"\n")
            .file("hba.conf", rules)
            .set("auth_type", "hba")
            .set("auth_hba_file", "{dir}/hba.conf")
            .set("auth_user", "postgres"),
    );
    let rejected = login(&pooler, "made_up", "rejected");
    assert!(rejected.contains("login rejected"), "{rejected}");
    let other = login(&pooler, "made_up", "other");
    let no_rule = "no authentication method is found";
    assert!(other.contains(no_rule), "{other}");
    let log = pooler.log();
    assert!(!log.contains("registered new auto-database"), "{log}");
    assert_eq!(refusals(&pooler), 0, "{log}");
}

/// Somebody looks at readiness, which makes the pooler look after its databases.
fn watched(tenant: &Tenant) -> Ini {
    Http::set(tenant.ini())
        .set("ready_policy", "all")
        .set("server_login_retry", 1)
}

#[test]
fn a_database_that_is_not_there_is_forgotten_soon() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(watched(&tenant));
    let http = Http::of(&pooler);
    let said = login(&pooler, "made_up", &tenant.name);
    assert!(said.contains("3D000"), "{said}");
    let dropped = |log: &String| log.contains("dropping database 'made_up'");
    eventually(SOON, || pooler.log(), dropped);
    assert_eq!(refusals(&pooler), 1, "{}", pooler.log());
    eventually(
        SOON,
        || http.get("/readyz"),
        |answer| answer.code == 200 && !answer.body.contains("made_up"),
    );
    // The operator, who is asked for nothing here, finds no trace.
    let shown = console(&pooler).table("show databases");
    assert!(shown.find("name", "made_up").is_none());
    // Whoever comes later is told the same.
    let said = login(&pooler, "made_up", &tenant.name);
    assert!(said.contains("3D000"), "{said}");
}

#[test]
fn only_databases_that_have_an_entry_or_have_served_are_asked_for_again() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let there = format!(
        "host=127.0.0.1 port={} dbname={name}",
        tenant.postgres.port()
    );
    let nologin = format!("alter role {name} nologin");
    tenant.root().rows(&nologin);

    let pooler = start(watched(&tenant));
    login(&pooler, name, name);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(refusals(&pooler), 1, "{}", pooler.log());

    let pooler = start(watched(&tenant).database("named", &there));
    login(&pooler, "named", name);
    eventually(SOON, || refusals(&pooler), |count| *count > 1);
}
