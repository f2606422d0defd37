//! The side of SCRAM that asks for a proof and checks it.
//!
//! [`Acceptor`] → client-first → [`Opened`] → server-first → [`Challenged`] → client-final →
//! [`Proven`] with server-final. What the client is checked against is needed only between the
//! two messages, so a secret may be hashed there.

use super::base64;
use super::keys::Key;
use super::messages::{BindingFlag, ClientFinal, ClientFirst, InitialResponse, Malformed};
use crate::exchange::{ChannelBinding, Mechanism, Nonce};
use crate::secret::ScramSecret;

/// The only type of binding data that PostgreSQL speaks.
pub(crate) const BINDING_TYPE: &[u8] = b"tls-server-end-point";

/// Why a client's message was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    Malformed(Malformed),
    /// The client chose a mechanism that was not offered.
    Mechanism(String),
    /// Binding was left out, or does not fit this connection: somebody may be in between.
    Binding(BindingMismatch),
    /// The nonce is not the one that we made.
    Nonce,
    /// The proof does not fit the secret.
    Proof,
}

/// How a client's channel binding does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindingMismatch {
    /// The client believes that we cannot bind, but we offered it.
    Downgrade,
    /// The mechanism says one thing, the header another.
    Mechanism,
    /// A type of data that is not `tls-server-end-point`.
    Type,
    /// Other data than ours: the client talks TLS with somebody else.
    Data,
}

/// Waits for the client's choice and first message.
#[derive(Debug)]
pub(crate) struct Acceptor {
    binding: ChannelBinding,
    nonce: Nonce,
}

impl Acceptor {
    pub(crate) fn new(binding: ChannelBinding, nonce: Nonce) -> Self {
        Self { binding, nonce }
    }

    /// What the client may choose from, best first.
    pub(crate) fn mechanisms(&self) -> Vec<Mechanism> {
        match self.binding {
            ChannelBinding::Unavailable => vec![Mechanism::ScramSha256],
            ChannelBinding::Available(_) => {
                vec![Mechanism::ScramSha256Plus, Mechanism::ScramSha256]
            }
            ChannelBinding::Required(_) => vec![Mechanism::ScramSha256Plus],
        }
    }

    /// Takes SASLInitialResponse with client-first-message.
    pub(crate) fn handle_client_first(self, payload: &[u8]) -> Result<Opened, Rejected> {
        let response = InitialResponse::parse(payload).map_err(Rejected::Malformed)?;
        let mechanism = std::str::from_utf8(response.mechanism)
            .ok()
            .and_then(Mechanism::from_name)
            .filter(|mechanism| self.mechanisms().contains(mechanism))
            .ok_or_else(|| {
                Rejected::Mechanism(String::from_utf8_lossy(response.mechanism).into_owned())
            })?;
        let message = ClientFirst::parse(response.data).map_err(Rejected::Malformed)?;
        self.check_flag(mechanism, message.flag)
            .map_err(Rejected::Binding)?;

        let bound_data = match mechanism {
            Mechanism::ScramSha256Plus => self.binding.data().unwrap_or_default(),
            Mechanism::ScramSha256 => &[],
        };
        Ok(Opened {
            nonce: [message.nonce, base64::encode(&self.nonce.0).as_bytes()].concat(),
            client_first_bare: message.bare.to_vec(),
            channel_binding: base64::encode(&[message.header, bound_data].concat()),
        })
    }

    /// RFC 5802, section 6: the flag must fit what was offered and what was chosen, or somebody
    /// has tampered with the list of mechanisms.
    fn check_flag(
        &self,
        mechanism: Mechanism,
        flag: BindingFlag<'_>,
    ) -> Result<(), BindingMismatch> {
        match (mechanism, flag) {
            (Mechanism::ScramSha256Plus, BindingFlag::Bound(BINDING_TYPE)) => Ok(()),
            (Mechanism::ScramSha256Plus, BindingFlag::Bound(_)) => Err(BindingMismatch::Type),
            (
                Mechanism::ScramSha256Plus,
                BindingFlag::Unsupported | BindingFlag::SupportedButNotOffered,
            )
            | (Mechanism::ScramSha256, BindingFlag::Bound(_)) => Err(BindingMismatch::Mechanism),
            (Mechanism::ScramSha256, BindingFlag::SupportedButNotOffered)
                if self.mechanisms().contains(&Mechanism::ScramSha256Plus) =>
            {
                Err(BindingMismatch::Downgrade)
            }
            (
                Mechanism::ScramSha256,
                BindingFlag::Unsupported | BindingFlag::SupportedButNotOffered,
            ) => Ok(()),
        }
    }
}

/// The client has opened the exchange and waits for salt and count.
#[derive(Debug)]
pub(crate) struct Opened {
    nonce: Vec<u8>,
    client_first_bare: Vec<u8>,
    /// What the client must repeat under its signature.
    channel_binding: String,
}

impl Opened {
    /// Makes server-first-message. A second secret has the salt and the count of the first.
    pub(crate) fn into_challenge(
        self,
        secret: ScramSecret,
        second: Option<ScramSecret>,
    ) -> (Vec<u8>, Challenged) {
        debug_assert!(second.as_ref().is_none_or(|second| {
            second.salt == secret.salt && second.iterations == secret.iterations
        }));
        let salt = base64::encode(&secret.salt);
        let count = secret.iterations.get().to_string();
        let server_first = [
            b"r=",
            self.nonce.as_slice(),
            b",s=",
            salt.as_bytes(),
            b",i=",
            count.as_bytes(),
        ]
        .concat();
        (
            server_first.clone(),
            Challenged {
                opened: self,
                server_first,
                secret,
                second,
            },
        )
    }
}

/// The client knows salt and count; we wait for its proof.
#[derive(Debug)]
pub(crate) struct Challenged {
    opened: Opened,
    server_first: Vec<u8>,
    secret: ScramSecret,
    second: Option<ScramSecret>,
}

/// The client has proven that it knows the password.
#[derive(Debug)]
pub(crate) struct Proven {
    /// server-final-message, our own proof.
    pub(crate) server_final: Vec<u8>,
    pub(crate) client_key: Key,
    pub(crate) secret: ScramSecret,
    /// Whether that is the second one.
    pub(crate) by_second: bool,
}

impl Challenged {
    /// Takes client-final-message.
    pub(crate) fn handle_client_final(self, payload: &[u8]) -> Result<Proven, Rejected> {
        let Self {
            opened,
            server_first,
            secret,
            second,
        } = self;
        let message = ClientFinal::parse(payload).map_err(Rejected::Malformed)?;
        if message.channel_binding != opened.channel_binding.as_bytes() {
            return Err(Rejected::Binding(BindingMismatch::Data));
        }
        if message.nonce != opened.nonce {
            return Err(Rejected::Nonce);
        }
        let signed: [&[u8]; 5] = [
            &opened.client_first_bare,
            b",",
            &server_first,
            b",",
            message.without_proof,
        ];
        let proof = &message.proof;
        let client_key = |secret: &ScramSecret| {
            let client_key = proof.xor(&secret.stored_key.hmac(&signed));
            (client_key.hash() == secret.stored_key).then_some(client_key)
        };
        let (client_key, secret, by_second) = match (client_key(&secret), second) {
            (Some(key), _) => (key, secret, false),
            (None, Some(second)) => {
                let key = client_key(&second).ok_or(Rejected::Proof)?;
                (key, second, true)
            }
            (None, None) => return Err(Rejected::Proof),
        };
        let server_signature = secret.server_key.hmac(&signed);
        let signature = base64::encode(server_signature.expose());
        Ok(Proven {
            server_final: [b"v=", signature.as_bytes()].concat(),
            client_key,
            secret,
            by_second,
        })
    }
}
