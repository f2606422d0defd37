//! Random life in virtual time, over the real pool and the real relay. Tests only.
//!
//! A seed decides everything: fake clients with random programs, wires that delay, cut and fill up,
//! a fake PostgreSQL that speaks the protocol and counts its own connections, and a driver that
//! plays the shell's part without tasks or sockets. The [`laws`] are judged after every event.
//!
//! `cargo test -p pgweir-sim` lives some hundred seeds. `PGWEIR_SIM_SEED=n` lives one and prints
//! what happened; `PGWEIR_SIM_SEEDS=n` lives so many.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod client;
mod frames;
pub mod laws;
mod pooler;
mod postgres;
mod rng;
mod sql;
mod wires;
mod world;

pub use world::{Outcome, Plan, live};
