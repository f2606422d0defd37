//! PAUSE, SUSPEND, DISABLE, RECONNECT, KILL: who waits, and until when.

use super::*;

#[test]
fn pause_waits_for_transactions_and_holds_queries_until_resume() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut working = tenant.client(&pooler);
    let mut idle = tenant.client(&pooler);
    assert_eq!(idle.query("select 1"), SELECT_1);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");

    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("pause"));
    assert!(operator.is_silent_for(Duration::from_millis(300)));
    idle.send(&Batch::new().query("select 1"));
    assert!(idle.is_silent_for(Duration::from_millis(100)));
    assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(story(&operator.until_ready()), "C(PAUSE) Z(I)");
    assert_eq!(tenant.backends(), 0, "PostgreSQL could be stopped now");
    assert_eq!(
        operator.query("pause"),
        "E(08P01 already suspended/paused) Z(I)"
    );
    assert!(operator.query("show state").contains("D(paused,yes)"));
    let mut late = tenant.client(&pooler);
    late.send(&Batch::new().query("select 1"));
    assert!(late.is_silent_for(Duration::from_millis(100)));

    assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
    for client in [&mut idle, &mut late] {
        assert_eq!(story(&client.until_ready()), SELECT_1);
    }
}

#[test]
fn one_database_is_paused_without_the_others() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let mut operator = console(&pooler);
    let name = &tenant.name;
    assert_eq!(operator.query(&format!("pause {name}")), "C(PAUSE) Z(I)");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    let shown = operator.table("show databases");
    assert_eq!(row(&shown, "name", name).number("paused"), 1);
    assert_eq!(state_of(&mut operator, name), ["waiting"]);

    let mut other = RawClient::login(pooler.port, "postgres", name);
    assert_eq!(other.query("select 1"), SELECT_1);

    assert_eq!(operator.query(&format!("resume {name}")), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
    assert_eq!(
        operator.query(&format!("resume {name}")),
        format!("E(08P01 database {name} is not paused) Z(I)")
    );
}

#[test]
fn a_pause_that_waits_can_be_called_off() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut working = tenant.client(&pooler);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("pause"));
    assert!(operator.is_silent_for(Duration::from_millis(200)));
    assert_eq!(console(&pooler).query("resume"), "C(RESUME) Z(I)");
    let answer = story(&operator.until_ready());
    assert!(answer.ends_with("Z(I)"), "{answer}");
    assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(working.query("select 1"), SELECT_1);
}

#[test]
fn a_cancel_calls_a_waiting_pause_off() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut working = tenant.client(&pooler);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("pause"));
    assert!(operator.is_silent_for(Duration::from_millis(200)));
    operator.cancel();
    eventually(
        Duration::from_secs(2),
        || console(&pooler).query("show state"),
        |state| state.contains("D(paused,no)"),
    );
}

#[test]
fn suspend_holds_everything_until_resume() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let mut operator = console(&pooler);
    assert_eq!(operator.query("suspend"), "C(SUSPEND) Z(I)");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
}

#[test]
fn a_disabled_database_lets_nobody_new_in() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let name = &tenant.name;
    let mut inside = tenant.client(&pooler);
    let mut operator = console(&pooler);
    assert_eq!(
        operator.query(&format!("disable {name}")),
        "C(DISABLE) Z(I)"
    );
    let parameters = [("user", &**name), ("database", &**name)];
    assert_eq!(
        RawClient::try_login(pooler.port, &parameters).map(|_| ()),
        Err(format!("E(FATAL 08P01 database \"{name}\" is disabled)"))
    );
    assert_eq!(inside.query("select 1"), SELECT_1);
    let shown = operator.table("show databases");
    assert_eq!(row(&shown, "name", name).number("disabled"), 1);
    assert_eq!(operator.query(&format!("enable {name}")), "C(ENABLE) Z(I)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn reconnect_spares_running_transactions_and_wait_close_waits_for_them() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut working = tenant.client(&pooler);
    let mut other = tenant.client(&pooler);
    let old = working.value("begin; select pg_backend_pid()");
    let mut operator = console(&pooler);
    let name = &tenant.name;
    assert_eq!(
        operator.query(&format!("reconnect {name}")),
        "C(RECONNECT) Z(I)"
    );
    let mut waiting = console(&pooler);
    waiting.send(&Batch::new().query(&format!("wait_close {name}")));
    assert!(waiting.is_silent_for(Duration::from_millis(200)));
    assert_ne!(other.value("select pg_backend_pid()"), old);
    assert_eq!(working.value("select pg_backend_pid()"), old);
    assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(story(&waiting.until_ready()), "C(WAIT_CLOSE) Z(I)");
    assert_ne!(working.value("select pg_backend_pid()"), old);
    let pids = tenant.root().rows(&format!(
        "select pid from pg_stat_activity where usename = '{name}'"
    ));
    assert!(!pids.contains(&old));
}

#[test]
fn kill_drops_the_clients_and_servers_of_a_database_and_pauses_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(3);
    let name = &tenant.name;
    let mut idle = tenant.client(&pooler);
    let mut working = tenant.client(&pooler);
    let mut asking = tenant.client(&pooler);
    let mut elsewhere = RawClient::login(pooler.port, "postgres", name);
    assert_eq!(idle.query("select 1"), SELECT_1);
    assert_eq!(elsewhere.query("select 1"), SELECT_1);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    asking.send(&Batch::new().query("select pg_sleep(20)"));
    thread::sleep(Duration::from_millis(100));

    let mut operator = console(&pooler);
    assert_eq!(operator.query(&format!("kill {name}")), "C(KILL) Z(I)");
    assert_eq!(state_of(&mut operator, name), [""; 0]);
    for mut client in [idle, working, asking] {
        let said = client.until_closed();
        assert!(said.ends_with("E(FATAL 08P01 database removed)"), "{said}");
    }
    assert_eq!(elsewhere.query("select 1"), SELECT_1);
    let mut root = tenant.root();
    eventually(
        Duration::from_secs(2),
        || {
            root.value(&format!(
                "select count(*) from pg_stat_activity where usename = '{name}' and datname = '{name}'"
            ))
        },
        |count| count == "0",
    );

    assert_eq!(operator.query(&format!("resume {name}")), "C(RESUME) Z(I)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn kill_does_not_wait_for_those_who_come_back() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("max_client_conn", 1000);
    let pooler = start(ini.set("workers", 4));
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    let over = AtomicBool::new(false);
    // So many that the first are back before the last have gone.
    let clients: Vec<_> = (0..200).map(|_| tenant.client(&pooler)).collect();
    thread::scope(|scope| {
        for mut client in clients {
            let (tenant, pooler, over) = (&tenant, &pooler, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if !client.is_silent_for(SHORT) {
                        client = tenant.client(pooler);
                    }
                }
            });
        }
        let mut operator = console(&pooler);
        operator.send(&Batch::new().query(&format!("kill {}", tenant.name)));
        let answer = operator.read();
        over.store(true, Ordering::Relaxed);
        assert_eq!(
            answer.map(|answer| answer.to_string()).as_deref(),
            Ok("C(KILL)")
        );
    });
}

#[test]
fn a_console_that_waits_can_leave_and_be_killed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    let consoles = |operator: &mut RawClient| {
        let clients = operator.table("show clients");
        let all = clients
            .iter()
            .filter(|row| row.get("database") == Some("pgbouncer"));
        all.map(|row| row.number("id")).collect::<Vec<_>>()
    };
    let [own] = consoles(&mut operator)[..] else {
        panic!("one console")
    };
    let name = &tenant.name;
    operator.query(&format!("reconnect {name}"));
    for command in [format!("wait_close {name}"), format!("pause {name}")] {
        for leaves in [true, false] {
            let mut waiting = console(&pooler);
            // What it asks for next it has said already.
            waiting.send(&Batch::new().query(&command).query("show version"));
            assert!(waiting.is_silent_for(SHORT), "{command}");
            let ids = consoles(&mut operator);
            let id = ids.iter().find(|id| **id != own).expect("it is listed");
            if leaves {
                drop(waiting);
            } else {
                let kill = format!("kill_client {id}");
                assert_eq!(operator.query(&kill), "C(KILL_CLIENT) Z(I)", "{command}");
                assert_eq!(
                    waiting.until_closed(),
                    "E(FATAL 08P01 admin forced disconnect)"
                );
            }
            eventually(
                Duration::from_secs(5),
                || consoles(&mut operator),
                |ids| *ids == [own],
            );
        }
    }
    let mut waiting = console(&pooler);
    waiting.send(
        &Batch::new()
            .query(&format!("wait_close {name}"))
            .query("show version"),
    );
    assert!(waiting.is_silent_for(SHORT));
    // The pause has outlived its console.
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(SHORT));
    let said = story(&waiting.until_ready());
    assert_eq!(said, "C(WAIT_CLOSE) Z(I)");
    assert!(story(&waiting.until_ready()).starts_with("T D("));
    assert_eq!(operator.query(&format!("resume {name}")), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
}

#[test]
fn kill_without_a_name_drops_all_but_the_console() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let mut operator = console(&pooler);
    assert_eq!(operator.query("kill"), "C(KILL) Z(I)");
    assert_eq!(client.until_closed(), "E(FATAL 08P01 database removed)");
    assert_eq!(operator.table("show clients").rows.len(), 1);
    // As if every database had been named: they are resumed by their names.
    assert_eq!(
        operator.query("resume"),
        "E(08P01 pooler is not paused/suspended) Z(I)"
    );
    let resume = format!("resume {}", tenant.name);
    assert_eq!(operator.query(&resume), "C(RESUME) Z(I)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn one_client_can_be_killed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut victim = tenant.client(&pooler);
    let mut operator = console(&pooler);
    let shown = operator.table("show clients");
    let id = row(&shown, "user", &tenant.name).number("id");
    victim.send(&Batch::new().query("select pg_sleep(20)"));
    let mut other = tenant.client(&pooler);
    assert_eq!(
        operator.query(&format!("kill_client {id}")),
        "C(KILL_CLIENT) Z(I)"
    );
    let said = victim.until_closed();
    assert!(
        said.ends_with("E(FATAL 08P01 admin forced disconnect)"),
        "{said}"
    );
    assert_eq!(other.query("select 1"), SELECT_1);
    assert_eq!(
        operator.query(&format!("kill_client {id}")),
        "E(08P01 client not found) Z(I)"
    );
}
