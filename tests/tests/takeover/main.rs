//! The promise: a new process takes over from the old one with `-R`, and nobody notices. What clients have begun goes
//! on, and both processes together never have more servers than one may have.

mod failing;
mod suspend;

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, Pooler, RawClient, SELECT_1, Signal, Tenant, console,
    eventually, self_signed_tls, start, story,
};

const PID: &str = "select pg_backend_pid()";
const SOON: Duration = Duration::from_secs(10);

#[test]
fn clients_in_any_state_go_on_with_their_servers() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 5)
            // A server that is asked what its client has left is not there for another one meanwhile.
            .set("session_state", "pgbouncer")
            .set("pidfile", "{dir}/pid"),
    );
    let old = pooler.pid;

    let mut idle = tenant.client(&pooler);
    let free = idle.value(PID);
    let mut in_transaction = tenant.client(&pooler);
    assert_eq!(in_transaction.query("begin"), "C(BEGIN) Z(T)");
    in_transaction.rows("create temporary table here (x int)");
    let mut failed = tenant.client(&pooler);
    assert_eq!(failed.query("begin"), "C(BEGIN) Z(T)");
    failed.query("select 1/0");
    let mut running = tenant.client(&pooler);
    running.send(&Batch::new().query("select 1 from pg_sleep(2)"));
    let mut half_sent = tenant.client(&pooler);
    half_sent.send(&Batch::new().parse("", "select 1").bind("", "", &[]).flush());
    assert_eq!(half_sent.read().map(|reply| reply.tag), Ok(b'1'));
    assert_eq!(half_sent.read().map(|reply| reply.tag), Ok(b'2'));
    let backends = tenant.backends();

    pooler.reboot().expect("taken over");

    assert_ne!(pooler.pid, old);
    assert_eq!(tenant.backends(), backends, "no server was opened or lost");
    assert_eq!(story(&running.until_ready()), SELECT_1);
    assert_eq!(
        half_sent.ask(&Batch::new().execute("").sync()),
        "D(1) C(SELECT 1) Z(I)"
    );
    assert_eq!(
        in_transaction.query("select count(*) from here"),
        "T D(0) C(SELECT 1) Z(T)"
    );
    assert_eq!(in_transaction.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(failed.query("rollback"), "C(ROLLBACK) Z(I)");
    assert_eq!(idle.query("select 1"), SELECT_1);
    let mut newcomer = tenant.client(&pooler);
    assert_eq!(newcomer.query("select 1"), SELECT_1);
    let kept = format!("select count(*) from pg_stat_activity where pid = {free}");
    assert_eq!(tenant.root().value(&kept), "1", "idle servers move as well");
    assert_eq!(tenant.backends(), backends);
}

#[test]
fn the_files_of_the_old_process_become_those_of_the_new_one() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(tenant.ini().set("pidfile", "{dir}/pid"));
    let pidfile = pooler.ini_path().with_file_name("pid");
    let written = || std::fs::read_to_string(&pidfile).unwrap_or_default();
    assert_eq!(written(), format!("{}\n", pooler.pid));
    for _ in 0..3 {
        pooler.reboot().expect("taken over");
        eventually(SOON, written, |text| *text == format!("{}\n", pooler.pid));
    }
    let socket = pooler.socket_dir.join(format!(".s.PGSQL.{}", pooler.port));
    pooler.signal(Signal::INT);
    assert!(
        pooler
            .wait_for_exit(SOON)
            .is_some_and(|status| status.success())
    );
    assert!(
        !socket.exists() && !pidfile.exists(),
        "the last one removes them"
    );
}

#[test]
fn a_session_keeps_its_server_and_a_queue_its_order() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(
        tenant
            .ini()
            .set("pool_mode", "session")
            .set("default_pool_size", 1),
    );
    let mut holder = tenant.client(&pooler);
    holder.rows("create temporary table here (x int)");
    let mut first = tenant.client(&pooler);
    let sent = Instant::now();
    first.send(&Batch::new().query("select 'first'"));
    assert!(first.is_silent_for(Duration::from_millis(100)));
    let mut second = tenant.client(&pooler);
    second.send(&Batch::new().query("select 'second'"));
    assert!(second.is_silent_for(Duration::from_millis(100)));

    let waited = sent.elapsed();
    pooler.reboot().expect("taken over");

    assert_eq!(holder.value("select count(*) from here"), "0");
    let pools = pooler.console("SHOW POOLS");
    let pool = pools.find("database", &tenant.name).expect("its pool");
    let clients = pooler.console("SHOW CLIENTS");
    let told = clients
        .iter()
        .map(|client| client.number("wait") * 1_000_000 + client.number("wait_us"));
    let told = told.max().unwrap_or_default();
    assert!(told >= waited.as_micros() as i64, "{told} µs, {waited:?}");
    assert_eq!(
        (pool.number("cl_active"), pool.number("cl_waiting")),
        (1, 2)
    );
    drop(holder);
    assert_eq!(story(&first.until_ready()), "T D(first) C(SELECT 1) Z(I)");
    assert!(second.is_silent_for(Duration::from_millis(100)));
    drop(first);
    assert_eq!(story(&second.until_ready()), "T D(second) C(SELECT 1) Z(I)");
}

#[test]
fn prepared_statements_and_parameters_stay_with_their_clients() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    client.rows("set timezone = 'Asia/Tokyo'");
    client.rows("set application_name = 'kept'");
    client.rows("set intervalstyle = 'iso_8601'");
    let prepared = Batch::new().parse("mine", "select $1::int + 1").sync();
    assert_eq!(client.ask(&prepared), "1 Z(I)");
    let run = Batch::new().bind("", "mine", &["41"]).execute("").sync();
    assert_eq!(client.ask(&run), "2 D(42) C(SELECT 1) Z(I)");
    let mut stranger = tenant.client(&pooler);
    let theirs = stranger.value("select current_setting('timezone')");

    for _ in 0..2 {
        pooler.reboot().expect("taken over");

        assert_eq!(client.ask(&run), "2 D(42) C(SELECT 1) Z(I)");
        assert_eq!(stranger.value("select current_setting('timezone')"), theirs);
        assert_eq!(
            stranger.value("select current_setting('application_name')"),
            ""
        );
        assert_eq!(
            client.value("select current_setting('timezone')"),
            "Asia/Tokyo"
        );
        assert_eq!(
            client.value("select current_setting('application_name')"),
            "kept"
        );
        assert_eq!(client.value("select interval '1 day'"), "P1D");
    }
    let other = Batch::new()
        .parse("other", "select 7")
        .bind("", "other", &[])
        .execute("")
        .sync();
    assert_eq!(client.ask(&other), "1 2 D(7) C(SELECT 1) Z(I)");
}

#[test]
fn a_new_server_is_taught_a_statement_that_executes_another_with_that_one() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("default_pool_size", 1);
    let mut pooler = start(ini.set("error_codes", "postgres"));
    let mut client = tenant.client(&pooler);
    let prepare = Batch::new().parse("inner", "select 'executed'").sync();
    assert_eq!(client.ask(&prepare), "1 Z(I)");
    let prepare = Batch::new().parse("outer", "execute inner").sync();
    assert_eq!(client.ask(&prepare), "1 Z(I)");
    let run = Batch::new().bind("", "outer", &[]).execute("").sync();
    pooler.reboot().expect("taken over");
    pooler.console("RECONNECT");
    assert_eq!(client.ask(&run), "2 D(executed) C(SELECT 1) Z(I)");
}

#[test]
fn what_a_client_has_requested_stays_with_it() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("startup_parameters", "apply"),
    );
    let name = &tenant.name;
    let parameters = [
        ("database", &**name),
        ("user", name),
        ("search_path", "mine, public"),
    ];
    let mut client = RawClient::login_with(pooler.port, &parameters);
    let mut stranger = tenant.client(&pooler);
    for _ in 0..2 {
        assert_eq!(client.value("show search_path"), "mine, public");
        pooler.reboot().expect("taken over");
        assert_eq!(stranger.value("show search_path"), "\"$user\", public");
    }
    assert_eq!(client.value("show search_path"), "mine, public");
}

#[test]
fn cancel_keys_still_work() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    client.send(&Batch::new().query("select pg_sleep(20)"));
    let mut waiting = tenant.client(&pooler);
    waiting.send(&Batch::new().query("select 1"));
    assert!(waiting.is_silent_for(Duration::from_millis(200)));

    pooler.reboot().expect("taken over");

    waiting.cancel();
    let canceled = "E(57014 canceling statement due to user request) Z(I)";
    assert_eq!(story(&waiting.until_ready()), canceled);
    client.cancel();
    assert_eq!(story(&client.until_ready()), format!("T {canceled}"));
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn a_copy_goes_on_in_the_middle_of_a_message() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(2);
    tenant.direct().rows("create table copied (x text)");
    let mut client = tenant.client(&pooler);
    client.send(&Batch::new().query("copy copied from stdin"));
    assert_eq!(client.read().map(|reply| reply.tag), Ok(b'G'));
    let row = vec![b'x'; 100_000];
    let message = Batch::new().copy_data(&[&*row, b"\n"].concat());
    let (begun, rest) = message.as_bytes().split_at(70_001);
    client.send_bytes(begun);
    let mut reader = tenant.client(&pooler);
    let many = "copy (select repeat('y', 1000) from generate_series(1, 50000)) to stdout";
    reader.send(&Batch::new().query(many));
    reader.swallow(1_000_000);

    pooler.reboot().expect("taken over");

    client.send_bytes(rest);
    assert_eq!(client.ask(&Batch::new().copy_done()), "C(COPY 1) Z(I)");
    assert_eq!(
        tenant.root().value("select length(x) from copied"),
        "100000"
    );
    // What is left are whole rows and the end.
    let rows: u64 = 50_000 * (5 + 1001);
    let begin = 10;
    reader.swallow(begin + rows - 1_000_000);
    assert_eq!(story(&reader.until_ready()), "c C(COPY 50000) Z(I)");
}

#[test]
fn the_limits_hold_over_both_processes() {
    const CAP: u32 = 5;
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(
        tenant
            .ini()
            .set("default_pool_size", CAP)
            .set("max_db_connections", CAP)
            .set("max_user_connections", CAP)
            .set("server_idle_timeout", 1)
            .set("server_lifetime", 2),
    );
    let watch = tenant.watch();
    let until = Instant::now() + Duration::from_secs(8);
    let queries: u32 = thread::scope(|scope| {
        let crowd: Vec<_> = (0..20)
            .map(|n| {
                let (tenant, port) = (&tenant, pooler.port);
                scope.spawn(move || live_until(until, n, tenant, port))
            })
            .collect();
        while Instant::now() < until {
            pooler.reboot().expect("taken over");
        }
        crowd
            .into_iter()
            .map(|one| one.join().expect("served"))
            .sum()
    });
    let seen = watch.end();
    assert!(seen.most <= CAP, "{seen:?}");
    assert!(
        seen.count > 100 && queries > 100,
        "{seen:?}, {queries} queries"
    );
    assert_eq!(
        eventually(
            SOON,
            || console(&pooler).table("show lists"),
            |lists| {
                lists
                    .find("list", "used_clients")
                    .is_some_and(|row| row.number("items") <= 1)
            }
        )
        .find("list", "login_clients")
        .map(|row| row.number("items")),
        Some(0)
    );
}

/// Asks, in and out of transactions; one of four leaves in the middle of a query now and then. Answers that are owed
/// come. How many came.
fn live_until(until: Instant, n: u32, tenant: &Tenant, port: u16) -> u32 {
    let login = || RawClient::login(port, &tenant.name, &tenant.name);
    let mut client = login();
    let mut count = 0;
    while Instant::now() < until {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        assert_eq!(
            client.query("select 1 from pg_sleep(0.01)"),
            "T D(1) C(SELECT 1) Z(T)"
        );
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        count += 1;
        if n.is_multiple_of(4) && count % 5 == 0 {
            client.send(&Batch::new().query("select pg_sleep(20)"));
            client.is_silent_for(Duration::from_millis(20));
            client = login();
        }
    }
    count
}

#[test]
fn pgbench_notices_nothing() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let mut pooler = start(tenant.ini().set("default_pool_size", 4).set("workers", 2));
    let bench = |args: &[&str]| {
        let args = [&["-U", name], args].concat();
        pooler.endpoint().pgbench(name, &args)
    };
    bench(&["-i", "-q"]).expect("tables");
    let endpoint = pooler.endpoint();
    for mode in ["simple", "extended", "prepared"] {
        let args = ["-U", name, "-M", mode, "-c", "20", "-j", "20", "-T", "5"];
        let done = thread::scope(|scope| {
            let bench = scope.spawn(|| endpoint.pgbench(name, &args));
            while !bench.is_finished() {
                pooler.reboot().expect("taken over");
            }
            bench.join().expect("no panic").expect("it went well")
        });
        assert_eq!(done.failed, 0, "{mode}: {done:?}");
        assert!(done.transactions > 20, "{mode}: {done:?}");
    }
}

#[test]
fn what_speaks_tls_ends_and_is_counted_until_it_has() {
    let options = ClusterOptions {
        tls: Some(self_signed_tls()),
        ..ClusterOptions::default()
    };
    let Some(postgres) = Cluster::start_or_skip(options) else {
        return;
    };
    let ini = Ini::in_front_of(&postgres)
        .set("pool_mode", "transaction")
        .set("default_pool_size", 3)
        .set("server_tls_sslmode", "require");
    let mut pooler = start(ini);
    let login = |pooler: &Pooler| RawClient::login(pooler.port, "postgres", "postgres");
    let mut idle = login(&pooler);
    assert_eq!(idle.query("select 1"), SELECT_1);
    let mut in_transaction = login(&pooler);
    assert_eq!(in_transaction.query("begin"), "C(BEGIN) Z(T)");
    let old = in_transaction.value(PID);

    pooler.reboot().expect("taken over");

    in_transaction.until_closed();
    assert_eq!(idle.query("select 1"), SELECT_1, "on a new server");
    let gone = || {
        let sql = format!("select count(*) from pg_stat_activity where pid = {old}");
        login(&pooler).value(&sql)
    };
    eventually(SOON, gone, |count| count == "0");
}

#[test]
fn secrets_that_clients_have_taught_are_handed_over() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let mut root = tenant.root();
    root.rows(&format!("alter role {name} password 'secret'"));
    root.rows(&format!("grant wants_scram to {name}"));
    let secret = root.value(&format!(
        "select rolpassword from pg_authid where rolname = '{name}'"
    ));
    let users = format!("\"postgres\" \"\"\n\"{name}\" \"{secret}\"\n");
    let mut pooler = start(
        tenant
            .ini()
            .file("userlist.txt", &users)
            .set("auth_type", "scram-sha-256"),
    );
    let target = format!(
        "host=127.0.0.1 port={} dbname={name} user={name} password=secret",
        pooler.port
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let (client, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls)
            .await
            .expect("let in");
        tokio::spawn(connection);
        client.simple_query("select 1").await.expect("answered");
        pooler.reboot().expect("taken over");
        // The client will not prove itself again, and the server asks for a proof.
        pooler.console("RECONNECT");
        client.simple_query("select 1").await.expect("answered");
    });
}
