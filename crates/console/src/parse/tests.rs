//! The grammar, in examples and laws.

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
