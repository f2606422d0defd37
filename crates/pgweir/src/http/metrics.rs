//! The metrics page: reads what is there and counts nothing itself. Which families there are stands in
//! [`pgweir_stats::metrics`].

mod events;
mod exporter;
mod limits;
mod pools;
mod process;

use std::sync::atomic::Ordering;
use std::time::Instant;

use pgweir_stats::prometheus::Page;

use crate::server::micros;
use crate::shared::Shared;

/// The page.
pub(super) fn page(shared: &Shared) -> String {
    let begun = Instant::now();
    let mut page = Page::new();
    own(shared, &mut page);
    exporter::write(shared, &mut page);
    let took = micros(begun.elapsed());
    shared.http.last_us.store(took, Ordering::Relaxed);
    page.into_text()
}

/// Our families as values, without those that have the exporter's names.
#[cfg(feature = "otel")]
pub(super) fn collect(shared: &Shared) -> Vec<pgweir_stats::Collected> {
    let mut page = Page::collecting();
    own(shared, &mut page);
    page.into_collected()
}

fn own(shared: &Shared, page: &mut Page) {
    process::write(shared, page);
    pools::write(shared, page);
    limits::write(shared, page);
    events::write(shared, page);
}
