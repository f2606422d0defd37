//! How a command ends.

use crate::{FAILED, FOUND};

/// A command that came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// All is well, or done.
    Fine,
    /// There is something to look at.
    Found,
}

impl Verdict {
    /// Something was found if `found` says so.
    pub(crate) const fn found_if(found: bool) -> Self {
        match found {
            true => Self::Found,
            false => Self::Fine,
        }
    }
}

/// A command that could not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The pooler's console, or somebody else who is needed, does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The console refused.
    #[error("the pooler refuses: {0}")]
    Refused(String),
    /// What would be done is not safe.
    #[error("{0}")]
    Unsafe(String),
}

impl Trouble {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Unreachable(_) => FAILED,
            Self::Refused(_) | Self::Unsafe(_) => FOUND,
        }
    }
}
