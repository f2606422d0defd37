//! The promise: the files that an operator of PostgreSQL clusters writes for PgBouncer work as they are, and so does the way
//! in which it leads the pooler: by files that it replaces, the console on the Unix socket, and tables read by position.

use std::{fs, path::Path, thread, time::Duration};

use pgweir_tests::{
    Account, Authority, Batch, Begin, Cluster, ClusterOptions, Identity, Ini, Pooler, RawClient,
    Table, TlsWire, eventually, start, story,
};

const SOON: Duration = Duration::from_secs(10);

/// How many columns a collector scans, in their order.
const SCANNED: [(&str, usize); 2] = [("show pools", 17), ("show stats", 23)];

/// The user who looks others up, and proves who it is by a certificate only.
const LOOKS_UP: &str = "cluster_pooler";

/// No file has a user: `auth_query` finds them, whatever their secret is. PostgreSQL wants a certificate of the user that runs it,
/// and has one that names no host that anybody connects to.
#[test]
fn users_are_found_with_a_certificate_and_no_file() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(scene.ini());
    for user in ["by_scram", "by_md5"] {
        assert_eq!(
            scene.psql(&pooler, user, "secret"),
            Ok("t".to_owned()),
            "{user}"
        );
        let wrong = scene
            .psql(&pooler, user, "wrong")
            .expect_err("a wrong password");
        assert!(wrong.contains(" authentication failed"), "{wrong}");
    }
    let stranger = scene.psql(&pooler, "stranger", "secret");
    assert!(stranger.is_err_and(|said| said.contains("no such user")));
    let log = pooler.log();
    let looked_up = format!(
        ": postgres/{LOOKS_UP}@127.0.0.1:{} new connection",
        scene.postgres.port()
    );
    assert!(log.contains(&looked_up), "{log}");

    // Somebody else's certificate will not do, and nor will a PostgreSQL of another authority.
    let other = scene.authority.leaf("somebody", &[]);
    let elsewhere = Authority::new("elsewhere").pem();
    for (ini, logged) in [
        (
            other.of_client(scene.ini(), "to_server"),
            "certificate authentication failed",
        ),
        (
            scene.ini().file("server_ca.crt", &elsewhere),
            "certificate verify failed",
        ),
    ] {
        let pooler = start(ini.set("query_wait_timeout", 2));
        assert!(scene.psql(&pooler, "by_scram", "secret").is_err());
        let log = pooler.log();
        assert!(log.contains(logged), "{log}");
    }
}

/// Mounted files change all at once, and then comes a RELOAD.
#[test]
fn files_are_replaced_under_a_pooler_that_serves() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(scene.ini());
    assert_eq!(
        scene.psql(&pooler, "by_scram", "secret"),
        Ok("t".to_owned())
    );
    let serial = "select client_serial from pg_stat_ssl where pid = pg_backend_pid()";
    let shown = |sql: &str| scene.ask(&pooler, "by_scram", "secret", sql);
    let before = shown(serial).expect("a certificate");
    let mut early = RawClient::login(pooler.port, "app", "let_in");
    assert_eq!(early.query("begin"), "C(BEGIN) Z(T)");

    let renewed = scene.authority.leaf(LOOKS_UP, &[]);
    replace(&pooler, "to_server.crt", &renewed.cert);
    replace(&pooler, "to_server.key", &renewed.key);
    let towards_clients = scene.authority.leaf("pooler", &["localhost"]);
    replace(&pooler, "server.crt", &towards_clients.cert);
    replace(&pooler, "server.key", &towards_clients.key);
    replace(
        &pooler,
        "pg_hba.conf",
        &format!("host all by_md5 all reject\n{RULES}"),
    );
    let path = pooler.ini_path().to_owned();
    let text = fs::read_to_string(&path)
        .expect("written")
        .replace("default_pool_size = 3", "default_pool_size = 4");
    replace_at(&pooler, &path, &text);
    pooler.console("reload");

    let now = eventually(SOON, || shown(serial), |now| now.as_ref() != Ok(&before));
    assert!(now.is_ok(), "{now:?}");
    let refused = scene
        .psql(&pooler, "by_md5", "secret")
        .expect_err("the new rule");
    assert!(refused.contains("login rejected"), "{refused}");
    let config = pooler.console("show config");
    let size = config
        .find("key", "default_pool_size")
        .map(|row| row.number("value"));
    assert_eq!(size, Some(4));
    let wire = TlsWire::connect(pooler.port, &scene.authority.der, Begin::Asked);
    assert_eq!(wire.peer_certificate(), towards_clients.der);
    assert_eq!(early.query("commit"), "C(COMMIT) Z(I)");
}

/// Before a switchover it pauses, and collects meanwhile.
#[test]
fn a_pause_waits_for_transactions_and_the_tables_keep_their_columns() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(scene.ini());
    let mut client = RawClient::login(pooler.port, "app", "let_in");
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    thread::scope(|scope| {
        let pause = scope.spawn(|| pooler.try_console("pause").map(|_| ()));
        let state = || {
            let state = pooler.console("show state");
            let paused = state.find("key", "paused");
            paused.and_then(|row| row.get("value").map(str::to_owned))
        };
        eventually(SOON, state, |paused| paused.as_deref() == Some("yes"));
        for what in ["reload", "show version"] {
            pooler.console(what);
            collect(&pooler);
        }
        assert!(!pause.is_finished(), "a transaction is open");
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        pause.join().expect("no panic").expect("all is paused");
    });
    assert_eq!(
        scene.postgres.psql(
            "postgres",
            "select count(*) from pg_stat_activity where usename = 'let_in'"
        ),
        "0"
    );
    let pools = collect(&pooler);
    assert!(pools.find("user", "let_in").is_some());
    client.send(&Batch::new().query("select 1"));
    let waiting = || {
        pooler
            .console("show pools")
            .find("user", "let_in")
            .map(|row| row.number("cl_waiting"))
    };
    eventually(SOON, waiting, |waiting| *waiting == Some(1));
    pooler.console("resume");
    assert_eq!(story(&client.until_ready()), "T D(1) C(SELECT 1) Z(I)");
}

/// The pools, after a look at everything that is scanned by position.
#[track_caller]
fn collect(pooler: &Pooler) -> Table {
    let [pools, _] = SCANNED.map(|(what, count)| {
        let shown = pooler.console(what);
        assert_eq!(shown.columns.len(), count, "{what}");
        shown
    });
    pools
}

/// Who may come, and how.
const RULES: &str = "\nlocal pgbouncer pgbouncer peer\n\nhost all let_in 127.0.0.1/32 trust\n\
                     host all all 0.0.0.0/0 md5\nhost all all ::/0 md5\n";

/// A cluster of its own, which wants certificates, and an operator that has made some.
struct Scene {
    postgres: Cluster,
    authority: Authority,
    looks_up: Identity,
}

impl Scene {
    fn new() -> Option<Self> {
        let authority = Authority::new("cluster");
        let postgres = Cluster::start_or_skip(ClusterOptions {
            hba: vec![
                format!("hostssl all {LOOKS_UP} 127.0.0.1/32 cert"),
                "hostssl all let_in 127.0.0.1/32 trust".to_owned(),
                "hostssl all by_scram,by_md5 127.0.0.1/32 md5".to_owned(),
                "hostnossl all all 127.0.0.1/32 reject".to_owned(),
            ],
            tls: Some(
                authority
                    .leaf("cluster-rw", &["cluster-rw"])
                    .of_postgresql(&authority),
            ),
            ..ClusterOptions::default()
        })?;
        for sql in [
            "create database app",
            &format!("create role {LOOKS_UP} login"),
            "create role let_in login",
            "create role by_scram login password 'secret'",
            "set password_encryption = md5; create role by_md5 login password 'secret'",
            "create function user_search(uname text) returns table (usename name, passwd text) \
             language sql security definer as \
             'select usename, passwd from pg_shadow where usename = $1'",
        ] {
            postgres.psql("postgres", sql);
        }
        let looks_up = authority.leaf(LOOKS_UP, &[]);
        Some(Self {
            postgres,
            authority,
            looks_up,
        })
    }

    /// Its file: one entry for all databases, users from auth_query, TLS on both sides.
    fn ini(&self) -> Ini {
        let text = format!(
            "\n[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\npool_mode = transaction\n\
             auth_user = {LOOKS_UP}\nauth_query = SELECT usename, passwd FROM public.user_search($1)\n\
             auth_dbname = postgres\n\nadmin_users = pgbouncer\nauth_type = hba\n\
             auth_hba_file = {{dir}}/pg_hba.conf\ndefault_pool_size = 3\n\
             client_tls_ca_file = {{dir}}/client_ca.crt\nclient_tls_cert_file = {{dir}}/server.crt\n\
             client_tls_key_file = {{dir}}/server.key\nclient_tls_sslmode = prefer\n\
             ignore_startup_parameters = extra_float_digits,options\nlog_stats = 0\n\
             server_tls_ca_file = {{dir}}/server_ca.crt\nserver_tls_cert_file = {{dir}}/to_server.crt\n\
             server_tls_key_file = {{dir}}/to_server.key\nserver_tls_sslmode = verify-ca\n",
            self.postgres.port()
        );
        let towards_clients = self.authority.leaf("pooler", &["localhost"]);
        let ini = Ini::from(text.as_str())
            .file("pg_hba.conf", RULES)
            .file("client_ca.crt", &self.authority.pem())
            .file("server_ca.crt", &self.authority.pem());
        self.looks_up
            .of_client(towards_clients.of_client(ini, "server"), "to_server")
    }

    /// Whether PostgreSQL is spoken to over TLS, as this user sees it through the pooler.
    fn psql(&self, pooler: &Pooler, user: &str, password: &str) -> Result<String, String> {
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        self.ask(pooler, user, password, sql)
    }

    fn ask(
        &self,
        pooler: &Pooler,
        user: &str,
        password: &str,
        sql: &str,
    ) -> Result<String, String> {
        let conninfo = format!("dbname=app password='{password}' sslmode=require");
        pooler
            .try_psql(&conninfo, user, sql)
            .map_err(|error| error.to_string())
    }
}

/// Puts a new file in the place of an old one, for a pooler that may look at any time.
fn replace(pooler: &Pooler, name: &str, text: &str) {
    let path = pooler.ini_path().with_file_name(name);
    replace_at(pooler, &path, text);
}

fn replace_at(pooler: &Pooler, path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a directory of ours");
    if let Account::Unprivileged { uid, gid } = pooler.endpoint().account {
        std::os::unix::fs::chown(&new, Some(uid), Some(gid)).expect("root may");
    }
    fs::rename(&new, path).expect("the same directory");
}
