//! The promise: what SHOW CLIENTS tells of a connection is what PgBouncer tells.

use std::time::Duration;

use pgweir_tests::{Batch, Tenant, console, eventually};

#[test]
fn the_wait_of_a_client_is_the_time_since_it_asked() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = console(&pooler);
    let mut wait_of_tenant = || {
        let shown = operator.table("show clients");
        let row = shown.find("user", &tenant.name).expect("a row");
        row.number("wait") * 1_000_000 + row.number("wait_us")
    };
    let mut client = tenant.client(&pooler);
    client.rows("begin");
    assert_eq!(wait_of_tenant(), 0);

    client.send(&Batch::new().query("select pg_sleep(1)"));
    let limit = Duration::from_secs(5);
    eventually(limit, &mut wait_of_tenant, |wait| *wait >= 500_000);
    client.until_ready();
    assert_eq!(wait_of_tenant(), 0);
}
