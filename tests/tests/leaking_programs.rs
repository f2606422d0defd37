//! The promise: the bugs that runbooks tell people to look for are named, in whatever language they were written:
//! application, address and last statement, within `leak_after` and two seconds. The programs are in `tests/leaks`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pgweir_tests::{Ini, Pooler, Tenant, console, eventually, start};
use tokio_postgres::NoTls;

const LEAK_AFTER: u64 = 3;

const NAMED_WITHIN: Duration = Duration::from_secs(LEAK_AFTER + 2);

/// They leave a transaction open.
const TRANSACTION_BUGS: [&str; 3] = ["missing_await", "panic", "slow_call"];

/// It matters where a server belongs to a session.
const SESSION_BUG: &str = "forgotten_release";

fn pooler(tenant: &Tenant, change: impl FnOnce(Ini) -> Ini) -> Pooler {
    tenant
        .direct()
        .rows("create table if not exists orders (id int, card text)");
    let ini = tenant
        .ini()
        .set("default_pool_size", 5)
        .set("startup_parameters", "apply")
        .set("leak_after", LEAK_AFTER);
    start(change(ini))
}

fn session_pooler(tenant: &Tenant) -> Pooler {
    pooler(tenant, |ini| {
        ini.set("pool_mode", "session").set("default_pool_size", 1)
    })
}

/// A program with a bug, ended when the test is.
struct Program {
    child: Child,
    application: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(mut command: Command, language: &str, bug: &str, tenant: &Tenant, port: u16) -> Self {
        let application = format!("{language} {bug}");
        let child = command
            .arg(bug)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", &tenant.name)
            .env("PGDATABASE", &tenant.name)
            .env("PGSSLMODE", "disable")
            .env("PGAPPNAME", &application)
            .stdout(Stdio::piped())
            .spawn()
            .expect("its runtime was found");
        Self { child, application }
    }

    /// Waits until it has asked for the last thing.
    fn until_silent(&mut self) {
        let output = self.child.stdout.as_mut().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .expect("text is written");
        assert_eq!(line.trim(), "silent", "{} has failed", self.application);
    }
}

/// The application is named in time, with where it is and what it asked for last.
#[track_caller]
fn assert_named(pooler: &Pooler, application: &str, last: &str) {
    let mut console = console(pooler);
    let leaks = eventually(
        NAMED_WITHIN,
        || console.table("show leaks"),
        |leaks| leaks.find("application_name", application).is_some(),
    );
    let leak = leaks
        .find("application_name", application)
        .expect("it was found");
    let address = leak.get("addr").unwrap_or_default();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let statement = leak.get("last_statement").unwrap_or_default();
    assert!(statement.starts_with(last), "{application}: {statement}");
    assert!(!statement.contains("secret"), "{statement}");
    let log = pooler.log();
    assert!(log.contains(&format!("app={application} ")), "{log}");
}

/// All bugs of one language.
fn finds_all(language: &str, command: impl Fn() -> Command) {
    let Some(tenant) = Tenant::new() else { return };
    let transactions = pooler(&tenant, |ini| ini);
    let sessions = session_pooler(&tenant);
    let run = |bug, pooler: &Pooler| Program::start(command(), language, bug, &tenant, pooler.port);
    for bug in TRANSACTION_BUGS {
        let mut program = run(bug, &transactions);
        program.until_silent();
        let last = match (language, bug) {
            ("node", "missing_await") => "select * from orders",
            _ => "insert into orders values (?, ?)",
        };
        assert_named(&transactions, &program.application, last);
    }
    let mut program = run(SESSION_BUG, &sessions);
    program.until_silent();
    assert_named(
        &sessions,
        &program.application,
        "select count(*) from orders",
    );
}

/// What `tests/drivers/run` has installed.
fn installed(path: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    target.unwrap_or(beside).join("drivers").join(path)
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("leaks")
        .join(name)
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Says that a test cannot be run; that is a failure where it must be.
fn skip(language: &str, missing: &str) {
    let required = std::env::var_os("PGWEIR_REQUIRE_RUNTIMES").is_some();
    assert!(!required, "{language}: {missing}");
    pgweir_tests::skip(&format!(
        "the leaks in {language} are not tested: {missing}"
    ));
}

#[test]
fn python() {
    let venv = installed("venv/bin/python");
    let python = if venv.exists() {
        venv
    } else {
        "python3".into()
    };
    if !works(Command::new(&python).args(["-c", "import psycopg"])) {
        return skip(
            "Python",
            "no psycopg; tests/drivers/run psycopg installs it",
        );
    }
    finds_all("python", || {
        let mut command = Command::new(&python);
        command.arg(program("leaks.py"));
        command
    });
}

#[test]
fn javascript() {
    let node = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", installed("node/node_modules"));
        command
    };
    if !works(node().args(["-e", "require('pg')"])) {
        return skip(
            "JavaScript",
            "no pg; tests/drivers/run node_postgres installs it",
        );
    }
    finds_all("node", || {
        let mut command = node();
        command.arg(program("leaks.cjs"));
        command
    });
}

#[test]
fn java() {
    let jars = std::env::var_os("DRIVERS_JARS").unwrap_or_else(|| "/usr/share/java".into());
    let jar = Path::new(&jars).join("postgresql.jar");
    if !jar.exists() || !works(Command::new("javac").arg("-version")) {
        return skip(
            "Java",
            "no JDK, or no postgresql.jar in DRIVERS_JARS or /usr/share/java",
        );
    }
    finds_all("java", || {
        let mut command = Command::new("java");
        command.arg("-cp").arg(&jar).arg(program("Leaks.java"));
        command
    });
}

/// A connection with what drives it; both end with the runtime.
async fn connect(tenant: &Tenant, port: u16, application: &str) -> tokio_postgres::Client {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(&tenant.name)
        .dbname(&tenant.name)
        .application_name(application);
    let (client, connection) = config.connect(NoTls).await.expect("the pooler is there");
    tokio::spawn(connection);
    client
}

const BEGIN_AND_INSERT: [&str; 2] = ["begin", "insert into orders values (1, 'a secret')"];

#[test]
fn rust() {
    let Some(tenant) = Tenant::new() else { return };
    let transactions = pooler(&tenant, |ini| ini);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begun = |bug: &str| {
        let application = format!("rust {bug}");
        let client = runtime.block_on(async {
            let client = connect(&tenant, transactions.port, &application).await;
            for statement in BEGIN_AND_INSERT {
                client.batch_execute(statement).await.expect("it works");
            }
            client
        });
        (client, application)
    };
    let insert = "insert into orders values (?, ?)";

    let (client, application) = begun("missing_await");
    // Nothing happens unless a future is awaited; the compiler warns where the result is not even named.
    let _never_run = client.batch_execute("commit");
    assert_named(&transactions, &application, insert);

    let (client, application) = begun("panic");
    let kept = std::sync::Arc::new(client);
    let held = std::sync::Arc::clone(&kept);
    let handler = runtime.spawn(async move {
        let _client = held;
        panic!("the rest of the order is missing");
    });
    assert!(runtime.block_on(handler).is_err(), "it has panicked");
    assert_named(&transactions, &application, insert);

    let (client, application) = begun("slow_call");
    let call = thread::spawn(move || {
        thread::sleep(NAMED_WITHIN);
        drop(client);
    });
    assert_named(&transactions, &application, insert);
    call.join().expect("it only sleeps");

    let sessions = session_pooler(&tenant);
    let application = format!("rust {SESSION_BUG}");
    let kept = runtime.block_on(connect(&tenant, sessions.port, &application));
    let select = kept.batch_execute("select count(*) from orders");
    runtime.block_on(select).expect("it works");
    let waiter = runtime.block_on(connect(&tenant, sessions.port, &application));
    let waiting = runtime.spawn(async move { waiter.batch_execute("select 'waits'").await });
    assert_named(&sessions, &application, "select count(*) from orders");
    drop(kept);
    let served = runtime.block_on(waiting).expect("it did not panic");
    served.expect("the server is free again");
}
