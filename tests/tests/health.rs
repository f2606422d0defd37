//! The promise: whoever decides where clients go is told whether they are served here, and why not; and asking, however
//! rudely, harms nobody.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Http, Ini, Pooler, RawClient, Signal, Stop, Tenant, console,
    eventually, http::Answer, postgres, start,
};

const SOON: Duration = Duration::from_secs(15);

fn in_front_of(cluster: &Cluster, change: impl FnOnce(Ini) -> Ini) -> (Pooler, Http) {
    let ini = Http::set(Ini::in_front_of(cluster)).set("pool_mode", "transaction");
    let pooler = start(change(ini));
    let http = Http::of(&pooler);
    (pooler, http)
}

/// The entry of a database in this cluster.
fn entry(cluster: &Cluster) -> String {
    format!("host=127.0.0.1 port={} dbname=postgres", cluster.port())
}

#[test]
fn a_database_that_stops_and_comes_back_is_seen_without_any_client() {
    let Some(mut cluster) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    let (pooler, http) = in_front_of(&cluster, |ini| {
        ini.database("app", &entry(&cluster))
            .database("gone", "host=127.0.0.1 port=1")
    });
    let mut client = RawClient::login(pooler.port, "app", "postgres");
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(http.get("/readyz").code, 200);
    assert_eq!(http.get("/readyz?db=app").code, 200);
    assert_eq!(http.get("/readyz?db=pgbouncer").code, 404);

    // Nobody has ever asked for this one.
    eventually(SOON, || http.get("/readyz?db=gone"), not_ready);
    let answer = http.get("/readyz");
    assert_eq!(answer.code, 200, "one of two is enough: {}", answer.body);
    assert!(
        answer.body.contains("\"gone: not reached for "),
        "{}",
        answer.body
    );

    cluster.stop(Stop::Fast).expect("it stops");
    client.send(&Batch::new().query("select 2"));
    let answer = eventually(SOON, || http.get("/readyz"), not_ready);
    assert!(
        answer.body.contains("app: no server login for "),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("connect failed"), "{}", answer.body);
    assert_eq!(http.metrics().value("pgweir_ready", &[]), 0.0);
    let app = [("database", "app")];
    assert_eq!(http.metrics().value("pgweir_database_ready", &app), 0.0);
    assert_eq!(http.get("/livez").code, 200);
    drop(client);

    cluster.start_again().expect("it starts");
    eventually(SOON, || http.get("/readyz"), |answer| answer.code == 200);
    assert_eq!(http.metrics().value("pgweir_database_ready", &app), 1.0);
}

#[test]
fn a_database_that_nobody_can_reach_is_forgotten_like_any_other() {
    let ini = Http::set(Ini::default())
        .database("*", "host=127.0.0.1 port=1")
        .set("auth_type", "trust")
        .set("auth_file", "{dir}/userlist.txt")
        .file("userlist.txt", "\"joe\" \"\"\n")
        .set("ready_policy", "all")
        .set("autodb_idle_timeout", 2)
        .set("server_login_retry", 1)
        .set("client_login_timeout", 1);
    let pooler = start(ini);
    let http = Http::of(&pooler);
    let nowhere = [("user", "joe"), ("database", "nowhere")];
    RawClient::try_login(pooler.port, &nowhere).expect_err("there is nothing");
    // It is called again and again meanwhile, because somebody looks at readiness.
    let dropped = |log: &String| log.contains("dropping database 'nowhere'");
    eventually(SOON, || pooler.log(), dropped);
    eventually(
        SOON,
        || http.get("/readyz"),
        |answer| answer.body.contains("\"databases\": {}"),
    );
}

fn not_ready(answer: &Answer) -> bool {
    answer.code == 503
}

#[test]
fn the_policy_says_how_many_databases_must_work() {
    let Some(tenant) = Tenant::new() else { return };
    for (policy, code) in [("any", 200), ("all", 503), ("process", 200)] {
        let (pooler, http) = in_front_of(tenant.postgres, |ini| {
            ini.database("app", &entry(tenant.postgres))
                .database("off", &entry(tenant.postgres))
                .set("ready_policy", policy)
        });
        assert_eq!(http.get("/readyz").code, 200, "{policy}");
        console(&pooler).query("disable off");
        let answer = http.get("/readyz");
        assert_eq!(answer.code, code, "{policy}: {}", answer.body);
        assert!(answer.body.contains("off: disabled by an operator"));
        let shown = format!("\"policy\": \"{policy}\"");
        assert!(answer.body.contains(&shown), "{}", answer.body);
        assert_eq!(http.get("/readyz?db=off").code, 503);
        assert_eq!(http.get("/readyz?db=app").code, 200);
        console(&pooler).query("disable app");
        let expected = if policy == "process" { 200 } else { 503 };
        assert_eq!(http.get("/readyz").code, expected, "{policy}");
    }
}

#[test]
fn nobody_is_sent_to_a_pooler_that_ends_and_it_can_be_read_to_the_last() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let mut operator = console(&pooler);
    operator.query("suspend");
    assert_eq!(http.get("/readyz").code, 503);
    assert_eq!(http.get("/livez").code, 200);
    operator.query("resume");
    assert_eq!(http.get("/readyz").code, 200);
    // Whoever waits because of a PAUSE waits here on purpose.
    operator.query("pause");
    let metrics = http.metrics();
    assert_eq!(metrics.value("pgweir_state", &[("state", "paused")]), 1.0);
    assert_eq!(http.get("/readyz").code, 200);
    operator.query("resume");

    let client = tenant.client(&pooler);
    drop(operator);
    pooler.signal(Signal::TERM);
    let answer = eventually(SOON, || http.get("/readyz"), not_ready);
    assert!(answer.body.contains("shutting_down"), "{}", answer.body);
    assert_eq!(http.get("/livez").code, 200);
    assert_eq!(http.get("/metrics").code, 200);
    drop(client);
    assert!(pooler.wait_for_exit(SOON).is_some());
    assert!(
        !pooler.socket_dir.join("http").exists(),
        "the socket's file is gone"
    );
}

#[test]
fn pg_isready_is_told_that_the_database_is_down() {
    let Some(mut cluster) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    let ask = |pooler: &Pooler| {
        let programs = postgres::find().expect("found before");
        let mut command = Command::new(programs.bin_dir.join("pg_isready"));
        command.args(["-h", "127.0.0.1", "-d", "app", "-U", "postgres", "-t", "10"]);
        let status = command.args(["-p", &pooler.port.to_string()]).output();
        status.expect("pg_isready runs").status.code()
    };
    let pooler = |codes: &str, cluster: &Cluster| {
        in_front_of(cluster, |ini| {
            ini.database("app", &entry(cluster))
                .set("error_codes", codes)
                .set("server_down_timeout", 1)
        })
        .0
    };
    let ours = pooler("postgres", &cluster);
    let inherited = pooler("pgbouncer", &cluster);
    for pooler in [&ours, &inherited] {
        let mut client = RawClient::login(pooler.port, "app", "postgres");
        assert_eq!(client.value("select 1"), "1");
        assert_eq!(ask(pooler), Some(0), "accepting");
    }
    cluster.stop(Stop::Fast).expect("it stops");
    for pooler in [&ours, &inherited] {
        // Somebody has to find out.
        let mut client = RawClient::login(pooler.port, "app", "postgres");
        client.send(&Batch::new().query("select 1"));
    }
    eventually(SOON, || ask(&ours), |code| *code == Some(1));
    // This one finds out by itself: it has never had a client.
    let cold = pooler("postgres", &cluster);
    eventually(SOON, || ask(&cold), |code| *code == Some(1));
    let login = [("user", "postgres"), ("database", "app")];
    let refused = RawClient::try_login(ours.port, &login).err();
    let refused = refused.unwrap_or_default();
    assert!(
        refused.starts_with("E(FATAL 57P03 server login has been failing"),
        "{refused}"
    );
    // PgBouncer lets clients in whose pool has had a server, and so does its dialect.
    assert_eq!(ask(&inherited), Some(0));
    cluster.start_again().expect("it starts");
    eventually(SOON, || ask(&ours), |code| *code == Some(0));
    eventually(SOON, || ask(&cold), |code| *code == Some(0));
    let mut client = RawClient::login(ours.port, "app", "postgres");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn status_json_is_an_overview() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()).set("default_pool_size", 1));
    let http = Http::of(&pooler);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&pooler);
    waiter.send(&Batch::new().query("select 1"));
    let waits = |answer: &Answer| answer.body.contains("\"oldest_waiter_s\": 0.");
    let answer = eventually(SOON, || http.get("/status.json"), waits);
    assert_eq!(answer.code, 200);
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    for part in [
        "\"ready\": true",
        "\"state\": \"active\"",
        "\"waiting\": 1",
        "\"limit\": \"pool_size\"",
        "\"binding\": true",
        &format!("\"name\": \"{}\"", tenant.name),
    ] {
        assert!(answer.body.contains(part), "{part}: {}", answer.body);
    }
}

#[test]
fn requests_that_are_none_are_refused() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let code = |request: &str| http.say(request.as_bytes()).expect("an end").code;
    assert_eq!(code("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(code("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    assert_eq!(
        code("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
        405
    );
    assert_eq!(code("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    assert_eq!(code("GET /livez HTTP/1.0\r\n\r\n"), 200);
    for garbage in [
        "nonsense\r\n\r\n",
        "\0\0\0\u{8}\u{4}\u{d2}\u{16}/",
        "GET /metrics\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = http.say(garbage.as_bytes()).expect("an end");
        assert!(
            matches!(answer.code, 0 | 400 | 505),
            "{garbage:?}: {}",
            answer.head
        );
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    assert!(matches!(code(&long), 0 | 414 | 431));
    let many: String = (0..1_000).map(|n| format!("x{n}: y\r\n")).collect();
    assert!(matches!(
        code(&format!("GET / HTTP/1.1\r\n{many}\r\n")),
        0 | 431
    ));
    assert_eq!(http.get("/livez").code, 200);
}

#[test]
fn slow_and_many_connections_end_and_nobody_else_notices() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let begun = Instant::now();
    let mut slow: Vec<UnixStream> = (0..200)
        .map(|_| {
            let mut stream = http.connect().expect("a connection");
            let _ = stream.write_all(b"GET /metrics HT");
            stream
        })
        .collect();
    // They fill every place, and still the page is there and clients are served.
    for _ in 0..20 {
        assert_eq!(http.get("/livez").code, 200);
        assert_eq!(http.get("/metrics").code, 200);
        assert_eq!(tenant.client(&pooler).value("select 1"), "1");
    }
    let open = pooler_files(&pooler);
    assert!(open < 100.0, "{open} files");
    for stream in &mut slow {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(25),
        "the last was given up after {took:?}"
    );
}

#[test]
fn whoever_asks_without_end_is_slowed_down() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(http.get("/readyz").code, 200);
    }
    // Fifty are free, and then there are a hundred in a second.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_400), "{took:?}");
}

fn pooler_files(pooler: &Pooler) -> f64 {
    Http::of(pooler).metrics().value("process_open_fds", &[])
}

#[test]
fn a_reload_leaves_the_place_and_says_so() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let ini = tenant.ini().set("metrics_listen", "{dir}/elsewhere");
    pooler.reload(ini).expect("a good file");
    let log = pooler.log();
    assert!(
        log.contains("metrics_listen changes only at a restart"),
        "{log}"
    );
    assert_eq!(http.get("/livez").code, 200);
}

/// Asks for a page with this header.
fn asked(http: &Http, page: &str, header: &str) -> Answer {
    let request = format!("GET {page} HTTP/1.1\r\nHost: weir\r\n{header}\r\n\r\n");
    http.say(request.as_bytes()).expect("an answer")
}

#[test]
fn the_status_page_asks_nobody_else_for_anything() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let answer = Http::of(&pooler).get("/");
    assert_eq!(answer.code, 200);
    assert!(
        answer.head.contains("content-type: text/html"),
        "{}",
        answer.head
    );
    assert!(
        answer.head.contains("default-src 'none'"),
        "{}",
        answer.head
    );
    for elsewhere in ["http:", "https:", "src=", "url(", "@import", "innerHTML"] {
        assert!(!answer.body.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn the_status_is_for_those_who_have_the_token_or_a_password() {
    let Some(tenant) = Tenant::new() else { return };
    // md5(secretlook)
    let users = "\"boss\" \"secret\"\n\"look\" \"md5a1d6601f685feb443db2973932d17bbb\"\n\
        \"ann\" \"secret\"\n\"postgres\" \"\"\n";
    let ini = Http::set(tenant.ini())
        .file("userlist.txt", users)
        .set("admin_users", "boss, postgres")
        .set("stats_users", "look");
    let token = ini.clone().set("status_token", "letmein");
    let pooler = start(token);
    let http = Http::of(&pooler);
    for page in ["/", "/status.json"] {
        let refused = http.get(page);
        assert_eq!(refused.code, 401, "{page}");
        assert!(
            refused.head.contains("www-authenticate: Basic"),
            "{}",
            refused.head
        );
        for (header, code) in [
            ("Authorization: Bearer letmein", 200),
            ("Authorization: Bearer letmeout", 401),
            ("Authorization: Bearer ", 401),
            // x:letmein, boss:secret, look:secret
            ("Authorization: Basic eDpsZXRtZWlu", 200),
            ("Authorization: Basic Ym9zczpzZWNyZXQ=", 200),
            ("Authorization: Basic bG9vazpzZWNyZXQ=", 200),
            // ann:secret, boss:wrong, postgres:, and nonsense
            ("Authorization: Basic YW5uOnNlY3JldA==", 401),
            ("Authorization: Basic Ym9zczp3cm9uZw==", 401),
            ("Authorization: Basic cG9zdGdyZXM6", 401),
            ("Authorization: Basic ???", 401),
        ] {
            assert_eq!(asked(&http, page, header).code, code, "{page} {header}");
        }
    }
    for page in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(http.get(page).code, 200, "{page}");
    }
    // Without a token, whoever is on this machine may look.
    pooler.reload(ini).expect("a good file");
    assert_eq!(http.get("/status.json").code, 200);
}
