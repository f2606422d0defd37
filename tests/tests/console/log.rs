//! The log.

use super::*;

#[test]
fn hup_reloads_and_opens_the_log_file_again() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("logfile", "{dir}/the.log");
    let pooler = start(ini);
    let log = pooler.socket_dir.join("the.log");
    let moved = pooler.socket_dir.join("the.log.1");
    assert!(fs::read_to_string(&log).is_ok_and(|text| text.contains("process up")));
    fs::rename(&log, &moved).expect("as logrotate does");
    pooler.signal(Signal::HUP);
    eventually(Duration::from_secs(2), || log.exists(), |there| *there);
    tenant.client(&pooler);
    eventually(
        Duration::from_secs(2),
        || fs::read_to_string(&log).unwrap_or_default(),
        |text| text.contains("login attempt"),
    );
    let old = fs::read_to_string(&moved).expect("the old file");
    assert!(old.contains("got SIGHUP, re-reading config"), "{old}");
    assert!(!old.contains("login attempt: db=tenant"), "{old}");
}

#[test]
fn log_lines_have_pgbouncers_form() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let name = &tenant.name;
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    client.send(&Batch::new().terminate());
    let of_client = format!(": {name}/{name}@127.0.0.1:");
    let is_closing = |line: &str| {
        line.contains(" LOG C-0x")
            && line.contains(&of_client)
            && line.ends_with("closing because: client close request (age=0s)")
    };
    let log = eventually(
        Duration::from_secs(2),
        || pooler.log(),
        |log| log.lines().any(is_closing),
    );
    for line in log.lines() {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let [date, time, zone, pid, level, _] = words[..] else {
            panic!("{line}")
        };
        assert!(
            date.len() == 10 && time.len() == 12 && zone == "UTC",
            "{line}"
        );
        assert_eq!(pid, format!("[{}]", pooler.pid));
        assert!(["LOG", "WARNING"].contains(&level), "{line}");
    }
    let port = tenant.postgres.port();
    for text in [
        "process up: ".to_owned(),
        format!("listening on 127.0.0.1:{}", pooler.port),
        "listening on unix:".to_owned(),
        format!("login attempt: db={name} user={name} tls=no replication=no"),
        format!(": {name}/{name}@127.0.0.1:{port} new connection to server (from 127.0.0.1:"),
    ] {
        assert!(log.contains(&text), "{text} is missing in {log}");
    }
}

#[test]
fn what_the_log_does_not_want_is_left_out() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("log_connections", 0)
            .set("log_disconnections", 0)
            .set("log_pooler_errors", 0),
    );
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    client.send(&Batch::new().bind("", "unknown", &[]).sync());
    client.until_closed();
    let log = pooler.log();
    for text in ["login attempt", "closing because", "pooler error"] {
        assert!(!log.contains(text), "{log}");
    }
}
