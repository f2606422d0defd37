//! What a client and a server are to each other while one is lent to the other.
//!
//! [`Relay`] decides what to do with the next bytes of either side; it forwards by length and looks
//! into a message only where a pooler must. Its pipeline knows which replies the server still owes.
//! [`prepared`] maps the names of prepared statements, `changes` knows how that is changing, [`params`] keeps
//! session parameters with their client, also those that it requested ([`Parameters`]), `deadline` is the home of every time limit on a client.
//! [`residue`] knows what a client may have left in a session, [`channels`] what clients listen to that keep no server for it.
//! [`handover`] tells another process what a client and a server are to each other.
//!
//! The crate does no I/O, reads no clock and keeps nothing static: bytes and times come in as
//! arguments, decisions go out as values.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod changes;
pub mod channels;
mod deadline;
mod gather;
pub mod handover;
mod outgrown;
mod own_list;
mod parameters;
pub mod params;
mod pipeline;
pub mod prepared;
mod print;
mod queue;
mod reading;
mod relay;
mod renumber;
pub mod residue;
mod spelling;
mod spoken;
pub mod taken;
#[cfg(test)]
mod testing;
mod vacated;

pub use batch::{SkipBatch, Skipped, Wish, wish};
pub use channels::{Board, Channels, Heard, Mark};
pub use deadline::{Clocks, Deadlines, Expiry, Phase};
pub use gather::Gather;
pub use own_list::own_list;
pub use parameters::{Parameters, may_be_requested};
pub use params::{Latest, Tracked, Values};
pub use prepared::{ClientStatements, ServerStatements, StatementTable};
pub use reading::Reading;
pub use relay::{
    Abandon, Backends, Case, ClientSide, FromClient, Judge, Listening, Refused, Relay, RelayState,
    Rules, Said, Settled, StateRules, Tally, Translation, Violation, Waits,
};
pub use renumber::renumbered;
pub use residue::{Kinds, Memory, Residue};
pub use spelling::spelled;
pub use spoken::{Spoken, normalized};
pub use vacated::vacated;
