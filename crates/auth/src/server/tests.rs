use postgres_protocol::authentication::md5_hash;
use postgres_protocol::password;
use proptest::prelude::*;

use super::*;
use crate::client::{
    Cause, ClientAuthentication, ClientLogin, PasswordMethod, Policy, Proof, Refusal, Step,
};
use crate::mock::ProcessKey;
use crate::secret::SecretKind;

const USER: &str = "anna";
const PASSWORD: &str = "correct horse";
const CERTIFICATE_HASH: &[u8] = b"hash of the server's certificate";

fn plain(text: &str) -> ServerSecret {
    ServerSecret::Plain(Password::new(text).unwrap())
}

fn stored(text: &str) -> Secret {
    Secret::parse(text.as_bytes()).unwrap()
}

fn md5_of(password: &str) -> Secret {
    stored(&password::md5(password.as_bytes(), USER))
}

fn scram_of(password: &str) -> Secret {
    stored(&password::scram_sha_256(password.as_bytes()))
}

fn login_bound(secret: ServerSecret, channel_binding: ChannelBinding) -> ServerAuthentication {
    ServerAuthentication::new(ServerLogin {
        user: USER.into(),
        secret,
        channel_binding,
        nonce: Nonce([1; 18]),
    })
}

fn login(secret: ServerSecret) -> ServerAuthentication {
    login_bound(secret, ChannelBinding::Unavailable)
}

fn failure_of(step: ServerStep) -> Option<ServerFailure> {
    match step {
        ServerStep::Fail(failure) => Some(failure),
        ServerStep::Send(..) | ServerStep::Derive(..) | ServerStep::Verified(_) => None,
    }
}

fn answer_to(login: ServerAuthentication, challenge: Challenge) -> Vec<u8> {
    match login.respond(challenge) {
        ServerStep::Send(answer, _) => answer.expose().to_vec(),
        other => panic!("{other:?}"),
    }
}

/// How a login ended on both sides.
#[derive(Debug)]
struct End {
    ours: Result<(), ServerFailure>,
    servers: Result<Proof, Cause>,
}

/// Plays a login at a server, which is our own other side with this stored secret.
fn play(
    mut login: ServerAuthentication,
    method: PasswordMethod,
    secret: &Secret,
    channel_binding: ChannelBinding,
) -> End {
    let policy = Policy {
        process_key: ProcessKey::new([3; 32]),
        scram_iterations: Iterations::DEFAULT,
        unknown_looks_like: SecretKind::Plain,
    };
    let asked = ClientLogin {
        user: USER,
        method,
        secret: Some(secret),
        second: None,
        channel_binding,
        md5_salt: [9; 4],
        nonce: Nonce([2; 18]),
    };
    let mut step = ClientAuthentication::start(asked, &policy);
    loop {
        step = match step {
            Step::Send(challenge, next) => match advance(login, challenge) {
                Ok((payload, waiting)) => {
                    login = waiting;
                    next.respond(&payload)
                }
                Err(failure) => {
                    return End {
                        ours: Err(failure),
                        servers: Err(Cause::WrongPassword),
                    };
                }
            },
            Step::Derive(job, next) => next.resume(job.run()),
            Step::Done(success) => {
                let (last, proof) = success.into_parts();
                let ours = match last.map(|challenge| login.respond(challenge)) {
                    Some(ServerStep::Verified(login)) => login.authenticated(),
                    Some(other) => Err(failure_of(other).unwrap()),
                    None => login_accepted_without_more(&proof),
                };
                return End {
                    ours,
                    servers: Ok(proof),
                };
            }
            Step::Fail(failure) => {
                return End {
                    ours: Ok(()),
                    servers: Err(failure.cause),
                };
            }
        };
    }
}

fn login_accepted_without_more(proof: &Proof) -> Result<(), ServerFailure> {
    assert!(matches!(proof, Proof::Cleartext(_) | Proof::Md5));
    Ok(())
}

/// One challenge, with the work that it may need.
fn advance(
    login: ServerAuthentication,
    challenge: Challenge,
) -> Result<(Vec<u8>, ServerAuthentication), ServerFailure> {
    let step = match login.respond(challenge) {
        ServerStep::Derive(job, next) => next.resume(&job.run()),
        step => step,
    };
    match step {
        ServerStep::Send(answer, login) => Ok((answer.expose().to_vec(), login)),
        ServerStep::Fail(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn play_unbound(secret: ServerSecret, method: PasswordMethod, stored: &Secret) -> End {
    play(login(secret), method, stored, ChannelBinding::Unavailable)
}

/// What a client's login with this password teaches us about this stored secret.
fn keys_of(password: &str, secret: &Secret) -> Keys {
    match play_unbound(plain(password), PasswordMethod::ScramSha256, secret).servers {
        Ok(Proof::ScramStored(keys)) => keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cleartext_is_the_password_and_a_zero() {
    let answer = answer_to(login(plain("pw")), Challenge::CleartextPassword);
    assert_eq!(answer, b"pw\0");
    let longest = "x".repeat(Password::MAX_BYTES);
    let answer = answer_to(login(plain(&longest)), Challenge::CleartextPassword);
    assert_eq!(answer.len(), 65_531);
}

#[test]
fn md5_is_answered_from_a_password_or_its_hash() {
    let expected = format!("{}\0", md5_hash(USER.as_bytes(), b"pw", [1, 2, 3, 4]));
    for secret in [plain("pw"), md5_of("pw").into()] {
        let challenge = Challenge::Md5Password { salt: [1, 2, 3, 4] };
        assert_eq!(answer_to(login(secret), challenge), expected.as_bytes());
    }
}

#[test]
fn secrets_that_cannot_serve_are_of_the_wrong_type() {
    let scram = scram_of(PASSWORD);
    let keys = || ServerSecret::Keys(keys_of(PASSWORD, &scram));
    let sasl = || Challenge::Sasl(vec![Mechanism::ScramSha256]);
    let md5 = || Challenge::Md5Password { salt: [0; 4] };
    for (secret, challenge) in [
        (scram.clone().into(), sasl()),
        (scram.clone().into(), md5()),
        (scram.clone().into(), Challenge::CleartextPassword),
        (md5_of(PASSWORD).into(), sasl()),
        (md5_of(PASSWORD).into(), Challenge::CleartextPassword),
        (keys(), md5()),
        (keys(), Challenge::CleartextPassword),
    ] {
        let failure = failure_of(login(secret).respond(challenge)).unwrap();
        assert_eq!(failure, ServerFailure::WrongPasswordType);
        assert_eq!(failure.to_string(), "wrong password type");
    }
}

#[test]
fn scram_with_the_right_password_convinces_both_sides() {
    let end = play_unbound(
        plain(PASSWORD),
        PasswordMethod::ScramSha256,
        &scram_of(PASSWORD),
    );
    assert_eq!(end.ours, Ok(()));
    assert!(end.servers.is_ok());
}

#[test]
fn scram_with_a_wrong_password_convinces_nobody() {
    let end = play_unbound(
        plain("wrong"),
        PasswordMethod::ScramSha256,
        &scram_of(PASSWORD),
    );
    assert_eq!(end.servers.err(), Some(Cause::WrongPassword));
}

#[test]
fn keys_from_a_clients_proof_pass_through_to_a_server_with_the_same_secret() {
    let secret = scram_of(PASSWORD);
    let keys = keys_of(PASSWORD, &secret);
    for _ in 0..2 {
        let again = ServerSecret::Keys(keys.clone());
        let end = play_unbound(again, PasswordMethod::ScramSha256, &secret);
        assert_eq!(end.ours, Ok(()));
        assert!(matches!(end.servers, Ok(Proof::ScramStored(learnt)) if learnt == keys));
    }
}

#[test]
fn keys_do_not_serve_another_secret_of_the_same_password() {
    let keys = ServerSecret::Keys(keys_of(PASSWORD, &scram_of(PASSWORD)));
    let end = play_unbound(keys, PasswordMethod::ScramSha256, &scram_of(PASSWORD));
    assert_eq!(
        end.ours,
        Err(ServerFailure::OtherSecret { user: USER.into() })
    );
}

mod channel_binding {
    use super::*;

    fn data() -> Vec<u8> {
        CERTIFICATE_HASH.to_vec()
    }

    fn play_bound(ours: ChannelBinding, servers: ChannelBinding) -> End {
        let secret = scram_of(PASSWORD);
        play(
            login_bound(plain(PASSWORD), ours),
            PasswordMethod::ScramSha256,
            &secret,
            servers,
        )
    }

    #[test]
    fn is_used_when_both_can() {
        let end = play_bound(
            ChannelBinding::Required(data()),
            ChannelBinding::Required(data()),
        );
        assert_eq!(end.ours, Ok(()));
        assert!(end.servers.is_ok());
    }

    #[test]
    fn fails_when_each_side_sees_another_certificate() {
        let other = ChannelBinding::Available(b"another".to_vec());
        let end = play_bound(ChannelBinding::Available(data()), other);
        assert_eq!(end.servers.err(), Some(Cause::BindingData));
    }

    #[test]
    fn can_be_left_out_where_the_server_does_not_offer_it() {
        let end = play_bound(
            ChannelBinding::Available(data()),
            ChannelBinding::Unavailable,
        );
        assert_eq!(end.ours, Ok(()));
        let end = play_bound(
            ChannelBinding::Required(data()),
            ChannelBinding::Unavailable,
        );
        assert_eq!(end.ours, Err(ServerFailure::ChannelBindingRequired));
    }

    #[test]
    fn that_is_required_keeps_every_other_answer_back() {
        let start = || login_bound(plain(PASSWORD), ChannelBinding::Required(data()));
        let md5 = Challenge::Md5Password { salt: [0; 4] };
        for challenge in [Challenge::CleartextPassword, md5] {
            let failure = failure_of(start().respond(challenge));
            assert_eq!(failure, Some(ServerFailure::ChannelBindingRequired));
        }
        assert_eq!(
            start().authenticated(),
            Err(ServerFailure::ChannelBindingRequired)
        );
    }

    #[test]
    fn a_server_notices_that_its_offer_was_cut() {
        // In between somebody took SCRAM-SHA-256-PLUS off the list.
        let ours = login_bound(plain(PASSWORD), ChannelBinding::Available(data()));
        let first = answer_to(ours, Challenge::Sasl(vec![Mechanism::ScramSha256]));
        let secret = scram_of(PASSWORD);
        let policy = Policy {
            process_key: ProcessKey::new([3; 32]),
            scram_iterations: Iterations::DEFAULT,
            unknown_looks_like: SecretKind::Plain,
        };
        let asked = ClientLogin {
            user: USER,
            method: PasswordMethod::ScramSha256,
            secret: Some(&secret),
            second: None,
            channel_binding: ChannelBinding::Available(data()),
            md5_salt: [9; 4],
            nonce: Nonce([2; 18]),
        };
        let Step::Send(_, server) = ClientAuthentication::start(asked, &policy) else {
            panic!()
        };
        let Step::Fail(failure) = server.respond(&first) else {
            panic!()
        };
        assert_eq!(failure.cause, Cause::BindingDowngrade);
        assert_eq!(failure.refusal, Refusal::Sasl);
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let opened = || {
        let sasl = Challenge::Sasl(vec![Mechanism::ScramSha256]);
        let ServerStep::Send(_, next) = login(plain(PASSWORD)).respond(sasl) else {
            panic!()
        };
        next
    };
    let nonce = crate::scram::base64::encode(&[1; 18]);
    let first = || Challenge::SaslContinue(format!("r={nonce}more,s=c2FsdA==,i=1").into_bytes());
    let proving = || advance(opened(), first()).unwrap().1;

    let signature = crate::scram::base64::encode(&[7; 32]);
    let last = Challenge::SaslFinal(format!("v={signature}").into_bytes());
    assert_eq!(
        failure_of(proving().respond(last)),
        Some(ServerFailure::Signature)
    );
    let error = Challenge::SaslFinal(b"e=other-error".to_vec());
    assert_eq!(
        failure_of(proving().respond(error)),
        Some(ServerFailure::Reported("other-error".into()))
    );
    assert_eq!(proving().authenticated(), Err(ServerFailure::Unproven));
    assert_eq!(opened().authenticated(), Err(ServerFailure::Unproven));
    assert_eq!(
        failure_of(proving().respond(first())),
        Some(ServerFailure::OutOfOrder)
    );
}

#[test]
fn a_server_cannot_make_us_hash_for_hours() {
    let sasl = Challenge::Sasl(vec![Mechanism::ScramSha256]);
    let ServerStep::Send(_, next) = login(plain(PASSWORD)).respond(sasl) else {
        panic!()
    };
    let nonce = crate::scram::base64::encode(&[1; 18]);
    let first = format!("r={nonce}more,s=c2FsdA==,i=2147483647");
    let failure = failure_of(next.respond(Challenge::SaslContinue(first.into_bytes())));
    assert!(matches!(failure, Some(ServerFailure::Iterations(_))));
}

#[test]
fn mechanisms_that_we_do_not_speak_are_named_as_the_problem() {
    let failure = failure_of(login(plain(PASSWORD)).respond(Challenge::Sasl(vec![]))).unwrap();
    assert_eq!(
        failure.to_string(),
        "none of the server's SASL authentication mechanisms are supported"
    );
}

#[test]
fn debug_never_shows_a_password() {
    let step = login(plain(PASSWORD)).respond(Challenge::CleartextPassword);
    assert!(!format!("{step:?}").contains(&format!("{:?}", PASSWORD.as_bytes())[1..10]));
    assert!(!format!("{:?}", login(plain(PASSWORD))).contains(PASSWORD));
}

#[test]
fn a_server_may_ask_for_nothing() {
    assert_eq!(login(plain("")).authenticated(), Ok(()));
}

fn any_challenge() -> impl Strategy<Value = Challenge> {
    let nonce = crate::scram::base64::encode(&[1; 18]);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "[rsiev=,a-c0-9]{0,40}".prop_map(String::into_bytes),
        "[a-z]{4},i=[0-9]{1,3}"
            .prop_map(move |rest| format!("r={nonce}more,s={rest}").into_bytes()),
    ];
    prop_oneof![
        Just(Challenge::CleartextPassword),
        any::<[u8; 4]>().prop_map(|salt| Challenge::Md5Password { salt }),
        Just(Challenge::Sasl(vec![Mechanism::ScramSha256])),
        bytes.clone().prop_map(Challenge::SaslContinue),
        bytes.prop_map(Challenge::SaslFinal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_sides_agree_if_and_only_if_the_passwords_are_equal(
        method in prop::sample::select(vec![
            PasswordMethod::Cleartext, PasswordMethod::Md5, PasswordMethod::ScramSha256,
        ]),
        hashed: bool, known in "[a-z]{1,2}", given in "[a-z]{1,2}", same: bool,
    ) {
        let given = if same { known.clone() } else { given };
        let secret = match (hashed, method) {
            (false, _) => stored(&known),
            (true, PasswordMethod::ScramSha256) => scram_of(&known),
            (true, PasswordMethod::Cleartext | PasswordMethod::Md5) => md5_of(&known),
        };
        let end = play_unbound(plain(&given), method, &secret);
        prop_assert_eq!(end.servers.is_ok(), given == known);
        prop_assert_eq!(end.ours, Ok(()));
    }

    #[test]
    fn no_server_makes_us_panic_or_believe_it(
        challenges in prop::collection::vec(any_challenge(), 1..5),
    ) {
        let mut login = login(plain(PASSWORD));
        for challenge in challenges {
            let step = match login.respond(challenge) {
                ServerStep::Derive(job, next) => next.resume(&job.run()),
                step => step,
            };
            login = match step {
                ServerStep::Send(_, login) => login,
                ServerStep::Fail(_) => return Ok(()),
                other => panic!("{other:?}"),
            };
        }
    }
}
