//! PostgreSQL's frontend/backend protocol, version 3, as bytes.
//!
//! Message and field names are those of the manual's chapter "Frontend/Backend Protocol". This
//! crate cuts buffers into frames, reads the few messages a pooler must understand and writes the
//! ones it must say. It does no I/O, keeps no state and never allocates to read.
//!
//! *Frontend* and *backend* name the direction of a message; a connection is a client or a server.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
pub mod error_fields;
pub mod frame;
pub mod frontend;
pub mod read;
pub mod startup;
pub mod tag;
mod write;

pub use error_fields::{ErrorFields, Severity, SqlState};
pub use frame::{FrameError, HEADER_LEN, Header, SizeLimits};
pub use read::Reader;
pub use startup::{CancelKey, FirstPacket, ProtocolVersion, StartupError, StartupMessage};
pub use write::{Oversized, put_frame};

/// The status byte of ReadyForQuery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// The status that a ReadyForQuery byte stands for; `None` if it stands for none.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte as it stands in ReadyForQuery.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}
