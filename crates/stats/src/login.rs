//! How long the phases of a login to PostgreSQL take. Seldom recorded, so this is no hot path.

use crate::{LatencyHistogram, Times};

/// What a server goes through before it has answered for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginPhase {
    /// Its name is looked up.
    Dns,
    /// It is connected to.
    Tcp,
    /// The connection is encrypted.
    Tls,
    /// From the startup message to its first ReadyForQuery.
    Auth,
    /// The first query that a client has it answer.
    FirstQuery,
}

impl LoginPhase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Auth,
        Self::FirstQuery,
    ];

    /// As it is shown.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::FirstQuery => "first_query",
        }
    }

    /// The phase of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }
}

/// The times of the logins of one pool.
#[derive(Debug, Default)]
pub struct LoginTimes {
    phases: [Times; LoginPhase::ALL.len()],
}

impl LoginTimes {
    /// A phase has taken so long.
    pub fn record(&self, phase: LoginPhase, us: u64) {
        self.phases[phase as usize].record(us);
    }

    /// How long a phase took, if there was one.
    pub fn view(&self, phase: LoginPhase) -> Option<LatencyHistogram> {
        self.phases[phase as usize].view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_apart() {
        let times = LoginTimes::default();
        times.record(LoginPhase::Auth, 1_000);
        times.record(LoginPhase::Auth, 3_000);
        let auth = times.view(LoginPhase::Auth).expect("it was recorded");
        assert_eq!((auth.count(), auth.sum_us()), (2, 4_000));
        assert!(times.view(LoginPhase::Tls).is_none());
        for phase in LoginPhase::ALL {
            assert_eq!(LoginPhase::from_word(phase.word()), Some(phase));
        }
    }
}
