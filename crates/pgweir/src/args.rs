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
    /// `--from-env`: write the configuration from the environment, if there is none.
    pub(crate) from_env: bool,
}

/// Stands for a short option where there is none: no argument can have it.
const NO_SHORT: char = '\0';

/// The commands with their help.
const COMMANDS: [(&str, &str); 3] = [
    ("check", include_str!("help/check.txt")),
    ("convert", include_str!("help/convert.txt")),
    ("help", HELP),
];

const HELP: &str = include_str!("help/pgweir.txt");

/// Long options and the short ones that mean the same.
const OPTIONS: [(&str, char); 8] = [
    ("quiet", 'q'),
    ("verbose", 'v'),
    ("help", 'h'),
    ("daemon", 'd'),
    ("version", 'V'),
    ("reboot", 'R'),
    ("user", 'u'),
    ("from-env", NO_SHORT),
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
        ('u', None) => {
            let missing = || Err(format!("option '--{name}' requires an argument"));
            value = Some(rest.next().unwrap_or_else(missing)?);
        }
        ('u', Some(_)) | (_, None) => {}
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
        if !OPTIONS.iter().any(|(_, known)| *known == short) {
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
        NO_SHORT => run.from_env = true,
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
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Request, String> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn one_file_is_run() {
        let run = Run {
            config: "a.ini".into(),
            ..Run::default()
        };
        assert_eq!(parsed(&["a.ini"]), Ok(Request::Run(run)));
        assert_eq!(
            parsed(&["check", "a.ini"]),
            Ok(Request::Check("a.ini".into()))
        );
        assert_eq!(
            parsed(&["convert", "a.ini"]),
            Ok(Request::Convert("a.ini".into()))
        );
    }

    #[test]
    fn the_environment_may_be_asked_by_a_long_option_only() {
        let run = Run {
            config: "a.ini".into(),
            from_env: true,
            ..Run::default()
        };
        assert_eq!(
            parsed(&["--from-env", "a.ini"]),
            Ok(Request::Run(run.clone()))
        );
        assert_eq!(parsed(&["--from", "a.ini"]), Ok(Request::Run(run)));
        assert!(parsed(&["-f", "a.ini"]).is_err());
    }

    #[test]
    fn flags_are_short_in_one_word_or_long_and_cut() {
        let run = Run {
            config: "a.ini".into(),
            daemon: true,
            quiet: true,
            reboot: true,
            verbose: 2,
            user: Some("pg".into()),
            from_env: false,
        };
        let ways: [&[&str]; 5] = [
            &["-dqRvv", "-u", "pg", "a.ini"],
            &["a.ini", "-d", "-q", "-R", "-v", "-v", "-upg"],
            &[
                "--daemon",
                "--quiet",
                "--reboot",
                "--verbose",
                "--verbose",
                "--user=pg",
                "a.ini",
            ],
            &[
                "--da", "--q", "--reb", "--verb", "--verb", "--u", "pg", "a.ini",
            ],
            &["-dqRvvupg", "--", "a.ini"],
        ];
        for way in ways {
            assert_eq!(parsed(way), Ok(Request::Run(run.clone())), "{way:?}");
        }
    }

    #[test]
    fn exactly_one_file_is_needed() {
        for words in [&[][..], &["a", "b"], &["-q"], &["a", "--", "-b"]] {
            assert_eq!(parsed(words), Err("no configuration file specified".into()));
        }
        for words in [&["check"][..], &["check", "a", "b"]] {
            assert_eq!(
                parsed(words),
                Err("check needs one configuration file".into())
            );
        }
        assert_eq!(
            parsed(&["-d", "convert", "a.ini"]),
            Err("convert takes no options".into())
        );
    }

    #[test]
    fn a_file_may_be_called_like_a_command_or_an_option() {
        for name in ["./check", "./help", "-"] {
            let run = Run {
                config: name.into(),
                ..Run::default()
            };
            assert_eq!(parsed(&[name]), Ok(Request::Run(run)));
        }
    }

    #[test]
    fn unknown_flags_are_told_as_getopt_does() {
        for (words, text) in [
            (&["-x", "a.ini"][..], "invalid option -- 'x'"),
            (&["-qx"], "invalid option -- 'x'"),
            (&["--nonsense"], "unrecognized option '--nonsense'"),
            (&["-u"], "option requires an argument -- 'u'"),
            (&["--user"], "option '--user' requires an argument"),
            (
                &["--daemon=x"],
                "option '--daemon' doesn't allow an argument",
            ),
            (
                &["--ver"],
                "option '--ver' is ambiguous; possibilities: '--verbose' '--version'",
            ),
        ] {
            assert_eq!(parsed(words), Err(text.to_owned()));
        }
    }

    #[test]
    fn every_command_has_its_help() {
        for (name, text) in COMMANDS {
            for words in [[name, "--help"], [name, "-h"], ["help", name]] {
                assert_eq!(parsed(&words), Ok(Request::Help(text)), "{words:?}");
            }
            assert!(text.contains("Exit codes: "), "{name}");
            assert!(HELP.contains(&format!("  pgweir {name} ")), "{name}");
        }
        for words in [
            &["help"][..],
            &["--help"],
            &["-qh", "a.ini"],
            &["--help", "check"],
        ] {
            assert_eq!(parsed(words), Ok(Request::Help(HELP)), "{words:?}");
        }
    }

    #[test]
    fn the_first_word_may_be_an_operators_command() {
        let words = ["leaks", "--json", "-p", "7"];
        let request = Request::Tool(words.iter().map(OsString::from).collect());
        assert_eq!(parsed(&words), Ok(request));
        let help = Request::Tool(vec!["kill".into(), "--help".into()]);
        assert_eq!(parsed(&["help", "kill"]), Ok(help));
        for name in pgweir_tool::COMMANDS {
            assert!(HELP.contains(&format!("  pgweir {name} ")), "{name}");
        }
        // A file may be called like one.
        let run = Run {
            config: "./leaks".into(),
            ..Run::default()
        };
        assert_eq!(parsed(&["./leaks"]), Ok(Request::Run(run)));
    }

    #[test]
    fn a_misspelt_command_is_told_what_it_may_have_been() {
        assert_eq!(
            parsed(&["chek", "a.ini"]),
            Err("unknown command 'chek' (did you mean 'check'?)".into())
        );
        assert_eq!(
            parsed(&["help", "convrt"]),
            Err("unknown command 'convrt' (did you mean 'convert'?)".into())
        );
        assert_eq!(parsed(&["help", "x"]), Err("unknown command 'x'".into()));
    }
}
