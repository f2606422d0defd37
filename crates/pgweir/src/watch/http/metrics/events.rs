//! What is counted by name, and when certificates expire.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir_stats::metrics::{
    APPLICATION_ERRORS, CLIENT_ERRORS, SERVER_DISCONNECTS, SERVER_ERRORS, SERVER_LOGIN_FAILURES,
    TLS_EXPIRY,
};
use pgweir_stats::prometheus::Page;

use crate::shared::{Shared, lock};

pub(super) fn write(shared: &Shared, page: &mut Page) {
    let events = lock(&shared.events).clone();
    let mut family = page.family(&CLIENT_ERRORS);
    for ((database, code, cause), count) in events.client_errors.iter() {
        family.sample(&[database, &String::from_utf8_lossy(code), cause], count);
    }
    let mut family = page.family(&APPLICATION_ERRORS);
    for ((application, cause), count) in events.application_errors.iter() {
        family.sample(&[application, cause], count);
    }
    let mut family = page.family(&SERVER_ERRORS);
    for ((database, class), count) in events.server_errors.iter() {
        family.sample(&[database, &String::from_utf8_lossy(class)], count);
    }
    let mut family = page.family(&SERVER_LOGIN_FAILURES);
    for ((database, code), count) in events.login_failures.iter() {
        let code = code.as_ref().map(|code| String::from_utf8_lossy(code));
        family.sample(&[database, &code.unwrap_or_default()], count);
    }
    let mut family = page.family(&SERVER_DISCONNECTS);
    for ((database, reason), count) in events.disconnects.iter() {
        family.sample(&[database, reason], count);
    }
    certificates(shared, page);
}

fn certificates(shared: &Shared, page: &mut Page) {
    let mut family = page.family(&TLS_EXPIRY);
    for file in shared.tls().files() {
        family.sample(&[file.side, file.certificate, &file.path], file.expiry);
    }
    // Of each host the one that expires first.
    let mut hosts: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for server in &shared.servers {
        if let (Some(&expiry), Some(host)) = (server.certificate_expiry.get(), &server.host) {
            let first = hosts.entry(Arc::clone(host)).or_insert(expiry);
            *first = expiry.min(*first);
        }
    }
    for (host, expiry) in hosts {
        family.sample(&["server", "postgresql", &host], expiry);
    }
}
