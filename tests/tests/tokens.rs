//! The promise: where a database has several hosts, a command is asked for the password of the one that is logged in to.

use std::{collections::BTreeSet, fs};

use pgweir_tests::{RawClient, Tenant, start};

#[test]
fn a_command_is_asked_once_for_each_host() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant.set_password("scram-sha-256", "token");
    let grant = format!("grant wants_scram to {name}");
    tenant.root().rows(&grant);
    let entry = format!(
        "host=127.0.0.1,localhost port={} user={name} \
         password_from='exec:echo $PGWEIR_HOST >> {{dir}}/runs; echo token'",
        tenant.postgres.port()
    );
    let ini = tenant.ini().database(name, &entry);
    let pooler = start(ini.set("default_pool_size", 4));
    let mut clients: Vec<_> = (0..4)
        .map(|_| RawClient::login(pooler.port, name, "postgres"))
        .collect();
    for client in &mut clients {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    assert_eq!(tenant.backends(), 4);
    let dir = pooler.ini_path().parent().expect("a folder");
    let runs = fs::read_to_string(dir.join("runs")).expect("it has run");
    assert_eq!(runs.lines().count(), 2, "{runs}");
    let hosts: BTreeSet<&str> = runs.lines().collect();
    assert_eq!(hosts, BTreeSet::from(["127.0.0.1", "localhost"]));
}
