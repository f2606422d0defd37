//! The pooler's books beside PostgreSQL's.
//!
//! The books change while PostgreSQL answers, so they are read before and after: a ghost must be in both, and an orphan
//! in neither.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;

/// Backends that are told one by one.
const NEAR_MAX: usize = 200;

/// Groups of others.
const GROUPS_MAX: usize = 50;

/// The question. Of our own backends only the numbers are needed; those from the address that we come from are told one
/// by one, and all others in groups. What is hidden from the asker is null.
pub(super) fn question(own: &HashSet<i32>) -> String {
    let own: Vec<String> = own.iter().map(i32::to_string).collect();
    let own = own.join(",");
    format!(
        "WITH a AS (SELECT pid, datname AS db, usename AS usr, application_name AS app, pg_catalog.host(client_addr) AS addr, \
         state, (extract(epoch FROM pg_catalog.clock_timestamp() - backend_start) * 1000)::bigint AS age \
         FROM pg_catalog.pg_stat_activity WHERE usename IS NOT NULL \
         AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')), \
         me AS (SELECT addr FROM a WHERE pid = pg_catalog.pg_backend_pid()), \
         o AS (SELECT a.*, (addr IS NOT DISTINCT FROM (SELECT addr FROM me) AND age IS NOT NULL) AS near FROM a \
         WHERE NOT pid = ANY ('{{{own}}}'::int[])), \
         n AS (SELECT pid, db, usr, app, addr, state, age FROM o WHERE near ORDER BY age DESC LIMIT {NEAR_MAX}), \
         g AS (SELECT count(*) AS n, db, usr, app, addr, max(age) AS age FROM o WHERE NOT near \
         GROUP BY db, usr, app, addr ORDER BY 1 DESC LIMIT {GROUPS_MAX}) \
         SELECT pg_catalog.json_build_object('pid', pg_catalog.pg_backend_pid(), 'user', current_user, \
         'max', current_setting('max_connections')::int, \
         'reserved', current_setting('superuser_reserved_connections')::int \
         + coalesce(current_setting('reserved_connections', true), '0')::int, \
         'all', (SELECT count(*) FROM a), 'sees_all', coalesce((SELECT pg_catalog.pg_has_role(oid, 'USAGE') \
         FROM pg_catalog.pg_roles WHERE rolname = 'pg_read_all_stats'), current_setting('is_superuser') = 'on'), \
         'own', (SELECT coalesce(pg_catalog.json_agg(pid), '[]') FROM a WHERE pid = ANY ('{{{own}}}'::int[])), \
         'near', (SELECT coalesce(pg_catalog.json_agg(n), '[]') FROM n), \
         'far', (SELECT coalesce(pg_catalog.json_agg(g), '[]') FROM g))"
    )
}

/// What PostgreSQL has.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The backend that answered.
    pub(super) asked: i32,
    /// As whom it was asked.
    pub(super) user: String,
    pub(super) max: i64,
    pub(super) reserved: i64,
    pub(super) all: i64,
    /// Whether what others do is visible to the asker.
    pub(super) sees_all: bool,
    /// Those of our own that it has.
    pub(super) own: HashSet<i32>,
    /// Others from where we are.
    pub(super) near: Vec<Backend>,
    pub(super) far: Vec<Backend>,
}

/// One backend, or several that look the same.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Backend {
    /// 0 of a group.
    pub(super) pid: i32,
    pub(super) count: i64,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) app: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) age: Option<Duration>,
}

/// Reads the answer to [`question`].
pub(super) fn read(row: &[Option<Vec<u8>>]) -> Result<Answer, String> {
    let cell = row.first().and_then(Option::as_deref).unwrap_or_default();
    let answer: Value = serde_json::from_slice(cell).map_err(|error| error.to_string())?;
    let number = |name: &str| answer[name].as_i64().unwrap_or(0);
    let list = |name: &str| answer[name].as_array().map_or(&[][..], Vec::as_slice);
    if number("pid") == 0 {
        return Err("an answer of another form was expected".to_owned());
    }
    Ok(Answer {
        asked: pid(&answer["pid"]),
        user: word(&answer["user"]),
        max: number("max"),
        reserved: number("reserved"),
        all: number("all"),
        sees_all: answer["sees_all"].as_bool().unwrap_or(false),
        own: list("own").iter().map(pid).collect(),
        near: list("near").iter().map(backend).collect(),
        far: list("far").iter().map(backend).collect(),
    })
}

fn pid(value: &Value) -> i32 {
    let number = value.as_i64().and_then(|pid| i32::try_from(pid).ok());
    number.unwrap_or(0)
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn backend(value: &Value) -> Backend {
    Backend {
        pid: pid(&value["pid"]),
        count: value["n"].as_i64().unwrap_or(1),
        database: word(&value["db"]),
        user: word(&value["usr"]),
        app: word(&value["app"]),
        address: word(&value["addr"]),
        state: word(&value["state"]),
        age: value["age"].as_u64().map(Duration::from_millis),
    }
}

/// What the books say of this PostgreSQL.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// Process ids of servers that are open, with their slot's number; one number can be given to another backend.
    pub(super) open: HashMap<i32, u64>,
    /// Of those that are being closed, and still counted.
    pub(super) closing: HashSet<i32>,
    /// Of those that are counted no more, with how long ago that began.
    pub(super) gone: HashMap<i32, Duration>,
    /// What the pools log in to and as.
    pub(super) logins: HashSet<(String, String)>,
}

impl Books {
    /// All that may be ours.
    pub(super) fn ours(&self) -> HashSet<i32> {
        self.open.keys().chain(&self.closing).copied().collect()
    }
}

/// What does not agree, and who the others are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Findings {
    /// There is somebody in between who gives numbers of its own, so nothing can be said of ours.
    pub(super) is_behind_proxy: bool,
    /// Our own that PostgreSQL has.
    pub(super) own: i64,
    pub(super) ghosts: Vec<i32>,
    pub(super) orphans: Vec<Backend>,
    pub(super) unclaimed: Vec<Backend>,
    pub(super) foreign: Vec<Backend>,
}

/// Compares them.
pub(super) fn compare(before: &Books, answer: &Answer, after: &Books) -> Findings {
    let (ours_before, ours_after) = (before.ours(), after.ours());
    let is_ours = |pid: &i32| ours_before.contains(pid) || ours_after.contains(pid);
    let mut findings = Findings {
        is_behind_proxy: !is_ours(&answer.asked),
        own: answer.own.len() as i64,
        ..Findings::default()
    };
    let still_open =
        |(pid, slot): (&i32, &u64)| (after.open.get(pid) == Some(slot)).then_some(*pid);
    let open = before.open.iter().filter_map(still_open);
    findings.ghosts = open.filter(|pid| !answer.own.contains(pid)).collect();
    findings.ghosts.sort_unstable();
    for backend in &answer.near {
        let login = (backend.database.clone(), backend.user.clone());
        // Who was there before our connection ended is what it led to.
        let outlives = |gone: &Duration| backend.age.is_some_and(|age| age > *gone);
        if is_ours(&backend.pid) {
            findings.own += 1;
        } else if after.gone.get(&backend.pid).is_some_and(outlives) {
            findings.orphans.push(backend.clone());
        } else if after.logins.contains(&login) {
            findings.unclaimed.push(backend.clone());
        } else {
            add_to_group(&mut findings.foreign, backend);
        }
    }
    findings.foreign.extend(answer.far.iter().cloned());
    findings.foreign.sort_by_key(|group| -group.count);
    if findings.is_behind_proxy {
        findings.ghosts.clear();
        findings.orphans.clear();
    }
    findings
}

fn add_to_group(groups: &mut Vec<Backend>, backend: &Backend) {
    let is_alike = |group: &&mut Backend| {
        (&group.database, &group.user, &group.app)
            == (&backend.database, &backend.user, &backend.app)
    };
    match groups.iter_mut().find(is_alike) {
        Some(group) => {
            group.count += 1;
            group.age = group.age.max(backend.age);
        }
        None => groups.push(Backend {
            pid: 0,
            state: String::new(),
            ..backend.clone()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(pid: i32, user: &str, age: u64) -> Backend {
        Backend {
            pid,
            count: 1,
            database: "shop".to_owned(),
            user: user.to_owned(),
            age: Some(Duration::from_secs(age)),
            ..Backend::default()
        }
    }

    fn books(open: &[(i32, u64)], gone: &[(i32, u64)]) -> Books {
        Books {
            open: open.iter().copied().collect(),
            gone: gone
                .iter()
                .map(|&(pid, ago)| (pid, Duration::from_secs(ago)))
                .collect(),
            logins: [("shop".to_owned(), "web".to_owned())].into(),
            ..Books::default()
        }
    }

    fn answer(own: &[i32], near: Vec<Backend>) -> Answer {
        Answer {
            asked: 1,
            own: own.iter().copied().collect(),
            near,
            ..Answer::default()
        }
    }

    fn pids(backends: &[Backend]) -> Vec<i32> {
        backends.iter().map(|backend| backend.pid).collect()
    }

    #[test]
    fn what_was_opened_or_closed_meanwhile_is_neither_ghost_nor_orphan() {
        let before = books(&[(1, 1), (2, 2), (3, 3)], &[]);
        // 2 was closed, 4 was opened, and 3 is another server with an old number.
        let after = books(&[(1, 1), (3, 9), (4, 4)], &[(2, 0)]);
        let found = compare(&before, &answer(&[1], vec![near(4, "web", 0)]), &after);
        assert_eq!(
            found,
            Findings {
                own: 2,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn ghosts_orphans_unclaimed_and_foreign_are_told_apart() {
        let books = books(&[(1, 1), (2, 2)], &[(5, 10), (6, 10)]);
        let others = vec![
            near(5, "web", 60),
            // The number was given to somebody else after our server had gone.
            near(6, "psql", 3),
            near(7, "web", 60),
            near(8, "psql", 60),
        ];
        let found = compare(&books, &answer(&[1], others), &books);
        assert_eq!(found.ghosts, [2]);
        assert_eq!(pids(&found.orphans), [5]);
        assert_eq!(pids(&found.unclaimed), [7]);
        assert_eq!((found.foreign.len(), found.foreign[0].count), (1, 2));
    }

    #[test]
    fn nothing_is_said_of_ghosts_where_numbers_are_not_postgres_own() {
        let books = books(&[(1, 1), (2, 2)], &[(5, 10)]);
        let mut answer = answer(&[], vec![near(5, "web", 60)]);
        answer.asked = 77;
        let found = compare(&books, &answer, &books);
        assert!(found.is_behind_proxy && found.ghosts.is_empty() && found.orphans.is_empty());
    }

    #[test]
    fn an_answer_is_read() {
        let json = r#"{"pid":7,"user":"u","max":100,"reserved":3,"all":9,"sees_all":false,"own":[7,8],
                       "near":[{"pid":9,"db":"d","usr":"u","app":"a","addr":null,"state":"idle","age":1500}],
                       "far":[{"n":4,"db":"d","usr":"v","app":"","addr":"10.0.0.1","age":null}]}"#;
        let read = read(&[Some(json.as_bytes().to_vec())]).expect("an answer");
        assert_eq!((read.asked, read.max, read.own.len()), (7, 100, 2));
        assert_eq!(read.near[0].age, Some(Duration::from_millis(1500)));
        assert_eq!((read.far[0].count, read.far[0].age), (4, None));
        assert!(super::read(&[None]).is_err());
    }
}
