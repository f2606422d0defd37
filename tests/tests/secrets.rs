//! The promise: a password can be changed while everything runs, wherever the pooler has it from; and nobody who looks at
//! the pooler sees one.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    thread,
    time::Duration,
};

use pgweir_tests::{
    Batch, Http, Ini, Pooler, Program, RawClient, Run, Tenant, console, eventually, finish_within,
    start,
};

const COMMAND_MAX: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(5);

/// A tenant whom PostgreSQL asks for this password.
fn tenant_with_password(password: &str) -> Option<Tenant> {
    let tenant = Tenant::new()?;
    tenant
        .root()
        .rows(&format!("grant wants_scram to {}", tenant.name));
    change(&tenant, password);
    Some(tenant)
}

fn change(tenant: &Tenant, password: &str) {
    let name = &tenant.name;
    let mut root = tenant.root();
    root.rows(&format!("alter role {name} password '{password}'"));
}

/// The tenant's database for its own user, with more keys.
fn entry(tenant: &Tenant, keys: &str) -> Ini {
    let (port, name) = (tenant.postgres.port(), &tenant.name);
    let entry = format!("host=127.0.0.1 port={port} user={name} {keys}");
    tenant
        .ini()
        .database(name, &entry)
        .set("default_pool_size", 2)
}

fn userlist(tenant: &Tenant, secrets: &str) -> String {
    format!("\"postgres\" \"\"\n\"{}\" {secrets}\n", tenant.name)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("readable");
}

/// Servers that are open end, so that the next client needs a login.
fn reconnect(pooler: &Pooler, tenant: &Tenant) {
    console(pooler).rows("reconnect");
    eventually(SOON, || tenant.backends(), |count| *count == 0);
}

fn psql(pooler: &Pooler, tenant: &Tenant, password: &str) -> Result<String, String> {
    let conninfo = format!("dbname={} password='{password}'", tenant.name);
    let answer = pooler.try_psql(&conninfo, &tenant.name, "select 1");
    answer.map_err(|error| error.to_string())
}

fn tool(pooler: &Pooler, arguments: &[&str]) -> Run {
    let program = Program::new();
    let mut command = program.command();
    let (word, rest) = arguments.split_at(1);
    command
        .args(word)
        .arg("--config")
        .arg(pooler.ini_path())
        .args(rest);
    finish_within(&mut command, COMMAND_MAX)
}

#[track_caller]
fn says(run: &Run, code: i32, parts: &[&str]) {
    assert_eq!(run.code, Some(code), "{run:?}");
    for part in parts {
        assert!(run.stdout.contains(part), "{part} is not in {}", run.stdout);
    }
}

#[test]
fn while_a_password_changes_both_let_clients_in() {
    let Some(tenant) = Tenant::new() else { return };
    for auth_type in ["plain", "md5", "scram-sha-256"] {
        let users = userlist(&tenant, "\"new one\" also \"old one\"");
        let ini = tenant.ini().file("userlist.txt", &users);
        let pooler = start(ini.set("auth_type", auth_type));
        for password in ["new one", "old one"] {
            let answer = psql(&pooler, &tenant, password);
            assert_eq!(answer.as_deref(), Ok("1"), "{auth_type} with {password}");
        }
        assert!(psql(&pooler, &tenant, "also").is_err(), "{auth_type}");
    }
}

#[test]
fn postgres_is_given_the_second_password_where_it_refuses_the_first() {
    let Some(tenant) = tenant_with_password("old one") else {
        return;
    };
    let users = userlist(&tenant, "\"new one\" also \"old one\"");
    let ini = tenant.ini().file("userlist.txt", &users);
    let pooler = start(ini.set("default_pool_size", 1));
    let watch = tenant.watch();
    let mut client = tenant.client(&pooler);
    assert_eq!(client.value("select 1"), "1");
    change(&tenant, "new one");
    reconnect(&pooler, &tenant);
    assert_eq!(client.value("select 1"), "1");
    // What has worked is tried first: nothing more is refused.
    let refusals = || pooler.log().matches("server login failed:").count();
    let before = refusals();
    assert_eq!(before, 2);
    reconnect(&pooler, &tenant);
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(refusals(), before);
    assert_eq!(
        watch.end().most,
        1,
        "one is over before the next one begins"
    );
}

#[test]
fn a_password_comes_from_a_file_that_kubernetes_swaps() {
    let Some(tenant) = tenant_with_password("first") else {
        return;
    };
    let ini = entry(&tenant, "password_from=file:{dir}/data/password");
    let ini = ini.set("server_login_retry", 1);
    let pooler = start(ini);
    let dir = pooler.ini_path().parent().expect("a directory").to_owned();
    let mount = |name: &str, password: &str| {
        let real = dir.join(name);
        fs::create_dir(&real).expect("made");
        write(&real.join("password"), password);
        symlink(&real, dir.join("next")).expect("a link");
        fs::rename(dir.join("next"), dir.join("data")).expect("renamed");
    };
    // Until it is there, clients wait: it may be on its way.
    let text = tool(&pooler, &["doctor", &tenant.name]);
    says(
        &text,
        1,
        &["the pooler cannot read its password", "No such file"],
    );
    mount("1", "first\n");
    let mut client = RawClient::login(pooler.port, &tenant.name, "postgres");
    assert_eq!(client.value("select 1"), "1");
    // On its second line the file may already have what PostgreSQL does not take yet, or any more.
    mount("2", "second\nfirst\n");
    reconnect(&pooler, &tenant);
    assert_eq!(client.value("select 1"), "1");
    change(&tenant, "second");
    reconnect(&pooler, &tenant);
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_password_comes_from_the_environment_for_every_database_of_a_user() {
    let Some(tenant) = tenant_with_password("in the air") else {
        return;
    };
    let ini = tenant
        .ini()
        .user(&tenant.name, "password_from=env:WEIR_TEST_PASSWORD");
    let variables = [("WEIR_TEST_PASSWORD", "in the air")];
    let pooler = Pooler::start_with_env(&variables, ini.clone()).expect("it starts");
    assert_eq!(tenant.client(&pooler).value("select 1"), "1");
    // The user's source is asked, not the file.
    let pooler = start(ini);
    let run = tool(&pooler, &["doctor", &tenant.name, "--auth", &tenant.name]);
    says(
        &run,
        1,
        &["env:WEIR_TEST_PASSWORD: there is no such variable"],
    );
}

#[test]
fn a_command_is_asked_once_and_again_when_postgres_refuses_its_answer() {
    let Some(tenant) = tenant_with_password("token 1") else {
        return;
    };
    let command = "cat {dir}/token; echo $PGWEIR_USER@$PGWEIR_HOST:$PGWEIR_PORT >> {dir}/runs";
    let ini = entry(
        &tenant,
        &format!("password_from=''exec:{command}''").replace("''", "'"),
    );
    let pooler = start(ini.file("token", "token 1\n"));
    let dir = pooler.ini_path().parent().expect("a directory");
    let runs = || fs::read_to_string(dir.join("runs")).unwrap_or_default();
    let mut clients: Vec<_> = (0..2)
        .map(|_| RawClient::login(pooler.port, &tenant.name, "postgres"))
        .collect();
    for client in &mut clients {
        client.query("begin");
    }
    assert_eq!(tenant.backends(), 2);
    let line = format!("{}@127.0.0.1:{}\n", tenant.name, tenant.postgres.port());
    assert_eq!(runs(), line);
    for client in &mut clients {
        client.query("commit");
    }
    change(&tenant, "token 2");
    write(&dir.join("token"), "token 2\n");
    reconnect(&pooler, &tenant);
    assert_eq!(clients[0].value("select 1"), "1");
    assert_eq!(runs(), line.repeat(2));
    // It is not asked for ever where PostgreSQL goes on refusing.
    change(&tenant, "token 3");
    reconnect(&pooler, &tenant);
    let answer = clients[0].query("select 1");
    assert!(
        answer.contains("password authentication failed"),
        "{answer}"
    );
    assert_eq!(runs(), line.repeat(3));
}

#[test]
fn a_command_that_hangs_or_fails_is_named_and_ended() {
    let Some(tenant) = tenant_with_password("x") else {
        return;
    };
    for (command, said) in [
        (
            "sleep 2; touch {dir}/late; echo x",
            "no answer within 0.5 s",
        ),
        ("echo hunter2; exit 3", "it ended with exit status 3"),
        ("true", "it is empty"),
    ] {
        let ini = entry(&tenant, &format!("password_from='exec:{command}'"));
        let pooler = start(ini.set("password_exec_timeout", 0.5));
        let run = tool(&pooler, &["doctor", &tenant.name]);
        let text = format!("exec:****: {said}");
        says(&run, 1, &["1. the pooler cannot read its password", &text]);
        assert!(!run.stdout.contains("hunter2") && !pooler.log().contains("hunter2"));
        if command.starts_with("sleep") {
            thread::sleep(Duration::from_millis(2_200));
            let dir = pooler.ini_path().parent().expect("a directory");
            assert!(!dir.join("late").exists(), "it has gone on");
        }
    }
}

#[test]
fn whoever_may_use_the_console_runs_no_commands() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for target in ["database", "user"] {
        let name = &tenant.name;
        let order = format!("set password_from = 'exec:touch /tmp/x' for {target} {name} ttl 1h");
        let answer = console(&pooler).query(&order);
        assert!(
            answer.contains("in the configuration file only"),
            "{answer}"
        );
    }
}

#[test]
fn after_a_reload_what_a_client_has_proven_is_not_tried_any_more() {
    let Some(tenant) = tenant_with_password("old one") else {
        return;
    };
    let ini = tenant
        .ini()
        .file("userlist.txt", &userlist(&tenant, "\"old one\""));
    let pooler = start(ini.clone().set("auth_type", "plain"));
    assert_eq!(psql(&pooler, &tenant, "old one").as_deref(), Ok("1"));
    change(&tenant, "new one");
    let users = userlist(&tenant, "\"new one\"");
    let new = ini.file("userlist.txt", &users).set("auth_type", "plain");
    pooler.reload(new).expect("it reloads");
    let run = tool(&pooler, &["doctor", &tenant.name, "--auth", &tenant.name]);
    says(&run, 0, &["with a password from the auth_file"]);
    assert!(!run.stdout.contains("retried"), "{run:?}");
    assert!(!pooler.log().contains("password authentication failed"));
}

#[test]
fn a_reload_tells_no_password_of_a_directory() {
    let options = |password: &str| format!("ldapserver=nowhere ldapbindpasswd={password}");
    let ini = |password| Ini::default().set("auth_ldap_options", options(password));
    let pooler = start(ini("xyzzy-old"));
    pooler.reload(ini("xyzzy-new")).expect("it reloads");
    let set = format!(
        "SET auth_ldap_options = '{}' TTL 1min",
        options("xyzzy-set")
    );
    pooler.console(&set);
    let log = pooler.log();
    assert!(log.contains("auth_ldap_options has another value"), "{log}");
    assert!(!log.contains("xyzzy"), "{log}");
    assert!(!format!("{:?}", pooler.console("SHOW EVENTS")).contains("xyzzy"));
}

#[test]
fn after_a_reload_what_was_refused_is_tried_again_at_once() {
    let Some(tenant) = tenant_with_password("right") else {
        return;
    };
    let with = |password: &str| entry(&tenant, &format!("password={password}"));
    let pooler = start(with("wrong").set("server_login_retry", 3_600));
    let parameters = [("user", "postgres"), ("database", tenant.name.as_str())];
    let login = || RawClient::try_login(pooler.port, &parameters);
    let refused = login().expect_err("PostgreSQL refuses it");
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
    let new = with("right").set("server_login_retry", 3_600);
    pooler.reload(new).expect("it reloads");
    assert_eq!(login().expect("it is let in").value("select 1"), "1");
}

/// A second user of the tenant's database, whom PostgreSQL asks for this password.
fn next_user(tenant: &Tenant, password: &str) -> String {
    let next = format!("{}_next", tenant.name);
    let mut root = tenant.root();
    root.rows(&format!("create role {next} login password '{password}'"));
    root.rows(&format!("grant wants_scram to {next}"));
    next
}

/// The tenant's database with this user forced upon whoever comes.
fn forcing(tenant: &Tenant, user: &str, password: &str, servers: u32) -> Ini {
    let (port, name) = (tenant.postgres.port(), &tenant.name);
    let entry = format!("host=127.0.0.1 port={port} user={user} password={password}");
    let ini = tenant.ini().database(name, &entry);
    ini.set("default_pool_size", servers)
}

fn anybody(pooler: &Pooler, tenant: &Tenant) -> RawClient {
    RawClient::login(pooler.port, &tenant.name, "postgres")
}

/// How many clients a user's pool has: those that wait for no server, and those that do.
fn clients(pooler: &Pooler, user: &str) -> [String; 2] {
    let pools = pooler.console("show pools");
    let pool = pools.find("user", user);
    ["cl_active", "cl_waiting"].map(|column| {
        let count = pool.as_ref().and_then(|pool| pool.get(column));
        count.unwrap_or("0").to_owned()
    })
}

#[test]
fn another_user_in_the_entry_is_that_of_everybodys_next_server() {
    let Some(tenant) = tenant_with_password("first") else {
        return;
    };
    let next = next_user(&tenant, "second");
    let pooler = start(forcing(&tenant, &tenant.name, "first", 2));
    let [mut idle, mut busy] = [0; 2].map(|_| anybody(&pooler, &tenant));
    assert_eq!(idle.value("select current_user"), tenant.name);
    busy.query("begin");
    assert_eq!(busy.value("select current_user"), tenant.name);

    let mut root = tenant.root();
    root.rows(&format!("alter role {} nologin", tenant.name));
    let new = forcing(&tenant, &next, "second", 2);
    pooler.reload(new).expect("it reloads");

    let mut late = anybody(&pooler, &tenant);
    assert_eq!(late.value("select current_user"), next);
    eventually(SOON, || clients(&pooler, &next), |c| *c == ["2", "0"]);
    assert_eq!(clients(&pooler, &tenant.name), ["1", "0"]);
    assert_eq!(idle.value("select current_user"), next);
    assert_eq!(busy.value("select current_user"), tenant.name);
    busy.query("commit");
    assert_eq!(busy.value("select current_user"), next);
    assert_eq!(clients(&pooler, &next), ["3", "0"]);
    assert_eq!(clients(&pooler, &tenant.name), ["0", "0"]);
    drop((idle, busy, late));
    eventually(SOON, || clients(&pooler, &next), |c| *c == ["0", "0"]);
    let log = pooler.log();
    assert!(!log.contains("not permitted to log in"), "{log}");
}

#[test]
fn who_waits_while_an_entry_gets_its_first_user_is_served_by_that_user() {
    let Some(tenant) = tenant_with_password("first") else {
        return;
    };
    let next = next_user(&tenant, "second");
    let pooler = start(tenant.ini().set("default_pool_size", 1));
    let [mut busy, mut waiting] = [0; 2].map(|_| anybody(&pooler, &tenant));
    busy.query("begin");
    waiting.send(&Batch::new().query("select current_user"));
    eventually(SOON, || clients(&pooler, "postgres"), |c| c[1] == "1");

    let new = forcing(&tenant, &next, "second", 1);
    pooler.reload(new).expect("it reloads");

    assert_eq!(waiting.until_ready()[1].values(), [next.as_str()]);
    assert_eq!(clients(&pooler, &next), ["1", "0"]);
    assert_eq!(busy.value("select current_user"), "postgres");
    busy.query("commit");
    assert_eq!(busy.value("select current_user"), next);
    assert_eq!(clients(&pooler, "postgres"), ["0", "0"]);
}

#[test]
fn a_rotation_is_verified_by_one_command() {
    let Some(tenant) = tenant_with_password("first") else {
        return;
    };
    let ini = entry(&tenant, "password_from=file:{dir}/password").file("password", "first");
    let pooler = start(ini);
    let file = pooler.ini_path().with_file_name("password");
    let run = tool(&pooler, &["rotate", &tenant.name]);
    says(
        &run,
        0,
        &["rotate", "PostgreSQL takes a password from file:"],
    );
    let run = tool(&pooler, &["rotate", &tenant.name]);
    says(&run, 0, &["the one that PostgreSQL took the last time"]);
    change(&tenant, "second");
    let run = tool(&pooler, &["rotate", &tenant.name]);
    says(
        &run,
        1,
        &["nothing that the pooler has lets it in as tenant", "28P01"],
    );
    write(&file, "second\nfirst");
    let run = tool(&pooler, &["rotate", &tenant.name, "--auth", &tenant.name]);
    says(
        &run,
        0,
        &["another one than PostgreSQL took", "which is new"],
    );
    change(&tenant, "first");
    let run = tool(&pooler, &["rotate", &tenant.name, "--json"]);
    says(
        &run,
        0,
        &["\"taken\": true", "retried", "line 2, which is new"],
    );
    // Rows are for programs, too.
    let table = console(&pooler).table(&format!("rotate {}", tenant.name));
    let last = table.find("step", "rotate").expect("the last step");
    assert_eq!(last.get("outcome"), Some("ok"));
}

/// What no secret may contain elsewhere.
const SECRET: &str = "xyzzy";

#[test]
fn no_secret_is_shown_anywhere() {
    let Some(tenant) = tenant_with_password("xyzzy-file") else {
        return;
    };
    let (name, port) = (tenant.name.as_str(), tenant.postgres.port());
    let users = userlist(&tenant, "\"xyzzy-new\" also \"xyzzy-old\"");
    let users = format!("{users}\"ops\" \"xyzzy-ops\"\n");
    let host = format!("host=127.0.0.1 port={port} dbname={name} user={name}");
    let ini = tenant
        .ini()
        .database("plain", &format!("{host} password=xyzzy-plain"))
        .database(
            "file",
            &format!("{host} password_from=file:{{dir}}/password"),
        )
        .database(
            "exec",
            &format!("{host} password_from='exec:echo xyzzy-exec'"),
        )
        .database(
            "bad",
            &format!("{host} password_from='exec:echo xyzzy-bad; exit 1'"),
        )
        .user(name, "password_from=env:XYZ")
        .file("userlist.txt", &users)
        .file("password", "xyzzy-file\nxyzzy-other\n")
        .set("auth_type", "plain")
        .set("admin_users", "ops")
        .set("verbose", 3)
        .set("status_token", "xyzzy-token")
        .set("metrics_listen", "{dir}/http");
    let pooler = Pooler::start_with_env(&[("XYZ", "xyzzy-env")], ini).expect("it starts");
    let mut said = String::new();
    for (database, password) in [
        ("plain", "xyzzy-new"),
        ("file", "xyzzy-old"),
        ("exec", "xyzzy-new"),
        ("bad", "xyzzy-wrong"),
        (name, "xyzzy-new"),
    ] {
        let conninfo = format!("dbname={database} password={password} connect_timeout=2");
        let answer = pooler.try_psql(&conninfo, name, "select 1");
        let answer = answer.map_err(|error| error.to_string());
        // The command line has it, and what was answered stands behind that.
        let end = |text: String| text.split("ended with").last().map(str::to_owned);
        said.push_str(&format!("{:?}", answer.map_err(end)));
    }
    let asked = ["plain", "file", "exec", "bad", name];
    for database in asked {
        for order in ["diagnose", "rotate", "why"] {
            let answer = pooler.try_console(&format!("{order} {database}"));
            said.push_str(&format!("{answer:?}"));
        }
    }
    let order = "set password = 'xyzzy-set' for database file ttl 1min";
    said.push_str(&format!("{:?}", pooler.try_console(order)));
    for table in [
        "config",
        "databases",
        "users",
        "pools",
        "servers",
        "clients",
        "sockets",
        "overrides",
        "events",
        "samples",
        "budget",
        "holders",
        "leaks",
        "fds",
        "lists",
        "state",
        "help",
    ] {
        let answer = pooler.try_console(&format!("show {table}"));
        // SHOW FDS hands secrets to a successor: nobody else may ask, and it is not in a bundle.
        if table != "fds" {
            said.push_str(&format!("{answer:?}"));
        }
    }
    let bundle = pooler.ini_path().with_file_name("bundle.tar");
    for arguments in [
        &["doctor"][..],
        &["rotate"],
        &["incident"],
        &["incident", "--bundle", bundle.to_str().expect("a path")],
        &["report"],
    ] {
        let run = tool(&pooler, arguments);
        said.push_str(&format!("{run:?}"));
    }
    let program = Program::new();
    let mut check = program.command();
    check.arg("check").arg(pooler.ini_path());
    said.push_str(&format!("{:?}", finish_within(&mut check, COMMAND_MAX)));
    said.push_str(&String::from_utf8_lossy(
        &fs::read(&bundle).unwrap_or_default(),
    ));
    let http = Http::of(&pooler);
    for path in ["/metrics", "/readyz", "/status.json", "/"] {
        said.push_str(&format!("{:?}", http.get(path)));
    }
    said.push_str(&pooler.log());
    assert!(
        said.contains("password from file:"),
        "the right things were asked: {said}"
    );
    if let Some(at) = said.find(SECRET) {
        let (from, to) = (at.saturating_sub(300), (at + 100).min(said.len()));
        panic!("{}", String::from_utf8_lossy(&said.as_bytes()[from..to]));
    }
}
