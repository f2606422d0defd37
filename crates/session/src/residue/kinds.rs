//! The kinds of state that are told apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kinds of state that a session has beyond its transactions.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Kinds(u8);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Parameters.
    pub const SETTINGS: Self = Self(1);
    /// With whose rights it works: SET ROLE, SET SESSION AUTHORIZATION.
    pub const ROLE: Self = Self(1 << 1);
    /// Advisory locks of the session.
    pub const LOCKS: Self = Self(1 << 2);
    /// Temporary tables, functions and so on.
    pub const TEMPORARY: Self = Self(1 << 3);
    /// LISTEN.
    pub const LISTEN: Self = Self(1 << 4);
    /// PREPARE, and named statements of the protocol where the pooler does not map their names.
    pub const PREPARED: Self = Self(1 << 5);
    /// Cursors WITH HOLD.
    pub const CURSORS: Self = Self(1 << 6);
    /// All of them.
    pub const ALL: Self = Self(0x7f);

    /// Those that are in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether any of the other are in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As a number.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Those of a number; what it says beyond them does not count.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds some.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The kind that configurations know by this word.
    pub fn by_word(word: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(_, known, _)| *known == word)?;
        Some(known.0)
    }

    /// Every kind alone, with its word in configurations and its name.
    const NAMES: [(Self, &'static str, &'static str); 7] = [
        (Self::SETTINGS, "settings", "parameters"),
        (Self::ROLE, "role", "role"),
        (Self::LOCKS, "locks", "advisory lock"),
        (Self::TEMPORARY, "temporary", "temporary object"),
        (Self::LISTEN, "listen", "listen"),
        (Self::PREPARED, "prepare", "prepared statement"),
        (Self::CURSORS, "cursors", "cursor with hold"),
    ];
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::NAMES.iter().filter(|(kind, ..)| self.has(*kind));
        if let Some((.., first)) = names.next() {
            f.write_str(first)?;
        }
        names.try_for_each(|(.., name)| write!(f, ", {name}"))
    }
}
