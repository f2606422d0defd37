//! The promise of a strict run: what would go wrong behind a pooler sooner or later is an error at once, with the
//! statement, and is in the report however the process ends; what is fine goes through unnoticed.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Http, Ini, Pooler, RawClient, Signal, Table, Tenant, console, eventually, story,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

/// Seconds of silence in a transaction.
const LEAK_AFTER: u64 = 1;

/// Seconds that a transaction may last.
const HOLD: u64 = 2;

/// A strict run with its report.
struct Strict {
    tenant: Tenant,
    pooler: Pooler,
    report: PathBuf,
}

impl Strict {
    fn new(change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        Self::with_report("report.json", change)
    }

    fn with_report(file: &str, change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        let ini = tenant
            .ini()
            .set("default_pool_size", 3)
            .set("strict", 1)
            .set("strict_report", format!("{{dir}}/{file}"));
        let pooler = pgweir_tests::start(change(ini));
        let report = pooler.socket_dir.join(file);
        Some(Self {
            tenant,
            pooler,
            report,
        })
    }

    fn client(&self) -> RawClient {
        self.named("tests")
    }

    fn named(&self, application: &str) -> RawClient {
        self.tenant.client_named(&self.pooler, application)
    }

    fn findings(&self) -> Table {
        console(&self.pooler).table("show findings")
    }

    /// The report as it is now.
    fn read(&self) -> Value {
        let text = fs::read_to_string(&self.report).expect("there is a report");
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// Waits until the report has something of a kind.
    #[track_caller]
    fn reported(&self, kind: &str) -> Value {
        let of_kind = |report: &Value| {
            let all = report["findings"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|finding| finding["kind"] == kind)
        };
        let report = eventually(SOON, || self.read(), |report| of_kind(report).is_some());
        of_kind(&report).expect("it was there")
    }

    /// Ends the run; its exit code.
    fn end(&mut self) -> Option<i32> {
        self.pooler.signal(Signal::INT);
        self.pooler
            .wait_for_exit(SOON)
            .and_then(|status| status.code())
    }
}

/// What a strict run says to a client in place of an answer.
fn error(kind: &str, what: &str) -> String {
    let code = match kind {
        "leak" | "hold" => "25P03",
        _ => "0A000",
    };
    format!("E({code} strict: {what} ({kind}))")
}

/// Kinds of state with a statement that leaves it, and what is said of it.
const STATE: [(&str, &str, &str); 7] = [
    (
        "settings",
        "set work_mem = '1MB'",
        "parameters are set for the session",
    ),
    ("role", "set role helper", "a role is set for the session"),
    (
        "locks",
        "select pg_advisory_lock(7)",
        "an advisory lock outlives its transaction",
    ),
    (
        "temporary",
        "create temp table mine (x int)",
        "a temporary object outlives its transaction",
    ),
    ("listen", "listen news", "LISTEN needs a session"),
    (
        "prepare",
        "prepare p as select 1",
        "PREPARE needs a session",
    ),
    (
        "cursors",
        "declare c cursor with hold for select 1",
        "a cursor outlives its transaction",
    ),
];

/// The same, where a cursor can only be declared in a transaction.
fn alone() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    STATE.into_iter().filter(|(kind, ..)| *kind != "cursors")
}

fn helper(strict: &Strict, sql: &str) -> String {
    let helper = format!("helper_{}", strict.tenant.name);
    sql.replace("helper", &helper)
}

fn with_helper(change: impl FnOnce(Ini) -> Ini) -> Option<Strict> {
    let strict = Strict::new(change)?;
    let mut root = strict.tenant.root();
    root.rows(&helper(&strict, "create role helper"));
    root.rows(&format!(
        "grant {} to {}",
        helper(&strict, "helper"),
        strict.tenant.name
    ));
    Some(strict)
}

#[test]
fn a_statement_that_leaves_state_is_an_error_in_its_place() {
    let Some(strict) = with_helper(|ini| ini) else {
        return;
    };
    for (kind, sql, what) in alone() {
        let sql = helper(&strict, sql);
        let expected = error(kind, what);
        let mut client = strict.client();
        client.send(&Batch::new().query(&sql));
        let said = client.until_ready();
        assert_eq!(story(&said), format!("{expected} Z(I)"), "{kind}");
        let (detail, hint) = said[0].explanation();
        let print = sql
            .replace("'1MB'", "?")
            .replace("(7)", "(?)")
            .replace("select 1", "select ?");
        assert!(detail.contains(&print), "{kind}: {detail}");
        assert!(hint.contains(&format!("docs/strict.md#{kind}")), "{hint}");

        let extended = Batch::new().run("select 1").sync().run(&sql).sync();
        client.send(&extended);
        let said = [client.until_ready(), client.until_ready()].concat();
        // The first batch might have begun a transaction, so it is only known behind the second.
        let next = client.query("select 2");
        let all = format!("{} {next}", story(&said));
        assert!(all.contains(&expected), "{kind}: {all}");

        let mut named = strict.client();
        named.send(&Batch::new().parse("s", &sql).describe_statement("s").sync());
        named.until_ready();
        let bound = named.ask(&Batch::new().bind("", "s", &[]).execute("").sync());
        assert_eq!(bound, format!("{expected} Z(I)"), "{kind}, with a name");
        // Nothing was left, and the connection is as good as before.
        assert_eq!(client.query("select 3"), "T D(3) C(SELECT 1) Z(I)");
        assert_eq!(strict.reported(kind)["application_name"], "tests");
    }
}

#[test]
fn what_a_transaction_leaves_is_an_error_for_what_comes_next() {
    let Some(strict) = with_helper(|ini| ini) else {
        return;
    };
    for (kind, sql, what) in STATE {
        let sql = helper(&strict, sql);
        let mut client = strict.client();
        client.rows("begin");
        client.rows(&sql);
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)", "{kind}");
        client.send(&Batch::new().query("select 1"));
        let said = client.until_ready();
        assert_eq!(
            story(&said),
            format!("{} Z(I)", error(kind, what)),
            "{kind}"
        );
        let (detail, _) = said[0].explanation();
        assert!(detail.contains(&sql[..8]), "{kind}: {detail}");
        // It was taken away, and is told once.
        assert_eq!(client.query("select 2"), "T D(2) C(SELECT 1) Z(I)");
        assert_eq!(client.value("show work_mem"), "4MB");
        assert_eq!(client.value("select to_regclass('pg_temp.mine')"), "NULL");
        assert_eq!(strict.reported(kind)["severity"], "error");
    }
    let pins = console(&strict.pooler).rows("show pins");
    assert!(pins.is_empty(), "nothing stays: {pins:?}");
}

#[test]
fn what_no_text_says_is_found_as_well() {
    let Some(strict) = Strict::new(|ini| ini) else {
        return;
    };
    strict.tenant.direct().rows(
        "create function sets() returns text language sql as \
         $$ select set_config('work_mem', '5MB', false) $$",
    );
    let mut client = strict.client();
    client.send(&Batch::new().run("select sets()").sync());
    client.until_ready();
    let expected = error("settings", "parameters are set for the session");
    client.send(&Batch::new().run("select 1").sync());
    assert_eq!(story(&client.until_ready()), format!("{expected} Z(I)"));
    let finding = strict.reported("settings");
    assert_eq!(finding["statement"], "select sets()");
    assert!(finding["detail"].to_string().contains("work_mem"));
}

#[test]
fn what_is_fine_is_no_finding() {
    let Some(mut strict) = Strict::new(|ini| ini) else {
        return;
    };
    let mut client = strict.client();
    for sql in [
        "set timezone = 'UTC'",
        "set application_name = 'other'",
        "begin; set local work_mem = '1MB'; commit",
        "begin; set work_mem = '1MB'; rollback",
        "begin; set work_mem = '1MB'; reset work_mem; commit",
        "begin; create temp table t (x int) on commit drop; commit",
        "create temp table t (x int) on commit drop",
        "begin; select pg_advisory_lock(1); select pg_advisory_unlock(1); commit",
        "select pg_advisory_xact_lock(1)",
        "reset all",
        "discard all",
        "set role none",
        "set session authorization default",
        "unlisten *",
        "begin; declare c cursor for select 1; fetch all in c; commit",
        "create sequence s; select nextval('s'), currval('s')",
        "begin; select nextval('s'); select lastval(); commit",
        "select 1/0",
    ] {
        let said = client.query(sql);
        assert!(!said.contains("strict:"), "{sql}: {said}");
    }
    client.send(&Batch::new().parse("s", "select $1::int").sync());
    client.until_ready();
    let bound = client.ask(&Batch::new().bind("", "s", &["1"]).execute("").sync());
    assert_eq!(bound, "2 D(1) C(SELECT 1) Z(I)");
    client.send(&Batch::new().terminate());
    client.until_end();
    assert_eq!(strict.findings().iter().count(), 0);
    assert_eq!(strict.end(), Some(0));
    let report = strict.read();
    assert_eq!(report["failures"], 0);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_number_that_another_transaction_has_drawn_is_not_there() {
    let Some(strict) = Strict::new(|ini| ini) else {
        return;
    };
    let mut client = strict.client();
    client.rows("create table t (id serial)");
    client.rows("insert into t default values");
    let expected = error(
        "sequence",
        "a number is asked for that another transaction has drawn",
    );
    assert_eq!(client.query("select lastval()"), format!("{expected} Z(I)"));
    client.send(&Batch::new().run("select currval('t_id_seq')").sync());
    assert_eq!(story(&client.until_ready()), format!("{expected} Z(I)"));
    assert_eq!(strict.findings().iter().count(), 2);
}

#[test]
fn a_transaction_that_is_left_silent_is_taken() {
    let Some(strict) = Strict::new(|ini| ini.set("strict_leak_after", LEAK_AFTER)) else {
        return;
    };
    for way in ["simple", "extended"] {
        let mut client = strict.client();
        client.rows("begin");
        client.rows("select 4711");
        strict.reported("leak");
        thread::sleep(Duration::from_secs(LEAK_AFTER + 1));
        client.send(&match way {
            "simple" => Batch::new().query("select 1"),
            _ => Batch::new().run("select 1").sync(),
        });
        let said = client.until_ready();
        let expected = error("leak", "a server is held in silence");
        assert_eq!(story(&said), format!("{expected} Z(E)"), "{way}");
        let (detail, _) = said[0].explanation();
        assert!(detail.contains("select ?"), "{detail}");
        // Any server can say that there is no transaction, and does so.
        let end = client.query("rollback");
        assert!(end.ends_with("C(ROLLBACK) Z(I)"), "{end}");
    }
    let finding = strict.reported("leak");
    assert_eq!(finding["count"], 2);
    assert_eq!(finding["statement"], "begin; select ?");
}

#[test]
fn a_transaction_that_lasts_too_long_is_taken() {
    let Some(strict) = Strict::new(|ini| ini.set("strict_hold", HOLD)) else {
        return;
    };
    let mut client = strict.client();
    client.rows("begin");
    let expected = format!("{} Z(E)", error("hold", "a transaction lasts too long"));
    let began = Instant::now();
    // It is never silent for long.
    let said = loop {
        let said = client.query("select 1");
        if said.contains("strict:") || began.elapsed() > SOON {
            break said;
        }
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(said, expected);
    assert!(began.elapsed() >= Duration::from_secs(HOLD));
    assert_eq!(client.query("commit"), "C(ROLLBACK) Z(I)");
    let finding = strict.reported("hold");
    assert!(finding["detail"].to_string().contains("strict_hold"));
    assert_eq!(finding["count"], 1);
}

#[test]
fn a_long_statement_is_a_long_transaction() {
    let Some(strict) = Strict::new(|ini| ini.set("strict_hold", 1)) else {
        return;
    };
    let mut client = strict.client();
    let said = client.query("select pg_sleep(3)");
    assert_eq!(said, "T D() C(SELECT 1) Z(I)");
    let finding = strict.reported("hold");
    assert_eq!(finding["statement"], "select pg_sleep(?)");
}

#[test]
fn a_client_that_leaves_in_a_transaction_is_found() {
    let Some(strict) = Strict::new(|ini| ini) else {
        return;
    };
    let mut rude = strict.named("rude");
    rude.rows("begin; select 1");
    drop(rude);
    let mut polite = strict.named("polite");
    polite.rows("begin; select 2");
    polite.send(&Batch::new().terminate());
    polite.until_end();
    let idle = strict.named("idle");
    drop(idle);
    let found = |findings: &Table| findings.iter().count() == 2;
    let findings = eventually(SOON, || strict.findings(), found);
    for (app, detail) in [("rude", "without Terminate"), ("polite", "said Terminate")] {
        let finding = findings.find("application_name", app).expect("found");
        assert_eq!(finding.get("kind"), Some("abandoned"));
        assert!(
            finding
                .get("detail")
                .is_some_and(|said| said.contains(detail))
        );
    }
}

#[test]
fn what_a_mode_does_not_have_is_found() {
    let Some(strict) = Strict::new(|ini| ini.set("pool_mode", "statement")) else {
        return;
    };
    let mut client = strict.client();
    client.send(&Batch::new().query("begin"));
    let fatal = loop {
        let message = client.read().expect("it is told");
        if message.tag == b'E' {
            break message;
        }
    };
    let said = fatal.to_string();
    assert!(said.contains("transaction blocks not allowed"), "{said}");
    let (_, hint) = fatal.explanation();
    assert!(hint.contains("docs/strict.md#unsupported"), "{hint}");
    assert_eq!(strict.reported("unsupported")["statement"], "BEGIN");
}

#[test]
fn what_ends_a_connection_in_the_dialect_of_pgbouncer_is_found() {
    let Some(strict) = Strict::new(|ini| ini) else {
        return;
    };
    let mut client = strict.client();
    client.send(&Batch::new().bind("", "nobody", &[]).sync());
    assert!(client.until_closed().contains("did not exist"));
    let finding = strict.reported("unsupported");
    assert!(finding["detail"].to_string().contains("nobody"));
}

#[test]
fn parameters_that_pgbouncer_refuses_are_a_warning() {
    let Some(mut strict) = Strict::new(|ini| ini.set("startup_parameters", "apply")) else {
        return;
    };
    let name = strict.tenant.name.clone();
    let login = [
        ("user", &*name),
        ("database", &*name),
        ("work_mem", "1MB"),
        ("application_name", "tests"),
    ];
    let mut client = RawClient::login_with(strict.pooler.port, &login);
    assert_eq!(client.value("show work_mem"), "1MB");
    let finding = strict.reported("startup");
    assert_eq!(finding["severity"], "warning");
    assert_eq!(finding["statement"], "work_mem");
    drop(client);
    assert_eq!(strict.end(), Some(0), "a warning does not fail the run");
    assert_eq!(strict.read()["warnings"], 1);
}

#[test]
fn a_run_that_has_found_something_fails_and_says_so_everywhere() {
    let Some(mut strict) = Strict::new(Http::set) else {
        return;
    };
    let mut client = strict.client();
    for channel in ["a", "a", "b"] {
        client.query(&format!("listen {channel}"));
    }
    let findings = strict.findings();
    assert_eq!(findings.iter().count(), 2);
    let finding = findings.find("statement", "listen a").expect("found");
    assert_eq!(finding.number("count"), 2);
    assert_eq!(finding.get("application_name"), Some("tests"));
    let address = finding.get("addr").unwrap_or_default();
    assert!(address.contains("127.0.0.1"), "{address}");
    let metrics = Http::of(&strict.pooler).metrics();
    let count = metrics.value("pgweir_strict_findings_total", &[("kind", "listen")]);
    assert_eq!(count, 3.0);
    let log = strict.pooler.log();
    assert_eq!(
        log.matches("strict: listen: LISTEN needs").count(),
        2,
        "{log}"
    );
    drop(client);
    assert_eq!(strict.end(), Some(3));
    let report = strict.read();
    assert_eq!(report["failures"], 2);
    assert_eq!(report["counts"]["listen"], 3);
}

#[test]
fn a_killed_run_has_left_its_report() {
    let Some(mut strict) = Strict::with_report("report.xml", |ini| ini) else {
        return;
    };
    let clean = fs::read_to_string(&strict.report).expect("written at the start");
    assert_eq!(elements(&clean, "failure"), 0);
    assert_eq!(elements(&clean, "testcase"), 13);
    strict.client().query("listen \"<&>\"");
    let read = || fs::read_to_string(&strict.report).unwrap_or_default();
    let report = eventually(SOON, read, |report| elements(report, "failure") == 1);
    assert!(
        report.contains("listen &quot;&lt;&amp;&gt;&quot;"),
        "{report}"
    );
    strict.pooler.signal(Signal::KILL);
    strict.pooler.wait_for_exit(SOON);
    let left = fs::read_to_string(&strict.report).expect("it is still there");
    assert_eq!(elements(&left, "failure"), 1);
}

/// How many elements of this name an XML document has, which has to be well-formed.
#[track_caller]
fn elements(xml: &str, name: &str) -> usize {
    let body = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    let mut rest = body.expect("it begins as XML does").trim();
    let (mut open, mut count) = (Vec::new(), 0);
    while let Some((text, tag)) = rest.split_once('<') {
        for entity in text.split('&').skip(1) {
            assert!(entity.split_once(';').is_some(), "{entity} is no entity");
        }
        let (tag, behind) = tag.split_once('>').expect("a tag ends");
        rest = behind;
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "tags are nested");
            continue;
        }
        let this = tag.split([' ', '/']).next().expect("a name");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        count += usize::from(this == name);
        if !tag.ends_with('/') {
            open.push(this);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    count
}

#[test]
fn what_is_allowed_is_no_finding_and_goes_on_as_ever() {
    let allow = "listen, temporary:worker, *:migrations";
    let Some(mut strict) = Strict::new(|ini| ini.set("strict_allow", allow)) else {
        return;
    };
    assert_eq!(strict.client().query("listen a"), "C(LISTEN) Z(I)");
    let mut worker = strict.named("worker");
    assert_eq!(
        worker.query("create temp table mine (x int)"),
        "C(CREATE TABLE) Z(I)"
    );
    assert_eq!(worker.query("select * from mine"), "T C(SELECT 0) Z(I)");
    let mut migrations = strict.named("migrations");
    assert_eq!(migrations.query("set work_mem = '1MB'"), "C(SET) Z(I)");
    assert_eq!(migrations.value("show work_mem"), "1MB");
    assert_eq!(strict.findings().iter().count(), 0);
    assert!(worker.query("set work_mem = '1MB'").contains("strict:"));
    drop((worker, migrations));
    assert_eq!(strict.end(), Some(3));
}

#[test]
fn literals_are_shown_as_configured() {
    let Some(strict) = Strict::new(|ini| ini.set("leak_query", "raw")) else {
        return;
    };
    strict.client().query("set work_mem = '1MB'");
    assert_eq!(
        strict.reported("settings")["statement"],
        "set work_mem = '1MB'"
    );
    let Some(strict) = Strict::new(|ini| ini.set("leak_query", "off")) else {
        return;
    };
    strict.client().query("set work_mem = '1MB'");
    assert_eq!(strict.reported("settings")["statement"], "");
}

#[test]
fn the_command_line_is_enough() {
    let Some(tenant) = Tenant::new() else { return };
    // The pooler's working directory is its own.
    let args = ["--strict", "--report", "found.json"];
    let ini = tenant.ini().set("default_pool_size", 2);
    let mut pooler = Pooler::start_with_args(&args, ini).expect("it starts");
    let report = pooler.socket_dir.join("found.json");
    assert!(report.is_file(), "it is there from the start");
    assert!(tenant.client(&pooler).query("listen a").contains("strict:"));
    // What the command line says, no RELOAD takes back.
    pooler.console("reload");
    assert!(tenant.client(&pooler).query("listen a").contains("strict:"));
    pooler.signal(Signal::INT);
    let ended = pooler.wait_for_exit(SOON).and_then(|status| status.code());
    assert_eq!(ended, Some(3));
}

#[test]
fn a_report_that_cannot_be_written_stops_the_start() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant
        .ini()
        .set("strict", 1)
        .set("strict_report", "{dir}/no/such/folder.xml");
    let error = Pooler::start(ini).expect_err("it cannot start");
    assert!(error.to_string().contains("strict_report"), "{error}");
}

#[test]
fn without_it_nothing_is_found() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("listen a"), "C(LISTEN) Z(I)");
    client.rows("begin");
    drop(client);
    let findings = console(&pooler).table("show findings");
    assert_eq!(findings.iter().count(), 0);
    pooler.signal(Signal::INT);
    let ended = pooler.wait_for_exit(SOON).and_then(|status| status.code());
    assert_eq!(ended, Some(0));
}
