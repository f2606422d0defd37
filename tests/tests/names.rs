//! The promise: hosts given by name are used as the name server says, also when it changes its mind; and of several
//! hosts or addresses each gets its share, or one of them all until it fails.

use std::{
    net::TcpListener,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Cluster, ClusterOptions, Ini, NameServer, Pooler, RawClient, Tenant, eventually, start,
};

const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];
const SOON: Duration = Duration::from_secs(5);

#[test]
fn an_answer_is_kept_and_shown_for_as_long_as_the_configuration_says() {
    let Some(scene) = Scene::new() else { return };
    let pooler = scene.start("db.example.test", |ini| ini.set("dns_max_ttl", 3600));
    let clients: Vec<_> = (0..3).map(|_| scene.busy(&pooler)).collect();
    assert_eq!(
        scene.names.asked("db.example.test"),
        1,
        "one answer for three servers"
    );
    let hosts = pooler.console("show dns_hosts");
    let row = hosts.find("hostname", "db.example.test").expect("a row");
    assert_eq!(row.get("addrs"), Some("127.0.0.1:0"));
    assert!((3590..=3600).contains(&row.number("ttl")), "{hosts:?}");
    let zones = pooler.console("show dns_zones");
    let row = zones.find("zonename", "example.test").expect("a row");
    assert_eq!((row.number("serial"), row.number("count")), (0, 1));
    let lists = pooler.console("show lists");
    let items = |name| lists.find("list", name).map(|row| row.number("items"));
    assert_eq!((items("dns_names"), items("dns_zones")), (Some(1), Some(1)));
    drop(clients);
}

#[test]
fn addresses_of_one_name_are_used_in_turn() {
    let Some(scene) = Scene::new() else { return };
    scene.names.set("db.example.test", &[ONE, TWO]);
    let pooler = scene.start("db.example.test", |ini| ini);
    let _clients: Vec<_> = (0..4).map(|_| scene.busy(&pooler)).collect();
    assert_eq!(
        servers(&pooler),
        ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"]
    );
}

#[test]
fn servers_at_an_address_that_is_gone_are_replaced() {
    let Some(scene) = Scene::new() else { return };
    let pooler = scene.start("db.example.test", |ini| ini.set("dns_max_ttl", "0.2"));
    let mut lent = scene.busy(&pooler);
    drop(scene.busy(&pooler));
    assert_eq!(servers(&pooler), ["127.0.0.1", "127.0.0.1"]);

    scene.names.set("db.example.test", &[TWO]);
    // All old ones are taken, so that another one is opened and, when the old answer has expired, the name asked
    // again.
    let second = scene.busy(&pooler);
    let mut more = Vec::new();
    let another = || {
        thread::sleep(Duration::from_millis(200));
        more.push(scene.busy(&pooler));
        servers(&pooler)
    };
    eventually(SOON, another, |at| at.contains(&"127.0.0.2".to_owned()));
    assert!(
        lent.query("select 1").contains("D(1)"),
        "a lent one is left alone"
    );
    assert_eq!(lent.query("commit"), "C(COMMIT) Z(I)");
    drop((second, more));
    eventually(
        SOON,
        || servers(&pooler),
        |at| at.iter().all(|at| at == "127.0.0.2"),
    );
}

#[test]
fn a_zone_whose_serial_grows_is_asked_again_before_its_time() {
    let Some(scene) = Scene::new() else { return };
    scene.names.set_serial("example.test", 7);
    let pooler = scene.start("db.example.test", |ini| {
        ini.set("dns_max_ttl", 3600)
            .set("dns_zone_check_period", "0.4")
    });
    drop(scene.busy(&pooler));
    let serial = || {
        let zones = pooler.console("show dns_zones");
        zones
            .find("zonename", "example.test")
            .map(|row| row.number("serial"))
    };
    eventually(SOON, serial, |serial| *serial == Some(7));
    let settled = || scene.names.asked("db.example.test");
    eventually(SOON, settled, |asked| *asked == 2);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(settled(), 2, "a serial that stays is no reason to ask");

    scene.names.set("db.example.test", &[TWO]);
    scene.names.set_serial("example.test", 8);
    eventually(SOON, || servers(&pooler), Vec::is_empty);
    assert_eq!(serial(), Some(8));
    let log = pooler.log();
    assert!(
        log.contains("zone 'example.test' serial changed: old=7 new=8"),
        "{log}"
    );
    let _client = scene.busy(&pooler);
    assert_eq!(servers(&pooler), ["127.0.0.2"]);
}

#[test]
fn a_name_that_is_unknown_is_asked_again_after_its_own_time() {
    let Some(scene) = Scene::new() else { return };
    let pooler = scene.start("later.example.test", |ini| {
        ini.set("dns_nxdomain_ttl", "0.2")
            .set("server_login_retry", "0.2")
            .set("query_wait_timeout", 10)
    });
    let waiting = std::thread::spawn({
        let (port, name) = (pooler.port, scene.tenant.name.clone());
        move || RawClient::login(port, &name, &name).value("select 1")
    });
    eventually(
        SOON,
        || pooler.log(),
        |log| log.contains("server DNS lookup failed"),
    );
    assert!(
        pooler
            .log()
            .contains("DNS lookup failed: later.example.test"),
        "{}",
        pooler.log()
    );
    scene.names.set("later.example.test", &[ONE]);
    assert_eq!(waiting.join().expect("it waits"), "1");
}

#[test]
fn the_hosts_file_counts_with_a_resolv_conf_of_ones_own_too() {
    let Some(scene) = Scene::new() else { return };
    let pooler = scene.start("localhost", |ini| ini);
    let _client = scene.busy(&pooler);
    assert_eq!(servers(&pooler), ["127.0.0.1"]);
    assert_eq!(scene.names.asked("localhost"), 0);
}

#[test]
fn hosts_of_a_list_are_used_in_turn() {
    let Some(scene) = Scene::new() else { return };
    for hosts in ["127.0.0.1,127.0.0.2", "db.example.test,127.0.0.2"] {
        let pooler = scene.start(hosts, |ini| ini);
        let _clients: Vec<_> = (0..4).map(|_| scene.busy(&pooler)).collect();
        let at = servers(&pooler);
        assert_eq!(
            at,
            ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"],
            "{hosts}"
        );
        let shown = pooler.console("show databases");
        let row = shown.find("name", &scene.tenant.name).expect("a row");
        assert_eq!(row.get("load_balance_hosts"), Some("round-robin"));
    }
}

#[test]
fn one_host_of_a_list_has_them_all_until_it_fails() {
    let Some(scene) = Scene::new() else { return };
    // Accepts and says nothing, or refuses, or has no address.
    let silent = TcpListener::bind(("127.0.0.3", scene.tenant.postgres.port())).expect("a port");
    for (failing, reason) in [
        ("127.0.0.3", "closing because: connect timeout"),
        ("127.0.0.4", "closing because: connect failed"),
        (
            "unknown.example.test",
            "closing because: server DNS lookup failed",
        ),
    ] {
        let hosts = format!("{failing},127.0.0.2,127.0.0.1");
        let pooler = scene.start_with(&hosts, "load_balance_hosts=disable", |ini| {
            ini.set("server_connect_timeout", 1)
                .set("server_login_retry", "0.2")
        });
        let _clients: Vec<_> = (0..3).map(|_| scene.busy(&pooler)).collect();
        assert_eq!(
            servers(&pooler),
            ["127.0.0.2"; 3],
            "{failing}: {}",
            pooler.log()
        );
        assert_eq!(
            pooler.log().matches(reason).count(),
            1,
            "{failing}: {}",
            pooler.log()
        );
    }
    drop(silent);
}

#[test]
fn a_slow_name_server_holds_up_nobody_else() {
    let Some(scene) = Scene::new() else { return };
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let conf = format!(
        "nameserver {}\noptions timeout:5 attempts:1\n",
        deaf.local_addr().expect("bound")
    );
    let here = format!("host=127.0.0.1 port={}", scene.tenant.postgres.port());
    let pooler = scene.start("slow.example.test", |ini| {
        ini.file("resolv.conf", &conf)
            .database("here", &format!("{here} dbname={}", scene.tenant.name))
    });
    let mut waiting = RawClient::connect(pooler.port);
    let name = &*scene.tenant.name;
    waiting.start_login(&[("user", name), ("database", name)]);
    let started = Instant::now();
    let mut client = RawClient::login(pooler.port, "here", name);
    assert_eq!(client.value("select 1"), "1");
    assert!(started.elapsed() < Duration::from_secs(4));
}

/// The addresses of all servers, sorted.
fn servers(pooler: &Pooler) -> Vec<String> {
    let shown = pooler.console("show servers");
    let mut at: Vec<_> = shown
        .iter()
        .filter_map(|row| row.get("addr").map(str::to_owned))
        .collect();
    at.sort();
    at
}

/// A PostgreSQL at two addresses, and a name server that knows both.
struct Scene {
    tenant: Tenant,
    names: NameServer,
}

impl Scene {
    #[track_caller]
    fn new() -> Option<Self> {
        static POSTGRES: OnceLock<Option<Cluster>> = OnceLock::new();
        let options = || ClusterOptions {
            conf: vec!["listen_addresses = '127.0.0.1,127.0.0.2'".to_owned()],
            hba: vec!["host all all 127.0.0.0/8 trust".to_owned()],
            ..ClusterOptions::default()
        };
        if !cfg!(target_os = "linux") {
            pgweir_tests::skip("only Linux has all of 127.0.0.0/8");
            return None;
        }
        let postgres = POSTGRES.get_or_init(|| Cluster::start_or_skip(options()));
        let names = NameServer::new();
        names.set("db.example.test", &[ONE]);
        Some(Self {
            tenant: Tenant::of(postgres.as_ref()?),
            names,
        })
    }

    #[track_caller]
    fn start(&self, hosts: &str, change: impl FnOnce(Ini) -> Ini) -> Pooler {
        self.start_with(hosts, "", change)
    }

    #[track_caller]
    fn start_with(&self, hosts: &str, more: &str, change: impl FnOnce(Ini) -> Ini) -> Pooler {
        let entry = format!("host={hosts} port={} {more}", self.tenant.postgres.port());
        let ini = self
            .tenant
            .ini()
            .database(&self.tenant.name, &entry)
            .set("resolv_conf", "{dir}/resolv.conf")
            .file("resolv.conf", &self.names.resolv_conf());
        start(change(ini))
    }

    /// A client in a transaction, which keeps a server to itself.
    #[track_caller]
    fn busy(&self, pooler: &Pooler) -> RawClient {
        let mut client = self.tenant.client(pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        client
    }
}
