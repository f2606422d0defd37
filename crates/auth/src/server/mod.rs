//! Logging in to PostgreSQL: our answers to what it asks.
//!
//! ```text
//! new ─► respond ─► Send ─► respond ─► Send ─► respond ─► Verified ─► authenticated
//!           └─► Derive ─► resume ─► Send
//! ```
//!
//! Whatever the state, AuthenticationOk goes to [`ServerAuthentication::authenticated`]: a server
//! that has begun SCRAM must have proven that it knows the secret, and one that must be bound to
//! its TLS connection must have done SCRAM at all.

mod failure;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroizing;

pub use self::failure::ServerFailure;

use crate::exchange::{Challenge, ChannelBinding, Mechanism, Nonce};
use crate::md5;
use crate::scram::initiator::{self, Answering, Opened, Proving};
use crate::scram::keys::{Iterations, Keys, SaltedPasswordJob};
use crate::scram::messages::InitialResponse;
use crate::secret::{Md5Secret, Password, ScramSecret, Secret};

/// What one login at a server needs.
#[derive(Debug)]
pub struct ServerLogin {
    /// The user that we log in as.
    pub user: String,
    /// What we have for that user.
    pub secret: ServerSecret,
    /// Whether SCRAM-SHA-256-PLUS can be used. The data is the hash of the server's certificate.
    pub channel_binding: ChannelBinding,
    /// Fresh random bytes.
    pub nonce: Nonce,
}

/// What we can log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSecret {
    /// Serves every method. May be empty: the server then says what it thinks of that.
    Plain(Password),
    /// Serves md5 only.
    Md5(Md5Secret),
    /// Keys that a client's proof has taught us: serve SCRAM, if the server stores the same secret.
    Keys(Keys),
    /// A SCRAM secret whose keys no client has shown us yet: serves nothing.
    Scram(ScramSecret),
}

impl From<Secret> for ServerSecret {
    fn from(secret: Secret) -> Self {
        match secret {
            Secret::Plain(password) => Self::Plain(password),
            Secret::Md5(secret) => Self::Md5(secret),
            Secret::Scram(secret) => Self::Scram(secret),
        }
    }
}

/// What to do next with a server.
#[derive(Debug)]
#[must_use]
pub enum ServerStep {
    /// Send this as the payload of a `p` message and wait for the next Authentication message.
    Send(Answer, ServerAuthentication),
    /// Run the job, or find its result, and go on with [`ServerAwaitingKeys::resume`].
    Derive(SaltedPasswordJob, ServerAwaitingKeys),
    /// The server has proven itself; only AuthenticationOk is missing.
    Verified(ServerAuthentication),
    /// This login cannot succeed.
    Fail(ServerFailure),
}

/// The payload of a `p` message. It may be the password itself, so it is wiped when dropped and
/// hidden from `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer(Zeroizing<Vec<u8>>);

impl Answer {
    fn new(payload: Vec<u8>) -> Self {
        Self(Zeroizing::new(payload))
    }

    /// The bytes to send.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// A login that waits for an Authentication message.
#[derive(Debug)]
pub struct ServerAuthentication {
    binding_required: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Start(ServerLogin),
    /// A password has been sent.
    Answered,
    SaslOpened {
        opened: Opened,
        user: String,
        credential: Credential,
    },
    SaslProving(Proving),
    SaslVerified,
}

/// What SCRAM can be done with.
#[derive(Debug)]
enum Credential {
    Password(Password),
    Keys(Keys),
}

impl ServerAuthentication {
    /// Waits for what the server asks.
    pub fn new(login: ServerLogin) -> Self {
        let binding_required = match login.channel_binding {
            ChannelBinding::Required(_) => true,
            ChannelBinding::Unavailable | ChannelBinding::Available(_) => false,
        };
        Self {
            binding_required,
            state: State::Start(login),
        }
    }

    /// Takes what the server asks.
    pub fn respond(self, challenge: Challenge) -> ServerStep {
        let Self {
            binding_required,
            state,
        } = self;
        let next = |state| Self {
            binding_required,
            state,
        };
        let step = match (state, challenge) {
            (
                State::Start(_),
                Challenge::CleartextPassword | Challenge::Md5Password { salt: _ },
            ) if binding_required => Err(ServerFailure::ChannelBindingRequired),
            (State::Start(login), Challenge::CleartextPassword) => {
                cleartext_answer(login).map(|p| ServerStep::Send(p, next(State::Answered)))
            }
            (State::Start(login), Challenge::Md5Password { salt }) => {
                md5_answer(login, salt).map(|p| ServerStep::Send(p, next(State::Answered)))
            }
            (State::Start(login), Challenge::Sasl(mechanisms)) => open_sasl(login, &mechanisms)
                .map(|(payload, state)| ServerStep::Send(payload, next(state))),
            (
                State::SaslOpened {
                    opened,
                    user,
                    credential,
                },
                Challenge::SaslContinue(message),
            ) => opened
                .handle_server_first(&message)
                .map_err(ServerFailure::from)
                .map(|answering| prove(answering, credential, user, binding_required)),
            (State::SaslProving(proving), Challenge::SaslFinal(message)) => proving
                .handle_server_final(&message)
                .map(|()| ServerStep::Verified(next(State::SaslVerified)))
                .map_err(ServerFailure::from),
            (
                State::Start(_)
                | State::Answered
                | State::SaslOpened { .. }
                | State::SaslProving(_)
                | State::SaslVerified,
                Challenge::CleartextPassword
                | Challenge::Md5Password { .. }
                | Challenge::Sasl(_)
                | Challenge::SaslContinue(_)
                | Challenge::SaslFinal(_),
            ) => Err(ServerFailure::OutOfOrder),
        };
        step.unwrap_or_else(ServerStep::Fail)
    }

    /// Takes AuthenticationOk: whether we may trust it.
    pub fn authenticated(self) -> Result<(), ServerFailure> {
        match self.state {
            State::SaslVerified => Ok(()),
            State::SaslOpened { .. } | State::SaslProving(_) => Err(ServerFailure::Unproven),
            State::Start(_) | State::Answered if self.binding_required => {
                Err(ServerFailure::ChannelBindingRequired)
            }
            State::Start(_) | State::Answered => Ok(()),
        }
    }
}

/// A login that waits for the result of a job.
#[derive(Debug)]
pub struct ServerAwaitingKeys {
    binding_required: bool,
    user: String,
    answering: Answering,
}

impl ServerAwaitingKeys {
    /// Goes on with the result of the job that came with this.
    pub fn resume(self, keys: &Keys) -> ServerStep {
        let Self {
            binding_required,
            user,
            answering,
        } = self;
        send_proof(answering, keys, user, binding_required)
    }
}

fn cleartext_answer(login: ServerLogin) -> Result<Answer, ServerFailure> {
    match login.secret {
        ServerSecret::Plain(password) => Ok(terminated(password.expose())),
        ServerSecret::Md5(_) | ServerSecret::Keys(_) | ServerSecret::Scram(_) => {
            Err(ServerFailure::WrongPasswordType)
        }
    }
}

fn md5_answer(login: ServerLogin, salt: [u8; 4]) -> Result<Answer, ServerFailure> {
    let secret = match login.secret {
        ServerSecret::Plain(password) => Md5Secret::derive(&password, &login.user),
        ServerSecret::Md5(secret) => secret,
        ServerSecret::Keys(_) | ServerSecret::Scram(_) => {
            return Err(ServerFailure::WrongPasswordType);
        }
    };
    Ok(terminated(md5::response(&secret, salt).as_slice()))
}

fn terminated(password: &[u8]) -> Answer {
    Answer::new([password, b"\0"].concat())
}

fn open_sasl(
    login: ServerLogin,
    mechanisms: &[Mechanism],
) -> Result<(Answer, State), ServerFailure> {
    let ServerLogin {
        user,
        secret,
        channel_binding,
        nonce,
    } = login;
    let credential = match secret {
        ServerSecret::Plain(password) => Credential::Password(password),
        ServerSecret::Keys(keys) => Credential::Keys(keys),
        ServerSecret::Md5(_) | ServerSecret::Scram(_) => {
            return Err(ServerFailure::WrongPasswordType);
        }
    };
    let (mechanism, client_first, opened) = initiator::open(mechanisms, &channel_binding, nonce)?;
    let payload = Answer::new(InitialResponse::build(mechanism.name(), &client_first));
    Ok((
        payload,
        State::SaslOpened {
            opened,
            user,
            credential,
        },
    ))
}

/// A password needs work before it can answer.
fn prove(
    answering: Answering,
    credential: Credential,
    user: String,
    binding_required: bool,
) -> ServerStep {
    match credential {
        Credential::Password(password) => match Iterations::new(answering.iterations) {
            Ok(iterations) => {
                let job = SaltedPasswordJob::new(&password, answering.salt.clone(), iterations);
                ServerStep::Derive(
                    job,
                    ServerAwaitingKeys {
                        binding_required,
                        user,
                        answering,
                    },
                )
            }
            Err(too_many) => ServerStep::Fail(too_many.into()),
        },
        Credential::Keys(keys) => send_proof(answering, &keys, user, binding_required),
    }
}

/// Keys fit, or belong to another salt or count than the server's.
fn send_proof(
    answering: Answering,
    keys: &Keys,
    user: String,
    binding_required: bool,
) -> ServerStep {
    if !answering.is_for(keys) {
        return ServerStep::Fail(ServerFailure::OtherSecret { user });
    }
    let (client_final, proving) = answering.into_proof(keys);
    let state = State::SaslProving(proving);
    ServerStep::Send(
        Answer::new(client_final),
        ServerAuthentication {
            binding_required,
            state,
        },
    )
}
