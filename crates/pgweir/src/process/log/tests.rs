use super::*;

fn line(rank: Rank, peer: &str, message: &str) -> Line {
    let mut event = Text::default();
    for (into, text) in [(&mut event.peer, peer), (&mut event.message, message)] {
        write!(OneLine(into), "{text}").expect("a String takes all");
    }
    Line::new(rank, &event)
}

#[test]
fn an_event_is_one_line_with_its_level() {
    let line = line(Rank::Warning, "C-0x5: db/user@unix:6432", "two\nlines");
    let pid = std::process::id();
    let end = format!(" UTC [{pid}] WARNING C-0x5: db/user@unix:6432 two lines\n");
    assert!(line.whole.ends_with(&end), "{}", line.whole);
    assert_eq!(line.text(), "C-0x5: db/user@unix:6432 two lines");
}

#[test]
fn nothing_in_an_event_makes_a_second_line() {
    let path = std::env::temp_dir().join(format!("pgweir-lines-{}", std::process::id()));
    let log: &'static Log = Box::leak(Box::new(Log {
        verbose: AtomicU8::new(0),
        sinks: Mutex::new(Sinks {
            quiet: true,
            file: File::create(&path).ok(),
            syslog: None,
        }),
        events: Journal::default(),
    }));
    let subscriber = tracing_subscriber::registry().with(Lines(log));
    tracing::subscriber::with_default(subscriber, || {
        let peer = "C-0x5: db\n2026/us\u{1b}[2Ker\r\0\u{85}\u{2028}@unix:6432";
        let database = "db\n2026-11-21 FATAL forged\u{7f}";
        tracing::warn!(peer = %peer, "no such database: {database}");
    });
    let written = std::fs::read_to_string(&path).expect("it was written");
    std::fs::remove_file(&path).expect("it is there");
    let end = "WARNING C-0x5: db 2026/us [2Ker    @unix:6432 \
               no such database: db 2026-11-21 FATAL forged \n";
    assert!(written.ends_with(end), "{written:?}");
    assert_eq!(written.lines().count(), 1, "{written:?}");
    let event = &log.events()[0];
    let kept = format!("{} {}", event.peer, event.text);
    assert!(!kept.contains(char::is_control), "{kept:?}");
}

#[test]
fn the_systems_log_gets_facility_severity_and_name() {
    let path = format!("/tmp/pgweir-log-{}", std::process::id());
    let path: &'static str = path.leak();
    let settings = Settings {
        syslog_facility: "local3".to_owned(),
        syslog_ident: "weir".to_owned(),
        ..Settings::default()
    };
    let syslog = Syslog::new(path, &settings).expect("a socket");
    syslog.send(&line(Rank::Log, "", "nobody listens"));
    let system = UnixDatagram::bind(path).expect("a path of ours");
    for rank in [Rank::Debug, Rank::Log, Rank::Fatal] {
        syslog.send(&line(rank, "", "text"));
    }
    let received = || {
        let mut bytes = [0; 100];
        let len = system.recv(&mut bytes).expect("sent above");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let pid = std::process::id();
    assert_eq!(received(), format!("<158>weir[{pid}]: text"));
    assert_eq!(received(), format!("<154>weir[{pid}]: text"));
    std::fs::remove_file(path).expect("bound above");
}

#[test]
fn facilities_are_those_of_the_manual() {
    let known = ["auth", "authpriv", "daemon", "user", "local0", "local7"];
    let numbers = known.map(|name| facility(name).expect(name));
    assert_eq!(numbers, [4, 10, 3, 1, 16, 23]);
    assert_eq!(facility("local8"), None);
}
