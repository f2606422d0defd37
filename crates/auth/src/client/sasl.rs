//! Checking a client's proof by SCRAM.

use super::{
    AfterKeys, AwaitingKeys, Cause, ClientAuthentication, Failure, Outlook, Proof, Refusal,
    SaslSecret, Source, Sources, State, Step, Success, fail,
};
use crate::exchange::{Challenge, ChannelBinding, Nonce};
use crate::scram::acceptor::{Acceptor, Challenged, Opened, Rejected};
use crate::scram::keys::{Iterations, Keys, SaltedPasswordJob};
use crate::secret::{ScramSecret, Secret};

pub(super) fn offer(
    channel_binding: ChannelBinding,
    nonce: Nonce,
    secret: SaslSecret,
    second: Option<&Secret>,
) -> (Challenge, State) {
    let acceptor = Acceptor::new(channel_binding, nonce);
    let challenge = Challenge::Sasl(acceptor.mechanisms());
    let (secret, second) = match second {
        Some(second) => under_one_salt(secret, second),
        None => (secret, None),
    };
    let state = State::SaslInitial {
        acceptor,
        secret,
        second,
    };
    (challenge, state)
}

/// A client is told one salt, so both secrets must be hashed with it. A plain one can be; two that
/// are stored with different salts cannot, and then the first counts.
pub(super) fn under_one_salt(
    mut first: SaslSecret,
    second: &Secret,
) -> (SaslSecret, Option<SaslSecret>) {
    let second = match second {
        Secret::Plain(password) => first.hashing().map(|(salt, iterations)| SaslSecret::Plain {
            password: password.clone(),
            salt,
            iterations,
        }),
        Secret::Scram(stored) => first
            .is_hashed_as(stored)
            .then(|| SaslSecret::Stored(stored.clone())),
        Secret::Md5(_) => None,
    };
    (first, second)
}

impl SaslSecret {
    /// What has to be done before it can be used.
    pub(super) fn job(&self) -> Option<SaltedPasswordJob> {
        match self {
            Self::Stored(_) => None,
            Self::Plain {
                password,
                salt,
                iterations,
            } => Some(SaltedPasswordJob::new(password, salt.clone(), *iterations)),
        }
    }

    /// Its salt and count, unless that is more work than we do for anybody.
    fn hashing(&self) -> Option<(Vec<u8>, Iterations)> {
        match self {
            Self::Stored(secret) => {
                let iterations = Iterations::new(secret.iterations).ok()?;
                Some((secret.salt.clone(), iterations))
            }
            Self::Plain {
                salt, iterations, ..
            } => Some((salt.clone(), *iterations)),
        }
    }

    /// Takes the salt and count of a stored one, if it can. `false` if they differ.
    fn is_hashed_as(&mut self, stored: &ScramSecret) -> bool {
        match self {
            Self::Stored(own) => own.salt == stored.salt && own.iterations == stored.iterations,
            Self::Plain {
                salt, iterations, ..
            } => match Iterations::new(stored.iterations) {
                Ok(count) => {
                    (*salt, *iterations) = (stored.salt.clone(), count);
                    true
                }
                Err(_) => false,
            },
        }
    }
}

/// A plain password is hashed only now, when the client has shown that it speaks SCRAM.
pub(super) fn open(
    payload: &[u8],
    acceptor: Acceptor,
    secret: SaslSecret,
    second: Option<SaslSecret>,
    outlook: Outlook,
) -> Step {
    let opened = match acceptor.handle_client_first(payload) {
        Ok(opened) => opened,
        Err(rejected) => return refuse(rejected, outlook),
    };
    match secret {
        SaslSecret::Stored(secret) => challenge(opened, (secret, Source::Stored), second, outlook),
        SaslSecret::Plain {
            password,
            salt,
            iterations,
        } => {
            let job = SaltedPasswordJob::new(&password, salt, iterations);
            let then = AfterKeys::Challenge { opened, second };
            Step::Derive(job, AwaitingKeys { outlook, then })
        }
    }
}

/// The first secret is hashed; the second may have to be.
pub(super) fn challenge(
    opened: Opened,
    first: (ScramSecret, Source),
    second: Option<SaslSecret>,
    outlook: Outlook,
) -> Step {
    match second {
        None => send_challenge(opened, first, None, outlook),
        Some(SaslSecret::Stored(second)) => {
            send_challenge(opened, first, Some((second, Source::Stored)), outlook)
        }
        Some(SaslSecret::Plain {
            password,
            salt,
            iterations,
        }) => {
            let job = SaltedPasswordJob::new(&password, salt, iterations);
            let then = AfterKeys::ChallengeBoth { opened, first };
            Step::Derive(job, AwaitingKeys { outlook, then })
        }
    }
}

pub(super) fn send_challenge(
    opened: Opened,
    (secret, first): (ScramSecret, Source),
    second: Option<(ScramSecret, Source)>,
    outlook: Outlook,
) -> Step {
    let sources = Sources {
        first,
        second: second.as_ref().map_or(first, |(_, source)| *source),
    };
    let (server_first, challenged) =
        opened.into_challenge(secret, second.map(|(second, _)| second));
    let state = State::SaslFinal {
        challenged,
        sources,
    };
    Step::Send(
        Challenge::SaslContinue(server_first),
        ClientAuthentication { outlook, state },
    )
}

pub(super) fn check_proof(
    payload: &[u8],
    challenged: Challenged,
    sources: Sources,
    outlook: Outlook,
) -> Step {
    let proven = match challenged.handle_client_final(payload) {
        Ok(proven) => proven,
        Err(rejected) => return refuse(rejected, outlook),
    };
    if let Err(cause) = outlook {
        return fail(Refusal::Sasl, cause);
    }
    let keys = Keys {
        client_key: proven.client_key,
        secret: proven.secret,
    };
    let source = match proven.by_second {
        true => sources.second,
        false => sources.first,
    };
    let proof = match source {
        Source::Stored => Proof::ScramStored(keys),
        Source::AdHoc => Proof::ScramAdHoc(keys),
    };
    Step::Done(Success {
        last: Some(Challenge::SaslFinal(proven.server_final)),
        proof,
    })
}

/// Where no proof could have been right, a wrong one is not the cause, and the log says what is.
/// The client is told the same either way.
fn refuse(rejected: Rejected, outlook: Outlook) -> Step {
    match (Failure::from(rejected), outlook) {
        (
            Failure {
                refusal,
                cause: Cause::WrongPassword,
            },
            Err(cause),
        ) => fail(refusal, cause),
        (failure, _) => Step::Fail(failure),
    }
}
