//! SHUTDOWN and signals.

use super::*;

#[test]
fn shutdown_ends_at_once() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    client.send(&Batch::new().query("select pg_sleep(20)"));
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("shutdown"));
    assert_eq!(operator.until_end().0, "");
    assert!(ends(&mut pooler));
    eventually(
        Duration::from_secs(2),
        || RawClient::try_connect(pooler.port).is_err(),
        |refused| *refused,
    );
}

#[test]
fn shutdown_wait_for_clients_refuses_new_ones_and_ends_with_the_last() {
    for begin in [
        (|pooler| {
            let answer = console(pooler).query("shutdown wait_for_clients");
            assert_eq!(answer, "C(SHUTDOWN) Z(I)");
        }) as fn(&Pooler),
        |pooler| pooler.signal(Signal::TERM),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let mut pooler = tenant.pooler(1);
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        begin(&pooler);
        eventually(
            Duration::from_secs(2),
            || RawClient::try_connect(pooler.port).is_err(),
            |refused| *refused,
        );
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(client.query("select 1"), SELECT_1);
        assert!(pooler.wait_for_exit(Duration::from_millis(500)).is_none());
        client.send(&Batch::new().terminate());
        assert!(ends(&mut pooler));
    }
}

#[test]
fn shutdown_wait_for_clients_lets_in_who_was_accepted_before() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut late = RawClient::connect(pooler.port);
    // An SSLRequest is answered, so the connection has been accepted.
    late.send_bytes(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(late.read_byte(), Ok(b'N'));
    let answer = console(&pooler).query("shutdown wait_for_clients");
    assert_eq!(answer, "C(SHUTDOWN) Z(I)");
    late.start_login(&[("user", &*tenant.name), ("database", &*tenant.name)]);
    assert_eq!(late.finish_login(), Ok(()));
    assert_eq!(late.query("select 1"), SELECT_1);
    late.send(&Batch::new().terminate());
    assert!(ends(&mut pooler));
}

#[test]
fn shutdown_wait_for_servers_lets_transactions_end() {
    for begin in [
        (|pooler| {
            let answer = console(pooler).query("shutdown wait_for_servers");
            assert_eq!(answer, "C(SHUTDOWN) Z(I)");
        }) as fn(&Pooler),
        |pooler| pooler.signal(Signal::INT),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let mut pooler = tenant.pooler(1);
        let mut working = tenant.client(&pooler);
        let mut waiting = tenant.client(&pooler);
        assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
        waiting.send(&Batch::new().query("select 1"));
        begin(&pooler);
        assert_eq!(
            waiting.until_closed(),
            "E(FATAL 08P01 server shutting down)"
        );
        assert_eq!(working.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
        assert!(pooler.wait_for_exit(Duration::from_millis(500)).is_none());
        assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
        assert!(ends(&mut pooler));
    }
}

#[test]
fn a_second_signal_ends_a_shutdown_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let Some(tenant) = Tenant::new() else { return };
        let mut pooler = tenant.pooler(1);
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        pooler.signal(signal);
        assert!(pooler.wait_for_exit(Duration::from_millis(400)).is_none());
        pooler.signal(signal);
        assert!(ends(&mut pooler));
    }
}

#[test]
fn quit_ends_at_once_and_the_port_is_free_again() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let port = pooler.port;
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    pooler.signal(Signal::QUIT);
    assert!(ends(&mut pooler));
    let again = start(tenant.ini().set("listen_port", port));
    assert_eq!(tenant.client(&again).query("select 1"), SELECT_1);
}

#[test]
fn usr1_pauses_and_usr2_resumes() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    pooler.signal(Signal::USR1);
    wait_for_log(&pooler, "got SIGUSR1, pausing all activity");
    pooler.signal(Signal::USR1);
    wait_for_log(&pooler, "got SIGUSR1, but already paused/suspended");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    pooler.signal(Signal::USR2);
    assert_eq!(story(&client.until_ready()), SELECT_1);
    wait_for_log(&pooler, "got SIGUSR2, continuing from PAUSE");
    pooler.signal(Signal::USR2);
    wait_for_log(&pooler, "got SIGUSR2, but not paused/suspended");
    pooler.signal(Signal::TERM);
    wait_for_log(
        &pooler,
        "got SIGTERM, shutting down, waiting for all clients disconnect",
    );
    pooler.signal(Signal::USR1);
    wait_for_log(&pooler, "got SIGUSR1 while shutting down, ignoring");
    pooler.signal(Signal::USR2);
    wait_for_log(&pooler, "got SIGUSR2 while shutting down, ignoring");
}

fn ends(pooler: &mut Pooler) -> bool {
    let status = pooler.wait_for_exit(Duration::from_secs(3));
    status.is_some_and(|status| status.success())
}
