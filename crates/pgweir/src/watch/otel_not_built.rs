//! Stands in for `otel.rs` in a build without the feature `otel`.

use std::sync::Arc;

use crate::shared::Shared;

/// Nothing is sent.
pub(crate) fn start(shared: &Arc<Shared>) {
    if !shared.config().global.otel_endpoint.is_empty() {
        tracing::error!(
            "otel_endpoint is set, but OpenTelemetry is not in this build (build pgweir with the cargo feature \"otel\")"
        );
    }
}
