//! The side of SCRAM that gives a proof, and checks that the other side knows the secret too.
//!
//! [`open`] → client-first → [`Opened`] → server-first → [`Answering`], which names salt and
//! count → client-final → [`Proving`] → server-final.

use std::num::NonZeroU32;

use super::acceptor::BINDING_TYPE;
use super::base64;
use super::keys::{Key, Keys};
use super::messages::{Malformed, ServerFinal, ServerFirst};
use crate::exchange::{ChannelBinding, Mechanism, Nonce};

/// Why a server's message was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    Malformed(Malformed),
    /// The server's nonce does not begin with ours, or adds nothing.
    Nonce,
    /// The server says that it failed.
    Error(String),
    /// The server does not know the secret: it is not the one that we want.
    Signature,
}

/// Why none of the mechanisms will do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoMechanism {
    /// The server offers none that we speak.
    Unknown,
    /// We insist on channel binding and the server does not offer it.
    BindingRequired,
}

/// Chooses a mechanism and makes client-first-message.
pub(crate) fn open(
    offered: &[Mechanism],
    binding: &ChannelBinding,
    nonce: Nonce,
) -> Result<(Mechanism, Vec<u8>, Opened), NoMechanism> {
    let offers = |mechanism| offered.contains(&mechanism);
    let (mechanism, header, data): (_, &[u8], &[u8]) = match binding {
        ChannelBinding::Available(data) | ChannelBinding::Required(data)
            if offers(Mechanism::ScramSha256Plus) =>
        {
            (
                Mechanism::ScramSha256Plus,
                b"p=tls-server-end-point,,",
                data,
            )
        }
        ChannelBinding::Required(_) => return Err(NoMechanism::BindingRequired),
        // The flag "y" lets the server notice that somebody took its best mechanism off the list.
        ChannelBinding::Available(_) => (Mechanism::ScramSha256, b"y,,", &[]),
        ChannelBinding::Unavailable => (Mechanism::ScramSha256, b"n,,", &[]),
    };
    debug_assert!(data.is_empty() || header.get(2..2 + BINDING_TYPE.len()) == Some(BINDING_TYPE));
    if !offers(mechanism) {
        return Err(NoMechanism::Unknown);
    }
    let nonce = base64::encode(&nonce.0);
    // PostgreSQL takes the user from the startup message.
    let client_first_bare = format!("n=,r={nonce}");
    let client_first = [header, client_first_bare.as_bytes()].concat();
    let channel_binding = base64::encode(&[header, data].concat());
    Ok((
        mechanism,
        client_first,
        Opened {
            nonce,
            client_first_bare,
            channel_binding,
        },
    ))
}

/// We wait for salt and count.
#[derive(Debug)]
pub(crate) struct Opened {
    nonce: String,
    client_first_bare: String,
    channel_binding: String,
}

impl Opened {
    /// Takes server-first-message.
    pub(crate) fn handle_server_first(self, payload: &[u8]) -> Result<Answering, Rejected> {
        let message = ServerFirst::parse(payload).map_err(Rejected::Malformed)?;
        let added = message
            .nonce
            .strip_prefix(self.nonce.as_bytes())
            .ok_or(Rejected::Nonce)?;
        if added.is_empty() {
            return Err(Rejected::Nonce);
        }
        let c = format!("c={},r=", self.channel_binding);
        let without_proof = [c.as_bytes(), message.nonce].concat();
        let signed = [
            self.client_first_bare.as_bytes(),
            b",",
            payload,
            b",",
            &without_proof,
        ]
        .concat();
        Ok(Answering {
            salt: message.salt,
            iterations: message.iterations,
            without_proof,
            signed,
        })
    }
}

/// We know salt and count, and need the keys that belong to them.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: NonZeroU32,
    without_proof: Vec<u8>,
    signed: Vec<u8>,
}

impl Answering {
    /// Whether these keys were made with the salt and count that the server asks for.
    pub(crate) fn is_for(&self, keys: &Keys) -> bool {
        self.salt == keys.secret.salt && self.iterations == keys.secret.iterations
    }

    /// Makes client-final-message.
    pub(crate) fn into_proof(self, keys: &Keys) -> (Vec<u8>, Proving) {
        let proof = keys
            .client_key
            .xor(&keys.secret.stored_key.hmac(&[&self.signed]));
        let proof = format!(",p={}", base64::encode(proof.expose()));
        let client_final = [self.without_proof.as_slice(), proof.as_bytes()].concat();
        (
            client_final,
            Proving {
                expected: keys.secret.server_key.hmac(&[&self.signed]),
            },
        )
    }
}

/// Our proof is on its way; we wait for the server's own.
#[derive(Debug)]
pub(crate) struct Proving {
    expected: Key,
}

impl Proving {
    /// Takes server-final-message.
    pub(crate) fn handle_server_final(self, payload: &[u8]) -> Result<(), Rejected> {
        match ServerFinal::parse(payload).map_err(Rejected::Malformed)? {
            ServerFinal::Error(word) => Err(Rejected::Error(word)),
            ServerFinal::Signature(signature) if signature == self.expected => Ok(()),
            ServerFinal::Signature(_) => Err(Rejected::Signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scram::keys::{Iterations, SaltedPasswordJob};
    use crate::secret::Password;

    /// The exchange that RFC 7677 prints. Its nonce is no base64 of 18 bytes and its first message
    /// names the user, so it starts behind the first message.
    #[test]
    fn example_of_rfc_7677() {
        let opened = Opened {
            nonce: "rOprNGfwEbeRWgbNEkqO".into(),
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
            channel_binding: "biws".into(),
        };
        let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answering = opened.handle_server_first(server_first).unwrap();
        let count = Iterations::new(answering.iterations).unwrap();
        let password = Password::new("pencil").unwrap();
        let keys = SaltedPasswordJob::new(&password, answering.salt.clone(), count).run();
        let (client_final, proving) = answering.into_proof(&keys);
        assert_eq!(
            String::from_utf8(client_final).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let server_final = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(proving.handle_server_final(server_final), Ok(()));
    }

    #[test]
    fn server_must_add_to_our_nonce() {
        let opened = |nonce: &str| {
            open(
                &[Mechanism::ScramSha256],
                &ChannelBinding::Unavailable,
                Nonce([1; 18]),
            )
            .unwrap()
            .2
            .handle_server_first(format!("r={nonce},s=c2FsdA==,i=1").as_bytes())
            .err()
        };
        let ours = base64::encode(&[1; 18]);
        assert_eq!(opened(&ours), Some(Rejected::Nonce));
        assert_eq!(opened(&format!("x{ours}")), Some(Rejected::Nonce));
        assert_eq!(opened(&format!("{ours}x")), None);
    }

    #[test]
    fn mechanism_follows_offer_and_binding() {
        use Mechanism::{ScramSha256, ScramSha256Plus};
        let data = || vec![1, 2, 3];
        let chosen = |offered: &[Mechanism], binding| {
            open(offered, &binding, Nonce([0; 18]))
                .map(|(mechanism, first, _)| (mechanism, first.first().copied()))
        };
        let both = [ScramSha256Plus, ScramSha256];
        assert_eq!(
            chosen(&both, ChannelBinding::Available(data())),
            Ok((ScramSha256Plus, Some(b'p')))
        );
        assert_eq!(
            chosen(&both, ChannelBinding::Unavailable),
            Ok((ScramSha256, Some(b'n')))
        );
        assert_eq!(
            chosen(&[ScramSha256], ChannelBinding::Available(data())),
            Ok((ScramSha256, Some(b'y')))
        );
        assert_eq!(
            chosen(&[ScramSha256], ChannelBinding::Required(data())),
            Err(NoMechanism::BindingRequired)
        );
        assert_eq!(
            chosen(&[], ChannelBinding::Unavailable),
            Err(NoMechanism::Unknown)
        );
        assert_eq!(
            chosen(&[ScramSha256Plus], ChannelBinding::Unavailable),
            Err(NoMechanism::Unknown)
        );
    }
}
