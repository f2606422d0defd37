//! Statements that take far longer than they normally do.
//!
//! A lease is looked at when its query has run for `leak_floor`. Then its client's task is asked, at every look,
//! what runs and how many bytes have moved: whoever sends rows or takes them is at work, however long it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_pool::SlotId;
use pgweir_session::Phase;

use super::{Kind, SpokenWords};
use crate::clients::client::{Client, State};
use crate::shared::{Route, lock};

/// A statement may take so many times as long as 99 of 100 of its kind.
const FAR_TOO_LONG: u32 = 8;

/// Queries that have run for a while.
#[derive(Debug, Default)]
pub(super) struct Slow(HashMap<SlotId, Watched>);

#[derive(Debug)]
struct Watched {
    /// When the query was asked for, which tells it from others.
    query: Instant,
    /// Since when no byte has moved for it, and how many had until then.
    quiet_since: Instant,
    moved: u64,
    /// What was asked; nothing until the client's task has answered.
    spoken: Option<Box<SpokenWords>>,
    /// Within what time such statements end.
    usual: Option<Duration>,
}

/// What is to be said of a query that may take too long.
pub(super) struct Overdue {
    pub(super) since: Instant,
    pub(super) limit: Duration,
    pub(super) kind: Kind,
}

impl Slow {
    /// One look at a lease. What was known is in `self`, and goes into `next` if it still holds.
    pub(super) fn look(
        &mut self,
        next: &mut Self,
        (slot, client, state): (SlotId, &Arc<Client>, &State),
        route: &Route,
        now: Instant,
    ) -> Option<Overdue> {
        let floor = route.rules().settings.leak_floor?;
        let (query, began) = (state.clocks.query_start?, state.clocks.since);
        let is_due = state.clocks.phase == Phase::Active
            && now.saturating_duration_since(began) >= floor
            && client.replication.get().is_none();
        if !is_due {
            return None;
        }
        let known = self.0.remove(&slot).filter(|known| known.query == query);
        let mut watched = known.unwrap_or(Watched {
            query,
            quiet_since: began,
            moved: 0,
            spoken: None,
            usual: None,
        });
        watched.learn(client, route, now);
        let overdue = watched.usual.map(|usual| Overdue {
            since: watched.quiet_since,
            limit: floor.max(usual * FAR_TOO_LONG),
            kind: Kind::FarTooLong { usual },
        });
        next.0.insert(slot, watched);
        overdue
    }

    /// The first and the last statement of a lease that is watched.
    pub(super) fn spoken(&self, slot: SlotId) -> Option<&SpokenWords> {
        self.0.get(&slot)?.spoken.as_deref()
    }
}

impl Watched {
    /// Takes the task's answer, and asks again unless nothing can be expected of the statement.
    fn learn(&mut self, client: &Client, route: &Route, now: Instant) {
        let is_known = self.spoken.is_some();
        let answer = client.take_spoken();
        if let Some(answer) = answer.filter(|answer| answer.query == Some(self.query)) {
            if answer.moved != self.moved {
                (self.moved, self.quiet_since) = (answer.moved, now);
            }
            if !is_known {
                let usual = |print| lock(&route.home.norms).usual_max(print);
                self.usual = answer.print.and_then(usual);
            }
            self.spoken = Some(answer);
        }
        if !is_known || self.usual.is_some() {
            client.inquire();
        }
    }
}
