//! The way of a client through the pooler: each step timed, as DIAGNOSE does it on the other side.

use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::console::{self, Console};
use crate::reach;
use crate::table::Table;

/// A client that waits longer has found out that it waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// Logs in as a client does and asks one query.
pub(super) async fn log_in(console: &Console, database: &str, user: Option<&str>) -> Table {
    let mut steps = Steps::default();
    if reach(console, &mut steps).await {
        query(console, database, user, &mut steps).await;
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

    /// Whether it worked.
    fn note<T>(
        &mut self,
        step: &str,
        took: Duration,
        result: &Result<T, String>,
        done: &str,
    ) -> bool {
        match result {
            Ok(_) => self.add(step, "ok", took, done),
            Err(why) => self.add(step, "failed", took, why),
        }
        result.is_ok()
    }
}

/// DNS and TCP, or the Unix socket.
async fn reach(console: &Console, steps: &mut Steps) -> bool {
    let (host, port) = (console.door.host.as_str(), console.door.port);
    let began = Instant::now();
    if host.starts_with('/') {
        let path = format!("{host}/.s.PGSQL.{port}");
        let connected = limited(UnixStream::connect(&path)).await;
        return steps.note("socket", began.elapsed(), &connected, &path);
    }
    let found = limited(lookup_host((host, port))).await;
    let found = found.and_then(|mut all| all.next().ok_or_else(|| "no address".to_owned()));
    let told = found.as_ref().map(ToString::to_string).unwrap_or_default();
    if !steps.note("dns", began.elapsed(), &found, &format!("{host} is {told}")) {
        return false;
    }
    let Ok(address) = found else { return false };
    let began = Instant::now();
    let connected = limited(TcpStream::connect(address)).await;
    steps.note("tcp", began.elapsed(), &connected, &told)
}

async fn limited<T>(doing: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn query(console: &Console, database: &str, user: Option<&str>, steps: &mut Steps) {
    let Some((user, password)) = login(console, user) else {
        let why = "no user with a password is known: set PGUSER and PGPASSWORD, or give --config";
        return steps.add("auth", "skipped", Duration::ZERO, why);
    };
    let (host, port) = (console.door.host.as_str(), console.door.port);
    let began = Instant::now();
    let connecting = console::connect(host, port, database, &user, password.as_deref());
    let client = match timeout(PATIENCE, connecting).await {
        Ok(client) => client,
        Err(_) => Err(format!("the login has waited for {} s", PATIENCE.as_secs())),
    };
    if password.is_none() && client.is_err() {
        // It proves nothing: a client would have a password.
        let why = format!("no password of {user} is known here (PGPASSWORD, or the auth_file)");
        let told = client.err().unwrap_or_default();
        return steps.add(
            "auth",
            "skipped",
            began.elapsed(),
            &format!("{why}; without one: {told}"),
        );
    }
    if !steps.note("auth", began.elapsed(), &client, &format!("as {user}")) {
        return;
    }
    let Ok(client) = client else { return };
    let began = Instant::now();
    let answer = match timeout(PATIENCE, client.simple_query("SELECT 1")).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(console::words(&error)),
        Err(_) => Err(format!("it has waited for {} s", PATIENCE.as_secs())),
    };
    steps.note("query", began.elapsed(), &answer, "SELECT 1");
}

/// As whom: who was named, or somebody whose password the configuration has in plain text.
fn login(console: &Console, user: Option<&str>) -> Option<(String, Option<String>)> {
    let users = console
        .config
        .as_ref()
        .map(reach::users_of)
        .unwrap_or_default();
    let password = std::env::var("PGPASSWORD")
        .ok()
        .filter(|text| !text.is_empty());
    let named = user
        .map(str::to_owned)
        .or_else(|| std::env::var("PGUSER").ok());
    if let Some(user) = named {
        let password = password.or_else(|| reach::password_of(&users, &user));
        return Some((user, password));
    }
    let mut names: Vec<&str> = users.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let known = names
        .iter()
        .find(|name| reach::password_of(&users, name).is_some());
    known.map(|name| ((*name).to_owned(), reach::password_of(&users, name)))
}
