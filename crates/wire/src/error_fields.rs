//! ErrorResponse and NoticeResponse: fields, severities and SQLSTATEs.

use std::fmt;

use crate::read::Reader;

/// Five characters that name a class of error (appendix "PostgreSQL Error Codes").
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SqlState(pub [u8; 5]);

#[allow(missing_docs, reason = "the names are the manual's condition names")]
impl SqlState {
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    pub const WARNING: Self = Self(*b"01000");
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self(*b"08007");
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Self = Self(*b"25P03");
    pub const TRANSACTION_TIMEOUT: Self = Self(*b"25P04");
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    pub const INVALID_AUTHORIZATION_SPECIFICATION: Self = Self(*b"28000");
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self(*b"42P05");
    pub const INSUFFICIENT_RESOURCES: Self = Self(*b"53000");
    pub const OUT_OF_MEMORY: Self = Self(*b"53200");
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    pub const IDLE_SESSION_TIMEOUT: Self = Self(*b"57P05");
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");
}

impl SqlState {
    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How grave an error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// The statement failed, the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
    /// Nothing failed, but something is not as the client may think.
    Warning,
    /// Nothing failed.
    Notice,
}

impl Severity {
    /// The word as it stands in the `S` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// The fields of an ErrorResponse or NoticeResponse that a pooler reads, as they lie in the body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ErrorFields<'a> {
    /// `S`: the localised severity.
    pub severity: &'a [u8],
    /// `V`: the severity in English, from PostgreSQL 9.6 on.
    pub severity_id: &'a [u8],
    /// `C`: the SQLSTATE.
    pub code: &'a [u8],
    /// `M`: the primary message.
    pub message: &'a [u8],
    /// `D`: more about it.
    pub detail: &'a [u8],
    /// `H`: what may help.
    pub hint: &'a [u8],
    /// `R`: the function of PostgreSQL that says it.
    pub routine: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads a message body. Fields that are missing are empty; what follows a malformed field is
    /// not looked at, because an error should never fail to be reported.
    pub fn parse(body: &'a [u8]) -> Self {
        let mut fields = Self::default();
        let mut reader = Reader::new(body);
        while let Ok(kind @ 1..) = reader.u8() {
            let Ok(text) = reader.string() else { break };
            match kind {
                b'S' => fields.severity = text,
                b'V' => fields.severity_id = text,
                b'C' => fields.code = text,
                b'M' => fields.message = text,
                b'D' => fields.detail = text,
                b'H' => fields.hint = text,
                b'R' => fields.routine = text,
                _ => {}
            }
        }
        fields
    }

    /// Whether the sender ends the connection.
    pub fn is_fatal(&self) -> bool {
        let severity = match self.severity_id {
            b"" => self.severity,
            id => id,
        };
        matches!(severity, b"FATAL" | b"PANIC")
    }

    /// The SQLSTATE, if it has the right size.
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.code.try_into().ok().map(SqlState)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_severity_code_and_message() {
        let fields = ErrorFields::parse(b"SFATAL\0VFATAL\0C57P01\0Mgone\0Dlong\0Htry\0\0");
        assert_eq!(fields.severity, b"FATAL");
        assert_eq!(fields.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN));
        assert_eq!(fields.message, b"gone");
        assert_eq!((fields.detail, fields.hint), (&b"long"[..], &b"try"[..]));
    }

    #[test]
    fn a_broken_body_gives_what_was_readable() {
        assert_eq!(ErrorFields::parse(b"Mtext\0C08P").message, b"text");
        assert_eq!(ErrorFields::parse(b""), ErrorFields::default());
    }
}
