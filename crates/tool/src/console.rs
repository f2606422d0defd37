//! The console of a running pooler.

use std::path::Path;
use std::time::Duration;

use pgweir_config::Config;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cli::Common;
use crate::dial::{self, words};
use crate::reach::{self, Door, Environment};
use crate::table::Table;
use crate::trouble::Trouble;

/// How long a login may take.
const LOGIN_MAX: Duration = Duration::from_secs(5);

/// How long a table may take.
const TABLE_MAX: Duration = Duration::from_secs(15);

/// Where somebody listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// Who has to have signed its certificate.
    pub(crate) ca: Option<&'a Path>,
}

/// A console that has let us in.
pub(crate) struct Console {
    client: Client,
    /// What was found to reach it.
    pub(crate) door: Door,
    /// The configuration that was read to find it.
    pub(crate) config: Option<Config>,
}

impl Console {
    /// Finds the console and logs in.
    pub(crate) async fn open(common: &Common) -> Result<Self, Trouble> {
        let config = common.config.as_deref().map(reach::load).transpose()?;
        let exists = |path: &str| Path::new(path).exists();
        let door = reach::door(common, &Environment::read(), config.as_ref(), exists)?;
        let client = log_in(&door, "pgbouncer").await?;
        Ok(Self {
            client,
            door,
            config,
        })
    }

    /// `SHOW word`.
    pub(crate) async fn show(&self, word: &str) -> Result<Table, Trouble> {
        self.ask(&format!("SHOW {word}"), TABLE_MAX).await
    }

    /// `SHOW word`, or an empty table where the console does not know it: a PgBouncer, or an older
    /// pgweir.
    pub(crate) async fn show_if_known(&self, word: &str) -> Result<Table, Trouble> {
        match self.show(word).await {
            Err(Trouble::Refused(_)) => Ok(Table::default()),
            answered => answered,
        }
    }

    /// An order that is answered soon.
    pub(crate) async fn order(&self, sql: &str) -> Result<Table, Trouble> {
        self.ask(sql, TABLE_MAX).await
    }

    /// An order that may take so long.
    pub(crate) async fn ask(&self, sql: &str, patience: Duration) -> Result<Table, Trouble> {
        let answered = timeout(patience, self.client.simple_query(sql)).await;
        match answered {
            Ok(Ok(messages)) => Ok(table(messages)),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => {
                let seconds = patience.as_secs();
                let text = format!("the console has not answered {sql} within {seconds} s");
                Err(Trouble::Unreachable(text))
            }
        }
    }
}

/// Logs in as the first user who is let in.
async fn log_in(door: &Door, database: &str) -> Result<Client, Trouble> {
    let Door {
        host,
        port,
        users,
        ca,
    } = door;
    let place = Place {
        host,
        port: *port,
        ca: ca.as_deref(),
    };
    let mut failures = Vec::new();
    for (user, password) in users {
        match connect(&place, database, user, password.as_deref()).await {
            Ok(client) => return Ok(client),
            Err(error) => failures.push(format!("as {user}: {error}")),
        }
    }
    if users.is_empty() {
        failures.push("no user is known: name one with --user, or set admin_users".to_owned());
    }
    Err(Trouble::Unreachable(format!(
        "no console at {host} port {port}: {}",
        failures.join("; ")
    )))
}

/// One client of a pooler or of PostgreSQL.
///
/// # Errors
/// Why not, in words.
pub(crate) async fn connect(
    place: &Place<'_>,
    database: &str,
    user: &str,
    password: Option<&str>,
) -> Result<Client, String> {
    let connecting = async {
        let target = dial::find(place.host, place.port).await?;
        let stream = dial::connect(&target).await?;
        let stream = dial::encrypt(stream, place.host, place.ca).await?;
        dial::log_in(stream, database, user, password).await
    };
    match timeout(LOGIN_MAX, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no answer within {} s", LOGIN_MAX.as_secs())),
    }
}

fn refusal(error: &tokio_postgres::Error) -> Trouble {
    match error.as_db_error() {
        Some(told) => Trouble::Refused(told.message().to_owned()),
        None => Trouble::Unreachable(format!("the console went away: {}", words(error))),
    }
}

/// The last result of what was answered.
pub(crate) fn table(messages: Vec<SimpleQueryMessage>) -> Table {
    let mut table = Table::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table.columns = columns.iter().map(|c| c.name().to_owned()).collect();
                table.cells.clear();
            }
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                table.cells.push(cells.collect());
            }
            SimpleQueryMessage::CommandComplete(count) => table.count = count,
            _ => {}
        }
    }
    table
}
