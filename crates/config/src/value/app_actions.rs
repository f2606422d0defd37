//! What becomes of the leak suspects of single applications.

use super::{Invalid, Kind, LeakAction, Value};

/// Applications with their actions, kept as they were written. A name may have blanks and colons in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppActions {
    text: String,
    actions: Vec<(String, LeakAction)>,
}

impl AppActions {
    /// What becomes of the suspects of an application; `None` if nothing is said of it.
    pub fn of(&self, application: &str) -> Option<LeakAction> {
        let mut all = self.actions.iter();
        let found = all.find(|(name, _)| name == application);
        found.map(|(_, action)| *action)
    }
}

impl Value for AppActions {
    const KIND: Kind = Kind::AppActions;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let entries = text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let read = |entry: &str| {
            let (name, action) = entry
                .rsplit_once(':')
                .ok_or(Invalid::Malformed(Self::KIND))?;
            let action = LeakAction::parse(action.trim());
            let action = action.map_err(|_| Invalid::Malformed(Self::KIND))?;
            Ok((name.trim().to_owned(), action))
        };
        Ok(Self {
            text: String::parse(text)?,
            actions: entries.map(read).collect::<Result<_, _>>()?,
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
    fn names_may_have_blanks_and_colons() {
        let text = "PostgreSQL JDBC Driver: cancel, a:b:Disconnect,";
        let actions = AppActions::parse(text).expect("well-formed");
        assert_eq!(
            actions.of("PostgreSQL JDBC Driver"),
            Some(LeakAction::Cancel)
        );
        assert_eq!(actions.of("a:b"), Some(LeakAction::Disconnect));
        assert_eq!(actions.of("a"), None);
        assert_round_trip(&actions);
    }

    #[test]
    fn unknown_actions_are_refused_with_the_known_ones() {
        for text in ["report", "report:kill"] {
            let error = AppActions::parse(text).expect_err("no such action");
            assert!(error.to_string().contains("log, notice, cancel"), "{error}");
        }
    }
}
