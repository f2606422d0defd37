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
        ..Run::default()
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

#[test]
fn a_strict_run_may_have_a_report() {
    let run = Run {
        config: "a.ini".into(),
        strict: true,
        report: Some("r.xml".into()),
        ..Run::default()
    };
    let ways: [&[&str]; 2] = [
        &["--strict", "--report", "r.xml", "a.ini"],
        &["a.ini", "--report=r.xml", "--str"],
    ];
    for words in ways {
        assert_eq!(parsed(words), Ok(Request::Run(run.clone())));
    }
    assert!(parsed(&["--strict=1", "a.ini"]).is_err());
    assert!(parsed(&["a.ini", "--report"]).is_err());
    assert!(parsed(&["-\u{1}", "a.ini"]).is_err());
}

#[test]
fn what_is_cut_means_what_it_means_to_pgbouncer() {
    let run = Run {
        config: "a.ini".into(),
        reboot: true,
        ..Run::default()
    };
    assert_eq!(parsed(&["--re", "a.ini"]), Ok(Request::Run(run)));
}
