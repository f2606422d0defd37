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

mod files;
mod log;
mod packets;
mod query;
mod rules;
mod to_server;

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

/// Nobody but `postgres` is in the file; the others are looked up.
fn with_auth_query(tenant: &Tenant) -> Ini {
    tenant
        .ini()
        .file("userlist.txt", "\"postgres\" \"\"\n")
        .set("auth_type", "md5")
        .set("auth_user", "postgres")
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
