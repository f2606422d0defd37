//! Who uses how much of what is shared: a decaying account for each of a bounded number of parties.
//!
//! Somebody counts everybody once per second or so and tells [`Usage::look`]; the time in between is
//! charged as if all of it had been so. What was long ago weighs less: after [`HALF_LIFE`] half.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// After so long an observation weighs half.
pub const HALF_LIFE: Duration = Duration::from_secs(60);

/// Parties that are accounted for; who comes later is not seen until others are forgotten.
const PARTIES_MAX: usize = 4096;

/// Seconds below which an account of somebody who is gone is forgotten.
const FORGOTTEN: f64 = 0.01;

/// How many of a party's clients do what, at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Headcount {
    /// Clients that have logged in.
    pub clients: u32,
    /// Of these, those that hold a server.
    pub holding: u32,
    /// Of these, those that wait for one.
    pub waiting: u32,
}

/// What is known of one party.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// When it was looked at last.
    pub now: Headcount,
    /// The most clients there were at one look.
    pub peak_clients: u32,
    /// The most servers it held at one look.
    pub peak_holding: u32,
    /// Clients that went away while they waited.
    pub gave_up: u64,
    /// How long the last of them had waited.
    pub gave_up_after: Option<Duration>,
    /// Seconds that servers were held, decayed.
    held: f64,
    /// Seconds that clients were connected, decayed.
    connected: f64,
}

impl Account {
    /// The part of its clients' time in which they held no server and waited for none: from 0 to 1.
    pub fn idle_share(&self) -> f64 {
        match self.connected > 0.0 {
            true => (1.0 - self.held / self.connected).clamp(0.0, 1.0),
            false => 0.0,
        }
    }

    fn is_forgotten(&self) -> bool {
        self.now.clients == 0 && self.connected < FORGOTTEN
    }

    fn count(&mut self, headcount: Headcount, seconds: f64) {
        self.now = headcount;
        self.peak_clients = self.peak_clients.max(headcount.clients);
        self.peak_holding = self.peak_holding.max(headcount.holding);
        self.held += f64::from(headcount.holding) * seconds;
        self.connected += f64::from(headcount.clients) * seconds;
    }
}

/// The accounts of all parties.
#[derive(Debug)]
pub struct Usage<P> {
    accounts: HashMap<P, Account>,
    looked_at: Option<Instant>,
}

impl<P> Default for Usage<P> {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            looked_at: None,
        }
    }
}

impl<P: Eq + Hash> Usage<P> {
    /// Everybody has been counted: whoever is not in `headcounts` has no clients. Returns for how long
    /// it is taken to have been so: the time since the last look.
    pub fn look(&mut self, now: Instant, mut headcounts: HashMap<P, Headcount>) -> Duration {
        let passed = self
            .looked_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.looked_at = Some(now);
        let seconds = passed.as_secs_f64();
        let weight = 0.5_f64.powf(seconds / HALF_LIFE.as_secs_f64());
        self.accounts.retain(|party, account| {
            account.held *= weight;
            account.connected *= weight;
            account.count(headcounts.remove(party).unwrap_or_default(), seconds);
            !account.is_forgotten()
        });
        for (party, headcount) in headcounts {
            if self.accounts.len() < PARTIES_MAX {
                self.accounts
                    .entry(party)
                    .or_default()
                    .count(headcount, seconds);
            }
        }
        passed
    }

    /// A client has gone away after it had waited for so long.
    pub fn gave_up(&mut self, party: &P, waited: Duration) {
        if let Some(account) = self.accounts.get_mut(party) {
            account.gave_up += 1;
            account.gave_up_after = Some(waited);
        }
    }

    /// Every account with the share that the party has of all the time that servers were held: from
    /// 0 to 1.
    pub fn accounts(&self) -> impl Iterator<Item = (&P, &Account, f64)> {
        let all: f64 = self.accounts.values().map(|account| account.held).sum();
        self.accounts.iter().map(move |(party, account)| {
            let share = match all > 0.0 {
                true => account.held / all,
                false => 0.0,
            };
            (party, account, share)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn headcount(clients: u32, holding: u32) -> Headcount {
        Headcount {
            clients,
            holding,
            waiting: 0,
        }
    }

    fn find(usage: &Usage<&'static str>, party: &str) -> (Account, f64) {
        let mut accounts = usage.accounts();
        let found = accounts.find(|(name, ..)| **name == party);
        let (_, account, share) = found.expect("it has been counted");
        (*account, share)
    }

    #[test]
    fn who_holds_three_servers_of_four_has_three_quarters() {
        let (mut usage, start) = (Usage::default(), Instant::now());
        for second in 0..10 {
            let counts = [("web", headcount(6, 3)), ("jobs", headcount(1, 1))];
            usage.look(start + second * SECOND, counts.into());
        }
        let (web, share) = find(&usage, "web");
        assert!((share - 0.75).abs() < 0.001, "{share}");
        assert!((web.idle_share() - 0.5).abs() < 0.001, "{web:?}");
        assert_eq!((web.peak_clients, web.peak_holding), (6, 3));
    }

    #[test]
    fn what_was_long_ago_weighs_less() {
        let (mut usage, start) = (Usage::default(), Instant::now());
        usage.look(start, [("old", headcount(1, 1))].into());
        usage.look(start + SECOND, [("old", headcount(1, 1))].into());
        let later = start + SECOND + HALF_LIFE;
        usage.look(later, [("old", headcount(1, 0))].into());
        usage.look(later + SECOND, [("new", headcount(1, 1))].into());
        let (_, share) = find(&usage, "new");
        assert!((share - 0.667).abs() < 0.005, "{share}");
    }

    #[test]
    fn who_is_long_gone_is_forgotten_and_others_have_room() {
        let (mut usage, start) = (Usage::default(), Instant::now());
        let many = (0..PARTIES_MAX).map(|party| (party, headcount(1, 0)));
        usage.look(start, many.collect());
        usage.look(start + SECOND, [(PARTIES_MAX, headcount(1, 0))].into());
        // Nothing was charged yet to those who are gone, so they are.
        usage.look(start + 2 * SECOND, [(PARTIES_MAX, headcount(1, 0))].into());
        let known: Vec<_> = usage.accounts().map(|(party, ..)| *party).collect();
        assert_eq!(known, [PARTIES_MAX]);
    }

    #[test]
    fn who_goes_away_while_waiting_is_remembered_with_its_patience() {
        let (mut usage, start) = (Usage::default(), Instant::now());
        usage.look(start, [("web", headcount(1, 0))].into());
        usage.gave_up(&"web", 5 * SECOND);
        usage.gave_up(&"nobody", SECOND);
        let (web, _) = find(&usage, "web");
        assert_eq!((web.gave_up, web.gave_up_after), (1, Some(5 * SECOND)));
    }
}
