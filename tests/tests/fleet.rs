//! The promise: poolers with the same configuration and `fleet` hold one limit together, in PostgreSQL's own count.

use std::{thread, time::Duration};

use pgweir_tests::{Http, Pooler, Tenant, console, eventually, start};

const POOLERS: usize = 2;
const CLIENTS: usize = 8;
const ROUNDS: usize = 25;
const SOON: Duration = Duration::from_secs(10);

/// The row of SHOW BUDGET: limit and source.
fn budget(pooler: &Pooler, name: &str, subject: &str) -> (i64, String) {
    let table = console(pooler).table("show budget");
    let row = table
        .iter()
        .find(|row| {
            let is_subject = row.get("subject").is_some_and(|of| of.ends_with(subject));
            row.get("name") == Some(name) && is_subject
        })
        .unwrap_or_else(|| panic!("no {name} of {subject}"));
    let source = row.get("source").unwrap_or_default().to_owned();
    (row.number("limit"), source)
}

/// Two poolers with everything that they share set to seven, and what each may have of it.
#[test]
fn poolers_of_a_fleet_hold_one_limit_together() {
    for key in [
        "max_host_connections",
        "max_db_connections",
        "max_user_connections",
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = tenant
            .ini()
            .set("default_pool_size", 20)
            .set("fleet", POOLERS)
            .set(key, 7);
        let poolers: Vec<Pooler> = (0..POOLERS).map(|_| start(ini.clone())).collect();
        let watch = tenant.watch();
        thread::scope(|scope| {
            for number in 0..POOLERS * CLIENTS {
                let mut client = tenant.client(&poolers[number % POOLERS]);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        client.value("select 1 from pg_sleep(0.01)");
                    }
                });
            }
        });
        let seen = watch.end();
        assert!(seen.most <= 7, "{key}: {seen:?}");
        // A limit of seven that is not shared would be reached by one pooler alone.
        assert_eq!(seen.most, 6, "{key}: {seen:?}");
        let subject = match key {
            "max_host_connections" => "",
            _ => &tenant.name,
        };
        for pooler in &poolers {
            let expected = (3, "fleet".to_owned());
            assert_eq!(budget(pooler, key, subject), expected, "{key}");
        }
    }
}

#[test]
fn a_part_of_what_postgresql_has_is_divided_and_a_reload_divides_anew() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant
        .ini()
        .set("max_host_connections", "50%")
        .set("fleet", 3);
    let pooler = start(Http::set(ini.clone()));
    tenant.client(&pooler).value("select 1");
    let mut root = tenant.root();
    let setting = |root: &mut pgweir_tests::RawClient, name: &str| -> i64 {
        let value = root.value(&format!("select current_setting('{name}', true)"));
        value.parse().unwrap_or(0)
    };
    let has = setting(&mut root, "max_connections")
        - setting(&mut root, "superuser_reserved_connections")
        - setting(&mut root, "reserved_connections");
    let limit = || budget(&pooler, "max_host_connections", "");
    eventually(SOON, limit, |(limit, source)| {
        (*limit, source.as_str()) == (has / 2 / 3, "fleet")
    });
    let labels = [("limit", "max_host_connections"), ("source", "fleet")];
    let metrics = Http::of(&pooler).metrics();
    assert_eq!(metrics.value("pgweir_limit", &labels), (has / 2 / 3) as f64);
    let other = ini.set("max_host_connections", 20).set("fleet", 4);
    pooler.reload(Http::set(other)).expect("RELOAD");
    assert_eq!(limit(), (5, "fleet".to_owned()));
}

#[test]
fn preflight_counts_every_pooler_of_the_fleet() {
    let Some(tenant) = Tenant::new() else { return };
    // PostgreSQL has fewer than 300 for ordinary users: one pooler with its part would fit.
    let ini = tenant.ini().set("default_pool_size", 120);
    let pooler = start(ini.set("fleet", 3));
    tenant.client(&pooler).value("select 1");
    eventually(
        SOON,
        || pooler.log(),
        |log| log.contains("in each of 3 poolers"),
    );
}
