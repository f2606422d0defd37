//! The metrics page: reads what is there and counts nothing itself. Which families there are stands in
//! [`pgweir_stats::metrics`].

mod events;
mod exporter;
mod limits;
mod pools;
mod process;

use std::time::Duration;

use pgweir_stats::prometheus::Page;

use crate::shared::Shared;

/// The page; the last one took so long to write.
pub(super) fn page(shared: &Shared, last: Duration) -> String {
    let mut page = Page::new();
    process::write(shared, last, &mut page);
    pools::write(shared, &mut page);
    limits::write(shared, &mut page);
    events::write(shared, &mut page);
    exporter::write(shared, &mut page);
    page.into_text()
}
