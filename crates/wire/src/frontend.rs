//! Messages that the pooler sends to a server, and the parts of client messages that it reads.
//!
//! The plain ones come from `postgres-protocol`; this module adds what it does not have: startup
//! with any version, long cancel keys, and reading.

use bytes::{BufMut, BytesMut};

use crate::read::{Reader, Truncated};
use crate::startup::{CancelKey, ProtocolVersion, code};
use crate::tag::frontend as tag;
use crate::write::{frame, sized, string};

/// Appends Query. A zero byte in `sql` is left out.
pub fn query(out: &mut BytesMut, sql: &str) {
    frame(out, tag::QUERY, |out| string(out, sql.as_bytes()));
}

/// Appends Sync.
pub fn sync(out: &mut BytesMut) {
    postgres_protocol::message::frontend::sync(out);
}

/// Appends Flush.
pub fn flush(out: &mut BytesMut) {
    postgres_protocol::message::frontend::flush(out);
}

/// Appends Terminate.
pub fn terminate(out: &mut BytesMut) {
    postgres_protocol::message::frontend::terminate(out);
}

/// Appends CopyFail with the reason.
pub fn copy_fail(out: &mut BytesMut, reason: &str) {
    frame(out, tag::COPY_FAIL, |out| string(out, reason.as_bytes()));
}

/// Appends PasswordMessage with raw content (also SASLResponse, which has the same tag).
pub fn password(out: &mut BytesMut, content: &[u8]) {
    frame(out, tag::PASSWORD, |out| out.put_slice(content));
}

/// Appends SASLInitialResponse.
pub fn sasl_initial_response(out: &mut BytesMut, mechanism: &str, data: &[u8]) {
    frame(out, tag::PASSWORD, |out| {
        string(out, mechanism.as_bytes());
        out.put_i32(i32::try_from(data.len()).expect("our own SASL messages are small"));
        out.put_slice(data);
    });
}

/// Appends Parse under another statement name; `rest` is the body behind the name.
pub fn parse_renamed(out: &mut BytesMut, name: &str, rest: &[u8]) {
    frame(out, tag::PARSE, |out| {
        string(out, name.as_bytes());
        out.put_slice(rest);
    });
}

/// Appends the start of a Bind under another statement name. The caller sends the `rest_len`
/// bytes of the body that follow the names, which may be many, without holding them.
pub fn bind_renamed(out: &mut BytesMut, portal: &[u8], name: &str, rest_len: usize) {
    let length = 4 + portal.len() + 1 + name.len() + 1 + rest_len;
    out.put_u8(tag::BIND);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    string(out, portal);
    string(out, name.as_bytes());
}

/// Appends Describe of a prepared statement.
pub fn describe_statement(out: &mut BytesMut, name: &str) {
    frame(out, tag::DESCRIBE, |out| {
        out.put_u8(b'S');
        string(out, name.as_bytes());
    });
}

/// Appends Close of a prepared statement.
pub fn close_statement(out: &mut BytesMut, name: &str) {
    frame(out, tag::CLOSE, |out| {
        out.put_u8(b'S');
        string(out, name.as_bytes());
    });
}

/// Appends a StartupMessage.
pub fn startup<'a>(
    out: &mut BytesMut,
    version: ProtocolVersion,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    sized(out, |out| {
        out.put_u32(version.0);
        for (name, value) in parameters {
            string(out, name.as_bytes());
            string(out, value.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Appends SSLRequest.
pub fn ssl_request(out: &mut BytesMut) {
    postgres_protocol::message::frontend::ssl_request(out);
}

/// Appends CancelRequest, with a secret of any length (protocol 3.2).
pub fn cancel_request(out: &mut BytesMut, key: &CancelKey) {
    sized(out, |out| {
        out.put_u32(code::CANCEL_REQUEST);
        out.put_i32(key.process_id);
        out.put_slice(&key.secret);
    });
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target<'a> {
    /// `S`: a prepared statement.
    Statement(&'a [u8]),
    /// `P`: a portal.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads the body of Describe or Close.
    ///
    /// # Errors
    /// The body ends too early, or names neither a statement nor a portal.
    pub fn parse(body: &'a [u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        match reader.u8()? {
            b'S' => reader.string().map(Target::Statement),
            b'P' => reader.string().map(Target::Portal),
            _ => Err(Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Header;

    #[test]
    fn a_renamed_bind_announces_the_bytes_still_to_come() {
        let mut out = BytesMut::new();
        bind_renamed(&mut out, b"p", "S_1", 6);
        let header = Header::peek(&out, u32::MAX).unwrap().unwrap();
        assert_eq!(header.frame_len(), out.len() + 6);
        assert_eq!(&out[5..], b"p\0S_1\0");
    }

    #[test]
    fn a_target_is_a_statement_or_a_portal() {
        assert_eq!(Target::parse(b"Sname\0"), Ok(Target::Statement(b"name")));
        assert_eq!(Target::parse(b"P\0"), Ok(Target::Portal(b"")));
        assert_eq!(Target::parse(b"X\0"), Err(Truncated));
    }
}
