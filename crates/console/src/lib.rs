//! The admin database `pgbouncer`: what it understands and how it answers.
//!
//! [`Session`] turns the frames of a client into a [`Command`] to run or into the bytes of a refusal;
//! the caller runs the command and answers with [`Command::write_done`], a [`CommandError`] or the rows
//! of one of the [`tables`]. The texts, columns and SQLSTATEs of PgBouncer's console are all written
//! here and nowhere else.
//!
//! Nothing here knows a socket, a clock or a pool: rows come in as plain structs, bytes go out into a
//! `Vec<u8>`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod command;
mod encode;
mod help;
mod manual;
mod order;
mod parse;
mod reply;
mod session;
mod table;
pub mod tables;
mod tokens;
mod where_clause;

pub use command::{
    Access, ClientSetting, Command, Fixed, HANDOVER_VERSION, Show, ShutdownMode, Statement,
};
pub use help::{LOGIN_PARAMETERS, PRODUCT, VERSION, write_greeting};
pub use manual::{COMMANDS, CommandForm, ORDERS, Outline, outlines};
pub use order::{MaintenanceMode, Order, Target};
pub use parse::parse;
pub use reply::{CommandError, Notice, ProtocolError, Verb};
pub use session::{FRAME_LEN_MAX, Session, Step};
pub use table::{Cell, CellWriter, Column, ColumnType, Table, UnixTime};
pub use where_clause::{ClientState, Subject, Where};
