//! Who is at the end of the chains in which backends wait for each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;

/// Every backend that waits for a lock, and every one that others wait for. Whether somebody waits is
/// asked of `pg_locks`, because what other roles wait for is hidden in `pg_stat_activity`; and only for
/// those who wait `pg_blocking_pids` is called, which stops all locking for a moment.
///
/// A prepared transaction has no process, and `pg_blocking_pids` has 0 for it. Which one it is follows from the lock
/// that it has and somebody waits for; it gets a negative number.
pub(super) const QUESTION: &str = "WITH l AS (SELECT * FROM pg_catalog.pg_locks), \
    b AS (SELECT pid, pg_catalog.pg_blocking_pids(pid) AS by \
    FROM (SELECT DISTINCT pid FROM l WHERE NOT granted) AS d), \
    x AS (SELECT DISTINCT b.pid, t.gid, t.owner, t.prepared FROM b JOIN l AS n ON n.pid = b.pid AND NOT n.granted \
    JOIN l AS h ON h.pid IS NULL AND h.granted AND h.mode <> 'SIReadLock' AND (h.locktype, h.database, h.relation, \
    h.page, h.tuple, h.virtualxid, h.transactionid, h.classid, h.objid, h.objsubid) IS NOT DISTINCT FROM \
    (n.locktype, n.database, n.relation, n.page, n.tuple, n.virtualxid, n.transactionid, n.classid, n.objid, n.objsubid) \
    JOIN l AS o ON o.pid IS NULL AND o.granted AND o.locktype = 'transactionid' \
    AND o.virtualtransaction = h.virtualtransaction \
    JOIN pg_catalog.pg_prepared_xacts AS t ON t.transaction = o.transactionid WHERE 0 = ANY (b.by)), \
    g AS (SELECT gid, owner, prepared, (- pg_catalog.row_number() OVER (ORDER BY gid))::int AS pid \
    FROM (SELECT DISTINCT gid, owner, prepared FROM x) AS d), \
    w AS (SELECT b.pid, CASE WHEN 0 = ANY (b.by) THEN pg_catalog.array_remove(b.by, 0) || coalesce((SELECT \
    pg_catalog.array_agg(g.pid) FROM x JOIN g USING (gid) WHERE x.pid = b.pid), '{0}') ELSE b.by END AS by FROM b), \
    p AS (SELECT pid FROM w UNION SELECT unnest(by) FROM w) \
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('pid', p.pid, 'by', w.by, 'db', a.datname, \
    'user', coalesce(a.usename, g.owner), 'app', a.application_name, 'addr', pg_catalog.host(a.client_addr), \
    'state', CASE WHEN p.pid > 0 THEN a.state ELSE 'prepared' END, \
    'age_ms', (extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.backend_start, g.prepared)) * 1000)::bigint, \
    'query', coalesce(pg_catalog.left(a.query, 240), 'PREPARE TRANSACTION ' || pg_catalog.quote_literal(g.gid)))), '[]') \
    FROM p LEFT JOIN w USING (pid) LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid) LEFT JOIN g USING (pid)";

/// Applications of those who wait that are named.
const APPLICATIONS_MAX: usize = 5;

/// One backend, as PostgreSQL describes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Backend {
    /// A prepared transaction has a negative one, and 0 if it is not known which it is.
    pub(super) pid: i32,
    /// For whom it waits.
    pub(super) blocked_by: Vec<i32>,
    /// As PostgreSQL names it.
    pub(super) database: String,
    pub(super) user: String,
    pub(super) app: String,
    pub(super) address: String,
    pub(super) state: String,
    /// How long ago its transaction began.
    pub(super) age: Duration,
    pub(super) query: String,
}

/// A backend that waits for nobody, and for whom others do.
#[derive(Debug)]
pub(super) struct Blocker<'a> {
    pub(super) pid: i32,
    /// Who waits for it, directly or through others.
    pub(super) waiting: BTreeSet<i32>,
    /// What PostgreSQL says of it.
    pub(super) backend: Option<&'a Backend>,
}

/// Reads the answer to [`QUESTION`].
pub(super) fn read(row: &[Option<Vec<u8>>]) -> Result<Vec<Backend>, String> {
    let cell = row.first().and_then(Option::as_deref).unwrap_or_default();
    let answer: Value = serde_json::from_slice(cell).map_err(|error| error.to_string())?;
    let backends = answer
        .as_array()
        .ok_or("an answer of another form was expected")?;
    Ok(backends.iter().map(backend).collect())
}

fn backend(value: &Value) -> Backend {
    let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let pid = |value: &Value| value.as_i64().and_then(|pid| i32::try_from(pid).ok());
    let by = value["by"].as_array().map_or(&[][..], Vec::as_slice);
    Backend {
        pid: pid(&value["pid"]).unwrap_or(0),
        blocked_by: by.iter().filter_map(pid).collect(),
        database: word("db"),
        user: word("user"),
        app: word("app"),
        address: word("addr"),
        state: word("state"),
        age: Duration::from_millis(value["age_ms"].as_u64().unwrap_or(0)),
        query: word("query"),
    }
}

/// For whom the sessions of a database wait; those for whom most do come first. Whoever waits in a ring, which
/// PostgreSQL ends by itself, is nobody's blocker.
pub(super) fn find<'a>(backends: &'a [Backend], database: &str) -> Vec<Blocker<'a>> {
    let by_pid: HashMap<i32, &Backend> = backends.iter().map(|b| (b.pid, b)).collect();
    let mut waiting: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for backend in backends.iter().filter(|b| b.database == database) {
        for root in roots(backend, &by_pid) {
            waiting.entry(root).or_default().insert(backend.pid);
        }
    }
    let mut blockers: Vec<_> = waiting
        .into_iter()
        .map(|(pid, who)| Blocker {
            pid,
            waiting: who,
            backend: by_pid.get(&pid).copied(),
        })
        .collect();
    blockers.sort_by_key(|blocker| (std::cmp::Reverse(blocker.waiting.len()), blocker.pid));
    blockers
}

/// The identifier of a prepared transaction as SQL writes it, where it is known which one it is.
pub(super) fn gid<'a>(blocker: &Blocker<'a>) -> Option<&'a str> {
    let prepared = blocker.backend.filter(|b| b.pid < 0)?;
    prepared.query.strip_prefix("PREPARE TRANSACTION ")
}

/// Who waits, by application, the most first: `web 3, jobs 1`.
pub(super) fn by_application(waiting: &BTreeSet<i32>, backends: &[Backend]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for backend in backends.iter().filter(|b| waiting.contains(&b.pid)) {
        let app = match backend.app.as_str() {
            "" => "(nameless)",
            app => app,
        };
        *counts.entry(app).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(app, count)| (std::cmp::Reverse(*count), *app));
    let named = counts.iter().take(APPLICATIONS_MAX);
    let words: Vec<String> = named.map(|(app, count)| format!("{app} {count}")).collect();
    words.join(", ")
}

/// The ends of the chains that begin with a backend.
fn roots(backend: &Backend, by_pid: &HashMap<i32, &Backend>) -> BTreeSet<i32> {
    let mut roots = BTreeSet::new();
    let mut seen = BTreeSet::from([backend.pid]);
    let mut next: Vec<i32> = backend.blocked_by.clone();
    while let Some(pid) = next.pop() {
        if !seen.insert(pid) {
            continue;
        }
        match by_pid.get(&pid).filter(|b| !b.blocked_by.is_empty()) {
            Some(also_waits) => next.extend(&also_waits.blocked_by),
            None => {
                roots.insert(pid);
            }
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pid: i32, blocked_by: &[i32]) -> Backend {
        Backend {
            pid,
            blocked_by: blocked_by.to_vec(),
            database: "shop".to_owned(),
            ..Backend::default()
        }
    }

    fn found(backends: &[Backend]) -> Vec<(i32, u64)> {
        let blockers = find(backends, "shop");
        blockers
            .iter()
            .map(|b| (b.pid, b.waiting.len() as u64))
            .collect()
    }

    #[test]
    fn chains_lead_to_their_ends() {
        let chain = [
            waits(1, &[]),
            waits(2, &[1]),
            waits(3, &[2]),
            waits(4, &[3, 2]),
        ];
        assert_eq!(found(&chain), [(1, 3)]);
        let two = [
            waits(1, &[9, 8]),
            waits(2, &[9]),
            waits(9, &[]),
            waits(8, &[]),
        ];
        assert_eq!(found(&two), [(9, 2), (8, 1)]);
    }

    #[test]
    fn those_who_wait_are_counted_by_application() {
        let of = |pid, app: &str| Backend {
            app: app.to_owned(),
            ..waits(pid, &[1])
        };
        let all = [of(2, "jobs"), of(3, "web"), of(4, "web"), of(5, "")];
        let blockers = find(&all, "shop");
        let text = by_application(&blockers[0].waiting, &all);
        assert_eq!(text, "web 2, (nameless) 1, jobs 1");
    }

    #[test]
    fn a_ring_has_no_end_and_ends_the_search() {
        assert_eq!(found(&[waits(1, &[2]), waits(2, &[1])]), []);
        assert_eq!(found(&[waits(1, &[2, 7]), waits(2, &[1])]), [(7, 2)]);
    }

    #[test]
    fn whoever_waits_in_another_database_waits_for_something_else() {
        let elsewhere = |pid, blocked_by: &[i32]| Backend {
            database: "blog".to_owned(),
            ..waits(pid, blocked_by)
        };
        let backends = [
            elsewhere(1, &[9]),
            elsewhere(9, &[]),
            waits(2, &[8]),
            elsewhere(3, &[8]),
            waits(8, &[]),
        ];
        assert_eq!(found(&backends), [(8, 1)]);
    }

    #[test]
    fn a_prepared_transaction_is_a_blocker_without_a_process() {
        let json = r#"[{"pid":5,"by":[-1],"db":"shop"},{"pid":6,"by":[0],"db":"shop"},{"pid":0,"by":null},
                       {"pid":-1,"by":null,"user":"u","state":"prepared","query":"PREPARE TRANSACTION 'a''b'"}]"#;
        let backends = read(&[Some(json.as_bytes().to_vec())]).expect("an answer");
        assert_eq!(found(&backends), [(-1, 1), (0, 1)]);
        assert_eq!(gid(&find(&backends, "shop")[0]), Some("'a''b'"));
        assert_eq!(gid(&find(&backends, "shop")[1]), None);
    }

    #[test]
    fn an_answer_is_read() {
        let json = r#"[{"pid":7,"by":[4,4],"user":"u","app":null,"addr":"10.0.0.1","state":"active","age_ms":1500,
                       "db":"shop","query":"select 1"},{"pid":4,"by":null}]"#;
        let backends = read(&[Some(json.as_bytes().to_vec())]).expect("an answer");
        assert_eq!(backends[0].age, Duration::from_millis(1500));
        assert_eq!(found(&backends), [(4, 1)]);
        assert!(read(&[None]).is_err());
    }
}
