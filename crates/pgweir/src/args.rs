//! The command line, as PgBouncer's: short flags may be bundled, long ones have `=VALUE`.

use std::ffi::OsString;

/// What the program is asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// Run the pooler.
    Run(Run),
    /// `check CONFIG`: look at the configuration and say what is wrong with it.
    Check(String),
    /// `--version`
    Version,
    /// `--help`
    Help,
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
}

/// The text of `--help`.
pub(crate) const HELP: &str = "\
pgweir is a connection pooler for PostgreSQL.

Usage:
  pgweir [OPTION]... CONFIG_FILE      run with a PgBouncer ini or a TOML file
  pgweir check CONFIG_FILE            say everything that is wrong with the file

Options:
  -d, --daemon           run in the background (as a daemon)
  -q, --quiet            do not write to standard error
  -R, --reboot           take over from the process that runs with this configuration
  -u, --user=USERNAME    become this system user
  -v, --verbose          log more (may be given twice)
  -V, --version          show the version and exit
  -h, --help             show this help and exit
";

/// Reads the arguments behind the program's name.
///
/// # Errors
/// The text to show, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut run = Run::default();
    let mut files = Vec::new();
    let mut arguments = arguments.into_iter().map(|argument| {
        argument
            .into_string()
            .map_err(|bad| format!("argument is not UTF-8: {}", bad.display()))
    });
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            match (name, value) {
                ("daemon", None) => run.daemon = true,
                ("quiet", None) => run.quiet = true,
                ("reboot", None) => run.reboot = true,
                ("verbose", None) => run.verbose += 1,
                ("version", None) => return Ok(Request::Version),
                ("help", None) => return Ok(Request::Help),
                ("user", Some(user)) => run.user = Some(user),
                ("user", None) => {
                    let missing = "option '--user' requires an argument";
                    run.user = Some(next(&mut arguments, missing)?);
                }
                _ => return Err(format!("unrecognized option '{argument}'")),
            }
        } else if let Some(shorts) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let mut shorts = shorts.chars();
            while let Some(short) = shorts.next() {
                match short {
                    'd' => run.daemon = true,
                    'q' => run.quiet = true,
                    'R' => run.reboot = true,
                    'v' => run.verbose += 1,
                    'V' => return Ok(Request::Version),
                    'h' => return Ok(Request::Help),
                    'u' => {
                        let rest: String = shorts.by_ref().collect();
                        run.user = Some(match rest.is_empty() {
                            true => next(&mut arguments, "option requires an argument -- 'u'")?,
                            false => rest,
                        });
                    }
                    unknown => return Err(format!("invalid option -- '{unknown}'")),
                }
            }
        } else {
            files.push(argument);
        }
    }
    match files.as_slice() {
        [command, file] if command == "check" => Ok(Request::Check(file.clone())),
        [file] => Ok(Request::Run(Run {
            config: file.clone(),
            ..run
        })),
        _ => Err("no configuration file specified".to_owned()),
    }
}

fn next(
    arguments: &mut impl Iterator<Item = Result<String, String>>,
    missing: &str,
) -> Result<String, String> {
    arguments.next().unwrap_or_else(|| Err(missing.to_owned()))
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
    }

    #[test]
    fn flags_are_short_bundled_or_long() {
        let run = Run {
            config: "a.ini".into(),
            daemon: true,
            quiet: true,
            reboot: true,
            verbose: 2,
            user: Some("pg".into()),
        };
        let ways: [&[&str]; 3] = [
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
        ];
        for way in ways {
            assert_eq!(parsed(way), Ok(Request::Run(run.clone())), "{way:?}");
        }
    }

    #[test]
    fn exactly_one_file_is_needed() {
        for words in [&[][..], &["a", "b"], &["-q"]] {
            assert_eq!(parsed(words), Err("no configuration file specified".into()));
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
        ] {
            assert_eq!(parsed(words), Err(text.to_owned()));
        }
    }
}
