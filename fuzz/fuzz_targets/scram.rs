//! Both sides of authentication: against a peer that sends anything, and against each other with a
//! word changed on the way.
#![no_main]

use std::num::NonZeroU32;

use libfuzzer_sys::{arbitrary, fuzz_target};
use pgweir_auth::{
    Challenge, ChannelBinding, ClientAuthentication, ClientLogin, Iterations, Mechanism, Nonce,
    Password, PasswordMethod, Policy, ProcessKey, Secret, SecretKind, ServerAuthentication,
    ServerLogin, ServerSecret, ServerStep, Step,
};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    /// What both know.
    password: &'a [u8],
    /// What the accepting side has stored, if not the password.
    stored: Option<&'a [u8]>,
    method: u8,
    bound: bool,
    /// Replaces a message, where there is one.
    forged: Vec<Option<&'a [u8]>>,
}

fuzz_target!(|input: Input<'_>| {
    let Ok(password) = Password::new(input.password) else {
        return;
    };
    let Ok(secret) = Secret::parse(input.stored.unwrap_or(input.password)) else {
        return;
    };
    let method = [
        PasswordMethod::Cleartext,
        PasswordMethod::Md5,
        PasswordMethod::ScramSha256,
    ][usize::from(input.method % 3)];
    let binding = match input.bound {
        true => ChannelBinding::Available(b"certificate".to_vec()),
        false => ChannelBinding::Unavailable,
    };
    let few = Iterations::new(NonZeroU32::MIN).expect("one is not too many");
    let policy = Policy {
        process_key: ProcessKey::new([7; 32]),
        scram_iterations: few,
        unknown_looks_like: SecretKind::Scram,
    };
    let login = ClientLogin {
        second: None,
        user: "user",
        method,
        secret: Some(&secret),
        channel_binding: binding.clone(),
        md5_salt: *b"salt",
        nonce: Nonce([1; 18]),
    };
    let mut ours = ServerAuthentication::new(ServerLogin {
        user: "user".to_owned(),
        secret: ServerSecret::Plain(password),
        channel_binding: binding,
        nonce: Nonce([2; 18]),
    });
    let mut forged = input.forged.iter();
    let mut was_forged = false;
    let mut step = ClientAuthentication::start(login, &policy);
    loop {
        let (challenge, theirs) = match step {
            Step::Send(challenge, theirs) => (challenge, theirs),
            Step::Derive(job, waiting) => {
                step = waiting.resume(job.run());
                continue;
            }
            Step::Done(success) => {
                let (last, _) = success.into_parts();
                if let Some(last) = last
                    && !was_forged
                {
                    assert!(matches!(ours.respond(last), ServerStep::Verified(_)));
                }
                return;
            }
            Step::Fail(_) => {
                let right = secret.kind() == SecretKind::Plain && !input.password.is_empty();
                assert!(
                    was_forged || input.stored.is_some() || !right,
                    "the right password fails"
                );
                return;
            }
        };
        let challenge = match (forged.next(), challenge) {
            (Some(Some(bytes)), Challenge::SaslContinue(_)) => {
                was_forged = true;
                Challenge::SaslContinue(bytes.to_vec())
            }
            (Some(Some(bytes)), Challenge::Sasl(_)) if bytes.is_empty() => {
                was_forged = true;
                Challenge::Sasl(vec![Mechanism::ScramSha256])
            }
            (_, challenge) => challenge,
        };
        let (answer, next) = match ours.respond(challenge) {
            ServerStep::Send(answer, next) => (answer, next),
            ServerStep::Derive(job, waiting) => {
                // A forged message may ask for a million rounds.
                if was_forged {
                    return;
                }
                match waiting.resume(&job.run()) {
                    ServerStep::Send(answer, next) => (answer, next),
                    ServerStep::Derive(..) | ServerStep::Verified(_) | ServerStep::Fail(_) => {
                        return;
                    }
                }
            }
            ServerStep::Verified(_) | ServerStep::Fail(_) => return,
        };
        ours = next;
        step = match forged.next() {
            Some(Some(bytes)) => {
                was_forged = true;
                theirs.respond(bytes)
            }
            Some(None) | None => theirs.respond(answer.expose()),
        };
    }
});
