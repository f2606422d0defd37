//! Batches that no server sees: what a client without a server wants, and how to pass over what
//! it asked when it gets none.
//!
//! A batch is what one ReadyForQuery answers: a Query, a FunctionCall, or everything up to a Sync.

use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{FrameError, HEADER_LEN, Header};
use serde::{Deserialize, Serialize};

/// What the next message of a client without a server wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Nothing, or not enough of it is there to say.
    Nothing,
    /// Nothing; in place of the CopyData that is there in part, this header of what is still to come of it will do.
    Rest([u8; HEADER_LEN]),
    /// To leave.
    Terminate,
    /// A server.
    Server,
}

/// PostgreSQL takes no longer CopyData, in bytes (its `PQ_LARGE_MESSAGE_LIMIT`).
const COPY_DATA_MAX: u32 = 0x3fff_fffe;

/// Nor longer messages of these kinds (its `PQ_SMALL_MESSAGE_LIMIT`).
const SMALL_MAX: u32 = 10_000;

/// Looks at the messages of a client that holds no server; also, how many bytes at the start
/// need none: what is left over from a COPY that failed, or a Flush of nothing. PostgreSQL ignores
/// them too.
///
/// # Errors
/// A length that no message has.
pub fn wish(bytes: &[u8]) -> Result<(Wish, usize), FrameError> {
    let mut at = 0;
    loop {
        let limit = match bytes.get(at) {
            Some(&tag::COPY_DATA) => COPY_DATA_MAX,
            Some(&(tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH)) => SMALL_MAX,
            _ => u32::MAX,
        };
        let Some(header) = Header::peek(&bytes[at..], limit)? else {
            return Ok((Wish::Nothing, at));
        };
        match header.tag {
            tag::TERMINATE => return Ok((Wish::Terminate, at)),
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => {
                let missing = (at + header.frame_len()).saturating_sub(bytes.len());
                if missing > 0 {
                    // It may be long, and is not kept.
                    let may_go = header.tag == tag::COPY_DATA && bytes.len() > at + HEADER_LEN;
                    return Ok(match may_go {
                        true => (Wish::Rest(copy_data_header(missing)), bytes.len()),
                        false => (Wish::Nothing, at),
                    });
                }
                at += header.frame_len();
            }
            _ if at > 0 => return Ok((Wish::Nothing, at)),
            _ => return Ok((Wish::Server, 0)),
        }
    }
}

/// The header of a CopyData with a body of so many bytes.
fn copy_data_header(body_len: usize) -> [u8; HEADER_LEN] {
    let length = u32::try_from(body_len).unwrap_or(COPY_DATA_MAX) + 4;
    let [a, b, c, d] = length.to_be_bytes();
    [tag::COPY_DATA, a, b, c, d]
}

/// Passes over one batch, whatever pieces it comes in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct SkipBatch {
    /// What is left of the message that was begun.
    left: usize,
    /// Whether that message ends the batch.
    is_last: bool,
}

/// How far a batch has been passed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Skipped {
    /// So many bytes; its end is still to come.
    Part(usize),
    /// So many bytes; it has ended.
    All(usize),
}

impl SkipBatch {
    /// Passes over as much of the batch as is in `bytes`.
    ///
    /// # Errors
    /// A length that no message has.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<Skipped, FrameError> {
        let mut at = 0;
        loop {
            let there = self.left.min(bytes.len() - at);
            self.left -= there;
            at += there;
            if self.left > 0 {
                return Ok(Skipped::Part(at));
            }
            if std::mem::take(&mut self.is_last) {
                return Ok(Skipped::All(at));
            }
            let Some(header) = Header::peek(&bytes[at..], u32::MAX)? else {
                return Ok(Skipped::Part(at));
            };
            self.left = header.frame_len();
            self.is_last = matches!(header.tag, tag::QUERY | tag::SYNC | tag::FUNCTION_CALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"Q\0\0\0\x06x\0";
    const PARSE: &[u8] = b"P\0\0\0\x08\0x\0\0";
    const SYNC: &[u8] = b"S\0\0\0\x04";
    const COPY_DONE: &[u8] = b"c\0\0\0\x04";

    #[test]
    fn a_query_wants_a_server() {
        assert_eq!(wish(QUERY), Ok((Wish::Server, 0)));
        assert_eq!(wish(&QUERY[..3]), Ok((Wish::Nothing, 0)));
    }

    #[test]
    fn what_a_failed_copy_left_is_passed_over() {
        let bytes = [COPY_DONE, QUERY].concat();
        assert_eq!(wish(&bytes), Ok((Wish::Nothing, COPY_DONE.len())));
        assert_eq!(wish(b"X\0\0\0\x04"), Ok((Wish::Terminate, 0)));
    }

    #[test]
    fn a_long_copy_data_need_not_be_there_at_once() {
        let whole = [b"d\0\0\x10\x04", &[b'1'; 4096][..], QUERY].concat();
        let (mut held, mut longest, mut last) = (Vec::new(), 0, Wish::Nothing);
        for piece in whole.chunks(100) {
            held.extend_from_slice(piece);
            loop {
                let (wish, consumed) = wish(&held).unwrap();
                held.drain(..consumed);
                last = wish;
                match wish {
                    Wish::Rest(header) => drop(held.splice(..0, header)),
                    Wish::Nothing if consumed > 0 => {}
                    Wish::Nothing | Wish::Server | Wish::Terminate => break,
                }
            }
            longest = longest.max(held.len());
        }
        assert_eq!((last, &*held), (Wish::Server, QUERY));
        assert!(longest <= 100 + HEADER_LEN, "{longest}");
    }

    #[test]
    fn a_batch_ends_behind_its_sync() {
        let batch = [PARSE, PARSE, SYNC].concat();
        let bytes = [&batch, QUERY].concat();
        assert_eq!(
            SkipBatch::default().skip(&bytes),
            Ok(Skipped::All(batch.len()))
        );
    }

    #[test]
    fn a_batch_may_come_in_pieces() {
        let batch = [PARSE, SYNC, QUERY].concat();
        let (mut skip, mut held, mut passed) = (SkipBatch::default(), Vec::new(), 0);
        for &byte in &batch {
            held.push(byte);
            match skip.skip(&held).unwrap() {
                Skipped::Part(consumed) => {
                    passed += consumed;
                    held.drain(..consumed);
                }
                Skipped::All(consumed) => {
                    assert_eq!(passed + consumed, PARSE.len() + SYNC.len());
                    return;
                }
            }
        }
        panic!("the batch has an end");
    }

    #[test]
    fn what_needs_no_server_is_as_long_as_postgresql_takes_it() {
        for tag in [tag::COPY_DATA, tag::COPY_DONE, tag::COPY_FAIL, tag::FLUSH] {
            assert!(wish(&[tag, 0xff, 0xff, 0xff, 0xff]).is_err(), "{tag}");
        }
        assert_eq!(
            wish(&[tag::COPY_DATA, 0x3f, 0xff, 0, 0]),
            Ok((Wish::Nothing, 0))
        );
    }
}
