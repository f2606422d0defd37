//! `check` finds every problem of a file in one go.

use pgweir_config::{Severity, check};

fn problems(text: &str) -> Vec<String> {
    let problems = check("a.ini", &mut |_| Ok(text.to_owned()));
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn all_problems_are_told_with_line_and_hint() {
    let text = "\
[databases]
app = host=db1 pool_siez=5 port=99999 default_pool_size=3
bar = host=10.0.0.1 \\
  port=5433
[users]
report = query_timeot=5
[pgbouncer]
listen_addr = 127.0.0.1 ; not a comment
Auth_Type = scram-sha-256
pool_mode = transactional
dbname = x
auth_file = f
max_client_conn = 5
max_client_conn = 6
[pgbuncer]
";
    assert_eq!(
        problems(text),
        [
            "a.ini:2: error: unrecognized connection parameter: pool_siez \
             (did you mean \"pool_size\"?)",
            "a.ini:2: error: invalid port: 99999 (expected a whole number from 1 to 65535)",
            "a.ini:2: error: unrecognized connection parameter: default_pool_size \
             (in [databases] this key is called \"pool_size\")",
            "a.ini:3: error: syntax error in connection string \
             (a line cannot be continued with a backslash)",
            "a.ini:4: error: syntax error in connection string \
             (expected key=value pairs divided by spaces; a value cannot be empty)",
            "a.ini:6: error: unrecognized user parameter: query_timeot \
             (did you mean \"query_timeout\"?)",
            "a.ini:8: warning: the text after \";\" or \"#\" is part of the value \
             (a comment needs a line of its own)",
            "a.ini:9: error: unknown parameter: pgbouncer/Auth_Type \
             (names are case-sensitive: write \"auth_type\")",
            "a.ini:10: error: invalid value \"transactional\" for parameter pool_mode in \
             configuration (a.ini:10) (expected one of session, transaction, statement)",
            "a.ini:11: error: unknown parameter: pgbouncer/dbname \
             (this key belongs into [databases])",
            "a.ini:14: warning: max_client_conn is set again; what a.ini:13 says is lost",
            "a.ini:15: error: invalid section \"pgbuncer\" in configuration (a.ini:15) \
             (did you mean [pgbouncer]?)",
        ]
    );
}

#[test]
fn a_second_main_section_is_doubtful() {
    let text = "[databases]\na =\n[pgbouncer]\nauth_file = f\n[pgbouncer]\nauth_file = f\n";
    assert_eq!(
        problems(text),
        ["a.ini:5: warning: a second [pgbouncer] section sets every key back to its default"]
    );
}

#[test]
fn a_missing_file_is_a_problem_too() {
    let problems = check("a.ini", &mut |_| {
        Err(std::io::ErrorKind::PermissionDenied.into())
    });
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Error);
    assert_eq!(problems[0].line, None);
}

#[test]
fn an_include_that_fails_does_not_hide_what_follows() {
    let text = "[pgbouncer]\n%include b.ini\nx = 1\n";
    let problems = check("a.ini", &mut |path| {
        if path.ends_with("a.ini") {
            Ok(text.to_owned())
        } else {
            Err(std::io::ErrorKind::NotFound.into())
        }
    });
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines[..2], [Some(2), Some(3)]);
}
