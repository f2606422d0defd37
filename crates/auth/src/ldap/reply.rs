//! What an LDAP server sends.

use std::fmt;

use super::ber::{self, ENUMERATED, INTEGER, Malformed, Reader, SEQUENCE};

/// One message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The end of an operation: of a bind, a search or StartTLS.
    Done {
        /// The operation; 0 is none: the server closes the connection of its own accord.
        id: i32,
        /// How it ended.
        outcome: Outcome,
    },
    /// An entry that a search has found.
    Entry {
        /// The search.
        id: i32,
        /// The entry's name.
        dn: String,
    },
    /// Something that does not concern us: a hint at another server, or news of an operation.
    Other,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// 0 is success.
    pub code: i32,
    /// What the server says about it; often nothing.
    pub text: String,
}

mod tag {
    pub(super) const BIND: u8 = 0x61;
    pub(super) const ENTRY: u8 = 0x64;
    pub(super) const DONE: u8 = 0x65;
    pub(super) const REFERENCE: u8 = 0x73;
    pub(super) const EXTENDED: u8 = 0x78;
    pub(super) const INTERMEDIATE: u8 = 0x79;
}

impl Reply {
    /// Reads the message at the beginning of a buffer, and says how many bytes it has. `None`: it
    /// is not all there.
    ///
    /// # Errors
    /// No LDAP server speaks like that.
    pub fn read(buffer: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(len) = ber::message_len(buffer)? else {
            return Ok(None);
        };
        let mut message = Reader::new(Reader::new(&buffer[..len]).expect(SEQUENCE)?);
        let id = message.number(INTEGER)?;
        let (operation, content) = message.any()?;
        let mut content = Reader::new(content);
        let reply = match operation {
            tag::BIND | tag::DONE | tag::EXTENDED => Self::Done {
                id,
                outcome: Outcome::read(&mut content)?,
            },
            tag::ENTRY => Self::Entry {
                id,
                dn: content.text()?.to_owned(),
            },
            tag::REFERENCE | tag::INTERMEDIATE => Self::Other,
            found => {
                return Err(Malformed::Tag {
                    found,
                    expected: tag::DONE,
                });
            }
        };
        Ok(Some((reply, len)))
    }
}

impl Outcome {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }

    fn read(content: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = content.number(ENUMERATED)?;
        let _matched = content.text()?;
        let text = content.text()?.to_owned();
        Ok(Self { code, text })
    }
}

/// OpenLDAP's words, which administrators search for.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RESULTS.iter().find(|(code, _)| *code == self.code) {
            Some((code, words)) => write!(f, "{words} ({code})")?,
            None => write!(f, "result code {}", self.code)?,
        }
        if self.text.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.text)
    }
}

const RESULTS: [(i32, &str); 16] = [
    (0, "Success"),
    (1, "Operations error"),
    (2, "Protocol error"),
    (3, "Time limit exceeded"),
    (4, "Size limit exceeded"),
    (7, "Authentication method not supported"),
    (8, "Strong(er) authentication required"),
    (10, "Referral"),
    (13, "Confidentiality required"),
    (32, "No such object"),
    (34, "Invalid DN syntax"),
    (49, "Invalid credentials"),
    (50, "Insufficient access"),
    (51, "Server is busy"),
    (52, "Server is unavailable"),
    (53, "Server is unwilling to perform"),
];
