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

use crate::command::{ClientSetting, Command, Fixed, Show, ShutdownMode, Statement};
use crate::reply::CommandError;

/// Limits of words in bytes, quotes included.
const COMMAND_LEN_MAX: usize = 15;
const ARGUMENT_LEN_MAX: usize = 63;
const VALUE_LEN_MAX: usize = 255;

/// Parses one statement.
///
/// An error is one of [`CommandError::Invalid`], `BadArguments`, `DatabaseRequired` and
/// `InvalidClientPointer`.
pub fn parse(text: &str) -> Result<Statement, CommandError> {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> Command {
        match parse(text) {
            Ok(Statement::Run(command)) => command,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    fn error(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    fn set_of(text: &str) -> (String, String) {
        match run(text) {
            Command::Set { key, value } => (key, value),
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn every_table_is_known_in_any_case() {
        for &show in Show::ALL {
            let word = show.word();
            assert_eq!(run(&format!("SHOW {word}")), Command::Show(show));
            assert_eq!(
                run(&format!("select {};", word.to_uppercase())),
                Command::Show(show)
            );
        }
    }

    #[test]
    fn spaces_semicolon_and_quotes_are_free() {
        for text in [
            "show version",
            "  show   version  ;  ",
            "show\nversion\r\n;\n",
            "\"SHOW\" \"VERSION\"",
            "SELECT version",
            "show \"version\"",
        ] {
            assert_eq!(
                parse(text),
                Ok(Statement::Answer(Fixed::Version)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn commands_take_their_arguments() {
        assert_eq!(run("reload"), Command::Reload);
        assert_eq!(run("PAUSE"), Command::Pause(None));
        assert_eq!(run("pause \"\""), Command::Pause(None));
        assert_eq!(
            run("pause \"my \"\"db\"\"\""),
            Command::Pause(Some("my \"db\"".to_owned()))
        );
        assert_eq!(run("resume p0"), Command::Resume(Some("p0".to_owned())));
        assert_eq!(run("suspend;"), Command::Suspend);
        assert_eq!(run("disable P0"), Command::Disable("P0".to_owned()));
        assert_eq!(run("enable p0"), Command::Enable("p0".to_owned()));
        assert_eq!(run("reconnect"), Command::Reconnect(None));
        assert_eq!(run("kill p0"), Command::Kill(Some("p0".to_owned())));
        assert_eq!(
            run("wait_close p0"),
            Command::WaitClose(Some("p0".to_owned()))
        );
        assert_eq!(run("shutdown"), Command::Shutdown(ShutdownMode::Now));
        assert_eq!(
            run("shutdown wait_for_servers"),
            Command::Shutdown(ShutdownMode::WaitForServers)
        );
        assert_eq!(
            run("SHUTDOWN WAIT_FOR_CLIENTS"),
            Command::Shutdown(ShutdownMode::WaitForClients)
        );
    }

    #[test]
    fn set_has_many_spellings() {
        let verbose = || ("verbose".to_owned(), "0".to_owned());
        for text in [
            "SET verbose=0",
            "set verbose to 0",
            "set verbose = '0'  ; ",
            "set \"verbose\"=0",
            "set \"verbose\"to\"0\"",
            "set verbose to0",
            "set verboseto 0",
        ] {
            assert_eq!(set_of(text), verbose(), "{text:?}");
        }
        assert_eq!(set_of("set a = 'it''s; so'").1, "it's; so");
        assert_eq!(set_of("set footo bar").0, "foo");
        assert_eq!(
            set_of("set totoro to to"),
            ("totoro".to_owned(), "to".to_owned())
        );
        assert_eq!(set_of("set verbose=''").1, "");
        assert_eq!(set_of("set Verbose=0").0, "Verbose");
    }

    #[test]
    fn settings_of_postgresql_are_answered_or_ignored() {
        let encoding = Fixed::ShowSetting(ClientSetting::ClientEncoding);
        assert_eq!(
            parse("show Client_Encoding"),
            Ok(Statement::Answer(encoding))
        );
        for text in [
            "SET client_encoding='UTF8'",
            "SET datestyle to 'ISO'",
            "set TIMEZONEto to",
        ] {
            assert_eq!(
                parse(text),
                Ok(Statement::Answer(Fixed::SetIgnored)),
                "{text:?}"
            );
        }
        assert!(error("SHOW extra_float_digits").starts_with("invalid command"));
    }

    #[test]
    fn everything_else_is_invalid() {
        for text in [
            "",
            ";",
            "SHOW",
            "show \"\"",
            "show nosuch",
            "foo",
            "SELECT 1",
            "\"\"",
            "show version; show version",
            "show transaction isolation level",
            "reload foo",
            "shutdown foo",
            "shutdown_now",
            "suspend foo",
            "-- comment",
            "show help foo",
            "BEGIN",
            "DISCARD ALL",
            "show 'version'",
            "show version;;",
            ";show version",
            "show version ; ;",
            "set verbose=-1",
            "set verbose=0.5",
            "set a b = c",
            "set verboseto0",
            "set x",
            "set",
            "SET search_path = a, b",
            "\"sh\"\"ow\" version",
            "show\x0bversion",
            "show \"version",
            "set a = 'b",
            "setverbose=1",
            "show vérsion",
        ] {
            assert_eq!(
                error(text),
                format!("invalid command '{text}', use SHOW HELP;")
            );
        }
    }

    #[test]
    fn long_words_are_bad_arguments() {
        assert!(error("fifteenchars_15").starts_with("invalid command"));
        assert_eq!(error("sixteenchars__16"), "bad arguments");
        assert_eq!(run(&format!("pause {}", "a".repeat(63))).tag(), "PAUSE");
        assert_eq!(error(&format!("pause {}", "a".repeat(64))), "bad arguments");
        assert_eq!(run(&format!("pause \"{}\"", "a".repeat(61))).tag(), "PAUSE");
        assert_eq!(
            error(&format!("pause \"{}\"", "a".repeat(62))),
            "bad arguments"
        );
        assert_eq!(
            set_of(&format!("set a = '{}'", "0".repeat(253))).1.len(),
            253
        );
        assert_eq!(
            error(&format!("set a = '{}'", "0".repeat(254))),
            "bad arguments"
        );
        assert_eq!(
            error(&format!("set {} = 1", "v".repeat(64))),
            "bad arguments"
        );
        assert_eq!(error("set \"\" = 1"), "bad arguments");
    }

    #[test]
    fn a_database_is_required() {
        for text in ["disable", "enable", "disable \"\""] {
            assert_eq!(error(text), "a database is required");
        }
    }

    #[test]
    fn client_ids_are_read_as_scanf_does() {
        for (text, id) in [
            ("1", 1),
            ("\" 12x\"", 12),
            ("12x", 12),
            ("\"+5\"", 5),
            ("\"-1\"", u64::MAX),
            ("99999999999999999999999", u64::MAX),
        ] {
            assert_eq!(run(&format!("kill_client {text}")), Command::KillClient(id));
        }
        for text in [
            "kill_client",
            "kill_client abc",
            "kill_client \"\"",
            "kill_client \"- 1\"",
        ] {
            assert_eq!(error(text), "invalid client pointer supplied");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn no_near_statement_panics(
            text in "(set|SHOW|\"kill\"|to)?[ \n;]{0,2}[a-zé_\"' ;=to]{0,12}(=|to| )?[\"'a-z0-9é;]{0,8}",
        ) {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_database_comes_out_as_it_went_in(name in "[^\"\0]{1,15}(\"[^\"\0]{0,3}){0,2}") {
            prop_assume!(name.len() <= 40);
            let quoted = name.replace('"', "\"\"");
            prop_assert_eq!(run(&format!("pause \"{quoted}\"")), Command::Pause(Some(name)));
        }

        #[test]
        fn a_quoted_value_comes_out_as_it_went_in(value in "[a-z'=;\" ]{0,60}") {
            let quoted = value.replace('\'', "''");
            prop_assert_eq!(set_of(&format!("set k='{quoted}'")).1, value);
        }
    }
}
