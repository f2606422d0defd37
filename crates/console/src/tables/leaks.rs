//! SHOW HOLDERS and SHOW LEAKS: who has a server, and who should have given it back.

use std::borrow::Cow;
use std::sync::Arc;

use crate::table::{int4, table};

/// One client that holds a server.
#[derive(Clone, Debug)]
pub struct HolderRow {
    /// The client's number, as in SHOW CLIENTS; 0 if it is about many.
    pub client_id: u32,
    /// Its database.
    pub database: Arc<str>,
    /// Its user.
    pub user: Arc<str>,
    /// Its application_name.
    pub application_name: Arc<str>,
    /// Its address.
    pub address: String,
    /// The process id of the backend that it holds.
    pub server_pid: i32,
    /// `active`, `idle in transaction` or `idle`.
    pub state: &'static str,
    /// Milliseconds since its transaction began.
    pub held_ms: u64,
    /// Milliseconds since it was last heard of; 0 while its query runs.
    pub silent_ms: u64,
}

table!(
    /// SHOW HOLDERS.
    pub HOLDERS: HolderRow, "holders", |row| {
        "client_id" Int4 = row.client_id;
        "database" Text = row.database;
        "user" Text = row.user;
        "application_name" Text = row.application_name;
        "addr" Text = row.address;
        "server_pid" Int4 = int4(row.server_pid.unsigned_abs());
        "state" Text = row.state;
        "held_ms" Int8 = row.held_ms;
        "silent_ms" Int8 = row.silent_ms;
    }
);

/// One suspicion.
#[derive(Clone, Debug)]
pub struct LeakRow {
    /// Its number, as in the log.
    pub id: u64,
    /// `suspected`, `confirmed` or `resolved`.
    pub stage: &'static str,
    /// Who, and for how long.
    pub holder: HolderRow,
    /// The first statement of the transaction.
    pub first_statement: String,
    /// The last one.
    pub last_statement: String,
    /// What it probably is.
    pub cause: Cow<'static, str>,
    /// `silent`, `slow` or `growing`.
    pub kind: &'static str,
}

table!(
    /// SHOW LEAKS.
    pub LEAKS: LeakRow, "leaks", |row| {
        "id" Int8 = row.id;
        "stage" Text = row.stage;
        "client_id" Int4 = row.holder.client_id;
        "database" Text = row.holder.database;
        "user" Text = row.holder.user;
        "application_name" Text = row.holder.application_name;
        "addr" Text = row.holder.address;
        "server_pid" Int4 = int4(row.holder.server_pid.unsigned_abs());
        "state" Text = row.holder.state;
        "held_ms" Int8 = row.holder.held_ms;
        "silent_ms" Int8 = row.holder.silent_ms;
        "first_statement" Text = row.first_statement;
        "last_statement" Text = row.last_statement;
        "cause" Text = &*row.cause;
        "kind" Text = row.kind;
    }
);
