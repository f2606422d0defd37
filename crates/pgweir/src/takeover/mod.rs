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
