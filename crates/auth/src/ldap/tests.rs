use proptest::prelude::*;

use super::ber::Reader;
use super::*;
use crate::secret::Password;

fn options(text: &str) -> LdapOptions {
    LdapOptions::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match LdapOptions::parse(text) {
        Ok(options) => panic!("{text}: {options:?}"),
        Err(error) => error.to_string(),
    }
}

fn search_of(text: &str) -> Search {
    match options(text).user_dn {
        UserDn::Search(search) => search,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_user_is_a_pattern_or_looked_for() {
    let simple = options("ldapserver=one ldapport=1389 ldapprefix=\"uid=\" ldapsuffix=\", dc=x\"");
    assert_eq!(simple.hosts, ["one"]);
    assert_eq!((simple.port, simple.security), (1389, Security::None));
    let (prefix, suffix) = ("uid=".to_owned(), ", dc=x".to_owned());
    assert_eq!(simple.user_dn, UserDn::Pattern { prefix, suffix });

    let found = options(
        "ldapserver=\"one two\" , ldapbasedn=\"dc=x\" ldapbinddn=\"cn=\"\"a\"\"\",\
         ldapbindpasswd=geheim ldaptls=1 # why",
    );
    assert_eq!(found.hosts, ["one", "two"]);
    assert_eq!((found.port, found.security), (389, Security::StartTls));
    let UserDn::Search(search) = found.user_dn else {
        panic!("a base DN means a search");
    };
    assert_eq!((search.base.as_str(), search.scope), ("dc=x", Scope::Sub));
    assert_eq!(search.bind_dn, "cn=\"a\"");
    assert_eq!(search.bind_password, Password::new("geheim").unwrap());
}

#[test]
fn names_can_stand_in_quotes_too() {
    let quoted = options("\"ldapserver\"=h \"ldapbasedn\"=\"dc=x\"");
    assert_eq!(quoted, options("ldapserver=h,ldapbasedn=dc=x"));
}

#[test]
fn a_url_says_the_same_in_one_word() {
    let url = options("ldapurl=\"ldap://one:1389/dc=x,dc=y?mail?one\"");
    assert_eq!((&url.hosts[..], url.port), (&["one".to_owned()][..], 1389));
    let search = search_of("ldapurl=\"ldap://one:1389/dc=x%2Cdc=y?mail,uid?ONE\"");
    assert_eq!(url.user_dn, UserDn::Search(search));

    let tls = options("ldapurl=\"ldaps://[::1]/dc=x\"");
    assert_eq!((&tls.hosts[0][..], tls.port), ("::1", 636));
    assert_eq!(tls.security, Security::Ldaps);
    let base_only = search_of("ldapurl=\"ldap://h/dc=x\"");
    assert_eq!(base_only.scope, Scope::Base, "what RFC 4516 says");

    let later = options("ldapurl=\"ldap://one:1/dc=x\" ldapport=2 ldapserver=two");
    assert_eq!((&later.hosts[0][..], later.port), ("two", 2));
}

#[test]
fn without_a_server_the_base_names_the_domain() {
    let found = options("ldapbasedn=\"ou=people, DC=example,dc = org\"");
    assert!(found.hosts.is_empty());
    assert_eq!(found.domain().as_deref(), Some("example.org"));
    assert_eq!(
        options("ldapurl=\"ldap:///dc=a,dc=b\"").domain().as_deref(),
        Some("a.b")
    );
    assert!(refusal("ldapbasedn=\"ou=people\"").starts_with("no LDAP server"));
    assert!(refusal("ldapprefix=uid=").starts_with("no LDAP server"));
}

#[test]
fn options_that_make_no_sense_are_named() {
    for (text, said) in [
        (
            "ldapserver=h",
            "requires argument \"ldapbasedn\", \"ldapprefix\"",
        ),
        (
            "ldapserver=h ldapbasedn=dc=x ldapprefix=uid=",
            "cannot mix options",
        ),
        (
            "ldapserver=h ldapbasedn=dc=x ldapsearchattribute=uid ldapsearchfilter=(a=b)",
            "cannot use ldapsearchattribute together with ldapsearchfilter",
        ),
        (
            "ldapserver=h ldapbasedn=dc=x ldaptls=yes",
            "ldaptls=yes is not possible",
        ),
        (
            "ldapserver=h ldapbasedn=dc=x ldapport=0",
            "ldapport=0 is not possible",
        ),
        (
            "ldapserver=h ldapscheme=ldapi",
            "ldapscheme=ldapi is not possible",
        ),
        ("ldapsrever=h", "invalid LDAP option: \"ldapsrever\""),
        ("ldapserver", "expected name=value, found \"ldapserver\""),
        ("ldapserver= x", "expected name=value"),
        ("ldapserver=\"x", "a double quote is not closed"),
        (
            "ldapurl=http://x/dc=y",
            "could not parse LDAP URL \"http://x/dc=y\"",
        ),
        ("ldapurl=ldap://x:0/dc=y", "\"0\" is no port"),
        ("ldapurl=ldap://x/dc=y??deep", "\"deep\" is no scope"),
        ("ldapurl=ldap://x/dc=%zz", "does not escape a character"),
        (
            "ldapurl=ldap://x/dc=y????!bindname=z",
            "extension \"!bindname=z\"",
        ),
        (
            "ldapurl=ldaps://x/dc=y ldaptls=1",
            "ldaptls=1 cannot be used together with ldaps",
        ),
        (
            "ldapserver=h ldapbasedn=dc=x ldapsearchfilter=\"(a=b\"",
            "closing parenthesis",
        ),
    ] {
        assert!(refusal(text).contains(said), "{text}: {}", refusal(text));
    }
}

#[test]
fn a_password_is_not_shown() {
    let text = format!(
        "{:?}",
        options("ldapserver=h ldapbasedn=dc=x ldapbindpasswd=geheim")
    );
    assert!(!text.contains("geheim"), "{text}");
}

/// A filter as it travels, for reading: tag, content.
fn shown(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::new();
    while !reader.is_empty() {
        let (tag, content) = reader.any().expect("we wrote it");
        let constructed = tag & 0x20 != 0;
        out.push(match constructed {
            true => format!("{tag:x}({})", shown(content)),
            false => format!("{tag:x}:{}", content.escape_ascii()),
        });
    }
    out.join(" ")
}

fn filter(text: &str, user: &str) -> String {
    let parsed = filter::Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut writer = ber::Writer::with_capacity(0);
    parsed.write(user, &mut writer);
    shown(&writer.finish())
}

#[test]
fn filters_of_every_kind() {
    for (text, sent) in [
        ("uid=$username", "a3(4:uid 4:anna)"),
        ("(uid=$username)", "a3(4:uid 4:anna)"),
        ("(mail=$username@x.org)", "a3(4:mail 4:anna@x.org)"),
        (
            "(|(uid=$username)(mail=$username))",
            "a1(a3(4:uid 4:anna) a3(4:mail 4:anna))",
        ),
        (
            "(&(a>=1)(b<=2)(c~=3))",
            "a0(a5(4:a 4:1) a6(4:b 4:2) a8(4:c 4:3))",
        ),
        ("(!(a=*))", "a2(87:a)"),
        ("(a=x*$username*y)", "a4(4:a 30(80:x 81:anna 82:y))"),
        ("(a=*y)", "a4(4:a 30(82:y))"),
        ("(a=\\2a\\c3\\a4)", "a3(4:a 4:*\\xc3\\xa4)"),
        ("(a=)", "a3(4:a 4:)"),
        (
            "(memberOf:1.2.840.113556.1.4.1941:=cn=x)",
            "a9(81:1.2.840.113556.1.4.1941 82:memberOf 83:cn=x)",
        ),
        ("(ou:dn:=x)", "a9(82:ou 83:x 84:\\xff)"),
        ("(&)", "a0()"),
    ] {
        assert_eq!(filter(text, "anna"), sent, "{text}");
    }
}

#[test]
fn a_users_name_never_becomes_part_of_a_filter() {
    let sent = filter("(|(uid=$username)(a=b))", "*)(uid=x");
    assert_eq!(sent, "a1(a3(4:uid 4:*)(uid=x) a3(4:a 4:b))");
    for user in ["*", "a(b", "a)b", "a\\b", "a/b"] {
        let search = search_of("ldapserver=h ldapbasedn=dc=x");
        assert_eq!(request::search(1, &search, user), Err(BadUser));
    }
}

#[test]
fn filters_that_cannot_be_read() {
    for text in [
        "",
        "(",
        "()",
        "(a)",
        "(a=b",
        "(a=b))",
        "(a=b)c",
        "(=b)",
        "(a b=c)",
        "(a=\\2)",
        "(a=\\zz)",
        "(a=**)",
        "(:=x)",
        "(a:b:c:=x)",
        "(|(a=b)c=d)",
    ] {
        assert!(filter::Filter::parse(text).is_err(), "{text}");
    }
    let deep = "(!".repeat(1000) + "(a=b)" + &")".repeat(1000);
    assert_eq!(filter::Filter::parse(&deep), Err(BadFilter::Depth));
}

#[test]
fn requests_are_what_rfc_4511_says() {
    assert_eq!(
        shown(&request::bind(1, "cn=a", b"pw")),
        "30(2:\\x00\\x00\\x00\\x01 60(2:\\x00\\x00\\x00\\x03 4:cn=a 80:pw))"
    );
    assert_eq!(
        shown(&request::start_tls(1)),
        "30(2:\\x00\\x00\\x00\\x01 77(80:1.3.6.1.4.1.1466.20037))"
    );
    assert_eq!(shown(&request::unbind(2)), "30(2:\\x00\\x00\\x00\\x02 42:)");
    let search = search_of("ldapserver=h ldapbasedn=dc=x");
    assert_eq!(
        shown(&request::search(3, &search, "anna").unwrap()),
        "30(2:\\x00\\x00\\x00\\x03 63(4:dc=x a:\\x00\\x00\\x00\\x02 a:\\x00\\x00\\x00\\x00 \
         2:\\x00\\x00\\x00\\x02 2:\\x00\\x00\\x00\\x00 1:\\x00 a3(4:uid 4:anna) 30(4:1.1)))"
    );
}

#[test]
fn a_request_is_written_into_one_buffer() {
    let password = vec![b'p'; 60_000];
    let sent = request::bind(1, "cn=a", &password);
    assert!(
        sent.capacity() < 2 * password.len(),
        "it has not grown, leaving copies"
    );
}

#[test]
fn replies() {
    let read = |bytes: &[u8]| Reply::read(bytes);
    let bound = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
    let outcome = Outcome {
        code: 0,
        text: String::new(),
    };
    let reply = Reply::Done { id: 1, outcome };
    assert_eq!(read(bound), Ok(Some((reply.clone(), 14))));
    let longer = [&bound[..], b"\x30"].concat();
    assert_eq!(read(&longer), Ok(Some((reply, 14))), "the rest stays");
    for len in 0..bound.len() {
        assert_eq!(
            read(&bound[..len]),
            Ok(None),
            "{len} bytes are no message yet"
        );
    }

    let refused = b"\x30\x0f\x02\x01\x02\x61\x0a\x0a\x01\x31\x04\x00\x04\x03bad";
    let Ok(Some((Reply::Done { outcome, .. }, _))) = read(refused) else {
        panic!("{:?}", read(refused));
    };
    assert!(!outcome.is_success());
    assert_eq!(outcome.to_string(), "Invalid credentials (49): bad");

    let entry = b"\x30\x84\x00\x00\x00\x0d\x02\x01\x03\x64\x08\x04\x04dc=x\x30\x00";
    let dn = "dc=x".to_owned();
    assert_eq!(read(entry), Ok(Some((Reply::Entry { id: 3, dn }, 19))));
}

#[test]
fn what_is_no_reply_is_refused_early() {
    let tag = Malformed::Tag {
        found: b'H',
        expected: 0x30,
    };
    assert_eq!(Reply::read(b"HTTP/1.1 400"), Err(tag));
    assert_eq!(Reply::read(b"\x30\x80"), Err(Malformed::Length));
    let huge = Reply::read(b"\x30\x84\x7f\xff\xff\xff");
    assert!(matches!(huge, Err(Malformed::TooLong(_))), "{huge:?}");
    assert_eq!(
        Reply::read(b"\x30\x05\x02\x01\x01\x61\x07"),
        Err(Malformed::Cut)
    );
}

#[test]
fn a_reply_that_is_nested_without_end_is_no_danger() {
    let mut bytes = Vec::new();
    for _ in 0..60_000 {
        let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        // Only the head matters here: the content is the rest of the buffer.
        bytes.splice(0..0, [&[0x30, 0x84][..], &len].concat());
        if bytes.len() > 200_000 {
            break;
        }
    }
    assert!(Reply::read(&bytes).is_err());
}

#[test]
fn ldap_conf_says_what_certificates_must_be_worth() {
    let mut conf = LdapConf::default();
    assert_eq!(conf.requirement, Requirement::Valid);
    conf.read("# BASE x\nTLS_CACERT\t/etc/ssl/ca.pem\nTLS_REQCERT  never \nURI ldap://x\n");
    assert_eq!(conf.ca_file.as_deref(), Some("/etc/ssl/ca.pem"));
    assert_eq!(conf.requirement, Requirement::Nothing);
    conf.read("tls_reqcert demand\ntls_reqcert perhaps\n");
    assert_eq!(conf.requirement, Requirement::Valid);
    conf.set("TLS_REQCERT", "allow");
    assert_eq!(conf.requirement, Requirement::Nothing);
}

proptest! {
    #[test]
    fn no_reply_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = Reply::read(&bytes);
        let mut framed = vec![0x30, bytes.len() as u8];
        framed.extend(bytes);
        let _ = Reply::read(&framed);
    }

    #[test]
    fn no_options_panic(text in "(ldap(server|url|basedn|searchfilter|prefix)=|\"|,| |#|ldap://|[a(%)é?/:=*\\\\]){0,12}") {
        let _ = LdapOptions::parse(&text);
        let _ = filter::Filter::parse(&text);
    }
}
