//! PgBouncer's ini dialect.
//!
//! Sections and keys may be indented. `;` and `#` make a comment only at the start of a line. A
//! name is `[A-Za-z0-9_.*-]+` or stands in single quotes. A value runs to the end of its line
//! without the blanks there; quotes in it are part of it, and no line continues another.
//! `%include FILE` reads another file in place, ten deep, in the section where it stands.

mod token;

use std::io;
use std::path::Path;

use token::{Token, Tokens};

use crate::connstr::{self, ConnstrError};
use crate::declare::{Place, Scope};
use crate::draft::{Draft, Numbers};
use crate::keys::{DatabaseOverrides, PeerOverrides, UserOverrides};
use crate::problem::{Fault, Report, Spot, Stopped};
use crate::suggest;
use crate::{CONSOLE_DATABASE, TEMPLATE_DATABASE};

/// How a file is read: the name goes to it as it was written.
pub(crate) type Read<'a> = dyn FnMut(&Path) -> io::Result<String> + 'a;

const INCLUDES_MAX: usize = 10;

/// Reads a whole configuration whose outermost file was already read.
pub(crate) fn read(
    draft: &mut Draft<'_>,
    report: &mut Report,
    file: &str,
    text: &str,
    read: &mut Read<'_>,
) -> Result<(), Stopped> {
    let mut reader = Reader {
        draft,
        report,
        read,
        section: None,
        main_seen: false,
    };
    reader.text(file, text, 0)?;
    if !reader.main_seen {
        let fault = Fault::new("load_init_file: main section missing from config file");
        let hint = "the file needs a line \"[pgbouncer]\"".to_owned();
        reader.report.error(&Spot::file(file), fault.hint(hint))?;
    }
    Ok(())
}

/// Reads a file, with PgBouncer's text if that fails.
pub(crate) fn read_file(read: &mut Read<'_>, file: &str) -> Result<String, Fault> {
    read(Path::new(file)).map_err(|error| {
        let text = error.to_string();
        // The system's text, without the number that Rust adds to it.
        let reason = text.split(" (os error").next().unwrap_or(&text);
        Fault::new(format!("could not load file \"{file}\": {reason}"))
    })
}

struct Reader<'a, 'b, 'r> {
    draft: &'a mut Draft<'b>,
    report: &'a mut Report,
    read: &'a mut Read<'r>,
    section: Option<Place>,
    main_seen: bool,
}

impl Reader<'_, '_, '_> {
    fn text(&mut self, file: &str, text: &str, depth: usize) -> Result<(), Stopped> {
        for token in Tokens::new(text) {
            match token {
                Token::Section { name, line } => self.section(file, line, name)?,
                Token::Pair { name, value, line } => self.pair(file, line, name, value)?,
                Token::Include { target, line } => self.include(file, line, target, depth)?,
                Token::Broken { line, why } => {
                    let text =
                        format!("syntax error in configuration ({file}:{line}), stopping loading");
                    self.report
                        .error(&Spot::line(file, line), Fault::new(text).hint(why.hint()))?;
                }
            }
        }
        Ok(())
    }

    fn section(&mut self, file: &str, line: usize, name: &str) -> Result<(), Stopped> {
        let spot = Spot::line(file, line);
        let places = [Place::Global, Place::Database, Place::User, Place::Peer];
        self.section = places.into_iter().find(|place| place.section() == name);
        if self.section.is_none() {
            let text = format!("invalid section \"{name}\" in configuration ({file}:{line})");
            let nearest = suggest::nearest(name, places.iter().map(|place| place.section()));
            let hint = nearest.map(|section| format!("did you mean [{section}]?"));
            return self.report.error(&spot, Fault::new(text).hint(hint));
        }
        if self.section == Some(Place::Global) {
            if self.main_seen && self.report.is_checking() {
                let text = "a second [pgbouncer] section sets every key back to its default";
                self.report.warning(&spot, Fault::new(text));
            }
            self.main_seen = true;
            self.draft.begin_main();
        }
        Ok(())
    }

    fn include(
        &mut self,
        file: &str,
        line: usize,
        target: &str,
        depth: usize,
    ) -> Result<(), Stopped> {
        let spot = Spot::line(file, line);
        if depth >= INCLUDES_MAX {
            let text = format!("include nesting level too deep ({file}:{line}), stopping loading");
            return Err(self.report.fatal(&spot, Fault::new(text)));
        }
        let outcome = match read_file(self.read, target) {
            Ok(text) => self.text(target, &text, depth + 1),
            Err(fault) => self.report.error(&spot, fault),
        };
        if outcome.is_err() {
            self.report.follow_up(format!(
                "error processing include file in configuration ({file}:{line}), stopping loading"
            ));
        }
        outcome
    }

    fn pair(&mut self, file: &str, line: usize, name: &str, value: &str) -> Result<(), Stopped> {
        let spot = Spot::setting(file, line, name, value);
        if self.report.is_checking() {
            self.warn_of_a_comment(&spot, value);
        }
        if [name, value]
            .iter()
            .any(|text| text.contains(char::REPLACEMENT_CHARACTER))
        {
            let fault = Fault::new("a byte that is not UTF-8 is read as another character");
            self.report.warning(&spot, fault);
        }
        match self.section {
            None => {
                let text = format!("load_init_file: value without section: {name}");
                self.report.error(&spot, Fault::new(text))
            }
            Some(Place::Global) => self.draft.main(self.report, &spot, name, value),
            Some(Place::Database) if name == CONSOLE_DATABASE => {
                let text = format!("database name \"{name}\" is reserved");
                self.report.error(&spot, Fault::new(text))
            }
            Some(Place::Database) if name == TEMPLATE_DATABASE => self.template(&spot, value),
            Some(Place::Database) => {
                let keys: DatabaseOverrides = fields(self.report, &spot, value)?;
                self.draft.database(self.report, &spot, name, keys);
                Ok(())
            }
            Some(Place::User) => {
                let keys: UserOverrides = fields(self.report, &spot, value)?;
                self.draft.user(self.report, &spot, name, keys);
                Ok(())
            }
            Some(Place::Peer) => {
                let Some(id) = self.draft.peer_id(self.report, &spot, name)? else {
                    return Ok(());
                };
                let keys: PeerOverrides = fields(self.report, &spot, value)?;
                self.draft.peer(self.report, &spot, id, keys)
            }
        }
    }

    /// PgBouncer looks into the `*` entry only when a client needs it, so a mistake there must not
    /// keep us from starting: the entry is left out, with a warning. One that is in force is not lost
    /// to a mistake: that is an error as in any other entry.
    fn template(&mut self, spot: &Spot, value: &str) -> Result<(), Stopped> {
        if self.draft.replaces_template() {
            let keys: DatabaseOverrides = fields(self.report, spot, value)?;
            self.draft
                .database(self.report, spot, TEMPLATE_DATABASE, keys);
            return Ok(());
        }
        let mut errors = Report::collecting();
        let keys: DatabaseOverrides = fields(&mut errors, spot, value)?;
        if !errors.has_errors() {
            self.draft
                .database(self.report, spot, TEMPLATE_DATABASE, keys);
            return Ok(());
        }
        for problem in errors.problems {
            let text = format!("{}; the entry is not used", problem.text);
            self.report
                .warning(spot, Fault::new(text).hint(problem.suggestion));
        }
        Ok(())
    }

    fn warn_of_a_comment(&mut self, spot: &Spot, value: &str) {
        let marks = [" ;", "\t;", " #", "\t#"];
        let quotes = value.contains('\'') || value.contains('"');
        if !quotes && marks.iter().any(|mark| value.contains(mark)) {
            let fault = Fault::new("the text after \";\" or \"#\" is part of the value");
            let hint = "a comment needs a line of its own".to_owned();
            self.report.warning(spot, fault.hint(hint));
        }
    }
}

/// Reads the connect string of an entry.
fn fields<S: Scope>(report: &mut Report, spot: &Spot, text: &str) -> Result<S, Stopped> {
    let mut keys = S::default();
    for pair in connstr::pairs(text) {
        match pair {
            Ok((name, value)) => {
                Draft::field(report, spot, &mut keys, name, &value, Numbers::AsPgBouncer)?;
            }
            Err(ConnstrError) => {
                let what = match S::PLACE {
                    Place::User => "user settings",
                    Place::Global | Place::Database | Place::Peer => "connection string",
                };
                let hint = if text.ends_with('\\') {
                    "a line cannot be continued with a backslash"
                } else {
                    "expected key=value pairs divided by spaces; a value cannot be empty"
                };
                let fault = Fault::new(format!("syntax error in {what}"));
                report.error(spot, fault.hint(hint.to_owned()))?;
            }
        }
    }
    Ok(keys)
}
