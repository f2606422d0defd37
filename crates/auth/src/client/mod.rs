//! Authentication of a client: what we ask it, and whether its answer is the proof of its password.
//!
//! ```text
//! start ─► Send ─► respond ─► Send ─► respond ─► Done | Fail
//!                    └─► Derive ─► resume ─► Send | Done | Fail
//! ```
//!
//! A user that does not exist, or whose secret can never serve, is asked the same questions with a
//! made-up secret and goes the same way to the same failure; see [`Policy::unknown_looks_like`].

mod failure;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use self::failure::{Cause, Failure, Refusal};

use crate::exchange::{Challenge, ChannelBinding, Nonce};
use crate::md5;
use crate::mock::ProcessKey;
use crate::scram::acceptor::{Acceptor, Challenged, Expected, Opened, Rejected};
use crate::scram::keys::{Iterations, Keys, SaltedPasswordJob};
use crate::scram::messages::Malformed;
use crate::secret::{Md5Secret, Password, ScramSecret, Secret, SecretKind};

/// How a client is asked for its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordMethod {
    /// The password as it is.
    Cleartext,
    /// md5; a user whose secret is a SCRAM one is asked by SCRAM instead.
    Md5,
    /// SCRAM-SHA-256, with or without channel binding; never succeeds with an md5 secret.
    ScramSha256,
}

/// What one login attempt brings along.
#[derive(Debug)]
pub struct ClientLogin<'a> {
    /// The user that the client wants to be.
    pub user: &'a str,
    /// How it is asked.
    pub method: PasswordMethod,
    /// What is stored for that user; none if there is no such user.
    pub secret: Option<&'a Secret>,
    /// Whether SCRAM-SHA-256-PLUS is offered. The data is the hash of our own certificate.
    pub channel_binding: ChannelBinding,
    /// Fresh random bytes.
    pub md5_salt: [u8; 4],
    /// Fresh random bytes.
    pub nonce: Nonce,
}

/// What holds for every login.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Seeds salts and made-up secrets.
    pub process_key: ProcessKey,
    /// `scram_iterations`: how often plain passwords are hashed for SCRAM, and how often made-up
    /// ones claim to be.
    pub scram_iterations: Iterations,
    /// The kind of secret that most users have. An unknown user is treated as if it had one too:
    /// with [`PasswordMethod::Md5`] this decides between md5 and SCRAM.
    pub unknown_looks_like: SecretKind,
}

/// What to do next with a client.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Send this, then give the next `p` message to [`ClientAuthentication::respond`].
    Send(Challenge, ClientAuthentication),
    /// Run the job, or find its result, and go on with [`AwaitingKeys::resume`].
    Derive(SaltedPasswordJob, AwaitingKeys),
    /// The client is who it says.
    Done(Success),
    /// It has not proven that.
    Fail(Failure),
}

/// A finished exchange.
#[derive(Debug)]
#[must_use]
pub struct Success {
    last: Option<Challenge>,
    proof: Proof,
}

impl Success {
    /// What must be sent before AuthenticationOk, and what has been learnt. The second cannot be
    /// had without the first.
    pub fn into_parts(self) -> (Option<Challenge>, Proof) {
        (self.last, self.proof)
    }
}

/// What a successful login has taught us, for logging in to PostgreSQL as the same user.
#[derive(Debug)]
pub enum Proof {
    /// The password itself.
    Cleartext(Password),
    /// Nothing beyond what was stored.
    Md5,
    /// The keys that belong to the stored SCRAM secret. PostgreSQL takes them if it stores the same.
    ScramStored(Keys),
    /// Keys for a salt that only we use; the stored plain password is worth more.
    ScramAdHoc(Keys),
}

/// An exchange that waits for a `p` message.
#[derive(Debug)]
pub struct ClientAuthentication {
    outlook: Outlook,
    state: State,
}

/// Whether the right answer would help. Asked only after all the work has been done.
type Outlook = Result<(), Cause>;

enum State {
    Cleartext {
        user: String,
        secret: Secret,
    },
    Md5 {
        expected: Zeroizing<[u8; md5::RESPONSE_BYTES]>,
    },
    SaslInitial {
        acceptor: Acceptor,
        secret: SaslSecret,
    },
    SaslFinal {
        challenged: Challenged,
        kind: KeysKind,
        salt: Vec<u8>,
        iterations: NonZeroU32,
    },
}

enum SaslSecret {
    Stored(ScramSecret),
    AdHoc {
        password: Password,
        salt: Vec<u8>,
        iterations: Iterations,
    },
}

enum KeysKind {
    Stored,
    AdHoc,
}

impl ClientAuthentication {
    /// Decides what to ask first.
    pub fn start(login: ClientLogin<'_>, policy: &Policy) -> Step {
        let ClientLogin {
            user,
            method,
            secret,
            channel_binding,
            md5_salt,
            nonce,
        } = login;
        let made_up = |kind| {
            policy
                .process_key
                .secret(user, kind, policy.scram_iterations)
        };
        let (secret, mut outlook) = match secret {
            None => (made_up(policy.unknown_looks_like), Err(Cause::UnknownUser)),
            Some(Secret::Plain(password)) if password.is_empty() => {
                (made_up(policy.unknown_looks_like), Err(Cause::EmptySecret))
            }
            Some(secret) => (secret.clone(), Ok(())),
        };
        let secret = match (method, secret) {
            (PasswordMethod::Cleartext, secret) => {
                let state = State::Cleartext {
                    user: user.to_owned(),
                    secret,
                };
                return Step::Send(Challenge::CleartextPassword, Self { outlook, state });
            }
            (PasswordMethod::Md5, Secret::Plain(password)) => {
                return Self::ask_md5(&Md5Secret::derive(&password, user), md5_salt, outlook);
            }
            (PasswordMethod::Md5, Secret::Md5(secret)) => {
                return Self::ask_md5(&secret, md5_salt, outlook);
            }
            (PasswordMethod::Md5 | PasswordMethod::ScramSha256, Secret::Scram(secret)) => {
                SaslSecret::Stored(secret)
            }
            (PasswordMethod::ScramSha256, Secret::Plain(password)) => SaslSecret::AdHoc {
                password,
                salt: policy.process_key.salt(user),
                iterations: policy.scram_iterations,
            },
            (PasswordMethod::ScramSha256, Secret::Md5(_)) => {
                outlook = outlook.and(Err(Cause::Md5SecretForScram));
                SaslSecret::Stored(
                    policy
                        .process_key
                        .scram_secret(user, policy.scram_iterations),
                )
            }
        };
        let acceptor = Acceptor::new(channel_binding, nonce);
        let challenge = Challenge::Sasl(acceptor.mechanisms());
        Step::Send(
            challenge,
            Self {
                outlook,
                state: State::SaslInitial { acceptor, secret },
            },
        )
    }

    /// Takes the payload of the client's next `p` message.
    pub fn respond(self, payload: &[u8]) -> Step {
        let Self { outlook, state } = self;
        match state {
            State::Cleartext { user, secret } => {
                respond_to_cleartext(payload, &user, secret, outlook)
            }
            State::Md5 { expected } => respond_to_md5(payload, expected.as_slice(), outlook),
            State::SaslInitial { acceptor, secret } => {
                match acceptor.handle_client_first(payload) {
                    Ok(opened) => challenge_or_derive(opened, secret, outlook),
                    Err(rejected) => refuse_sasl(rejected, outlook),
                }
            }
            State::SaslFinal {
                challenged,
                kind,
                salt,
                iterations,
            } => respond_to_proof(payload, challenged, kind, salt, iterations, outlook),
        }
    }

    fn ask_md5(secret: &Md5Secret, salt: [u8; 4], outlook: Outlook) -> Step {
        let state = State::Md5 {
            expected: md5::response(secret, salt),
        };
        Step::Send(Challenge::Md5Password { salt }, Self { outlook, state })
    }
}

/// An exchange that waits for the result of a job.
#[derive(Debug)]
pub struct AwaitingKeys {
    outlook: Outlook,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    then: AfterKeys,
}

enum AfterKeys {
    /// A plain password was given; the keys must be those of the stored secret.
    Compare {
        given: Password,
        secret: ScramSecret,
    },
    /// The plain password is stored; the keys are what its proof is checked against.
    Challenge { opened: Opened },
}

impl AwaitingKeys {
    fn derive(job: SaltedPasswordJob, then: AfterKeys, outlook: Outlook) -> Step {
        let (salt, iterations) = (job.salt().to_vec(), job.iterations());
        Step::Derive(
            job,
            Self {
                outlook,
                salt,
                iterations,
                then,
            },
        )
    }

    /// Goes on with the result of the job that came with this.
    pub fn resume(self, keys: Keys) -> Step {
        let Self {
            outlook,
            salt,
            iterations,
            then,
        } = self;
        let stray = keys.salt != salt || keys.iterations != iterations;
        match then {
            AfterKeys::Compare { .. } if stray => fail(Refusal::Password, Cause::StrayKeys),
            AfterKeys::Challenge { .. } if stray => fail(Refusal::Sasl, Cause::StrayKeys),
            AfterKeys::Compare { given, secret } => {
                // Both, so that a secret put together from two others lets nobody in.
                let matches =
                    keys.stored_key == secret.stored_key && keys.server_key == secret.server_key;
                conclude_password(matches, Proof::Cleartext(given), outlook)
            }
            AfterKeys::Challenge { opened } => {
                let Keys {
                    stored_key,
                    server_key,
                    ..
                } = keys;
                let expected = Expected {
                    stored_key,
                    server_key,
                };
                send_challenge(opened, expected, KeysKind::AdHoc, salt, iterations, outlook)
            }
        }
    }
}

fn respond_to_cleartext(payload: &[u8], user: &str, secret: Secret, outlook: Outlook) -> Step {
    let given = match read_password(payload) {
        Ok(given) => given,
        Err(failure) => return Step::Fail(failure),
    };
    let matches = match secret {
        Secret::Plain(stored) => stored == given,
        Secret::Md5(stored) => stored == Md5Secret::derive(&given, user),
        Secret::Scram(secret) => {
            return match Iterations::new(secret.iterations) {
                Ok(iterations) => {
                    let job = SaltedPasswordJob::new(&given, secret.salt.clone(), iterations);
                    AwaitingKeys::derive(job, AfterKeys::Compare { given, secret }, outlook)
                }
                Err(too_many) => fail(Refusal::Password, too_many.into()),
            };
        }
    };
    conclude_password(matches, Proof::Cleartext(given), outlook)
}

fn respond_to_md5(payload: &[u8], expected: &[u8], outlook: Outlook) -> Step {
    match read_password(payload) {
        Ok(given) => conclude_password(given.expose().ct_eq(expected).into(), Proof::Md5, outlook),
        Err(failure) => Step::Fail(failure),
    }
}

/// A password message is one string with its final zero byte.
fn read_password(payload: &[u8]) -> Result<Password, Failure> {
    let refuse = |refusal, cause| Failure { refusal, cause };
    let bytes = payload
        .strip_suffix(b"\0")
        .ok_or(refuse(Refusal::Password, Malformed::Unterminated.into()))?;
    let password =
        Password::new(bytes).map_err(|bad| refuse(Refusal::Password, Cause::BadPassword(bad)))?;
    if password.is_empty() {
        return Err(refuse(Refusal::EmptyPassword, Cause::EmptyPassword));
    }
    Ok(password)
}

fn conclude_password(matches: bool, proof: Proof, outlook: Outlook) -> Step {
    match outlook {
        Ok(()) if matches => Step::Done(Success { last: None, proof }),
        Ok(()) => fail(Refusal::Password, Cause::WrongPassword),
        Err(cause) => fail(Refusal::Password, cause),
    }
}

fn challenge_or_derive(opened: Opened, secret: SaslSecret, outlook: Outlook) -> Step {
    match secret {
        SaslSecret::Stored(ScramSecret {
            iterations,
            salt,
            stored_key,
            server_key,
        }) => {
            let expected = Expected {
                stored_key,
                server_key,
            };
            send_challenge(
                opened,
                expected,
                KeysKind::Stored,
                salt,
                iterations,
                outlook,
            )
        }
        SaslSecret::AdHoc {
            password,
            salt,
            iterations,
        } => {
            let job = SaltedPasswordJob::new(&password, salt, iterations);
            AwaitingKeys::derive(job, AfterKeys::Challenge { opened }, outlook)
        }
    }
}

fn send_challenge(
    opened: Opened,
    expected: Expected,
    kind: KeysKind,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    outlook: Outlook,
) -> Step {
    let (server_first, challenged) = opened.into_challenge(&salt, iterations, expected);
    let state = State::SaslFinal {
        challenged,
        kind,
        salt,
        iterations,
    };
    Step::Send(
        Challenge::SaslContinue(server_first),
        ClientAuthentication { outlook, state },
    )
}

fn respond_to_proof(
    payload: &[u8],
    challenged: Challenged,
    kind: KeysKind,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    outlook: Outlook,
) -> Step {
    let proven = match challenged.handle_client_final(payload) {
        Ok(proven) => proven,
        Err(rejected) => return refuse_sasl(rejected, outlook),
    };
    if let Err(cause) = outlook {
        return fail(Refusal::Sasl, cause);
    }
    let Expected {
        stored_key,
        server_key,
    } = proven.expected;
    let keys = Keys {
        client_key: proven.client_key,
        stored_key,
        server_key,
        salt,
        iterations,
    };
    let proof = match kind {
        KeysKind::Stored => Proof::ScramStored(keys),
        KeysKind::AdHoc => Proof::ScramAdHoc(keys),
    };
    Step::Done(Success {
        last: Some(Challenge::SaslFinal(proven.server_final)),
        proof,
    })
}

/// A wrong proof of a user that could never succeed is not the user's mistake, so the log says what
/// it is. The client is told the same either way.
fn refuse_sasl(rejected: Rejected, outlook: Outlook) -> Step {
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

fn fail(refusal: Refusal, cause: Cause) -> Step {
    Step::Fail(Failure { refusal, cause })
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cleartext { .. } => "Cleartext",
            Self::Md5 { .. } => "Md5",
            Self::SaslInitial { .. } => "SaslInitial",
            Self::SaslFinal { .. } => "SaslFinal",
        })
    }
}

impl fmt::Debug for AfterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compare { .. } => "Compare",
            Self::Challenge { .. } => "Challenge",
        })
    }
}
