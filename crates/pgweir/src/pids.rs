//! Process ids. A client has one of the pooler's own, which stands in its cancel key; its servers have
//! PostgreSQL's.

use std::sync::atomic::Ordering::Relaxed;

use pgweir_session::Backends;

use crate::client::Client;
use crate::shared::Shared;

impl Backends for Shared {
    fn shown(&self, process_id: i32) -> Option<i32> {
        let mut servers = self.servers.iter();
        let server = servers.find(|server| server.process_id() == process_id)?;
        Some(server.served.load(Relaxed)).filter(|&shown| shown != 0)
    }
}

impl Client {
    /// The process id that it was told; 0 before that.
    #[inline]
    pub(crate) fn process_id(&self) -> i32 {
        self.cancel_key.get().map_or(0, |key| key.process_id)
    }
}
