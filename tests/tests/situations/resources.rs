//! Something is larger than it may be, or the process has no file left.
//!
//! Memory is not here: nothing counts it. What a client can make the pooler hold is bounded where it is read, and what the
//! kernel refuses ends the process. A socket that cannot be made for want of memory is told like one for want of files,
//! as 53200: the table of that has its own tests, because no limit on a process makes the kernel say it.

use std::path::Path;
use std::time::Duration;

use pgweir_tests::{Account, Batch, Ini, Pooler, RawClient, eventually, story};

use crate::scene::{INSERT, PATIENCE, Scene, WAYS, forms};

/// `max_packet_size` of these tests.
const SIZE_MAX: usize = 10_000;

/// A message over the limit in every form, and all that has been told by then. In a login no message but the password is
/// read: see `a_password_over_the_limit_is_refused`.
fn too_large() -> [(&'static str, Batch, &'static str); 6] {
    let text = "x".repeat(SIZE_MAX);
    let insert = format!("insert into trace values ('{text}')");
    let copy = Batch::new().query("copy trace from stdin");
    [
        ("simple", Batch::new().query(&insert), ""),
        ("extended", Batch::new().run(&insert).sync(), ""),
        (
            "pipelined",
            Batch::new().run(INSERT).run(&insert).sync(),
            "",
        ),
        ("copy", copy.copy_data(text.as_bytes()).copy_done(), "G "),
        (
            "transaction",
            Batch::new().query("begin").query(INSERT).query(&insert),
            "C(BEGIN) Z(T) C(INSERT 0 1) Z(T) ",
        ),
        (
            "values",
            Batch::new()
                .parse("", "insert into trace values ($1)")
                .bind("", "", &[&text])
                .execute("")
                .sync(),
            "",
        ),
    ]
}

#[test]
fn a_message_over_the_limit_ends_the_connection_and_nothing_else() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("max_packet_size", SIZE_MAX)) else {
            return;
        };
        scene.serves_again(vec![scene.client()]);
        for (form, batch, told) in too_large() {
            let mut client = scene.client();
            client.send(&batch);
            let said = client.until_closed();
            let error = way.closed("54000", "bad packet header: '");
            let error = error.trim_end_matches(')');
            let at = said
                .find("E(")
                .unwrap_or_else(|| panic!("{form}, {way:?}: {said}"));
            // What was right before it may have been answered or not.
            assert!(told.starts_with(&said[..at]), "{form}, {way:?}: {said}");
            assert!(said[at..].starts_with(error), "{form}, {way:?}: {said}");
            assert_eq!(said.matches("E(").count(), 1, "{form}, {way:?}: {said}");
        }
        scene.serves_again(vec![scene.client()]);
    }
}

#[test]
fn a_length_that_no_protocol_has_is_no_matter_of_size() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("max_packet_size", SIZE_MAX)) else {
            return;
        };
        for bytes in [b"Q\xff\xff\xff\xff", b"Q\0\0\0\x03"] {
            let mut client = scene.client();
            client.send_bytes(bytes);
            let said = client.until_closed();
            assert!(said.starts_with("E(FATAL 08P01 "), "{way:?}: {said}");
        }
    }
}

#[test]
fn a_password_over_the_limit_is_refused() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("auth_type", "plain")) else {
            return;
        };
        let name = scene.tenant.name.as_str();
        let mut client = scene.connect();
        client.start_login(&[("user", name), ("database", name)]);
        client.finish_login().expect_err("it asks for a password");
        client.send(&Batch::new().password(&[b'x'; 70_000]));
        let said = client.until_closed();
        assert_eq!(said, way.closed("54000", "bad packet"), "{way:?}");
    }
}

/// Only a login has a startup message.
#[test]
fn a_startup_message_over_the_limit_is_refused() {
    const STARTUP_MAX: usize = 10_000;
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = scene.tenant.name.as_str();
        let login = |size: usize| {
            let parameters = [("user", name), ("database", name), ("application_name", "")];
            let names: usize = parameters.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
            let text = "x".repeat(size - 8 - names - 1);
            let mut client = scene.connect();
            client.start_login(&[parameters[0], parameters[1], ("application_name", &text)]);
            client
        };
        assert_eq!(login(STARTUP_MAX).finish_login(), Ok(()), "{way:?}");
        let said = login(STARTUP_MAX + 1).until_closed();
        let text = "bad packet header: '0000271100030000'";
        assert_eq!(said, way.closed("53400", text), "{way:?}");
    }
}

const NO_FILES: &str = "the pooler can open no more files";

/// From now on the process can open no more files than it has, until it is let.
struct NoFiles<'a> {
    pooler: &'a Pooler,
}

impl<'a> NoFiles<'a> {
    fn begin(pooler: &'a Pooler) -> Self {
        let open = std::fs::read_dir(format!("/proc/{}/fd", pooler.pid)).expect("it runs");
        let open: Vec<u32> = open
            .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let lowest_free = (0..).find(|number| !open.contains(number));
        let no_files = Self { pooler };
        no_files.limit(lowest_free.expect("not all numbers are open"));
        no_files
    }

    fn limit(&self, files: u32) {
        let pid = self.pooler.pid.to_string();
        let limit = format!("--nofile={files}:");
        // As who runs the pooler: another needs a right that root does not have everywhere.
        let account = Account::choose().expect("as when the pooler was started");
        let done = account
            .command(Path::new("prlimit"), &self.pooler.socket_dir)
            .args(["--pid", &pid, &limit])
            .status();
        assert!(done.is_ok_and(|status| status.success()), "prlimit");
    }

    fn end(self) {
        self.limit(500);
    }
}

/// A client in login is told at the door: see the next test.
#[test]
fn who_needs_a_server_where_no_file_is_left_is_not_told_of_postgresql() {
    for way in WAYS {
        let timeouts = |ini: Ini| {
            ini.set("query_wait_timeout", "0.3")
                .set("server_login_retry", 1)
        };
        let Some(scene) = Scene::new(way, timeouts) else {
            return;
        };
        scene.serves_again(vec![scene.client()]);
        let mut operator = scene.operator();
        let mut kept = Vec::new();
        for (form, batch) in forms() {
            let mut client = scene.client();
            scene.lose_servers();
            eventually(
                PATIENCE,
                || operator.table("show servers").rows.len(),
                |servers| *servers == 0,
            );
            let no_files = NoFiles::begin(&scene.pooler);
            client.send(&batch);
            if way.codes == "postgres" {
                let answer = client.until_ready();
                assert_eq!(
                    story(&answer),
                    format!("E(53000 {NO_FILES}) Z(I)"),
                    "{form}, {way:?}"
                );
                let (detail, hint) = answer[0].explanation();
                for text in [detail, hint] {
                    assert!(!text.contains("login"), "{form}, {way:?}: {text}");
                }
                kept.push(client);
            } else {
                let said = client.until_closed();
                let cached = format!("failing, cached error: {NO_FILES} (server_login_retry))");
                let told = said == "E(FATAL 08P01 query_wait_timeout)" || said.ends_with(&cached);
                assert!(told, "{form}, {way:?}: {said}");
            }
            no_files.end();
        }
        eventually(
            PATIENCE,
            || scene.client().query("select 1"),
            |answer| answer == "T D(1) C(SELECT 1) Z(I)",
        );
        scene.serves_again(kept);
    }
}

/// In the dialect of PgBouncer whoever comes waits at the door, as there. A refusal at the door is in the clear, as
/// PostgreSQL's own where it cannot start a process.
#[test]
fn who_comes_where_no_file_is_left_is_told_so_at_the_door() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let mut operator = scene.operator();
        let no_files = NoFiles::begin(&scene.pooler);
        let budget = operator.table("show budget");
        let files = budget.find("name", "open files").expect("a row");
        assert_eq!(files.get("binding"), Some("yes"), "{way:?}");
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
        if way.codes == "postgres" {
            for _ in 0..3 {
                let mut late = RawClient::connect(scene.pooler.port);
                late.send_bytes(&SSL_REQUEST);
                assert_eq!(
                    late.until_closed(),
                    way.closed("53000", NO_FILES),
                    "{way:?}"
                );
            }
            no_files.end();
        } else {
            let mut late = RawClient::connect(scene.pooler.port);
            late.send_bytes(&SSL_REQUEST);
            assert!(late.is_silent_for(Duration::from_millis(300)), "{way:?}");
            no_files.end();
            let answer = if way.encrypted { b'S' } else { b'N' };
            assert_eq!(late.read_byte(), Ok(answer), "{way:?}");
        }
        scene.serves_again(vec![scene.client()]);
    }
}
