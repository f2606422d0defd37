//! Checking a client's proof by SCRAM.

use super::{
    AfterKeys, AwaitingKeys, Cause, ClientAuthentication, Failure, Outlook, Proof, Refusal,
    SaslSecret, Source, State, Step, Success, fail,
};
use crate::exchange::{Challenge, ChannelBinding, Nonce};
use crate::scram::acceptor::{Acceptor, Challenged, Opened, Rejected};
use crate::scram::keys::{Keys, SaltedPasswordJob};
use crate::secret::ScramSecret;

pub(super) fn offer(
    channel_binding: ChannelBinding,
    nonce: Nonce,
    secret: SaslSecret,
) -> (Challenge, State) {
    let acceptor = Acceptor::new(channel_binding, nonce);
    (
        Challenge::Sasl(acceptor.mechanisms()),
        State::SaslInitial { acceptor, secret },
    )
}

/// A plain password is hashed only now, when the client has shown that it speaks SCRAM.
pub(super) fn open(
    payload: &[u8],
    acceptor: Acceptor,
    secret: SaslSecret,
    outlook: Outlook,
) -> Step {
    let opened = match acceptor.handle_client_first(payload) {
        Ok(opened) => opened,
        Err(rejected) => return refuse(rejected, outlook),
    };
    match secret {
        SaslSecret::Stored(secret) => send_challenge(opened, secret, Source::Stored, outlook),
        SaslSecret::Plain {
            password,
            salt,
            iterations,
        } => {
            let job = SaltedPasswordJob::new(&password, salt, iterations);
            let then = AfterKeys::Challenge { opened };
            Step::Derive(job, AwaitingKeys { outlook, then })
        }
    }
}

pub(super) fn send_challenge(
    opened: Opened,
    secret: ScramSecret,
    source: Source,
    outlook: Outlook,
) -> Step {
    let (server_first, challenged) = opened.into_challenge(secret);
    let state = State::SaslFinal { challenged, source };
    Step::Send(
        Challenge::SaslContinue(server_first),
        ClientAuthentication { outlook, state },
    )
}

pub(super) fn check_proof(
    payload: &[u8],
    challenged: Challenged,
    source: Source,
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
