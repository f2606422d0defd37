//! What a server says of itself at its login, and clients at theirs.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use pgweir_session::Values;
use pgweir_wire::backend;

/// ParameterStatus values of a server that are the same for every client.
#[derive(Debug, Default)]
pub(crate) struct Welcome {
    /// Those that are not tracked, in the server's order.
    pub(crate) untracked: Vec<(Vec<u8>, Vec<u8>)>,
    /// Those that are.
    pub(crate) tracked: Values,
    /// See [`Self::statuses`].
    statuses: OnceLock<Bytes>,
}

impl Welcome {
    pub(crate) fn new(untracked: Vec<(Vec<u8>, Vec<u8>)>, tracked: Values) -> Self {
        Self {
            untracked,
            tracked,
            statuses: OnceLock::new(),
        }
    }

    /// The untracked ones as the messages that a client gets which has asked for no other values: almost
    /// every client at every login.
    pub(crate) fn statuses(&self) -> &[u8] {
        self.statuses.get_or_init(|| {
            let mut out = BytesMut::new();
            for (name, value) in &self.untracked {
                backend::parameter_status(&mut out, name, value);
            }
            out.freeze()
        })
    }
}
