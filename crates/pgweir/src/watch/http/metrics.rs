//! The metrics page: reads what is there and counts nothing itself. Which families there are stands in
//! [`pgweir_stats::metrics`].

mod applications;
mod events;
mod exporter;
mod limits;
mod pools;
mod process;

use std::sync::atomic::Ordering;
use std::time::Instant;

use pgweir_stats::prometheus::Page;
use pgweir_stats::protobuf;

use crate::servers::server::micros;
use crate::shared::Shared;

/// The page as text.
pub(super) fn text(shared: &Shared) -> String {
    written(shared, Page::new()).into_text()
}

/// The page in Prometheus' protobuf format.
pub(super) fn protobuf(shared: &Shared) -> Vec<u8> {
    let families = written(shared, Page::collecting()).into_collected();
    protobuf::page(&families)
}

fn written(shared: &Shared, mut page: Page) -> Page {
    let begun = Instant::now();
    own(shared, &mut page);
    exporter::write(shared, &mut page);
    let took = micros(begun.elapsed());
    shared.http.last_us.store(took, Ordering::Relaxed);
    page
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
    applications::write(shared, page);
    limits::write(shared, page);
    events::write(shared, page);
}
