//! SHOW BUDGET: every number that limits anything, from PostgreSQL's own down to one pool.

use crate::table::{YesNo, table};

/// One limit and its use.
#[derive(Clone, Debug, Default)]
pub struct BudgetRow {
    /// The key that sets it, or PostgreSQL's name for it.
    pub name: &'static str,
    /// Whose limit it is; `None` where there is only one.
    pub subject: Option<String>,
    /// How much is used now.
    pub used: u64,
    /// How much there may be; `None` is no limit.
    pub limit: Option<u64>,
    /// The most that was used since the start; `None` where nobody counts that.
    pub peak: Option<u64>,
    /// Clients that wait because of it.
    pub waiting: u32,
    /// Whether the next client that needs some of it has to wait or is refused.
    pub binding: bool,
    /// Where the limit comes from: `config`, `postgres` or `system`.
    pub source: &'static str,
}

table!(
    /// SHOW BUDGET.
    pub BUDGET: BudgetRow, "budget", |row| {
        "name" Text = row.name;
        "subject" Text = row.subject;
        "used" Int8 = row.used;
        "limit" Int8 = row.limit;
        "peak" Int8 = row.peak;
        "waiting" Int8 = u64::from(row.waiting);
        "binding" Text = YesNo(row.binding);
        "source" Text = row.source;
    }
);
