//! What happens seldom enough to be counted by name: errors, failed logins, lost servers.

use std::sync::Arc;

use pgweir_config::ErrorCodes;
use pgweir_pool::Failure;
use pgweir_session::Expiry;
use pgweir_stats::{Ledger, Tally};

use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::shared::{PoolHome, Shared, lock};
use crate::watch::series::OTHER;

/// A database as the metrics name it.
type Database = Arc<str>;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// By SQLSTATE and [`Farewell::cause`].
    pub(crate) client_errors: Ledger<(Database, [u8; 5], &'static str)>,
    /// By application and cause.
    pub(crate) application_errors: Ledger<(Arc<str>, &'static str)>,
    /// By the class of the SQLSTATE.
    pub(crate) server_errors: Ledger<(Database, [u8; 2])>,
    /// By SQLSTATE; without one, PostgreSQL was not reached.
    pub(crate) login_failures: Ledger<(Database, Option<[u8; 5]>)>,
    /// By reason.
    pub(crate) disconnects: Ledger<(Database, &'static str)>,
}

const NO_CODE: [u8; 5] = *b"other";

/// Names of applications with their causes that are counted apart: clients choose them.
const APPLICATION_ERRORS_MAX: usize = 100;

/// A client is told that it ends, or gets nothing.
pub(crate) fn client_error(shared: &Shared, client: &Client, farewell: &Farewell) {
    if farewell.answer(ErrorCodes::Postgres).is_none() {
        return;
    }
    let route = client.route();
    let database = match (&route, client.identity.get()) {
        (Some(route), _) => Arc::clone(&route.home.series.database),
        (None, Some(identity)) => {
            let config = shared.config();
            lock(&shared.names).of_database(&identity.database, &config)
        }
        (None, None) => "".into(),
    };
    if let Some(route) = route
        && is_refusal(farewell)
    {
        route.home.totals.add(&mut Tally {
            refusal_count: 1,
            ..Tally::default()
        });
    }
    let cause = farewell.cause();
    let name = (database, farewell.sqlstate().0, cause);
    let application = Arc::clone(&client.state().application_name);
    let mut events = lock(&shared.events);
    let other = || (OTHER.into(), cause);
    let most = APPLICATION_ERRORS_MAX;
    events
        .application_errors
        .count_within(most, (application, cause), other);
    let other = || (OTHER.into(), NO_CODE, cause);
    events.client_errors.count(name, other);
}

fn is_refusal(farewell: &Farewell) -> bool {
    matches!(
        farewell,
        Farewell::TooMany(_)
            | Farewell::Refused(_)
            | Farewell::Expired(Expiry::QueryWait | Expiry::QueryWhileWaiting)
    )
}

/// PostgreSQL has answered with errors of these classes.
#[cold]
pub(crate) fn server_errors(shared: &Shared, home: &PoolHome, classes: Vec<[u8; 2]>) {
    let mut events = lock(&shared.events);
    for class in classes {
        let name = (Arc::clone(&home.series.database), class);
        let other = || (OTHER.into(), *b"--");
        events.server_errors.count(name, other);
    }
}

/// A server could not be opened.
pub(crate) fn login_failure(shared: &Shared, home: &PoolHome, failure: &Failure) {
    let name = (Arc::clone(&home.series.database), failure.sqlstate);
    let other = || (OTHER.into(), Some(NO_CODE));
    lock(&shared.events).login_failures.count(name, other);
}

/// A server is being closed, for one of a few reasons.
pub(crate) fn disconnect(shared: &Shared, home: &PoolHome, reason: &'static str) {
    let name = (Arc::clone(&home.series.database), reason);
    let other = || (OTHER.into(), reason);
    lock(&shared.events).disconnects.count(name, other);
}
