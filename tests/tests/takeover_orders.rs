//! The promise: orders before, during and after a takeover are obeyed by whoever has the clients, and nobody loses anything to
//! a successor that does not come to its end.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Pooler, RawClient, SELECT_1, Signal, Tenant, console, eventually, send_signal, start,
    story,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_parameter_that_is_set_during_the_takeover_reaches_no_stranger() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    for (name, sql) in [
        ("app.tenant", "set app.tenant = 'a'"),
        ("app.owner", "select set_config('app.owner', 'a', false)"),
    ] {
        let look = format!("select coalesce(current_setting('{name}', true), '')");
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        client.rows(sql);

        pooler.reboot().expect("taken over");

        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(tenant.client(&pooler).value(&look), "", "{sql}");
        assert_eq!(client.value(&look), "a", "{sql}");
    }
}

#[test]
fn a_server_that_stays_with_its_client_can_be_called_back() {
    let Some(tenant) = Tenant::new() else { return };
    for (servers, max_pinned, stays) in [(1, 0, "loose"), (4, 1, "firm")] {
        let ini = tenant.ini().set("default_pool_size", servers);
        let mut pooler = start(ini.set("max_pinned", max_pinned));
        let mut client = tenant.client(&pooler);
        client.rows("create temporary table here (x int)");

        pooler.reboot().expect("taken over");

        let mut admin = console(&pooler);
        let pins = admin.table("show pins");
        let pin = pins.find("database", &tenant.name).expect("it stays");
        assert_eq!(pin.get("reason"), Some("temporary object"));
        assert_eq!(pin.get("stays"), Some(stays));
        if max_pinned == 0 {
            assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
        } else {
            assert_eq!(client.value("select count(*) from here"), "0");
            assert_eq!(admin.query("pause"), "C(PAUSE) Z(I)");
        }
    }
}
