//! The promise: in transaction mode a client that has executed LISTEN is told what it would be told on a connection of its
//! own, in order and once, and keeps no server for it. One connection of the database listens for all.

use std::time::{Duration, Instant};

use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, SELECT_1, Tenant, console, eventually, start, story,
};

const SOON: Duration = Duration::from_secs(10);
const PID: &str = "select pg_backend_pid()";
const LISTENING: &str =
    "select coalesce(string_agg(c, ' ' order by c), '-') from pg_listening_channels() c";

fn ini(tenant: &Tenant, servers: u32) -> Ini {
    tenant
        .ini()
        .set("default_pool_size", servers)
        .set("error_codes", "postgres")
}

/// A column of SHOW LISTENERS.
fn listeners(pooler: &Pooler, column: usize) -> Vec<String> {
    listeners_on(&mut console(pooler), column)
}

fn listeners_on(console: &mut RawClient, column: usize) -> Vec<String> {
    let rows = console.rows("show listeners");
    let cell = |row: &String| row.split('|').nth(column).unwrap_or_default().to_owned();
    rows.iter().map(cell).collect()
}

/// Waits until the one connection listens for so many clients, and no server stays with any of them.
#[track_caller]
fn listens_for(pooler: &Pooler, clients: usize) {
    let mut console = console(pooler);
    let count = || listeners_on(&mut console, 5).join(" ");
    eventually(SOON, count, |count| *count == clients.to_string());
    let pins = || console.rows("show pins").len();
    eventually(SOON, pins, |pins| *pins == 0);
}

/// The next notification that comes, without the process id; answers in between are left out.
#[track_caller]
fn told(client: &mut RawClient) -> String {
    loop {
        let message = client.read().expect("a message");
        if message.tag == b'A' {
            let text = message.to_string();
            return text.split_once(',').expect("a channel").1.to_owned();
        }
    }
}

#[test]
fn a_client_is_told_and_its_server_serves_others() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1));
    let mut listener = tenant.client(&pooler);
    assert_eq!(listener.query("listen news"), "C(LISTEN) Z(I)");
    let mut other = tenant.client(&pooler);
    assert_eq!(
        other.query("begin; select 1"),
        "C(BEGIN) T D(1) C(SELECT 1) Z(T)"
    );
    assert_eq!(other.value(LISTENING), "-");
    listens_for(&pooler, 1);
    tenant.direct().rows("notify news, 'from outside'");
    assert_eq!(told(&mut listener), "news,from outside)");
    other.rows("notify news, 'in a transaction'");
    assert!(listener.is_silent_for(Duration::from_millis(200)));
    other.rows("commit");
    assert_eq!(told(&mut listener), "news,in a transaction)");
    other.rows("notify \"News\", 'another'; notify news, 'from inside'");
    assert_eq!(told(&mut listener), "news,from inside)");
    assert_eq!(tenant.backends(), 2, "one server, and one that listens");
    assert_eq!(listener.query("select 1"), SELECT_1);
}

#[test]
fn listen_counts_in_whatever_way_it_is_said() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1));
    let named = Batch::new()
        .parse("s", "listen \"Ünï \"\"C\"")
        .bind("", "s", &[])
        .execute("")
        .sync();
    let together = Batch::new()
        .run("select 1")
        .run("listen b")
        .run("select 2")
        .sync();
    let channels = "a b c d e Ünï \"C";
    let mut listener = tenant.client(&pooler);
    assert_eq!(
        listener.query("listen a; select 1"),
        format!("C(LISTEN) {SELECT_1}")
    );
    assert_eq!(
        listener.ask(&together),
        "1 2 D(1) C(SELECT 1) 1 2 C(LISTEN) 1 2 D(2) C(SELECT 1) Z(I)"
    );
    assert_eq!(listener.ask(&named), "1 2 C(LISTEN) Z(I)");
    assert_eq!(
        listener.query("begin; listen c; commit"),
        "C(BEGIN) C(LISTEN) C(COMMIT) Z(I)"
    );
    listener.rows("do $$ begin execute 'listen d'; end $$");
    listener.send(
        &Batch::new()
            .query("listen e")
            .query("select 1")
            .query("select 2"),
    );
    for _ in 0..3 {
        listener.until_ready();
    }
    listens_for(&pooler, 1);
    assert_eq!(listener.value(LISTENING), channels);
    listens_for(&pooler, 1);
    let mut direct = tenant.direct();
    for channel in ["a", "b", "c", "d", "e", "\"Ünï \"\"C\""] {
        direct.rows(&format!("notify {channel}, 'x'"));
    }
    let said: Vec<_> = (0..6).map(|_| told(&mut listener)).collect();
    assert_eq!(said, ["a,x)", "b,x)", "c,x)", "d,x)", "e,x)", "Ünï \"C,x)"]);
}

#[test]
fn many_listen_by_one_connection() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let mut clients: Vec<_> = (0..20).map(|_| tenant.client(&pooler)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.rows(&format!("listen all_of_us; listen only_{index}"));
    }
    listens_for(&pooler, 20);
    let mut root = tenant.root();
    let count = format!(
        "select count(*) filter (where query like 'LISTEN%') || '/' || count(*) \
         from pg_stat_activity where usename = '{}'",
        tenant.name
    );
    for round in 0..3 {
        for client in &mut clients {
            assert_eq!(client.query("select 1"), SELECT_1);
        }
        let mut direct = tenant.direct();
        direct.rows(&format!("notify all_of_us, '{round}'"));
        direct.rows(&format!("notify only_7, 'yours {round}'"));
        drop(direct);
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(told(client), format!("all_of_us,{round})"));
            if index == 7 {
                assert_eq!(told(client), format!("only_7,yours {round})"));
            }
        }
    }
    eventually(SOON, || root.value(&count), |count| count == "1/3");
    assert_eq!(listeners(&pooler, 6), ["63"], "delivered");
    drop(clients);
    // Nobody listens any more.
    eventually(
        Duration::from_secs(15),
        || tenant.backends(),
        |backends| *backends <= 2,
    );
    eventually(
        Duration::from_secs(15),
        || listeners(&pooler, 0).len(),
        |count| *count == 0,
    );
}

#[test]
fn what_is_rolled_back_is_not_listened_to() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1));
    let mut client = tenant.client(&pooler);
    client.rows("begin; listen a; rollback");
    assert_eq!(client.value(LISTENING), "-");
    client.rows("listen b");
    client.rows("begin; listen c; unlisten b; rollback");
    assert_eq!(client.value(LISTENING), "b");
    client.query("unlisten b; select 1/0");
    assert_eq!(client.value(LISTENING), "b");
    client.rows("begin");
    client.rows("savepoint s; listen d");
    client.rows("rollback to s; listen e; commit");
    assert_eq!(client.value(LISTENING), "b e");
    assert_eq!(console(&pooler).rows("show pins").len(), 0);
    assert_eq!(tenant.backends(), 2);
    tenant
        .direct()
        .rows("notify a; notify c; notify d; notify e");
    assert_eq!(told(&mut client), "e,)");
}

#[test]
fn unlisten_ends_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1));
    let mut client = tenant.client(&pooler);
    let mut direct = tenant.direct();
    let mut listens_to = |client: &mut RawClient, end: &dyn Fn(&mut RawClient), left: &str| {
        client.rows("listen a; listen b; listen \"C c\"");
        end(client);
        // What was said of the others before is not told any more.
        direct.rows("notify a; notify b; notify \"C c\"; notify a, 'z'");
        // The second answer shows that all is heard by the one connection, in its order.
        let mut answers = Vec::new();
        for sql in ["listen last", "select 1"] {
            client.send(&Batch::new().query(sql));
            answers.extend(client.until_ready());
        }
        let mut said: Vec<_> = answers
            .into_iter()
            .filter(|message| message.tag == b'A')
            .filter_map(|message| Some(message.to_string().split_once(',')?.1.to_owned()))
            .map(|said| said.trim_end_matches(",)").to_owned())
            .collect();
        direct.rows("notify last");
        while said.last().is_none_or(|last| last != "last") {
            said.push(told(client).trim_end_matches(",)").to_owned());
        }
        said.pop();
        assert_eq!(said.join(" "), left);
        assert_eq!(client.query("unlisten *"), "C(UNLISTEN) Z(I)");
        assert_eq!(client.value(LISTENING), "-");
    };
    let simple = |sql: &'static str| move |client: &mut RawClient| drop(client.query(sql));
    listens_to(&mut client, &simple("unlisten a"), "b C c");
    listens_to(&mut client, &simple("unlisten \"C c\""), "a b a,z)");
    listens_to(&mut client, &simple("unlisten *"), "");
    listens_to(&mut client, &simple("discard all"), "");
    listens_to(&mut client, &simple("begin; unlisten a; commit"), "b C c");
    listens_to(
        &mut client,
        &simple("do $$ begin unlisten b; end $$"),
        "a C c a,z)",
    );
    let in_steps = |client: &mut RawClient| {
        client.rows("begin");
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
        assert_eq!(client.query("unlisten a"), "C(UNLISTEN) Z(T)");
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    };
    listens_to(&mut client, &in_steps, "b C c");
    let extended = |client: &mut RawClient| {
        let answer = client.ask(&Batch::new().run("unlisten a").run("select 1").sync());
        assert_eq!(answer, "1 2 C(UNLISTEN) 1 2 D(1) C(SELECT 1) Z(I)");
    };
    listens_to(&mut client, &extended, "b C c");
    assert_eq!(
        tenant.backends(),
        3,
        "one server, one that listens, and one of the test"
    );
}

#[test]
fn a_transaction_is_not_disturbed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let mut client = tenant.client(&pooler);
    client.rows("listen news");
    listens_for(&pooler, 1);
    client.rows("begin");
    tenant.direct().rows("notify news, 'one'");
    let delivered = || listeners(&pooler, 6);
    eventually(SOON, delivered, |delivered| delivered == &["1"]);
    for _ in 0..3 {
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
    }
    assert!(client.is_silent_for(Duration::from_millis(200)));
    client.send(&Batch::new().query("commit"));
    assert_eq!(story(&client.until_ready()), "C(COMMIT) Z(I)");
    assert_eq!(told(&mut client), "news,one)");
    // In the middle of a reply, and of a batch that waits for its Sync.
    client.send(&Batch::new().run("select 1").flush());
    for tag in [b'1', b'2', b'D', b'C'] {
        assert_eq!(client.read().map(|message| message.tag), Ok(tag));
    }
    tenant.direct().rows("notify news, 'two'");
    eventually(SOON, delivered, |delivered| delivered == &["2"]);
    assert!(client.is_silent_for(Duration::from_millis(200)));
    assert_eq!(client.ask(&Batch::new().sync()), "Z(I)");
    assert_eq!(told(&mut client), "news,two)");
}

#[test]
fn none_is_lost_none_comes_twice_and_all_are_in_order() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let (count, listening) = (3000, 6);
    let mut clients: Vec<_> = (0..listening).map(|_| tenant.client(&pooler)).collect();
    let mut sender = tenant.direct();
    let sending = std::thread::spawn(move || {
        for number in 0..count {
            sender.rows(&format!(
                "notify news, '{number}'; notify noise, '{number}'"
            ));
        }
    });
    let work = |client: &mut RawClient, index: usize| {
        let mut said: Vec<u32> = Vec::new();
        let note = |messages: &[pgweir_tests::Message], said: &mut Vec<u32>| {
            for message in messages.iter().filter(|message| message.tag == b'A') {
                let text = message.to_string();
                if let Some((_, number)) = text.split_once(",news,") {
                    said.push(number.trim_end_matches(')').parse().expect("a number"));
                }
            }
        };
        let mut round = 0;
        while said.last() != Some(&(count - 1)) {
            // Everything that moves a client from one source to the other, over and over.
            let sql = match (round + index) % 7 {
                _ if round == 0 => "listen news",
                0 => "listen news; listen noise",
                1 => "begin; unlisten noise; commit",
                2 => "listen noise",
                3 => "unlisten noise",
                4 => "select 1",
                5 => "begin; listen third; select pg_sleep(0.002); rollback",
                _ => "select pg_listening_channels()",
            };
            round += 1;
            client.send(&Batch::new().query(sql));
            note(&client.until_ready(), &mut said);
            if said.last() == Some(&(count - 1)) {
                break;
            }
            while !client.is_silent_for(Duration::from_millis(1)) {
                note(&[client.read().expect("a message")], &mut said);
            }
        }
        said
    };
    let heard: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let working = clients.iter_mut().enumerate();
        let tasks: Vec<_> = working
            .map(|(index, client)| scope.spawn(move || work(client, index)))
            .collect();
        tasks
            .into_iter()
            .map(|task| task.join().expect("it works"))
            .collect()
    });
    sending.join().expect("it sends");
    for said in heard {
        let first = said[0];
        let expected: Vec<u32> = (first..count).collect();
        assert!(first < count / 2, "it has listened from early on: {first}");
        let wrong = said.iter().zip(&expected).find(|(is, should)| is != should);
        assert_eq!((said.len(), wrong), (expected.len(), None));
    }
}

#[test]
fn it_knows_itself_as_the_sender() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1));
    let mut client = tenant.client(&pooler);
    let own = client.key.as_ref().map(|key| key.process_id);
    client.rows("listen news");
    client.rows("notify news");
    let message = client.read().expect("a notification");
    assert_eq!(
        message.to_string(),
        format!("A({},news,)", own.unwrap_or_default())
    );
    let mut direct = tenant.direct();
    let pid = direct.value(PID);
    direct.rows("notify news");
    let message = client.read().expect("a notification");
    assert_eq!(message.to_string(), format!("A({pid},news,)"));
}

#[test]
fn who_does_not_read_is_ended_and_others_are_not() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2).set("listen_buffer", 50_000));
    let mut busy = tenant.client(&pooler);
    let mut reads = tenant.client(&pooler);
    for client in [&mut busy, &mut reads] {
        client.rows("listen news");
    }
    listens_for(&pooler, 2);
    busy.rows("begin; select 1");
    let mut direct = tenant.direct();
    let news = "x".repeat(1000);
    for number in 0..100 {
        direct.rows(&format!("notify news, '{number} {news}'"));
        assert!(told(&mut reads).starts_with(&format!("news,{number} ")));
    }
    let (said, _) = busy.until_end();
    assert_eq!(
        said,
        "E(FATAL 53400 terminating connection because notifications are not read (listen_buffer))"
    );
    assert_eq!(listeners(&pooler, 8), ["1"], "ended");
    assert_eq!(reads.query("select 1"), SELECT_1);
    listens_for(&pooler, 1);
}

#[test]
fn who_listens_ends_with_the_connection_that_listens() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1));
    let mut listener = tenant.client(&pooler);
    listener.rows("listen news");
    listens_for(&pooler, 1);
    let mut other = tenant.client(&pooler);
    let pid = listeners(&pooler, 3).join("");
    tenant.direct().rows("notify news, 'last'");
    // Where both come at once PostgreSQL ends before it tells.
    let terminate = format!("select pg_sleep(0.2), pg_terminate_backend({pid})");
    tenant.root().rows(&terminate);
    assert_eq!(told(&mut listener), "news,last)");
    let (said, _) = listener.until_end();
    assert_eq!(
        said,
        "E(FATAL 57P01 terminating connection because notifications may be lost: \
         terminating connection due to administrator command)"
    );
    assert_eq!(other.query("select 1"), SELECT_1);
    other.rows("listen news");
    listens_for(&pooler, 1);
    tenant.direct().rows("notify news, 'again'");
    assert_eq!(told(&mut other), "news,again)");
}

#[test]
fn where_no_connection_is_left_the_server_stays() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2).set("max_db_connections", 2));
    let mut holder = tenant.client(&pooler);
    holder.rows("begin; select 1");
    let mut listener = tenant.client(&pooler);
    listener.rows("listen news");
    let pins = || console(&pooler).rows("show pins").len();
    eventually(SOON, pins, |pins| *pins == 1);
    assert_eq!(tenant.backends(), 2);
    tenant.direct().rows("notify news, 'one'");
    assert_eq!(told(&mut listener), "news,one)");
    assert_eq!(listener.value(LISTENING), "news");
    holder.rows("commit");
    assert_eq!(tenant.backends(), 2);
}

#[test]
fn the_limits_hold_in_postgresqls_own_count() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 5).set("max_db_connections", 3));
    let watch = tenant.watch();
    let mut clients: Vec<_> = (0..8).map(|_| tenant.client(&pooler)).collect();
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                for _ in 0..30 {
                    client.rows("listen news");
                    client.rows("begin; select pg_sleep(0.003); commit");
                    client.rows("unlisten news");
                }
            });
        }
    });
    let samples = watch.end();
    assert!(samples.most <= 3, "{samples:?}");
    assert!(listeners(&pooler, 0).len() <= 1);
}

#[test]
fn it_can_be_had_the_old_way() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2).set("listen", "pin"));
    let mut listener = tenant.client(&pooler);
    listener.rows("listen news");
    let pins = || console(&pooler).rows("show pins").len();
    eventually(SOON, pins, |pins| *pins == 1);
    assert_eq!(listeners(&pooler, 0).len(), 0);
    tenant.direct().rows("notify news, 'one'");
    assert_eq!(told(&mut listener), "news,one)");
    assert_eq!(tenant.backends(), 1);
}

#[test]
fn what_else_binds_a_server_still_does() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let mut client = tenant.client(&pooler);
    client.rows("listen news; select pg_advisory_lock(7)");
    let pins = || console(&pooler).rows("show pins").join(" ");
    eventually(SOON, pins, |pins| pins.contains("|advisory lock|"));
    assert_eq!(listeners(&pooler, 5), ["1"]);
    tenant.direct().rows("notify news, 'one'");
    assert_eq!(told(&mut client), "news,one)");
    client.rows("select pg_advisory_unlock(7)");
    eventually(SOON, pins, |pins| pins.is_empty());
    tenant.direct().rows("notify news, 'two'");
    assert_eq!(told(&mut client), "news,two)");
    assert!(client.is_silent_for(Duration::from_millis(200)));
}

#[test]
fn a_pause_and_a_reconnect_do_not_hang_on_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    for (order, why) in [
        ("pause", "the database is being paused"),
        ("reconnect", "the connection to PostgreSQL is replaced"),
    ] {
        let mut listener = tenant.client(&pooler);
        listener.rows("listen news");
        listens_for(&pooler, 1);
        let mut console = console(&pooler);
        console.query(order);
        let (said, _) = listener.until_end();
        assert!(said.contains("57P01") && said.contains(why), "{said}");
        console.query("resume");
        eventually(SOON, || listeners(&pooler, 0).len(), |count| *count == 0);
    }
}

#[test]
fn a_new_process_listens_on() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(ini(&tenant, 2).set("pidfile", "{dir}/pid"));
    let mut idle = tenant.client(&pooler);
    let mut busy = tenant.client(&pooler);
    for client in [&mut idle, &mut busy] {
        client.rows("listen news; listen \"Other\"");
    }
    listens_for(&pooler, 2);
    busy.rows("begin; select 1");
    let mut direct = tenant.direct();
    direct.rows("notify news, '0'");
    eventually(
        SOON,
        || listeners(&pooler, 6),
        |delivered| delivered == &["2"],
    );
    let backends = tenant.backends();
    let sending = std::thread::spawn(move || {
        for number in 1..2000 {
            direct.rows(&format!("notify news, '{number}'"));
        }
        // It counts among the backends until the thread is joined.
        direct
    });
    for _ in 0..3 {
        pooler.reboot().expect("taken over");
    }
    assert_eq!(tenant.backends(), backends);
    drop(sending.join().expect("it sends"));
    busy.rows("commit");
    for client in [&mut idle, &mut busy] {
        for number in 0..2000 {
            assert_eq!(told(client), format!("news,{number})"));
        }
        assert_eq!(client.value(LISTENING), "Other news");
    }
    let mut late = tenant.client(&pooler);
    late.rows("listen news");
    listens_for(&pooler, 3);
    tenant.direct().rows("notify \"Other\"; notify news, 'end'");
    assert_eq!(told(&mut idle), "Other,)");
    assert_eq!(told(&mut idle), "news,end)");
    assert_eq!(told(&mut late), "news,end)");
}

#[test]
fn a_suspension_delays_and_loses_nothing() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let mut listener = tenant.client(&pooler);
    listener.rows("listen news");
    listens_for(&pooler, 1);
    let mut console = console(&pooler);
    let begun = Instant::now();
    assert_eq!(console.query("suspend"), "C(SUSPEND) Z(I)");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "it is held at once"
    );
    tenant.direct().rows("notify news, 'one'");
    assert!(listener.is_silent_for(Duration::from_millis(300)));
    assert_eq!(console.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(told(&mut listener), "news,one)");
}

#[test]
fn another_encoding_keeps_its_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 3));
    let mut plain = tenant.client(&pooler);
    plain.rows("listen news");
    listens_for(&pooler, 1);
    let mut latin = tenant.client(&pooler);
    latin.rows("set client_encoding = 'LATIN1'");
    latin.rows("listen news");
    let pins = || console(&pooler).rows("show pins").len();
    eventually(SOON, pins, |pins| *pins == 1);
    tenant.direct().rows("notify news, 'é'");
    assert_eq!(told(&mut plain), "news,é)");
    let message = latin.read().expect("a notification");
    assert!(
        message.body.ends_with(b"news\0\xe9\0"),
        "{:?}",
        message.body
    );
}

#[test]
fn it_works_in_statement_mode() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 1).set("pool_mode", "statement"));
    let mut listener = tenant.client(&pooler);
    listener.rows("listen news");
    listens_for(&pooler, 1);
    tenant.direct().rows("notify news, 'one'");
    assert_eq!(told(&mut listener), "news,one)");
}
