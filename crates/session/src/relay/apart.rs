//! Keeps the state of sessions apart: what a client has left in a server's session is found, entered
//! into the books or taken back before the server serves another client.
//!
//! Parameters become requests of the client that has set them ([`Values`]): it gets them again on
//! every server, and [`Relay::fit`] takes them back for the others. What cannot be given again binds
//! the server to its client; whether it stays with it is for the caller to say.

use std::time::Instant;

use bytes::BytesMut;
use pgweir_wire::read::Truncated;
use pgweir_wire::{HEADER_LEN, Header, Reader, TransactionStatus};

use super::client_side::kind_of;
use super::judged::Admission;
use super::{Asked, ClientSide, Relay, Rules, ServersUnnamed, Violation, Waits};
use crate::parameters::{Parameters, may_be_requested};
use crate::params::{RIGHTS, Tracked, Values};
use crate::pipeline::Reply;
use crate::prepared::Statement;
use crate::residue::probe::Row;
use crate::residue::{Facts, Kinds, Memory, Probe, Scan};

/// What is known of a session after a look at it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// What it holds beyond the books; mostly nothing. It binds the server to its client.
    Bound(Kinds),
    /// The server did not say it in a way that can be kept: only DISCARD ALL helps.
    Unknown,
}

impl Relay {
    /// A client has the server, until the next one has it.
    #[inline]
    pub fn begin_lease(&mut self, client: u64) {
        self.spoken.begin();
        // However the last one has ended.
        if self.residue.draws() {
            let alone = self.drawn_by.is_none_or(|client| client == self.client);
            self.drawn_by = Some(if alone { self.client } else { SEVERAL });
        }
        self.residue.begin();
        self.forget_cancel();
        self.unnamed = ServersUnnamed::default();
        self.speaks_of_own = false;
        self.elsewhere.begin();
        self.client = client;
    }

    /// What the session holds and what has been asked since that was last known.
    #[inline]
    pub fn residue(&self) -> &crate::residue::Residue {
        &self.residue
    }

    /// Whether something may have changed what statements return, which is told once.
    #[inline]
    pub fn take_altered(&mut self) -> bool {
        self.residue.take_altered()
    }

    /// Notes what a statement may leave.
    #[inline]
    fn note(&mut self, scan: &Scan, text: &[u8], runs: bool, rules: &Rules<'_>) -> Admission {
        if !rules.state.judged.is_empty()
            && let Some(refusal) = self.judge(scan, text, runs, rules)
        {
            return Admission::Refused(refusal);
        }
        if (scan.reads_drawn | scan.speaks_of_own | scan.about_channels)
            && self.must_wait(scan, rules)
        {
            return Admission::Wait;
        }
        let values = &self.values;
        self.residue.note(scan, rules.state.allowed, |name| {
            values.report(name, rules.tracked)
        });
        Admission::Fine
    }

    /// Whether the client would be told what another one has drawn, and nothing hinders the server
    /// from forgetting it. In the middle of a batch it is too late.
    pub(super) fn must_forget_drawn(&self) -> bool {
        self.has_drawn_of_others()
            && !self.residue.draws()
            && self.is_quiet()
            && self.status != TransactionStatus::Failed
    }

    /// Whether the session knows numbers of sequences that another client has drawn.
    #[inline]
    pub fn has_drawn_of_others(&self) -> bool {
        self.drawn_by.is_some_and(|client| client != self.client)
    }

    /// Appends the command that makes the session forget which numbers were drawn from sequences.
    pub fn forget_drawn(&mut self, out: &mut BytesMut) {
        self.waits = Waits::Nothing;
        self.drawn_by = None;
        self.ask("DISCARD SEQUENCES", out);
    }

    /// A lease may end, or a bound server may be free again: what the server has to be asked before
    /// that is certain. `None` if it is.
    #[inline]
    pub fn question(&mut self, memory: &Memory, now: Instant) -> Option<Probe> {
        match self.residue.question(memory, now) {
            None if self.residue.bound().is_empty() => {
                self.residue.pass();
                None
            }
            question => question,
        }
    }

    /// The question for everything, where the server has to leave its client.
    pub fn whole_question(&self, memory: &Memory, now: Instant) -> Probe {
        Probe::everything(memory, self.residue.named(), now)
    }

    /// Appends a question to the server what its session holds. [`Self::settle`] draws the
    /// conclusions when the server has answered.
    pub fn look(&mut self, mut probe: Probe, login: &str, out: &mut BytesMut) {
        probe.ask_for(self.values.requested().names());
        let sql = probe.sql(login);
        self.ask(&sql, out);
        self.asked = Asked::Look(Box::new(probe));
    }

    /// Enters what the server has said of its session into the books.
    pub fn settle(
        &mut self,
        client: &mut ClientSide,
        tracked: &Tracked,
        memory: &mut Memory,
        now: Instant,
    ) -> Settled {
        let lacks_names = self.residue.lacks_names();
        let facts = self.facts.take().filter(|facts| !facts.is_strange);
        let Some(facts) = facts.filter(|_| !lacks_names) else {
            self.residue.note_unreadable();
            return Settled::Unknown;
        };
        if let Some(catalog) = &facts.catalog {
            memory.learn_catalog(catalog, now);
        }
        let changed = self.enter(&facts, client, tracked);
        let found = facts.bound.union(changed);
        if facts.is_complete && !(client.masks && found.is_empty()) {
            let left = found.without(self.residue.announced());
            self.residue.teach(found, left, memory, now);
        }
        self.note_listening(facts.channels);
        self.residue.settle(facts.bound, now);
        Settled::Bound(facts.bound)
    }

    /// Everything has been taken back by DISCARD ALL.
    pub fn settle_discarded(&mut self, now: Instant) {
        self.residue.settle(Kinds::NONE, now);
        self.residue.begin();
        self.drawn_by = None;
        // What its sessions should begin with is gone as well.
        let mut requested = Parameters::default();
        for name in self.defaults.names() {
            requested.doubt_one(name);
        }
        self.values.set_requested(requested);
    }

    /// What binds the server to its client has been taken back.
    pub fn settle_undone(&mut self, now: Instant) {
        self.residue.settle(Kinds::NONE, now);
    }

    /// Makes requests of the parameters that were found. Which kinds have changed without a text
    /// that names them.
    fn enter(&mut self, facts: &Facts, client: &mut ClientSide, tracked: &Tracked) -> Kinds {
        let before = self.values.requested().clone();
        let (mut there, mut wanted) = (before.clone(), client.values.requested().clone());
        let begun_with = match &client.startup {
            Some(startup) => (**startup).clone(),
            None => wanted.clone(),
        };
        let named = self.residue.named();
        let was_reset = |name: &str| {
            let last = named.iter().rev().find(|named| &*named.name == name);
            !facts.has_all_settings && last.is_some_and(|named| named.is_reset)
        };
        for (name, value) in &facts.settings {
            let is_heard_of = self.values.report(name, tracked);
            let is_default = self.defaults.get(name) == Some(value) && !wanted.contains(name);
            if is_heard_of || is_default || was_reset(name) {
                continue;
            }
            there.set(name, value);
            if may_be_requested(name) || RIGHTS.contains(&&**name) {
                wanted.set(name, value);
            }
        }
        let is_found = |name: &str| {
            let found = facts.settings.iter().any(|(found, _)| &**found == name);
            found && !was_reset(name)
        };
        let is_covered = |name: &str| match RIGHTS.contains(&name) {
            true => facts.has_rights,
            false => {
                facts.has_all_settings
                    || facts.unset.iter().any(|unset| &**unset == name)
                    || was_reset(name)
            }
        };
        for name in before.names().chain(client.values.requested().names()) {
            if is_covered(name) && !is_found(name) {
                there.remove(name);
                match begun_with.get(name) {
                    Some(value) => wanted.set(name, value),
                    None => wanted.remove(name),
                }
            }
        }
        if facts.has_all_settings {
            let lost = |name: &&str| !facts.settings.iter().any(|(found, _)| &**found == *name);
            for name in self.defaults.names().filter(lost) {
                if !there.contains(name) {
                    there.doubt_one(name);
                }
            }
        }
        let mut changed = Kinds::NONE;
        for name in before.names().chain(there.names()) {
            let is_named = named.iter().any(|named| &*named.name == name);
            if before.get(name) != there.get(name) && !is_named {
                changed.add(kind_of(name));
            }
        }
        client.masks |= !changed.is_empty();
        client.masks &= wanted != begun_with;
        client.masks |= RIGHTS.iter().any(|name| wanted.contains(name));
        if wanted != *client.values.requested() && client.startup.is_none() {
            client.startup = Some(Box::new(begun_with));
        }
        client.values.set_requested(wanted);
        self.values.set_requested(there);
        if client.values.same(&self.values) {
            client.values.unite(&mut self.values);
        }
        changed
    }

    /// A row of the reply to a query of the pooler's own; `None` if more of it must be there first.
    #[cold]
    pub(super) fn own_row(
        &mut self,
        header: Header,
        frame: &[u8],
    ) -> Result<Option<Reply>, Violation> {
        let Some(body) = frame.get(HEADER_LEN..header.frame_len()) else {
            return Ok(None);
        };
        if matches!(self.asked, Asked::Fit { .. } | Asked::Look(_)) {
            // A value that is no UTF-8 makes the row a strange one.
            self.own_rows.push(read_row(body).unwrap_or_default());
        }
        Ok(Some(Reply::Skip))
    }

    /// The server has answered a look.
    pub(super) fn looked(&mut self, probe: &Probe) {
        let facts = probe.read(&self.own_rows);
        self.facts = Some(Box::new(facts));
    }

    /// The values of a fit as the server spells them.
    pub(super) fn spell(&self, names: &[Box<str>], values: &mut Values) {
        let Some(row) = self.own_rows.last().filter(|row| row.len() == names.len()) else {
            return;
        };
        for (name, value) in names.iter().zip(row) {
            if let Some(value) = value {
                values.replace_requested(name, value);
            }
        }
    }

    /// Whether a Query or Parse has to wait until its whole text is there, because it is to be read.
    #[inline]
    pub(super) fn awaits_text(rules: &Rules<'_>, header: Header, there: &[u8]) -> bool {
        rules.private && there.len() < header.body_len && header.body_len <= SCANNED_MAX
    }

    /// Notes the text of a Query, or of a Parse behind the name.
    #[inline]
    pub(super) fn note_text(
        &mut self,
        text: &[u8],
        is_whole: bool,
        rules: &Rules<'_>,
    ) -> Admission {
        if !rules.private {
            return Admission::Fine;
        }
        if !is_whole {
            self.residue.note_unreadable();
            return Admission::Fine;
        }
        let scan = self.familiar.scan(text);
        self.note(&scan, text, true, rules)
    }

    /// The same for a statement that has a name; whether it `runs`, or only gets the name.
    #[inline]
    pub(super) fn note_statement(
        &mut self,
        statement: &Statement,
        runs: bool,
        rules: &Rules<'_>,
    ) -> Admission {
        match rules.private {
            true => self.note(&statement.scan, &statement.definition, runs, rules),
            false => Admission::Fine,
        }
    }

    /// Appends the commands that take back a part of what binds the server to its client, which goes on
    /// with it.
    pub fn take_back(&mut self, kinds: Kinds, out: &mut BytesMut) {
        let sql = self.residue.take_back(kinds);
        self.ask(&sql, out);
    }

    /// What takes back the things that bind the server; `None` if only DISCARD ALL does.
    pub fn cleaning(&self) -> Option<String> {
        self.residue.undo()
    }
}

/// No client has this number.
pub(super) const SEVERAL: u64 = 0;

/// Texts up to this length are waited for, in bytes; a longer one that comes in pieces is not read.
const SCANNED_MAX: usize = 64 * 1024;

fn read_row(body: &[u8]) -> Result<Row, Truncated> {
    let mut reader = Reader::new(body);
    let count = reader.i16()?;
    let mut cell = || match usize::try_from(reader.i32()?) {
        Ok(len) => {
            let text = std::str::from_utf8(reader.bytes(len)?).map_err(|_| Truncated)?;
            Ok(Some(text.into()))
        }
        Err(_) => Ok(None),
    };
    (0..count).map(|_| cell()).collect()
}
