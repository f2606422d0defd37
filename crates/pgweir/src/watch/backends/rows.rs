//! What a look at a PostgreSQL has found, as rows of SHOW BACKENDS.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir_console::tables::BackendRow;

use super::compare::{Answer, Backend, Findings};
use super::only_host;
use crate::shared::Shared;

/// A PostgreSQL of which nothing could be found out.
pub(super) fn unknown(host: &str, why: &str) -> BackendRow {
    BackendRow {
        host: host.to_owned(),
        kind: "unknown",
        detail: why.to_owned(),
        ..BackendRow::default()
    }
}

/// All that was found.
pub(super) fn of_host(
    shared: &Shared,
    host: &Arc<str>,
    answer: &Answer,
    findings: &Findings,
) -> Vec<BackendRow> {
    let mut rows = vec![headroom(host, answer, findings)];
    rows.extend(own(shared, host));
    rows.extend(findings.ghosts.iter().map(|pid| ghost(shared, host, *pid)));
    for (kind, backends, detail) in [
        (
            "orphan",
            &findings.orphans,
            "it was a server of this pooler and is counted no more: pg_terminate_backend(pid) ends it",
        ),
        (
            "unclaimed",
            &findings.unclaimed,
            "it comes from this pooler's address as a user of its pools and is not known: another pooler, or one that ended",
        ),
        ("foreign", &findings.foreign, ""),
    ] {
        rows.extend(backends.iter().map(|backend| BackendRow {
            kind,
            detail: detail.to_owned(),
            ..row(host, backend)
        }));
    }
    if findings.is_behind_proxy {
        let why = "there is a proxy in between that gives process ids of its own: ghosts and orphans cannot be told";
        rows.push(unknown(host, why));
    }
    if !answer.sees_all {
        rows.push(BackendRow {
            kind: "hidden",
            detail: format!(
                "what other users' sessions do, and where they come from, is hidden from {0}: GRANT pg_monitor TO {0}",
                answer.user
            ),
            ..unknown(host, "")
        });
    }
    rows
}

fn headroom(host: &str, answer: &Answer, findings: &Findings) -> BackendRow {
    let Answer {
        max, reserved, all, ..
    } = answer;
    let free = max - reserved - all;
    BackendRow {
        kind: "headroom",
        backends: free,
        detail: format!(
            "{all} of {max} connections are in use ({reserved} reserved): {} by this pooler, {} by others",
            findings.own,
            all - findings.own
        ),
        ..unknown(host, "")
    }
}

/// Servers by pool, as the books have them.
fn own(shared: &Shared, host: &Arc<str>) -> Vec<BackendRow> {
    let mut pools: BTreeMap<(String, String), i64> = BTreeMap::new();
    for server in &shared.servers {
        if only_host(&server.home).as_ref() == Some(host) && server.process_id() != 0 {
            let name = &server.home.name;
            let pool = (name.database.to_string(), name.user.to_string());
            *pools.entry(pool).or_default() += 1;
        }
    }
    let row = |((database, user), backends)| BackendRow {
        kind: "own",
        backends,
        database,
        user,
        ..unknown(host, "")
    };
    pools.into_iter().map(row).collect()
}

fn ghost(shared: &Shared, host: &str, pid: i32) -> BackendRow {
    let mut servers = shared.servers.iter();
    let server = servers.find(|server| server.process_id() == pid);
    let name = server.map(|server| server.home.name.clone());
    let (database, user) = name.map_or_else(Default::default, |name| {
        (name.database.to_string(), name.user.to_string())
    });
    BackendRow {
        kind: "ghost",
        backends: 1,
        process_id: Some(pid),
        database,
        user,
        detail: "a server of this pooler that PostgreSQL does not have: the connection is dead and was not closed"
            .to_owned(),
        ..unknown(host, "")
    }
}

fn row(host: &str, backend: &Backend) -> BackendRow {
    BackendRow {
        host: host.to_owned(),
        backends: backend.count,
        process_id: (backend.pid != 0).then_some(backend.pid),
        database: backend.database.clone(),
        user: backend.user.clone(),
        application_name: backend.app.clone(),
        address: backend.address.clone(),
        state: backend.state.clone(),
        age: backend.age,
        ..BackendRow::default()
    }
}
