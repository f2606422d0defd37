//! The promise of `startup_parameters = apply`: what a client asks for in its startup message is in force on every
//! server that it gets, and reaches nobody else.

use pgweir_tests::{Batch, Pooler, RawClient, Tenant, start};

/// Parameters that drivers ask for, with a value and what `SHOW` makes of it.
const REQUESTS: [(&str, &str, &str); 7] = [
    (
        "search_path",
        "app, \"Odd one\", public",
        "app, \"Odd one\", public",
    ),
    ("jit", "off", "off"),
    ("statement_timeout", "30000", "30s"),
    ("extra_float_digits", "0", "0"),
    ("work_mem", "2MB", "2MB"),
    (
        "default_transaction_isolation",
        "repeatable read",
        "repeatable read",
    ),
    (
        "my_app.tenant",
        "it's \\the \"second\"",
        "it's \\the \"second\"",
    ),
];

/// Poolers and clients of one tenant.
struct Scene {
    tenant: Tenant,
    pooler: Pooler,
}

impl Scene {
    /// With so many servers in transaction mode.
    #[track_caller]
    fn new(servers: u32) -> Option<Self> {
        Self::with(servers, "transaction")
    }

    #[track_caller]
    fn with(servers: u32, pool_mode: &str) -> Option<Self> {
        let tenant = Tenant::new()?;
        let ini = tenant.ini().set("startup_parameters", "apply");
        let pooler = start(
            ini.set("pool_mode", pool_mode)
                .set("default_pool_size", servers),
        );
        Some(Self { tenant, pooler })
    }

    #[track_caller]
    fn client(&self) -> RawClient {
        self.requesting(&[])
    }

    #[track_caller]
    fn requesting(&self, parameters: &[(&str, &str)]) -> RawClient {
        let login = self.login(parameters);
        RawClient::login_with(self.pooler.port, &login)
    }

    fn login<'a>(&'a self, parameters: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut login = vec![
            ("user", &*self.tenant.name),
            ("database", &*self.tenant.name),
        ];
        login.extend(parameters);
        login
    }
}

#[test]
fn what_a_client_requests_it_has_and_nobody_else() {
    let Some(scene) = Scene::new(1) else { return };
    let mut plain = scene.client();
    let defaults: Vec<String> = REQUESTS
        .iter()
        .map(|(name, ..)| current(&mut plain, name))
        .collect();
    let pairs = REQUESTS.map(|(name, value, _)| (name, value));
    let mut requester = scene.requesting(&pairs);
    let mut other = scene.requesting(&[("work_mem", "3MB"), ("jit", "off")]);
    for _ in 0..3 {
        for (name, _, shown) in REQUESTS {
            assert_eq!(current(&mut requester, name), shown, "{name}");
        }
        for ((name, ..), default) in REQUESTS.iter().zip(&defaults) {
            let expected = match *name {
                "work_mem" => "3MB",
                "jit" => "off",
                _ => default,
            };
            assert_eq!(current(&mut other, name), expected, "{name}");
            assert_eq!(current(&mut plain, name), *default, "{name}");
            assert_eq!(current_extended(&mut plain, name), *default, "{name}");
        }
    }
    assert_eq!(scene.tenant.backends(), 1);
}

#[test]
fn it_goes_with_the_client_from_server_to_server() {
    let Some(scene) = Scene::new(3) else { return };
    let mut client = scene.requesting(&[("options", "-c work_mem=2MB --statement-timeout=7s")]);
    let mut holders: Vec<RawClient> = (0..2).map(|_| scene.client()).collect();
    for holder in &mut holders {
        assert_eq!(client.value("show work_mem"), "2MB");
        assert_eq!(client.value("show statement_timeout"), "7s");
        // The last used server is used first: it is the client's.
        holder.rows("begin");
        assert_eq!(holder.value("show work_mem"), "4MB");
        assert_eq!(holder.value("show statement_timeout"), "0");
    }
    assert_eq!(client.value("show work_mem"), "2MB");
    assert_eq!(scene.tenant.backends(), 3);
}

#[test]
fn parameters_overrule_options_as_in_postgresql() {
    let Some(scene) = Scene::new(1) else { return };
    let asked = [
        ("search_path", "direct"),
        (
            "options",
            "-c search_path=option -c TimeZone=Asia/Tokyo -c jit=off -c jit=on",
        ),
        ("TimeZone", "Europe/Paris"),
    ];
    let mut through = scene.requesting(&asked);
    let mut login = scene.login(&asked);
    login.reverse();
    let mut direct = RawClient::login_with(scene.tenant.postgres.port(), &login);
    for name in ["search_path", "TimeZone", "jit"] {
        assert_eq!(
            current(&mut through, name),
            current(&mut direct, name),
            "{name}"
        );
    }
}

#[test]
fn a_limit_on_time_holds_for_who_asked_for_it() {
    let Some(scene) = Scene::new(1) else { return };
    let mut hasty = scene.requesting(&[("statement_timeout", "20ms")]);
    let mut patient = scene.client();
    for _ in 0..2 {
        assert_eq!(
            hasty.query("select pg_sleep(5)"),
            "T E(57014 canceling statement due to statement timeout) Z(I)"
        );
        assert_eq!(
            patient.query("select pg_sleep(0.1)"),
            "T D() C(SELECT 1) Z(I)"
        );
    }
}

#[test]
fn what_postgresql_refuses_is_told_to_who_asked_and_costs_no_server() {
    let Some(scene) = Scene::new(1) else { return };
    let mut plain = scene.client();
    let pid = plain.value("select pg_backend_pid()");
    let wrong = [
        (
            "statement_timeout",
            "soon",
            "invalid value for parameter \"statement_timeout\": \"soon\"",
        ),
        (
            "no_such_thing",
            "1",
            "unrecognized configuration parameter \"no_such_thing\"",
        ),
        (
            "log_statement",
            "all",
            "permission denied to set parameter \"log_statement\"",
        ),
        (
            "max_connections",
            "1",
            "parameter \"max_connections\" cannot be changed without restarting the server",
        ),
        (
            "server_version",
            "9",
            "parameter \"server_version\" cannot be changed",
        ),
    ];
    for (name, value, message) in wrong {
        let mut asker = scene.requesting(&[("work_mem", "2MB"), (name, value)]);
        asker.send(&Batch::new().query("select 1"));
        let said = asker.until_closed();
        assert_eq!(
            said,
            format!("E(FATAL 08P01 invalid server parameter: {message})")
        );
        assert_eq!(plain.value("show work_mem"), "4MB");
        assert_eq!(plain.value("select pg_backend_pid()"), pid);
    }
}

#[test]
fn with_postgresqls_codes_the_refusal_is_postgresqls() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("startup_parameters", "apply");
    let pooler = start(
        ini.set("error_codes", "postgres")
            .set("default_pool_size", 1),
    );
    let asked = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("jit", "maybe"),
    ];
    let direct = RawClient::try_login(tenant.postgres.port(), &asked).map(|_| ());
    let mut through = RawClient::login_with(pooler.port, &asked);
    through.send(&Batch::new().query("select 1"));
    assert_eq!(direct, Err(through.until_closed()));
}

#[test]
fn names_that_are_no_parameters_of_a_client_are_refused_at_login() {
    let Some(scene) = Scene::new(1) else { return };
    for name in [
        "role",
        "session_authorization",
        "idle_session_timeout",
        "seed",
        "transaction_read_only",
        "a b",
        "x\";drop table y;--",
    ] {
        let login = scene.login(&[(name, "postgres")]);
        let said = RawClient::try_login(scene.pooler.port, &login).map(|_| ());
        let expected = format!("E(FATAL 08P01 unsupported startup parameter: {name})");
        assert_eq!(said, Err(expected));
    }
}

#[test]
fn names_can_still_be_ignored() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("startup_parameters", "apply");
    let pooler = start(ini.set("ignore_startup_parameters", "work_mem"));
    let login = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("work_mem", "2MB"),
    ];
    let mut client = RawClient::login_with(pooler.port, &login);
    assert_eq!(client.value("show work_mem"), "4MB");
}

#[test]
fn after_a_reset_a_client_has_again_what_it_requested() {
    for pool_mode in ["transaction", "session"] {
        let Some(scene) = Scene::with(1, pool_mode) else {
            return;
        };
        let mut client = scene.requesting(&[("work_mem", "2MB"), ("search_path", "mine")]);
        for reset in [
            "reset all",
            "discard all",
            "reset work_mem",
            "select 1; close all; reset all",
        ] {
            client.rows("set work_mem = '3MB'");
            client.rows(reset);
            assert_eq!(
                client.value("show work_mem"),
                "2MB",
                "{reset} in {pool_mode} mode"
            );
            assert_eq!(
                client.value("show search_path"),
                "mine",
                "{reset} in {pool_mode} mode"
            );
            client.rows("begin");
            client.rows("set local work_mem = '3MB'");
            client.rows("rollback");
            assert_eq!(client.value("show work_mem"), "2MB");
        }
    }
}

#[test]
fn a_change_stays_with_its_client() {
    let Some(scene) = Scene::new(1) else { return };
    let mut client = scene.requesting(&[("work_mem", "2MB")]);
    let mut other = scene.requesting(&[("work_mem", "5MB")]);
    let mut plain = scene.client();
    client.rows("begin; set work_mem = '3MB'");
    assert_eq!(client.value("show work_mem"), "3MB");
    client.rows("commit");
    assert_eq!(plain.value("show work_mem"), "4MB");
    client.rows("begin; set work_mem = '3MB'; commit");
    assert_eq!(other.value("show work_mem"), "5MB");
    assert_eq!(client.value("show work_mem"), "3MB");
    client.rows("begin; set work_mem = '6MB'; rollback");
    assert_eq!(other.value("show work_mem"), "5MB");
    assert_eq!(client.value("show work_mem"), "3MB");
    client.rows("reset work_mem");
    assert_eq!(plain.value("show work_mem"), "4MB");
    assert_eq!(client.value("show work_mem"), "2MB");

    let Some(scene) = Scene::with(1, "session") else {
        return;
    };
    let mut client = scene.requesting(&[("work_mem", "2MB")]);
    assert_eq!(client.value("show work_mem"), "2MB");
    client.rows("set work_mem = '3MB'");
    assert_eq!(client.value("show work_mem"), "3MB");
}

#[test]
fn a_session_leaves_its_requests_to_nobody() {
    for reset_query in ["discard all", ""] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = tenant
            .ini()
            .set("startup_parameters", "apply")
            .set("pool_mode", "session");
        let pooler = start(
            ini.set("default_pool_size", 1)
                .set("server_reset_query", reset_query),
        );
        let login = [
            ("user", &*tenant.name),
            ("database", &*tenant.name),
            ("work_mem", "2MB"),
        ];
        let mut first = RawClient::login_with(pooler.port, &login);
        let pid = first.value("select pg_backend_pid()");
        assert_eq!(first.value("show work_mem"), "2MB");
        drop(first);
        let mut second = tenant.client(&pooler);
        assert_eq!(second.value("select pg_backend_pid()"), pid);
        assert_eq!(second.value("show work_mem"), "4MB");
    }
}

#[test]
fn the_welcome_says_what_the_client_requested() {
    let Some(scene) = Scene::new(1) else { return };
    let asked = [
        ("default_transaction_read_only", "on"),
        ("TimeZone", "Asia/Tokyo"),
    ];
    let mut through = scene.requesting(&asked);
    let direct = RawClient::login_with(scene.tenant.postgres.port(), &scene.login(&asked));
    for (name, value) in asked {
        assert_eq!(direct.parameter(name), Some(value));
        assert_eq!(through.parameter(name), Some(value));
    }
    // What PostgreSQL reports is kept per client, as a tracked parameter is.
    through.rows("set default_transaction_read_only = off");
    assert_eq!(
        scene.client().value("show default_transaction_read_only"),
        "off"
    );
    assert_eq!(through.value("show default_transaction_read_only"), "off");
}

#[test]
fn who_vanishes_leaves_nothing() {
    let Some(scene) = Scene::new(1) else { return };
    let mut vanishing = scene.requesting(&[("work_mem", "2MB")]);
    vanishing.send(&Batch::new().query("begin; select pg_sleep(5)"));
    drop(vanishing);
    assert_eq!(scene.client().value("show work_mem"), "4MB");
}

#[test]
fn what_a_connect_query_sets_is_what_others_have() {
    let Some(tenant) = Tenant::new() else { return };
    let entry = format!(
        "host=127.0.0.1 port={} connect_query='set search_path = app, public; set timezone = \"Asia/Tokyo\"'",
        tenant.postgres.port()
    );
    let ini = tenant
        .ini()
        .database(&tenant.name, &entry)
        .set("startup_parameters", "apply");
    let pooler = start(ini.set("default_pool_size", 1));
    let login = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("search_path", "mine"),
    ];
    let mut requester = RawClient::login_with(pooler.port, &login);
    let mut plain = tenant.client(&pooler);
    for _ in 0..2 {
        assert_eq!(requester.value("show search_path"), "mine");
        assert_eq!(plain.value("show search_path"), "app, public");
        assert_eq!(plain.value("show timezone"), "Asia/Tokyo");
    }
    assert_eq!(plain.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(tenant.backends(), 1);
}

#[test]
fn no_clients_search_path_reaches_the_search_for_secrets() {
    let Some(tenant) = Tenant::new() else { return };
    let mut root = tenant.root();
    root.rows(
        "create schema evil; \
         create function lookup(text) returns table (n text, s text) language sql as $$ select $1, 'secret' $$; \
         create function evil.lookup(text) returns table (n text, s text) language sql as $$ select $1, 'evil' $$",
    );
    // Clients and auth_query share a pool, because both are postgres there.
    let entry = format!(
        "host=127.0.0.1 port={} user=postgres",
        tenant.postgres.port()
    );
    let ini = tenant
        .ini()
        .database(&tenant.name, &entry)
        .set("auth_type", "plain")
        .set("auth_user", "postgres")
        .set("auth_query", "select n, s from lookup($1)")
        .set("startup_parameters", "apply")
        .set("default_pool_size", 1)
        .file("userlist.txt", "\"postgres\" \"known\"\n");
    for tracked in ["IntervalStyle", "search_path"] {
        let pooler = start(ini.clone().set("track_extra_parameters", tracked));
        let mut attacker = login(&pooler, &tenant.name, "postgres", "known", "evil");
        assert_eq!(attacker.value("select s from lookup('x')"), "evil");
        let mut victim = login(&pooler, &tenant.name, "anybody", "secret", "evil");
        assert_eq!(victim.value("select s from lookup('x')"), "evil");
        let pid = "select pg_backend_pid()";
        assert_eq!(attacker.value(pid), victim.value(pid), "they share a pool");
    }
}

/// Logs in with a password.
#[track_caller]
fn login(pooler: &Pooler, database: &str, user: &str, password: &str, path: &str) -> RawClient {
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[
        ("user", user),
        ("database", database),
        ("search_path", path),
    ]);
    let asked = client.read().expect("a question");
    assert_eq!(asked.tag, b'R');
    client.send(&Batch::new().password(format!("{password}\0").as_bytes()));
    client.finish_login().expect("the password is right");
    client
}

/// The value that is in force; nothing where there is no such parameter.
fn current(client: &mut RawClient, name: &str) -> String {
    client.value(&format!(
        "select coalesce(current_setting('{name}', true), '')"
    ))
}

fn current_extended(client: &mut RawClient, name: &str) -> String {
    let sql = format!("select coalesce(current_setting('{name}', true), '')");
    client.send(&Batch::new().run(&sql).sync());
    let answer = client.until_ready();
    let row = answer.iter().find(|message| message.tag == b'D');
    row.map(|row| row.values().join("|")).unwrap_or_default()
}

#[test]
fn a_tracked_parameter_that_is_not_reported_reaches_nobody_else() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("track_extra_parameters", "work_mem");
    let pooler = start(ini.set("default_pool_size", 1));
    let login = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("work_mem", "2MB"),
    ];
    let mut tracking = RawClient::login_with(pooler.port, &login);
    let mut plain = tenant.client(&pooler);
    for _ in 0..2 {
        assert_eq!(tracking.value("show work_mem"), "2MB");
        assert_eq!(plain.value("show work_mem"), "4MB");
    }
}
