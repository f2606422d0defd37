//! First packets and messages of logins that are none, and limits on clients.

use super::*;

#[test]
fn limits_on_clients_hold_and_are_given_back() {
    let Some(tenant) = Tenant::new() else { return };
    for (key, text) in [
        (
            "max_client_conn",
            "no more connections allowed (max_client_conn)",
        ),
        (
            "max_db_client_connections",
            "client connections exceeded (max_db_client_connections)",
        ),
        (
            "max_user_client_connections",
            "client connections exceeded (max_user_client_connections)",
        ),
    ] {
        let pooler = start(tenant.ini().set(key, 3));
        let parameters = [("user", &*tenant.name), ("database", &*tenant.name)];
        let login = || RawClient::try_login(pooler.port, &parameters);
        for _ in 0..3 {
            let kept: Vec<RawClient> = (0..3)
                .map(|_| eventually(Duration::from_secs(2), login, Result::is_ok).expect("let in"))
                .collect();
            for _ in 0..5 {
                assert_eq!(login().map(|_| ()), Err(format!("E(FATAL 08P01 {text})")));
            }
            assert_eq!(
                console(&pooler).value("show version"),
                "PgBouncer 1.25.2",
                "the administrator is let in"
            );
            drop(kept);
        }
    }
}

#[test]
fn logins_that_fail_do_not_use_up_the_limits() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let ini = ini_with_secret(&tenant, &Stored::Scram.secret(&tenant))
        .set("auth_type", "scram-sha-256")
        .set("max_client_conn", 4)
        .set("max_db_client_connections", 4)
        .set("max_user_client_connections", 4);
    let pooler = start(ini);
    for _ in 0..10 {
        wrong_login(&pooler, name, name);
        let mut vanishing = RawClient::connect(pooler.port);
        vanishing.start_login(&[("user", name), ("database", name)]);
        assert_eq!(vanishing.read().map(|asked| asked.tag), Ok(b'R'));
    }
    let login = || psql(&pooler, name, PASSWORD);
    assert!(eventually(Duration::from_secs(2), login, Result::is_ok).is_ok());
    let users = pooler.console("show users");
    let user = users.find("name", name).expect("a row");
    eventually(
        Duration::from_secs(2),
        || user.number("current_client_connections"),
        |count| *count == 0,
    );
}

#[test]
fn a_message_that_does_not_belong_into_a_login_ends_it() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = ini_with_secret(&tenant, PASSWORD).set("auth_type", "md5");
    let pooler = start(ini);
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert_eq!(client.read().map(|asked| asked.tag), Ok(b'R'));
    client.send(&Batch::new().query("select 1"));
    assert_eq!(client.until_closed(), "E(FATAL 08P01 bad packet)");
}

#[test]
fn first_packets_that_are_none_are_answered_and_closed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for (packet, answer) in [
        (
            &[0, 0, 0, 8, 0, 2, 0, 0][..],
            "E(FATAL 08P01 old V2 protocol not supported)",
        ),
        (
            &[0, 0, 0, 9, 0, 3, 0, 0, 0],
            "E(FATAL 08P01 no username supplied)",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "E(FATAL 08P01 bad packet header: '474554202f204854')",
        ),
    ] {
        let mut client = RawClient::connect(pooler.port);
        client.send_bytes(packet);
        let (said, _) = client.until_end();
        assert_eq!(said, answer);
    }
    let mut client = RawClient::connect(pooler.port);
    client.send_bytes(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(client.read_byte(), Ok(b'N'), "no TLS here");
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert_eq!(client.finish_login(), Ok(()));
}

#[test]
fn a_newer_protocol_is_negotiated_down() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut packet = vec![0, 3, 0, 2];
    for text in [
        "user",
        &tenant.name,
        "database",
        &tenant.name,
        "_pq_.x",
        "1",
    ] {
        packet.extend(text.as_bytes());
        packet.push(0);
    }
    packet.push(0);
    let length = packet.len() as u32 + 4;
    let mut client = RawClient::connect(pooler.port);
    client.send_bytes(&[&length.to_be_bytes()[..], &packet].concat());
    let negotiated = client.read().expect("an answer");
    assert_eq!(negotiated.tag, b'v');
    assert_eq!(negotiated.body[..8], [0, 3, 0, 0, 0, 0, 0, 1]);
    assert_eq!(client.finish_login(), Ok(()));
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
}
