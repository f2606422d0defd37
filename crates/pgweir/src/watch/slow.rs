//! How long statements took: what is normal, for the leak detectors; those that took long, with a line in
//! the log and a row of SHOW STATEMENTS; and the first one of a server, which is a part of what a login
//! costs.

use std::sync::Arc;

use pgweir_config::Settings;
use pgweir_stats::SlowName;

use crate::clients::client::Client;
use crate::servers::server::{Noted, Server};
use crate::shared::{PoolHome, Shared, lock};
use crate::watch::{leaks, logins};

/// `log_min_duration_statement` in microseconds; for none, more than any statement takes.
pub(crate) fn threshold_us(settings: &Settings) -> u64 {
    match u64::try_from(settings.log_min_duration_statement) {
        Ok(ms) => ms * 1_000,
        Err(_) => u64::MAX,
    }
}

/// A client's statements have been at a server for that long.
#[inline(never)]
pub(crate) fn look_at(
    shared: &Shared,
    client: &Client,
    home: &PoolHome,
    server: &mut Server,
    noted: Noted,
) {
    if let Some(weight) = noted.weight {
        note_normal(home, server, noted.us, weight);
    }
    if std::mem::take(&mut server.work.is_new) {
        logins::note_first_query(home, noted.us);
    }
    if noted.us >= server.work.rules.slow_us {
        note_slow(shared, client, home, server, noted.us);
    }
}

/// What failed says nothing of how long a statement takes.
fn note_normal(home: &PoolHome, server: &Server, us: u64, weight: u32) {
    if server.relay.had_errors() {
        return;
    }
    if let Some(print) = server.relay.spoken().print() {
        lock(&home.norms).record(print, us, weight);
    }
}

/// Of several statements at once the last is named.
fn note_slow(shared: &Shared, client: &Client, home: &PoolHome, server: &Server, took_us: u64) {
    let application = Arc::clone(&client.state().application_name);
    let spoken = server.relay.spoken();
    let statement = leaks::shown(&shared.config(), spoken.last());
    let pid = server.info.process_id();
    let ms = took_us as f64 / 1_000.0;
    tracing::info!(
        peer = %client,
        "slow statement: {ms:.1} ms, app={application} server_pid={pid}: {statement}"
    );
    let name = SlowName {
        database: Arc::clone(&home.name.database),
        user: Arc::clone(&home.name.user),
        statement,
    };
    lock(&shared.slow).note(name, took_us, &application);
}
