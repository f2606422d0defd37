//! Messages that the pooler sends to a client, and the parts of server messages that it reads.

use bytes::{BufMut, BytesMut};

use crate::TransactionStatus;
use crate::error_fields::{Severity, SqlState};
use crate::read::{Reader, Truncated};
use crate::startup::ProtocolVersion;
use crate::tag::backend as tag;
use crate::write::{frame, string};

/// An Authentication message, either direction of reading.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Authentication<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5Password {
        /// To be mixed into the hash.
        salt: [u8; 4],
    },
    /// AuthenticationSASL: the mechanisms offered, best first.
    Sasl(Vec<&'a str>),
    /// AuthenticationSASLContinue.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal.
    SaslFinal(&'a [u8]),
    /// One that a pooler does not speak (Kerberos, GSSAPI, SSPI), by its code.
    Unsupported(i32),
}

impl<'a> Authentication<'a> {
    /// Reads the body of an Authentication message.
    ///
    /// # Errors
    /// The body ends too early.
    pub fn parse(body: &'a [u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        Ok(match reader.i32()? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: reader.bytes(4)?.try_into().map_err(|_| Truncated)?,
            },
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let name = reader.string()?;
                    if name.is_empty() {
                        break Self::Sasl(mechanisms);
                    }
                    mechanisms.push(std::str::from_utf8(name).map_err(|_| Truncated)?);
                }
            }
            11 => Self::SaslContinue(reader.rest()),
            12 => Self::SaslFinal(reader.rest()),
            code => Self::Unsupported(code),
        })
    }

    /// Appends the message.
    pub fn write(&self, out: &mut BytesMut) {
        frame(out, tag::AUTHENTICATION, |out| match self {
            Self::Ok => out.put_i32(0),
            Self::CleartextPassword => out.put_i32(3),
            Self::Md5Password { salt } => {
                out.put_i32(5);
                out.put_slice(salt);
            }
            Self::Sasl(mechanisms) => {
                out.put_i32(10);
                for mechanism in mechanisms {
                    string(out, mechanism.as_bytes());
                }
                out.put_u8(0);
            }
            Self::SaslContinue(data) => {
                out.put_i32(11);
                out.put_slice(data);
            }
            Self::SaslFinal(data) => {
                out.put_i32(12);
                out.put_slice(data);
            }
            Self::Unsupported(code) => out.put_i32(*code),
        });
    }
}

/// An ErrorResponse or NoticeResponse to write. PgBouncer sends S, C and M only; DETAIL and HINT
/// are added where they are given.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The `S` field.
    pub severity: Severity,
    /// The `C` field.
    pub code: SqlState,
    /// The `M` field.
    pub message: &'a str,
    /// The `D` field.
    pub detail: Option<&'a str>,
    /// The `H` field.
    pub hint: Option<&'a str>,
}

impl Report<'_> {
    /// Appends the message: NoticeResponse for warnings and notices, else ErrorResponse.
    pub fn write(&self, out: &mut BytesMut) {
        let tag = match self.severity {
            Severity::Warning | Severity::Notice => tag::NOTICE_RESPONSE,
            Severity::Error | Severity::Fatal => tag::ERROR_RESPONSE,
        };
        frame(out, tag, |out| {
            let fields = [
                (b'S', Some(self.severity.as_str())),
                (b'C', Some(self.code.as_str())),
                (b'M', Some(self.message)),
                (b'D', self.detail),
                (b'H', self.hint),
            ];
            for (kind, text) in fields {
                if let Some(text) = text {
                    out.put_u8(kind);
                    string(out, text.as_bytes());
                }
            }
            out.put_u8(0);
        });
    }
}

/// Appends CommandComplete.
pub fn command_complete(out: &mut BytesMut, tag: &str) {
    frame(out, tag::COMMAND_COMPLETE, |out| {
        string(out, tag.as_bytes());
    });
}

/// Appends ReadyForQuery.
pub fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    frame(out, tag::READY_FOR_QUERY, |out| out.put_u8(status.byte()));
}

/// Appends ParameterStatus.
pub fn parameter_status(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    frame(out, tag::PARAMETER_STATUS, |out| {
        string(out, name);
        string(out, value);
    });
}

/// Reads the body of ParameterStatus: name and value.
///
/// # Errors
/// The body ends too early.
pub fn read_parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Truncated> {
    let mut reader = Reader::new(body);
    Ok((reader.string()?, reader.string()?))
}

/// Appends BackendKeyData. `secret` has 4 bytes in protocol 3.0 and up to 256 in 3.2.
pub fn backend_key_data(out: &mut BytesMut, process_id: i32, secret: &[u8]) {
    frame(out, tag::BACKEND_KEY_DATA, |out| {
        out.put_i32(process_id);
        out.put_slice(secret);
    });
}

/// Appends NegotiateProtocolVersion: the newest version spoken, and the options not understood.
pub fn negotiate_protocol_version(out: &mut BytesMut, newest: ProtocolVersion, options: &[String]) {
    frame(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u32(newest.0);
        out.put_i32(i32::try_from(options.len()).expect("options fit into a startup packet"));
        for option in options {
            string(out, option.as_bytes());
        }
    });
}

/// ParseComplete, whole.
pub const PARSE_COMPLETE: [u8; 5] = [tag::PARSE_COMPLETE, 0, 0, 0, 4];
/// CloseComplete, whole.
pub const CLOSE_COMPLETE: [u8; 5] = [tag::CLOSE_COMPLETE, 0, 0, 0, 4];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorFields;

    #[test]
    fn authentication_messages_survive_a_round_trip() {
        let all = [
            Authentication::Ok,
            Authentication::CleartextPassword,
            Authentication::Md5Password { salt: *b"salt" },
            Authentication::Sasl(vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
            Authentication::SaslContinue(b"r=x"),
            Authentication::SaslFinal(b"v=y"),
        ];
        for message in all {
            let mut out = BytesMut::new();
            message.write(&mut out);
            assert_eq!(Authentication::parse(&out[5..]), Ok(message));
        }
    }

    #[test]
    fn an_error_has_the_bytes_that_pgbouncer_sends() {
        let mut out = BytesMut::new();
        Report {
            severity: Severity::Fatal,
            code: SqlState::PROTOCOL_VIOLATION,
            message: "bad packet",
            detail: None,
            hint: None,
        }
        .write(&mut out);
        assert_eq!(
            &out[..],
            b"E\x00\x00\x00\x1fSFATAL\x00C08P01\x00Mbad packet\x00\x00"
        );
    }

    #[test]
    fn a_report_is_read_back() {
        let mut out = BytesMut::new();
        Report {
            severity: Severity::Error,
            code: SqlState::TOO_MANY_CONNECTIONS,
            message: "full",
            detail: Some("5 of 5"),
            hint: Some("wait"),
        }
        .write(&mut out);
        let fields = ErrorFields::parse(&out[5..]);
        assert_eq!(fields.sqlstate(), Some(SqlState::TOO_MANY_CONNECTIONS));
        assert_eq!(fields.message, b"full");
    }
}
