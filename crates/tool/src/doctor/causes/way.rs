//! PostgreSQL is not reached, does not let the pooler in, or has no connection left.

use super::{Cause, Evidence, failed_step};
use crate::print;
use crate::table::Table;

/// What a failed step means.
struct Meaning {
    step: &'static str,
    /// One of these is in what was told, in lower case; none is any text.
    signs: &'static [&'static str],
    name: &'static str,
    title: &'static str,
    next: &'static [&'static str],
}

/// PostgreSQL cannot be used: nothing else matters.
const BROKEN: u32 = 900;

/// The examination cannot be made. Clients may have another trouble.
const UNKNOWN: u32 = 120;

/// The first row that fits counts.
const MEANINGS: &[Meaning] = &[
    Meaning {
        step: "dns",
        signs: &[],
        name: "dns",
        title: "the name of PostgreSQL's host has no address",
        next: &[
            "look the name up from this machine; correct host= of the entry, or the name server",
        ],
    },
    Meaning {
        step: "secret",
        signs: &[],
        name: "secret",
        title: "the pooler cannot read its password where the configuration says that it is",
        next: &[
            "look at that file, variable or command (password_from) as the pooler's own system user; it is tried again by itself",
        ],
    },
    Meaning {
        step: "tcp",
        signs: &["refused"],
        name: "postgres_down",
        title: "PostgreSQL is down: its machine answers, and nothing listens on the port",
        next: &[
            "start PostgreSQL, or correct port= of the entry; the pooler goes on by itself when it is back",
        ],
    },
    Meaning {
        step: "tcp",
        signs: &["no such file"],
        name: "postgres_down",
        title: "PostgreSQL is down: its Unix socket is not there",
        next: &["start PostgreSQL, or correct the directory in host= of the entry"],
    },
    Meaning {
        step: "tcp",
        signs: &[],
        name: "unreachable",
        title: "PostgreSQL's machine does not answer: it is down, or packets are dropped on the way",
        next: &["look at the machine, then at firewalls, security groups and network policies"],
    },
    Meaning {
        step: "tls",
        signs: &["expired"],
        name: "certificate_expired",
        title: "PostgreSQL's certificate has expired",
        next: &[
            "renew the server's certificate (ssl_cert_file) and reload PostgreSQL; nothing has to be done here",
        ],
    },
    Meaning {
        step: "tls",
        signs: &["issuer", "signed", "authority"],
        name: "certificate_unknown",
        title: "PostgreSQL's certificate is signed by nobody whom the pooler trusts",
        next: &["set server_tls_ca_file to the authority's certificate, and RELOAD"],
    },
    Meaning {
        step: "tls",
        signs: &["name"],
        name: "certificate_name",
        title: "PostgreSQL's certificate is for another name",
        next: &[
            "use a name of the certificate in host= of the entry, or server_tls_sslmode = verify-ca",
        ],
    },
    Meaning {
        step: "tls",
        signs: &[],
        name: "tls",
        title: "PostgreSQL and the pooler do not agree on TLS",
        next: &[
            "compare server_tls_sslmode and server_tls_protocols with PostgreSQL's ssl settings",
        ],
    },
    Meaning {
        step: "auth",
        signs: &["28p01", "password authentication failed"],
        name: "password",
        title: "PostgreSQL refuses the pooler's password: it was changed on one side only",
        next: &[
            "put the new password where the pooler has it from (see: tried), or back into PostgreSQL",
            "then RELOAD, or pgweir rotate, which tries it as well: no restart is needed, and servers that are connected go on",
        ],
    },
    Meaning {
        step: "auth",
        signs: &["failed to answer authreq", "server login failed"],
        name: "password",
        title: "the pooler has no password that fits what PostgreSQL asks for",
        next: &[
            "put the password, in plain text or as PostgreSQL stores it, where the pooler has it from (see: tried)",
        ],
    },
    Meaning {
        step: "auth",
        signs: &["28000", "pg_hba"],
        name: "pg_hba",
        title: "PostgreSQL does not admit this user: pg_hba.conf has no line for it, or there is no such role",
        next: &[
            "add a line for this user, database and the pooler's address, and reload PostgreSQL; or create the role",
        ],
    },
    Meaning {
        step: "auth",
        signs: &["3d000"],
        name: "no_database",
        title: "PostgreSQL has no such database",
        next: &["correct dbname= of the entry, or create the database"],
    },
    Meaning {
        step: "auth",
        signs: &["57p03"],
        name: "starting",
        title: "PostgreSQL is starting up, shutting down or recovering",
        next: &["wait: the pooler tries again by itself; PostgreSQL's log says how far it is"],
    },
    Meaning {
        step: "auth",
        signs: &[],
        name: "login",
        title: "PostgreSQL does not let the pooler in",
        next: &["PostgreSQL's log says more about it"],
    },
    Meaning {
        step: "role",
        signs: &[],
        name: "role",
        title: "no host of the entry is what target_session_attrs asks for",
        next: &[
            "promote a standby, or start the one that is missing; the pooler goes on by itself",
            "or correct host= or target_session_attrs= of the entry",
        ],
    },
    Meaning {
        step: "permit",
        signs: &[],
        name: "own_limit",
        title: "the pooler's own limit leaves no connection for the examination",
        next: &["look at the limit that is named: pgweir budget shows what would fit"],
    },
    Meaning {
        step: "query",
        signs: &[],
        name: "query",
        title: "PostgreSQL lets the pooler in and then does not answer",
        next: &["look at PostgreSQL's log and at its machine's load"],
    },
];

/// What PostgreSQL says when it has no connection left.
const FULL: [&str; 3] = ["53300", "too many", "remaining connection slots"];

impl Meaning {
    fn fits(&self, step: &str, told: &str) -> bool {
        let is_told = || self.signs.iter().any(|sign| told.contains(sign));
        self.step == step && (self.signs.is_empty() || is_told())
    }
}

/// PostgreSQL is not reached, or does not let the pooler in.
pub(super) fn way(evidence: &Evidence) -> Option<Cause> {
    let failed = failed_step(&evidence.diagnosis)?;
    let (step, detail) = (failed.text("step"), failed.text("detail"));
    let told = detail.to_lowercase();
    if FULL.iter().any(|sign| told.contains(sign)) {
        // Others have taken what there is: see `strangers`.
        return None;
    }
    let meaning = MEANINGS.iter().find(|meaning| meaning.fits(step, &told))?;
    let mut facts = vec![format!("{step}: {detail}")];
    let target = evidence.diagnosis.find("step", "target");
    facts.extend(target.map(|row| format!("tried: {}", row.text("detail"))));
    Some(Cause {
        name: meaning.name,
        title: meaning.title.to_owned(),
        evidence: facts,
        next: meaning.next.iter().map(|&line| line.to_owned()).collect(),
        weight: match step {
            "permit" => UNKNOWN,
            _ => BROKEN,
        },
    })
}

/// PostgreSQL's connections are taken by others.
pub(super) fn strangers(evidence: &Evidence) -> Option<Cause> {
    let failed = failed_step(&evidence.diagnosis);
    let refused = failed.map(|row| row.text("detail").to_lowercase());
    let refused = refused.is_some_and(|told| FULL.iter().any(|sign| told.contains(sign)));
    let detail = failed.map_or("", |row| row.text("detail"));
    if refused && detail.contains("for role") {
        return Some(Cause {
            name: "role_limit",
            title: "the role's CONNECTION LIMIT in PostgreSQL is reached".to_owned(),
            evidence: vec![detail.to_owned()],
            next: vec![
                "ALTER ROLE ... CONNECTION LIMIT, or a lower pool_size for this user".to_owned(),
            ],
            weight: 850,
        });
    }
    let sessions = evidence.diagnosis.find("step", "sessions");
    let told = sessions.map_or("", |row| row.text("detail"));
    let full = refused || is_full(told);
    if !full {
        return None;
    }
    let host = evidence.host.as_deref();
    // Where PostgreSQL could be asked, it says who they are. Of several hosts that may have been another one.
    let said = numbers(told).filter(|_| host.is_some() || is_full(told));
    let (own, max) = match said {
        Some((_, max, _, own)) => (Some(own), Some(max)),
        None => counted(&evidence.budget, host),
    };
    let mut facts = Vec::new();
    if refused {
        facts.push(detail.to_owned());
    }
    if let Some(own) = own {
        let of_all = max.map_or_else(String::new, |max| format!(" of PostgreSQL's {max}"));
        let own = print::counted(own, "connection");
        facts.push(format!("this pooler has {own}{of_all}"));
    }
    if !told.is_empty() {
        facts.push(told.to_owned());
    }
    let taken = taken_by(own, max);
    Some(Cause {
        name: taken.name,
        title: taken.title.to_owned(),
        evidence: facts,
        next: taken.next.iter().map(|&line| line.to_owned()).collect(),
        weight: 850,
    })
}

/// What a failure means.
pub(crate) struct Explanation {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) next: &'static [&'static str],
}

/// Whose connections they are that have filled PostgreSQL; nobody's where that is not known.
fn taken_by(own: Option<u64>, max: Option<u64>) -> Explanation {
    match (own, max) {
        (Some(own), Some(max)) if own * 2 > max => Explanation {
            name: "over_budget",
            title: "this pooler has taken nearly all of PostgreSQL's connections",
            next: &["pgweir budget: it says which max_host_connections fits"],
        },
        (Some(_), Some(_)) | (Some(0), None) => Explanation {
            name: "foreign_sessions",
            title: "PostgreSQL's connections are taken by sessions that do not come through this pooler",
            next: &[
                "end or shorten them where they come from (those that are named), and bring them behind the pooler",
            ],
        },
        (Some(_), None) | (None, _) => Explanation {
            name: "postgres_full",
            title: "PostgreSQL has no connection left",
            next: &[
                "look at pg_stat_activity as a superuser, for whom some are reserved: whose are they?",
                "pgweir budget says how many this pooler may ask for",
            ],
        },
    }
}

/// What a failure means that was kept as `step: detail`.
pub(crate) fn explain(failure: &str, budget: &Table, host: Option<&str>) -> Option<Explanation> {
    let (step, detail) = failure.split_once(": ")?;
    let told = detail.to_lowercase();
    if !FULL.iter().any(|sign| told.contains(sign)) {
        let meaning = MEANINGS.iter().find(|meaning| meaning.fits(step, &told))?;
        return Some(Explanation {
            name: meaning.name,
            title: meaning.title,
            next: meaning.next,
        });
    }
    if told.contains("for role") {
        return Some(Explanation {
            name: "role_limit",
            title: "the role's CONNECTION LIMIT in PostgreSQL is reached",
            next: &["ALTER ROLE ... CONNECTION LIMIT, or a lower pool_size for this user"],
        });
    }
    let (own, max) = counted(budget, host);
    Some(taken_by(own, max))
}

/// Where the servers of a database are, as SHOW BUDGET names it; nothing where that is not one host.
pub(crate) fn host_of(databases: &Table, config: &Table, database: &str) -> Option<String> {
    let entry = databases.find("name", database)?;
    let port = entry.number("port")?;
    let host = match entry.get("host") {
        Some(host) if host.contains(',') => return None,
        Some(host) if host.starts_with(['/', '@']) => host.to_owned(),
        Some(host) => host.to_ascii_lowercase(),
        None => config
            .find("key", "unix_socket_dir")?
            .text("value")
            .to_owned(),
    };
    Some(format!("{host}:{port}"))
}

/// Connections that this pooler has to a host, and all that PostgreSQL has there.
fn counted(budget: &Table, host: Option<&str>) -> (Option<u64>, Option<u64>) {
    let Some(host) = host else {
        return (None, None);
    };
    let of_host = budget.only(|row| row.text("subject") == host);
    // A host on which nothing is counted may have no row.
    let own = of_host.find("name", "max_host_connections");
    let own = own.map_or(0, |row| row.count("used"));
    let max = of_host.find("name", "max_connections");
    (Some(own), max.and_then(|row| row.number("limit")))
}

/// `PostgreSQL has 97 of 100 connections in use (3 reserved): 5 from this pooler, ...`: all, max, reserved, own.
fn numbers(told: &str) -> Option<(u64, u64, u64, u64)> {
    let mut numbers = told
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok());
    let mut next = || numbers.next();
    Some((next()?, next()?, next()?, next()?))
}

fn is_full(told: &str) -> bool {
    numbers(told).is_some_and(|(all, max, reserved, _)| all + reserved >= max)
}
