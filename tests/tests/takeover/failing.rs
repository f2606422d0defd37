//! Successors that do not come about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pgweir_tests::{Pooler, RawClient, SELECT_1, Signal, Tenant, console, send_signal};

#[test]
fn a_successor_that_fails_leaves_everything_as_it_was() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let old = pooler.pid;
    // It asks, gets everything, and leaves before the last word.
    let parcels = pooler.console("handover 2");
    assert!(
        parcels.rows.len() >= 4,
        "a process, listeners, a server, a client"
    );
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(pooler.pid, old);
    assert!(
        pooler
            .log()
            .contains("admin disappeared when suspended, doing RESUME")
    );
    pooler.reboot().expect("taken over");
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn a_takeover_that_an_operator_breaks_off_holds_nobody() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    // Its login does not come to an end, and is waited for.
    let mut silent = RawClient::connect(pooler.port);
    silent.send_bytes(&[0, 0]);
    let (old, over) = (pooler.pid, Arc::new(AtomicBool::new(false)));
    let resuming = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                send_signal(&old.to_string(), Signal::USR2);
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let outcome = pooler.reboot();
    over.store(true, Ordering::Relaxed);
    resuming.join().expect("it does nothing else");
    outcome.expect_err("it was broken off");
    assert_eq!(pooler.pid, old);
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn nobody_else_is_handed_anything() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut admin = console(&pooler);
    assert_eq!(
        admin.query("handover 2"),
        "E(08P01 admin access needed) Z(I)"
    );
    let other_version = "E(08P01 invalid command 'handover 0', use SHOW HELP;) Z(I)";
    assert_eq!(admin.query("handover 0"), other_version);
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn without_a_running_process_it_starts_as_ever() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("default_pool_size", 1);
    let pooler = Pooler::start_with_args(&["-R"], ini).expect("started");
    assert!(
        pooler
            .log()
            .contains("old process not found, try to continue normally")
    );
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}
