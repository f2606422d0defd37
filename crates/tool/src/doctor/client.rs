//! The way of a client through the pooler: each step timed, as DIAGNOSE does it on the other side.

use std::time::{Duration, Instant};

use pgweir_net::{Stream, Target};
use tokio::time::timeout;

use crate::console::Console;
use crate::table::Table;
use crate::{dial, reach};

/// A client that waits longer has found out that it waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to try.
pub(super) struct Probe<'a> {
    pub(super) database: &'a str,
    /// As this user.
    pub(super) user: Option<&'a str>,
    /// The pools that the database has.
    pub(super) pools: &'a Table,
    /// Whether its pools have a user of their own, whoever logs in.
    pub(super) is_forced: bool,
}

/// Logs in as a client does and asks one query.
pub(super) async fn log_in(console: &Console, probe: &Probe<'_>) -> Table {
    let mut steps = Steps::default();
    if let Some(stream) = reach(console, &mut steps).await {
        query(console, probe, stream, &mut steps).await;
    }
    steps.0
}

struct Steps(Table);

impl Default for Steps {
    fn default() -> Self {
        let columns = ["step", "outcome", "us", "detail"];
        Self(Table {
            columns: columns.map(str::to_owned).to_vec(),
            ..Table::default()
        })
    }
}

impl Steps {
    fn add(&mut self, step: &str, outcome: &str, took: Duration, detail: &str) {
        let cells = [step, outcome, &took.as_micros().to_string(), detail];
        let cells = cells.map(|cell| Some(cell.to_owned()));
        self.0.cells.push(cells.to_vec());
    }

    /// Takes a step, and notes how it went.
    async fn take<T>(
        &mut self,
        step: &str,
        doing: impl Future<Output = Result<T, String>>,
        detail: impl Fn(&T) -> String,
    ) -> Option<T> {
        let began = Instant::now();
        let done = match timeout(PATIENCE, doing).await {
            Ok(done) => done,
            Err(_) => Err(format!("it has waited for {} s", PATIENCE.as_secs())),
        };
        match done {
            Ok(done) => {
                self.add(step, "ok", began.elapsed(), &detail(&done));
                Some(done)
            }
            Err(why) => {
                self.add(step, "failed", began.elapsed(), &why);
                None
            }
        }
    }
}

/// Name, connection and TLS.
async fn reach(console: &Console, steps: &mut Steps) -> Option<Stream> {
    let door = &console.door;
    let finding = dial::find(&door.host, door.port);
    let target = match dial::is_unix(&door.host) {
        true => finding.await.ok()?,
        false => {
            let told = |target: &Target| format!("{} is {target}", door.host);
            steps.take("dns", finding, told).await?
        }
    };
    let step = match target {
        Target::Tcp(_) => "tcp",
        Target::Unix(_) => "socket",
    };
    let stream = steps
        .take(step, dial::connect(&target), |_| target.to_string())
        .await?;
    if stream.is_unix() {
        return Some(stream);
    }
    let encrypting = dial::encrypt(stream, &door.host, door.ca.as_deref());
    let told = |stream: &Stream| match stream.tls_info() {
        Some(info) => info.to_string(),
        None => "the pooler speaks none (client_tls_sslmode = disable)".to_owned(),
    };
    steps.take("tls", encrypting, told).await
}

async fn query(console: &Console, probe: &Probe<'_>, stream: Stream, steps: &mut Steps) {
    let Some((user, password)) = login(console, probe) else {
        let why =
            "no user of it with a password is known: give --config, or --auth USER and PGPASSWORD";
        return steps.add("auth", "skipped", Duration::ZERO, why);
    };
    let logging_in = dial::log_in(stream, probe.database, &user, password.as_deref());
    let Some(client) = steps
        .take("auth", logging_in, |_| format!("as {user}"))
        .await
    else {
        if password.is_none() {
            // It proves nothing: a client would have a password.
            let failed = steps.0.cells.last_mut().and_then(|cells| cells.get_mut(1));
            if let Some(outcome) = failed {
                *outcome = Some("skipped".to_owned());
            }
        }
        return;
    };
    let asking = async {
        let answer = client.simple_query("SELECT 1").await;
        answer.map_err(|error| dial::words(&error))
    };
    steps.take("query", asking, |_| "SELECT 1".to_owned()).await;
}

/// As whom: who was named, or somebody who may use the database and whose password is known.
fn login(console: &Console, probe: &Probe<'_>) -> Option<(String, Option<String>)> {
    let config = console.config.as_ref();
    let users = config.map(reach::users_of).unwrap_or_default();
    if let Some(user) = probe.user {
        let password = reach::password_of(&users, user);
        let given = || {
            std::env::var("PGPASSWORD")
                .ok()
                .filter(|text| !text.is_empty())
        };
        return Some((user.to_owned(), password.or_else(given)));
    }
    // Whoever administers the pooler need not be known to PostgreSQL.
    let is_operator = |name: &str| {
        config.is_some_and(|config| {
            let global = &config.global;
            global.admin_users.contains(name) || global.stats_users.contains(name)
        })
    };
    let mut listed: Vec<&str> = users.iter().map(|(name, _)| name).collect();
    listed.sort_unstable();
    listed.retain(|name| !is_operator(name));
    let used = probe.pools.rows().map(|row| row.text("user"));
    let mut candidates: Vec<&str> = used.filter(|_| !probe.is_forced).collect();
    candidates.extend(listed);
    candidates.into_iter().find_map(|name| {
        let password = reach::password_of(&users, name)?;
        Some((name.to_owned(), Some(password)))
    })
}
