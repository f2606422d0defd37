//! The promise: who a client is gets proven the way the configuration says, on both sides; a stranger learns nothing;
//! and a login that fails takes nothing with it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Account, Batch, Ini, Pooler, RawClient, Tenant, console, eventually, start, story,
};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

const PASSWORD: &str = "correct horse";

#[test]
fn every_auth_type_takes_the_right_password_in_every_stored_form() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    for auth_type in ["plain", "md5", "scram-sha-256"] {
        for stored in [Stored::Plain, Stored::Md5, Stored::Scram] {
            let pooler = start(
                ini_with_secret(&tenant, &stored.secret(&tenant)).set("auth_type", auth_type),
            );
            let right = psql(&pooler, name, PASSWORD);
            let wrong = psql(&pooler, name, "wrong");
            let case = format!("{auth_type} with {stored:?}");
            if auth_type == "scram-sha-256" && stored == Stored::Md5 {
                assert_refused(&right, "SASL authentication failed", &case);
            } else {
                assert_eq!(right.as_deref(), Ok("1"), "{case}");
            }
            let text = match (auth_type, stored) {
                ("scram-sha-256", _) | ("md5", Stored::Scram) => "SASL authentication failed",
                _ => "password authentication failed",
            };
            assert_refused(&wrong, text, &case);
        }
    }
}

#[test]
fn a_stranger_is_answered_like_a_user_with_the_wrong_password() {
    let Some(tenant) = Tenant::new() else { return };
    for (auth_type, stored) in [
        ("plain", Stored::Plain),
        ("md5", Stored::Plain),
        ("md5", Stored::Md5),
        ("scram-sha-256", Stored::Plain),
        ("scram-sha-256", Stored::Scram),
    ] {
        let pooler =
            start(ini_with_secret(&tenant, &stored.secret(&tenant)).set("auth_type", auth_type));
        let known = wrong_login(&pooler, &tenant.name, &tenant.name);
        let stranger = wrong_login(&pooler, &tenant.name, "stranger");
        assert_eq!(known.0, stranger.0, "{auth_type} with {stored:?}");
        let again = wrong_login(&pooler, &tenant.name, "stranger");
        if auth_type == "scram-sha-256" {
            assert_eq!(
                stranger.1, again.1,
                "a salt that changes says that the user is made up"
            );
            assert_ne!(known.1, stranger.1);
        }
        let elsewhere = wrong_login(&pooler, "no_such_database", "stranger");
        assert_eq!(known.0, elsewhere.0, "databases are not told either");
    }
}

/// Filters that ban addresses look for these lines.
#[test]
fn the_log_tells_of_failed_logins_in_pgbouncers_words() {
    let Some(tenant) = Tenant::new() else { return };
    let (name, hashed) = (&tenant.name, Stored::Md5.secret(&tenant));
    let users = format!("\"{name}\" \"{PASSWORD}\"\n\"hashed\" \"{hashed}\"\n");
    let log_of = |ini: &Ini, user: &str| -> Vec<String> {
        let pooler = start(ini.clone());
        assert!(psql_in(&pooler, name, user, "wrong").is_err());
        let log = eventually(
            Duration::from_secs(5),
            || pooler.log(),
            |log| log.contains("pooler error"),
        );
        let of_user = format!(": {name}/{user}@");
        let lines = log.lines().filter_map(|line| {
            let (before, text) = line.split_once(&of_user)?;
            let level = before.rsplit(' ').nth(1)?;
            let (_, text) = text.split_once(' ')?;
            let text = text.strip_suffix(" (age=0s)").unwrap_or(text);
            Some(format!("{level} {text}"))
        });
        lines.collect()
    };
    let attempt =
        |user: &str| format!("LOG login attempt: db={name} user={user} tls=no replication=no");
    let closing = |text: &str| {
        [
            format!("LOG closing because: {text}"),
            format!("WARNING pooler error: {text}"),
        ]
    };
    let of_scram = closing("SASL authentication failed");
    let of_password = closing("password authentication failed");
    for (auth_type, user, first, error, last) in [
        (
            "scram-sha-256",
            &**name,
            None,
            Some("password authentication failed"),
            &of_scram,
        ),
        (
            "scram-sha-256",
            "stranger",
            Some("LOG no such user: stranger"),
            Some("password authentication failed"),
            &of_scram,
        ),
        (
            "scram-sha-256",
            "hashed",
            None,
            Some("SCRAM authentication failed: user has MD5 secret"),
            &of_scram,
        ),
        ("md5", name, None, None, &of_password),
        ("plain", name, None, None, &of_password),
    ] {
        let ini = tenant
            .ini()
            .file("userlist.txt", &users)
            .set("auth_type", auth_type);
        let mut expected: Vec<String> = first.map(str::to_owned).into_iter().collect();
        expected.push(attempt(user));
        expected.extend(error.map(|text| format!("ERROR {text}")));
        expected.extend_from_slice(last);
        assert_eq!(log_of(&ini, user), expected, "{auth_type}");
    }
    let mut expected = vec![format!("LOG login failed: db={name}")];
    expected.extend(closing("no such user"));
    assert_eq!(log_of(&with_auth_query(&tenant), "stranger"), expected);
}

#[test]
fn the_log_tells_of_logins_of_the_own_user_to_the_console() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let own = pooler.unix_endpoint();
    own.psql("pgbouncer", "pgbouncer", "show version")
        .expect("it is its own user");
    let log = pooler.log();
    let access = log.find("pgbouncer access from unix socket");
    let attempt = log.find("login attempt: db=pgbouncer user=pgbouncer tls=no replication=no");
    assert!(access.is_some() && access < attempt, "{log}");
}

#[test]
fn who_is_refused_after_its_proof_is_told_that_it_was_right() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = ini_with_secret(&tenant, PASSWORD).set("auth_type", "scram-sha-256");
    let pooler = start(ini);
    let name = &tenant.name;
    assert!(psql(&pooler, name, PASSWORD).is_ok(), "the pool is there");
    pooler.console(&format!("disable {name}"));
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", name), ("database", name)]);
    let asked = |client: &mut RawClient| client.read().expect("a challenge").body[4..].to_vec();
    asked(&mut client);
    let mut scram = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
    let first = String::from_utf8_lossy(scram.message()).into_owned();
    client.send(&Batch::new().sasl_initial("SCRAM-SHA-256", &first));
    let challenge = asked(&mut client);
    scram.update(&challenge).expect("a challenge");
    client.send(&Batch::new().password(scram.message()));
    let last = asked(&mut client);
    scram.finish(&last).expect("the server's proof");
    let refusal = client.until_closed();
    assert!(refusal.contains("is disabled"), "{refusal}");
}

/// What is said to a client that does not know the password, and the salt it is given.
fn wrong_login(pooler: &Pooler, database: &str, user: &str) -> (String, String) {
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", user), ("database", database)]);
    let asked = client.read().expect("a challenge");
    let mut said = format!("{:?}", &asked.body[..4]);
    let mut salt = String::new();
    if asked.body[..4] == [0, 0, 0, 10] {
        said += &String::from_utf8_lossy(&asked.body[4..]);
        client.send(&Batch::new().sasl_initial("SCRAM-SHA-256", "n,,n=,r=mynonce"));
        let first = client.read().expect("the server's first message");
        let text = String::from_utf8_lossy(&first.body[4..]).into_owned();
        let field = |name: &str| {
            let mut fields = text.split(',');
            let found = fields.find_map(|field| field.strip_prefix(name));
            found.unwrap_or_default().to_owned()
        };
        salt = field("s=");
        said += &format!(" nonce {} salt {}", field("r=").len(), salt.len());
        said += &format!(" iterations {}", field("i="));
        let proof = "A".repeat(43) + "=";
        let last = format!("c=biws,r={},p={proof}", field("r="));
        client.send(&Batch::new().password(last.as_bytes()));
    } else {
        let answer = match asked.body[3] {
            5 => format!("md5{}\0", "0".repeat(32)),
            _ => "wrong\0".to_owned(),
        };
        client.send(&Batch::new().password(answer.as_bytes()));
    }
    (said + " " + &client.until_closed(), salt)
}

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
fn long_passwords_pass_up_to_the_limit() {
    let Some(tenant) = Tenant::new() else { return };
    let long = "p".repeat(65_530);
    let pooler = start(ini_with_secret(&tenant, &long).set("auth_type", "plain"));
    let login = |password: &str| {
        let mut client = RawClient::connect(pooler.port);
        client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
        client.read().expect("a challenge");
        client.send(&Batch::new().password(format!("{password}\0").as_bytes()));
        client.finish_login()
    };
    assert_eq!(login(&long), Ok(()));
    assert_eq!(
        login(&(long + "x")),
        Err("E(FATAL 08P01 password authentication failed)".to_owned())
    );
}

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
fn the_password_of_an_entry_is_that_of_its_user_only() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let mut root = tenant.root();
    root.rows(&format!("alter role {name} password '{PASSWORD}'"));
    root.rows(&format!("grant wants_password to {name}"));
    let entry = format!(
        "host=127.0.0.1 port={} dbname={name} password=of-nobody",
        tenant.postgres.port()
    );
    let ini = ini_with_secret(&tenant, PASSWORD).set("auth_type", "plain");
    let pooler = start(ini.database("shop", &entry));
    assert_eq!(psql_in(&pooler, "shop", name, PASSWORD).as_deref(), Ok("1"));
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
fn the_server_gets_the_proof_that_it_wants() {
    for wants in ["scram", "md5", "password"] {
        for stored in [Stored::Plain, Stored::Md5, Stored::Scram] {
            let Some(tenant) = Tenant::new() else { return };
            let secret = stored.secret(&tenant);
            tenant
                .root()
                .rows(&format!("grant wants_{wants} to {}", tenant.name));
            let pooler = start(ini_with_secret(&tenant, &secret).set("auth_type", "md5"));
            let case = format!("a server that wants {wants}, with {stored:?}");
            let answer = psql(&pooler, &tenant.name, PASSWORD);
            // An md5 secret is no password, and proves nothing to a server that asks for one; one that keeps md5
            // cannot ask for SCRAM, and one that keeps SCRAM is asked by `md5` for SCRAM too.
            let works = matches!(
                (wants, stored),
                (_, Stored::Plain) | ("md5", Stored::Md5) | ("scram" | "md5", Stored::Scram)
            );
            assert_eq!(answer.is_ok(), works, "{case}: {answer:?}");
        }
    }
}

#[test]
fn scram_passes_through_again_after_reconnect() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let secret = Stored::Scram.secret(&tenant);
    tenant.root().rows(&format!("grant wants_scram to {name}"));
    let pooler = start(
        ini_with_secret(&tenant, &secret)
            .set("auth_type", "scram-sha-256")
            .set("default_pool_size", 1),
    );
    for _ in 0..3 {
        assert_eq!(psql(&pooler, name, PASSWORD).as_deref(), Ok("1"));
        pooler.console("RECONNECT");
    }
}

#[test]
fn scram_is_proven_to_the_server_with_the_password_that_the_client_gave() {
    // Stored is a SCRAM secret, the client shows its password in clear text: that is as good as a password.
    let Some(tenant) = Tenant::new() else { return };
    let secret = Stored::Scram.secret(&tenant);
    for wants in ["scram", "password"] {
        let name = &tenant.name;
        tenant
            .root()
            .rows(&format!("grant wants_{wants} to {name}"));
        let pooler = start(ini_with_secret(&tenant, &secret).set("auth_type", "plain"));
        assert_eq!(psql(&pooler, name, PASSWORD).as_deref(), Ok("1"));
        tenant
            .root()
            .rows(&format!("revoke wants_{wants} from {name}"));
    }
}

#[test]
fn the_password_of_the_database_line_is_used_for_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    Stored::Scram.secret(&tenant);
    tenant.root().rows(&format!("grant wants_scram to {name}"));
    let line = |password: &str| {
        format!(
            "host=127.0.0.1 port={} dbname={name} user={name} password='{password}'",
            tenant.postgres.port()
        )
    };
    let ini = tenant.ini().file("userlist.txt", "\"app\" \"\"\n");
    let pooler = start(ini.clone().database("shop", &line(PASSWORD)));
    assert_eq!(psql_in(&pooler, "shop", "app", "").as_deref(), Ok("1"));

    let pooler = start(ini.database("shop", &line("wrong")));
    assert_refused(
        &psql_in(&pooler, "shop", "app", ""),
        &format!("password authentication failed for user \"{name}\""),
        "the server's own words reach the client",
    );
}

#[test]
fn a_scram_secret_is_no_password_for_a_forced_user() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let secret = Stored::Scram.secret(&tenant);
    tenant.root().rows(&format!("grant wants_scram to {name}"));
    let line = format!(
        "host=127.0.0.1 port={} dbname={name} user={name} password='{secret}'",
        tenant.postgres.port()
    );
    let ini = tenant.ini().file("userlist.txt", "\"app\" \"\"\n");
    let pooler = start(ini.database("shop", &line));
    assert_refused(
        &psql_in(&pooler, "shop", "app", ""),
        "wrong password type",
        "",
    );
}

#[test]
fn what_the_server_says_at_its_login_reaches_the_client_with_its_code() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("server_login_retry", 1));
    let name = &tenant.name;
    let mut early: Vec<RawClient> = (0..2).map(|_| tenant.client(&pooler)).collect();
    let mut root = tenant.root();
    root.rows(&format!("alter role {name} nologin"));
    root.rows(&format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'"
    ));
    eventually(
        Duration::from_secs(2),
        || tenant.backends(),
        |count| *count == 0,
    );

    let said = format!("role \"{name}\" is not permitted to log in");
    let answers = early.iter_mut().map(|client| {
        client.send(&Batch::new().query("select 1"));
        client.until_closed()
    });
    assert_eq!(
        answers.collect::<Vec<_>>(),
        [
            format!("E(FATAL 28000 {said})"),
            format!(
                "E(FATAL 08P01 server login has been failing, cached error: {said} \
                 (server_login_retry))"
            )
        ]
    );

    // Whoever comes is let in, because the pool is known, and is served as soon as a login succeeds.
    root.rows(&format!("alter role {name} login"));
    eventually(
        Duration::from_secs(4),
        || tenant.client(&pooler).query("select 1"),
        |answer| answer == "T D(1) C(SELECT 1) Z(I)",
    );
}

#[test]
fn logins_to_a_pool_that_is_not_known_wait_for_the_next_attempt() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("server_login_retry", 1));
    let mut root = tenant.root();
    root.rows(&format!("alter role {} nologin", tenant.name));
    let parameters = [("user", &*tenant.name), ("database", &*tenant.name)];
    let login = || RawClient::try_login(pooler.port, &parameters).map(|_| ());
    let said = format!(
        "E(FATAL 28000 role \"{}\" is not permitted to log in)",
        tenant.name
    );
    assert_eq!(login(), Err(said.clone()));

    let started = Instant::now();
    assert_eq!(login(), Err(said));
    assert!(
        started.elapsed() > Duration::from_millis(500),
        "no login storm"
    );

    root.rows(&format!("alter role {} login", tenant.name));
    assert_eq!(login(), Ok(()));
}

#[test]
fn a_database_that_the_server_does_not_have_is_told_so() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let parameters = [("user", &*tenant.name), ("database", "not_there")];
    assert_eq!(
        RawClient::try_login(pooler.port, &parameters).map(|_| ()),
        Err("E(FATAL 3D000 database \"not_there\" does not exist)".to_owned())
    );
}

#[test]
fn a_server_that_is_not_there_makes_clients_wait_for_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .database("gone", "host=127.0.0.1 port=1")
            .set("server_login_retry", 1)
            .set("query_wait_timeout", 2),
    );
    let parameters = [("user", &*tenant.name), ("database", "gone")];
    let started = Instant::now();
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(
        matches!(&said, Err(text) if text.contains("FATAL 08P01 ")),
        "{said:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(pooler.log().contains("closing because: connect failed"));
    assert_eq!(tenant.client(&pooler).value("select 1"), "1");
}

#[test]
fn limits_on_clients_hold_and_are_given_back() {
    let Some(tenant) = Tenant::new() else { return };
    for (key, text) in [
        (
            "max_client_conn",
            "no more connections allowed (max_client_conn)",
        ),
        (
            "max_db_client_connections",
            "client connections exceeded (max_db_client_connections)",
        ),
        (
            "max_user_client_connections",
            "client connections exceeded (max_user_client_connections)",
        ),
    ] {
        let pooler = start(tenant.ini().set(key, 3));
        let parameters = [("user", &*tenant.name), ("database", &*tenant.name)];
        let login = || RawClient::try_login(pooler.port, &parameters);
        for _ in 0..3 {
            let kept: Vec<RawClient> = (0..3)
                .map(|_| eventually(Duration::from_secs(2), login, Result::is_ok).expect("let in"))
                .collect();
            for _ in 0..5 {
                assert_eq!(login().map(|_| ()), Err(format!("E(FATAL 08P01 {text})")));
            }
            assert_eq!(
                console(&pooler).value("show version"),
                "PgBouncer 1.25.2",
                "the administrator is let in"
            );
            drop(kept);
        }
    }
}

#[test]
fn logins_that_fail_do_not_use_up_the_limits() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let ini = ini_with_secret(&tenant, &Stored::Scram.secret(&tenant))
        .set("auth_type", "scram-sha-256")
        .set("max_client_conn", 4)
        .set("max_db_client_connections", 4)
        .set("max_user_client_connections", 4);
    let pooler = start(ini);
    for _ in 0..10 {
        wrong_login(&pooler, name, name);
        let mut vanishing = RawClient::connect(pooler.port);
        vanishing.start_login(&[("user", name), ("database", name)]);
        assert_eq!(vanishing.read().map(|asked| asked.tag), Ok(b'R'));
    }
    let login = || psql(&pooler, name, PASSWORD);
    assert!(eventually(Duration::from_secs(2), login, Result::is_ok).is_ok());
    let users = pooler.console("show users");
    let user = users.find("name", name).expect("a row");
    eventually(
        Duration::from_secs(2),
        || user.number("current_client_connections"),
        |count| *count == 0,
    );
}

#[test]
fn users_stay_known_while_their_file_is_away() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = ini_with_secret(&tenant, PASSWORD).set("auth_type", "md5");
    let pooler = start(ini);
    let file = pooler.socket_dir.join("userlist.txt");
    std::fs::remove_file(&file).expect("it is there");
    pooler.console("reload");
    let log = pooler.log();
    assert!(log.contains("ERROR could not open auth_file "), "{log}");
    assert!(log.contains(": No such file or directory\n"), "{log}");
    assert_eq!(psql(&pooler, &tenant.name, PASSWORD).as_deref(), Ok("1"));
}

#[test]
fn whoever_goes_away_during_the_login_is_not_worth_a_line() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = console(&pooler);
    let logins = |operator: &mut RawClient| {
        let lists = operator.table("show lists");
        lists
            .find("list", "login_clients")
            .map(|row| row.number("items"))
    };
    let mut client = RawClient::connect(pooler.port);
    client.send_bytes(&[0, 0, 0, 50, 0, 3, 0, 0, b'u']);
    let soon = Duration::from_secs(2);
    eventually(soon, || logins(&mut operator), |count| *count == Some(1));
    drop(client);
    eventually(soon, || logins(&mut operator), |count| *count == Some(0));
    let log = pooler.log();
    assert!(!log.contains("client unexpected eof"), "{log}");
}

#[test]
fn a_message_that_does_not_belong_into_a_login_ends_it() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = ini_with_secret(&tenant, PASSWORD).set("auth_type", "md5");
    let pooler = start(ini);
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert_eq!(client.read().map(|asked| asked.tag), Ok(b'R'));
    client.send(&Batch::new().query("select 1"));
    assert_eq!(client.until_closed(), "E(FATAL 08P01 bad packet)");
}

#[test]
fn first_packets_that_are_none_are_answered_and_closed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for (packet, answer) in [
        (
            &[0, 0, 0, 8, 0, 2, 0, 0][..],
            "E(FATAL 08P01 old V2 protocol not supported)",
        ),
        (
            &[0, 0, 0, 9, 0, 3, 0, 0, 0],
            "E(FATAL 08P01 no username supplied)",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "E(FATAL 08P01 bad packet header: '474554202f204854')",
        ),
    ] {
        let mut client = RawClient::connect(pooler.port);
        client.send_bytes(packet);
        let (said, _) = client.until_end();
        assert_eq!(said, answer);
    }
    let mut client = RawClient::connect(pooler.port);
    client.send_bytes(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(client.read_byte(), Ok(b'N'), "no TLS here");
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert_eq!(client.finish_login(), Ok(()));
}

#[test]
fn a_newer_protocol_is_negotiated_down() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut packet = vec![0, 3, 0, 2];
    for text in [
        "user",
        &tenant.name,
        "database",
        &tenant.name,
        "_pq_.x",
        "1",
    ] {
        packet.extend(text.as_bytes());
        packet.push(0);
    }
    packet.push(0);
    let length = packet.len() as u32 + 4;
    let mut client = RawClient::connect(pooler.port);
    client.send_bytes(&[&length.to_be_bytes()[..], &packet].concat());
    let negotiated = client.read().expect("an answer");
    assert_eq!(negotiated.tag, b'v');
    assert_eq!(negotiated.body[..8], [0, 3, 0, 0, 0, 0, 0, 1]);
    assert_eq!(client.finish_login(), Ok(()));
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
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

/// In which form the pooler knows a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Plain,
    Md5,
    Scram,
}

impl Stored {
    /// The secret of the tenant's user, whose password PostgreSQL then keeps in the same form.
    fn secret(self, tenant: &Tenant) -> String {
        let mut root = tenant.root();
        let encryption = match self {
            Self::Md5 => "md5",
            Self::Plain | Self::Scram => "scram-sha-256",
        };
        root.rows(&format!("set password_encryption = '{encryption}'"));
        root.rows(&format!("alter role {} password '{PASSWORD}'", tenant.name));
        match self {
            Self::Plain => PASSWORD.to_owned(),
            Self::Md5 | Self::Scram => root.value(&format!(
                "select rolpassword from pg_authid where rolname = '{}'",
                tenant.name
            )),
        }
    }
}

fn ini_with_secret(tenant: &Tenant, secret: &str) -> Ini {
    let line = format!("\"{}\" \"{secret}\"\n", tenant.name);
    tenant.ini().file("userlist.txt", &line)
}

/// Nobody but `postgres` is in the file; the others are looked up.
fn with_auth_query(tenant: &Tenant) -> Ini {
    tenant
        .ini()
        .file("userlist.txt", "\"postgres\" \"\"\n")
        .set("auth_type", "md5")
        .set("auth_user", "postgres")
}

fn psql(pooler: &Pooler, user: &str, password: &str) -> Result<String, String> {
    psql_in(pooler, user, user, password)
}

fn psql_in(pooler: &Pooler, database: &str, user: &str, password: &str) -> Result<String, String> {
    let conninfo = format!("dbname={database} password='{password}'");
    pooler
        .try_psql(&conninfo, user, "select 1")
        .map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(answer: &Result<String, String>, text: &str, case: &str) {
    match answer {
        Err(said) if said.contains(text) => {}
        other => panic!("{case}: expected {text:?}, got {other:?}"),
    }
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

#[test]
fn a_mounted_secret_that_is_replaced_is_read_again_by_itself() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let pooler = start(ini_with_secret(&tenant, "old").set("auth_type", "plain"));
    assert_eq!(psql(&pooler, name, "old").as_deref(), Ok("1"));

    // As Kubernetes does it: another folder, and a link that is renamed over the old one.
    let dir = pooler.ini_path().parent().expect("a folder");
    let (next, link) = (dir.join("next.txt"), dir.join("link"));
    fs::write(&next, format!("\"{name}\" \"new\"\n")).expect("written");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o644)).expect("readable");
    symlink(&next, &link).expect("a link");
    fs::rename(&link, dir.join("userlist.txt")).expect("renamed");
    let answer = eventually(
        Duration::from_secs(5),
        || psql(&pooler, name, "new"),
        |answer| answer.as_deref() == Ok("1"),
    );
    assert_eq!(answer.as_deref(), Ok("1"));
    assert_refused(
        &psql(&pooler, name, "old"),
        "password authentication failed",
        "the old one",
    );
}

#[test]
fn rules_wait_for_a_reload_when_users_are_read_again() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let with = |secret: &str, rules: &str| {
        ini_with_secret(&tenant, secret)
            .file("hba.conf", rules)
            .set("auth_type", "hba")
            .set("auth_hba_file", "{dir}/hba.conf")
    };
    let pooler = start(with("old", "host all all all password\n"));
    assert_eq!(psql(&pooler, name, "old").as_deref(), Ok("1"));

    // The rules are being worked on, and somebody gets a new password.
    let dir = pooler.ini_path().parent().expect("a folder");
    let rules = "host all all all reject\n";
    fs::write(dir.join("hba.conf"), rules).expect("written");
    let users = format!("\"{name}\" \"new\"\n");
    fs::write(dir.join("userlist.txt"), users).expect("written");
    let answer = eventually(
        Duration::from_secs(5),
        || psql(&pooler, name, "new"),
        |answer| answer.as_deref() == Ok("1"),
    );
    assert_eq!(answer.as_deref(), Ok("1"));

    pooler.reload(with("new", rules)).expect("RELOAD");
    assert_refused(&psql(&pooler, name, "new"), "login rejected", "");
}
