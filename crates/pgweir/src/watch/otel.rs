//! Sends the metrics by OTLP, in JSON over HTTP, to whoever collects them. What is sent is what `/metrics` has at the
//! moment; nothing is kept for a collector that is away, because the next time tells everything: counts are since the start.

mod json;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::process::fetch::{self, Request, Url};
use crate::shared::Shared;

/// How often it is looked whether there is somebody to send to.
const LOOK: Duration = Duration::from_secs(1);

/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What OTLP has for metrics under every endpoint.
const PATH: &str = "/v1/metrics";

/// Sends from now on, as long as there is an endpoint.
pub(crate) fn start(shared: &Arc<Shared>) {
    tokio::spawn(run(Arc::clone(shared)));
}

async fn run(shared: Arc<Shared>) {
    let start_ns = now_ns().saturating_sub(shared.started_at.elapsed().as_nanos());
    let mut said = None;
    loop {
        let config = shared.config();
        let endpoint = config.global.otel_endpoint.clone();
        let period = config.global.otel_period.duration().max(LOOK);
        drop(config);
        if endpoint.is_empty() {
            sleep(LOOK).await;
            continue;
        }
        let sent = send(&shared, &endpoint, start_ns).await;
        tell(&endpoint, sent, &mut said);
        sleep(period).await;
    }
}

/// Says what is new: a collector that is away for a day is two lines.
fn tell(endpoint: &str, sent: Result<(), String>, said: &mut Option<Result<(), String>>) {
    if said.as_ref() == Some(&sent) {
        return;
    }
    match &sent {
        Ok(()) => tracing::info!("metrics are sent to {endpoint}"),
        Err(reason) => tracing::warn!("metrics cannot be sent to otel_endpoint: {reason}"),
    }
    *said = Some(sent);
}

async fn send(shared: &Arc<Shared>, endpoint: &str, start_ns: u128) -> Result<(), String> {
    let url = Url::parse(&format!("{}{PATH}", endpoint.trim_end_matches('/')))?;
    let families = shared.http.collect(shared).await;
    let families = families.ok_or("the metrics could not be read")?;
    let body = json::request(&families, start_ns, now_ns());
    let request = Request {
        method: "POST",
        url: &url,
        headers: vec![("content-type", "application/json")],
        body: body.to_string().into_bytes(),
    };
    fetch::fetch(request, PATIENCE).await.map(|_| ())
}

fn now_ns() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos())
}
