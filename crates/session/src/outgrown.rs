//! Statements that return something else than when their client prepared them. A server that has
//! prepared one before a definition was changed refuses it; one that prepares it now would not, and the
//! client would read columns as what they are no more.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use foldhash::fast::FixedState;
use pgweir_wire::Reader;
use pgweir_wire::read::Truncated;

use crate::prepared::Statement;

/// Whether a statement that a server lacks still returns what it did when its client prepared it.
#[derive(Debug, Default)]
pub(crate) enum Comparison {
    /// Nobody asks.
    #[default]
    None,
    /// The server has been asked, and if it has answered, it could not say it.
    Asked(Arc<Statement>),
    /// It does not.
    Outgrown(Arc<Statement>),
}

/// What PostgreSQL says then. Drivers know it by the code and the function.
pub(crate) const REFUSAL: &[u8] = b"SERROR\0VERROR\0C0A000\0\
    Mcached plan must not change result type\0\
    Fplancache.c\0RRevalidateCachedQuery\0\0";

/// A text that no server takes.
pub(crate) const NO_STATEMENT: &[u8] = b"cached plan must not change result type\0\0\0";

/// A number for the columns of a RowDescription: their names and types. Zero for a NoData.
pub(crate) fn columns(body: &[u8]) -> u64 {
    if body.is_empty() {
        return 0;
    }
    read(body).unwrap_or(1) | 1
}

fn read(body: &[u8]) -> Result<u64, Truncated> {
    let mut hasher = FixedState::default().build_hasher();
    let mut reader = Reader::new(body);
    for _ in 0..reader.i16()? {
        hasher.write(reader.string()?);
        // The table and the column's number in it do not matter.
        reader.bytes(6)?;
        hasher.write(reader.bytes(4)?);
        reader.bytes(2)?;
        hasher.write(reader.bytes(4)?);
        reader.bytes(2)?;
    }
    Ok(hasher.finish())
}
