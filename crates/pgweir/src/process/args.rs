//! The command line: PgBouncer's options as getopt reads them, and commands of our own.
//!
//! Options may stand anywhere, short ones in one word, long ones cut as long as they are not
//! ambiguous. `check`, `convert`, `help` and the operator's commands (see the crate `tool`) are
//! commands, and never the name of a file.

use std::ffi::OsString;

/// What the program is asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// Run the pooler.
    Run(Run),
    /// `check CONFIG`: look at the configuration and say what is wrong with it.
    Check(String),
    /// `convert CONFIG`: write an ini as TOML.
    Convert(String),
    /// One of the operator's commands, with its arguments.
    Tool(Vec<OsString>),
    /// `--version`
    Version,
    /// `--help` and `help`; carries the text.
    Help(&'static str),
}

/// How to run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Run {
    /// The configuration file.
    pub(crate) config: String,
    /// `-d`: in the background.
    pub(crate) daemon: bool,
    /// `-R`: take over from the running process.
    pub(crate) reboot: bool,
    /// `-q`: nothing to standard error.
    pub(crate) quiet: bool,
    /// `-v`, counted.
    pub(crate) verbose: u8,
    /// `-u`: the system user to become.
    pub(crate) user: Option<String>,
    /// `--strict`: make errors of what goes wrong behind a pooler.
    pub(crate) strict: bool,
    /// `--report`: the file for what a strict run has found.
    pub(crate) report: Option<String>,
    /// `--from-env`: write the configuration from the environment, if there is none.
    pub(crate) from_env: bool,
}

/// Stand for short options where there are none.
const FROM_ENV: char = '\0';
const STRICT: char = '\u{1}';
const REPORT: char = '\u{2}';

/// The commands with their help.
const COMMANDS: [(&str, &str); 3] = [
    ("check", include_str!("help/check.txt")),
    ("convert", include_str!("help/convert.txt")),
    ("help", HELP),
];

const HELP: &str = include_str!("help/pgweir.txt");

/// Long options and the short ones that mean the same.
const OPTIONS: [(&str, char); 10] = [
    ("quiet", 'q'),
    ("verbose", 'v'),
    ("help", 'h'),
    ("daemon", 'd'),
    ("version", 'V'),
    ("reboot", 'R'),
    ("user", 'u'),
    ("from-env", FROM_ENV),
    ("strict", STRICT),
    ("report", REPORT),
];

/// Reads the arguments behind the program's name.
///
/// # Errors
/// The text to show, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut run = Run::default();
    let mut words = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    if let Some(first) = arguments.peek().and_then(|first| first.to_str())
        && pgweir_tool::is_command(first)
    {
        return Ok(Request::Tool(arguments.collect()));
    }
    let mut arguments = arguments.map(|argument| {
        argument
            .into_string()
            .map_err(|bad| format!("argument is not UTF-8: {}", bad.display()))
    });
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        let request = if argument == "--" {
            for word in arguments.by_ref() {
                words.push(word?);
            }
            None
        } else if let Some(long) = argument.strip_prefix("--") {
            read_long(&mut run, long, &mut arguments, &words)?
        } else if let Some(shorts) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            read_shorts(&mut run, shorts, &mut arguments, &words)?
        } else {
            words.push(argument);
            None
        };
        if let Some(request) = request {
            return Ok(request);
        }
    }
    understand(run, &words)
}

/// A long option; a request if it decides alone what is to be done.
fn read_long(
    run: &mut Run,
    long: &str,
    rest: &mut impl Iterator<Item = Result<String, String>>,
    words: &[String],
) -> Result<Option<Request>, String> {
    let (given, mut value) = match long.split_once('=') {
        Some((given, value)) => (given, Some(value.to_owned())),
        None => (long, None),
    };
    let (name, short) = full_name(given)?;
    match (short, &value) {
        ('u' | REPORT, None) => {
            let missing = || Err(format!("option '--{name}' requires an argument"));
            value = Some(rest.next().unwrap_or_else(missing)?);
        }
        ('u' | REPORT, Some(_)) | (_, None) => {}
        (_, Some(_)) => return Err(format!("option '--{name}' doesn't allow an argument")),
    }
    Ok(apply(run, short, value, words))
}

/// The option that a name, which may be cut, means.
fn full_name(given: &str) -> Result<(&'static str, char), String> {
    let meant: Vec<_> = OPTIONS
        .into_iter()
        .filter(|(name, _)| name.starts_with(given))
        .collect();
    match meant.as_slice() {
        [] => Err(format!("unrecognized option '--{given}'")),
        [option] => Ok(*option),
        // What is cut means an option of PgBouncer's, if it can.
        [(name, short), (_, STRICT | REPORT)] if *name != given && !short.is_control() => {
            Ok((name, *short))
        }
        several => match several.iter().find(|(name, _)| *name == given) {
            Some(option) => Ok(*option),
            None => {
                let names: Vec<_> = several
                    .iter()
                    .map(|(name, _)| format!("'--{name}'"))
                    .collect();
                let names = names.join(" ");
                Err(format!(
                    "option '--{given}' is ambiguous; possibilities: {names}"
                ))
            }
        },
    }
}

/// Short options in one word; a request if one of them decides alone what is to be done.
fn read_shorts(
    run: &mut Run,
    shorts: &str,
    rest: &mut impl Iterator<Item = Result<String, String>>,
    words: &[String],
) -> Result<Option<Request>, String> {
    let mut characters = shorts.chars();
    while let Some(short) = characters.next() {
        if short.is_control() || !OPTIONS.iter().any(|(_, known)| *known == short) {
            return Err(format!("invalid option -- '{short}'"));
        }
        let mut value = None;
        if short == 'u' {
            let attached: String = characters.by_ref().collect();
            let missing = || Err("option requires an argument -- 'u'".to_owned());
            value = Some(match attached.is_empty() {
                true => rest.next().unwrap_or_else(missing)?,
                false => attached,
            });
        }
        if let Some(request) = apply(run, short, value, words) {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

/// Takes an option in; a request if it decides alone what is to be done.
fn apply(run: &mut Run, short: char, value: Option<String>, words: &[String]) -> Option<Request> {
    match short {
        'q' => run.quiet = true,
        'v' => run.verbose = run.verbose.saturating_add(1),
        'd' => run.daemon = true,
        'R' => run.reboot = true,
        'u' => run.user = value,
        FROM_ENV => run.from_env = true,
        STRICT => run.strict = true,
        REPORT => run.report = value,
        'V' => return Some(Request::Version),
        _ => return Some(Request::Help(help_of(words.first()).unwrap_or(HELP))),
    }
    None
}

/// What the words beside the options ask for.
fn understand(run: Run, words: &[String]) -> Result<Request, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [command @ ("check" | "convert"), ..] = words[..]
        && run != Run::default()
    {
        return Err(format!("{command} takes no options"));
    }
    match words[..] {
        ["help"] => Ok(Request::Help(HELP)),
        ["help", command] if pgweir_tool::is_command(command) => {
            Ok(Request::Tool(vec![command.into(), "--help".into()]))
        }
        ["help", command] => match help_of(Some(&command.to_owned())) {
            Some(text) => Ok(Request::Help(text)),
            None => Err(unknown(command)),
        },
        ["check", file] => Ok(Request::Check(file.to_owned())),
        ["convert", file] => Ok(Request::Convert(file.to_owned())),
        [command @ ("check" | "convert"), ..] => {
            Err(format!("{command} needs one configuration file"))
        }
        [file] => Ok(Request::Run(Run {
            config: file.to_owned(),
            ..run
        })),
        [word, _] if nearest(word).is_some() => Err(unknown(word)),
        _ => Err("no configuration file specified".to_owned()),
    }
}

fn help_of(command: Option<&String>) -> Option<&'static str> {
    let known = COMMANDS
        .iter()
        .find(|(name, _)| Some(*name) == command.map(String::as_str));
    known.map(|(_, help)| *help)
}

fn unknown(command: &str) -> String {
    match nearest(command) {
        Some(name) => format!("unknown command '{command}' (did you mean '{name}'?)"),
        None => format!("unknown command '{command}'"),
    }
}

/// The command that a word may have been meant to be.
fn nearest(word: &str) -> Option<&'static str> {
    let own = COMMANDS.iter().map(|(name, _)| *name);
    pgweir_config::nearest(word, own.chain(pgweir_tool::COMMANDS.iter().copied()))
}

#[cfg(test)]
mod tests;
