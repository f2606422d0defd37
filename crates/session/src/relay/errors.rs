//! A server answers with an error: whose affair that is, and what it says of the books.

use bytes::BytesMut;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, HEADER_LEN, Header, SqlState, put_frame};

use super::{Asked, ClientSide, ClientStream, Relay, Sent, Violation};
use crate::outgrown;
use crate::pipeline::{AfterError, Reply};

/// Classes of errors that are kept between two times that they are taken.
const ERROR_CLASSES_MAX: usize = 64;

/// An error of the pooler's own.
pub(super) fn error_response(fields: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, tag::ERROR_RESPONSE, &[fields]).expect("our own errors are short");
    out
}

/// Whether a statement failed because it was prepared before a definition was changed.
fn is_outdated(fields: &ErrorFields<'_>) -> bool {
    match fields.sqlstate() {
        Some(SqlState::FEATURE_NOT_SUPPORTED) => fields.routine == b"RevalidateCachedQuery",
        Some(SqlState::INTERNAL_ERROR) => fields.message.starts_with(b"cache lookup failed"),
        _ => false,
    }
}

impl Relay {
    #[cold]
    pub(super) fn error(
        &mut self,
        header: Header,
        frame: &[u8],
        client: &ClientSide,
    ) -> Result<Option<Reply>, Violation> {
        let Some(body) = frame.get(HEADER_LEN..header.frame_len()) else {
            return Ok(None);
        };
        let fields = ErrorFields::parse(body);
        if self.is_asking() {
            return self.own_query_failed(&fields).map(Some);
        }
        self.has_said_goodbye |= fields.is_fatal();
        if !fields.is_fatal() && self.pipeline.fails_alone() {
            self.pipeline.failed();
            return Ok(Some(Reply::Skip));
        }
        self.residue.note_undone();
        // A Parse that was skipped has left the server's as it was.
        self.unnamed.sent = Sent::No;
        self.correct_books(&fields, body);
        if is_outdated(&fields) {
            self.residue.note_altered();
        }
        self.count_error(&fields);
        let after = self.pipeline.failed();
        if after == AfterError::Unasked && !fields.is_fatal() {
            // Whatever it was that failed, the server may skip what comes next.
            return Err(Violation::ServerMessage(tag::ERROR_RESPONSE));
        }
        self.stream = match after {
            AfterError::WaitReady | AfterError::Unasked => ClientStream::Normal,
            AfterError::SkipToSync => ClientStream::SkipToSync,
        };
        self.reworded = match std::mem::take(&mut self.raises) {
            true => Some(error_response(outgrown::REFUSAL)),
            false
                if fields.sqlstate() == Some(SqlState::QUERY_CANCELED)
                    && self.on_cancel.is_some() =>
            {
                self.on_cancel.take()
            }
            false => self
                .refusal(fields.sqlstate(), fields.message)
                .or_else(|| self.reworded(body, client)),
        };
        Ok(Some(match self.reworded {
            Some(_) => Reply::Skip,
            None => Reply::Forward,
        }))
    }

    fn count_error(&mut self, fields: &ErrorFields<'_>) {
        self.tally.errors += 1;
        if self.error_classes.len() < ERROR_CLASSES_MAX
            && let Some(SqlState([first, second, ..])) = fields.sqlstate()
        {
            self.error_classes.push([first, second]);
        }
    }

    /// A value that PostgreSQL does not take is its client's affair: all commands of the query have
    /// been undone, so the server is as good as before. If it does not even take back what others
    /// had requested, it is not.
    fn own_query_failed(&mut self, fields: &ErrorFields<'_>) -> Result<Reply, Violation> {
        let message = || String::from_utf8_lossy(fields.message).into_owned();
        match self.asked {
            Asked::Fit { undoing: 0, .. } | Asked::Look(_) | Asked::Mark if !fields.is_fatal() => {
                self.pipeline.failed();
                self.refused = Some(Box::new(fields.into()));
                Ok(Reply::Skip)
            }
            Asked::Fit { undoing: 1.., .. } => Err(Violation::UndoFailed(message())),
            Asked::Fit { .. } | Asked::Look(_) | Asked::Mark | Asked::Other => {
                Err(Violation::OwnQueryFailed(message()))
            }
        }
    }
}
