//! Why a socket could not be listened on.

use std::io;
use std::path::PathBuf;

use crate::os_text;
use crate::unix_name::UnixName;

/// A socket that could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operating system refused.
    #[error("cannot listen on {name}: {step}(): {}", os_text(.source))]
    Os {
        /// The socket.
        name: String,
        /// The call that failed.
        step: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A living process accepts connections on this Unix socket.
    #[error("unix socket is in use, cannot continue ({name})")]
    UnixInUse {
        /// The socket.
        name: UnixName,
    },
    /// PostgreSQL's lock file says that a server owns this Unix socket.
    #[error("unix port {port} is in use (lock file {} exists)", .lock_file.display())]
    UnixLocked {
        /// The port in the socket's name.
        port: u16,
        /// The lock file.
        lock_file: PathBuf,
    },
    /// Something that is not a socket has the socket's name; it is not ours to remove.
    #[error("cannot listen on {name}: the file exists and is not a socket")]
    NotASocket {
        /// The socket.
        name: UnixName,
    },
}
