//! The promise: with LDAP the directory decides who gets in, as the options say; and a directory that is slow, gone or
//! hostile costs nobody else anything.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Ini, NameServer, Pooler, RawClient, Slapd, Tenant, console, self_signed_tls,
};

const PASSWORD: &str = "correct horse";
const REFUSED: &str = "E(FATAL 08P01 LDAP authentication failed)";
/// Where a name has more letters than a buffer of 256 bytes would hold.
const LONG: &str = "йцукенгшщзхъфывапролджэячсмитьбю-йцукенгшщзхъфывапролджэячсмитьбю-йцукенгшщзхъфывапролджэячсмитьбю";

#[test]
fn the_directory_decides_whatever_the_way_to_ask_it() {
    let Some(scene) = Scene::new() else { return };
    let Slapd { port, tls_port, .. } = scene.slapd;
    let base = "dc=example,dc=net";
    let rules = [
        format!("ldapserver=127.0.0.1 ldapport={port} ldapprefix=\"uid=\" ldapsuffix=\",{base}\""),
        format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{base}\""),
        format!(
            "ldapserver=127.0.0.1 \"ldapport\"={port} ldapbasedn=\"{base}\" ,ldapsearchfilter=\"uid=$username\""
        ),
        format!(
            "ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{base}\" ldapsearchattribute=cn"
        ),
        format!("ldapurl=\"ldap://127.0.0.1:{port}/{base}?uid?sub\""),
        format!("ldapurl=\"ldap://127.0.0.1:{port}/{base}?cn?one\""),
        format!(
            "ldapurl=\"ldap://127.0.0.1:{port}/{base}??sub?(|(uid=$username)(mail=$username))\""
        ),
        format!("ldapurl=\"ldap://localhost:{port}/{base}?uid?sub\" # by name"),
        format!("ldapserver=\"127.0.0.9 127.0.0.1\" ldapport={port} ldapbasedn=\"{base}\""),
        format!("ldapurl=\"ldaps://127.0.0.1:{tls_port}/{base}?uid?sub\""),
        format!(
            "ldapscheme=ldaps ldapserver=127.0.0.1 ldapport={tls_port} ldapprefix=\"uid=\" ldapsuffix=\",{base}\""
        ),
        format!(
            "ldapserver=127.0.0.1 ldapport={port} ldapprefix=\"uid=\" ldapsuffix=\",{base}\" ldaptls=1"
        ),
        format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{base}\" ldaptls=1"),
    ];
    let pooler = scene.start(&rules[0], "TLS_REQCERT never\n");
    for rule in rules {
        scene.set_rule(&pooler, &rule);
        assert_eq!(
            scene.login(&pooler, PASSWORD),
            Ok(()),
            "{rule}\n{}",
            pooler.log()
        );
        assert_eq!(
            scene.login(&pooler, "wrong"),
            Err(REFUSED.to_owned()),
            "{rule}"
        );
    }
    assert!(
        pooler.log().contains("Invalid credentials (49)"),
        "the log says why"
    );
}

#[test]
fn what_is_no_single_user_or_no_way_to_ask_lets_nobody_in() {
    let Some(scene) = Scene::new() else { return };
    let Slapd { port, tls_port, .. } = scene.slapd;
    let base = "dc=example,dc=net";
    let manager = Slapd::MANAGER;
    let rules = [
        (
            format!(
                "ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{base}\" ldapsearchattribute=mail"
            ),
            "does not exist",
        ),
        (
            format!(
                "ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{base}\" ldapsearchfilter=\"(objectClass=person)\""
            ),
            "is not unique",
        ),
        (
            format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"dc=elsewhere\""),
            "No such object (32)",
        ),
        (
            format!(
                "ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{base}\" ldapbinddn=\"{manager}\" ldapbindpasswd=no"
            ),
            "initial LDAP bind",
        ),
        (
            format!("ldapurl=\"ldap://127.0.0.1:{port}/{base}?uid\""),
            "does not exist",
        ),
        (
            format!("ldapurl=\"ldaps://127.0.0.1:{port}/{base}?uid?sub\""),
            "TLS handshake failed",
        ),
        (
            format!("ldapserver=127.0.0.1 ldapport={tls_port} ldapbasedn=\"{base}\" ldaptls=1"),
            "no LDAP server can be reached",
        ),
        (
            format!("ldapurl=\"ldaps://127.0.0.1:{tls_port}/{base}?uid?sub\" ldaptls=1"),
            "cannot be used together",
        ),
        (
            "ldapserver=127.0.0.1 ldapport=1 ldapprefix=uid=".to_owned(),
            "Connection refused",
        ),
        (
            "ldapserver=no-such-host.invalid ldapprefix=uid=".to_owned(),
            "DNS lookup failed",
        ),
        (
            "ldapserver=127.0.0.1 ldapsrever=x".to_owned(),
            "invalid LDAP option: \"ldapsrever\"",
        ),
        (
            "ldapserver=127.0.0.1".to_owned(),
            "requires argument \"ldapbasedn\"",
        ),
    ];
    let pooler = scene.start(&rules[0].0, "TLS_REQCERT never\n");
    for (rule, reason) in rules {
        scene.set_rule(&pooler, &rule);
        assert_eq!(
            scene.login(&pooler, PASSWORD),
            Err(REFUSED.to_owned()),
            "{rule}"
        );
        assert!(pooler.log().contains(reason), "{rule}: {}", pooler.log());
    }
}

#[test]
fn the_entry_can_be_hidden_from_all_but_the_one_who_searches() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.slapd.port;
    let search =
        format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"ou=hidden,dc=example,dc=net\"");
    let pooler = scene.start(&search, "");
    assert_eq!(scene.login(&pooler, "hidden"), Err(REFUSED.to_owned()));
    let manager = Slapd::MANAGER;
    scene.set_rule(
        &pooler,
        &format!("{search} ldapbinddn=\"{manager}\" ldapbindpasswd=secret"),
    );
    assert_eq!(scene.login(&pooler, "hidden"), Ok(()), "{}", pooler.log());
    assert_eq!(scene.login(&pooler, "secret"), Err(REFUSED.to_owned()));
}

#[test]
fn the_dns_can_name_the_directory() {
    let Some(scene) = Scene::new() else { return };
    let names = NameServer::new();
    names.set_service("_ldap._tcp.example.net", "localhost", scene.slapd.port);
    let with_dns = |rule| {
        let ini = scene.ini(rule).set("resolv_conf", "{dir}/resolv.conf");
        pgweir_tests::start(ini.file("resolv.conf", &names.resolv_conf()))
    };
    let pooler = with_dns("ldapbasedn=\"dc=example,dc=net\"");
    assert_eq!(scene.login(&pooler, PASSWORD), Ok(()), "{}", pooler.log());
    let nowhere = with_dns("ldapbasedn=\"dc=elsewhere,dc=net\"");
    assert_eq!(scene.login(&nowhere, PASSWORD), Err(REFUSED.to_owned()));
    let log = nowhere.log();
    assert!(
        log.contains("DNS lookup failed: _ldap._tcp.elsewhere.net: no such name"),
        "{log}"
    );
}

#[test]
fn certificates_are_checked_as_ldap_conf_says() {
    let Some(scene) = Scene::new() else { return };
    let tls_port = scene.slapd.tls_port;
    let rule = |host| format!("ldapurl=\"ldaps://{host}:{tls_port}/dc=example,dc=net?uid?sub\"");
    let ca = scene.slapd.file("ca.crt", &scene.certificate);
    let stranger = scene.slapd.file("stranger.crt", &self_signed_tls().cert);
    for (conf, host, works) in [
        (format!("TLS_CACERT {}\n", ca.display()), "127.0.0.1", true),
        (format!("TLS_CACERT {}\n", ca.display()), "localhost", true),
        (format!("TLS_CACERT {}\n", ca.display()), "127.0.0.2", false),
        (
            format!("TLS_CACERT {}\n", stranger.display()),
            "127.0.0.1",
            false,
        ),
        (
            format!("TLS_CACERT {}\nTLS_REQCERT allow\n", stranger.display()),
            "127.0.0.1",
            true,
        ),
    ] {
        let pooler = scene.start(&rule(host), &conf);
        let expected = if works {
            Ok(())
        } else {
            Err(REFUSED.to_owned())
        };
        assert_eq!(
            scene.login(&pooler, PASSWORD),
            expected,
            "{conf} {host}: {}",
            pooler.log()
        );
    }
}

#[test]
fn one_set_of_options_can_hold_for_everybody() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.slapd.port;
    let ini = scene
        .tenant
        .ini()
        .set("auth_type", "ldap")
        .set("stats_users", &scene.tenant.name);
    let options = format!("ldapurl=\"ldap://127.0.0.1:{port}/dc=example,dc=net?uid?sub\"");
    let pooler = pgweir_tests::start(ini.clone());
    let missing = Err("E(FATAL 08P01 auth_ldap_options is null)".to_owned());
    assert_eq!(scene.login(&pooler, PASSWORD), missing);

    pooler
        .reload(ini.set("auth_ldap_options", &options))
        .expect("RELOAD");
    assert_eq!(scene.login(&pooler, PASSWORD), Ok(()), "{}", pooler.log());
    assert_eq!(
        scene.login_to(&pooler, "pgbouncer", &scene.tenant.name, PASSWORD),
        Ok(())
    );
    let stranger = scene.login_to(&pooler, &scene.tenant.name, "stranger", PASSWORD);
    assert_eq!(stranger, Err(REFUSED.to_owned()));

    pooler.console("set auth_ldap_options = 'ldapserver=127.0.0.1 ldapport=1 ldapprefix=uid='");
    assert_eq!(scene.login(&pooler, PASSWORD), Err(REFUSED.to_owned()));
}

#[test]
fn nobody_gets_in_without_a_password_or_with_a_filter_for_a_name() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.slapd.port;
    let pooler = scene.start(
        &format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"dc=example,dc=net\""),
        "",
    );
    let empty = Err("E(FATAL 08P01 empty password returned by client)".to_owned());
    assert_eq!(
        scene.login(&pooler, ""),
        empty,
        "to a directory that is nobody in particular"
    );
    let name = &scene.tenant.name;
    let star = scene.login_to(&pooler, name, &format!("{}*", &name[..3]), PASSWORD);
    assert_eq!(star, Err(REFUSED.to_owned()));
    assert!(
        pooler.log().contains("invalid character in user name"),
        "{}",
        pooler.log()
    );
}

#[test]
fn a_distinguished_name_may_be_long_and_in_any_script() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.slapd.port;
    let rule = format!(
        "ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"o={LONG},dc=example,dc=net\" ldapsearchattribute=employeeType"
    );
    let pooler = scene.start(&rule, "");
    assert_eq!(scene.login(&pooler, "long"), Ok(()), "{}", pooler.log());
}

#[test]
fn the_password_serves_to_log_in_to_the_server() {
    let Some(scene) = Scene::new() else { return };
    let (name, port) = (&scene.tenant.name, scene.slapd.port);
    let mut root = scene.tenant.root();
    root.rows(&format!("alter role {name} password '{PASSWORD}'"));
    root.rows(&format!("grant wants_password to {name}"));
    let rule = format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"dc=example,dc=net\"");
    let pooler = scene.start(&rule, "");
    assert_eq!(scene.login(&pooler, PASSWORD), Ok(()), "{}", pooler.log());
}

#[test]
fn a_database_with_its_own_auth_user_cannot_be_used_with_ldap() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.tenant.postgres.port();
    let rule = format!(
        "ldapserver=127.0.0.1 ldapport={} ldapprefix=uid=",
        scene.slapd.port
    );
    let ini = scene.ini(&rule);
    let entry = format!("host=127.0.0.1 port={port} auth_user=postgres");
    let pooler = pgweir_tests::start(ini.database(&scene.tenant.name, &entry));
    let said = Err("E(FATAL 08P01 bouncer config error)".to_owned());
    assert_eq!(scene.login(&pooler, PASSWORD), said);
    assert!(
        pooler
            .log()
            .contains("LDAP can't be used together with database authentication")
    );
}

#[test]
fn a_silent_directory_holds_up_only_those_who_ask_it() {
    let Some(scene) = Scene::new() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let rule = format!("ldapserver=127.0.0.1 ldapport={port} ldapprefix=uid= ldapsuffix=\",dc=x\"");
    let ini = scene.ini(&rule).set("client_login_timeout", 2);
    let pooler = pgweir_tests::start(ini);
    let started = Instant::now();
    let waiting: Vec<RawClient> = (0..50).map(|_| scene.answer(&pooler, PASSWORD)).collect();
    assert_eq!(console(&pooler).value("show version"), "PgBouncer 1.25.2");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "the others are served at once"
    );
    for client in waiting {
        let mut client = client;
        assert_eq!(client.until_closed(), "E(FATAL 08P01 client_login_timeout)");
    }
}

#[test]
fn a_hostile_directory_cannot_harm_the_pooler() {
    let Some(scene) = Scene::new() else { return };
    let mut nested = Vec::new();
    while nested.len() < 200_000 {
        nested.extend_from_slice(&[0x30, 0x84, 0, 3, 0, 0]);
    }
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"\x30\x80".to_vec(),
        b"\x30\x84\xff\xff\xff\xff".to_vec(),
        b"\x30\x00".to_vec(),
        b"\x30\x05\x02\x01\x01\x61\x00".to_vec(),
        nested,
    ] {
        let port = answers_everything_with(answer.clone());
        let rule = format!("ldapserver=127.0.0.1 ldapport={port} ldapbasedn=dc=x");
        let pooler = scene.start(&rule, "");
        let said = scene.login(&pooler, PASSWORD);
        assert_eq!(
            said,
            Err(REFUSED.to_owned()),
            "{:?}",
            &answer[..answer.len().min(20)]
        );
        assert_eq!(console(&pooler).value("show version"), "PgBouncer 1.25.2");
    }
}

/// A server that says the same to whatever it is asked.
fn answers_everything_with(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let serve = move |mut stream: TcpStream| {
        let mut question = [0; 1024];
        while matches!(stream.read(&mut question), Ok(1..)) {
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    };
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

/// A directory that knows the tenant, in three places with three passwords.
struct Scene {
    tenant: Tenant,
    slapd: Slapd,
    certificate: String,
}

impl Scene {
    #[track_caller]
    fn new() -> Option<Self> {
        let tenant = Tenant::new()?;
        let tls = self_signed_tls();
        let certificate = tls.cert.clone();
        let name = &tenant.name;
        let unit = |kind: &str, value: &str| {
            let class = if kind == "ou" {
                "organizationalUnit"
            } else {
                "organization"
            };
            format!(
                "dn: {kind}={value},dc=example,dc=net\nobjectClass: {class}\n{kind}: {value}\n\n"
            )
        };
        let person = |dn: &str, uid: &str, password: &str| {
            format!(
                "dn: {dn},dc=example,dc=net\nobjectClass: inetOrgPerson\nuid: {uid}\nsn: x\ncn: {uid}\n\
                 mail: {uid}@example.net\nuserPassword: {password}\n\n"
            )
        };
        let ldif = [
            person(&format!("uid={name}"), name, PASSWORD),
            unit("ou", "hidden"),
            person("sn=x,ou=hidden", name, "hidden"),
            unit("o", LONG),
            // By another name: a search from the top must find one entry.
            person(&format!("sn=x,o={LONG}"), "other", "long")
                .trim_end()
                .to_owned(),
            format!("\nemployeeType: {name}\n"),
        ];
        let slapd = Slapd::start_or_skip(&tls, &ldif.concat())?;
        Some(Self {
            tenant,
            slapd,
            certificate,
        })
    }

    fn ini(&self, rule: &str) -> Ini {
        self.tenant
            .ini()
            .set("auth_type", "hba")
            .set("auth_hba_file", "{dir}/hba.conf")
            .file("hba.conf", &hba(rule))
    }

    #[track_caller]
    fn start(&self, rule: &str, ldap_conf: &str) -> Pooler {
        let conf = self.slapd.file("ldap.conf", ldap_conf);
        let env =
            [("LDAPCONF", &*conf.to_string_lossy())].map(|(name, path)| (name, path.to_owned()));
        let env = env.each_ref().map(|(name, path)| (*name, path.as_str()));
        match Pooler::start_with_env(&env, self.ini(rule)) {
            Ok(pooler) => pooler,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn set_rule(&self, pooler: &Pooler, rule: &str) {
        pooler.reload(self.ini(rule)).expect("RELOAD");
    }

    fn login(&self, pooler: &Pooler, password: &str) -> Result<(), String> {
        self.login_to(pooler, &self.tenant.name, &self.tenant.name, password)
    }

    fn login_to(
        &self,
        pooler: &Pooler,
        database: &str,
        user: &str,
        password: &str,
    ) -> Result<(), String> {
        let mut client = RawClient::connect(pooler.port);
        client.start_login(&[("user", user), ("database", database)]);
        let asked = client.read().expect("a challenge, or why there is none");
        if asked.tag != b'R' {
            return Err(pgweir_tests::story(&[asked]));
        }
        client.send(&Batch::new().password(format!("{password}\0").as_bytes()));
        client.finish_login()
    }

    /// A client that has sent its password.
    fn answer(&self, pooler: &Pooler, password: &str) -> RawClient {
        let mut client = RawClient::connect(pooler.port);
        let name = &self.tenant.name;
        client.start_login(&[("user", name), ("database", name)]);
        client.read().expect("a challenge");
        client.send(&Batch::new().password(format!("{password}\0").as_bytes()));
        client
    }
}

/// The rule under test, and one for the administrator.
fn hba(rule: &str) -> String {
    format!("host pgbouncer postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 ldap {rule}\n")
}
