//! What the pooler asks of a server on behalf of its client: before it serves, whether it is there and to take over the
//! client's parameters; later, what the client's own message needs.

use std::time::Instant;

use bytes::BytesMut;
use pgweir_session::{ClientSide, Phase, Tracked, Translation, Values, Waits, own_list};

use super::leased::session_rules;
use super::{Place, Session};
use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::clients::pids::{self, Renumbered};
use crate::servers::server::{Server, Stage};
use crate::shared::{Rules, lock};

/// Brings a server to its client's parameters, if it has others.
pub(super) fn fit(
    client: &Client,
    side: &mut ClientSide,
    tracked: &Tracked,
    server: &mut Server,
) -> Stage {
    let mut out = BytesMut::new();
    if !server.relay.fit(side, tracked, &mut out) {
        return Stage::Serve;
    }
    let sql = String::from_utf8_lossy(out.get(5..).unwrap_or_default());
    tracing::debug!(peer = %client, "varcache_apply: {}", sql.trim_end_matches('\0'));
    server.line.queue(&out);
    Stage::Fit(side.values.clone())
}

/// The same in the middle of a session.
pub(super) fn refit(
    client: &Client,
    side: &mut ClientSide,
    tracked: &Tracked,
    server: &mut Server,
) -> Stage {
    match fit(client, side, tracked, server) {
        Stage::Fit(_) => Stage::Refit,
        stage => stage,
    }
}

impl Session {
    /// Queues what a server has to do before it can serve.
    #[cold]
    pub(super) fn prepare(&mut self, server: &mut Server, stale: bool) -> Stage {
        if !stale && self.must_forget_drawn(server) {
            return forget(server);
        }
        if !stale {
            return fit(&self.client, &mut self.side, &self.shared.tracked, server);
        }
        let mut out = BytesMut::new();
        server.relay.ask(check_query(&server.work.rules), &mut out);
        server.line.queue(&out);
        Stage::Check
    }

    /// The server has answered, perhaps in part, what the pooler has asked.
    pub(super) fn next_stage(&mut self) -> Result<(), Farewell> {
        let Place::Leased(held) = &mut self.place else {
            return Ok(());
        };
        if !held.server.relay.is_quiet() {
            return Ok(());
        }
        if !matches!(held.server.work.stage, Stage::Look | Stage::Move(_))
            && let Some(refused) = held.server.relay.take_refused()
        {
            return match self.side.go_back() {
                true => {
                    self.lose_parameters(&refused.message);
                    Ok(())
                }
                false => Err(Farewell::ParameterRefused(refused)),
            };
        }
        match std::mem::replace(&mut held.server.work.stage, Stage::Serve) {
            Stage::Check if held.server.relay.has_drawn_of_others() => {
                held.server.work.stage = forget(&mut held.server);
            }
            Stage::Check | Stage::Forget => {
                let tracked = &self.shared.tracked;
                let server = &mut held.server;
                server.work.stage = fit(&self.client, &mut self.side, tracked, server);
            }
            Stage::Fit(before) => self.log_canonical(&before),
            Stage::Refit | Stage::Comply => {
                self.client.drop_wait_orders();
                if held.server.work.query_start.is_some() {
                    self.client.state().clocks.phase = Phase::Active;
                    return Ok(());
                }
                // What was taken back between two transactions may have been a parameter.
                let (tracked, server) = (&self.shared.tracked, &mut held.server);
                server.work.stage = refit(&self.client, &mut self.side, tracked, server);
            }
            Stage::Look => {
                self.looked(Instant::now());
                return Ok(());
            }
            Stage::Move(step) => {
                self.moved(step);
                return Ok(());
            }
            Stage::Serve => {}
        }
        self.begin_service();
        Ok(())
    }

    /// Whether the server knows what another client has drawn from a sequence, in a pool in which that
    /// is asked for.
    #[inline]
    pub(super) fn must_forget_drawn(&self, server: &Server) -> bool {
        server.relay.has_drawn_of_others()
            && server.work.is_private()
            && lock(&self.route.home.memory).reads_drawn()
    }

    /// Does what the client's next message waits for.
    #[cold]
    pub(super) fn end_wait_of_message(&mut self) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        match held.server.relay.waits() {
            Waits::Nothing => {}
            Waits::Forgetting => self.forget_drawn(),
            Waits::Channels => self.listen_again(),
            Waits::Comparison => {
                let mut out = BytesMut::new();
                held.server.relay.compare(&mut out);
                self.ask_first(&out);
            }
            Waits::OwnNames => {
                let own = &held.server.info;
                let relay = &mut held.server.relay;
                let (unread, tries) = (self.line.unread(), relay.translation_tries());
                match pids::renumber(&self.shared, &self.client, own, unread, &self.side, tries) {
                    Renumbered::Done(mut bytes) => {
                        if let Some(own) = own_list(&bytes, &relay.names(&self.side)) {
                            let rules = session_rules(&self.shared, &held.server.work);
                            let mut out = BytesMut::new();
                            relay.teach_all(&self.side, &rules, &mut out);
                            held.server.line.queue(&out);
                            bytes = own;
                        }
                        relay.translated(Translation::Done);
                        let _ = self.line.take_unread();
                        self.line.put_back_bytes(&bytes);
                    }
                    Renumbered::Incomplete => relay.translated(Translation::Incomplete),
                    Renumbered::Later => relay.translated(Translation::Later),
                }
            }
        }
    }

    /// The client asks for what was drawn last, and the server would tell it what another client has
    /// drawn.
    fn forget_drawn(&mut self) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        lock(&self.route.home.memory).note_reads_drawn();
        let mut out = BytesMut::new();
        held.server.relay.forget_drawn(&mut out);
        self.ask_first(&out);
    }

    /// Asks the server for something that has to be done before the client's next message, which is offered again
    /// then. Perhaps within a transaction, and its query has been counted.
    pub(super) fn ask_first(&mut self, out: &[u8]) {
        self.ask_between(out, Instant::now());
        self.line.offer_unread();
    }

    /// Asks the server for something while the client is not served.
    pub(super) fn ask_between(&mut self, out: &[u8], now: Instant) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        held.server.line.queue(out);
        held.server.work.stage = Stage::Comply;
        self.client.state().clocks.begin_asking(now);
    }

    /// The server is ready for what the client asked, unless the client has canceled it.
    fn begin_service(&mut self) {
        let now = Instant::now();
        if matches!(&self.place, Place::Leased(held) if !held.serves()) {
            return;
        }
        if self.client.take_wait_orders().canceled {
            self.release(now);
            return self.answer_canceled();
        }
        if let Place::Leased(held) = &mut self.place
            && held.server.work.query_start.is_some()
        {
            held.server.work.count_first_query();
        }
        let mut state = self.client.state();
        state.clocks.phase = Phase::Active;
        state.clocks.since = now;
    }

    /// The server may spell a value in its own way, which the client has from now on.
    fn log_canonical(&self, before: &Values) {
        for (index, name) in self.shared.tracked.names().enumerate() {
            if let (Some(was), Some(is)) = (before.get(index), self.side.values.get(index))
                && was != is
            {
                tracing::debug!(
                    peer = %self.client,
                    "varcache_set_canonical: setting {name} to its canonical version {was} -> {is}"
                );
            }
        }
    }
}

/// Makes a server forget which numbers were drawn from sequences.
fn forget(server: &mut Server) -> Stage {
    let mut out = BytesMut::new();
    server.relay.forget_drawn(&mut out);
    server.line.queue(&out);
    Stage::Forget
}

/// The query that a server answers if it is still there.
fn check_query(rules: &Rules) -> &str {
    match rules.config.global.server_check_query.as_str() {
        "<empty>" => "",
        query => query,
    }
}
