//! What is known of statements that only a server can judge, for one pool.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::Kinds;
use super::probe::Catalog;
use super::words::call_bit;

/// Statements that are remembered. When there are more, all are forgotten and learned again.
const STATEMENTS_MAX: usize = 10_000;

/// Names of parameters that functions may set; more are not looked for.
const NAMES_MAX: usize = 1_000;

/// What a statement leaves in its session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing, when it was looked for.
    Clean,
    /// These, so they are looked for every time.
    Leaves(Kinds),
}

/// The verdicts on statements, and what the functions of the database can do that a look at the
/// session does not show.
#[derive(Debug, Default)]
pub struct Memory {
    /// How long a verdict is believed: a function may leave something only now and then. Zero is
    /// never.
    pub kept: Duration,
    /// Kinds that are not looked for.
    pub allowed: Kinds,
    verdicts: HashMap<u64, (Verdict, Instant), RandomState>,
    /// Parameters with a dot that functions of the database set by their names. PostgreSQL lists no
    /// such parameter unless it is asked for it by its name.
    names: Vec<Box<str>>,
    /// Functions that may leave something, if only now and then, by what stands in their source.
    /// A bit may stand for several names.
    functions: Vec<(u128, Kinds)>,
    function_bits: u128,
    catalog_at: Option<Instant>,
    reads_drawn: bool,
}

impl Memory {
    /// Whether the statement is known to leave nothing.
    #[inline]
    pub fn is_clean(&self, print: u64, now: Instant) -> bool {
        self.verdict(print, now) == Some(Verdict::Clean)
    }

    /// What is known of a statement.
    #[inline]
    pub fn verdict(&self, print: u64, now: Instant) -> Option<Verdict> {
        let (verdict, at) = self.verdicts.get(&print)?;
        (now.saturating_duration_since(*at) < self.kept).then_some(*verdict)
    }

    /// Remembers a verdict.
    pub fn learn(&mut self, print: u64, verdict: Verdict, now: Instant) {
        if self.verdicts.len() >= STATEMENTS_MAX {
            self.verdicts.clear();
        }
        self.verdicts.insert(print, (verdict, now));
    }

    /// Definitions have been changed: what statements leave, and what functions can do, has to be found out again.
    pub fn forget(&mut self) {
        self.verdicts.clear();
        self.catalog_at = None;
    }

    /// Whether the database's functions have to be looked through (again).
    pub(crate) fn needs_catalog(&self, now: Instant) -> bool {
        let old = |at: Instant| now.saturating_duration_since(at) >= self.kept;
        self.catalog_at.is_none_or(old)
    }

    /// The database's functions have been looked through.
    pub(crate) fn learn_catalog(&mut self, catalog: &Catalog, now: Instant) {
        let names = catalog.names.iter().take(NAMES_MAX);
        self.names = names.cloned().collect();
        let functions = catalog.functions.iter().take(NAMES_MAX);
        self.functions = functions
            .map(|(name, kinds)| (call_bit(name.as_bytes()), *kinds))
            .collect();
        self.function_bits = self.functions.iter().fold(0, |all, (bit, _)| all | bit);
        self.reads_drawn |= catalog.reads_drawn;
        self.catalog_at = Some(now);
    }

    /// What functions may leave, by the bits of their names.
    #[inline]
    pub(crate) fn leaves_by_name(&self, calls: u128) -> Kinds {
        match calls & self.function_bits {
            0 => Kinds::NONE,
            bits => self.leaves(bits),
        }
    }

    #[cold]
    fn leaves(&self, bits: u128) -> Kinds {
        let called = self.functions.iter().filter(|(bit, _)| bits & bit != 0);
        let all = called.fold(Kinds::NONE, |all, (_, kinds)| all.union(*kinds));
        all.without(self.allowed)
    }

    /// Parameters that functions set.
    pub(crate) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Whether anybody here asks for the last number drawn from a sequence. As long as nobody does,
    /// it does not matter who has drawn it.
    #[inline]
    pub fn reads_drawn(&self) -> bool {
        self.reads_drawn
    }

    /// Somebody asks for it.
    pub fn note_reads_drawn(&mut self) {
        self.reads_drawn = true;
    }

    /// How many statements are known.
    pub fn len(&self) -> usize {
        self.verdicts.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }
}
