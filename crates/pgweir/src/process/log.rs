//! The log: PgBouncer's line form on top of `tracing`.
//!
//! ```text
//! 2026-11-21 07:01:21.520 UTC [PID] LEVEL C-0x5: db/user@127.0.0.1:6543 text
//! ```
//! A line is written and flushed before the event macro returns, so whoever reads the file after
//! an answer finds the line that belongs to it. An event's `peer` field is the prefix; `fatal`
//! raises ERROR to FATAL. Names in both are what clients say: whatever else than text is in them becomes
//! a blank, so that nobody can write a line of his own.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pgweir_config::Settings;
use pgweir_console::UnixTime;
use pgweir_net::os_text;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::shared::lock;
use crate::watch::journal::{Event, Journal};

/// From this `verbose` on NOISE is logged.
const NOISE: u8 = 2;

/// Where lines go, and which ones.
#[derive(Debug)]
pub(crate) struct Log {
    verbose: AtomicU8,
    sinks: Mutex<Sinks>,
    /// What was said lately.
    events: Journal,
}

#[derive(Debug, Default)]
struct Sinks {
    quiet: bool,
    file: Option<File>,
    syslog: Option<Syslog>,
}

impl Log {
    /// Starts logging to standard error. To be called once, before anything is logged.
    pub(crate) fn start(quiet: bool, verbose: u8) -> &'static Self {
        let log: &'static Self = Box::leak(Box::new(Self {
            verbose: AtomicU8::new(verbose),
            sinks: Mutex::new(Sinks {
                quiet,
                ..Sinks::default()
            }),
            events: Journal::default(),
        }));
        let subscriber = tracing_subscriber::registry().with(Lines(log));
        // Only a second call could fail, and there is none.
        let _ = tracing::subscriber::set_global_default(subscriber);
        log
    }

    /// `verbose`: 0 logs what PgBouncer does, 1 adds DEBUG, 2 and more NOISE.
    pub(crate) fn set_verbose(&self, verbose: u8) {
        self.verbose.store(verbose, Ordering::Relaxed);
    }

    /// Opens (or reopens, after a rotation) what the configuration wants to be written to.
    ///
    /// # Errors
    /// The text for the log. What could not be opened anew stays in use as it was.
    pub(crate) fn open(&self, settings: &Settings) -> Result<(), String> {
        let path = &settings.logfile;
        let file = match path.as_str() {
            "" => None,
            path => {
                let opened = OpenOptions::new().create(true).append(true).open(path);
                Some(opened.map_err(|error| {
                    format!("could not open logfile {path}: {}", os_text(&error))
                })?)
            }
        };
        let syslog = match settings.syslog {
            false => None,
            true => Some(Syslog::new("/dev/log", settings).map_err(|e| format!("syslog: {e}"))?),
        };
        let mut sinks = lock(&self.sinks);
        sinks.file = file;
        sinks.syslog = syslog;
        Ok(())
    }

    /// As [`Self::open`], for a process that is not going to serve: whatever starts it may throw away what it prints.
    /// Root opens nothing, because the file would be root's.
    pub(crate) fn open_for_a_refusal(&self, settings: &Settings) {
        if !rustix::process::getuid().is_root() {
            // It is said on standard error in any case.
            let _ = self.open(settings);
        }
    }

    /// What was said lately, counted.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.all()
    }

    /// Whether what happens in every transaction is logged.
    #[inline]
    pub(crate) fn is_noisy(&self) -> bool {
        self.verbose.load(Ordering::Relaxed) >= NOISE
    }

    fn shows(&self, level: Level) -> bool {
        let verbose = self.verbose.load(Ordering::Relaxed);
        match level {
            Level::ERROR | Level::WARN | Level::INFO => true,
            Level::DEBUG => verbose >= 1,
            Level::TRACE => verbose >= NOISE,
        }
    }

    fn write(&self, line: &Line) {
        let mut sinks = lock(&self.sinks);
        // A log that cannot be written must not stop the pooler.
        if let Some(file) = &mut sinks.file {
            let _ = file.write_all(line.whole.as_bytes());
        }
        if let Some(syslog) = &sinks.syslog {
            syslog.send(line);
        }
        if !sinks.quiet {
            let _ = io::stderr().write_all(line.whole.as_bytes());
        }
    }
}

/// What an event's level is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rank {
    Fatal,
    Error,
    Warning,
    Log,
    Debug,
    Noise,
}

impl Rank {
    fn of(level: Level, fatal: bool) -> Self {
        match level {
            Level::ERROR if fatal => Self::Fatal,
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Log,
            Level::DEBUG => Self::Debug,
            Level::TRACE => Self::Noise,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Log => "LOG",
            Self::Debug => "DEBUG",
            Self::Noise => "NOISE",
        }
    }

    /// The severity in the system's log, which is spared the details.
    fn syslog_severity(self) -> Option<u8> {
        match self {
            Self::Fatal => Some(2),
            Self::Error => Some(3),
            Self::Warning => Some(4),
            Self::Log => Some(6),
            Self::Debug | Self::Noise => None,
        }
    }
}

/// One line.
struct Line {
    rank: Rank,
    /// With time, process id and level, and the end of the line.
    whole: String,
    /// Where the prefix and the text begin.
    text_at: usize,
}

impl Line {
    fn new(rank: Rank, event: &Text) -> Self {
        let mut whole = String::with_capacity(96 + event.message.len());
        // Writing into a String cannot fail.
        let _ = write!(whole, "{} [{}] {} ", Now, std::process::id(), rank.word());
        let text_at = whole.len();
        if !event.peer.is_empty() {
            let _ = write!(whole, "{} ", event.peer);
        }
        whole.push_str(&event.message);
        whole.push('\n');
        Self {
            rank,
            whole,
            text_at,
        }
    }

    fn text(&self) -> &str {
        self.whole[self.text_at..].trim_end()
    }
}

/// The system's log, by the protocol of RFC 3164.
#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
    path: &'static str,
    facility: u8,
    ident: String,
}

impl Syslog {
    /// For the system's log at `path`. Nobody has to listen there yet, or always: what cannot be
    /// delivered is lost, as with the C library's `syslog`.
    fn new(path: &'static str, settings: &Settings) -> io::Result<Self> {
        let name = &settings.syslog_facility;
        let facility = facility(name).unwrap_or_else(|| {
            tracing::warn!("unknown syslog_facility {name}, using daemon");
            FACILITY_DAEMON
        });
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            path,
            facility,
            ident: settings.syslog_ident.clone(),
        })
    }

    fn send(&self, line: &Line) {
        let Some(severity) = line.rank.syslog_severity() else {
            return;
        };
        let (priority, pid) = (self.facility * 8 + severity, std::process::id());
        let message = format!("<{priority}>{}[{pid}]: {}", self.ident, line.text());
        // A system log that takes nothing must not stop the pooler.
        let _ = self.socket.send_to(message.as_bytes(), self.path);
    }
}

const FACILITY_DAEMON: u8 = 3;

fn facility(name: &str) -> Option<u8> {
    let local = name
        .strip_prefix("local")
        .and_then(|number| number.parse::<u8>().ok());
    match (name, local) {
        (_, Some(number @ 0..=7)) => Some(16 + number),
        ("user", _) => Some(1),
        ("daemon", _) => Some(FACILITY_DAEMON),
        ("auth", _) => Some(4),
        ("authpriv", _) => Some(10),
        _ => None,
    }
}

struct Lines(&'static Log);

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("pgweir") && self.0.shows(*metadata.level())
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let rank = Rank::of(*event.metadata().level(), text.fatal);
        let now = SystemTime::now();
        self.0
            .events
            .note(rank.word(), &text.peer, &text.message, now);
        self.0.write(&Line::new(rank, &text));
    }
}

/// The time in the form of a log line.
struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)).to_string();
        let (time, zone) = seconds.rsplit_once(' ').unwrap_or((&seconds, "UTC"));
        write!(f, "{time}.{:03} {zone}", since.subsec_millis())
    }
}

#[derive(Default)]
struct Text {
    message: String,
    peer: String,
    fatal: bool,
}

impl Visit for Text {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fatal |= field.name() == "fatal" && value;
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let into = match field.name() {
            "message" => &mut self.message,
            "peer" => &mut self.peer,
            _ => return,
        };
        // Writing into a String cannot fail.
        let _ = write!(OneLine(into), "{value:?}");
    }
}

/// Takes in a part of a line: one event is one line, whatever a server or a client put into it.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The two that end lines elsewhere are not among the control characters.
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let mut parts = text.split(breaks);
        self.0.push_str(parts.next().unwrap_or_default());
        for part in parts {
            self.0.push(' ');
            self.0.push_str(part);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
