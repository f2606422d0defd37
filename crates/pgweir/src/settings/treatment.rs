//! What becomes of the state that clients leave in a server's session, kind by kind (`state_policy`).

use bytes::BytesMut;
use pgweir_config::{StatePolicies, StatePolicy};
use pgweir_session::residue::Kinds;
use pgweir_session::{Case, Judge};

use crate::clients::farewell::asides;
use crate::shared::Shared;
use crate::watch::strict;

/// The kinds with the same fate. What is in none of them is kept for its client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Treatment {
    /// Statements that announce it are refused.
    pub(crate) refused: Kinds,
    /// What is found of it ends with the transaction.
    pub(crate) reset: Kinds,
    /// It is kept, and the client is warned.
    pub(crate) warned: Kinds,
    /// It is not looked for.
    pub(crate) allowed: Kinds,
    /// Everything else is a finding.
    pub(crate) is_strict: bool,
}

impl Treatment {
    pub(crate) fn new(policies: &StatePolicies, is_strict: bool) -> Self {
        let mut treatment = Self {
            is_strict,
            ..Self::default()
        };
        for (word, policy) in policies.all() {
            let kinds = Kinds::by_word(word).unwrap_or_default();
            match policy {
                StatePolicy::Keep => {}
                StatePolicy::Reset => treatment.reset.add(kinds),
                // What no text has announced cannot be refused any more.
                StatePolicy::Refuse => {
                    treatment.refused.add(kinds);
                    treatment.reset.add(kinds);
                }
                StatePolicy::Warn => treatment.warned.add(kinds),
                StatePolicy::Allow => treatment.allowed.add(kinds),
            }
        }
        treatment
    }

    /// Kinds of which it is asked before a statement that announces them runs.
    pub(crate) fn judged(&self) -> Kinds {
        match self.is_strict {
            true => Kinds::ALL.without(self.allowed),
            false => self.refused,
        }
    }

    /// Whether it matters what exactly a transaction has left.
    pub(crate) fn examines(&self) -> bool {
        self.is_strict || !self.reset.is_empty() || !self.warned.is_empty()
    }
}

impl Judge for Shared {
    fn judge(&self, client: u64, case: &Case<'_>) -> Option<BytesMut> {
        let client = self.clients.get(&client).map(|client| client.clone())?;
        let route = client.route()?;
        let treatment = route.rules().treatment;
        let answer = strict::judge(self, &client, treatment, case);
        let answer = answer.or_else(|| {
            let refused = treatment.refused.intersection(case.kinds);
            (!refused.is_empty()).then(|| asides::state_refused(refused))
        })?;
        let mut message = BytesMut::new();
        answer.write(&mut message);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use pgweir_config::Value as _;

    use super::*;

    #[test]
    fn every_kind_has_a_treatment() {
        let kinds = StatePolicies::KINDS.map(|word| Kinds::by_word(word).expect(word));
        assert_eq!(
            kinds.into_iter().fold(Kinds::NONE, Kinds::union),
            Kinds::ALL
        );
    }

    #[test]
    fn what_is_refused_is_taken_back_where_no_text_has_told() {
        let policies = StatePolicies::parse("listen:refuse, locks:warn").expect("well-formed");
        let treatment = Treatment::new(&policies, false);
        assert_eq!(treatment.judged(), Kinds::LISTEN);
        assert_eq!(treatment.reset, Kinds::LISTEN);
        assert_eq!(treatment.warned, Kinds::LOCKS);
        assert!(treatment.examines());
        assert!(!Treatment::new(&StatePolicies::default(), false).examines());
    }
}
