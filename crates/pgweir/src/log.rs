//! The log: PgBouncer's line form on top of `tracing`.
//!
//! ```text
//! 2026-11-21 07:01:21.520 UTC [PID] LEVEL C-0x5: db/user@127.0.0.1:6543 text
//! ```
//! A line is written and flushed before the event macro returns, so whoever reads the file after
//! an answer finds the line that belongs to it. An event's `peer` field is the prefix; `fatal`
//! raises ERROR to FATAL.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pgweir_config::Settings;
use pgweir_console::UnixTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Where lines go, and which ones.
#[derive(Debug)]
pub(crate) struct Log {
    verbose: AtomicU8,
    sinks: Mutex<Sinks>,
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
                Some(opened.map_err(|error| format!("could not open logfile {path}: {error}"))?)
            }
        };
        let syslog = match settings.syslog {
            false => None,
            true => Some(Syslog::open(settings)?),
        };
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.file = file;
        sinks.syslog = syslog;
        Ok(())
    }

    fn shows(&self, level: Level) -> bool {
        let verbose = self.verbose.load(Ordering::Relaxed);
        match level {
            Level::ERROR | Level::WARN | Level::INFO => true,
            Level::DEBUG => verbose >= 1,
            Level::TRACE => verbose >= 2,
        }
    }

    fn write(&self, line: &str, level: Level, text: &str) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not stop the pooler.
        if let Some(file) = &mut sinks.file {
            let _ = file.write_all(line.as_bytes());
        }
        if let Some(syslog) = &sinks.syslog {
            syslog.send(level, text);
        }
        if !sinks.quiet {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// The system's log, by the protocol of RFC 3164.
#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
    facility: u8,
    ident: String,
}

impl Syslog {
    fn open(settings: &Settings) -> Result<Self, String> {
        const PATH: &str = "/dev/log";
        let facility = facility(&settings.syslog_facility)
            .ok_or_else(|| format!("unknown syslog_facility {}", settings.syslog_facility))?;
        let socket = UnixDatagram::unbound()
            .and_then(|socket| socket.connect(PATH).map(|()| socket))
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(|error| format!("could not open syslog ({PATH}): {error}"))?;
        Ok(Self {
            socket,
            facility,
            ident: settings.syslog_ident.clone(),
        })
    }

    fn send(&self, level: Level, text: &str) {
        let severity = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let (priority, pid) = (self.facility * 8 + severity, std::process::id());
        let message = format!("<{priority}>{}[{pid}]: {text}", self.ident);
        // A system log that takes nothing must not stop the pooler.
        let _ = self.socket.send(message.as_bytes());
    }
}

fn facility(name: &str) -> Option<u8> {
    let local = name
        .strip_prefix("local")
        .and_then(|number| number.parse::<u8>().ok());
    match (name, local) {
        (_, Some(number @ 0..=7)) => Some(16 + number),
        ("user", _) => Some(1),
        ("daemon", _) => Some(3),
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

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR if text.fatal => "FATAL",
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "LOG",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "NOISE",
        };
        let mut line = String::with_capacity(96 + text.message.len());
        let _ = write!(line, "{} [{}] ", Now, std::process::id());
        let stamp = line.len();
        let _ = write!(line, "{level} ");
        if !text.peer.is_empty() {
            let _ = write!(line, "{} ", text.peer);
        }
        // One event is one line, whatever a server or a client put into its text.
        line.extend(
            text.message
                .chars()
                .map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }),
        );
        line.push('\n');
        let text = line.get(stamp..).unwrap_or_default().trim_end();
        self.0.write(&line, *event.metadata().level(), text);
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
        let _ = write!(into, "{value:?}");
    }
}
