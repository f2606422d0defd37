//! The promise: of several poolers behind one address each passes a cancel request on to the one whose client it is for; and
//! requests that somebody makes up occupy no more than the peer's pool, and count as the connections that they are.

use std::{io::ErrorKind, net::TcpListener, thread, time::Duration};

use bytes::BytesMut;
use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, Tenant, cancel, console, eventually, start, story,
};
use pgweir_wire::{CancelKey, frontend};

const SOON: Duration = Duration::from_secs(10);

/// The pooler with number 1, whose peer with number 2 is at this port.
fn first(tenant: &Tenant, port: u16, change: impl FnOnce(Ini) -> Ini) -> Pooler {
    let peer = format!("host=127.0.0.1 port={port} pool_size=2");
    let ini = tenant.ini().set("peer_id", 1).line("peers", "2", &peer);
    start(change(ini))
}

#[test]
fn a_request_reaches_the_peer_whose_client_it_is_for() {
    let Some(tenant) = Tenant::new() else { return };
    let second = start(tenant.ini().set("peer_id", 2));
    let first = first(&tenant, second.port, |ini| ini);
    let mut client = tenant.client(&second);
    client.send(&Batch::new().query("select pg_sleep(60)"));
    let running = "select count(*) from pg_stat_activity \
                   where query = 'select pg_sleep(60)' and state = 'active'";
    let mut root = tenant.root();
    eventually(SOON, || root.value(running), |count| count == "1");
    cancel(first.port, client.key.as_ref().expect("logged in"));
    let said = story(&client.until_ready());
    assert!(said.contains("57014"), "{said}");
}

#[test]
fn requests_that_are_made_up_take_the_places_of_the_peers_pool_and_no_more() {
    let Some(tenant) = Tenant::new() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let pooler = first(&tenant, port, |ini| ini.set("cancel_wait_timeout", 60));
    let mut request = BytesMut::new();
    let key = CancelKey {
        process_id: i32::from_be_bytes([1, 2, 0, 4]),
        secret: [5, 6, 7, 3].into(),
    };
    frontend::cancel_request(&mut request, &key);
    let mut forged: Vec<_> = (0..10)
        .map(|_| {
            let mut client = RawClient::connect(pooler.port);
            client.send_bytes(&request);
            client
        })
        .collect();
    let used = |number: u64| {
        let mut operator = console(&pooler);
        let clients = || {
            let budget = operator.table("show budget");
            let row = budget.find("name", "max_client_conn");
            row.expect("there is such a limit").number("used")
        };
        eventually(SOON, clients, |used| *used == number as i64 + 1);
    };
    used(10);
    // The peer takes its time.
    let held: Vec<_> = (0..2)
        .map(|_| listener.accept().expect("a request").0)
        .collect();
    listener.set_nonblocking(true).expect("a socket");
    thread::sleep(Duration::from_secs(1));
    let third = listener.accept().map(|_| ());
    let none = third.expect_err("there are two places");
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    used(10);
    let pools = || console(&pooler).rows("show peer_pools");
    assert_eq!(pools(), ["2|2|8|2|0"]);

    // Those that wait follow, two at a time.
    drop(held);
    listener.set_nonblocking(false).expect("a socket");
    for _ in 0..8 {
        drop(listener.accept().expect("a request"));
    }
    for client in &mut forged {
        let (said, _) = client.until_end();
        assert_eq!(said, "", "a cancel request is not answered");
    }
    used(0);
    assert_eq!(pools(), ["2|0|0|0|0"]);
}
