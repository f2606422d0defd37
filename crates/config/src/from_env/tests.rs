use std::collections::BTreeMap;
use std::path::Path;

use super::{FromEnv, FromEnvError, from_env};
use crate::{AuthType, Config, Phase, PoolMode};

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn made(pairs: &[(&str, &str)]) -> FromEnv {
    from_env(&variables(pairs), "/run/users").expect("a configuration")
}

/// What the program understands of it.
fn read(made: &FromEnv) -> Config {
    let mut config = Config::new("pgbouncer.ini");
    let mut files = |path: &Path| match path.ends_with("pgbouncer.ini") {
        true => Ok(made.ini.clone()),
        false => Err(std::io::ErrorKind::NotFound.into()),
    };
    let loaded = config.load(Phase::Start, &mut files);
    assert!(loaded.is_ok(), "{loaded:?}: {}", made.ini);
    config
}

#[test]
fn one_url_is_enough() {
    let made = made(&[(
        "DATABASE_URL",
        "postgres://app:s3%40cret@db.example.com:6543/shop?sslmode=require",
    )]);
    let config = read(&made);
    let shop = config.database("shop").expect("it is configured");
    assert_eq!((shop.port(), shop.dbname()), (6543, "shop"));
    assert!(
        made.ini
            .contains("shop = host=db.example.com port=6543 auth_user=app\n")
    );
    assert_eq!(made.userlist, "\"app\" \"s3@cret\"\n");
    assert_eq!(config.global.listen_port, 5432);
    assert_eq!(config.global.auth_type, AuthType::Md5);
    assert!(made.ini.contains("auth_file = /run/users\n"));
    assert!(made.unknown.is_empty());
}

#[test]
fn several_urls_each_have_their_own_port() {
    let urls = "postgres://a:1@db1:6000/base,postgresql://b:2@[::1]/paid";
    let made = made(&[("DATABASE_URLS", urls)]);
    assert!(
        made.ini.contains("base = host=db1 port=6000 auth_user=a\n"),
        "{}",
        made.ini
    );
    assert!(
        made.ini.contains("paid = host=::1 port=5432 auth_user=b\n"),
        "{}",
        made.ini
    );
    assert_eq!(made.userlist, "\"a\" \"1\"\n\"b\" \"2\"\n");
    read(&made);
}

#[test]
fn a_name_with_other_characters_is_quoted() {
    let config = read(&made(&[("DB_HOST", "db"), ("DB_NAME", "my shop = x")]));
    assert!(config.database("my shop = x").is_some());
}

#[test]
fn keys_are_capitals_with_and_without_a_prefix() {
    let made = made(&[
        ("DB_HOST", "db"),
        ("DB_USER", "app"),
        ("DB_PASSWORD", "say \"x\""),
        ("POOL_MODE", "transaction"),
        ("MAX_CLIENT_CONN", "2000"),
        ("PGBOUNCER_DEFAULT_POOL_SIZE", "7"),
        ("DEFAULT_POOL_SIZE", "8"),
        ("ADMIN_USERS", "ops"),
        ("PGBOUNCER_METRICS_LISTEN", "*:9127"),
        // A shell's, not ours.
        ("USER", "root"),
        ("HOME", "/root"),
    ]);
    let global = read(&made).global;
    assert_eq!(global.pool_mode, PoolMode::Transaction);
    assert_eq!(
        (global.max_client_conn, global.default_pool_size),
        (2000, 7)
    );
    assert_eq!(global.user, None);
    assert!(made.ini.contains("* = host=db port=5432 auth_user=app\n"));
    assert!(made.ini.contains("admin_users = ops\n"));
    assert_eq!(made.userlist, "\"app\" \"say \"\"x\"\"\"\n");
}

#[test]
fn bitnamis_names_and_defaults() {
    let made = made(&[
        ("POSTGRESQL_HOST", "pg"),
        ("POSTGRESQL_PASSWORD", "secret"),
        ("POSTGRESQL_DATABASE", "shop"),
        ("PGBOUNCER_DATABASE", "front"),
        ("PGBOUNCER_SET_DATABASE_USER", "yes"),
        ("PGBOUNCER_BIND_ADDRESS", "0.0.0.0"),
        ("PGBOUNCER_PORT", "7000"),
        ("PGBOUNCER_INIT_SLEEP_TIME", "1"),
        ("PGBOUNCER_POOL_MOOD", "good"),
    ]);
    let global = read(&made).global;
    assert_eq!((global.listen_port, global.max_client_conn), (7000, 120));
    let line = "front = host=pg port=5432 dbname=shop user=postgres password=secret\n";
    assert!(made.ini.contains(line), "{}", made.ini);
    assert_eq!(made.unknown, ["PGBOUNCER_POOL_MOOD"]);
}

#[test]
fn names_of_the_sections_as_prefixes() {
    let made = made(&[
        ("DATABASES_HOST", "postgres"),
        ("DATABASES_USER", "app"),
        ("DATABASES_PASSWORD", "it's"),
        ("DATABASES_DBNAME", "vital"),
        ("DEFAULT_POOL_SIZE", "25"),
    ]);
    let config = read(&made);
    assert_eq!(config.global.default_pool_size, 25);
    let line = "vital = host=postgres port=5432 user=app password='it''s'\n";
    assert!(made.ini.contains(line), "{}", made.ini);
}

#[test]
fn what_kubernetes_sets_for_a_service_of_that_name_is_passed_over() {
    let made = made(&[
        ("DB_HOST", "db"),
        ("PGBOUNCER_PORT", "tcp://10.0.0.7:6432"),
        ("PGBOUNCER_PORT_6432_TCP_ADDR", "10.0.0.7"),
        ("PGBOUNCER_SERVICE_HOST", "10.0.0.7"),
    ]);
    assert_eq!(read(&made).global.listen_port, 5432);
    assert!(made.unknown.is_empty(), "{:?}", made.unknown);
}

#[test]
fn what_cannot_be_meant_is_an_error_that_shows_no_password() {
    let error = |pairs: &[(&str, &str)]| from_env(&variables(pairs), "u").expect_err("wrong");
    assert_eq!(error(&[]), FromEnvError::NoHost);
    for url in [
        "mysql://a:secret@h/d",
        "postgres://a:secret@/d",
        "postgres://a:%zz@h/d",
    ] {
        let error = error(&[("DATABASE_URL", url)]).to_string();
        assert!(
            error.contains("DATABASE_URL") && !error.contains("secret"),
            "{error}"
        );
    }
    let lines = error(&[
        ("DB_HOST", "db"),
        ("POOL_MODE", "session\nadmin_users = app"),
    ]);
    assert_eq!(lines, FromEnvError::LineBreak("POOL_MODE".to_owned()));
    let hidden = error(&[("DATABASE_URL", "postgres://a:b@h/d%0aevil")]);
    assert_eq!(hidden, FromEnvError::Url("DATABASE_URL".to_owned()));
    let quote = error(&[("DB_HOST", "db"), ("DB_NAME", "it's")]);
    assert_eq!(quote, FromEnvError::Name("it's".to_owned()));
}
