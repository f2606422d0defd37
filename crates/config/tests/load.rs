//! Loading at start and RELOAD, as PgBouncer does it.

use std::io;
use std::path::Path;

use pgweir_config::{
    AuthType, Config, Dialect, ErrorCodes, LoadError, Loaded, Phase, PoolMode, Seconds,
};
use proptest::prelude::*;

fn load(config: &mut Config, phase: Phase, text: &str) -> Result<Loaded, LoadError> {
    config.load(phase, &mut |_| Ok(text.to_owned()))
}

fn start(text: &str) -> (Config, Result<Loaded, LoadError>) {
    let mut config = Config::new("a.ini");
    let outcome = load(&mut config, Phase::Start, text);
    (config, outcome)
}

fn started(text: &str) -> Config {
    let (config, outcome) = start(text);
    outcome.expect("loads");
    config
}

/// Everything PgBouncer would log about the error that stopped it.
fn log_of(outcome: Result<Loaded, LoadError>) -> Vec<String> {
    let error = outcome.expect_err("does not load");
    let problem = error
        .problems
        .last()
        .expect("an error has a problem")
        .clone();
    let mut log = vec![problem.text];
    log.extend(problem.trail);
    log
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

const TYPICAL: &str = "\
;; comment
[databases]
p0 = port=6666 host=127.0.0.1 dbname=p0 user=bouncer pool_size=2 reserve_pool_size=2
p0a= port=6666 host=127.0.0.1 dbname=p0 pool_size=2 reserve_pool=2
p8 = host=127.0.0.1 connect_query='set enable_seqscan=off; set enable_nestloop=off'
bad = host=unresolvable-hostname,127.0.0.1 load_balance_hosts=disable
'quo ted' = dbname='we''ird' password='a#b;c=d'
foodb =
* = host=testserver

[users]
maxedout = max_user_connections = 3
test2 =

[peers]
2 = host=/tmp port=6433

  [pgbouncer]
    listen_port = 6667
    auth_type = SCRAM-SHA-256
    pool_mode = statement
    track_extra_parameters = search_path, intervalstyle
    login_notify_message = You are now connected to pgbouncer
    server_lifetime = 0.5
    server_tls_ciphers = \"HIGH:!aNULL\"
";

#[test]
fn reads_what_pgbouncer_reads() {
    let config = started(TYPICAL);
    assert_eq!(config.dialect, Dialect::Ini);
    assert_eq!(config.global.error_codes, ErrorCodes::Pgbouncer);
    assert_eq!(config.global.listen_port, 6667);
    assert_eq!(config.global.auth_type, AuthType::ScramSha256);
    assert_eq!(config.global.server_lifetime, Seconds::from_micros(500_000));
    assert_eq!(config.global.server_tls_ciphers, "\"HIGH:!aNULL\"");
    assert_eq!(
        config.global.login_notify_message,
        "You are now connected to pgbouncer"
    );
    assert_eq!(config.databases.len(), 6);
    assert_eq!(config.databases["p0a"].keys.reserve_pool_size, Some(2));
    assert_eq!(config.databases["bad"].hosts().len(), 2);
    let quoted = &config.databases["quo ted"];
    assert_eq!(quoted.dbname(), "we'ird");
    assert_eq!(
        quoted.keys.password.as_ref().map(|p| p.expose()),
        Some("a#b;c=d")
    );
    assert_eq!(config.databases["foodb"].hosts(), []);
    assert_eq!(config.users["maxedout"].keys.max_user_connections, Some(3));
    assert!(config.users.contains_key("test2") && config.autodb.is_some());
    assert_eq!(config.peers[&2].port(), 6433);
}

#[test]
fn sections_may_be_repeated() {
    let config = started("[databases]\na =\n[pgbouncer]\n[databases]\nb =\n");
    assert_eq!(config.databases.len(), 2);
}

#[test]
fn a_file_without_main_section_is_refused() {
    let log = log_of(start("[databases]\nfoodb =\n").1);
    assert_eq!(
        log,
        ["load_init_file: main section missing from config file"]
    );
}

#[test]
fn errors_have_pgbouncers_words() {
    let cases: [(&str, &[&str]); 14] = [
        (
            "[pgbouncer]\n\nx = 1\n",
            &[
                "unknown parameter: pgbouncer/x",
                "invalid value \"1\" for parameter x in configuration (a.ini:3)",
            ],
        ),
        (
            "[pgbouncer]\nserver_lifetime = never",
            &["invalid value \"never\" for parameter server_lifetime in configuration (a.ini:2)"],
        ),
        (
            "[pgbouncer]\nauth_dbname = pgbouncer\n",
            &[
                "cannot use the reserved \"pgbouncer\" database as an auth_dbname",
                "invalid value \"pgbouncer\" for parameter auth_dbname in configuration (a.ini:2)",
            ],
        ),
        (
            "[databases]\na = x=1\n",
            &[
                "unrecognized connection parameter: x",
                "invalid value \"x=1\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[databases]\na = host=\n",
            &[
                "syntax error in connection string",
                "invalid value \"host=\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[databases]\na = port=x\n",
            &[
                "invalid port: x",
                "invalid value \"port=x\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[databases]\na = pool_mode=x\n",
            &[
                "invalid pool mode: x",
                "invalid value \"pool_mode=x\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[databases]\npgbouncer = host=a\n",
            &[
                "database name \"pgbouncer\" is reserved",
                "invalid value \"host=a\" for parameter pgbouncer in configuration (a.ini:2)",
            ],
        ),
        (
            "[users]\na = dbname=x\n",
            &[
                "unrecognized user parameter: dbname",
                "invalid value \"dbname=x\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[users]\na = pool_size\n",
            &[
                "syntax error in user settings",
                "invalid value \"pool_size\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[peers]\n1 = port=1\n",
            &[
                "host was not provided for peer 1",
                "invalid value \"port=1\" for parameter 1 in configuration (a.ini:2)",
            ],
        ),
        (
            "[nope]\n;",
            &["invalid section \"nope\" in configuration (a.ini:1)"],
        ),
        (
            ";\na = b\n",
            &[
                "load_init_file: value without section: a",
                "invalid value \"b\" for parameter a in configuration (a.ini:2)",
            ],
        ),
        (
            "[databases]\n\"quo ted\" = host=x\n",
            &["syntax error in configuration (a.ini:2), stopping loading"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(log_of(start(text).1), expected, "{text:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let mut config = Config::new("nope.ini");
    let not_found = |_: &Path| Err(io::Error::from_raw_os_error(2));
    let log = log_of(config.load(Phase::Start, &mut { not_found }));
    assert_eq!(
        log,
        ["could not load file \"nope.ini\": No such file or directory"]
    );
}

#[test]
fn what_stood_before_an_error_counts() {
    let (config, outcome) = start("[pgbouncer]\nmax_client_conn = 7\nx = 1\ndefault_pool_size=9\n");
    outcome.expect_err("unknown key");
    assert_eq!(
        (
            config.global.max_client_conn,
            config.global.default_pool_size
        ),
        (7, 20)
    );
}

#[test]
fn a_failed_reload_keeps_databases_and_a_good_one_drops_those_not_named() {
    let mut config = started("[databases]\na =\nb =\n[users]\nu =\n[pgbouncer]\n");
    let bad = "[databases]\na = port=1\n[pgbouncer]\nserver_lifetime = bad\n";
    load(&mut config, Phase::Reload, bad).expect_err("a bad value");
    assert_eq!(config.databases.len(), 2);
    assert_eq!(config.databases["a"].port(), 1);
    load(
        &mut config,
        Phase::Reload,
        "[databases]\nb =\n[pgbouncer]\n",
    )
    .expect("loads");
    assert_eq!(config.databases.keys().collect::<Vec<_>>(), ["b"]);
    assert!(config.users.is_empty());
}

#[test]
fn a_reload_resets_keys_with_a_default_and_keeps_the_others() {
    let mut config = started("[pgbouncer]\nmax_client_conn = 7\nauth_user = au\nauth_file = f\n");
    load(
        &mut config,
        Phase::Reload,
        "[pgbouncer]\npool_mode = transaction\n",
    )
    .expect("loads");
    assert_eq!(config.global.max_client_conn, 100);
    assert_eq!(config.global.auth_user.as_deref(), Some("au"));
    assert_eq!(config.global.pool_mode, PoolMode::Transaction);
}

#[test]
fn a_reload_ignores_keys_that_need_a_restart_and_tells_them() {
    let mut config = started("[pgbouncer]\nlisten_port = 5000\nlisten_addr = *\n");
    let loaded = load(
        &mut config,
        Phase::Reload,
        "[pgbouncer]\nlisten_port = 5001\n",
    );
    let changes = loaded.expect("loads").restart_needed;
    let told: Vec<_> = changes.iter().map(|c| (c.key, c.to.as_deref())).collect();
    assert_eq!(
        told,
        [("listen_addr", Some("")), ("listen_port", Some("5001"))]
    );
    assert_eq!(config.global.listen_port, 5000);
    assert_eq!(config.global.listen_addr.as_str(), "*");
}

#[test]
fn a_forced_user_cannot_be_lost() {
    let mut config = started("[databases]\na = user=u password=p\n[pgbouncer]\n");
    let loaded = load(
        &mut config,
        Phase::Reload,
        "[databases]\na =\n[pgbouncer]\n",
    );
    let loaded = loaded.expect("loads");
    assert_eq!(
        warnings(&loaded),
        [
            "a.ini:2: warning: losing forced user not supported, keeping old setting \
          (a restart takes the user away)"
        ]
    );
    assert_eq!(config.databases["a"].keys.user.as_deref(), Some("u"));
}

#[test]
fn numbers_in_entries_are_read_as_far_as_they_go_with_a_warning() {
    let (config, outcome) =
        start("[databases]\na = pool_size=5x server_lifetime=1.5\n[pgbouncer]\n");
    assert_eq!(
        warnings(&outcome.expect("loads")),
        [
            "a.ini:2: warning: pool_size=5x is read as 5 (only a whole number counts here)",
            "a.ini:2: warning: server_lifetime=1.5 is read as 1 (only a whole number counts here)",
        ]
    );
    assert_eq!(config.databases["a"].keys.pool_size, Some(5));
    assert_eq!(
        config.databases["a"].keys.server_lifetime,
        Some(Seconds::new(1))
    );
}

#[test]
fn a_key_that_changes_nothing_is_named_once() {
    let text = "[pgbouncer]\npkt_buf = 8192\nsbuf_loopcnt = 5\n";
    let (mut config, outcome) = start(text);
    assert_eq!(
        warnings(&outcome.expect("loads")),
        ["a.ini:2: warning: pkt_buf has no effect \
          (all connections of a thread share one large buffer)"]
    );
    assert_eq!(config.global.pkt_buf, 8192);
    let again = load(&mut config, Phase::Reload, text).expect("loads");
    assert_eq!(warnings(&again), [""; 0]);
}

#[test]
fn negative_times_in_entries_never_end() {
    let (config, outcome) = start("[users]\nu = query_timeout=-1\n[pgbouncer]\n");
    assert_eq!(
        warnings(&outcome.expect("loads")),
        ["a.ini:2: warning: query_timeout=-1 is read as 1e+10 \
          (a negative time never ends; leave the key out)"]
    );
    assert_eq!(config.users["u"].keys.query_timeout, Some(Seconds::MAX));
}

#[test]
fn entries_add_startup_parameters() {
    let config = started("[databases]\na = timezone=UTC client_encoding=UTF8\n[pgbouncer]\n");
    let parameters: Vec<_> = config.databases["a"].startup_parameters().collect();
    assert_eq!(
        parameters,
        [("client_encoding", "UTF8"), ("timezone", "UTC")]
    );
}

#[test]
fn a_broken_template_is_left_out_with_a_warning() {
    let (config, outcome) = start("[databases]\n* = hots=a\n[pgbouncer]\n");
    assert_eq!(
        warnings(&outcome.expect("loads")),
        [
            "a.ini:2: warning: unrecognized connection parameter: hots; the entry is not used \
          (did you mean \"host\"?)"
        ]
    );
    assert_eq!(config.autodb, None);
}

#[test]
fn a_template_in_force_stays_where_a_reload_finds_it_broken() {
    let mut config = started("[databases]\n* = host=a\n[pgbouncer]\n");
    let text = "[databases]\nshop =\n* = hots=b\n[pgbouncer]\n";
    let before = config.autodb.clone();
    let outcome = load(&mut config, Phase::Reload, text);
    assert_eq!(
        log_of(outcome),
        [
            "unrecognized connection parameter: hots",
            "invalid value \"hots=b\" for parameter * in configuration (a.ini:3)",
        ]
    );
    assert_eq!(config.autodb, before);
    assert!(config.databases.contains_key("shop"));
    let text = "[databases]\n* = host=b\n[pgbouncer]\n";
    load(&mut config, Phase::Reload, text).expect("loads");
    assert_ne!(config.autodb, before);
}

#[test]
fn a_template_that_was_broken_at_the_start_keeps_nobody_from_a_reload() {
    let text = "[databases]\n* = hots=a\n[pgbouncer]\n";
    let (mut config, outcome) = start(text);
    outcome.expect("loads");
    let again = load(&mut config, Phase::Reload, text).expect("loads");
    assert_eq!(warnings(&again).len(), 1);
}

#[test]
fn the_main_section_may_name_the_next_file() {
    let mut config = started("[pgbouncer]\nconffile = b.ini\n");
    let mut asked = Vec::new();
    let loaded = config.load(Phase::Reload, &mut |path| {
        asked.push(path.display().to_string());
        Ok("[pgbouncer]\n".to_owned())
    });
    loaded.expect("loads");
    assert_eq!(asked, ["b.ini"]);
    assert_eq!(config.global.conffile.as_deref(), Some("b.ini"));
}

/// A folder of files by name.
fn files(files: &[(&str, &str)]) -> impl FnMut(&Path) -> io::Result<String> {
    let owned: Vec<(String, String)> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    move |path| {
        let file = owned.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| text.clone())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[test]
fn includes_go_on_in_the_section_where_they_stand() {
    let mut read = files(&[
        (
            "a.ini",
            "[databases]\n%include conf/dbs.ini\nlisten_port = 1\n",
        ),
        ("conf/dbs.ini", "a = host=x\n[pgbouncer]\n"),
    ]);
    let mut config = Config::new("a.ini");
    config.load(Phase::Start, &mut read).expect("loads");
    assert_eq!((config.databases.len(), config.global.listen_port), (1, 1));
}

#[test]
fn an_error_in_an_included_file_tells_the_way_to_it() {
    let mut read = files(&[
        ("a.ini", "[pgbouncer]\n%include b.ini\n"),
        ("b.ini", "; comment\n%include c.ini\n"),
        ("c.ini", "x = 1\n"),
    ]);
    let log = log_of(Config::new("a.ini").load(Phase::Start, &mut read));
    assert_eq!(
        log,
        [
            "unknown parameter: pgbouncer/x",
            "invalid value \"1\" for parameter x in configuration (c.ini:1)",
            "error processing include file in configuration (b.ini:2), stopping loading",
            "error processing include file in configuration (a.ini:2), stopping loading",
        ]
    );
}

#[test]
fn includes_are_ten_deep_at_most() {
    let mut read = files(&[("a.ini", "[pgbouncer]\n%include a.ini\n")]);
    let log = log_of(Config::new("a.ini").load(Phase::Start, &mut read));
    assert_eq!(
        log[0],
        "include nesting level too deep (a.ini:2), stopping loading"
    );
    assert_eq!(log.len(), 11);
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(
        text in "(\\[(pgbouncer|databases|users|peers|x)\\]\n|[a-z_*']{1,9} ?= ?[a-z0-9='. ]*\n|.{0,9})*",
    ) {
        let (mut config, _) = start(&text);
        let _ = load(&mut config, Phase::Reload, &text);
        let _ = pgweir_config::check("a.ini", &mut |_| Ok(text.clone()));
    }

    #[test]
    fn loading_twice_changes_nothing(sizes in prop::collection::vec(-2i32..50, 1..9)) {
        let mut text = String::from("[pgbouncer]\nmax_client_conn = 9\n[databases]\n");
        for (index, size) in sizes.iter().enumerate() {
            text.push_str(&format!("db{index} = pool_size={size}\n"));
        }
        let first = started(&text);
        let mut second = first.clone();
        load(&mut second, Phase::Reload, &text).expect("loads");
        prop_assert_eq!(first, second);
    }
}
