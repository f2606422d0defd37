//! Online restart: a new process takes listening sockets, clients and servers over from the old one.
//!
//! The two talk on the old one's console, over its Unix socket, where descriptors can be passed:
//!
//! | the successor says | the predecessor |
//! |---|---|
//! | `HANDOVER` | [`hold`]s everything where it stands and [`give`]s it, each thing in a [`parcel`] |
//! | or, if that is no command there, `SUSPEND` and `SHOW FDS` | is a PgBouncer |
//! | `SHUTDOWN` | ends, and with it the connection; before that, all can be taken back |
//!
//! The successor [`take`]s and [`adopt`]s everything before it says the last word, and serves nobody
//! until the connection has ended. So every connection has one owner at any time, and the servers
//! of both processes together are never more than those of the old one were.

pub(crate) mod adopt;
pub(crate) mod fds;
pub(crate) mod give;
pub(crate) mod hold;
pub(crate) mod parcel;
pub(crate) mod successor;
pub(crate) mod take;

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use pgweir_net::Listener;

use self::take::Predecessor;
use crate::process::notify;
use crate::shared::Shared;

/// Goes on with what another process was doing. Nothing else runs before that process has ended.
///
/// # Errors
/// The text for the log. The old process goes on.
pub(crate) async fn take_over(
    shared: &Arc<Shared>,
    old: UnixStream,
) -> Result<Vec<Listener>, String> {
    let mut old = Predecessor::log_in(old)?;
    let estate = old.take()?;
    let adopted = adopt::everything(shared, estate)?;
    tracing::info!("took over {}", adopted.summary());
    // Before the main process ends: systemd would take that for the end of the service.
    notify::main_process(std::process::id());
    if let Err(text) = old.end() {
        if let Some(pid) = adopted.taken_from {
            notify::main_process(pid);
        }
        return Err(text);
    }
    tracing::info!("old process killed, resuming work");
    Ok(adopted.start().await)
}
