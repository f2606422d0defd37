mod channel_binding;
mod second;

use std::num::NonZeroU32;

use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::password;
use proptest::prelude::*;

use super::*;
use crate::exchange::Mechanism;
use crate::scram::base64;

const USER: &str = "anna";
const PASSWORD: &str = "correct horse";
const CERTIFICATE_HASH: &[u8] = b"hash of our certificate";

fn policy(unknown_looks_like: SecretKind) -> Policy {
    let count = NonZeroU32::new(10).unwrap();
    Policy {
        process_key: ProcessKey::new([42; 32]),
        scram_iterations: Iterations::new(count).unwrap(),
        unknown_looks_like,
    }
}

fn plain(text: &str) -> Secret {
    Secret::Plain(Password::new(text).unwrap())
}

fn md5_of(text: &str) -> Secret {
    Secret::parse(password::md5(text.as_bytes(), USER).as_bytes()).unwrap()
}

fn scram_of(text: &str) -> Secret {
    Secret::parse(password::scram_sha_256(text.as_bytes()).as_bytes()).unwrap()
}

fn secret_of(kind: SecretKind, text: &str) -> Secret {
    match kind {
        SecretKind::Plain => plain(text),
        SecretKind::Md5 => md5_of(text),
        SecretKind::Scram => scram_of(text),
    }
}

fn login(method: PasswordMethod, secret: Option<&Secret>) -> ClientLogin<'_> {
    ClientLogin {
        user: USER,
        method,
        secret,
        second: None,
        channel_binding: ChannelBinding::Unavailable,
        md5_salt: [1, 2, 3, 4],
        nonce: Nonce([5; 18]),
    }
}

/// What we sent, how many jobs there were, and how it ended.
struct Transcript {
    sent: Vec<Challenge>,
    jobs: usize,
    end: Result<Proof, Failure>,
}

impl Transcript {
    fn refusal(&self) -> Option<Refusal> {
        self.end.as_ref().err().map(|failure| failure.refusal)
    }

    fn cause(&self) -> Option<&Cause> {
        self.end.as_ref().err().map(|failure| &failure.cause)
    }
}

/// Plays the whole exchange with a client that is a function from challenge to payload.
fn play(mut step: Step, mut client: impl FnMut(&Challenge) -> Vec<u8>) -> Transcript {
    let (mut sent, mut jobs) = (Vec::new(), 0);
    let end = loop {
        step = match step {
            Step::Send(challenge, next) => {
                let payload = client(&challenge);
                sent.push(challenge);
                next.respond(&payload)
            }
            Step::Derive(job, next) => {
                jobs += 1;
                next.resume(job.run())
            }
            Step::Done(success) => {
                let (last, proof) = success.into_parts();
                if let Some(challenge) = last {
                    assert!(client(&challenge).is_empty());
                    sent.push(challenge);
                }
                break Ok(proof);
            }
            Step::Fail(failure) => break Err(failure),
        };
    };
    Transcript { sent, jobs, end }
}

/// The client of rust-postgres, which also checks our signature.
fn postgres_client(
    password: &str,
    binding: sasl::ChannelBinding,
) -> impl FnMut(&Challenge) -> Vec<u8> {
    let password = password.to_owned();
    let mut scram =
        sasl::ScramSha256::new(password.as_bytes(), sasl::ChannelBinding::unsupported());
    let mut binding = Some(binding);
    move |challenge| match challenge {
        Challenge::CleartextPassword => [password.as_bytes(), b"\0"].concat(),
        Challenge::Md5Password { salt } => {
            let hash = md5_hash(USER.as_bytes(), password.as_bytes(), *salt);
            [hash.as_bytes(), b"\0"].concat()
        }
        Challenge::Sasl(mechanisms) => {
            let binding = binding.take().unwrap();
            scram = sasl::ScramSha256::new(password.as_bytes(), binding);
            initial_response(mechanisms[0].name(), scram.message())
        }
        Challenge::SaslContinue(message) => {
            scram.update(message).unwrap();
            scram.message().to_vec()
        }
        Challenge::SaslFinal(message) => {
            scram.finish(message).unwrap();
            Vec::new()
        }
    }
}

fn unbound_client(password: &str) -> impl FnMut(&Challenge) -> Vec<u8> {
    postgres_client(password, sasl::ChannelBinding::unsupported())
}

fn initial_response(mechanism: &str, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [mechanism.as_bytes(), b"\0", &length, message].concat()
}

fn play_password(method: PasswordMethod, secret: Option<&Secret>, password: &str) -> Transcript {
    let policy = policy(SecretKind::Plain);
    play(
        ClientAuthentication::start(login(method, secret), &policy),
        unbound_client(password),
    )
}

const METHODS: [PasswordMethod; 3] = [
    PasswordMethod::Cleartext,
    PasswordMethod::Md5,
    PasswordMethod::ScramSha256,
];
const KINDS: [SecretKind; 3] = [SecretKind::Plain, SecretKind::Md5, SecretKind::Scram];

/// SCRAM cannot be done with an md5 secret; everything else can.
fn can_succeed(method: PasswordMethod, kind: SecretKind) -> bool {
    (method, kind) != (PasswordMethod::ScramSha256, SecretKind::Md5)
}

fn refusal_of(method: PasswordMethod, kind: SecretKind) -> Refusal {
    match (method, kind) {
        (PasswordMethod::ScramSha256, _) | (PasswordMethod::Md5, SecretKind::Scram) => {
            Refusal::Sasl
        }
        (PasswordMethod::Cleartext | PasswordMethod::Md5, _) => Refusal::Password,
    }
}

#[test]
fn every_method_serves_every_secret_except_scram_with_md5() {
    for method in METHODS {
        for kind in KINDS {
            let secret = secret_of(kind, PASSWORD);
            let right = play_password(method, Some(&secret), PASSWORD);
            assert_eq!(
                right.end.is_ok(),
                can_succeed(method, kind),
                "{method:?} {kind:?}"
            );
            let wrong = play_password(method, Some(&secret), "wrong");
            assert_eq!(
                wrong.refusal(),
                Some(refusal_of(method, kind)),
                "{method:?} {kind:?}"
            );
        }
    }
}

#[test]
fn refusals_are_pgbouncers_words() {
    let text = |transcript: Transcript| transcript.refusal().unwrap().to_string();
    let secret = md5_of(PASSWORD);
    assert_eq!(
        text(play_password(PasswordMethod::Md5, Some(&secret), "wrong")),
        "password authentication failed"
    );
    assert_eq!(
        text(play_password(
            PasswordMethod::ScramSha256,
            Some(&secret),
            PASSWORD
        )),
        "SASL authentication failed"
    );
    assert_eq!(
        text(play_password(PasswordMethod::Cleartext, Some(&secret), "")),
        "empty password returned by client"
    );
}

#[test]
fn md5_with_a_scram_secret_becomes_scram() {
    let secret = scram_of(PASSWORD);
    let transcript = play_password(PasswordMethod::Md5, Some(&secret), PASSWORD);
    assert_eq!(
        transcript.sent[0],
        Challenge::Sasl(vec![Mechanism::ScramSha256])
    );
    assert!(transcript.end.is_ok());
}

#[test]
fn a_stored_scram_secret_needs_no_work_but_a_plain_one_does() {
    let jobs = |secret| play_password(PasswordMethod::ScramSha256, Some(&secret), PASSWORD).jobs;
    assert_eq!(jobs(scram_of(PASSWORD)), 0);
    assert_eq!(jobs(plain(PASSWORD)), 1);
}

#[test]
fn a_plain_password_is_hashed_as_often_as_configured_with_the_same_salt_each_time() {
    let secret = plain(PASSWORD);
    let first_of = || play_password(PasswordMethod::ScramSha256, Some(&secret), PASSWORD).sent;
    let challenge = |sent: &[Challenge]| match &sent[1] {
        Challenge::SaslContinue(message) => String::from_utf8(message.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let tail = |message: &str| message.split_once(",s=").unwrap().1.to_owned();
    let first = tail(&challenge(&first_of()));
    assert!(first.ends_with(",i=10"), "{first}");
    assert_eq!(first, tail(&challenge(&first_of())));
}

#[test]
fn proof_carries_what_was_learnt() {
    let cleartext = play_password(PasswordMethod::Cleartext, Some(&md5_of(PASSWORD)), PASSWORD);
    assert!(matches!(cleartext.end, Ok(Proof::Cleartext(p)) if p.expose() == PASSWORD.as_bytes()));

    let md5 = play_password(PasswordMethod::Md5, Some(&md5_of(PASSWORD)), PASSWORD);
    assert!(matches!(md5.end, Ok(Proof::Md5)));

    let Secret::Scram(stored) = scram_of(PASSWORD) else {
        panic!()
    };
    let secret = Secret::Scram(stored.clone());
    let scram = play_password(PasswordMethod::ScramSha256, Some(&secret), PASSWORD);
    let Ok(Proof::ScramStored(keys)) = scram.end else {
        panic!("{:?}", scram.end)
    };
    let iterations = Iterations::new(stored.iterations).unwrap();
    let password = Password::new(PASSWORD).unwrap();
    assert_eq!(
        keys,
        SaltedPasswordJob::new(&password, stored.salt, iterations).run()
    );

    let ad_hoc = play_password(
        PasswordMethod::ScramSha256,
        Some(&plain(PASSWORD)),
        PASSWORD,
    );
    assert!(matches!(ad_hoc.end, Ok(Proof::ScramAdHoc(_))));
}

#[test]
fn the_last_challenge_of_scram_comes_before_the_proof() {
    let transcript = play_password(PasswordMethod::ScramSha256, Some(&scram_of("x")), "x");
    assert!(matches!(
        transcript.sent.as_slice(),
        [
            Challenge::Sasl(_),
            Challenge::SaslContinue(_),
            Challenge::SaslFinal(_)
        ]
    ));
}

/// The part of a challenge that may not differ between a known and an unknown user.
fn shape(challenge: &Challenge) -> (u8, usize) {
    match challenge {
        Challenge::CleartextPassword => (0, 0),
        Challenge::Md5Password { .. } => (1, 0),
        Challenge::Sasl(mechanisms) => (2, mechanisms.len()),
        Challenge::SaslContinue(message) => {
            let iterations_bytes = message.split(|b| *b == b',').next_back().unwrap().len();
            // PostgreSQL's secrets say 4096 where the test's policy says 10.
            (3, message.len() - iterations_bytes)
        }
        Challenge::SaslFinal(message) => (4, message.len()),
    }
}

#[test]
fn an_unknown_user_cannot_be_told_from_a_wrong_password() {
    for method in METHODS {
        for kind in KINDS {
            let policy = policy(kind);
            let outcome = |secret: Option<&Secret>| {
                let step = ClientAuthentication::start(login(method, secret), &policy);
                let transcript = play(step, unbound_client("wrong"));
                let shapes: Vec<_> = transcript.sent.iter().map(shape).collect();
                (shapes, transcript.refusal().unwrap(), transcript.jobs)
            };
            let secret = secret_of(kind, PASSWORD);
            assert_eq!(outcome(None), outcome(Some(&secret)), "{method:?} {kind:?}");
        }
    }
}

#[test]
fn an_unknown_user_meets_the_same_salt_each_time_and_another_user_another() {
    let policy = policy(SecretKind::Scram);
    let salt_of = |user| {
        let login = ClientLogin {
            user,
            ..login(PasswordMethod::ScramSha256, None)
        };
        let transcript = play(
            ClientAuthentication::start(login, &policy),
            unbound_client("x"),
        );
        match &transcript.sent[1] {
            Challenge::SaslContinue(message) => {
                let text = String::from_utf8(message.clone()).unwrap();
                text.split_once(",s=").unwrap().1.to_owned()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(salt_of("nobody"), salt_of("nobody"));
    assert_ne!(salt_of("nobody"), salt_of("noone"));
}

#[test]
fn only_the_log_learns_why_it_could_never_succeed() {
    let cause_of = |secret: Option<Secret>| {
        let transcript = play_password(PasswordMethod::ScramSha256, secret.as_ref(), "x");
        transcript.cause().cloned()
    };
    assert_eq!(cause_of(None), Some(Cause::UnknownUser));
    assert_eq!(cause_of(Some(md5_of("x"))), Some(Cause::Md5SecretForScram));
    assert_eq!(cause_of(Some(scram_of("y"))), Some(Cause::WrongPassword));
    assert_eq!(cause_of(Some(plain(""))), Some(Cause::EmptySecret));
}

#[test]
fn an_empty_stored_secret_lets_nobody_in_not_even_by_scram() {
    let secret = plain("");
    for method in METHODS {
        assert!(
            play_password(method, Some(&secret), "").end.is_err(),
            "{method:?}"
        );
    }
}

#[test]
fn long_passwords_are_accepted_up_to_the_limit() {
    let longest = "x".repeat(Password::MAX_BYTES);
    let transcript = play_password(PasswordMethod::Cleartext, Some(&plain(&longest)), &longest);
    assert!(transcript.end.is_ok());
    let longer = format!("{longest}x");
    let transcript = play_password(PasswordMethod::Cleartext, Some(&plain(&longest)), &longer);
    assert_eq!(transcript.refusal(), Some(Refusal::Password));
    assert_eq!(
        transcript.cause(),
        Some(&Cause::BadPassword(crate::secret::BadPassword::TooLong(
            65_531
        )))
    );
}

#[test]
fn a_stored_secret_with_an_absurd_count_does_not_hold_us_up() {
    let Secret::Scram(stored) = scram_of(PASSWORD) else {
        panic!()
    };
    let iterations = NonZeroU32::new(2_000_000_000).unwrap();
    let secret = Secret::Scram(ScramSecret {
        iterations,
        ..stored
    });
    let transcript = play_password(PasswordMethod::Cleartext, Some(&secret), PASSWORD);
    assert!(matches!(transcript.cause(), Some(Cause::Iterations(_))));
}

#[test]
fn keys_of_another_password_let_nobody_in() {
    let secret = scram_of(PASSWORD);
    let step = ClientAuthentication::start(
        login(PasswordMethod::Cleartext, Some(&secret)),
        &policy(SecretKind::Plain),
    );
    let Step::Send(_, next) = step else {
        panic!("{step:?}")
    };
    let Step::Derive(_, next) = next.respond(b"right\0") else {
        panic!()
    };
    let other = Password::new("another").unwrap();
    let job = SaltedPasswordJob::new(&other, b"other salt".to_vec(), Iterations::DEFAULT);
    let Step::Fail(failure) = next.resume(job.run()) else {
        panic!()
    };
    assert_eq!(failure.cause, Cause::WrongPassword);
}

#[test]
fn a_changed_nonce_is_refused() {
    let secret = scram_of(PASSWORD);
    let step = ClientAuthentication::start(
        login(PasswordMethod::ScramSha256, Some(&secret)),
        &policy(SecretKind::Plain),
    );
    let proof = base64::encode(&[0; 32]);
    let transcript = play(step, |challenge| match challenge {
        Challenge::Sasl(_) => initial_response("SCRAM-SHA-256", b"n,,n=,r=abc"),
        _ => format!("c=biws,r=abc,p={proof}").into_bytes(),
    });
    assert_eq!(transcript.cause(), Some(&Cause::Nonce));
}

fn any_method() -> impl Strategy<Value = PasswordMethod> {
    prop::sample::select(METHODS.to_vec())
}

fn any_kind() -> impl Strategy<Value = SecretKind> {
    prop::sample::select(KINDS.to_vec())
}

/// Close to what clients send, so that the deeper states are reached too.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "[nyp=,ra-c\0]{0,40}".prop_map(String::into_bytes),
        "[nyp],(a=b)?,n=[a-z]{0,4},r=[!-~]{0,8}(,x=1)?"
            .prop_map(|message| initial_response("SCRAM-SHA-256", message.as_bytes())),
        "c=[a-z]{0,4},r=[!-~]{0,30},p=[A-Za-z0-9+/]{43}=".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn succeeds_if_and_only_if_the_passwords_are_equal(
        method in any_method(), kind in any_kind(),
        stored in "[a-zé\u{a0}]{1,3}", given in "[a-zé\u{a0}]{1,3}", same: bool,
    ) {
        let given = if same { stored.clone() } else { given };
        let secret = secret_of(kind, &stored);
        let transcript = play_password(method, Some(&secret), &given);
        // SASLprep takes some different spellings for one password, as PostgreSQL does.
        let prepared = |p: &str| crate::scram::saslprep::prepare(p.as_bytes());
        let prepares = method == PasswordMethod::ScramSha256 || kind == SecretKind::Scram;
        let equal = if prepares { prepared(&given) == prepared(&stored) } else { given == stored };
        prop_assert_eq!(transcript.end.is_ok(), equal && can_succeed(method, kind));
    }

    #[test]
    fn no_payload_panics_or_lets_in(
        method in any_method(), kind in any_kind(), known: bool,
        payloads in prop::collection::vec(any_payload(), 3),
    ) {
        let secret = secret_of(kind, "a password that the generators cannot make");
        let secret = known.then_some(&secret);
        let mut payloads = payloads.into_iter();
        let transcript = play(
            ClientAuthentication::start(login(method, secret), &policy(kind)),
            |_| payloads.next().unwrap_or_default(),
        );
        prop_assert!(transcript.end.is_err());
    }
}
