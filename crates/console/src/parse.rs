//! The console's grammar: from the text of one Query message to a [`Statement`].
//!
//! ```text
//! statement = word [ word ] [ ";" ]
//!           | "set" word ( "=" | "to" ) ( word | string ) [ ";" ]
//! word      = letters, digits, "_", or anything in double quotes
//! string    = anything in single quotes
//! ```
//! Case does not matter, quotes are doubled inside quotes, there are no comments, and a statement may
//! be surrounded by white space. The grammar is PgBouncer's to the letter, oddities included: spaces
//! around `to` may be missing, so `set verboseto 0` sets `verbose`.

use crate::command::{
    ClientSetting, Command, Fixed, HANDOVER_VERSION, Show, ShutdownMode, Statement,
};
use crate::order;
use crate::reply::CommandError;

/// Limits of words in bytes, quotes included.
const COMMAND_LEN_MAX: usize = 15;
const ARGUMENT_LEN_MAX: usize = 63;
const VALUE_LEN_MAX: usize = 255;

/// Parses one statement.
///
/// What is no statement of PgBouncer's may be an order of ours, see [`crate::Order`].
///
/// An error is one of [`CommandError::Invalid`], `BadArguments`, `DatabaseRequired`,
/// `InvalidClientPointer` and `Syntax`.
pub fn parse(text: &str) -> Result<Statement, CommandError> {
    match parse_inherited(text) {
        Err(CommandError::Invalid(echo)) => match order::parse(text) {
            Some(order) => order.map(|order| Statement::Run(Command::Order(order))),
            None => Err(CommandError::Invalid(echo)),
        },
        parsed => parsed,
    }
}

/// PgBouncer's grammar.
fn parse_inherited(text: &str) -> Result<Statement, CommandError> {
    if let Some((word, argument)) = split_command(text) {
        let word = unquote(word, '"', COMMAND_LEN_MAX)?;
        let argument = unquote(argument.unwrap_or_default(), '"', ARGUMENT_LEN_MAX)?;
        return command(&word, argument).unwrap_or_else(|| Err(CommandError::invalid(text)));
    }
    if let Some((key, value)) = split_set(text) {
        let key = unquote(key, '"', ARGUMENT_LEN_MAX)?;
        let quote = if value.starts_with('\'') { '\'' } else { '"' };
        let value = unquote(value, quote, VALUE_LEN_MAX)?;
        return set(key, value);
    }
    Err(CommandError::invalid(text))
}

/// `None` is a command that does not exist in this form.
fn command(word: &str, argument: String) -> Option<Result<Statement, CommandError>> {
    // An empty pair of quotes counts as no argument.
    let argument = Some(argument).filter(|argument| !argument.is_empty());
    let command = match (word.to_ascii_lowercase().as_str(), argument) {
        ("show" | "select", Some(table)) => return show(&table).map(Ok),
        ("reload", None) => Command::Reload,
        ("pause", database) => Command::Pause(database),
        ("resume", database) => Command::Resume(database),
        ("suspend", None) => Command::Suspend,
        // Whoever wants another form is told that there is no such command, as a PgBouncer says.
        ("handover", Some(version)) if version == HANDOVER_VERSION => Command::Handover,
        ("disable", Some(database)) => Command::Disable(database),
        ("enable", Some(database)) => Command::Enable(database),
        ("disable" | "enable", None) => return Some(Err(CommandError::DatabaseRequired)),
        ("reconnect", database) => Command::Reconnect(database),
        ("kill", database) => Command::Kill(database),
        ("kill_client", id) => match scan_id(&id.unwrap_or_default()) {
            Some(id) => Command::KillClient(id),
            None => return Some(Err(CommandError::InvalidClientPointer)),
        },
        ("wait_close", database) => Command::WaitClose(database),
        ("shutdown", mode) => Command::Shutdown(shutdown_mode(mode.as_deref())?),
        _ => return None,
    };
    Some(Ok(Statement::Run(command)))
}

fn show(table: &str) -> Option<Statement> {
    if let Some(setting) = ClientSetting::from_name(table) {
        return Some(Statement::Answer(Fixed::ShowSetting(setting)));
    }
    if table.eq_ignore_ascii_case("help") {
        return Some(Statement::Answer(Fixed::Help));
    }
    if table.eq_ignore_ascii_case("version") {
        return Some(Statement::Answer(Fixed::Version));
    }
    Show::from_word(table).map(|show| Statement::Run(Command::Show(show)))
}

fn shutdown_mode(word: Option<&str>) -> Option<ShutdownMode> {
    match word {
        None => Some(ShutdownMode::Now),
        Some(word) if word.eq_ignore_ascii_case("wait_for_servers") => {
            Some(ShutdownMode::WaitForServers)
        }
        Some(word) if word.eq_ignore_ascii_case("wait_for_clients") => {
            Some(ShutdownMode::WaitForClients)
        }
        Some(_) => None,
    }
}

fn set(key: String, value: String) -> Result<Statement, CommandError> {
    if key.is_empty() {
        return Err(CommandError::BadArguments);
    }
    if ClientSetting::from_name(&key).is_some() {
        return Ok(Statement::Answer(Fixed::SetIgnored));
    }
    Ok(Statement::Run(Command::Set { key, value }))
}

/// A client id as C's `scanf` reads one: leading space and a sign are allowed, what follows the digits
/// is ignored, and a number too large for an id is one that no client has.
fn scan_id(text: &str) -> Option<u64> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let id = digits[..end].parse().unwrap_or(u64::MAX);
    Some(if negative { id.wrapping_neg() } else { id })
}

/// Takes the quotes off a word, if it has any.
fn unquote(word: &str, quote: char, len_max: usize) -> Result<String, CommandError> {
    if word.len() > len_max {
        return Err(CommandError::BadArguments);
    }
    let inner = word
        .strip_prefix(quote)
        .and_then(|rest| rest.strip_suffix(quote));
    let doubled: String = [quote, quote].iter().collect();
    Ok(inner.map_or_else(
        || word.to_owned(),
        |inner| inner.replace(&doubled, &quote.to_string()),
    ))
}

/// The parts of `word [ word ] [ ";" ]`, quotes still on.
fn split_command(text: &str) -> Option<(&str, Option<&str>)> {
    let mut scan = Scan(text);
    scan.space();
    let word = scan.word()?;
    let argument = if scan.space() { scan.word() } else { None };
    scan.is_at_end().then_some((word, argument))
}

/// The parts of `set word ( "=" | "to" ) ( word | string ) [ ";" ]`, quotes still on.
fn split_set(text: &str) -> Option<(&str, &str)> {
    let mut scan = Scan(text);
    scan.space();
    scan.keyword("set")?;
    if !scan.space() {
        return None;
    }
    if let Some(key) = scan.quoted('"') {
        return Some((key, set_value(scan)?));
    }
    // An unquoted key may run into `to`; the longest key that leaves a whole statement wins.
    let run = scan.clone().word()?;
    (1..=run.len()).rev().find_map(|key_len| {
        let (key, rest) = scan.0.split_at(key_len);
        Some((key, set_value(Scan(rest))?))
    })
}

fn set_value(mut scan: Scan<'_>) -> Option<&str> {
    scan.space();
    scan.keyword("=").or_else(|| scan.keyword("to"))?;
    scan.space();
    let value = scan.quoted('\'').or_else(|| scan.word())?;
    scan.is_at_end().then_some(value)
}

/// The rest of a statement. Methods move it forward only when they find what they look for.
#[derive(Clone)]
struct Scan<'t>(&'t str);

impl<'t> Scan<'t> {
    /// Skips white space; tells whether there was any.
    fn space(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
        let found = rest.len() < self.0.len();
        self.0 = rest;
        found
    }

    fn keyword(&mut self, keyword: &str) -> Option<()> {
        let (head, rest) = self.0.split_at_checked(keyword.len())?;
        self.0 = head.eq_ignore_ascii_case(keyword).then_some(rest)?;
        Some(())
    }

    /// A quoted or bare word, quotes included.
    fn word(&mut self) -> Option<&'t str> {
        self.quoted('"').or_else(|| {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = self.0.find(|c| !is_word(c)).unwrap_or(self.0.len());
            (end > 0).then(|| self.take(end))
        })
    }

    /// Text in quotes, with them.
    fn quoted(&mut self, quote: char) -> Option<&'t str> {
        let mut rest = self.0.strip_prefix(quote)?;
        loop {
            rest = &rest[rest.find(quote)? + 1..];
            match rest.strip_prefix(quote) {
                Some(after_pair) => rest = after_pair,
                None => return Some(self.take(self.0.len() - rest.len())),
            }
        }
    }

    /// Whether nothing is left but white space and one semicolon.
    fn is_at_end(&self) -> bool {
        let mut scan = self.clone();
        scan.space();
        if scan.keyword(";").is_some() {
            scan.space();
        }
        scan.0.is_empty()
    }

    fn take(&mut self, len: usize) -> &'t str {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests;
