//! The first packet of a connection: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest.
//!
//! These have no tag. The texts of [`StartupError`] are PgBouncer's, because tools match them.

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

use crate::frame::SizeLimits;
use crate::read::Reader;

/// Request codes that stand where a version number stands in a StartupMessage.
pub(crate) mod code {
    pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;
    pub(crate) const SSL_REQUEST: u32 = 80_877_103;
    pub(crate) const GSSENC_REQUEST: u32 = 80_877_104;
}

/// Major version in the upper half, minor in the lower.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// What every server since 7.4 speaks.
    pub const V3_0: Self = Self(3 << 16);
    /// PostgreSQL 18: cancel keys of up to 256 bytes.
    pub const V3_2: Self = Self(3 << 16 | 2);

    /// The major version.
    pub fn major(self) -> u32 {
        self.0 >> 16
    }

    /// The minor version.
    pub fn minor(self) -> u32 {
        self.0 & 0xffff
    }
}

/// What BackendKeyData gives and CancelRequest brings back.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct CancelKey {
    /// The process id that the server (or the pooler) said.
    pub process_id: i32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Arc<[u8]>,
}

impl std::fmt::Debug for CancelKey {
    /// Leaves the secret out: whoever reads a log must not be able to cancel with it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

impl CancelKey {
    /// Longest secret that the protocol allows.
    pub const MAX_SECRET: usize = 256;

    /// Reads the body of BackendKeyData, or of a CancelRequest behind its code.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let process_id = reader.i32().ok()?;
        let secret = reader.rest();
        (4..=Self::MAX_SECRET)
            .contains(&secret.len())
            .then(|| Self {
                process_id,
                secret: secret.into(),
            })
    }
}

/// The first packet, understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FirstPacket {
    /// The client wants TLS.
    SslRequest,
    /// The client wants GSSAPI encryption.
    GssEncRequest,
    /// The client wants another connection's query to be cancelled.
    CancelRequest(CancelKey),
    /// The client wants to log in.
    Startup(StartupMessage),
}

impl FirstPacket {
    /// Reads the packet at the start of `buf`: the packet and its size in bytes, or `None` when
    /// more bytes are needed.
    ///
    /// # Errors
    /// See [`StartupError`]; the connection cannot go on after one.
    pub fn parse(buf: &[u8]) -> Result<Option<(Self, usize)>, StartupError> {
        let Some((&[a, b, c, d, e, f, g, h], _)) = buf.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let version = u32::from_be_bytes([e, f, g, h]);
        // Whoever changes its mind at once may say goodbye before it has introduced itself.
        if buf.starts_with(b"X\0\0\0\x04") {
            return Err(StartupError::Terminate);
        }
        let is_startup = version >> 16 == 3;
        if is_startup && (SizeLimits::STARTUP + 1..=i32::MAX as u32).contains(&length) {
            return Err(StartupError::TooLong(first_bytes(buf)));
        }
        if !(8..=SizeLimits::STARTUP).contains(&length) {
            return Err(StartupError::bad_header(buf));
        }
        if version == 2 << 16 {
            return Err(StartupError::Version2);
        }
        let known = matches!(
            version,
            code::CANCEL_REQUEST | code::SSL_REQUEST | code::GSSENC_REQUEST
        );
        if !known && !is_startup {
            return Err(StartupError::bad_header(buf));
        }
        let Some(body) = buf.get(8..length as usize) else {
            return Ok(None);
        };
        let packet = match version {
            code::SSL_REQUEST => Self::SslRequest,
            code::GSSENC_REQUEST => Self::GssEncRequest,
            code::CANCEL_REQUEST => Self::CancelRequest(
                CancelKey::parse(body).ok_or_else(|| StartupError::bad_header(buf))?,
            ),
            _ => Self::Startup(StartupMessage::parse(ProtocolVersion(version), body)?),
        };
        Ok(Some((packet, length as usize)))
    }
}

/// StartupMessage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StartupMessage {
    /// The version that the client asks for.
    pub version: ProtocolVersion,
    /// Names and values, each with a zero byte behind it.
    text: String,
    /// Where in it each name ends, and its value.
    ends: Vec<(usize, usize)>,
}

impl StartupMessage {
    fn parse(version: ProtocolVersion, body: &[u8]) -> Result<Self, StartupError> {
        // Programs send their name in whatever encoding they have. No zero byte comes or goes with this.
        let text = match str::from_utf8(body) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(body),
        };
        let mut reader = Reader::new(text.as_bytes());
        let mut string = || reader.string().map_err(|_| StartupError::NoTerminator);
        let (mut ends, mut start) = (Vec::new(), 0);
        loop {
            let name = string()?;
            if name.is_empty() {
                break;
            }
            let name_end = start + name.len();
            let value_end = name_end + 1 + string()?.len();
            ends.push((name_end, value_end));
            start = value_end + 1;
        }
        if !reader.rest().is_empty() {
            return Err(StartupError::NoTerminator);
        }
        let is_sent = matches!(text, Cow::Borrowed(_));
        let message = Self {
            version,
            text: text.into_owned(),
            ends,
        };
        // A name that only looks alike would be somebody else.
        let mut names = ["user", "database"]
            .into_iter()
            .filter_map(|name| message.parameter(name));
        match is_sent || !names.any(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
            true => Ok(message),
            false => Err(StartupError::NotUtf8),
        }
    }

    /// Name and value pairs, `user` and `database` among them.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, value_end)| {
            let name = &self.text[start..name_end];
            start = value_end + 1;
            (name, &self.text[name_end + 1..value_end])
        })
    }

    /// The value of a parameter; the last one counts where a name stands twice.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let named = self.parameters().filter(|(key, _)| *key == name);
        named.last().map(|(_, value)| value)
    }

    /// The names of protocol options (`_pq_.`), none of which are spoken.
    pub fn protocol_options(&self) -> Vec<String> {
        let names = self.parameters().map(|(name, _)| name);
        let options = names.filter(|name| name.starts_with("_pq_."));
        options.map(str::to_owned).collect()
    }
}

/// Why a first packet cannot be answered with a login.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum StartupError {
    /// Protocol 2 ended with PostgreSQL 14.
    #[error("old V2 protocol not supported")]
    Version2,
    /// A length or version that no PostgreSQL client sends; carries the first bytes in hex.
    #[error("bad packet header: '{0}'")]
    BadHeader(String),
    /// A StartupMessage over [`SizeLimits::STARTUP`]; carries the first bytes in hex.
    #[error("bad packet header: '{0}'")]
    TooLong(String),
    /// The client says goodbye.
    #[error("client close request")]
    Terminate,
    /// The parameter list does not end with a zero byte.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    NoTerminator,
    /// The user or the database is not UTF-8.
    #[error("invalid startup packet layout: user and database must be UTF-8")]
    NotUtf8,
}

impl StartupError {
    fn bad_header(buf: &[u8]) -> Self {
        Self::BadHeader(first_bytes(buf))
    }
}

fn first_bytes(buf: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(16);
    for byte in buf.iter().take(8) {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::frontend;

    fn startup(parameters: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        frontend::startup(&mut out, ProtocolVersion::V3_0, parameters.iter().copied());
        out
    }

    #[test]
    fn reads_user_and_database() {
        let packet = startup(&[("user", "bob"), ("database", "p0")]);
        let Ok(Some((FirstPacket::Startup(message), size))) = FirstPacket::parse(&packet) else {
            panic!("a startup message");
        };
        assert_eq!(size, packet.len());
        assert_eq!(message.parameter("user"), Some("bob"));
        assert_eq!(message.parameter("database"), Some("p0"));
    }

    #[test]
    fn waits_for_the_whole_packet() {
        let packet = startup(&[("user", "bob")]);
        for end in 0..packet.len() {
            assert_eq!(FirstPacket::parse(&packet[..end]), Ok(None));
        }
    }

    #[test]
    fn names_old_and_unknown_versions() {
        assert_eq!(
            FirstPacket::parse(b"\0\0\0\x09\0\x02\0\0\0"),
            Err(StartupError::Version2)
        );
        let error = FirstPacket::parse(b"\0\0\0\x12\0\x04\0\0").unwrap_err();
        assert_eq!(error.to_string(), "bad packet header: '0000001200040000'");
    }

    #[test]
    fn too_long_is_told_from_what_is_no_startup_message() {
        let first = |length: u32, version: u32| {
            FirstPacket::parse(&[length.to_be_bytes(), version.to_be_bytes()].concat())
        };
        assert_eq!(first(SizeLimits::STARTUP, 3 << 16), Ok(None));
        let too_long = StartupError::TooLong("0000271100030000".to_owned());
        assert_eq!(first(SizeLimits::STARTUP + 1, 3 << 16), Err(too_long));
        for (length, version) in [
            (u32::MAX, 3 << 16),
            (20_000, code::SSL_REQUEST),
            (7, 3 << 16),
        ] {
            let error = first(length, version).unwrap_err();
            assert!(matches!(error, StartupError::BadHeader(_)), "{error:?}");
        }
    }

    #[test]
    fn a_missing_terminator_is_named() {
        let error = FirstPacket::parse(b"\0\0\0\x0d\0\x03\0\0user\0").unwrap_err();
        assert_eq!(error, StartupError::NoTerminator);
    }

    #[test]
    fn user_and_database_are_text_and_nothing_follows_them() {
        let parse = |body: &[u8]| {
            let length = u32::try_from(8 + body.len()).unwrap().to_be_bytes();
            FirstPacket::parse(&[&length, &[0, 3, 0, 0], body].concat())
        };
        for (body, error) in [
            (&b"user\0b\xff\0\0"[..], StartupError::NotUtf8),
            (b"user\0b\0database\0\xfc\0\0", StartupError::NotUtf8),
            (b"user\0bob\0\0more", StartupError::NoTerminator),
            (b"user\0\0", StartupError::NoTerminator),
            (b"", StartupError::NoTerminator),
        ] {
            assert_eq!(parse(body), Err(error), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_name_may_have_any_encoding() {
        let body = b"application_name\0B\xfcro\0user\0b\xc3\xb6b\0\0";
        let message = StartupMessage::parse(ProtocolVersion::V3_0, body).unwrap();
        assert_eq!(message.parameter("application_name"), Some("B\u{fffd}ro"));
        assert_eq!(message.parameter("user"), Some("b\u{f6}b"));
    }

    #[test]
    fn a_long_cancel_key_survives_a_round_trip() {
        let key = CancelKey {
            process_id: 77,
            secret: vec![9; 32].into(),
        };
        let mut out = BytesMut::new();
        frontend::cancel_request(&mut out, &key);
        let size = out.len();
        assert_eq!(
            FirstPacket::parse(&out),
            Ok(Some((FirstPacket::CancelRequest(key), size)))
        );
    }

    #[test]
    fn protocol_options_are_listed() {
        let packet = startup(&[("_pq_.foo", "1"), ("user", "u")]);
        let Ok(Some((FirstPacket::Startup(message), _))) = FirstPacket::parse(&packet) else {
            panic!("a startup message");
        };
        assert_eq!(message.protocol_options(), ["_pq_.foo"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = FirstPacket::parse(&bytes);
        }

        #[test]
        fn every_startup_message_is_read_back(
            pairs in proptest::collection::vec(("[a-z_.]{1,12}", "[ -~]{0,20}"), 0..8)
        ) {
            let borrowed: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let packet = startup(&borrowed);
            let parsed = FirstPacket::parse(&packet).unwrap().unwrap().0;
            let FirstPacket::Startup(message) = parsed else {
                panic!("a startup message");
            };
            prop_assert_eq!(message.version, ProtocolVersion::V3_0);
            prop_assert_eq!(message.parameters().collect::<Vec<_>>(), borrowed);
        }
    }
}
