//! What becomes of what a client leaves in a server's session, for each kind of it.

use super::{Invalid, Kind, Value};

/// What becomes of one kind of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatePolicy {
    /// The client keeps it: `restore` on every server, or `pin` the server.
    #[default]
    Keep,
    /// It ends with the transaction.
    Reset,
    /// The statement is refused.
    Refuse,
    /// As [`Self::Keep`], and the client is warned.
    Warn,
    /// It is not looked for, and reaches others.
    Allow,
}

/// Kinds of state with their policies, kept as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatePolicies {
    text: String,
    policies: [StatePolicy; Self::KINDS.len()],
}

impl StatePolicies {
    /// Every kind: parameters, SET ROLE and SET SESSION AUTHORIZATION, advisory locks, temporary objects, LISTEN,
    /// SQL's PREPARE, and cursors WITH HOLD.
    pub const KINDS: [&'static str; 7] = [
        "settings",
        "role",
        "locks",
        "temporary",
        "listen",
        "prepare",
        "cursors",
    ];

    /// So many kinds, from the first on, can be given again on any server.
    const RESTORED: usize = 2;

    /// Every policy with its word; the first two are the same for different kinds.
    pub const POLICIES: [(&'static str, StatePolicy); 6] = [
        ("restore", StatePolicy::Keep),
        ("pin", StatePolicy::Keep),
        ("reset", StatePolicy::Reset),
        ("refuse", StatePolicy::Refuse),
        ("warn", StatePolicy::Warn),
        ("allow", StatePolicy::Allow),
    ];

    /// Every kind with its policy.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, StatePolicy)> {
        Self::KINDS.into_iter().zip(self.policies)
    }

    fn read(&mut self, entry: &str) -> Result<(), Invalid> {
        let malformed = Invalid::Malformed(<Self as Value>::KIND);
        let (kind, policy) = entry.split_once(':').ok_or(malformed.clone())?;
        let (kind, policy) = (kind.trim(), policy.trim());
        let mut kinds = Self::KINDS.iter();
        let kind = kinds.position(|known| known.eq_ignore_ascii_case(kind));
        let kind = kind.ok_or(malformed.clone())?;
        let mut policies = Self::POLICIES.into_iter();
        let policy = policies.find(|(word, _)| word.eq_ignore_ascii_case(policy));
        let (word, policy) = policy.ok_or(malformed)?;
        match (word, kind < Self::RESTORED) {
            ("pin", true) => Err(Invalid::Policy {
                kind: Self::KINDS[kind],
                word: "restore",
                why: "any server can have it",
            }),
            ("restore", false) => Err(Invalid::Policy {
                kind: Self::KINDS[kind],
                word: "pin",
                why: "no other server can have it",
            }),
            _ => {
                self.policies[kind] = policy;
                Ok(())
            }
        }
    }
}

impl Value for StatePolicies {
    const KIND: Kind = Kind::StatePolicies;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let mut read = Self {
            text: String::parse(text)?,
            ..Self::default()
        };
        let entries = text.split(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            read.read(entry)?;
        }
        Ok(read)
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
    fn kinds_and_policies_are_named_in_any_case() {
        let text = "Listen:Refuse, locks : warn, settings:restore,";
        let policies = StatePolicies::parse(text).expect("well-formed");
        let others = policies
            .all()
            .filter(|(_, policy)| *policy != StatePolicy::Keep);
        let others: Vec<_> = others.collect();
        let expected = [
            ("locks", StatePolicy::Warn),
            ("listen", StatePolicy::Refuse),
        ];
        assert_eq!(others, expected);
        assert_round_trip(&policies);
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known() {
        for text in ["listen", "listen, locks", "lock:pin", "listen:forbid", ":"] {
            let error = StatePolicies::parse(text).expect_err("no such policy");
            let error = error.to_string();
            assert!(error.contains("settings, role, locks"), "{text}: {error}");
            assert!(error.contains("reset, refuse, warn, allow"), "{error}");
        }
    }

    #[test]
    fn what_can_be_restored_is_not_pinned_and_the_other_way_round() {
        for (text, said) in [
            ("role:pin", "role can be restore, not pin"),
            ("locks:restore", "locks can be pin, not restore"),
        ] {
            let error = StatePolicies::parse(text).expect_err("makes no sense");
            assert!(error.to_string().starts_with(said), "{error}");
        }
    }
}
