//! SHOW FINDINGS: what a strict run has found.

use std::sync::Arc;

use crate::table::{UnixTime, table};

/// Something that goes wrong behind a pooler, and how often it did.
#[derive(Clone, Debug, Default)]
pub struct FindingRow {
    /// As `strict_allow` names it.
    pub kind: &'static str,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// How often.
    pub count: u64,
    /// When it was found first.
    pub first: UnixTime,
    /// When it was found last.
    pub last: UnixTime,
    /// Whose database.
    pub database: Arc<str>,
    /// Whose user.
    pub user: Arc<str>,
    /// Whose application_name.
    pub application_name: Arc<str>,
    /// The address of the last client that did it.
    pub address: String,
    /// What was asked for, as `leak_query` lets it be shown.
    pub statement: String,
    /// More about it.
    pub detail: String,
}

table!(
    /// SHOW FINDINGS.
    pub FINDINGS: FindingRow, "findings", |row| {
        "kind" Text = row.kind;
        "severity" Text = row.severity;
        "count" Int8 = row.count;
        "first" Text = row.first;
        "last" Text = row.last;
        "database" Text = row.database;
        "user" Text = row.user;
        "application_name" Text = row.application_name;
        "addr" Text = row.address;
        "statement" Text = row.statement;
        "detail" Text = row.detail;
    }
);
