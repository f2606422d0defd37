//! The promise: what the runbook and its table of steps name, there is: commands, tables, orders, series, alerts and keys; and they
//! say what they should.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use pgweir_tests::{
    Batch, Http, Pooler, Program, Run, Tenant, console, eventually, finish_within, start,
};

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("a package of the project")
        .to_owned()
}

#[track_caller]
fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands between backticks in this column of tables, from 0.
fn quoted_in_column(page: &str, column: usize) -> BTreeSet<String> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split(" | ");
        cells.nth(column)
    });
    cells.flat_map(quoted).map(str::to_owned).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every word in backticks of the column *today*.
fn today() -> BTreeSet<String> {
    let today = quoted_in_column(&text("docs/runbook-coverage.md"), 1);
    assert!(today.len() > 60, "{today:?}");
    today
}

/// The commands of pgweir in a page: in blocks of code, and between backticks.
fn commands(page: &str) -> BTreeSet<&str> {
    let texts = page.split("```").enumerate();
    let code = texts.flat_map(|(number, text)| match number % 2 {
        0 => quoted(text).collect::<Vec<_>>(),
        _ => text.lines().collect(),
    });
    let calls = code.flat_map(|part| part.split(';')).filter_map(|part| {
        let part = part.trim_start_matches(['$', ' ']);
        let part = part.trim_start_matches("sudo -u postgres ");
        part.strip_prefix("pgweir ")?.split_whitespace().next()
    });
    calls.filter(|word| !word.starts_with('-')).collect()
}

#[test]
fn commands_exist_with_these_options() {
    let program = Program::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for line in program.run(&["help"]).stdout.lines() {
        let call = line.trim_start().strip_prefix("pgweir ");
        known.extend(
            call.and_then(|call| call.split_whitespace().next())
                .map(str::to_owned),
        );
    }
    for file in [
        "README.md",
        "docs/migrating-from-pgbouncer.md",
        "docs/runbook.md",
        "docs/runbook-coverage.md",
        "docs/settings-map.md",
        "docs/strict.md",
        "docs/tool.md",
    ] {
        let page = text(file);
        for command in commands(&page) {
            assert!(
                known.contains(command),
                "{file}: pgweir {command} of {known:?}"
            );
        }
    }
    for call in today().iter().filter_map(|one| one.strip_prefix("pgweir ")) {
        let mut words = call.split_whitespace();
        let command = words.next().expect(call);
        let mut topic = vec!["help", command];
        if command == "maintenance" && words.clone().next() == Some("on") {
            topic = vec!["maintenance", "on", "--help"];
        }
        let help = program.run(&topic).all();
        for option in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "pgweir {call}: {help}");
        }
    }
}

#[test]
fn tables_can_be_asked_for_and_orders_are_in_the_manual() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini());
    let mut operator = console(&pooler);
    let manual = text("docs/reference.md");
    for word in today() {
        if word.starts_with("SHOW ") {
            let answer = operator.query(&word);
            assert!(answer.starts_with('T'), "{word}: {answer}");
        } else if word.chars().all(|c| c.is_ascii_uppercase() || c == ' ') && word != "DB" {
            let row = format!("| `{word}");
            assert!(manual.contains(&row), "{word} is in the reference");
        }
    }
    for line in text("docs/runbook.md")
        .lines()
        .filter(|line| line.contains("pgbouncer -c"))
    {
        for order in line.split('"').skip(1).step_by(2) {
            let answer = operator.query(order);
            assert!(answer.starts_with('T'), "{order}: {answer}");
        }
    }
}

#[test]
fn series_alerts_and_keys_exist() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    tenant.client(&pooler).value("select 1");
    let metrics = Http::of(&pooler).metrics();
    let manual = text("docs/reference.md");
    let rules = ["recording", "alerts", "aliases"];
    let rules = rules.map(|name| text(&format!("deploy/prometheus/rules/{name}.yml")));
    let rules = rules.concat();
    let is_key = |word: &str| manual.contains(&format!("\n| `{word}` |"));
    let runbook = text("docs/runbook.md");
    let of_runbook = quoted(&runbook).filter(|word| {
        word.starts_with("Pgweir") || word.starts_with("pgweir_") && !word.contains(' ')
    });
    let mut words = today();
    words.extend(of_runbook.map(str::to_owned));
    for word in &words {
        let exists = if word.starts_with("Pgweir") {
            rules.contains(&format!("- alert: {word}\n"))
        } else if word.contains(':') && word.starts_with("pgweir:") {
            rules.contains(&format!("- record: {word}\n"))
        } else if ["pgweir_", "pgbouncer_", "process_"]
            .iter()
            .any(|one| word.starts_with(one))
        {
            metrics.types.contains_key(word)
        } else if word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            // PostgreSQL's own names stand there as well.
            word.starts_with("pg_") || word == "mean_exec_time" || is_key(word)
        } else {
            true
        };
        assert!(exists, "{word}");
    }
    for word in quoted_in_column(&text("docs/settings-map.md"), 1) {
        let is_name = word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(
            !is_name || word == "auto" || is_key(&word),
            "{word} is no key"
        );
    }
}

fn report(pooler: &Pooler) -> Run {
    let program = Program::new();
    let mut command = program.command();
    command.arg("report").arg("--config").arg(pooler.ini_path());
    finish_within(&mut command, Duration::from_secs(20))
}

#[test]
fn slow_statements_are_logged_and_counted_by_their_text() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("log_min_duration_statement", 200);
    let pooler = start(ini.set("default_pool_size", 1));
    let mut web = tenant.client_named(&pooler, "web");
    web.query("select pg_sleep(0.3), 'hunter2'");
    web.query("select pg_sleep(0.25), 'hunter3'");
    web.value("select 1");
    // Who waits for a server is not slow.
    let mut holder = tenant.client_named(&pooler, "holder");
    holder.query("begin");
    let mut waiter = tenant.client_named(&pooler, "waiter");
    waiter.send(&Batch::new().query("select 4711"));
    thread::sleep(Duration::from_millis(400));
    holder.query("commit");
    waiter.until_ready();
    let table = console(&pooler).table("show statements");
    assert_eq!(table.iter().count(), 1, "{table:?}");
    let row = table
        .find("application_name", "web")
        .expect("the application");
    assert_eq!(row.get("statement"), Some("select pg_sleep(?), ?"));
    assert_eq!(
        (row.number("count"), row.get("database")),
        (2, Some(&*tenant.name))
    );
    assert!(row.number("max_ms") >= 300 && row.number("total_ms") >= 550);
    let log = pooler.log();
    let line = log.lines().find(|line| line.contains("slow statement"));
    let line = line.expect("a line");
    assert!(line.contains("app=web server_pid="), "{line}");
    assert!(!log.contains("hunter") && !log.contains("4711"), "{log}");
    let run = report(&pooler);
    assert!(run.stdout.contains("slow: 2 times"), "{run:?}");
    console(&pooler).query("set log_min_duration_statement = '-1'");
    web.query("select pg_sleep(0.3)");
    assert_eq!(console(&pooler).table("show statements").iter().count(), 1);
}

#[test]
fn a_report_says_how_large_pools_had_to_be_and_who_does_not_wait() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("default_pool_size", 40));
    let mut clients: Vec<_> = (0..3)
        .map(|_| tenant.client_named(&pooler, "web"))
        .collect();
    for client in &mut clients {
        client.query("begin");
    }
    for client in &mut clients {
        client.query("commit");
    }
    let name = &tenant.name;
    let run = report(&pooler);
    let text =
        format!("pool_size of {name}/{name} was never needed: 3 servers of 40 at most; 7 would do");
    assert!(run.code == Some(1) && run.stdout.contains(&text), "{run:?}");

    let pooler = start(tenant.ini().set("default_pool_size", 1));
    let mut holder = tenant.client_named(&pooler, "holder");
    holder.query("begin");
    let mut impatient = tenant.client_named(&pooler, "impatient");
    impatient.send(&Batch::new().query("select 1"));
    thread::sleep(Duration::from_millis(1_200));
    drop(impatient);
    let text =
        "impatient does not wait for query_wait_timeout (120 s): 1 client left the queue after";
    let said = eventually(
        Duration::from_secs(5),
        || report(&pooler),
        |run| run.stdout.contains(text),
    );
    assert_eq!(said.code, Some(1));
    holder.query("commit");
}

#[test]
fn a_reload_says_what_has_changed() {
    let Some(tenant) = Tenant::new() else { return };
    let entry = |keys: &str| format!("host=127.0.0.1 port={} {keys}", tenant.postgres.port());
    let ini = tenant.ini().database("moved", &entry("dbname=a"));
    let ini = ini.database("tuned", &entry("pool_size=3 password=hunter2"));
    let pooler = start(ini.clone().set("query_timeout", 5));
    let before = pooler.log().matches("RELOAD: ").count();
    assert_eq!(before, 0);
    pooler
        .reload(ini.clone().set("query_timeout", 5))
        .expect("it reloads");
    assert_eq!(pooler.log().matches("RELOAD: ").count(), 0);
    let new = ini
        .database("moved", &entry("dbname=b"))
        .database("tuned", &entry("pool_size=4 password=hunter3"))
        .database("fresh", &entry(""))
        .user("bob", "pool_mode=session")
        .set("status_token", "hunter4")
        .set("query_timeout", 7);
    pooler.reload(new).expect("it reloads");
    let log = pooler.log();
    for line in [
        "RELOAD: query_timeout is \"7\", it was \"5\"",
        "RELOAD: status_token is \"****\", it was \"\"",
        "RELOAD: database moved means other servers",
        "RELOAD: database tuned has other limits or modes",
        "RELOAD: database fresh is new",
        "RELOAD: the entry of user bob has changed",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains("hunter"), "{log}");
}

#[test]
fn borrowing_and_giving_back_are_logged_on_request() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    client.value("select 1");
    assert!(!pooler.log().contains("borrows"));
    console(&pooler).query("set verbose = 2");
    client.value("select 1");
    // The client has its answer before its server is given back.
    let log = eventually(
        Duration::from_secs(5),
        || pooler.log(),
        |log| log.contains(" back\n"),
    );
    let line = |word: &str| log.lines().find(|line| line.contains(word));
    let borrows = line(" borrows S-").expect("a line");
    assert!(
        borrows.contains("C-") && borrows.contains(", after 0."),
        "{borrows}"
    );
    console(&pooler).query("set verbose = 0");
}

#[test]
fn errors_are_counted_by_application() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = Http::set(tenant.ini()).set("query_wait_timeout", 1);
    let pooler = start(ini.set("default_pool_size", 1));
    let mut holder = tenant.client_named(&pooler, "holder");
    holder.query("begin");
    let mut waiter = tenant.client_named(&pooler, "waiter");
    waiter.send(&Batch::new().query("select 1"));
    waiter.until_closed();
    let labels = [
        ("application_name", "waiter"),
        ("cause", "query_wait_timeout"),
    ];
    let count = Http::of(&pooler)
        .metrics()
        .value("pgweir_application_errors_total", &labels);
    assert_eq!(count, 1.0);
    holder.query("commit");
}
