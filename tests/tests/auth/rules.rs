//! Who is let in as whom: HBA, ident maps, forced users, the console.

use super::*;

#[test]
fn trust_lets_known_users_in_and_nobody_else() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    assert_eq!(psql(&pooler, &tenant.name, ""), Ok("1".to_owned()));
    assert_refused(
        &psql_in(&pooler, &tenant.name, "stranger", ""),
        "\"trust\" authentication failed",
        "",
    );
}

#[test]
fn auth_type_any_uses_the_forced_user() {
    let Some(tenant) = Tenant::new() else { return };
    let forced = format!(
        "host=127.0.0.1 port={} dbname={1} user={1}",
        tenant.postgres.port(),
        tenant.name
    );
    let pooler = start(
        tenant
            .ini()
            .set("auth_type", "any")
            .database("forced", &forced),
    );
    let mut client = RawClient::login(pooler.port, "forced", "whoever");
    assert_eq!(client.value("select current_user"), tenant.name);
    assert_refused(
        &psql_in(&pooler, &tenant.name, "whoever", ""),
        "bouncer config error",
        "a database without a forced user",
    );
}

#[test]
fn a_forced_user_is_who_works_on_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let forced = format!(
        "host=127.0.0.1 port={} dbname={1} user={1}",
        tenant.postgres.port(),
        tenant.name
    );
    let ini = tenant.ini().database("forced", &forced);
    let pooler = start(
        ini.file("userlist.txt", "\"app\" \"app-secret\"\n")
            .set("auth_type", "md5"),
    );
    assert_eq!(
        psql_in(&pooler, "forced", "app", "app-secret"),
        Ok("1".to_owned())
    );
    let who = pooler
        .try_psql(
            "dbname=forced password=app-secret",
            "app",
            "select current_user",
        )
        .expect("let in");
    assert_eq!(who, tenant.name);
}

#[test]
fn a_missing_database_is_told_after_the_proof_only() {
    let Some(tenant) = Tenant::new() else { return };
    let port = tenant.postgres.port();
    let only = format!("[databases]\nonly = host=127.0.0.1 port={port}\n");
    let ini = Ini::from(&*only)
        .set("auth_type", "md5")
        .set("auth_file", "{dir}/userlist.txt")
        .file("userlist.txt", "\"app\" \"app-secret\"\n");
    let pooler = start(ini);
    assert_refused(
        &psql_in(&pooler, "missing", "app", "app-secret"),
        "no such database: missing",
        "",
    );
    assert_refused(
        &psql_in(&pooler, "missing", "app", "wrong"),
        "password authentication failed",
        "",
    );
}

#[test]
fn with_any_everybody_may_look_at_the_console_and_administrators_may_act() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("auth_type", "any"));
    let ask = |user: &str, sql: &str| RawClient::login(pooler.port, "pgbouncer", user).query(sql);
    assert_eq!(
        ask("whoever", "show version"),
        "T D(PgBouncer 1.25.2) C(SHOW) Z(I)"
    );
    assert_eq!(
        ask("whoever", "reload"),
        "E(08P01 admin access needed) Z(I)"
    );
    assert_eq!(ask("postgres", "reload"), "C(RELOAD) Z(I)");
}

#[test]
fn hba_rules_choose_by_user_database_and_address() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let rules = format!(
        "# comment\n\
         host {name} trusted 127.0.0.1/32 trust\n\
         host {name} rejected 127.0.0.0 255.0.0.0 reject\n\
         host {name} \"{name}\" 0.0.0.0/0 scram-sha-256\n\
         host sameuser plainly all password\n\
         hostssl all encrypted all trust\n\
         host all far 10.0.0.0/8 trust\n"
    );
    let users = ["trusted", "rejected", "plainly", "encrypted", "far"]
        .map(|user| format!("\"{user}\" \"{PASSWORD}\"\n"))
        .concat();
    let own = Stored::Plain.secret(&tenant);
    let ini = tenant
        .ini()
        .file("userlist.txt", &format!("{users}\"{name}\" \"{own}\"\n"))
        .file("hba.conf", &rules)
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba.conf");
    let pooler = start(ini.database(
        "*",
        &format!(
            "host=127.0.0.1 port={} dbname={name} user={name}",
            tenant.postgres.port()
        ),
    ));
    let login =
        |database: &str, user: &str, password: &str| psql_in(&pooler, database, user, password);
    assert_eq!(login(name, "trusted", "").as_deref(), Ok("1"));
    assert_refused(&login(name, "rejected", PASSWORD), "login rejected", "");
    assert_eq!(login(name, name, PASSWORD).as_deref(), Ok("1"));
    assert_refused(
        &login(name, name, "wrong"),
        "SASL authentication failed",
        "",
    );
    assert_eq!(login("plainly", "plainly", PASSWORD).as_deref(), Ok("1"));
    for (database, user) in [
        ("other", "plainly"),
        ("other", "trusted"),
        (name, "encrypted"),
        (name, "far"),
    ] {
        assert_refused(
            &login(database, user, PASSWORD),
            "no authentication method is found",
            user,
        );
    }
}

#[test]
fn peer_trusts_the_operating_system_and_the_ident_map() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let ini = tenant
        .ini()
        .file(
            "userlist.txt",
            &format!("\"{name}\" \"\"\n\"mapped\" \"\"\n"),
        )
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba.conf")
        .set("auth_ident_file", "{dir}/ident.conf")
        .file("hba.conf", "local all all peer map=staff\n");
    let ini = ini.database(
        "*",
        &format!(
            "host=127.0.0.1 port={} dbname={name} user={name}",
            tenant.postgres.port()
        ),
    );
    let me = own_name(&start(tenant.ini()));
    let map = |line: &str| ini.clone().file("ident.conf", line);
    let pooler = start(map(&format!("staff {me} mapped\n")));
    let login = |user: &str| {
        let endpoint = pooler.unix_endpoint();
        endpoint
            .psql(name, user, "select 1")
            .map_err(|error| error.to_string())
    };
    assert_eq!(login("mapped").as_deref(), Ok("1"));
    assert_refused(&login(name), "unix socket login rejected", "");

    pooler
        .reload(map(&format!(
            "staff {me} {name}\nstaff nobody_else mapped\n"
        )))
        .expect("RELOAD");
    assert_eq!(login(name).as_deref(), Ok("1"));
    assert_refused(&login("mapped"), "unix socket login rejected", "");

    pooler
        .reload(map(&format!("staff {me} all\n")))
        .expect("RELOAD");
    assert_eq!(login(name).as_deref(), Ok("1"));
    assert_eq!(login("mapped").as_deref(), Ok("1"));
    assert_refused(&login("stranger"), "unix socket login rejected", "");
}

#[test]
fn who_may_use_the_console() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .file(
                "userlist.txt",
                "\"boss\" \"b\"\n\"watcher\" \"w\"\n\"nobody\" \"n\"\n",
            )
            .set("auth_type", "plain")
            .set("admin_users", "boss")
            .set("stats_users", "watcher"),
    );
    let ask = |user: &str, password: &str, sql: &str| {
        let mut client = RawClient::connect(pooler.port);
        client.start_login(&[("user", user), ("database", "pgbouncer")]);
        client.read().expect("a challenge");
        client.send(&Batch::new().password(format!("{password}\0").as_bytes()));
        client.finish_login().map(|()| client.query(sql))
    };
    let refused = |text: &str| Err(format!("E(FATAL 08P01 {text})"));
    assert_eq!(ask("boss", "b", "reload"), Ok("C(RELOAD) Z(I)".to_owned()));
    assert_eq!(
        ask("boss", "wrong", "reload"),
        refused("password authentication failed")
    );
    assert_eq!(
        ask("watcher", "w", "show version"),
        Ok("T D(PgBouncer 1.25.2) C(SHOW) Z(I)".to_owned())
    );
    assert_eq!(
        ask("watcher", "w", "reload"),
        Ok("E(08P01 admin access needed) Z(I)".to_owned())
    );
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", "nobody"), ("database", "pgbouncer")]);
    assert_eq!(client.until_closed(), "E(FATAL 08P01 not allowed)");
    let version = pooler.console("show version");
    assert_eq!(
        version.rows,
        [["PgBouncer 1.25.2"]],
        "the own system user needs no proof"
    );
}

#[test]
fn a_notice_can_greet_every_client() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("login_notify_message", "maintenance at ten"),
    );
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    let greeting = story(&client.until_ready());
    assert!(
        greeting.ends_with("K N(00000 maintenance at ten) Z(I)"),
        "{greeting}"
    );
}

/// The name of the operating-system user that psql runs as.
fn own_name(pooler: &Pooler) -> String {
    let mut command = Command::new("id");
    command.arg("-un");
    match pooler.unix_endpoint().account {
        Account::Own => {}
        Account::Unprivileged { uid, .. } => {
            command.arg(uid.to_string());
        }
    }
    let output = command.output().expect("id exists");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
