//! `auth_query`.

use super::*;

#[test]
fn auth_query_finds_users_that_are_in_no_file() {
    let Some(tenant) = Tenant::new() else { return };
    let mut root = tenant.root();
    let name = &tenant.name;
    for encryption in ["scram-sha-256", "md5"] {
        root.rows(&format!("set password_encryption = '{encryption}'"));
        root.rows(&format!("alter role {name} password '{PASSWORD}'"));
        for auth_type in ["md5", "plain", "scram-sha-256"] {
            if (encryption, auth_type) == ("md5", "scram-sha-256") {
                continue;
            }
            let pooler = start(with_auth_query(&tenant).set("auth_type", auth_type));
            let case = format!("{auth_type} with {encryption}");
            assert_eq!(psql(&pooler, name, PASSWORD).as_deref(), Ok("1"), "{case}");
            assert_refused(
                &psql(&pooler, name, "wrong"),
                "authentication failed",
                &case,
            );
            assert_refused(
                &psql_in(&pooler, name, "stranger", PASSWORD),
                "no such user",
                &case,
            );
        }
    }
}

#[test]
fn auth_query_sees_a_changed_password_and_an_expired_one_at_once() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let mut root = tenant.root();
    root.rows(&format!("alter role {name} password '{PASSWORD}'"));
    let pooler = start(with_auth_query(&tenant));
    assert_eq!(psql(&pooler, name, PASSWORD).as_deref(), Ok("1"));

    root.rows(&format!("alter role {name} password 'changed'"));
    assert_refused(&psql(&pooler, name, PASSWORD), "authentication failed", "");
    assert_eq!(psql(&pooler, name, "changed").as_deref(), Ok("1"));

    root.rows(&format!("alter role {name} valid until '2020-01-01'"));
    assert_refused(
        &psql(&pooler, name, "changed"),
        "password authentication failed",
        "an expired password",
    );
    root.rows(&format!("alter role {name} valid until 'infinity' nologin"));
    assert_refused(&psql(&pooler, name, "changed"), "no such user", "");
}

#[test]
fn auth_query_can_be_set_per_database_and_run_in_another() {
    let Some(tenant) = Tenant::new() else { return };
    let mut root = tenant.root();
    root.rows("create table secrets (name text, secret text)");
    root.rows(&format!(
        "insert into secrets values ('{}', 'from a table')",
        tenant.name
    ));
    let target = format!(
        "host=127.0.0.1 port={} dbname=postgres auth_dbname=secrets \
         auth_query='select name, secret from secrets where name = $1'",
        tenant.postgres.port()
    );
    let secrets = format!(
        "host=127.0.0.1 port={} dbname={}",
        tenant.postgres.port(),
        tenant.name
    );
    let pooler = start(
        with_auth_query(&tenant)
            .database("shop", &target)
            .database("secrets", &secrets),
    );
    assert_eq!(
        psql_in(&pooler, "shop", &tenant.name, "from a table").as_deref(),
        Ok("1")
    );
    assert_refused(
        &psql_in(&pooler, "shop", &tenant.name, "wrong"),
        "password authentication failed",
        "",
    );
}

#[test]
fn auth_query_runs_as_its_user_also_where_clients_are_forced_to_be_another() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant
        .root()
        .rows(&format!("alter role {name} password '{PASSWORD}'"));
    let port = tenant.postgres.port();
    // The forced user could not read the secrets, and has a password that is nobody else's.
    let forced = format!("host=127.0.0.1 port={port} dbname={name} user={name} password=x");
    let pooler = start(with_auth_query(&tenant).database("forced", &forced));
    let login = |password: &str| psql_in(&pooler, "forced", name, password);
    assert_eq!(login(PASSWORD).as_deref(), Ok("1"), "{}", pooler.log());
    assert_refused(&login("wrong"), "authentication failed", "");
}

#[test]
fn a_client_is_who_auth_query_says() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let asked = name.to_uppercase();
    let query = "select usename, passwd from pg_shadow where usename = lower($1)";
    let ini = with_auth_query(&tenant)
        .file("hba.conf", &format!("host all {name} all trust\n"))
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba.conf")
        .set("auth_query", query)
        .set("stats_users", name)
        .set("auth_dbname", name);
    let mut pooler = start(ini);
    let mut client = RawClient::login(pooler.port, name, &asked);
    assert_eq!(client.value("select current_user"), *name);
    let attempt = format!("login attempt: db={name} user={name} ");
    assert!(pooler.log().contains(&attempt), "{}", pooler.log());
    let mut console = RawClient::login(pooler.port, "pgbouncer", &asked);
    assert!(console.table("show pools").find("user", name).is_some());
    drop(console);

    // And stays so where another process takes over.
    pooler.reboot().expect("taken over");
    client.rows("begin");
    assert_eq!(client.value("select current_user"), *name);
    let pools = pooler.console("SHOW POOLS");
    assert!(pools.find("user", &asked).is_none());
}

#[test]
fn an_auth_query_that_hangs_is_given_up() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let query =
        "select usename, passwd from pg_shadow where usename = $1 and pg_sleep(60)::text = ''";
    let pooler = start(
        with_auth_query(&tenant)
            .set("auth_type", "trust")
            .set("auth_query", query)
            .set("client_login_timeout", 1),
    );
    psql(&pooler, name, PASSWORD).expect_err("no answer");
    let mut operator = console(&pooler);
    eventually(
        Duration::from_secs(10),
        || operator.table("show servers").rows.len(),
        |servers| *servers == 0,
    );
    assert!(
        pooler
            .log()
            .contains("closing because: auth_query took longer than client_login_timeout"),
        "{}",
        pooler.log()
    );
}

#[test]
fn the_user_of_auth_query_is_looked_up_like_any_other() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let mut root = tenant.root();
    root.rows(&format!(
        "alter role {name} superuser password '{PASSWORD}'"
    ));
    let ini = with_auth_query(&tenant).set("auth_user", name);
    let pooler = start(ini.file("userlist.txt", ""));
    assert_eq!(
        psql(&pooler, name, PASSWORD).as_deref(),
        Ok("1"),
        "{}",
        pooler.log()
    );
    assert_refused(&psql(&pooler, name, "wrong"), "authentication failed", "");
    root.rows(&format!("alter role {name} nosuperuser"));
}

#[test]
fn a_user_with_an_entry_of_its_own_is_known_even_if_the_query_finds_nobody() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = with_auth_query(&tenant).user("listed", "pool_size=1");
    let pooler = start(ini);
    let login = |user| psql_in(&pooler, &tenant.name, user, PASSWORD);
    assert_refused(&login("listed"), "password authentication failed", "");
    assert_refused(&login("unlisted"), "no such user", "");
}

#[test]
fn the_console_is_no_place_to_look_users_up() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant
        .root()
        .rows(&format!("alter role {name} password '{PASSWORD}'"));
    let ini = with_auth_query(&tenant).set("stats_users", name);
    let pooler = start(ini.clone());
    let login = || {
        let conninfo = format!("dbname=pgbouncer password='{PASSWORD}'");
        let answer = pooler.try_psql(&conninfo, name, "show version");
        answer.map_err(|error| error.to_string())
    };
    assert_refused(&login(), "bouncer config error", "");
    let log = pooler.log();
    assert!(
        log.contains("cannot use the reserved \"pgbouncer\" database as an auth_dbname"),
        "{log}"
    );
    pooler
        .reload(ini.set("auth_dbname", "postgres"))
        .expect("RELOAD");
    assert_eq!(login().as_deref(), Ok("PgBouncer 1.25.2"));
}

#[test]
fn a_broken_auth_query_is_logged_and_the_client_told_little() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = with_auth_query(&tenant).set("auth_query", "select * from not_there where x = $1");
    let pooler = start(ini);
    assert_refused(
        &psql(&pooler, &tenant.name, PASSWORD),
        "bouncer config error",
        "",
    );
    let log = pooler.log();
    assert!(
        log.contains("relation \"not_there\" does not exist"),
        "{log}"
    );
}

#[test]
fn the_auth_query_does_not_carry_the_clients_settings() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant
        .root()
        .rows(&format!("alter role {name} password '{PASSWORD}'"));
    let query = "select usename, case when current_setting('application_name') = 'evil' \
                 then null else passwd end from pg_shadow where usename = $1";
    let pooler = start(with_auth_query(&tenant).set("auth_query", query));
    let conninfo = format!("dbname={name} password='{PASSWORD}' application_name=evil");
    let answer = pooler.try_psql(&conninfo, name, "show application_name");
    assert_eq!(answer.expect("let in"), "evil");
}
