//! What DIAGNOSE and WHY answer.

use std::time::Duration;

use crate::table::table;

/// One step on the way to PostgreSQL.
#[derive(Clone, Debug)]
pub struct DiagnosisRow {
    /// Which.
    pub step: &'static str,
    /// `ok`, `failed`, `retried`, `skipped` or `info`.
    pub outcome: &'static str,
    /// How long it took, where that says something.
    pub took: Option<Duration>,
    /// What was found.
    pub detail: String,
}

table!(
    /// DIAGNOSE.
    pub DIAGNOSIS: DiagnosisRow, "diagnosis", |row| {
        "step" Text = row.step;
        "outcome" Text = row.outcome;
        "us" Int8 = row.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        "detail" Text = row.detail;
    }
);

/// Something that others wait for.
#[derive(Clone, Debug, Default)]
pub struct WhyRow {
    /// `pool`: clients wait for a server; `lock`: servers wait for a lock; `silent`: a client holds a server
    /// and says nothing; `slow`: a statement has been running for long; `unknown`: PostgreSQL could not be
    /// asked; `none`: nothing of all that.
    pub kind: &'static str,
    /// How many wait for it.
    pub waiting: u64,
    /// Whose server it is, as PostgreSQL numbers it.
    pub server_pid: Option<i32>,
    /// The client that holds it, if it is one of ours.
    pub client_id: Option<u32>,
    /// Its application.
    pub application_name: String,
    /// Its user.
    pub user: String,
    /// Where it is.
    pub address: String,
    /// What it does.
    pub state: String,
    /// For how long, in milliseconds.
    pub held_ms: Option<u64>,
    /// What it has asked last.
    pub last_statement: String,
    /// All of this as a sentence.
    pub text: String,
}

table!(
    /// WHY.
    pub WHY: WhyRow, "why", |row| {
        "kind" Text = row.kind;
        "waiting" Int8 = row.waiting;
        "server_pid" Int4 = row.server_pid;
        "client_id" Int8 = row.client_id;
        "application_name" Text = row.application_name;
        "user" Text = row.user;
        "addr" Text = row.address;
        "state" Text = row.state;
        "held_ms" Int8 = row.held_ms;
        "last_statement" Text = row.last_statement;
        "text" Text = row.text;
    }
);
