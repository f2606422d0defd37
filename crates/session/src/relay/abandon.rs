//! What becomes of a server in the middle of its work when its client is gone.

use bytes::BytesMut;
use pgweir_wire::frontend;

use super::{ClientStream, Relay};
use crate::pipeline::{Awaited, Reply};

impl Relay {
    /// The client is gone. Appends what brings the server nearer to being quiet, so that it can be
    /// rolled back and reused; the replies must be read through [`Self::from_server`] and thrown
    /// away. To be called again whenever something has been read, until [`Self::is_quiet`]: a COPY that the client had
    /// asked for may have begun, and waits for data that nobody will send.
    pub fn abandon(&mut self, out: &mut BytesMut) -> Abandon {
        if !self.client_rest.is_done() || self.pipeline.owes_unknown() {
            return Abandon::Close;
        }
        let failed = match self.stream {
            ClientStream::CopyIn => {
                frontend::copy_fail(out, "client disconnected");
                true
            }
            ClientStream::SkipToSync => true,
            ClientStream::Normal => false,
        };
        if !self.pipeline.is_open() {
            self.stream = ClientStream::Normal;
        } else if failed || self.pipeline.is_empty() {
            // A Sync alone would commit what the client has not committed.
            if !failed {
                frontend::query(out, "ROLLBACK");
                self.pipeline.push(Awaited::Query, Reply::Skip);
            }
            frontend::sync(out);
            self.pipeline.push(Awaited::Sync, Reply::Skip);
            self.stream = ClientStream::Normal;
            self.is_flushed = false;
        } else if !self.is_flushed {
            // What is still unanswered may turn out to be a COPY, in which a query ends the
            // connection.
            frontend::flush(out);
            self.is_flushed = true;
        }
        Abandon::Drain
    }
}

/// What to do with a server whose client is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Abandon {
    /// Read until it is quiet.
    Drain,
    /// The client left in the middle of a message, or nobody knows of what: nothing but closing helps.
    Close,
}
