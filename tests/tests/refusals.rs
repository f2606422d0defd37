//! The promise: whoever is refused is told which limit it was, how much of it is used, who holds it, and whether his
//! connection is still good; nothing of what he asked has been run.

use std::{thread, time::Duration};

use pgweir_tests::{
    Batch, Begin, Ini, Message, Pooler, RawClient, Tenant, TlsWire, console, eventually,
    self_signed_tls, start, story,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// One server, held by the application `greedy`.
struct Held {
    tenant: Tenant,
    pooler: Pooler,
    holder: RawClient,
}

impl Held {
    fn new(change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        tenant.direct().rows("create table trace (line text)");
        let ini = tenant.ini().set("default_pool_size", 1);
        let pooler = start(change(ini));
        let mut holder = tenant.client_named(&pooler, "greedy");
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        Some(Self {
            tenant,
            pooler,
            holder,
        })
    }

    fn client(&self) -> RawClient {
        self.tenant.client(&self.pooler)
    }

    /// Lets the server go and shows that nothing was run but what the holder did.
    fn release(&mut self) {
        assert_eq!(self.holder.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(
            self.tenant.direct().value("select count(*) from trace"),
            "0"
        );
    }
}

const INSERT: &str = "insert into trace values ('ran')";

/// Every way to ask for something, and how many ReadyForQuery it is owed.
fn forms() -> Vec<(&'static str, Batch, usize)> {
    vec![
        ("simple", Batch::new().query(INSERT), 1),
        ("extended", Batch::new().run(INSERT).sync(), 1),
        ("pipeline", Batch::new().run(INSERT).run(INSERT).sync(), 1),
        ("begin", Batch::new().query("begin"), 1),
        (
            "copy",
            Batch::new()
                .query("copy trace from stdin")
                .copy_data(b"ran\n")
                .copy_done(),
            1,
        ),
    ]
}

/// Asks, and returns the one error that is answered before the one ReadyForQuery.
fn refused(client: &mut RawClient, batch: &Batch) -> Message {
    client.send(batch);
    let answer = client.until_ready();
    let [error, ready] = &*answer else {
        panic!(
            "one error and one ReadyForQuery are owed: {}",
            story(&answer)
        )
    };
    assert_eq!((error.tag, ready.to_string().as_str()), (b'E', "Z(I)"));
    error.clone()
}

#[test]
fn a_wait_that_is_too_long_ends_with_an_explanation_in_every_form() {
    let limit = |ini: Ini| {
        ini.set("error_codes", "postgres")
            .set("query_wait_timeout", "0.3")
    };
    let Some(mut held) = Held::new(limit) else {
        return;
    };
    for (form, batch, _) in forms() {
        let mut client = held.client();
        let error = refused(&mut client, &batch);
        assert_eq!(error.to_string(), "E(53300 query_wait_timeout)", "{form}");
        let (detail, hint) = error.explanation();
        let pool = format!("pool_size of {0}/{0} is 1, 1 in use", held.tenant.name);
        assert!(detail.contains(&pool), "{form}: {detail}");
        assert!(
            detail.contains("application greedy at 127.0.0.1 holds 1 of them"),
            "{form}: {detail}"
        );
        assert!(
            detail.ends_with("Nothing of the request has been run."),
            "{form}: {detail}"
        );
        assert!(hint.starts_with("Retry"), "{form}: {hint}");
    }
    held.release();
}

#[test]
fn a_full_queue_refuses_at_once_in_every_form() {
    let limit = |ini: Ini| {
        ini.set("error_codes", "postgres")
            .set("max_pool_waiting", 1)
    };
    let Some(mut held) = Held::new(limit) else {
        return;
    };
    let mut waiter = held.client();
    waiter.send(&Batch::new().query("select 1"));
    waiting(&held.pooler, 1);
    let mut client = held.client();
    for (form, batch, _) in forms() {
        let error = refused(&mut client, &batch);
        let told = error.to_string();
        assert_eq!(
            told, "E(53300 too many clients waiting for a server)",
            "{form}"
        );
        let (detail, _) = error.explanation();
        assert!(
            detail.starts_with("The queue of the pool is full (max_pool_waiting)."),
            "{detail}"
        );
    }
    held.release();
    assert_eq!(story(&waiter.until_ready()), "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(client.query("select 2"), "T D(2) C(SELECT 1) Z(I)");
}

#[test]
fn pgbouncers_dialect_closes_and_says_no_more_than_pgbouncer() {
    let limit = |ini: Ini| ini.set("max_waiting", 1);
    let Some(mut held) = Held::new(limit) else {
        return;
    };
    let mut waiter = held.client();
    waiter.send(&Batch::new().query("select 1"));
    waiting(&held.pooler, 1);
    for (form, batch, _) in forms() {
        let mut client = held.client();
        client.send(&batch);
        let told = client.until_closed();
        assert_eq!(
            told, "E(FATAL 08P01 too many clients waiting for a server)",
            "{form}"
        );
    }
    held.release();
}

#[test]
fn overload_sheds_those_who_have_waited_too_long() {
    let limit = |ini: Ini| {
        ini.set("error_codes", "postgres")
            .set("query_wait_target", "0.2")
    };
    let Some(mut held) = Held::new(limit) else {
        return;
    };
    let mut client = held.client();
    let error = refused(&mut client, &Batch::new().query(INSERT));
    assert_eq!(
        error.to_string(),
        "E(53300 too many clients waiting for a server)"
    );
    let (detail, _) = error.explanation();
    assert!(detail.contains("query_wait_target is 0.2 s"), "{detail}");
    held.release();
}

#[test]
fn an_application_has_its_part_and_no_more() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant
        .ini()
        .set("default_pool_size", 5)
        .set("error_codes", "postgres");
    let pooler = start(
        ini.set("max_app_connections", 2)
            .set("query_wait_timeout", "0.3"),
    );
    let mut batch: Vec<_> = (0..3)
        .map(|_| tenant.client_named(&pooler, "batch"))
        .collect();
    for client in &mut batch[..2] {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    let error = refused(&mut batch[2], &Batch::new().query("select 1"));
    assert_eq!(error.to_string(), "E(53300 query_wait_timeout)");
    let (detail, _) = error.explanation();
    assert!(
        detail.contains("max_app_connections of batch is 2, 2 in use"),
        "{detail}"
    );
    let mut other = tenant.client_named(&pooler, "shop");
    assert_eq!(other.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    batch[2].send(&Batch::new().query("select 3"));
    assert_eq!(batch[0].query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(story(&batch[2].until_ready()), "T D(3) C(SELECT 1) Z(I)");
}

#[test]
fn too_many_clients_of_an_application_or_an_address_are_told_so() {
    for (key, subject) in [
        ("max_app_client_connections", "crowd"),
        ("max_address_client_connections", "127.0.0.1"),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = tenant.ini().set("error_codes", "postgres");
        let pooler = start(ini.set(key, 2));
        let _clients = [(); 2].map(|()| tenant.client_named(&pooler, "crowd"));
        let mut third = RawClient::connect(pooler.port);
        let name = tenant.name.as_str();
        let wish = [
            ("user", name),
            ("database", name),
            ("application_name", "crowd"),
        ];
        third.start_login(&wish);
        let mut last = third.read().expect("an answer");
        while last.tag != b'E' {
            last = third.read().expect("an answer");
        }
        let told = format!("E(FATAL 53300 client connections exceeded ({key}))");
        assert_eq!(last.to_string(), told);
        let (detail, hint) = last.explanation();
        assert!(
            detail.starts_with(&format!("{key} of {subject} is 2, ")),
            "{detail}"
        );
        assert!(hint.contains(key), "{hint}");
    }
}

/// Connections over `max_client_conn` that are let into TLS, because they may be for the console.
const TLS_OVER_THE_LIMIT: usize = 64;

/// What costs something is seen by what it leaves: a challenge, a look-up that PostgreSQL counts, an answer to a wish
/// for TLS.
#[test]
fn who_is_too_many_costs_no_proof_no_look_up_and_in_a_crowd_no_tls() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let mut root = tenant.root();
    root.rows(&format!("alter role {name} password 'secret'"));
    root.rows("create sequence looked_up");
    root.rows(
        "create function look_up(who text) returns table (name name, secret text) language sql as \
         $$ select nextval('looked_up'); select usename, passwd from pg_shadow where usename = who $$",
    );
    let mut look_ups = || root.value("select last_value - (not is_called)::int from looked_up");
    assert_eq!(look_ups(), "0");
    let tls = self_signed_tls();
    let certificate = CertificateDer::from_pem_slice(tls.cert.as_bytes()).expect("a certificate");
    let ini = tenant
        .ini()
        .set("error_codes", "postgres")
        .set("max_client_conn", 1)
        .set("tcp_defer_accept", 0)
        .set("auth_type", "scram-sha-256")
        .set("auth_user", "postgres")
        .set("auth_query", "select * from look_up($1)")
        .set("client_tls_sslmode", "allow")
        .set("client_tls_key_file", "tls.key")
        .set("client_tls_cert_file", "tls.crt")
        .file("userlist.txt", "\"postgres\" \"\"\n")
        .file("tls.key", &tls.key)
        .file("tls.crt", &tls.cert);
    let pooler = start(ini);
    let wish = [("user", name), ("database", name)];

    // The one that is allowed is looked up and asked for a proof.
    let mut allowed = RawClient::connect(pooler.port);
    allowed.start_login(&wish);
    assert_eq!(allowed.read().map(|asked| asked.tag), Ok(b'R'));
    allowed.send(&Batch::new().sasl_initial("SCRAM-SHA-256", "n,,n=,r=mynonce"));
    assert_eq!(allowed.read().map(|asked| asked.tag), Ok(b'R'));
    assert_eq!(look_ups(), "1");

    let refusal = "E(FATAL 53300 no more connections allowed (max_client_conn))";
    let mut late = RawClient::connect(pooler.port);
    late.start_login(&wish);
    assert_eq!(late.until_closed(), refusal);
    let wire = TlsWire::connect(pooler.port, &certificate, Begin::Asked);
    let mut late = RawClient::on(Box::new(wire), pooler.port).expect("a socket");
    late.start_login(&wish);
    assert_eq!(late.until_closed(), refusal, "inside TLS");

    let crowd: Vec<_> = (0..TLS_OVER_THE_LIMIT)
        .map(|_| RawClient::connect(pooler.port))
        .collect();
    const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
    /// How a TLS handshake begins: a record with a ClientHello.
    const HELLO: &[u8] = &[0x16, 3, 1, 0, 4, 1, 0, 0, 0];
    for (how, bytes) in [("asked", SSL_REQUEST), ("direct", HELLO)] {
        let mut late = RawClient::connect(pooler.port);
        late.send_bytes(bytes);
        assert_eq!(late.until_closed(), refusal, "{how}");
    }
    assert_eq!(look_ups(), "1", "only the one that was allowed");
    drop(crowd);
}

#[test]
fn a_postgres_that_is_down_is_not_waited_for_for_ever() {
    let Some(mut postgres) = pgweir_tests::postgres_with_app() else {
        return;
    };
    let ini = Ini::in_front_of(&postgres).set("error_codes", "postgres");
    let pooler = start(
        ini.set("pool_mode", "transaction")
            .set("server_down_timeout", 1),
    );
    let mut client = RawClient::login(pooler.port, "app", "postgres");
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    postgres
        .stop(pgweir_tests::Stop::Immediate)
        .expect("it stops");
    eventually(
        Duration::from_secs(10),
        || client.query("select 1"),
        |answer| answer.starts_with("E(57P03 server login has been failing"),
    );
    for (form, batch, _) in forms() {
        let told = refused(&mut client, &batch).to_string();
        let text = "E(57P03 server login has been failing";
        assert!(told.starts_with(text), "{form}: {told}");
    }
    postgres.start_again().expect("it starts");
    eventually(
        Duration::from_secs(10),
        || client.query("select 1"),
        |answer| answer == "T D(1) C(SELECT 1) Z(I)",
    );
}

/// Waits until so many clients wait for a server.
fn waiting(pooler: &Pooler, count: u32) {
    let mut console = console(pooler);
    eventually(
        Duration::from_secs(5),
        || {
            let pools = console.table("show pools");
            pools.iter().map(|row| row.number("cl_waiting")).sum()
        },
        |waiting: &i64| *waiting == i64::from(count),
    );
    thread::sleep(Duration::from_millis(10));
}
