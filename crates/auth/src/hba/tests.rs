use std::io;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::ident::IdentMaps;

fn no_files(_: &Path) -> io::Result<String> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn parse_all(text: &str) -> (Hba, Vec<Problem>) {
    let (maps, _) = IdentMaps::parse("staff anna anna\n");
    Hba::parse(text, Path::new("etc/hba.conf"), &maps, &mut no_files)
}

fn parse(text: &str) -> Hba {
    let (hba, problems) = parse_all(text);
    assert_eq!(problems, []);
    hba
}

fn problem(line: &str) -> ProblemKind {
    let (hba, problems) = parse_all(line);
    assert_eq!(hba.rules, [], "{line}");
    problems
        .into_iter()
        .next()
        .map(|problem| problem.kind)
        .unwrap()
}

/// `database user address|unix [tls|replication]`: the line of the rule that decides.
fn line_for(hba: &Hba, connection: &str) -> Option<usize> {
    let mut words = connection.split_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (database, user, address, extra) = (word(), word(), word(), word());
    let address = if address == "unix" {
        None
    } else {
        Some(address.parse().unwrap())
    };
    let connection = Connection {
        database,
        user,
        address,
        tls: extra == "tls",
        replication: extra == "replication",
    };
    hba.rule_for(&connection).map(|rule| rule.line)
}

fn check(rules: &str, table: &[(&str, Option<usize>)]) {
    let hba = parse(rules);
    for (connection, expected) in table {
        assert_eq!(line_for(&hba, connection), *expected, "{connection}");
    }
}

#[test]
fn local_rules_are_for_the_unix_socket_and_the_first_that_fits_decides() {
    check(
        "local shop all peer\nlocal all carl password\nlocal all all md5\nhost all all all trust",
        &[
            ("shop carl unix", Some(1)),
            ("other carl unix", Some(2)),
            ("other anna unix", Some(3)),
            ("shop carl 127.0.0.1", Some(4)),
        ],
    );
    check("host all all all trust", &[("shop anna unix", None)]);
}

#[test]
fn tls_is_wanted_refused_or_ignored() {
    check(
        "hostssl all all 10.0.0.0/8 cert\nhostnossl all all 11.0.0.0/8 md5\nhost all all 12.0.0.0/8 md5",
        &[
            ("db u 10.9.9.9 tls", Some(1)),
            ("db u 10.9.9.9", None),
            ("db u 11.9.9.9 tls", None),
            ("db u 11.9.9.9", Some(2)),
            ("db u 12.9.9.9 tls", Some(3)),
            ("db u 12.9.9.9", Some(3)),
            ("db u 13.9.9.9", None),
        ],
    );
}

#[test]
fn databases_and_users_are_lists_of_names() {
    check(
        "host a,b , c all 10.0.0.0/8 md5\nhost all u1 ,u2,u3 11.0.0.0/8 md5 # comment\n\
         host x,all y,all 12.0.0.0/8 md5",
        &[
            ("a u 10.0.0.1", Some(1)),
            ("b u 10.0.0.1", Some(1)),
            ("c u 10.0.0.1", Some(1)),
            ("d u 10.0.0.1", None),
            ("d u1 11.0.0.1", Some(2)),
            ("d u2 11.0.0.1", Some(2)),
            ("d u3 11.0.0.1", Some(2)),
            ("d u4 11.0.0.1", None),
            ("d u4 12.0.0.1", Some(3)),
        ],
    );
}

#[test]
fn long_lists_of_names_work_as_short_ones() {
    let names: Vec<String> = (0..50).map(|n| format!("d{n}")).collect();
    let hba = parse(&format!("host {} all all trust", names.join(",")));
    for name in &names {
        assert_eq!(line_for(&hba, &format!("{name} u 1.2.3.4")), Some(1));
    }
    assert_eq!(line_for(&hba, "d50 u 1.2.3.4"), None);
}

#[test]
fn quotes_take_the_meaning_from_keywords() {
    let hba = parse("host \"all\" \"q\"\"1 , x\" 10.0.0.0/8 cert");
    let fits = |database, user| {
        let address = Some("10.0.0.1".parse().unwrap());
        let connection = Connection {
            database,
            user,
            address,
            tls: false,
            replication: false,
        };
        hba.rule_for(&connection).is_some()
    };
    assert!(fits("all", "q\"1 , x"));
    assert!(!fits("other", "q\"1 , x"));
    assert!(!fits("all", "q"));
}

#[test]
fn sameuser_is_a_database_named_like_the_user() {
    check(
        "host sameuser all all md5\nhost shop,sameuser carl all trust",
        &[
            ("anna anna 1.2.3.4", Some(1)),
            ("shop anna 1.2.3.4", None),
            ("shop carl 1.2.3.4", Some(2)),
        ],
    );
}

#[test]
fn masks_of_every_length() {
    for bits in 0..=32u32 {
        let base = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - bits).unwrap_or(0));
        let hba = parse(&format!("host all all {base}/{bits} trust"));
        assert_eq!(line_for(&hba, "db u 255.255.255.255"), Some(1), "/{bits}");
        let inside = base.to_bits().checked_sub(1).map(Ipv4Addr::from_bits);
        if let Some(outside) = inside {
            assert_eq!(line_for(&hba, &format!("db u {outside}")), None, "/{bits}");
        }
    }
    check(
        "host all all 128.0.0.0/1 trust\nhost all all 0.0.0.0/0 md5",
        &[
            ("db u 254.1.1.1", Some(1)),
            ("db u 127.1.1.1", Some(2)),
            ("db u ::1", None),
        ],
    );
}

#[test]
fn a_mask_can_stand_in_a_column_of_its_own() {
    check(
        "host all all 127.0.0.0 255.255.255.0 md5\nhost all all fe80:: ffff:: md5\n\
         host all all 10.0.7.0 255.0.255.0 trust",
        &[
            ("db u 127.0.0.9", Some(1)),
            ("db u 127.0.1.9", None),
            ("db u fe80::1", Some(2)),
            ("db u 10.99.7.9", Some(3)),
            ("db u 10.99.8.9", None),
        ],
    );
}

#[test]
fn ipv6_addresses() {
    check(
        "host all all ::1/128 trust\nhost all all ff20::/12 md5\nhost all all fd00::/17 cert",
        &[
            ("db u ::1", Some(1)),
            ("db u ::2", None),
            ("db u ff2f:1::9", Some(2)),
            ("db u ff30::9", None),
            ("db u fd00:1::5", Some(3)),
            ("db u fd00:8000::5", None),
            ("db u 0.0.0.1", None),
        ],
    );
}

#[test]
fn all_addresses_are_of_both_families() {
    check(
        "host shop all all scram-sha-256\nhost shut all all reject",
        &[
            ("shop u 1.2.3.4", Some(1)),
            ("shop u face::1", Some(1)),
            ("shut u face::1", Some(2)),
        ],
    );
}

#[test]
fn physical_replication_needs_its_keyword_and_nothing_else_is_meant_by_it() {
    check(
        "host replication anna ::1/128 trust\nhost shop,replication bob ::1/128 trust\n\
         host all carl ::1/128 trust\nhost \"replication\" dora ::1/128 trust",
        &[
            ("shop anna ::1 replication", Some(1)),
            ("replication anna ::1 replication", Some(1)),
            ("shop anna ::1", None),
            ("replication anna ::1", None),
            ("other bob ::1 replication", Some(2)),
            ("shop bob ::1", Some(2)),
            ("replication bob ::1", None),
            ("shop carl ::1 replication", None),
            ("replication dora ::1", Some(4)),
            ("replication dora ::1 replication", None),
        ],
    );
}

#[test]
fn every_method_is_known() {
    let method = |text: &str| {
        let mut rules = parse(&format!("local all all {text}")).rules;
        rules.pop().unwrap().method
    };
    assert_eq!(method("trust"), Method::Trust);
    assert_eq!(method("reject"), Method::Reject);
    assert_eq!(method("md5"), Method::Md5);
    assert_eq!(method("password"), Method::Password);
    assert_eq!(method("plain"), Method::Password);
    assert_eq!(method("scram-sha-256"), Method::ScramSha256);
    assert_eq!(method("peer"), Method::Peer(None));
    assert_eq!(method("cert # x"), Method::Cert(None));
    assert_eq!(method("pam"), Method::Pam);
    assert!(matches!(method("peer map=staff"), Method::Peer(Some(map)) if map.name == "staff"));
    assert!(matches!(method("cert map=staff"), Method::Cert(Some(map)) if map.name == "staff"));
    let options = "ldapurl=\"ldap://h/dc=a,dc=b?uid\" ldaptls=1";
    assert_eq!(
        method(&format!("ldap {options} # x")),
        Method::Ldap(LdapOptions::parse(options).map(Arc::new))
    );
}

#[test]
fn blank_lines_and_comments_are_no_problem() {
    assert_eq!(parse("\n# x\n \t \x0b\n\t\t# y\r\n").rules, []);
}

#[test]
fn problems_say_what_is_wrong() {
    assert_eq!(
        problem("hostgssenc all all all md5"),
        ProblemKind::Type("hostgssenc".into())
    );
    assert_eq!(
        problem("\"local\" all all md5"),
        ProblemKind::Type("\"local\"".into())
    );
    assert_eq!(
        problem("local a, , md5"),
        ProblemKind::Name {
            column: "database",
            found: "a comma".into()
        }
    );
    assert_eq!(
        problem("local all"),
        ProblemKind::Name {
            column: "user",
            found: "the end of the line".into()
        }
    );
    assert_eq!(
        problem("local samerole all md5"),
        ProblemKind::Group("samerole".into())
    );
    assert_eq!(
        problem("local all +staff md5"),
        ProblemKind::Group("+staff".into())
    );
    assert_eq!(
        problem("host all all samenet md5"),
        ProblemKind::Address("samenet".into())
    );
    assert_eq!(
        problem("host all all 10.0.0.0/33 md5"),
        ProblemKind::Mask("/33".into())
    );
    assert_eq!(
        problem("host all all ::/129 md5"),
        ProblemKind::Mask("/129".into())
    );
    assert_eq!(
        problem("host all all 10.0.0.0/ md5"),
        ProblemKind::Mask("/".into())
    );
    assert_eq!(
        problem("host all all 10.0.0.0/+8 md5"),
        ProblemKind::Mask("/+8".into())
    );
    assert_eq!(
        problem("host all all 10.0.0.0 md5"),
        ProblemKind::Mask("md5".into())
    );
    assert_eq!(
        problem("host all all 10.0.0.0 ff:: md5"),
        ProblemKind::Mask("ff::".into())
    );
    assert_eq!(
        problem("local all all gss"),
        ProblemKind::Method("gss".into())
    );
    assert_eq!(
        problem("local all all \"md5\""),
        ProblemKind::Method("\"md5\"".into())
    );
    assert_eq!(
        problem("local all all peer x=y"),
        ProblemKind::Option("x=y".into())
    );
    assert_eq!(
        problem("local all all peer map=no"),
        ProblemKind::UnknownMap("no".into())
    );
    assert_eq!(
        problem("local all all peer map=staff x"),
        ProblemKind::Trailing("x".into())
    );
    assert_eq!(problem("local all \"all md5"), ProblemKind::OpenQuote);
}

#[test]
fn an_address_that_its_mask_can_never_match_is_a_problem() {
    let kind = problem("host all all 10.1.2.3/8 reject");
    assert_eq!(
        kind.to_string(),
        "address does not match mask: 10.1.2.3 / 255.0.0.0 (did you mean 10.0.0.0?)"
    );
}

#[test]
fn a_bad_line_is_skipped_and_named_and_the_others_count() {
    let (hba, problems) = parse_all("local all all gss\n\nlocal all all trust\n");
    assert_eq!(line_for(&hba, "db u unix"), Some(3));
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0]
            .to_string()
            .starts_with("hba line 1: unsupported method gss")
    );
}

mod name_files {
    use super::*;

    fn parse_with(text: &str, files: &[(&str, &str)]) -> (Hba, Vec<Problem>) {
        let mut read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| no_files(path).unwrap_err())
        };
        Hba::parse(
            text,
            Path::new("etc/hba.conf"),
            &IdentMaps::default(),
            &mut read,
        )
    }

    #[test]
    fn stand_beside_the_file_that_names_them() {
        let files = [
            (
                "etc/users",
                "anna, \"b o b\"\n\n# comment\ncarl dora\n@more/users",
            ),
            ("etc/more/users", "erik"),
            ("/abs/dbs", "all"),
        ];
        let (hba, problems) = parse_with("local @/abs/dbs fritz,@users md5", &files);
        assert_eq!(problems, []);
        for user in ["fritz", "anna", "carl", "dora", "erik"] {
            assert_eq!(
                line_for(&hba, &format!("db {user} unix")),
                Some(1),
                "{user}"
            );
        }
        assert_eq!(line_for(&hba, "db gerd unix"), None);
    }

    #[test]
    fn that_are_missing_spoil_the_line() {
        let (hba, problems) = parse_with("local all @nobody md5", &[]);
        assert_eq!(hba.rules, []);
        assert!(
            problems[0].to_string().contains("etc/nobody"),
            "{}",
            problems[0]
        );
    }

    #[test]
    fn that_name_themselves_end_somewhere() {
        let (_, problems) = parse_with("local all @loop md5", &[("etc/loop", "@loop")]);
        assert!(matches!(problems[0].kind, ProblemKind::FileDepth(_)));
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "(local|host|hostssl| |,|\"|@|/|all|1|10.0.0.0|::|md5|map=|#|\n|é){0,20}") {
        let _ = parse_all(&text);
    }

    #[test]
    fn an_address_matches_exactly_when_its_prefix_does(base: u32, bits in 0..=32u32, address: u32) {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let network = Ipv4Addr::from_bits(base & mask);
        let hba = parse(&format!("host all all {network}/{bits} trust"));
        let address = Ipv4Addr::from_bits(address);
        let expected = (address.to_bits() ^ base) & mask == 0;
        prop_assert_eq!(line_for(&hba, &format!("db u {address}")).is_some(), expected);
    }
}

#[test]
fn whether_anybody_may_get_in_does_not_depend_on_the_user() {
    let admits = |rules: &str, database: &str, address: &str| {
        let connection = Connection {
            database,
            user: "nobody",
            address: Some(address.parse().unwrap()),
            tls: false,
            replication: false,
        };
        parse(rules).admits_somebody(&connection)
    };
    let rules = "host shop anna 10.0.0.0/8 md5\n\
                 host shop all 10.0.0.0/8 reject\n\
                 host all all 10.0.0.0/8 trust\n";
    assert!(admits(rules, "shop", "10.0.0.1"), "anna may");
    assert!(admits(rules, "other", "10.0.0.1"));
    assert!(!admits(rules, "other", "11.0.0.1"), "no rule");
    let (_, without_anna) = rules.split_once('\n').unwrap();
    assert!(!admits(without_anna, "shop", "10.0.0.1"));
    // These turn some away, and others not.
    for first in ["host all anna all reject", "host sameuser all all reject"] {
        let rules = format!("{first}\nhost all all all md5\n");
        assert!(admits(&rules, "shop", "10.0.0.1"), "{first}");
    }
    assert!(admits("host sameuser all all md5\n", "shop", "10.0.0.1"));
    assert!(!admits("hostssl all all all md5\n", "shop", "10.0.0.1"));
    assert!(!admits("local all all md5\n", "shop", "10.0.0.1"));
}
