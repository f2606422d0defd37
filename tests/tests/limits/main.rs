//! The promise: PostgreSQL never has more connections from us than the limits say, counted by PostgreSQL, whatever
//! clients, operators and PostgreSQL itself do; and what was lost comes back at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Pooler, RawClient, Signal, Strait, Tenant, cancel, console, eventually, send_signal,
    start, story,
};

mod scene;
mod storms;

use scene::{CANCELS, CAP, CLIENTS, PID, Scene, capped};

#[test]
fn clients_that_vanish_in_the_middle_of_a_query_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    for _ in 0..3 {
        let mut crowd = scene.clients();
        for client in &mut crowd {
            client.send(&Batch::new().query("select pg_sleep(20)"));
        }
        scene.wait_for_busy(CAP);
        drop(crowd);
        scene.serves_again();
    }
    scene.ends_in_order();
}

#[test]
fn clients_that_vanish_in_the_middle_of_a_pipeline_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    let batch = Batch::new()
        .run("select 1")
        .sync()
        .run("select pg_sleep(20)")
        .run("select 2");
    let mut crowd = scene.clients();
    for client in &mut crowd {
        client.send(&batch);
    }
    scene.wait_for_busy(CAP);
    drop(crowd);
    scene.serves_again();
    scene.ends_in_order();
}

#[test]
fn clients_that_vanish_in_the_middle_of_a_transaction_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    scene.tenant.root().rows("create table kept (x int)");
    scene.tenant.root().rows("grant all on kept to public");
    let mut crowd = scene.clients();
    for client in &mut crowd {
        client.send(
            &Batch::new()
                .query("begin")
                .query("insert into kept values (1)"),
        );
    }
    scene.wait_for(CAP, "state = 'idle in transaction'");
    drop(crowd);
    scene.serves_again();
    scene.wait_for(0, "state like 'idle in transaction%'");
    assert_eq!(
        scene.tenant.root().value("select count(*) from kept"),
        "0",
        "what was not committed is rolled back"
    );
    scene.ends_in_order();
}

#[test]
fn clients_that_vanish_in_the_middle_of_copy_in_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    scene.tenant.root().rows("create table copied (x text)");
    scene.tenant.root().rows("grant all on copied to public");
    let mut crowd = scene.clients();
    for client in &mut crowd {
        // The last message is cut: its end never comes.
        let cut = [b'd', 0, 0, 1, 0, b'y', b'y'];
        client.send(&Batch::new().query("copy copied from stdin"));
        client.send(&Batch::new().copy_data(b"x\n").bytes(&cut));
    }
    scene.wait_for(CAP, "query like 'copy%' and state = 'active'");
    drop(crowd);
    scene.serves_again();
    assert_eq!(
        scene.tenant.root().value("select count(*) from copied"),
        "0"
    );
    scene.ends_in_order();
}

#[test]
fn clients_that_vanish_without_reading_a_copy_out_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    let mut crowd = scene.clients();
    for client in &mut crowd {
        client.send(
            &Batch::new().query(
                "copy (select repeat('x', 1000) from generate_series(1, 1000000)) to stdout",
            ),
        );
    }
    scene.wait_for(CAP, "query like 'copy%' and state = 'active'");
    drop(crowd);
    scene.serves_again();
    scene.ends_in_order();
}

#[test]
fn clients_that_vanish_in_the_middle_of_login_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    let name = scene.tenant.name.clone();
    for round in 0..CLIENTS {
        let mut client = RawClient::connect(scene.pooler.port);
        match round % 3 {
            // A length and nothing behind it.
            0 => client.send_bytes(&[0, 0, 0, 200, 0, 3, 0, 0]),
            // Half of a request for encryption.
            1 => client.send_bytes(&[0, 0, 0, 8, 4, 210]),
            // All of it, and gone while the first server of the pool logs in.
            _ => client.start_login(&[("user", &name), ("database", &name)]),
        }
    }
    scene.serves_again();
    let lists = console(&scene.pooler).table("show lists");
    let logging_in = lists.find("list", "login_clients").expect("a row");
    assert_eq!(logging_in.number("items"), 0);
    scene.ends_in_order();
}

#[test]
fn a_storm_of_cancels_takes_no_connections() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.pooler.port;
    let mut clients = scene.clients();
    for client in &mut clients {
        client.send(&Batch::new().query("select pg_sleep(20)"));
    }
    scene.wait_for_busy(CAP);

    let keys: Vec<_> = clients
        .iter()
        .map(|client| client.key.clone().expect("logged in"))
        .collect();
    let storm: Vec<_> = (0..100)
        .map(|n| {
            let key = keys[n % keys.len()].clone();
            thread::spawn(move || cancel(port, &key))
        })
        .collect();
    for cancel in storm {
        cancel.join().expect("taken");
    }

    // Whoever was not hit, because it had no server yet when its cancels came, is hit now.
    for client in &mut clients {
        let answer = loop {
            if !client.is_silent_for(Duration::from_millis(300)) {
                break client.until_ready();
            }
            client.cancel();
        };
        assert_eq!(
            story(&answer).replace("T ", ""),
            "E(57014 canceling statement due to user request) Z(I)"
        );
    }
    drop(clients);
    scene.serves_again();
    scene.ends_in_order();
}

#[test]
fn reconnect_under_load_replaces_servers_one_by_one() {
    let Some(scene) = Scene::new() else { return };
    scene.under_pgbench(3, || {
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(250));
            scene.pooler.console("RECONNECT");
        }
    });
    scene.ends_in_order();
}

#[test]
fn reload_under_load_disturbs_nobody() {
    let Some(scene) = Scene::new() else { return };
    scene.under_pgbench(2, || {
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(80));
            scene.pooler.console("RELOAD");
        }
    });
    scene.ends_in_order();
}

#[test]
fn pause_and_resume_under_load_disturb_nobody() {
    let Some(scene) = Scene::new() else { return };
    scene.under_pgbench(3, || {
        let mut operator = console(&scene.pooler);
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(200));
            assert_eq!(operator.query("pause"), "C(PAUSE) Z(I)");
            assert_eq!(scene.tenant.backends(), 0);
            thread::sleep(Duration::from_millis(100));
            assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
        }
    });
    scene.ends_in_order();
}

#[test]
fn a_thousand_connections_leave_no_descriptor_and_little_memory_behind() {
    let Some(scene) = Scene::new() else { return };
    let churn = || {
        for round in 0..500 {
            let mut client = scene.tenant.client(&scene.pooler);
            if round % 2 == 0 {
                assert_eq!(client.value("select 1"), "1");
            } else {
                client.send(&Batch::new().query("select 1"));
            }
        }
        scene.serves_again();
    };
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", scene.pooler.pid)).map_or(0, Iterator::count);
    churn();
    let memory = pgweir_tests::rss(scene.pooler.pid).expect("a process");
    let open = descriptors();
    churn();
    let grown = pgweir_tests::rss(scene.pooler.pid)
        .expect("a process")
        .saturating_sub(memory);
    assert!(grown < 5_000_000, "{grown} bytes more");
    eventually(Duration::from_secs(2), descriptors, |count| {
        *count <= open + 3
    });
    scene.ends_in_order();
}

#[test]
fn a_short_server_lifetime_under_load_never_exceeds_the_limit() {
    let Some(scene) = Scene::with(|ini| ini.set("server_lifetime", 1)) else {
        return;
    };
    let first = scene.tenant.client(&scene.pooler).value(PID);
    scene.under_pgbench(3, || ());
    let last = scene.tenant.client(&scene.pooler).value(PID);
    assert_ne!(first, last, "servers are replaced");
    scene.ends_in_order();
}

#[test]
fn a_lowered_pool_size_holds_soon_after_reload() {
    let Some(scene) = Scene::new() else { return };
    scene.under_pgbench(4, || {
        scene.wait_for(CAP, "true");
        let lowered = capped(scene.tenant.ini()).set("default_pool_size", 2);
        scene.pooler.reload(lowered).expect("RELOAD");
        eventually(
            Duration::from_secs(2),
            || scene.tenant.backends(),
            |count| *count <= 2,
        );
        for _ in 0..20 {
            assert!(scene.tenant.backends() <= 2);
        }
        scene
            .pooler
            .reload(capped(scene.tenant.ini()))
            .expect("RELOAD");
    });
    scene.ends_in_order();
}

#[test]
fn a_lowered_database_limit_holds_soon_after_reload() {
    let Some(scene) = Scene::new() else { return };
    scene.under_pgbench(3, || {
        scene.wait_for(CAP, "true");
        let lowered = capped(scene.tenant.ini()).set("max_db_connections", 2);
        scene.pooler.reload(lowered).expect("RELOAD");
        eventually(
            Duration::from_secs(2),
            || scene.tenant.backends(),
            |count| *count <= 2,
        );
    });
    scene.ends_in_order();
}

#[test]
fn servers_that_postgresql_terminates_are_replaced_within_the_limit() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.pooler.port;
    let name = scene.tenant.name.clone();
    let until = Instant::now() + Duration::from_secs(2);
    let workers: Vec<_> = (0..10)
        .map(|_| {
            let name = name.clone();
            thread::spawn(move || {
                let mut answered = 0;
                while Instant::now() < until {
                    let login = [("user", &*name), ("database", &*name)];
                    let Ok(mut client) = RawClient::try_login(port, &login) else {
                        continue;
                    };
                    // A client whose server is terminated is sent away, and comes again.
                    while Instant::now() < until {
                        match &*client.query("select 1 from pg_sleep(0.01)") {
                            "T D(1) C(SELECT 1) Z(I)" => answered += 1,
                            _ => break,
                        }
                    }
                }
                answered
            })
        })
        .collect();
    let mut root = scene.tenant.root();
    while Instant::now() < until {
        root.rows(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'"
        ));
        thread::sleep(Duration::from_millis(150));
    }
    for worker in workers {
        assert!(worker.join().expect("no panic") > 0, "nobody starves");
    }
    scene.serves_again();
    scene.ends_in_order();
}

#[test]
fn a_session_pool_keeps_its_limit_when_its_clients_vanish() {
    let Some(scene) = Scene::with(|ini| ini.set("pool_mode", "session")) else {
        return;
    };
    for _ in 0..2 {
        let mut crowd = scene.clients();
        for client in &mut crowd {
            client.send(&Batch::new().query("select pg_sleep(20)"));
        }
        scene.wait_for_busy(CAP);
        drop(crowd);
        scene.serves_again();
    }
    scene.ends_in_order();
}

#[test]
fn databases_of_one_user_share_the_limit_of_the_user() {
    let Some(tenant) = Tenant::new() else { return };
    let target = |n: u32| {
        format!(
            "host=127.0.0.1 port={} dbname={} pool_size={n}",
            tenant.postgres.port(),
            tenant.name
        )
    };
    let mut ini = tenant.ini().set("max_user_connections", 3);
    for database in ["one", "two", "three"] {
        ini = ini.database(database, &target(CAP));
    }
    let pooler = start(ini);
    let watch = tenant.watch();
    let clients = (0..30).map(|n| {
        let database = ["one", "two", "three"][n % 3].to_owned();
        let (port, user) = (pooler.port, tenant.name.clone());
        thread::spawn(move || {
            let mut client = RawClient::login(port, &database, &user);
            for _ in 0..10 {
                assert_eq!(client.value("select 1 from pg_sleep(0.01)"), "1");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().expect("everybody is served");
    }
    let seen = watch.end();
    assert!(seen.most <= 3, "{seen:?}");
}

/// Five users of one database that may have four servers.
fn five_users_on_four_servers(tenant: &Tenant) -> (Vec<String>, Pooler) {
    let users: Vec<String> = (0..5).map(|n| format!("{}_{n}", tenant.name)).collect();
    let mut userlist = "\"postgres\" \"\"\n".to_owned();
    for user in &users {
        tenant.root().rows(&format!("create role {user} login"));
        userlist += &format!("\"{user}\" \"\"\n");
    }
    let ini = tenant.ini().set("max_db_connections", 4);
    (users, start(ini.file("userlist.txt", &userlist)))
}

#[test]
fn users_of_one_database_share_the_limit_of_the_database() {
    let Some(tenant) = Tenant::new() else { return };
    let (users, pooler) = five_users_on_four_servers(&tenant);
    let mut root = tenant.root();

    let workers: Vec<_> = users
        .iter()
        .flat_map(|user| [user; 4])
        .map(|user| {
            let (port, user, database) = (pooler.port, user.clone(), tenant.name.clone());
            thread::spawn(move || {
                let mut client = RawClient::login(port, &database, &user);
                for _ in 0..10 {
                    assert_eq!(client.value("select current_user::text"), user);
                }
            })
        })
        .collect();
    let mut most = 0;
    while workers.iter().any(|worker| !worker.is_finished()) {
        let count = root.value(&format!(
            "select count(*) from pg_stat_activity where datname = '{}' and usename <> 'postgres'",
            tenant.name
        ));
        most = most.max(count.parse().expect("a number"));
        thread::sleep(Duration::from_millis(5));
    }
    for worker in workers {
        worker.join().expect("everybody is served");
    }
    assert!(most <= 4, "{most} connections");
}

#[test]
fn a_shared_limit_is_used_up_to_the_end() {
    let Some(tenant) = Tenant::new() else { return };
    let (users, pooler) = five_users_on_four_servers(&tenant);
    let mut root = tenant.root();
    let count = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and usename <> 'postgres'",
        tenant.name
    );
    for _ in 0..5 {
        // Servers come free at the same time as others are closed to make room.
        thread::scope(|scope| {
            for user in users.iter().flat_map(|user| [user; 2]) {
                let mut client = RawClient::login(pooler.port, &tenant.name, user);
                scope.spawn(move || client.value("select 1 from pg_sleep(0.3)"));
            }
        });
        eventually(
            Duration::from_secs(2),
            || root.value(&count),
            |count| count == "4",
        );
    }
}

#[test]
fn a_stopped_postgresql_is_not_flooded_when_it_goes_on() {
    let Some(scene) = Scene::new() else { return };
    let mut clients = scene.clients();
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
    // Every backend of ours stands still; clients come, ask and vanish.
    let pids = scene.backend_pids();
    for pid in &pids {
        assert!(send_signal(pid, Signal::STOP), "{pid}");
    }
    for client in &mut clients {
        client.send(&Batch::new().query("select 1"));
    }
    drop(clients);
    thread::sleep(Duration::from_millis(500));
    for pid in &pids {
        send_signal(pid, Signal::CONT);
    }
    scene.serves_again();
    scene.ends_in_order();
}

#[test]
fn where_packets_are_dropped_nothing_is_opened_beside_what_is_lost() {
    let Some(tenant) = Tenant::new() else { return };
    let strait = Strait::to(tenant.postgres.port());
    let (name, port) = (&tenant.name, strait.port);
    let target = format!("host=127.0.0.1 port={port} dbname={name}");
    // So short that everything is given up while nothing passes.
    let ini = capped(tenant.ini())
        .database(name, &target)
        .set("cancel_drain_timeout", 1)
        .set("server_close_timeout", 1)
        .set("server_connect_timeout", 1)
        .set("query_wait_notify", 0);
    let pooler = start(ini);
    let watch = tenant.watch_sockets_to(&pooler, port);
    for _ in 0..2 {
        let crowd = || -> Vec<RawClient> { (0..CLIENTS).map(|_| tenant.client(&pooler)).collect() };
        let mut clients = crowd();
        for client in &mut clients {
            client.send(&Batch::new().query("select pg_sleep(20)"));
        }
        let running = format!(
            "select count(*) from pg_stat_activity where usename = '{name}' and state = 'active'"
        );
        let mut root = tenant.root();
        eventually(
            Duration::from_secs(10),
            || root.value(&running),
            |count| count == "5",
        );
        strait.block(true);
        drop(clients);
        let mut others = crowd();
        for client in &mut others {
            client.send(&Batch::new().query("select 1"));
        }
        // What does not close is kept in the books.
        let mut console = console(&pooler);
        eventually(
            Duration::from_secs(20),
            || console.table("show quarantine").rows.len(),
            |lost| *lost > 0,
        );
        strait.block(false);
        for client in &mut others {
            assert_eq!(story(&client.until_ready()), "T D(1) C(SELECT 1) Z(I)");
        }
    }
    let seen = watch.end();
    assert!(
        seen.most <= CAP && seen.most_sockets <= CAP + CANCELS && seen.count >= 5,
        "{seen:?}\n{}",
        pooler.log()
    );
    assert!(!pooler.log().contains("the books do not balance"));
}
