//! What a strict run says nothing about.

use super::{Invalid, Kind, Value};

/// Kinds of findings, each alone or of one application, kept as they were written. A name of an application may
/// have blanks and colons in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StrictAllow {
    text: String,
    /// Without a kind, all of them; without an application, all of them.
    entries: Vec<(Option<&'static str>, Option<String>)>,
}

impl StrictAllow {
    /// Every kind of finding.
    pub const KINDS: [&'static str; 13] = [
        "settings",
        "role",
        "locks",
        "temporary",
        "listen",
        "prepare",
        "cursors",
        "sequence",
        "leak",
        "hold",
        "unsupported",
        "abandoned",
        "startup",
    ];

    /// Stands for every kind.
    const ALL: &'static str = "*";

    /// Whether a kind of finding is allowed to an application.
    pub fn covers(&self, kind: &str, application: &str) -> bool {
        self.entries.iter().any(|(kinds, app)| {
            kinds.is_none_or(|known| known == kind)
                && app.as_deref().is_none_or(|known| known == application)
        })
    }
}

impl Value for StrictAllow {
    const KIND: Kind = Kind::StrictAllow;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let entries = text.split(',').map(str::trim);
        let read = |entry: &str| {
            let (kind, app) = match entry.split_once(':') {
                Some((kind, app)) => (kind.trim(), Some(app.trim().to_owned())),
                None => (entry, None),
            };
            if kind == Self::ALL {
                return Ok((None, app));
            }
            let mut kinds = Self::KINDS.into_iter();
            let known = kinds.find(|known| known.eq_ignore_ascii_case(kind));
            let known = known.ok_or(Invalid::Malformed(Self::KIND))?;
            Ok((Some(known), app))
        };
        let entries = entries.filter(|entry| !entry.is_empty()).map(read);
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            text: String::parse(text)?,
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
    fn kinds_are_allowed_to_all_or_to_one() {
        let text = "Listen, locks: my worker, *:a:b,";
        let allow = StrictAllow::parse(text).expect("well-formed");
        assert!(allow.covers("listen", "x"));
        assert!(allow.covers("locks", "my worker"));
        assert!(!allow.covers("locks", "x"));
        assert!(allow.covers("role", "a:b"));
        assert!(!allow.covers("role", "a"));
        assert_round_trip(&allow);
        assert!(!StrictAllow::default().covers("listen", ""));
    }

    #[test]
    fn unknown_kinds_are_refused_with_the_known_ones() {
        let error = StrictAllow::parse("lock").expect_err("no such kind");
        assert!(error.to_string().contains("settings, role"), "{error}");
    }
}
