//! While a password is being changed, two let a client in.

use super::*;

const NEW: &str = "battery staple";

fn with_both<'a>(
    method: PasswordMethod,
    first: &'a Secret,
    second: &'a Secret,
    given: &str,
) -> Transcript {
    let asked = ClientLogin {
        second: Some(second),
        ..login(method, Some(first))
    };
    let step = ClientAuthentication::start(asked, &policy(SecretKind::Plain));
    play(step, unbound_client(given))
}

const METHODS: [PasswordMethod; 3] = [
    PasswordMethod::Cleartext,
    PasswordMethod::Md5,
    PasswordMethod::ScramSha256,
];

#[test]
fn both_let_in_whatever_is_asked_for() {
    for method in METHODS {
        let (first, second) = (plain(NEW), plain(PASSWORD));
        for given in [NEW, PASSWORD] {
            let played = with_both(method, &first, &second, given);
            assert!(played.end.is_ok(), "{method:?} {given}");
        }
        let played = with_both(method, &first, &second, "neither");
        assert_eq!(played.cause(), Some(&Cause::WrongPassword), "{method:?}");
    }
}

#[test]
fn a_verifier_and_a_password_are_hashed_with_the_salt_of_the_verifier() {
    let (stored, password) = (scram_of(PASSWORD), plain(NEW));
    for (first, second) in [(&stored, &password), (&password, &stored)] {
        for given in [NEW, PASSWORD] {
            let played = with_both(PasswordMethod::ScramSha256, first, second, given);
            assert!(played.end.is_ok(), "{first:?} {given}");
            // The keys of the verifier serve at PostgreSQL, the others nowhere.
            let is_stored = matches!(played.end, Ok(Proof::ScramStored(_)));
            assert_eq!(is_stored, given == PASSWORD, "{first:?} {given}");
        }
    }
}

#[test]
fn of_two_verifiers_with_two_salts_scram_knows_the_first() {
    let (first, second) = (scram_of(NEW), scram_of(PASSWORD));
    let played = with_both(PasswordMethod::ScramSha256, &first, &second, NEW);
    assert!(played.end.is_ok());
    let played = with_both(PasswordMethod::ScramSha256, &first, &second, PASSWORD);
    assert_eq!(played.cause(), Some(&Cause::WrongPassword));
    // A password that is sent as it is can be held against both.
    for given in [NEW, PASSWORD] {
        let played = with_both(PasswordMethod::Cleartext, &first, &second, given);
        assert!(played.end.is_ok(), "{given}");
    }
}

#[test]
fn an_empty_second_secret_lets_nobody_in() {
    for method in METHODS {
        let played = with_both(method, &plain(NEW), &plain(""), "");
        assert!(played.end.is_err(), "{method:?}");
        let played = with_both(method, &plain(""), &plain(PASSWORD), PASSWORD);
        assert!(played.end.is_err(), "{method:?}");
    }
}
