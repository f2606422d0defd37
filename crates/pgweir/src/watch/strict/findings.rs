//! What a strict run has found: a bounded list in which the same is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Findings that are told apart; more are only counted.
const FINDINGS_MAX: usize = 1_000;

/// What goes wrong behind a pooler.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum FindingKind {
    Settings,
    Role,
    Locks,
    Temporary,
    Listen,
    Prepare,
    Cursors,
    Sequence,
    Leak,
    Hold,
    Unsupported,
    Abandoned,
    Startup,
}

impl FindingKind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Settings,
        Self::Role,
        Self::Locks,
        Self::Temporary,
        Self::Listen,
        Self::Prepare,
        Self::Cursors,
        Self::Sequence,
        Self::Leak,
        Self::Hold,
        Self::Unsupported,
        Self::Abandoned,
        Self::Startup,
    ];

    /// As `strict_allow` names it; also the anchor in the manual.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Role => "role",
            Self::Locks => "locks",
            Self::Temporary => "temporary",
            Self::Listen => "listen",
            Self::Prepare => "prepare",
            Self::Cursors => "cursors",
            Self::Sequence => "sequence",
            Self::Leak => "leak",
            Self::Hold => "hold",
            Self::Unsupported => "unsupported",
            Self::Abandoned => "abandoned",
            Self::Startup => "startup",
        }
    }

    /// What is wrong, in a few words.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Settings => "parameters are set for the session",
            Self::Role => "a role is set for the session",
            Self::Locks => "an advisory lock outlives its transaction",
            Self::Temporary => "a temporary object outlives its transaction",
            Self::Listen => "LISTEN needs a session",
            Self::Prepare => "PREPARE needs a session",
            Self::Cursors => "a cursor outlives its transaction",
            Self::Sequence => "a number is asked for that another transaction has drawn",
            Self::Leak => "a server is held in silence",
            Self::Hold => "a transaction lasts too long",
            Self::Unsupported => "not supported in this pooling mode",
            Self::Abandoned => "the connection was closed in a transaction",
            Self::Startup => "PgBouncer refuses this startup parameter",
        }
    }

    /// Whether it fails the run; otherwise it is only said.
    pub(crate) fn fails(self) -> bool {
        self != Self::Startup
    }
}

/// Something that was found, and whose it was.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: FindingKind,
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
    pub(crate) application: Arc<str>,
    /// Of the client that did it last.
    pub(crate) address: String,
    /// As `leak_query` lets it be shown.
    pub(crate) statement: String,
    /// More about it, the last time.
    pub(crate) detail: String,
}

/// A finding, and how often and when.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) finding: Finding,
    pub(crate) count: u64,
    pub(crate) first: SystemTime,
    pub(crate) last: SystemTime,
}

/// What makes two findings the same.
type Likeness = (FindingKind, Arc<str>, Arc<str>, Arc<str>, String);

/// All that was found, in the order in which it was first found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    all: Vec<Counted>,
    known: HashMap<Likeness, usize>,
    counts: [u64; FindingKind::ALL.len()],
    /// Those that found no place.
    beyond: u64,
}

impl Findings {
    /// Enters a finding; `print` is its statement without literals. Whether it is a new one.
    pub(crate) fn note(&mut self, finding: Finding, print: String, now: SystemTime) -> bool {
        self.counts[finding.kind as usize] += 1;
        let likeness = (
            finding.kind,
            Arc::clone(&finding.database),
            Arc::clone(&finding.user),
            Arc::clone(&finding.application),
            print,
        );
        if let Some(counted) = self
            .known
            .get(&likeness)
            .and_then(|&at| self.all.get_mut(at))
        {
            counted.count += 1;
            counted.last = now;
            counted.finding = finding;
            return false;
        }
        if self.all.len() >= FINDINGS_MAX {
            self.beyond += 1;
            return false;
        }
        self.known.insert(likeness, self.all.len());
        self.all.push(Counted {
            finding,
            count: 1,
            first: now,
            last: now,
        });
        true
    }

    pub(crate) fn all(&self) -> &[Counted] {
        &self.all
    }

    /// How often a kind was found.
    pub(crate) fn count(&self, kind: FindingKind) -> u64 {
        self.counts[kind as usize]
    }

    /// How many times something was found that is not listed.
    pub(crate) fn beyond(&self) -> u64 {
        self.beyond
    }

    /// How many of those that are listed fail the run, and how many do not.
    pub(crate) fn severities(&self) -> (usize, usize) {
        let failures = self.all.iter().filter(|one| one.finding.kind.fails());
        let failures = failures.count();
        (failures, self.all.len() - failures)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn finding(kind: FindingKind, statement: &str) -> Finding {
        Finding {
            kind,
            database: "shop".into(),
            user: "ann".into(),
            application: "tests".into(),
            address: "127.0.0.1:1".to_owned(),
            statement: statement.to_owned(),
            detail: String::new(),
        }
    }

    #[test]
    fn the_configuration_knows_the_same_kinds() {
        let words = FindingKind::ALL.map(FindingKind::word);
        assert_eq!(words, pgweir_config::StrictAllow::KINDS);
        for (index, kind) in FindingKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn the_same_is_counted() {
        let (mut findings, now) = (Findings::default(), SystemTime::now());
        let later = now + Duration::from_secs(1);
        let one = || finding(FindingKind::Listen, "listen a");
        assert!(findings.note(one(), "listen a".to_owned(), now));
        assert!(!findings.note(one(), "listen a".to_owned(), later));
        assert!(findings.note(one(), "listen b".to_owned(), later));
        assert_eq!(findings.all().len(), 2);
        assert_eq!(findings.all()[0].count, 2);
        assert_eq!(
            (findings.all()[0].first, findings.all()[0].last),
            (now, later)
        );
        assert_eq!(findings.count(FindingKind::Listen), 3);
        assert_eq!(findings.severities(), (2, 0));
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let (mut findings, now) = (Findings::default(), SystemTime::now());
        for number in 0..=FINDINGS_MAX {
            findings.note(finding(FindingKind::Role, ""), number.to_string(), now);
        }
        assert_eq!(findings.all().len(), FINDINGS_MAX);
        assert_eq!(findings.beyond(), 1);
        assert_eq!(findings.count(FindingKind::Role), 1_001);
    }
}
