//! Checking a password that the client sent, as it is or as an md5 hash.

use subtle::ConstantTimeEq;

use super::{
    AfterKeys, AwaitingKeys, Cause, Failure, Outlook, Proof, Refusal, State, Step, Success, fail,
};
use crate::exchange::Challenge;
use crate::md5;
use crate::scram::keys::{Iterations, SaltedPasswordJob};
use crate::scram::messages::Malformed;
use crate::secret::{Md5Secret, Password, Secret};

pub(super) fn check_cleartext(
    payload: &[u8],
    user: String,
    secret: Secret,
    second: Option<Secret>,
    outlook: Outlook,
) -> Step {
    match read_password(payload) {
        Ok(given) => compare(given, user, secret, second, outlook),
        Err(failure) => Step::Fail(failure),
    }
}

fn compare(
    given: Password,
    user: String,
    secret: Secret,
    second: Option<Secret>,
    outlook: Outlook,
) -> Step {
    let matches = match secret {
        Secret::Plain(stored) => stored == given,
        Secret::Md5(stored) => stored == Md5Secret::derive(&given, &user),
        Secret::Scram(secret) => {
            let iterations = match Iterations::new(secret.iterations) {
                Ok(iterations) => iterations,
                Err(too_many) => return fail(Refusal::Password, too_many.into()),
            };
            let job = SaltedPasswordJob::new(&given, secret.salt.clone(), iterations);
            let then = AfterKeys::Compare {
                given,
                user,
                secret,
                second,
            };
            return Step::Derive(job, AwaitingKeys { outlook, then });
        }
    };
    compared(matches, given, user, second, outlook)
}

/// One secret has been compared: if it is another one, the second has its turn.
pub(super) fn compared(
    matches: bool,
    given: Password,
    user: String,
    second: Option<Secret>,
    outlook: Outlook,
) -> Step {
    match second {
        Some(second) if !matches => compare(given, user, second, None, outlook),
        Some(_) | None => conclude(matches, Proof::Cleartext(given), outlook),
    }
}

/// Asks for a hash; a second secret counts if it can make one.
pub(super) fn ask_md5(
    salt: [u8; 4],
    secret: Md5Secret,
    second: Option<&Secret>,
    user: &str,
) -> (Challenge, State) {
    let second = second.and_then(|second| match second {
        Secret::Plain(password) => Some(Md5Secret::derive(password, user)),
        Secret::Md5(secret) => Some(secret.clone()),
        Secret::Scram(_) => None,
    });
    let state = State::Md5 {
        secret,
        second,
        salt,
    };
    (Challenge::Md5Password { salt }, state)
}

pub(super) fn check_md5(
    payload: &[u8],
    secret: &Md5Secret,
    second: Option<&Md5Secret>,
    salt: [u8; 4],
    outlook: Outlook,
) -> Step {
    match read_password(payload) {
        Ok(given) => {
            let is_of = |secret: &Md5Secret| {
                let expected = md5::response(secret, salt);
                bool::from(given.expose().ct_eq(expected.as_slice()))
            };
            let matches = is_of(secret) || second.is_some_and(is_of);
            conclude(matches, Proof::Md5, outlook)
        }
        Err(failure) => Step::Fail(failure),
    }
}

pub(super) fn conclude(matches: bool, proof: Proof, outlook: Outlook) -> Step {
    match outlook {
        Ok(()) if matches => Step::Done(Success { last: None, proof }),
        Ok(()) => fail(Refusal::Password, Cause::WrongPassword),
        Err(cause) => fail(Refusal::Password, cause),
    }
}

/// Reads a PasswordMessage: one string with its final zero byte, and not empty.
///
/// For methods whose answer somebody else judges, such as LDAP and PAM.
pub fn read_password(payload: &[u8]) -> Result<Password, Failure> {
    let refuse = |cause| Failure {
        refusal: Refusal::Password,
        cause,
    };
    let bytes = payload
        .strip_suffix(b"\0")
        .ok_or_else(|| refuse(Malformed::Unterminated.into()))?;
    let password = Password::new(bytes).map_err(|bad| refuse(bad.into()))?;
    if password.is_empty() {
        return Err(Failure {
            refusal: Refusal::EmptyPassword,
            cause: Cause::EmptyPassword,
        });
    }
    Ok(password)
}
