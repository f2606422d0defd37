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
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

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
    file: Option<(String, File)>,
}

impl Log {
    /// Starts logging to standard error. To be called once, before anything is logged.
    pub(crate) fn start(quiet: bool, verbose: u8) -> &'static Self {
        let log: &'static Self = Box::leak(Box::new(Self {
            verbose: AtomicU8::new(verbose),
            sinks: Mutex::new(Sinks { quiet, file: None }),
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

    /// Opens (or reopens, after a rotation) the log file. An empty path closes it.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub(crate) fn open_file(&self, path: &str) -> io::Result<()> {
        let file = match path {
            "" => None,
            path => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                Some((path.to_owned(), file))
            }
        };
        self.sinks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .file = file;
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

    fn write(&self, line: &str) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not stop the pooler.
        if let Some((_, file)) = &mut sinks.file {
            let _ = file.write_all(line.as_bytes());
        }
        if !sinks.quiet {
            let _ = io::stderr().write_all(line.as_bytes());
        }
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
        let _ = write!(line, "{} [{}] {level} ", Now, std::process::id());
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
        self.0.write(&line);
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
