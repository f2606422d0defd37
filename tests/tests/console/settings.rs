//! SET, RELOAD, and databases that come and go.

use super::*;

#[test]
fn set_changes_what_it_may_and_says_what_it_did() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = console(&pooler);
    for (command, answer) in [
        ("set query_timeout = 7", "C(SET query_timeout=7) Z(I)"),
        ("SET query_timeout TO '8'", "C(SET query_timeout=8) Z(I)"),
        ("set listen_port = 1", "C(SET listen_port=1) Z(I)"),
        (
            "set client_encoding = utf8",
            "N(00000 SET ignored) C(SET) Z(I)",
        ),
    ] {
        assert_eq!(operator.query(command), answer);
    }
    let config = operator.table("show config");
    assert_eq!(row(&config, "key", "query_timeout").get("value"), Some("8"));
    assert_eq!(
        row(&config, "key", "listen_port").get("value"),
        Some(&*pooler.port.to_string()),
        "not before a restart"
    );
    assert_eq!(operator.query("reload"), "C(RELOAD) Z(I)");
    let config = operator.table("show config");
    assert_eq!(row(&config, "key", "query_timeout").get("value"), Some("0"));
}

#[test]
fn a_reload_that_fails_is_told_and_the_old_configuration_goes_on() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let broken = tenant.ini().set("server_lifetime", "for ever");
    assert!(pooler.reload(broken).is_err());
    let mut operator = console(&pooler);
    assert_eq!(
        operator.query("reload"),
        "E(F0000 RELOAD failed, see logs for additional details) Z(I)"
    );
    assert_eq!(client.query("select 1"), SELECT_1);
    let log = pooler.log();
    assert!(
        log.contains("invalid value \"for ever\" for parameter server_lifetime"),
        "{log}"
    );
    pooler.reload(tenant.ini()).expect("a good file");
}

#[test]
fn a_reload_moves_a_database_to_another_place() {
    let Some(tenant) = Tenant::new() else { return };
    let target = |dbname: &str| {
        format!(
            "host=127.0.0.1 port={} dbname={dbname}",
            tenant.postgres.port()
        )
    };
    let ini = tenant.ini().database("shop", &target(&tenant.name));
    let pooler = start(ini.clone());
    let mut client = RawClient::login(pooler.port, "shop", &tenant.name);
    let mut working = RawClient::login(pooler.port, "shop", &tenant.name);
    assert_eq!(client.value("select current_database()"), tenant.name);
    assert_eq!(
        working.value("begin; select current_database()"),
        tenant.name
    );
    pooler
        .reload(ini.database("shop", &target("postgres")))
        .expect("RELOAD");
    assert_eq!(client.value("select current_database()"), "postgres");
    assert_eq!(working.value("select current_database()"), tenant.name);
    working.rows("commit");
    assert_eq!(working.value("select current_database()"), "postgres");
}

#[test]
fn a_database_that_is_removed_takes_its_clients_with_it() {
    let Some(tenant) = Tenant::new() else { return };
    let target = format!("host=127.0.0.1 port={}", tenant.postgres.port());
    let base = || without_star(&tenant).database("postgres", &target);
    let pooler = start(base().database("shop", &format!("{target} dbname=postgres")));
    let mut client = RawClient::login(pooler.port, "shop", "postgres");
    assert_eq!(client.query("select 1"), SELECT_1);
    pooler.reload(base()).expect("RELOAD");
    assert_eq!(client.until_closed(), "E(FATAL 08P01 database removed)");
    eventually(
        Duration::from_secs(5),
        || console(&pooler).table("show pools"),
        |shown| shown.find("database", "shop").is_none(),
    );
    pooler
        .reload(base().database("shop", &format!("{target} dbname=postgres")))
        .expect("RELOAD");
    let mut client = RawClient::login(pooler.port, "shop", "postgres");
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn every_database_is_served_by_the_star_entry_and_forgotten() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("autodb_idle_timeout", 1)
            .set("server_idle_timeout", 1),
    );
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    wait_for_log(
        &pooler,
        &format!("registered new auto-database: {}", tenant.name),
    );
    eventually(
        Duration::from_secs(5),
        || console(&pooler).table("show databases"),
        |shown| shown.find("name", &tenant.name).is_none(),
    );
    eventually(
        Duration::from_secs(5),
        || console(&pooler).table("show pools"),
        |shown| shown.find("database", &tenant.name).is_none(),
    );
    // Who comes later makes it anew.
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let shown = console(&pooler).table("show databases");
    assert_eq!(
        row(&shown, "name", &tenant.name).number("current_client_connections"),
        1
    );
}
