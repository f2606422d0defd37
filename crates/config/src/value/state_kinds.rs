//! Kinds of state that a session has beyond its transactions.

use super::{Invalid, Kind, Value};

/// Some of [`StateKinds::ALL`], kept as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateKinds {
    text: String,
    words: Vec<&'static str>,
}

impl StateKinds {
    /// Every kind: parameters, SET ROLE and SET SESSION AUTHORIZATION, advisory locks, temporary objects, LISTEN,
    /// SQL's PREPARE, and cursors WITH HOLD.
    pub const ALL: [&'static str; 7] = [
        "settings",
        "role",
        "locks",
        "temporary",
        "listen",
        "prepare",
        "cursors",
    ];

    /// Which they are.
    pub fn words(&self) -> &[&'static str] {
        &self.words
    }
}

impl Value for StateKinds {
    const KIND: Kind = Kind::StateKinds;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let known = |word: &str| {
            let mut all = Self::ALL.into_iter();
            let found = all.find(|known| known.eq_ignore_ascii_case(word));
            found.ok_or(Invalid::Malformed(Self::KIND))
        };
        Ok(Self {
            text: String::parse(text)?,
            words: words.map(known).collect::<Result<_, _>>()?,
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_round_trip;
    use super::*;

    #[test]
    fn kinds_are_named_in_any_case() {
        let kinds = StateKinds::parse("Listen, locks,").expect("known");
        assert_eq!(kinds.words(), ["listen", "locks"]);
        assert_round_trip(&kinds);
    }

    #[test]
    fn unknown_kinds_are_refused_with_the_known_ones() {
        let error = StateKinds::parse("listen, lock").expect_err("no such kind");
        assert!(
            error.to_string().contains("settings, role, locks"),
            "{error}"
        );
    }
}
