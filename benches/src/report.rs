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

/// One line of JSON about requests that came by themselves. Latencies count from when a request was due.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests that got what they asked for.
    pub served: u64,
    /// Requests that got an error, after which their connection went on.
    pub refused: u64,
    /// Half of those that were served had waited less, in milliseconds.
    pub served_p50_ms: f64,
    /// All but a hundredth of those that were served had waited less, in milliseconds.
    pub served_p99_ms: f64,
    /// Half of those that were refused had waited less, in milliseconds.
    pub refused_p50_ms: f64,
    /// All but a hundredth of those that were refused had waited less, in milliseconds.
    pub refused_p99_ms: f64,
    /// What one of the refused was told.
    pub error: Option<String>,
}

impl Outcome {
    /// Requests per second that got what they asked for.
    pub fn goodput(&self) -> f64 {
        self.served as f64 / self.seconds
    }
}
