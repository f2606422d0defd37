//! What belongs to an application: the time of its clients.

use pgweir_stats::metrics::{
    APPLICATION_HOLD, APPLICATION_QUERY, APPLICATION_TIME, APPLICATION_WAIT, APPLICATION_XACT,
    BOUNDS_US, Metric,
};
use pgweir_stats::prometheus::{Page, seconds};
use pgweir_stats::{LatencyHistogram, LatencyView};

use crate::shared::{Shared, lock};

pub(super) fn write(shared: &Shared, page: &mut Page) {
    let applications = lock(&shared.applications).all();
    let mut family = page.family(&APPLICATION_TIME);
    for (name, application) in &applications {
        let (holding, waiting) = application.spent_ms();
        family
            .sample(&[name, "holding"], seconds(holding * 1_000))
            .sample(&[name, "waiting"], seconds(waiting * 1_000));
    }
    let views = applications.iter();
    let views = views.map(|(name, application)| (&**name, application.view()));
    let views: Vec<_> = views.filter(|(_, view)| !view.is_empty()).collect();
    histogram(&views, &APPLICATION_WAIT, |view| &view.wait, page);
    histogram(&views, &APPLICATION_QUERY, |view| &view.query, page);
    histogram(&views, &APPLICATION_XACT, |view| &view.transaction, page);
    histogram(&views, &APPLICATION_HOLD, |view| &view.hold, page);
}

fn histogram(
    views: &[(&str, LatencyView)],
    metric: &Metric,
    of: impl Fn(&LatencyView) -> &LatencyHistogram,
    page: &mut Page,
) {
    let mut family = page.family(metric);
    for (name, view) in views {
        family.histogram(&[name], of(view), BOUNDS_US);
    }
}
