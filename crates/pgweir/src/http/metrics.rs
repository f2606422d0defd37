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
    process::write(shared, &mut page);
    pools::write(shared, &mut page);
    limits::write(shared, &mut page);
    events::write(shared, &mut page);
    exporter::write(shared, &mut page);
    let took = micros(begun.elapsed());
    shared.http.last_us.store(took, Ordering::Relaxed);
    page.into_text()
}
