//! Logins to PostgreSQL with what clients have proven.

use super::*;

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
