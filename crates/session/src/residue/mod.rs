//! What a client leaves in a server's session, and how that is found out.
//!
//! A query is known to the pooler by its text and by what the server says of it. [`mod@scan`] reads the
//! text: some statements cannot leave anything, some say what they leave, and of the others (all that
//! can call a function, a trigger or a rule) nobody can know but the server. The server is asked
//! ([`probe`]), and the answer is remembered for a while ([`memory`]), so that a statement that is run
//! all the time costs a look at the memory.
//!
//! [`Residue`] stands with the server and collects what has been asked of it since it was last looked
//! at. The decision about it is `docs/adr/0014-state.md`.

mod familiar;
mod kinds;
pub mod memory;
mod ordinary;
pub mod probe;
pub mod scan;
mod settings;
pub(crate) mod tokens;
pub(crate) mod words;

use std::time::{Duration, Instant};

pub use familiar::Familiar;
pub use kinds::Kinds;
pub use memory::{Memory, Verdict};
pub use probe::{Facts, Probe};
pub use scan::{Named, Scan, scan};

/// What has been asked of a server since it was last known what its session holds.
#[derive(Debug, Default)]
pub struct Residue {
    /// Statements of which only the server, or the memory, knows what they leave.
    prints: Vec<u64>,
    /// What the texts say that there may be.
    suspects: Kinds,
    /// Parameters that were set by their names.
    named: Vec<Named>,
    /// Whether some of these are not known.
    lacks_names: bool,
    /// Functions that were called.
    calls: u128,
    /// Something could not be read: everything has to be looked for, and nothing is learned.
    unreadable: bool,
    /// An error or a ROLLBACK: what a statement has left may have been undone.
    undone: bool,
    /// A statement has said SET, so the server's word is no surprise.
    has_set: bool,
    /// Something may have ended what binds the server to its client.
    ends: bool,
    /// Something may have drawn a number from a sequence.
    draws: bool,
    /// Something asks for the last number drawn.
    reads_drawn: bool,
    /// Other statements may return something else than before.
    alters: bool,
    /// What is known to be there and binds the server to its client.
    bound: Kinds,
    looked_at: Option<Instant>,
}

/// Statements that are told apart between two looks. With more, everything is looked for.
const PRINTS_MAX: usize = 64;

/// Parameters that are kept between two looks. With as many, nobody knows what the session holds.
const NAMED_MAX: usize = 1_000;

/// How long what binds a server may have ended in a way that no text shows.
const BOUND_AGAIN: Duration = Duration::from_secs(1);

impl Residue {
    /// That of a session in another process, which has told what its texts have said. `None`: it did not say which
    /// parameters they have named.
    pub(crate) fn told(announced: Kinds, named: Option<Vec<Named>>) -> Self {
        Self {
            suspects: announced,
            lacks_names: named.is_none(),
            named: named.unwrap_or_default(),
            unreadable: true,
            ..Self::default()
        }
    }

    /// A statement has been asked for. What is `allowed` is not looked for, and of some parameters the server
    /// says itself when they change.
    #[inline]
    pub fn note(&mut self, scan: &Scan, allowed: Kinds, is_heard_of: impl Fn(&str) -> bool) {
        if scan.print != 0 && self.prints.last() != Some(&scan.print) {
            self.note_print(scan.print);
        }
        if scan.is_plain() {
            return;
        }
        self.note_more(scan, allowed, is_heard_of);
    }

    #[inline]
    fn note_print(&mut self, print: u64) {
        if self.prints.contains(&print) {
            return;
        }
        match self.prints.len() {
            PRINTS_MAX => self.unreadable = true,
            _ => self.prints.push(print),
        }
    }

    fn note_more(&mut self, scan: &Scan, allowed: Kinds, is_heard_of: impl Fn(&str) -> bool) {
        self.suspects
            .add(scan.suspects.union(scan.reset).without(allowed));
        if !allowed.has(Kinds::SETTINGS) {
            let unheard = scan.named.iter().filter(|named| !is_heard_of(&named.name));
            unheard.for_each(|named| note_named(&mut self.named, named));
        }
        self.calls |= scan.calls;
        self.unreadable |= scan.unreadable;
        self.has_set |= scan.sets;
        self.ends |= scan.ends;
        self.draws |= scan.draws;
        self.reads_drawn |= scan.reads_drawn;
        // What is temporary is no concern of others.
        self.alters |= scan.alters && !self.may_have(Kinds::TEMPORARY);
    }

    /// The server has found that a statement does not return what it did when it was prepared.
    pub fn note_altered(&mut self) {
        self.alters = true;
    }

    /// Whether something may have changed what statements return, which is told once.
    #[inline]
    pub fn take_altered(&mut self) -> bool {
        std::mem::take(&mut self.alters)
    }

    /// Whether a text may mean something else than before, to this session alone: it has temporary
    /// objects, or its transaction has changed definitions.
    #[inline]
    pub fn may_mean_another(&self) -> bool {
        self.alters || self.may_have(Kinds::TEMPORARY)
    }

    /// Whether the session has something of these kinds, as far as known, or a text says so.
    pub fn may_have(&self, kinds: Kinds) -> bool {
        self.announced().has(kinds)
    }

    /// A function has been called that is known by its OID.
    pub fn note_call(&mut self, oid: u32) {
        match words::function_print(oid) {
            0 => {}
            print => self.note_print(print),
        }
    }

    /// Something has been asked of which the text is not known.
    pub fn note_unreadable(&mut self) {
        self.unreadable = true;
    }

    /// A statement of the protocol has got a name on the server.
    pub fn suspect(&mut self, kinds: Kinds) {
        self.suspects.add(kinds);
    }

    /// The server has said SET or RESET. That is a surprise where no text said so.
    pub fn note_set(&mut self) {
        self.unreadable |= !self.has_set;
    }

    /// The server has undone something.
    #[inline]
    pub fn note_undone(&mut self) {
        self.undone = true;
    }

    /// The server does not listen any more.
    pub(crate) fn note_unlistened(&mut self) {
        self.bound = self.bound.without(Kinds::LISTEN);
    }

    /// Whether something has been undone since it was last known what the session holds.
    pub(crate) fn is_undone(&self) -> bool {
        self.undone
    }

    /// What binds the server to its client.
    pub fn bound(&self) -> Kinds {
        self.bound
    }

    /// Whether a number may have been drawn from a sequence since the lease began.
    pub fn draws(&self) -> bool {
        self.draws
    }

    /// Whether the client has asked for the last number drawn.
    pub fn reads_drawn(&self) -> bool {
        self.reads_drawn
    }

    /// A lease begins: what was drawn before is another's.
    #[inline]
    pub fn begin(&mut self) {
        self.draws = false;
        self.reads_drawn = false;
    }

    /// What the server has to be asked before it may serve another client; `None` if it is known that
    /// the session holds nothing new.
    #[inline]
    pub fn question(&self, memory: &Memory, now: Instant) -> Option<Probe> {
        if self.is_plain()
            && self.prints.iter().all(|&print| memory.is_clean(print, now))
            && memory.leaves_by_name(self.calls).is_empty()
        {
            return None;
        }
        self.look(memory, now)
    }

    /// Whether nothing has been asked since it was last known that the session holds nothing.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.prints.is_empty() && self.is_plain()
    }

    /// Whether the session may hold what its books do not have.
    pub fn may_be_there(&self, memory: &Memory, now: Instant) -> bool {
        !self.bound.is_empty() || self.question(memory, now).is_some()
    }

    #[inline]
    fn is_plain(&self) -> bool {
        self.suspects.is_empty()
            && self.named.is_empty()
            && !self.unreadable
            && self.bound.is_empty()
    }

    #[cold]
    fn look(&self, memory: &Memory, now: Instant) -> Option<Probe> {
        if !self.bound.is_empty() {
            let again = |at: Instant| now.saturating_duration_since(at) >= BOUND_AGAIN;
            let resets =
                self.named.iter().any(|named| named.is_reset) || self.suspects.has(Kinds::SETTINGS);
            let due = self.ends || resets || self.looked_at.is_none_or(again);
            return due.then(|| Probe::everything(memory, &self.named, now));
        }
        let mut kinds = self.suspects;
        kinds.add(memory.leaves_by_name(self.calls));
        let mut everything = self.unreadable || (self.undone && !self.named.is_empty());
        for &print in &self.prints {
            match memory.verdict(print, now) {
                Some(Verdict::Clean) => {}
                Some(Verdict::Leaves(left)) => kinds.add(left),
                None => everything = true,
            }
        }
        match everything {
            true => Some(Probe::everything(memory, &self.named, now)),
            false => Some(Probe::of(kinds, memory, &self.named)),
        }
    }

    /// Teaches the memory what the statements leave: `found` is there, `left` is the part of it that no
    /// text had announced.
    pub(crate) fn teach(&self, found: Kinds, left: Kinds, memory: &mut Memory, now: Instant) {
        // Of what was undone nobody knows what it would have left.
        if self.undone || self.unreadable {
            return;
        }
        let verdict = match (left.is_empty(), found.is_empty()) {
            (false, _) => Verdict::Leaves(left),
            (true, true) => Verdict::Clean,
            (true, false) if self.prints.len() == 1 => Verdict::Leaves(found),
            // Who of them has left it?
            (true, false) => return,
        };
        for &print in &self.prints {
            if memory.verdict(print, now).is_none() {
                memory.learn(print, verdict, now);
            }
        }
    }

    /// Whether some of the parameters that were named may be missing.
    pub(crate) fn lacks_names(&self) -> bool {
        self.lacks_names || self.named.len() >= NAMED_MAX
    }

    /// What binds the server to its client, and what a text says that there may be.
    pub fn announced(&self) -> Kinds {
        self.bound.union(self.suspects)
    }

    /// Parameters that a text had named.
    pub(crate) fn named(&self) -> &[Named] {
        &self.named
    }

    /// It is known what the session holds: what binds it, and nothing that was not entered.
    pub(crate) fn settle(&mut self, bound: Kinds, now: Instant) {
        self.prints.clear();
        self.calls = 0;
        self.suspects = Kinds::NONE;
        self.named.clear();
        self.lacks_names = false;
        self.unreadable = false;
        self.undone = false;
        self.has_set = false;
        self.ends = false;
        self.bound = bound;
        self.looked_at = Some(now);
    }

    /// The lease ends with nothing to look for.
    #[inline]
    pub fn pass(&mut self) {
        self.prints.clear();
        self.calls = 0;
        self.undone = false;
        self.has_set = false;
        self.ends = false;
    }

    /// Commands that take back a part of what binds the server to its client; it is not there any more.
    pub(crate) fn take_back(&mut self, kinds: Kinds) -> String {
        let commands = commands(self.bound.intersection(kinds));
        self.bound = self.bound.without(kinds);
        commands
    }

    /// Commands that take back what binds the server to its client; `None` if that is nothing, or
    /// there may be more.
    pub fn undo(&self) -> Option<String> {
        let is_known = self.prints.is_empty()
            && self.suspects.is_empty()
            && self.named.is_empty()
            && !self.unreadable;
        if !is_known {
            return None;
        }
        let sql = commands(self.bound);
        (!sql.is_empty()).then_some(sql)
    }
}

/// Of what is said of a parameter the last word counts.
fn note_named(names: &mut Vec<Named>, named: &Named) {
    match names.iter().position(|known| known.name == named.name) {
        Some(at) => names[at].is_reset = named.is_reset,
        None if names.len() < NAMED_MAX => names.push(named.clone()),
        None => {}
    }
}

/// What takes these kinds back.
fn commands(kinds: Kinds) -> String {
    const COMMANDS: [(Kinds, &str); 5] = [
        (Kinds::LOCKS, "SELECT pg_catalog.pg_advisory_unlock_all();"),
        (Kinds::LISTEN, "UNLISTEN *;"),
        (Kinds::CURSORS, "CLOSE ALL;"),
        (Kinds::PREPARED, "DEALLOCATE ALL;"),
        // What was prepared may mean what was temporary.
        (Kinds::TEMPORARY, "DISCARD TEMP;DEALLOCATE ALL;"),
    ];
    let chosen = COMMANDS.iter().filter(|(kind, _)| kinds.has(*kind));
    chosen.map(|(_, command)| *command).collect()
}

#[cfg(test)]
mod tests;
