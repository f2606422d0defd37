//! SCRAM's messages: reading them, and nothing about whether they prove anything.
//!
//! Messages are bytes: a client may write its user name in any encoding, and nobody looks at it.

use thiserror::Error;

use super::base64;
use super::keys::{KEY_BYTES, Key};

/// The longest message that we read. PostgreSQL refuses longer ones with this same limit.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;

/// What is wrong with the form of a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not a string with one final zero byte.
    #[error("password message without a final zero byte")]
    Unterminated,
    /// The first SASL message is not: mechanism, length, that many bytes.
    #[error("SASLInitialResponse whose lengths do not fit")]
    InitialResponse,
    /// Longer than PostgreSQL would take.
    #[error("SCRAM message of {0} bytes is too long (at most {MESSAGE_BYTES_MAX} bytes)")]
    TooLong(usize),
    /// The header does not begin with `n`, `y` or `p=`.
    #[error("SCRAM message has an unknown channel binding flag")]
    BindingFlag,
    /// The client wants to be one user and act as another, which PostgreSQL does not have.
    #[error("SCRAM message with an authorization identity, which is not supported")]
    AuthorizationIdentity,
    /// An attribute is not where it belongs.
    #[error("SCRAM message without attribute {0:?} where it belongs")]
    Attribute(char),
    /// `m=`: the client cannot go on without an extension that nobody has defined.
    #[error("SCRAM message that needs an extension, which is not supported")]
    Extension,
    /// The nonce is empty or has characters that it must not have.
    #[error("SCRAM nonce is empty or not printable")]
    Nonce,
    /// The proof or signature is not base64 of 32 bytes.
    #[error("SCRAM proof or signature is not of {KEY_BYTES} bytes")]
    Proof,
    /// The salt is not base64.
    #[error("SCRAM salt is not base64, or is empty")]
    Salt,
    /// The count is not a positive number.
    #[error("SCRAM iteration count is not a positive number")]
    Iterations,
    /// Something follows where the message should end.
    #[error("SCRAM message has bytes after its end")]
    Trailing,
}

/// SASLInitialResponse, the first `p` message of a SASL exchange.
pub(crate) struct InitialResponse<'a> {
    pub(crate) mechanism: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl<'a> InitialResponse<'a> {
    /// A client may leave the data out (length -1) and wait to be asked; no driver does.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let zero = payload
            .iter()
            .position(|&b| b == 0)
            .ok_or(Malformed::InitialResponse)?;
        let (mechanism, rest) = payload.split_at(zero);
        let (length, data) = rest
            .get(1..)
            .and_then(<[u8]>::split_first_chunk)
            .ok_or(Malformed::InitialResponse)?;
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(data.len()) {
            return Err(Malformed::InitialResponse);
        }
        Ok(Self { mechanism, data })
    }

    pub(crate) fn build(mechanism: &str, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).expect("our own first message is short");
        [mechanism.as_bytes(), b"\0", &length.to_be_bytes(), data].concat()
    }
}

/// What the client's header says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindingFlag<'a> {
    /// `n`: the client cannot.
    Unsupported,
    /// `y`: the client could, but believes that we cannot.
    SupportedButNotOffered,
    /// `p=`: bound, with data of the named type.
    Bound(&'a [u8]),
}

/// client-first-message.
pub(crate) struct ClientFirst<'a> {
    pub(crate) flag: BindingFlag<'a>,
    /// Up to and with its second comma.
    pub(crate) header: &'a [u8],
    /// The rest, which both sides sign.
    pub(crate) bare: &'a [u8],
    pub(crate) nonce: &'a [u8],
}

impl<'a> ClientFirst<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        check_length(message)?;
        let mut fields = Fields(Some(message));
        let flag = match fields.next().unwrap_or_default() {
            b"n" => BindingFlag::Unsupported,
            b"y" => BindingFlag::SupportedButNotOffered,
            field => BindingFlag::Bound(field.strip_prefix(b"p=").ok_or(Malformed::BindingFlag)?),
        };
        if !fields.next().ok_or(Malformed::BindingFlag)?.is_empty() {
            return Err(Malformed::AuthorizationIdentity);
        }
        let bare = fields.0.ok_or(Malformed::Attribute('n'))?;
        let (header, _) = message.split_at(message.len() - bare.len());
        if bare.starts_with(b"m=") {
            return Err(Malformed::Extension);
        }
        // The user's name stands in the startup message; PostgreSQL ignores this one.
        fields.value('n')?;
        let nonce = fields.value('r')?;
        check_nonce(nonce)?;
        fields.ignore_extensions()?;
        Ok(Self {
            flag,
            header,
            bare,
            nonce,
        })
    }
}

/// client-final-message.
pub(crate) struct ClientFinal<'a> {
    /// Base64 of the header and the binding data.
    pub(crate) channel_binding: &'a [u8],
    pub(crate) nonce: &'a [u8],
    /// Which both sides sign.
    pub(crate) without_proof: &'a [u8],
    pub(crate) proof: Key,
}

impl<'a> ClientFinal<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        check_length(message)?;
        // Base64 has no comma, so the proof is what follows the last one.
        let comma = message
            .iter()
            .rposition(|&b| b == b',')
            .ok_or(Malformed::Attribute('p'))?;
        let (without_proof, last) = message.split_at(comma);
        let proof = last.strip_prefix(b",p=").ok_or(Malformed::Attribute('p'))?;
        let proof = base64::decode_key(proof).ok_or(Malformed::Proof)?;

        let mut fields = Fields(Some(without_proof));
        let channel_binding = fields.value('c')?;
        let nonce = fields.value('r')?;
        fields.ignore_extensions()?;
        Ok(Self {
            channel_binding,
            nonce,
            without_proof,
            proof,
        })
    }
}

/// server-first-message.
pub(crate) struct ServerFirst<'a> {
    pub(crate) nonce: &'a [u8],
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: std::num::NonZeroU32,
}

impl<'a> ServerFirst<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        check_length(message)?;
        if message.starts_with(b"m=") {
            return Err(Malformed::Extension);
        }
        let mut fields = Fields(Some(message));
        let nonce = fields.value('r')?;
        check_nonce(nonce)?;
        let salt = base64::decode(fields.value('s')?).ok_or(Malformed::Salt)?;
        if salt.is_empty() {
            return Err(Malformed::Salt);
        }
        let count = std::str::from_utf8(fields.value('i')?).map_err(|_| Malformed::Iterations)?;
        let iterations = count.parse().map_err(|_| Malformed::Iterations)?;
        fields.ignore_extensions()?;
        Ok(Self {
            nonce,
            salt,
            iterations,
        })
    }
}

/// server-final-message.
pub(crate) enum ServerFinal {
    Signature(Key),
    /// The server's word for what went wrong.
    Error(String),
}

impl ServerFinal {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Malformed> {
        check_length(message)?;
        let mut fields = Fields(Some(message));
        if message.starts_with(b"e=") {
            let word = fields.value('e')?;
            return Ok(Self::Error(String::from_utf8_lossy(word).into_owned()));
        }
        let signature = base64::decode_key(fields.value('v')?).ok_or(Malformed::Proof)?;
        fields.ignore_extensions()?;
        Ok(Self::Signature(signature))
    }
}

/// The comma-separated fields still unread; none once the last has been taken.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Fields<'a> {
    /// The value of the next field, which must be of this attribute.
    fn value(&mut self, attribute: char) -> Result<&'a [u8], Malformed> {
        match self.next() {
            Some([name, b'=', value @ ..]) if char::from(*name) == attribute => Ok(value),
            _ => Err(Malformed::Attribute(attribute)),
        }
    }

    /// Extensions are attributes that we do not know; they may be left unheard.
    fn ignore_extensions(&mut self) -> Result<(), Malformed> {
        for field in self {
            match field {
                [name, b'=', ..] if name.is_ascii_alphabetic() => {}
                _ => return Err(Malformed::Trailing),
            }
        }
        Ok(())
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.take()?;
        let Some(comma) = rest.iter().position(|&b| b == b',') else {
            return Some(rest);
        };
        let (field, after) = rest.split_at(comma);
        self.0 = after.get(1..);
        Some(field)
    }
}

fn check_length(message: &[u8]) -> Result<(), Malformed> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::TooLong(message.len()));
    }
    Ok(())
}

/// Printable ASCII without the comma, which never gets here.
fn check_nonce(nonce: &[u8]) -> Result<(), Malformed> {
    if nonce.is_empty() || !nonce.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed::Nonce);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn client_first_is_cut_into_header_and_rest() {
        let message = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO,x=y").unwrap();
        assert_eq!(message.flag, BindingFlag::Unsupported);
        assert_eq!(message.header, b"n,,");
        assert_eq!(message.bare, b"n=user,r=rOprNGfwEbeRWgbNEkqO,x=y");
        assert_eq!(message.nonce, b"rOprNGfwEbeRWgbNEkqO");
        let bound = ClientFirst::parse(b"p=tls-server-end-point,,n=,r=abc").unwrap();
        assert_eq!(bound.flag, BindingFlag::Bound(b"tls-server-end-point"));
        assert_eq!(bound.header, b"p=tls-server-end-point,,");
    }

    #[test]
    fn malformed_first_messages_are_named() {
        for (message, expected) in [
            ("", Malformed::BindingFlag),
            ("n", Malformed::BindingFlag),
            ("z,,n=,r=a", Malformed::BindingFlag),
            ("n,a=other,n=,r=a", Malformed::AuthorizationIdentity),
            ("n,,m=x,n=,r=a", Malformed::Extension),
            ("n,", Malformed::Attribute('n')),
            ("n,,r=a", Malformed::Attribute('n')),
            ("n,,n=", Malformed::Attribute('r')),
            ("n,,n=,r=", Malformed::Nonce),
            ("n,,n=,r=a b", Malformed::Nonce),
            ("n,,n=,r=a,", Malformed::Trailing),
            ("n,,n=,r=a,1=b", Malformed::Trailing),
        ] {
            assert_eq!(
                ClientFirst::parse(message.as_bytes()).err(),
                Some(expected),
                "{message}"
            );
        }
    }

    #[test]
    fn client_final_keeps_extensions_under_the_signature() {
        let proof = "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        let short = format!("c=biws,r=abc,p={proof}");
        assert_eq!(
            ClientFinal::parse(short.as_bytes()).err(),
            Some(Malformed::Proof)
        );

        let proof = base64::encode(&[9; 32]);
        let message = format!("c=biws,r=abc,x=1,p={proof}");
        let message = ClientFinal::parse(message.as_bytes()).unwrap();
        assert_eq!(message.without_proof, b"c=biws,r=abc,x=1");
        assert_eq!(message.channel_binding, b"biws");
        assert_eq!(message.nonce, b"abc");
        assert_eq!(message.proof, Key::new([9; 32]));

        let trailing = format!("c=biws,r=abc,p={proof},x=1");
        let trailing = ClientFinal::parse(trailing.as_bytes());
        assert_eq!(trailing.err(), Some(Malformed::Attribute('p')));
    }

    #[test]
    fn server_first_needs_a_positive_count() {
        assert!(ServerFirst::parse(b"r=a,s=c2FsdA==,i=1").is_ok());
        for count in ["0", "-1", "", "x", "4294967296"] {
            let message = format!("r=a,s=c2FsdA==,i={count}");
            let parsed = ServerFirst::parse(message.as_bytes());
            assert_eq!(parsed.err(), Some(Malformed::Iterations), "{count}");
        }
    }

    #[test]
    fn initial_response_must_fit_its_length() {
        let payload = InitialResponse::build("SCRAM-SHA-256", b"n,,n=,r=a");
        let parsed = InitialResponse::parse(&payload).unwrap();
        assert_eq!(
            (parsed.mechanism, parsed.data),
            (&b"SCRAM-SHA-256"[..], &b"n,,n=,r=a"[..])
        );
        for end in 0..payload.len() {
            assert!(InitialResponse::parse(&payload[..end]).is_err());
        }
        assert!(InitialResponse::parse(b"SCRAM-SHA-256\0\xff\xff\xff\xff").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = InitialResponse::parse(&bytes);
            let _ = ClientFirst::parse(&bytes);
            let _ = ClientFinal::parse(&bytes);
            let _ = ServerFirst::parse(&bytes);
            let _ = ServerFinal::parse(&bytes);
        }

        #[test]
        fn no_text_of_fields_makes_a_parser_panic(text in "[nyprsicvem=,/+A-C ]{0,60}") {
            let _ = ClientFirst::parse(text.as_bytes());
            let _ = ClientFinal::parse(text.as_bytes());
            let _ = ServerFirst::parse(text.as_bytes());
            let _ = ServerFinal::parse(text.as_bytes());
        }
    }
}
