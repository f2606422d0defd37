//! The promise: pgweir takes over from a running PgBouncer, and PgBouncer from pgweir, and clients notice nothing. What
//! PgBouncer does not hand over is no client's business either.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use pgweir_tests::{
    Batch, Pooler, RawClient, SELECT_1, Tenant, eventually, find_pgbouncer, skip, start, story,
};

const PID: &str = "select pg_backend_pid()";
const SOON: Duration = Duration::from_secs(10);

#[test]
fn clients_of_pgbouncer_go_on_with_pgweir() {
    let Some((tenant, pgbouncer)) = scene() else {
        return;
    };
    let mut pooler = start_pgbouncer(&pgbouncer, &tenant, "transaction");
    let mut clients = Clients::begin(&tenant, &pooler);

    pooler.reboot().expect("taken over from PgBouncer");

    assert_eq!(pooler.console("SHOW STATE").rows.len(), 3);
    clients.go_on(&tenant, &pooler);
    pooler.reboot().expect("taken over from pgweir");
    assert_eq!(clients.idle.query("select 1"), SELECT_1);
    assert_eq!(clients.idle.value("show timezone"), "Asia/Tokyo");
}

#[test]
fn clients_of_pgweir_go_on_with_pgbouncer() {
    let Some((tenant, pgbouncer)) = scene() else {
        return;
    };
    let mut pooler = start(tenant.ini().set("default_pool_size", 5));
    let mut clients = Clients::begin(&tenant, &pooler);

    pooler
        .reboot_into(&pgbouncer)
        .expect("PgBouncer takes over");

    clients.go_on(&tenant, &pooler);
    pooler.reboot().expect("taken back");
    assert_eq!(clients.idle.query("select 1"), SELECT_1);
}

#[test]
fn a_session_of_pgbouncers_keeps_its_server() {
    let Some((tenant, pgbouncer)) = scene() else {
        return;
    };
    let mut pooler = start_pgbouncer(&pgbouncer, &tenant, "session");
    let mut client = tenant.client(&pooler);
    client.rows("create temporary table here (x int)");
    let prepared = Batch::new().parse("mine", "select 42").sync();
    assert_eq!(client.ask(&prepared), "1 Z(I)");

    pooler.reboot().expect("taken over");

    assert_eq!(client.value("select count(*) from here"), "0");
    let run = Batch::new().bind("", "mine", &[]).execute("").sync();
    assert_eq!(client.ask(&run), "2 D(42) C(SELECT 1) Z(I)");
}

#[test]
fn what_strangers_left_on_pgbouncers_servers_reaches_nobody() {
    let Some((tenant, pgbouncer)) = scene() else {
        return;
    };
    let mut pooler = start_pgbouncer(&pgbouncer, &tenant, "transaction");
    let mut client = tenant.client(&pooler);
    client.rows("set work_mem = '123MB'");
    let named = RawClient::login_with(
        pooler.port,
        &[
            ("database", &tenant.name),
            ("user", &tenant.name),
            ("application_name", "somebody"),
        ],
    );
    let mut named = named;
    let prepared = Batch::new().parse("one", "select 1").sync();
    assert_eq!(named.ask(&prepared), "1 Z(I)");

    pooler.reboot().expect("taken over");

    let mut newcomer = tenant.client(&pooler);
    for client in [&mut newcomer, &mut client] {
        assert_ne!(client.value("show work_mem"), "123MB");
        assert_eq!(client.value("show application_name"), "");
        let prepared = Batch::new().parse("two", "select 2").bind("", "two", &[]);
        let answer = client.ask(&prepared.execute("").sync());
        assert_eq!(answer, "1 2 D(2) C(SELECT 1) Z(I)", "its name is not taken");
    }
}

#[test]
fn the_limits_hold_while_pgweir_replaces_pgbouncers_servers() {
    const CAP: u32 = 5;
    let Some((tenant, pgbouncer)) = scene() else {
        return;
    };
    let mut pooler = start_pgbouncer(&pgbouncer, &tenant, "transaction");
    let mut busy: Vec<RawClient> = (0..2).map(|_| tenant.client(&pooler)).collect();
    for client in &mut busy {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    let mut crowd: Vec<RawClient> = (0..12).map(|_| tenant.client(&pooler)).collect();
    for client in &mut crowd {
        client.send(&Batch::new().query("select 1 from pg_sleep(0.05)"));
    }
    for client in &mut crowd {
        client.until_ready();
    }
    let watch = tenant.watch();

    pooler.reboot().expect("taken over");

    thread::scope(|scope| {
        for client in &mut crowd {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(client.query("select 1 from pg_sleep(0.01)"), SELECT_1);
                }
            });
        }
    });
    for client in &mut busy {
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    }
    let seen = watch.end();
    assert!(seen.most <= CAP, "{seen:?}");
    assert!(seen.count > 20, "{seen:?}");
}

/// Clients that have begun something.
struct Clients {
    idle: RawClient,
    in_transaction: RawClient,
    running: RawClient,
    sleeping: RawClient,
    copying: RawClient,
}

impl Clients {
    fn begin(tenant: &Tenant, pooler: &Pooler) -> Self {
        let mut root = tenant.root();
        root.rows("create table copied (x text)");
        root.rows("grant all on copied to public");
        let mut idle = tenant.client(pooler);
        idle.rows("set timezone = 'Asia/Tokyo'");
        let mut in_transaction = tenant.client(pooler);
        assert_eq!(in_transaction.query("begin"), "C(BEGIN) Z(T)");
        in_transaction.rows("create temporary table here (x int) on commit drop");
        let mut running = tenant.client(pooler);
        running.send(&Batch::new().query("select 1 from pg_sleep(2)"));
        let mut sleeping = tenant.client(pooler);
        sleeping.send(&Batch::new().query("select pg_sleep(30)"));
        let mut copying = tenant.client(pooler);
        copying.send(
            &Batch::new()
                .query("copy copied from stdin")
                .copy_data(b"1\n"),
        );
        assert_eq!(copying.read().map(|reply| reply.tag), Ok(b'G'));
        let seen = "select count(*) from pg_stat_activity where query like '%pg_sleep%' \
                    and state = 'active' and pid <> pg_backend_pid()";
        eventually(SOON, || root.value(seen), |count| count == "2");
        Self {
            idle,
            in_transaction,
            running,
            sleeping,
            copying,
        }
    }

    fn go_on(&mut self, tenant: &Tenant, pooler: &Pooler) {
        let answer = self.in_transaction.query("select count(*) from here");
        assert_eq!(answer, "T D(0) C(SELECT 1) Z(T)");
        assert_eq!(self.in_transaction.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(story(&self.running.until_ready()), SELECT_1);
        assert_eq!(self.running.query("select 1"), SELECT_1);
        self.copying
            .send(&Batch::new().copy_data(b"2\n").copy_done());
        assert_eq!(story(&self.copying.until_ready()), "C(COPY 2) Z(I)");
        assert_eq!(self.copying.value("select count(*) from copied"), "2");
        self.sleeping.cancel();
        let canceled = "T E(57014 canceling statement due to user request) Z(I)";
        assert_eq!(story(&self.sleeping.until_ready()), canceled);
        assert_eq!(self.sleeping.query("select 1"), SELECT_1);
        assert_eq!(self.idle.value("show timezone"), "Asia/Tokyo");
        let mut newcomer = tenant.client(pooler);
        assert_eq!(newcomer.query("select 1"), SELECT_1);
        assert_ne!(newcomer.value(PID), "");
    }
}

#[track_caller]
fn scene() -> Option<(Tenant, PathBuf)> {
    let Some(pgbouncer) = find_pgbouncer() else {
        skip("no PgBouncer in PATH or /usr/sbin; PGWEIR_PGBOUNCER may name one");
        return None;
    };
    Tenant::new().map(|tenant| (tenant, pgbouncer))
}

#[track_caller]
fn start_pgbouncer(pgbouncer: &Path, tenant: &Tenant, mode: &str) -> Pooler {
    let ini = tenant
        .ini()
        .set("pool_mode", mode)
        .set("default_pool_size", 5);
    Pooler::start_binary(pgbouncer, ini).expect("PgBouncer starts")
}
