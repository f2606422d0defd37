//! The promise of `session_state = private`, which is the default: in transaction mode nothing that a client leaves in
//! a session crosses to another client, over whatever protocol, committed or not, whether it stays or leaves.

mod kinds;

use std::time::Duration;

use pgweir_tests::{Batch, Program, RawClient, Tenant, console, eventually, free_port, start};

use kinds::{KINDS, Kind, LAST_DRAWN, LOCKS, SCHEMA, TEMPORARY};

/// How a client asks.
#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    Extended,
    /// With a statement that leaves nothing before and behind it, in one go.
    Pipelined,
}

const WAYS: [Way; 3] = [Way::Simple, Way::Extended, Way::Pipelined];

/// A tenant whose user is a superuser, so that nothing is forbidden to it.
fn tenant() -> Option<Tenant> {
    let tenant = Tenant::new()?;
    let mut root = tenant.root();
    root.rows(&format!("alter role {} superuser", tenant.name));
    let schema = SCHEMA.replace("helper", &helper(&tenant));
    root.rows(&schema.replace("create role", "drop role if exists x; create role"));
    Some(tenant)
}

fn helper(tenant: &Tenant) -> String {
    format!("helper_{}", tenant.name)
}

fn leave(client: &mut RawClient, tenant: &Tenant, kind: &Kind, way: Way, undo: bool) {
    for sql in kind.leave {
        let sql = sql.replace("helper", &helper(tenant));
        match (way, undo) {
            (_, true) => {
                client.rows(&format!("begin; {}; rollback", within(&sql)));
            }
            (Way::Simple, false) => {
                client.rows(&sql);
            }
            (Way::Extended, false) => {
                for part in parts(&sql) {
                    client.send(&Batch::new().run(part).sync());
                    client.until_ready();
                }
            }
            (Way::Pipelined, false) => {
                let mut batch = Batch::new().run("select 1").sync();
                for part in parts(&sql) {
                    batch = batch.run(part).sync();
                }
                client.send(&batch.run("select 2").sync());
                for _ in 0..parts(&sql).count() + 2 {
                    client.until_ready();
                }
            }
        }
    }
}

/// What stands in a transaction without its beginning and its end.
fn within(sql: &str) -> String {
    sql.replace("begin; ", "").replace("; commit", "")
}

/// The statements of a transaction; a body in dollar quotes is one statement.
fn parts(sql: &str) -> impl Iterator<Item = &str> + Clone {
    let whole = sql.contains("$$").then_some(sql);
    let parts = sql.split("; ").filter(move |_| whole.is_none());
    whole.into_iter().chain(parts)
}

/// A column of SHOW PINS.
fn pins(console: &mut RawClient, column: usize) -> Vec<String> {
    let pins = console.rows("show pins");
    let cell = |row: &String| row.split('|').nth(column).unwrap_or_default().to_owned();
    pins.iter().map(cell).collect()
}

fn look(client: &mut RawClient, sql: &str) -> String {
    client.query(sql)
}

/// Every kind, left in every way by clients that stay or leave: the next client has what a fresh session has.
fn nothing_crosses(tenant: &Tenant, login: impl Fn() -> RawClient) {
    for kind in KINDS {
        let fresh = look(&mut tenant.direct(), kind.look);
        for way in WAYS {
            for (stays, undo) in [(true, false), (false, false), (true, true)] {
                let mut first = login();
                let mut second = login();
                leave(&mut first, tenant, kind, way, undo);
                if !stays {
                    drop(first);
                    assert_eq!(
                        look(&mut second, kind.look),
                        fresh,
                        "{}, {way:?}, left",
                        kind.name
                    );
                    continue;
                }
                for _ in 0..2 {
                    let seen = look(&mut second, kind.look);
                    assert_eq!(seen, fresh, "{}, {way:?}, undone: {undo}", kind.name);
                    first.rows("select 1");
                }
            }
        }
    }
}

#[test]
fn nothing_crosses_from_who_vanishes_in_the_middle_of_a_transaction() {
    let Some(tenant) = tenant() else { return };
    let pooler = tenant.pooler(1);
    for kind in KINDS {
        let fresh = look(&mut tenant.direct(), kind.look);
        let others_see = || look(&mut tenant.client(&pooler), kind.look);
        // What leaves nothing that can be looked for is trusted the next time.
        leave(
            &mut tenant.client(&pooler),
            &tenant,
            kind,
            Way::Simple,
            false,
        );
        assert_eq!(others_see(), fresh, "{}", kind.name);
        let mut first = tenant.client(&pooler);
        for sql in kind.leave {
            let sql = sql.replace("helper", &helper(&tenant));
            first.rows(&format!("begin; {}", within(&sql)));
        }
        drop(first);
        assert_eq!(others_see(), fresh, "{}, vanished", kind.name);
    }
}

#[test]
fn nothing_crosses_over_one_server() {
    let Some(tenant) = tenant() else { return };
    let pooler = tenant.pooler(1);
    nothing_crosses(&tenant, || tenant.client(&pooler));
    // Those that were asked directly may not have ended yet, nor the connection that listened.
    eventually(
        Duration::from_secs(20),
        || tenant.backends(),
        |&backends| backends == 1,
    );
}

#[test]
fn nothing_crosses_where_servers_may_stay_with_clients() {
    let Some(tenant) = tenant() else { return };
    let pooler = tenant.pooler(3);
    nothing_crosses(&tenant, || tenant.client(&pooler));
}

#[test]
fn nothing_crosses_with_native_defaults() {
    let Some(tenant) = tenant() else { return };
    let (program, port, name) = (Program::new(), free_port(), &tenant.name);
    program.write("users.txt", &format!("\"{name}\" \"\"\n"));
    program.write(
        "pgweir.toml",
        &format!(
            "[pgweir]\nlisten_addr = [\"127.0.0.1\"]\nlisten_port = {port}\n\
             unix_socket_dir = \"\"\nauth_type = \"trust\"\nauth_file = \"users.txt\"\n\
             pool_mode = \"transaction\"\ndefault_pool_size = 1\n\
             [databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\n",
            tenant.postgres.port()
        ),
    );
    let _running = program.spawn(&["pgweir.toml"]);
    eventually(
        Duration::from_secs(10),
        || RawClient::try_connect(port).is_ok(),
        |up| *up,
    );
    nothing_crosses(&tenant, || RawClient::login(port, name, name));
}

#[test]
fn pgbouncer_s_way_can_be_had() {
    let Some(tenant) = tenant() else { return };
    let ini = tenant.ini().set("session_state", "pgbouncer");
    let pooler = start(ini.set("default_pool_size", 1));
    tenant.client(&pooler).rows("set work_mem = '1MB'");
    assert_eq!(tenant.client(&pooler).value("show work_mem"), "1MB");
}

#[test]
fn parameters_follow_their_client() {
    let Some(tenant) = tenant() else { return };
    let pooler = tenant.pooler(2);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    first.rows("set work_mem = '1MB'");
    first.rows("set app.tenant = 'it''s'");
    first.rows("select sets_tenant()");
    first.rows(&format!("set role {}", helper(&tenant)));
    second.rows("set work_mem = '2MB'");
    let mut holder = tenant.client(&pooler);
    for _ in 0..2 {
        holder.rows("begin; select 1");
        assert_eq!(first.value("show work_mem"), "1MB");
        assert_eq!(first.value("show app.tenant"), "it's");
        assert_eq!(first.value("show app.owner"), "somebody");
        assert_eq!(first.value("select current_user::text"), helper(&tenant));
        assert_eq!(second.value("show work_mem"), "2MB");
        assert_eq!(second.value("select current_user::text"), tenant.name);
        holder.rows("commit");
    }
    first.rows("reset role; reset work_mem");
    assert_eq!(second.value("show work_mem"), "2MB");
    assert_eq!(first.value("show work_mem"), "4MB");
    assert_eq!(first.value("select current_user::text"), tenant.name);
    first.rows("discard all");
    assert_eq!(
        first.value("select coalesce(current_setting('app.tenant', true), '')"),
        ""
    );
}

#[test]
fn a_role_is_told_from_the_one_that_sessions_begin_with() {
    let Some(tenant) = tenant() else { return };
    let (name, helper) = (&tenant.name, helper(&tenant));
    let user = "select current_user::text";
    // What somebody else's sessions, or this user's in another database, begin with is nothing to these.
    let mut root = tenant.root();
    root.rows(&format!("alter role {helper} set role = '{helper}'"));
    root.rows(&format!(
        "alter role {name} in database postgres set role = '{helper}'"
    ));
    let pooler = tenant.pooler(1);
    let (mut first, mut second) = (tenant.client(&pooler), tenant.client(&pooler));
    first.rows(&format!("set role {helper}"));
    assert_eq!(second.value(user), *name);
    assert_eq!(first.value(user), helper);

    // The most special holds.
    root.rows(&format!("alter role {name} set role = '{name}'"));
    root.rows(&format!(
        "alter role {name} in database {name} set role = '{helper}'"
    ));
    let pooler = tenant.pooler(1);
    let (mut first, mut second) = (tenant.client(&pooler), tenant.client(&pooler));
    assert_eq!(first.value(user), helper);
    first.rows("set role none");
    assert_eq!(second.value(user), helper);
    assert_eq!(first.value(user), *name);
    second.rows(&format!("set role {name}"));
    assert_eq!(first.value(user), *name);
    assert_eq!(tenant.client(&pooler).value(user), helper);
}

#[test]
fn a_function_that_is_replaced_is_not_trusted_any_more() {
    let Some(tenant) = tenant() else { return };
    let pooler = tenant.pooler(1);
    let (mut first, mut second) = (tenant.client(&pooler), tenant.client(&pooler));
    let define = |body: &str| {
        format!("create or replace function f() returns text language sql as $$ {body} $$")
    };
    first.rows(&define("select 'nothing'"));
    first.rows("select f()");
    first.rows("select f()");
    second.rows(&define("select set_config('work_mem', '5MB', false)"));
    first.rows("select f()");
    assert_eq!(second.value("show work_mem"), "4MB");
}

#[test]
fn parameters_that_only_a_function_may_set_are_lost() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.root().rows(
        "create function logs_all() returns text language sql security definer as \
         $$ select set_config('log_min_duration_statement', '77s', false) $$",
    );
    let pooler = tenant.pooler(1);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    first.rows("select logs_all()");
    first.rows("set work_mem = '1MB'");
    // Nor may it be taken back, so nobody gets this server.
    assert_eq!(second.value("show log_min_duration_statement"), "-1");
    let answer = first.query("show work_mem");
    assert!(
        answer.starts_with("N(WARNING 01000 parameters "),
        "{answer}"
    );
    assert_eq!(first.value("show work_mem"), "4MB");
    assert_eq!(first.value("show log_min_duration_statement"), "-1");
}

#[test]
fn a_server_stays_with_its_client_until_the_state_ends() {
    let Some(tenant) = tenant() else { return };
    for (leave, end, reason) in [
        (
            "select pg_advisory_lock(7)",
            "select pg_advisory_unlock(7)",
            "advisory lock",
        ),
        ("listen news", "unlisten *", "listen"),
        (
            "create temp table mine (x int)",
            "drop table mine",
            "temporary object",
        ),
        (
            "prepare p as select 1",
            "deallocate p",
            "prepared statement",
        ),
        (
            "declare c cursor with hold for select 1",
            "close c",
            "cursor with hold",
        ),
        (
            "select makes_temporary()",
            "discard all",
            "temporary object",
        ),
    ] {
        let ini = tenant.ini().set("listen", "pin");
        let pooler = start(ini.set("default_pool_size", 2));
        let mut console = console(&pooler);
        let mut pinned_for = |expected: &[&str]| {
            let pins = || pins(&mut console, 6);
            // The client is answered before its server is asked what it has left.
            eventually(Duration::from_secs(5), pins, |pins| pins == expected);
        };
        let mut first = tenant.client(&pooler);
        first.rows(leave);
        let pid = first.value("select pg_backend_pid()");
        let mut second = tenant.client(&pooler);
        for _ in 0..2 {
            assert_ne!(second.value("select pg_backend_pid()"), pid, "{leave}");
            assert_eq!(first.value("select pg_backend_pid()"), pid, "{leave}");
        }
        pinned_for(&[reason]);
        first.rows(end);
        pinned_for(&[]);
        first.rows(leave);
        pinned_for(&[reason]);
        drop(first);
        pinned_for(&[]);
        let mut holder = tenant.client(&pooler);
        holder.rows("begin; select 1");
        assert_eq!(look(&mut second, LOCKS), "T D(0) C(SELECT 1) Z(I)");
        assert_eq!(look(&mut second, TEMPORARY), "T D(0) C(SELECT 1) Z(I)");
    }
}

#[test]
fn a_loose_server_is_called_back_when_somebody_needs_it() {
    let Some(tenant) = tenant() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 3)
            .set("listen", "pin")
            .set("max_pinned", 1),
    );
    let listening = "select count(*) from pg_listening_channels()";
    let mut firm = tenant.client(&pooler);
    let mut loose = tenant.client(&pooler);
    for client in [&mut firm, &mut loose] {
        client.rows("listen news");
        client.rows("set work_mem = '7MB'");
        assert_eq!(client.value(listening), "1");
    }
    assert_eq!(pins(&mut console(&pooler), 7), ["firm", "loose"]);
    let mut holders: Vec<RawClient> = (0..2).map(|_| tenant.client(&pooler)).collect();
    for holder in &mut holders {
        holder.rows("begin; select 1");
        assert_eq!(holder.value("show work_mem"), "4MB");
        assert_eq!(holder.value(listening), "0");
    }
    holders.clear();
    let lost = loose.query(listening);
    assert!(lost.starts_with("N(WARNING 01000 "), "{lost}");
    assert!(lost.contains("D(0)"), "{lost}");
    assert_eq!(
        loose.value("show work_mem"),
        "7MB",
        "parameters are not lost"
    );
    assert_eq!(firm.value(listening), "1");
    assert_eq!(pins(&mut console(&pooler), 7), ["firm"]);
}

#[test]
fn a_pause_calls_back_what_stays_with_clients() {
    let Some(tenant) = tenant() else { return };
    let pooler = start(tenant.ini().set("listen", "pin"));
    let mut client = tenant.client(&pooler);
    client.rows("listen news");
    let mut console = console(&pooler);
    eventually(
        Duration::from_secs(5),
        || pins(&mut console, 7),
        |pins| pins == &["firm"],
    );
    assert_eq!(console.query("pause"), "C(PAUSE) Z(I)");
    assert_eq!(console.query("resume"), "C(RESUME) Z(I)");
    assert!(client.query("select 1").starts_with("N(WARNING 01000 "));
}

#[test]
fn what_is_trusted_is_not_asked_again() {
    let Some(tenant) = tenant() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let mut root = tenant.root();
    for _ in 0..3 {
        client.rows("select count(*) from numbered");
    }
    let last = format!(
        "select query from pg_stat_activity where usename = '{}' and pid <> pg_backend_pid()",
        tenant.name
    );
    assert_eq!(root.value(&last), "select count(*) from numbered");
}

/// Everything at once: parameters, rights, and how much there is of each kind.
const FINGERPRINT: &str = "select concat_ws(';', \
    (select string_agg(name || '=' || setting, ';' order by name) from pg_settings \
     where name not like 'plpgsql.%'), \
    'user=' || current_user, 'session=' || session_user, \
    'tenant=' || coalesce(current_setting('app.tenant', true), ''), \
    'owner=' || coalesce(current_setting('app.owner', true), ''), \
    (select 'lock' from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() limit 1), \
    (select 'temporary' from pg_depend where refclassid = 2615 and refobjid = pg_my_temp_schema() limit 1), \
    (select 'listening' from pg_listening_channels() limit 1), \
    (select 'prepared' from pg_prepared_statements where from_sql limit 1), \
    (select 'cursor' from pg_cursors where is_holdable limit 1), 'end')";

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn whatever_clients_leave_in_whatever_order_others_have_a_fresh_session() {
    let Some(tenant) = tenant() else { return };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = u64::from(since.expect("after 1970").subsec_nanos());
    let mut dice = Dice(seed);
    let fresh = tenant.direct().value(FINGERPRINT);
    for servers in 1..=3 {
        let pooler = tenant.pooler(servers);
        let mut observers: Vec<_> = (0..2).map(|_| tenant.client(&pooler)).collect();
        let mut leaving: Vec<_> = (0..3).map(|_| tenant.client(&pooler)).collect();
        let mut done = Vec::new();
        for _ in 0..120 {
            let who = dice.throw(leaving.len());
            if dice.throw(6) == 0 {
                leaving[who] = tenant.client(&pooler);
            }
            let kind = &KINDS[dice.throw(KINDS.len())];
            let (way, undo) = (WAYS[dice.throw(3)], dice.throw(4) == 0);
            done.push((who, kind.name, way, undo));
            leave_or_fail(&mut leaving[who], &tenant, kind, way, undo);
            let observer = &mut observers[dice.throw(2)];
            let seen = observer.value(FINGERPRINT);
            let lately = &done[done.len().saturating_sub(8)..];
            let rights = &seen[seen.rfind("user=").unwrap_or(0)..];
            let differs = |(seen, fresh): &(&str, &str)| seen != fresh;
            let facts = seen.split(';').zip(fresh.split(';')).find(differs);
            assert_eq!(
                facts, None,
                "{rights}, seed {seed}, {servers} servers: {lately:?}"
            );
            if dice.throw(3) == 0 {
                let drawn = look(observer, LAST_DRAWN);
                assert!(
                    drawn.contains("55000"),
                    "{drawn}, seed {seed}, {servers} servers: {lately:?}"
                );
            }
        }
    }
}

/// As [`leave`]; what the client has done before may be in its way.
fn leave_or_fail(client: &mut RawClient, tenant: &Tenant, kind: &Kind, way: Way, undo: bool) {
    for sql in kind.leave {
        // Who waits for another's lock waits for ever.
        let sql = sql.replace("pg_advisory_lock", "pg_try_advisory_lock");
        let sql = sql.replace("helper", &helper(tenant));
        match (way, undo) {
            (_, true) => {
                let inner = sql.replace("begin; ", "").replace("; commit", "");
                client.query(&format!("begin; {inner}"));
                client.query("rollback");
            }
            (Way::Simple, false) => {
                client.query(&sql);
                client.query("rollback");
            }
            (Way::Extended | Way::Pipelined, false) => {
                for part in parts(&sql) {
                    client.send(&Batch::new().run(part).sync());
                    client.until_ready();
                }
                client.query("rollback");
            }
        }
    }
}
