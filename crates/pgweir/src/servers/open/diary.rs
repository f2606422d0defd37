//! What an attempt to open a server goes through: each step with its time and its end, for operators
//! who ask why there is no server.

use std::time::{Duration, Instant};

/// How a step ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    Done,
    Failed,
    /// There was nothing to do.
    Skipped,
    /// It failed, and is done again in another way.
    Retried,
}

impl Ending {
    /// As it is shown.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Retried => "retried",
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) step: &'static str,
    pub(crate) ending: Ending,
    pub(crate) took: Duration,
    pub(crate) detail: String,
}

/// The steps of one attempt, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diary {
    entries: Vec<Entry>,
    running: Option<(&'static str, Instant)>,
}

impl Diary {
    /// The steps that have ended.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The step that failed.
    pub(crate) fn failure(&self) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.ending == Ending::Failed)
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, step: &'static str) {
        debug_assert!(self.running.is_none(), "one step goes on at a time");
        self.running = Some((step, Instant::now()));
    }

    /// The step that goes on has worked.
    pub(crate) fn done(&mut self, detail: impl Into<String>) {
        self.end(Ending::Done, detail.into());
    }

    /// The step that goes on has failed, if there is one: the first reason is the one that counts.
    pub(crate) fn failed(&mut self, detail: impl Into<String>) {
        self.end(Ending::Failed, detail.into());
    }

    /// What has failed is done again in another way.
    pub(crate) fn forgive(&mut self, why: &str) {
        for entry in &mut self.entries {
            if entry.ending == Ending::Failed {
                entry.ending = Ending::Retried;
                entry.detail = format!("{}: {why}", entry.detail);
            }
        }
    }

    /// A step is not needed.
    pub(crate) fn skip(&mut self, step: &'static str, why: impl Into<String>) {
        self.entries.push(Entry {
            step,
            ending: Ending::Skipped,
            took: Duration::ZERO,
            detail: why.into(),
        });
    }

    fn end(&mut self, ending: Ending, detail: String) {
        if let Some((step, since)) = self.running.take() {
            self.entries.push(Entry {
                step,
                ending,
                took: since.elapsed(),
                detail,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_once() {
        let mut diary = Diary::default();
        diary.skip("dns", "an address");
        diary.begin("tcp");
        diary.done("connected");
        diary.begin("tls");
        diary.failed("expired");
        diary.failed("connect failed");
        let mut forgiven = diary.clone();
        forgiven.forgive("again");
        assert!(forgiven.failure().is_none());
        assert_eq!(forgiven.entries()[2].detail, "expired: again");
        let steps: Vec<_> = diary.entries().iter().map(|e| (e.step, e.ending)).collect();
        let expected = [
            ("dns", Ending::Skipped),
            ("tcp", Ending::Done),
            ("tls", Ending::Failed),
        ];
        assert_eq!(steps, expected);
        assert_eq!(diary.failure().map(|entry| &*entry.detail), Some("expired"));
    }
}
