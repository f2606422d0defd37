//! The promise: what is shipped for operators asks for series, labels and pages that a running pooler has, and its
//! configurations can be used.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use pgweir_tests::{
    Batch, Http, Pooler, Program, RawClient, Tenant, eventually,
    http::Metrics,
    promql::{Asked, Selector, scan},
    self_signed_tls, start,
};

const RULES: [&str; 3] = [
    "deploy/prometheus/rules/recording.yml",
    "deploy/prometheus/rules/alerts.yml",
    "deploy/prometheus/rules/aliases.yml",
];
const DASHBOARD: &str = "deploy/grafana/pgweir.json";

/// Labels that Prometheus adds, or that only its buckets have.
const ADDED: [&str; 5] = ["environment", "instance", "job", "le", "namespace"];

/// What Prometheus makes itself.
const SYNTHETIC: [&str; 1] = ["up"];

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

/// The expressions of a file of rules, in one line or in the deeper lines that follow.
fn expressions_of_rules(text: &str) -> Vec<String> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut found: Vec<String> = Vec::new();
    let mut block = None;
    for line in text.lines() {
        match block {
            Some(limit) if line.trim().is_empty() || depth(line) > limit => {
                let last = found.last_mut().expect("the block has begun");
                last.extend([line, "\n"]);
                continue;
            }
            Some(_) | None => block = None,
        }
        match line.trim_start().strip_prefix("expr:").map(str::trim) {
            Some("|") => {
                block = Some(depth(line));
                found.push(String::new());
            }
            Some(expression) => found.push(expression.to_owned()),
            None => {}
        }
    }
    found
}

/// The values of a key with a text, wherever it stands in JSON.
fn values_of_key(json: &str, key: &str) -> Vec<String> {
    let begin = format!("\"{key}\": \"");
    let values = json.lines().filter_map(|line| {
        let (_, value) = line.trim_start().split_once(&begin)?;
        let value = value.trim_end_matches([',', '"']);
        Some(value.replace("\\\"", "\"").replace("\\\\", "\\"))
    });
    values.collect()
}

/// Everything that the rules and the dashboard ask for, with the file that does.
fn asked() -> Vec<(&'static str, Asked)> {
    let mut all = Vec::new();
    for file in RULES {
        let expressions = expressions_of_rules(&text(file));
        assert!(!expressions.is_empty(), "{file} has expressions");
        all.extend(expressions.iter().map(|one| (file, scan(one))));
    }
    let dashboard = text(DASHBOARD);
    let expressions = values_of_key(&dashboard, "expr");
    assert!(expressions.len() > 30, "{}", expressions.len());
    for expression in &expressions {
        // ALERTS is Prometheus' own.
        if !expression.starts_with("ALERTS{") {
            all.push((DASHBOARD, scan(expression)));
        }
    }
    for variable in values_of_key(&dashboard, "definition") {
        let inside = variable.strip_prefix("label_values(").expect("a variable");
        let (name, label) = inside.trim_end_matches(')').split_once(", ").expect(inside);
        let mut asked = scan(name);
        asked.groupings.push(label.to_owned());
        all.push((DASHBOARD, asked));
    }
    all
}

/// What the rules record.
fn recorded() -> BTreeSet<String> {
    let files = RULES.iter().map(|file| text(file)).collect::<String>();
    let records = files
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- record: "));
    records.map(str::to_owned).collect()
}

/// A pooler to which all kinds of things have happened.
struct Scene {
    _pooler: Pooler,
    metrics: Metrics,
    _clients: Vec<RawClient>,
}

impl Scene {
    fn new() -> Option<Self> {
        let tenant = Tenant::new()?;
        let tls = self_signed_tls();
        let ini = Http::set(tenant.ini())
            .set("default_pool_size", 1)
            .set("query_wait_timeout", 1)
            .set("client_tls_sslmode", "allow")
            .set("client_tls_cert_file", "{dir}/weir.crt")
            .set("client_tls_key_file", "{dir}/weir.key")
            .file("weir.crt", &tls.cert)
            .file("weir.key", &tls.key);
        let pooler = start(ini);
        let http = Http::of(&pooler);
        let mut holder = tenant.client(&pooler);
        holder.query("select 1/0");
        holder.query("begin");
        let mut waiter = tenant.client(&pooler);
        waiter.send(&Batch::new().query("select 1"));
        assert!(waiter.until_closed().contains("query_wait_timeout"));
        let nowhere = [("user", "postgres"), ("database", "nowhere")];
        assert!(RawClient::try_login(pooler.port, &nowhere).is_err());
        pgweir_tests::console(&pooler).query("reconnect");
        holder.query("rollback");
        holder.query("select 1");
        let complete = |metrics: &Metrics| {
            metrics.sum("pgweir_server_closes_total", &[]) > 0.0
                && metrics.sum("pgweir_pg_max_connections", &[]) > 0.0
        };
        let metrics = eventually(Duration::from_secs(10), || http.metrics(), complete);
        Some(Self {
            _pooler: pooler,
            metrics,
            _clients: vec![holder],
        })
    }
}

#[test]
fn every_series_label_and_value_that_is_asked_for_is_there() {
    let Some(scene) = Scene::new() else { return };
    let recorded = recorded();
    let all_labels: BTreeSet<&str> = {
        let samples = scene.metrics.samples.iter();
        let labels = samples.flat_map(|sample| sample.labels.keys());
        labels.map(String::as_str).chain(ADDED).collect()
    };
    let mut wrong = BTreeSet::new();
    for (file, asked) in asked() {
        for selector in &asked.selectors {
            let is_made = recorded.contains(&selector.name);
            if !is_made && !SYNTHETIC.contains(&selector.name.as_str()) {
                wrong.extend(missing(&scene.metrics, selector).map(|what| (file, what)));
            }
        }
        let unknown = asked.groupings.into_iter();
        let unknown = unknown.filter(|label| !all_labels.contains(label.as_str()));
        wrong.extend(unknown.map(|label| (file, format!("the label {label}"))));
    }
    assert!(wrong.is_empty(), "not there: {wrong:#?}");
}

/// What a page has not of what a selector asks for.
fn missing<'a>(metrics: &'a Metrics, selector: &'a Selector) -> impl Iterator<Item = String> + 'a {
    let name = &selector.name;
    let nothing = metrics.all(name, &[]).next().is_none();
    let series = nothing.then(|| name.clone());
    let matchers = selector
        .matchers
        .iter()
        .filter(|(label, ..)| !ADDED.contains(&label.as_str()));
    let labels = matchers.clone().filter(move |(label, ..)| {
        let has = metrics
            .all(name, &[])
            .any(|sample| sample.labels.contains_key(label));
        !nothing && !has
    });
    let labels = labels.map(move |(label, ..)| format!("{name}{{{label}}}"));
    // States and their like are a fixed list; other values depend on what has happened.
    let fixed =
        matchers.filter(|(label, ..)| matches!(label.as_str(), "limit" | "stage" | "state"));
    let values = fixed.flat_map(|(label, _, values)| {
        let values = values
            .split('|')
            .filter(|value| !value.contains(['$', '.', '*']));
        values.map(move |value| (label, value))
    });
    let values = values.filter(move |(label, value)| {
        let one = [(label.as_str(), *value)];
        !nothing && metrics.all(name, &one).next().is_none()
    });
    let values = values.map(move |(label, value)| format!("{name}{{{label}={value}}}"));
    series.into_iter().chain(labels).chain(values)
}

#[test]
fn what_clients_were_refused_with_counts_as_an_error_of_the_service() {
    let Some(scene) = Scene::new() else { return };
    let causes = scene.metrics.all("pgweir_client_errors_total", &[]);
    let causes: BTreeSet<_> = causes
        .map(|sample| sample.labels["cause"].as_str())
        .collect();
    // recording.yml goes by the beginnings of these words.
    assert!(causes.contains("query_wait_timeout"), "{causes:?}");
    assert!(
        causes.iter().any(|cause| cause.starts_with("server_")),
        "{causes:?}"
    );
}

#[test]
fn the_dashboard_begins_with_the_four_that_runbooks_look_at() {
    let json = text(DASHBOARD);
    let titles = values_of_key(&json, "title");
    // The dashboard's own, the first row's, and what is in it.
    let first: Vec<&str> = titles.iter().map(String::as_str).skip(2).take(4).collect();
    let expected = [
        "Connections Active",
        "Pool Usage",
        "Query Duration",
        "Error Rate",
    ];
    assert_eq!(first, expected, "{titles:?}");
}

#[test]
fn every_alert_leads_to_a_part_of_the_runbook() {
    let runbook = text("docs/runbook.md");
    let anchors: BTreeSet<String> = runbook.lines().filter_map(anchor).collect();
    let alerts = text(RULES[1]);
    let links = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook: "));
    let links: Vec<&str> = links.collect();
    let count = alerts
        .lines()
        .filter(|line| line.trim().starts_with("- alert: "))
        .count();
    assert_eq!(links.len(), count, "each has one");
    for link in links {
        let anchor = link.strip_prefix("docs/runbook.md#").expect(link);
        assert!(anchors.contains(anchor), "{link}: {anchors:?}");
    }
}

/// The anchor that a heading gets.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix("##")?.trim_start_matches('#').trim();
    let kept = heading.to_lowercase().replace(' ', "-");
    Some(
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            .collect(),
    )
}

/// The number that stands behind these words of a file.
#[track_caller]
fn number(file: &str, words: &str) -> u64 {
    let text = text(file);
    let (_, rest) = text
        .split_once(words)
        .unwrap_or_else(|| panic!("{file}: {words}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{file}: {words}"))
}

#[test]
fn there_are_no_more_pods_than_the_fleet_counts_with() {
    let base = |name: &str| format!("deploy/kubernetes/base/{name}");
    let (deployment, pods) = (base("deployment.yaml"), base("hpa.yaml"));
    let cut = number(
        "crates/pgweir/src/operators/drain.rs",
        "CUT_PATIENCE: Duration = Duration::from_secs(",
    );
    let until_forgotten = number(&deployment, "\"sleep ");
    let ending = number(&base("pdb.yaml"), "maxUnavailable: ");
    for config in ["base", "example"] {
        let config = format!("deploy/kubernetes/{config}/pgweir.toml");
        let drain = number(&config, "shutdown_drain_timeout = \"");
        let end = until_forgotten + drain + 2 * cut;
        assert!(number(&deployment, "minReadySeconds: ") >= end, "{end} s");
        assert!(number(&deployment, "terminationGracePeriodSeconds: ") >= end);
        let most = number(&pods, "maxReplicas: ") + number(&deployment, "maxSurge: ") + ending;
        assert!(number(&config, "fleet = ") >= most, "{config}: {most}");
    }
}

#[test]
fn configurations_can_be_used() {
    let program = Program::new();
    let tls = self_signed_tls();
    let users = text("deploy/kubernetes/example/secrets/userlist.txt");
    for (name, content) in [
        ("userlist.txt", users.as_str()),
        ("tls.crt", &tls.cert),
        ("ca.crt", &tls.cert),
        ("tls.key", &tls.key),
    ] {
        program.write(name, content);
    }
    let here = format!("{}/", program.dir.path().display());
    for file in [
        "deploy/kubernetes/base/pgweir.toml",
        "deploy/kubernetes/example/pgweir.toml",
        "deploy/compose/pgbouncer.ini",
        "deploy/debian/pgweir.toml",
    ] {
        let mut config = text(file);
        for folder in [
            "/etc/pgweir/auth/",
            "/etc/pgweir/tls/",
            "/etc/pgweir/",
            "/etc/pgbouncer/",
        ] {
            config = config.replace(folder, &here);
        }
        program.write("config", &config);
        let run = program.run(&["check", "./config"]);
        assert_eq!(run.code, Some(0), "{file}: {run:?}");
        assert!(!run.all().contains("warning"), "{file}: {}", run.all());
    }
}
