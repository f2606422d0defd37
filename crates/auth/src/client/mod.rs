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
mod password;
mod sasl;
#[cfg(test)]
mod tests;

pub use self::failure::{Cause, Failure, Refusal};
pub use self::password::read_password;
use crate::exchange::{Challenge, ChannelBinding, Nonce};
use crate::mock::ProcessKey;
use crate::scram::acceptor::{Acceptor, Challenged, Opened};
use crate::scram::keys::{Iterations, Keys, SaltedPasswordJob};
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
    /// What counts as well, while the password is being changed.
    pub second: Option<&'a Secret>,
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

impl Policy {
    /// What logins of a user by SCRAM will have to wait for, so that it can be done before the first comes: an unknown
    /// user's do not wait.
    pub fn jobs(
        &self,
        user: &str,
        secret: &Secret,
        second: Option<&Secret>,
    ) -> impl Iterator<Item = SaltedPasswordJob> + use<> {
        let first = match secret {
            Secret::Plain(password) if !password.is_empty() => Some(self.plain(user, password)),
            Secret::Scram(stored) => Some(SaslSecret::Stored(stored.clone())),
            Secret::Plain(_) | Secret::Md5(_) => None,
        };
        let second = second.filter(|second| !second.is_empty());
        let both = first.map(|first| match second {
            Some(second) => sasl::under_one_salt(first, second),
            None => (first, None),
        });
        let (first, second) = both.unzip();
        let all = first.into_iter().chain(second.flatten());
        all.filter_map(|secret| secret.job())
    }

    /// A plain password, to be hashed with the user's salt.
    fn plain(&self, user: &str, password: &Password) -> SaslSecret {
        SaslSecret::Plain {
            password: password.clone(),
            salt: self.process_key.salt(user),
            iterations: self.scram_iterations,
        }
    }
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

#[derive(Debug)]
enum State {
    Cleartext {
        user: String,
        secret: Secret,
        second: Option<Secret>,
    },
    Md5 {
        secret: Md5Secret,
        second: Option<Md5Secret>,
        salt: [u8; 4],
    },
    SaslInitial {
        acceptor: Acceptor,
        secret: SaslSecret,
        second: Option<SaslSecret>,
    },
    SaslFinal {
        challenged: Challenged,
        sources: Sources,
    },
}

/// What SCRAM can be done with.
#[derive(Debug)]
enum SaslSecret {
    Stored(ScramSecret),
    Plain {
        password: Password,
        salt: Vec<u8>,
        iterations: Iterations,
    },
}

/// Where the secret came from that a proof is checked against.
#[derive(Clone, Copy, Debug)]
enum Source {
    Stored,
    AdHoc,
}

/// The same for the first secret and the second.
#[derive(Clone, Copy, Debug)]
struct Sources {
    first: Source,
    second: Source,
}

impl ClientAuthentication {
    /// Decides what to ask first.
    pub fn start(login: ClientLogin<'_>, policy: &Policy) -> Step {
        let ClientLogin {
            user,
            method,
            secret,
            second,
            channel_binding,
            md5_salt: salt,
            nonce,
        } = login;
        let (secret, mut outlook) = effective_secret(user, secret, policy);
        // An empty one never lets anybody in.
        let second = second.filter(|second| outlook.is_ok() && !second.is_empty());
        let (challenge, state) = match (method, secret) {
            (PasswordMethod::Cleartext, secret) => {
                let user = user.to_owned();
                (
                    Challenge::CleartextPassword,
                    State::Cleartext {
                        user,
                        secret,
                        second: second.cloned(),
                    },
                )
            }
            (PasswordMethod::Md5, Secret::Plain(password)) => {
                let secret = Md5Secret::derive(&password, user);
                password::ask_md5(salt, secret, second, user)
            }
            (PasswordMethod::Md5, Secret::Md5(secret)) => {
                password::ask_md5(salt, secret, second, user)
            }
            (PasswordMethod::Md5 | PasswordMethod::ScramSha256, Secret::Scram(secret)) => {
                sasl::offer(channel_binding, nonce, SaslSecret::Stored(secret), second)
            }
            (PasswordMethod::ScramSha256, Secret::Plain(password)) => {
                let secret = policy.plain(user, &password);
                sasl::offer(channel_binding, nonce, secret, second)
            }
            (PasswordMethod::ScramSha256, Secret::Md5(_)) => {
                let made_up = policy
                    .process_key
                    .scram_secret(user, policy.scram_iterations);
                outlook = outlook.and(Err(Cause::Md5SecretForScram));
                sasl::offer(channel_binding, nonce, SaslSecret::Stored(made_up), None)
            }
        };
        Step::Send(challenge, Self { outlook, state })
    }

    /// Takes the payload of the client's next `p` message.
    pub fn respond(self, payload: &[u8]) -> Step {
        let Self { outlook, state } = self;
        match state {
            State::Cleartext {
                user,
                secret,
                second,
            } => password::check_cleartext(payload, user, secret, second, outlook),
            State::Md5 {
                secret,
                second,
                salt,
            } => password::check_md5(payload, &secret, second.as_ref(), salt, outlook),
            State::SaslInitial {
                acceptor,
                secret,
                second,
            } => sasl::open(payload, acceptor, secret, second, outlook),
            State::SaslFinal {
                challenged,
                sources,
            } => sasl::check_proof(payload, challenged, sources, outlook),
        }
    }
}

/// An exchange that waits for the result of a job.
#[derive(Debug)]
pub struct AwaitingKeys {
    outlook: Outlook,
    then: AfterKeys,
}

#[derive(Debug)]
enum AfterKeys {
    /// A plain password was given; the keys must be those of the stored secret.
    Compare {
        given: Password,
        user: String,
        secret: ScramSecret,
        second: Option<Secret>,
    },
    /// The plain password is stored; the keys are what its proof is checked against.
    Challenge {
        opened: Opened,
        second: Option<SaslSecret>,
    },
    /// The same for the second one.
    ChallengeBoth {
        opened: Opened,
        first: (ScramSecret, Source),
    },
}

impl AwaitingKeys {
    /// Goes on with the result of the job that came with this.
    pub fn resume(self, keys: Keys) -> Step {
        let Self { outlook, then } = self;
        match then {
            AfterKeys::Compare {
                given,
                user,
                secret,
                second,
            } => password::compared(keys.secret == secret, given, user, second, outlook),
            AfterKeys::Challenge { opened, second } => {
                sasl::challenge(opened, (keys.secret, Source::AdHoc), second, outlook)
            }
            AfterKeys::ChallengeBoth { opened, first } => {
                let second = Some((keys.secret, Source::AdHoc));
                sasl::send_challenge(opened, first, second, outlook)
            }
        }
    }
}

/// A user without a secret gets one that nobody can know.
fn effective_secret(user: &str, secret: Option<&Secret>, policy: &Policy) -> (Secret, Outlook) {
    let cause = match secret {
        Some(Secret::Plain(password)) if password.is_empty() => Cause::EmptySecret,
        Some(secret) => return (secret.clone(), Ok(())),
        None => Cause::UnknownUser,
    };
    let kind = policy.unknown_looks_like;
    (
        policy
            .process_key
            .secret(user, kind, policy.scram_iterations),
        Err(cause),
    )
}

fn fail(refusal: Refusal, cause: Cause) -> Step {
    Step::Fail(Failure { refusal, cause })
}
