//! The promise: an operator sees which application uses how much, and how large a pool it needs.

use std::time::Duration;

use pgweir_tests::{Batch, RawClient, Tenant, console, eventually, start};

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn who_holds_and_who_waits_is_shown_by_application() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("default_pool_size", 2));
    let login = |app: &str| {
        let name = &tenant.name;
        let parameters = [
            ("user", &**name),
            ("database", name),
            ("application_name", app),
        ];
        RawClient::login_with(pooler.port, &parameters)
    };
    let mut web: Vec<_> = (0..3).map(|_| login("web")).collect();
    let mut jobs = login("jobs");
    assert_eq!(web[0].query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(web[1].query("begin"), "C(BEGIN) Z(T)");
    jobs.send(&Batch::new().query("select 1"));

    let mut console = console(&pooler);
    let consumers = eventually(
        PATIENCE,
        || console.table("show consumers"),
        |table| {
            let waits = table.find("application_name", "jobs");
            waits.is_some_and(|row| row.number("waiting") == 1)
        },
    );
    let row = consumers
        .find("application_name", "web")
        .expect("it has clients");
    assert_eq!(row.get("addr"), Some("127.0.0.1"));
    assert_eq!((row.number("clients"), row.number("servers")), (3, 2));
    let apps = eventually(
        PATIENCE,
        || console.table("show apps"),
        |table| {
            let web = table.find("application_name", "web");
            web.is_some_and(|row| (20..50).contains(&row.number("idle_percent")))
        },
    );
    let row = apps.find("application_name", "web").expect("as before");
    assert_eq!(
        (row.number("pool_size"), row.number("peak_servers")),
        (3, 2)
    );

    // Whoever hangs up while it waits tells how long it is willing to.
    drop(jobs);
    eventually(
        PATIENCE,
        || console.table("show apps"),
        |table| {
            let jobs = table.find("application_name", "jobs");
            jobs.is_some_and(|row| row.number("gave_up") == 1 && row.number("clients") == 0)
        },
    );
}

#[test]
fn the_share_of_held_time_tells_the_heavy_one_from_the_light_one() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini());
    let login = |app: &str| {
        let name = &tenant.name;
        let parameters = [
            ("user", &**name),
            ("database", name),
            ("application_name", app),
        ];
        RawClient::login_with(pooler.port, &parameters)
    };
    let (mut heavy, mut light) = (login("heavy"), login("light"));
    heavy.query("begin");
    for _ in 0..20 {
        light.query("select 1");
    }
    let mut console = console(&pooler);
    let consumers = eventually(
        PATIENCE,
        || console.table("show consumers"),
        |table| {
            let heavy = table.find("application_name", "heavy");
            heavy.is_some_and(|row| row.number("held_percent") > 90)
        },
    );
    let light = consumers
        .find("application_name", "light")
        .expect("it is connected");
    assert!(light.number("held_percent") < 10, "{consumers}");
}
