//! What `load` tells whoever runs it.

use serde::{Deserialize, Serialize};

/// One line of JSON at the end of a transfer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Transfer {
    /// Bytes of the messages that carried data, as the client saw them.
    pub bytes: u64,
    /// How long it took, without the login.
    pub seconds: f64,
}
