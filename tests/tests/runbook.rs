//! The promise: what the runbook and its table of steps name, there is: commands, tables, orders, series, alerts and keys.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pgweir_tests::{Http, Program, Tenant, console, start};

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

/// The commands of pgweir in a page, blocks of code included.
fn commands(page: &str) -> BTreeSet<&str> {
    let lines = page.lines().flat_map(|line| line.split(['`', ';']));
    let calls = lines.filter_map(|part| {
        let part = part.trim_start_matches(['$', ' ']);
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
        "docs/runbook.md",
        "docs/runbook-coverage.md",
        "docs/settings-map.md",
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
