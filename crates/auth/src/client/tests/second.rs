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

#[test]
fn what_a_login_will_wait_for_is_known_before() {
    let policy = policy(SecretKind::Scram);
    let (password, new, stored) = (plain(PASSWORD), plain(NEW), scram_of(PASSWORD));
    for (first, second) in [
        (&password, None),
        (&password, Some(&new)),
        (&password, Some(&stored)),
        (&stored, Some(&new)),
        (&stored, None),
        (&md5_of(PASSWORD), None),
        (&plain(""), None),
    ] {
        let mut ahead: Vec<_> = policy
            .jobs(USER, first, second)
            .map(|job| job.fingerprint(&policy.process_key))
            .collect();
        let asked = ClientLogin {
            second,
            ..login(PasswordMethod::ScramSha256, Some(first))
        };
        let mut step = ClientAuthentication::start(asked, &policy);
        let mut client = unbound_client(PASSWORD);
        loop {
            step = match step {
                Step::Send(challenge, next) => next.respond(&client(&challenge)),
                Step::Derive(job, next) => {
                    let name = job.fingerprint(&policy.process_key);
                    let at = ahead.iter().position(|known| *known == name);
                    ahead.swap_remove(at.expect("it was known before"));
                    next.resume(job.run())
                }
                Step::Done(_) | Step::Fail(_) => break,
            };
        }
        assert!(ahead.is_empty(), "{first:?} {second:?}");
    }
}
