//! The promise: whatever happens to a client, it is told once, in the words and with the code of its dialect, whatever
//! form it asked in and whether or not it uses TLS; and where its connection is said to go on, it does.
//!
//! One file for what keeps clients waiting, one for what ends them, one for logins, one for what is refused, one for what is too large or too
//! many, and one for a PostgreSQL that is not there. Each says which forms cannot occur, and why.

mod ends;
mod logins;
mod refused;
mod resources;
mod scene;
mod servers;
mod waits;
