//! Who waits for a server: in which order, how many, and who is refused because of it.

use std::time::{Duration, Instant};

use crate::action::Actions;
use crate::budget::GaugeId;
use crate::demand::Refusal;
use crate::gate::Gate;
use crate::pool::{Party, Ticket, Waiting};
use crate::pools::{PoolId, Pools};
use crate::standing::{Crowd, Crowded};

/// A queue that gets empty at least this often is a burst, not overload.
const BURST: Duration = Duration::from_millis(100);

impl<S, W: Clone> Pools<S, W> {
    /// Puts a client at the end of the queue, unless that is full.
    pub(crate) fn enqueue(
        &mut self,
        id: PoolId,
        now: Instant,
        party: Option<&Party>,
        waiter: impl FnOnce() -> W,
    ) -> Result<Ticket, Refusal> {
        let pool = self.pool(id);
        let queue_full = pool
            .limits
            .max_waiting
            .is_some_and(|max| pool.waiting.len() >= max as usize);
        if queue_full {
            return Err(self.crowded(id, Crowd::PoolQueue, party, now));
        }
        if !self.budget.count_one(GaugeId::WAITING) {
            return Err(self.crowded(id, Crowd::AllQueues, party, now));
        }
        let ticket = self.next_ticket();
        let waiting = Waiting::new(waiter(), now, party.cloned());
        if party.is_some() {
            self.held_back.insert(id);
        }
        let here = (self.threads.here)();
        let pool = self.pool_mut(id);
        pool.queued_since.get_or_insert(now);
        pool.waiting.push(here, ticket, waiting);
        Ok(ticket)
    }

    /// Takes a client out of the queue.
    pub(crate) fn dequeue(&mut self, id: PoolId, ticket: Ticket) -> Option<Waiting<W>> {
        let pool = self.pool_mut(id);
        let waiting = pool.waiting.remove(ticket)?;
        if pool.waiting.is_empty() {
            pool.queued_since = None;
        }
        self.budget.leave([GaugeId::WAITING]);
        Some(waiting)
    }

    /// The client that has waited longest among those who may have a server now, or one of this thread that has waited
    /// about as long.
    pub(crate) fn dequeue_next(&mut self, id: PoolId, now: Instant) -> Option<Waiting<W>> {
        let may_go = |waiting: &Waiting<W>| self.may_lend(waiting.party.as_ref());
        let ticket = self
            .pool(id)
            .waiting
            .next((self.threads.here)(), now, may_go)?;
        self.dequeue(id, ticket)
    }

    /// How many clients wait that may have a server now.
    pub(crate) fn servable(&self, id: PoolId) -> u32 {
        let queue = &self.pool(id).waiting;
        if !self.held_back.contains(&id) {
            return queue.len() as u32;
        }
        let servable = queue
            .values()
            .filter(|waiting| self.may_lend(waiting.party.as_ref()));
        servable.count() as u32
    }

    /// How many servers are wanted for whoever waits. One login is enough for all who wait to be greeted.
    pub(crate) fn wanted_for_all(&self, id: PoolId) -> u32 {
        let pool = self.pool(id);
        let greeting = u32::from(!pool.greeting.is_empty() && !pool.greeted);
        self.servable(id).max(greeting)
    }

    /// The same, with those that are for one client alone.
    pub(crate) fn wanted(&self, id: PoolId) -> u32 {
        self.wanted_for_all(id) + self.pool(id).dedicated.len() as u32
    }

    /// Refuses those who have waited longer than they should, once the queue has not been empty for
    /// so long that it is no burst: under overload everybody would wait until the timeout, and
    /// those who are served then may have given up already.
    pub(crate) fn shed(&mut self, id: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        let pool = self.pool(id);
        let (Some(target), Some(since)) = (pool.limits.wait_target, pool.queued_since) else {
            return;
        };
        if pool.gate != Gate::Open || now.saturating_duration_since(since) < target.max(BURST) {
            return;
        }
        while let Some((ticket, oldest)) = self.pool(id).waiting.first()
            && now.saturating_duration_since(oldest.since) > target
        {
            let waited = now.saturating_duration_since(oldest.since);
            let party = oldest.party.clone();
            let crowd = Crowd::TooLong { waited, target };
            let refusal = self.crowded(id, crowd, party.as_ref(), now);
            if let Some(waiting) = self.dequeue(id, ticket) {
                actions.refuse(waiting, refusal, now);
            }
        }
    }

    /// Refuses everybody for whom `which` holds, given since when they wait.
    pub(crate) fn refuse_waiting(
        &mut self,
        id: PoolId,
        refusal: &Refusal,
        which: impl Fn(Instant) -> bool,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        let pool = self.pool(id);
        let which = |(_, waiting): &(Ticket, &Waiting<W>)| which(waiting.since);
        let waiting = pool.waiting.iter().filter(which);
        let greeting = pool.greeting.iter().filter(which);
        let waiting: Vec<_> = waiting.map(|(ticket, _)| ticket).collect();
        let greeting: Vec<_> = greeting.map(|(ticket, _)| ticket).collect();
        for ticket in waiting {
            if let Some(waiting) = self.dequeue(id, ticket) {
                actions.refuse(waiting, refusal.clone(), now);
            }
        }
        for ticket in greeting {
            if let Some(waiting) = self.pool_mut(id).greeting.remove(ticket) {
                actions.refuse(waiting, refusal.clone(), now);
            }
        }
    }

    /// While no login works, clients wait for `server_down_timeout` and no longer.
    pub(crate) fn refuse_while_down(
        &mut self,
        id: PoolId,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        let Some(timeout) = self.pool(id).limits.down_timeout else {
            return;
        };
        if !self.pool(id).is_wanted() {
            return;
        }
        if let Some(failure) = self.failing(id) {
            let too_long = |since| now.saturating_duration_since(since) >= timeout;
            self.refuse_waiting(id, &Refusal::Failing(failure), too_long, now, actions);
        }
    }

    /// Whether the limits on leases let these have one more server.
    pub(crate) fn may_lend(&self, party: Option<&Party>) -> bool {
        party.is_none_or(|party| self.budget.binding(party).is_none())
    }

    fn crowded(&self, id: PoolId, crowd: Crowd, party: Option<&Party>, now: Instant) -> Refusal {
        let standing = self.standing(id, party, now);
        let standing = standing.expect("a pool in which somebody wants to wait is there");
        Refusal::Crowded(Box::new(Crowded { crowd, standing }))
    }
}
