//! The promise: with `--from-env` pgweir runs from the environment variables of PgBouncer's images.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use pgweir_tests::{Program, RawClient, Running, Tenant, eventually, finish, free_port};

const FILE: &str = "pgbouncer.ini";
const SOON: Duration = Duration::from_secs(10);

/// The program with these variables and its own folder for sockets.
fn command(program: &Program, variables: &[(&str, &str)]) -> std::process::Command {
    let mut command = program.command();
    command
        .args(["--from-env", FILE])
        .env("UNIX_SOCKET_DIR", program.dir.path())
        .envs(variables.iter().copied());
    command
}

#[test]
fn it_runs_from_the_environment_and_keeps_what_it_wrote() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::new();
    let (port, postgres) = (free_port(), tenant.postgres.port().to_string());
    let port_text = port.to_string();
    let variables = [
        ("DB_HOST", "127.0.0.1"),
        ("DB_PORT", postgres.as_str()),
        ("DB_USER", tenant.name.as_str()),
        ("DB_PASSWORD", "of no use"),
        ("AUTH_TYPE", "trust"),
        ("LISTEN_ADDR", "127.0.0.1"),
        ("LISTEN_PORT", &port_text),
        ("POOL_MODE", "transaction"),
        ("PGBOUNCER_MAX_CLIENT_CONN", "77"),
    ];
    let running = Running::start(&mut command(&program, &variables));
    let login = [("user", tenant.name.as_str()), ("database", &tenant.name)];
    let client = || RawClient::try_connect(port).is_ok();
    eventually(SOON, client, |is_there| *is_there);
    let mut client = RawClient::login_with(port, &login);
    assert_eq!(client.value("select 1"), "1");
    let ini = fs::read_to_string(program.path(FILE)).expect("it was written");
    assert!(ini.contains("max_client_conn = 77\n"), "{ini}");
    for file in [FILE, "userlist.txt"] {
        let mode = fs::metadata(program.path(file))
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop((client, running));

    // Once written, it is the file that counts.
    let other = [("DB_HOST", "nowhere.invalid"), ("POOL_MODE", "nonsense")];
    let running = Running::start(&mut command(&program, &other));
    eventually(
        SOON,
        || RawClient::try_connect(port).is_ok(),
        |is_there| *is_there,
    );
    assert_eq!(RawClient::login_with(port, &login).value("select 2"), "2");
    assert_eq!(fs::read_to_string(program.path(FILE)).ok(), Some(ini));
    drop(running);
}

#[test]
fn without_a_host_it_says_which_variables_name_one() {
    let program = Program::new();
    let run = finish(&mut command(&program, &[]));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.all().contains("DATABASE_URL, DB_HOST"), "{run:?}");
    assert!(!program.path(FILE).exists());
}
