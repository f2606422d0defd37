//! `target_session_attrs`: whether PostgreSQL is what a pool's servers need, as libpq decides it.
//!
//! From version 14 on PostgreSQL says it at the login, and says it again when it is promoted: with the next answer of each
//! session, so an idle one is silent. An older one is asked once, and nothing is heard of its promotion.

use std::collections::HashMap;
use std::sync::Arc;

use pgweir_config::TargetSessionAttrs;
use pgweir_pool::SlotState;
use pgweir_session::Tracked;
use pgweir_wire::Reader;

use super::connect_failure;
use super::opening::{Opening, Trouble};
use crate::clients::welcome::Welcome;
use crate::servers::server::ServerInfo;
use crate::shared::Shared;

/// What PostgreSQL is, as far as that is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Role {
    in_hot_standby: Option<bool>,
    /// Whether transactions begin as READ ONLY.
    is_read_only: Option<bool>,
}

/// Whether that is what is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Fits,
    /// No, in libpq's words.
    Unfit(&'static str),
    /// The answer to this says it.
    Ask(&'static str),
}

const IS_READ_ONLY: &str = "SHOW transaction_read_only";
const IS_STANDBY: &str = "SELECT pg_catalog.pg_is_in_recovery()";

impl Role {
    fn reported(welcome: &Welcome, tracked: &Tracked) -> Self {
        let is_on = |name: &str| {
            let untracked = welcome.untracked.iter();
            let mut untracked = untracked.filter(|(known, _)| known == name.as_bytes());
            let value = match untracked.next() {
                Some((_, value)) => Some(&**value),
                None => {
                    let value = welcome.tracked.get(tracked.index(name)?)?;
                    Some(value.as_bytes())
                }
            };
            value.map(|value| value == b"on")
        };
        Self {
            in_hot_standby: is_on("in_hot_standby"),
            is_read_only: is_on("default_transaction_read_only"),
        }
    }

    fn verdict(self, wanted: TargetSessionAttrs) -> Verdict {
        let writes = match (self.in_hot_standby, self.is_read_only) {
            (Some(true), _) | (_, Some(true)) => Some(false),
            (Some(false), Some(false)) => Some(true),
            (None, Some(false) | None) | (Some(false), None) => None,
        };
        let standby = self.in_hot_standby;
        let (is_so, should_be, question, unfit) = match wanted {
            TargetSessionAttrs::Any => return Verdict::Fits,
            TargetSessionAttrs::ReadWrite => (writes, true, IS_READ_ONLY, "session is read-only"),
            TargetSessionAttrs::ReadOnly => {
                (writes, false, IS_READ_ONLY, "session is not read-only")
            }
            TargetSessionAttrs::Primary => {
                (standby, false, IS_STANDBY, "server is in hot standby mode")
            }
            TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby => (
                standby,
                true,
                IS_STANDBY,
                "server is not in hot standby mode",
            ),
        };
        match is_so {
            None => Verdict::Ask(question),
            Some(is_so) if is_so == should_be => Verdict::Fits,
            Some(_) => Verdict::Unfit(unfit),
        }
    }

    /// Whether a server that was this is of no use when its host is promoted, or the reverse.
    fn does_not_fit_if(self, in_hot_standby: bool, wanted: TargetSessionAttrs) -> bool {
        let now = Self {
            in_hot_standby: Some(in_hot_standby),
            ..self
        };
        now != self && matches!(now.verdict(wanted), Verdict::Unfit(_))
    }

    /// What follows from the answer to a question.
    fn answered(question: &str, is_on: bool) -> Self {
        Self {
            in_hot_standby: Some(is_on),
            // Which of the two makes a session read-only the answer does not say, and it does not matter.
            is_read_only: (question == IS_READ_ONLY).then_some(is_on),
        }
    }
}

impl Opening<'_> {
    /// Fails where PostgreSQL is not what is wanted.
    pub(super) async fn look_at_role(&mut self, welcome: &mut Welcome) -> Result<(), Trouble> {
        if self.wanted == TargetSessionAttrs::Any {
            return Ok(());
        }
        self.diary.begin("role");
        let reported = Role::reported(welcome, &self.shared.tracked);
        let verdict = match reported.verdict(self.wanted) {
            Verdict::Ask(question) => {
                let rows = self
                    .query("target_session_attrs", question, welcome)
                    .await?;
                let answer = rows.first().and_then(|row| first_is_on(row));
                answer.map_or(Verdict::Unfit("server does not say what it is"), |is_on| {
                    Role::answered(question, is_on).verdict(self.wanted)
                })
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Unfit(why) => Err(connect_failure(why).into()),
            Verdict::Fits | Verdict::Ask(_) => {
                self.diary.done(self.wanted.word());
                Ok(())
            }
        }
    }
}

/// Whether the first column of a row is true.
fn first_is_on(row: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(row);
    reader.i16().ok()?;
    let len = usize::try_from(reader.i32().ok()?).ok()?;
    let text = reader.bytes(len).ok()?;
    Some(matches!(text, b"on" | b"t"))
}

/// PostgreSQL was promoted: servers there that their pools would not take any more are not lent again.
/// Those that are lent are closed when they come back.
#[cold]
pub(crate) fn role_changed(shared: &Shared, info: &ServerInfo, in_hot_standby: bool) {
    let unfit: HashMap<u64, Said> = shared
        .servers
        .iter()
        .filter(|server| server.target == info.target)
        .filter_map(|server| {
            let wanted = server.home.rules().database.target_session_attrs();
            let welcome = server.welcome.get();
            let before = welcome.map(|welcome| Role::reported(welcome, &shared.tracked));
            let is_unfit = before
                .unwrap_or_default()
                .does_not_fit_if(in_hot_standby, wanted);
            let said = match before {
                Some(_) => Said::Before,
                None => Said::NotYet(Arc::clone(server.value())),
            };
            is_unfit.then(|| (*server.key(), said))
        })
        .collect();
    let count = shared
        .pools()
        .outdate(|serial, state| unfit.get(&serial).is_some_and(|said| said.goes(state)));
    // All sessions of the host say it, each when it answers the next time.
    if count > 0 {
        let word = if in_hot_standby { "is" } else { "is no longer" };
        tracing::info!(peer = %info, "the host {word} in hot standby mode: {count} servers do not fit any more");
    }
}

/// What a server said at its login.
enum Said {
    Before,
    NotYet(Arc<ServerInfo>),
}

impl Said {
    /// Whether a server that does not fit goes. The login of one that is being opened decides by itself, and may
    /// yet be at another host; one that came from a PgBouncer has said nothing either.
    fn goes(&self, state: SlotState) -> bool {
        match self {
            Self::Before => true,
            Self::NotYet(server) => state != SlotState::Opening && server.welcome.get().is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};

    fn role(in_hot_standby: Option<bool>, is_read_only: Option<bool>) -> Role {
        Role {
            in_hot_standby,
            is_read_only,
        }
    }

    #[test]
    fn what_is_reported_decides() {
        let fits = |role: Role, wanted| match role.verdict(wanted) {
            Verdict::Fits => true,
            Verdict::Unfit(_) => false,
            Verdict::Ask(question) => panic!("{role:?} {wanted:?} {question}"),
        };
        let all = [Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby];
        for (standby, read_only, expected) in [
            (false, false, [true, true, false, true, false, false]),
            (false, true, [true, false, true, true, false, false]),
            (true, false, [true, false, true, false, true, true]),
            (true, true, [true, false, true, false, true, true]),
        ] {
            let role = role(Some(standby), Some(read_only));
            assert_eq!(all.map(|wanted| fits(role, wanted)), expected, "{role:?}");
        }
    }

    #[test]
    fn what_is_not_reported_is_asked() {
        assert_eq!(Role::default().verdict(Any), Verdict::Fits);
        for (wanted, question) in [
            (ReadWrite, IS_READ_ONLY),
            (ReadOnly, IS_READ_ONLY),
            (Primary, IS_STANDBY),
            (Standby, IS_STANDBY),
            (PreferStandby, IS_STANDBY),
        ] {
            assert_eq!(Role::default().verdict(wanted), Verdict::Ask(question));
            for is_on in [true, false] {
                let verdict = Role::answered(question, is_on).verdict(wanted);
                let wants_on = matches!(wanted, ReadOnly | Standby | PreferStandby);
                assert_eq!(verdict == Verdict::Fits, is_on == wants_on, "{wanted:?}");
            }
        }
        // One that is on is enough, as nothing else can make it writable.
        let role = role(None, Some(true));
        assert_eq!(role.verdict(ReadOnly), Verdict::Fits);
    }

    #[test]
    fn a_promotion_is_for_those_who_wanted_a_standby() {
        let standby = role(Some(true), Some(false));
        for (wanted, is_unfit) in [
            (Any, false),
            (Primary, false),
            (ReadOnly, true),
            (Standby, true),
        ] {
            assert_eq!(
                standby.does_not_fit_if(false, wanted),
                is_unfit,
                "{wanted:?}"
            );
            assert!(!standby.does_not_fit_if(true, wanted), "that is no news");
        }
        assert!(Role::default().does_not_fit_if(false, Standby));
    }

    #[test]
    fn the_answer_is_the_first_column() {
        assert_eq!(first_is_on(b"\0\x01\0\0\0\x02on"), Some(true));
        assert_eq!(first_is_on(b"\0\x01\0\0\0\x01f"), Some(false));
        assert_eq!(first_is_on(b"\0\x01\xff\xff\xff\xff"), None);
        assert_eq!(first_is_on(b"\0"), None);
    }
}
