//! What the log tells of logins.

use super::*;

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
