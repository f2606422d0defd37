//! Statements that are judged before they run, because of what they say that they leave in a session
//! (`state_policy`, `strict`).
//!
//! Where the judgement is that one must not run, the server is sent a text that it cannot parse, and its
//! error is replaced. So a refusal is what an error of PostgreSQL's is: in its place among the replies,
//! once, with what follows it skipped up to the next Sync, and the transaction failed.

use std::fmt;

use bytes::BytesMut;
use pgweir_wire::{SqlState, TransactionStatus};

use super::errors::error_response;
use super::{ClientStream, Relay, Rules};
use crate::residue::words::call_bit;
use crate::residue::{Kinds, Named, Scan};
use crate::spoken::text_of;

/// The only word of the text; behind it stands the number of the refusal.
const WORD: &str = "pgweir_refuses_";

/// Statements of a transaction that are remembered, the last ones.
const SAID_MAX: usize = 8;

/// Bytes of each that are kept.
const SAID_LEN: usize = 240;

/// Refusals that wait for the server's error; there are more only if a batch has more refused statements.
const REFUSALS_MAX: usize = 64;

/// What holds for the state that statements leave in a session; nothing, by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateRules<'a> {
    /// Kinds of which a judge is asked before a statement that announces them runs.
    pub judged: Kinds,
    /// Who is asked.
    pub judge: Option<&'a dyn Judge>,
    /// Whether the texts are remembered until it is known what a transaction has left, so that it can be
    /// told which of them it was.
    pub remembers: bool,
    /// Kinds that are not looked for, so that they reach others.
    pub allowed: Kinds,
}

/// Who decides whether a statement may run.
pub trait Judge: Sync {
    /// The message for the client in place of PostgreSQL's answer; `None`: it may run.
    fn judge(&self, client: u64, case: &Case<'_>) -> Option<BytesMut>;
}

impl fmt::Debug for dyn Judge + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

/// A statement that says what it would leave.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What that is. Parameters that PostgreSQL reports stay with their client anyway.
    pub kinds: Kinds,
    /// Whether it asks for the last number drawn from a sequence, where its transaction has drawn none.
    pub asks_drawn: bool,
    /// The statement.
    pub text: &'a [u8],
    /// Whether it is executed; otherwise it gets a name.
    pub runs: bool,
    /// Whether it surely stays if the statement succeeds: it is alone in its transaction.
    pub stays: bool,
}

/// Whether a text may go to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// It may go to the server.
    Fine,
    /// It must not run before what the relay waits for is over.
    Wait,
    /// It must not run; the number of the refusal.
    Refused(u32),
}

/// A statement and what it says that it leaves.
pub type Said = (Kinds, Box<[u8]>);

/// What has been judged and is still needed.
#[derive(Debug, Default)]
pub(super) struct Judgements {
    refusals: Vec<(u32, BytesMut)>,
    last: u32,
    said: Vec<Said>,
}

impl Relay {
    /// Asks the judge about a statement, where there is something to judge. The number of the refusal, if
    /// it must not run.
    #[cold]
    pub(super) fn judge(
        &mut self,
        scan: &Scan,
        text: &[u8],
        runs: bool,
        rules: &Rules<'_>,
    ) -> Option<u32> {
        let judge = rules.state.judge?;
        let mut kinds = scan.suspects;
        let stays_with_server =
            |named: &Named| !named.is_reset && !self.values.report(&named.name, rules.tracked);
        if scan.named.iter().any(stays_with_server) {
            kinds.add(Kinds::SETTINGS);
        }
        let text = text_of(text);
        let stays = self.is_outside() && is_alone(text);
        let case = Case {
            kinds,
            asks_drawn: scan.reads_drawn && !self.residue.draws() && only_reads_drawn(scan, text),
            text,
            runs,
            stays,
        };
        let is_a_case = kinds.has(rules.state.judged) || case.asks_drawn;
        if is_a_case && let Some(message) = judge.judge(self.client, &case) {
            let judgements = self.judgements.get_or_insert_default();
            return Some(judgements.refuse(message));
        }
        if rules.state.remembers && runs && (!kinds.is_empty() || scan.print != 0) {
            self.remember(kinds, text);
        }
        None
    }

    /// Whether what comes next runs in no transaction block, for sure.
    fn is_outside(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.stream == ClientStream::Normal
            && self.pipeline.executes_nothing()
    }

    fn remember(&mut self, kinds: Kinds, text: &[u8]) {
        let is_first = self.spoken.first().is_empty();
        let judgements = self.judgements.get_or_insert_default();
        if is_first {
            judgements.said.clear();
        }
        let said = (kinds, text[..text.len().min(SAID_LEN)].into());
        if judgements.said.last() == Some(&said) {
            return;
        }
        if judgements.said.len() >= SAID_MAX {
            // One that has announced something explains more.
            let plain = judgements
                .said
                .iter()
                .position(|(kinds, _)| kinds.is_empty());
            judgements.said.remove(plain.unwrap_or(0));
        }
        judgements.said.push(said);
    }

    /// Takes the statements that may have left something since that was last taken.
    pub fn take_said(&mut self) -> Vec<Said> {
        let judgements = self.judgements.as_mut();
        judgements.map_or_else(Vec::new, |judgements| std::mem::take(&mut judgements.said))
    }

    /// The refusal, if this is what a server says to the text that stands for one.
    pub(super) fn refusal(
        &mut self,
        sqlstate: Option<SqlState>,
        message: &[u8],
    ) -> Option<BytesMut> {
        if sqlstate != Some(SqlState::SYNTAX_ERROR) {
            return None;
        }
        let message = std::str::from_utf8(message).ok()?;
        let (_, number) = message.split_once(WORD)?;
        let digits = number.find(|c: char| !c.is_ascii_digit());
        let number = number[..digits.unwrap_or(number.len())].parse().ok()?;
        let judgements = self.judgements.as_mut();
        let known = judgements.and_then(|judgements| judgements.take(number));
        Some(known.unwrap_or_else(|| error_response(UNKNOWN)))
    }
}

impl Judgements {
    fn refuse(&mut self, message: BytesMut) -> u32 {
        self.last = self.last.wrapping_add(1);
        if self.refusals.len() >= REFUSALS_MAX {
            self.refusals.remove(0);
        }
        self.refusals.push((self.last, message));
        self.last
    }

    /// Those before it were skipped with their batch.
    fn take(&mut self, number: u32) -> Option<BytesMut> {
        let at = self
            .refusals
            .iter()
            .position(|(known, _)| *known == number)?;
        self.refusals
            .drain(..=at)
            .next_back()
            .map(|(_, message)| message)
    }
}

/// What the server gets in place of a statement.
pub(super) fn text(number: u32) -> String {
    format!("{WORD}{number}")
}

/// A refusal of which nobody knows more, because another process has judged.
const UNKNOWN: &[u8] =
    b"SERROR\0VERROR\0C0A000\0Msession state is refused in this pooling mode\0\0";

/// Whether a text asks for a number drawn from a sequence, and cannot have drawn it.
fn only_reads_drawn(scan: &Scan, text: &[u8]) -> bool {
    let reads = call_bit(b"lastval") | call_bit(b"currval");
    let text = text.trim_ascii_start();
    let is_query = text
        .get(..6)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"select"));
    is_query && scan.calls & !reads == 0
}

/// Whether a text is one statement, and what it leaves does not end with it.
fn is_alone(text: &[u8]) -> bool {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
    let len = text
        .iter()
        .rposition(|byte| !is_end(byte))
        .map_or(0, |at| at + 1);
    let lower = text[..len].to_ascii_lowercase();
    let words = lower.split(|byte| byte.is_ascii_whitespace());
    let mut words = words.filter(|word| !word.is_empty());
    let ends_with_it = words.any(|word| word == b"commit") && words.any(|word| word == b"drop");
    !lower.contains(&b';') && !ends_with_it
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Values;

    fn relay() -> Relay {
        Relay::new(Values::default())
    }

    #[test]
    fn a_refusal_is_known_by_its_number() {
        let mut relay = relay();
        let judgements = relay.judgements.get_or_insert_default();
        let numbers = ["a", "b", "c"].map(|text| judgements.refuse(BytesMut::from(text)));
        let mut said = |number| {
            let said = format!("syntax error at or near \"{}\"", text(number));
            relay.refusal(Some(SqlState::SYNTAX_ERROR), said.as_bytes())
        };
        // The server has skipped the first with its batch.
        assert_eq!(said(numbers[1]).as_deref(), Some(&b"b"[..]));
        assert_eq!(said(numbers[2]).as_deref(), Some(&b"c"[..]));
        let unknown = said(numbers[0]).expect("it is one");
        assert!(String::from_utf8_lossy(&unknown).contains("C0A000"));
    }

    #[test]
    fn other_errors_are_no_refusals() {
        let said = b"syntax error at or near \"pgweir_refuses\"";
        assert_eq!(relay().refusal(Some(SqlState::SYNTAX_ERROR), said), None);
        let (said, other) = (text(1), Some(SqlState::FEATURE_NOT_SUPPORTED));
        assert_eq!(relay().refusal(other, said.as_bytes()), None);
    }

    #[test]
    fn who_draws_may_ask_what_was_drawn() {
        for (text, only_reads) in [
            ("select lastval()", true),
            (" SELECT currval('s'), abs(1)", true),
            ("select nextval('s'), currval('s')", false),
            ("select f(), lastval()", false),
            ("insert into t default values returning lastval()", false),
        ] {
            let text = text.as_bytes();
            let scan = crate::residue::scan(text);
            assert!(scan.reads_drawn);
            assert_eq!(
                only_reads_drawn(&scan, text),
                only_reads,
                "{}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn only_one_statement_surely_stays() {
        for (text, alone) in [
            ("set a = 1", true),
            ("set a = 1 ;\n;", true),
            ("set a = 1; select 1", false),
            ("create temp table t (x int) on Commit  drop", false),
            ("create temp table t (x int) on commit delete rows", true),
        ] {
            assert_eq!(is_alone(text.as_bytes()), alone, "{text}");
        }
    }
}
