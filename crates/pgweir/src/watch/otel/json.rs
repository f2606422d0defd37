//! OTLP's ExportMetricsServiceRequest in its JSON form: names in camel case, 64-bit integers as strings, enumerations as
//! numbers. Source: opentelemetry-proto, metrics.proto, and "JSON Protobuf Encoding" in OTLP's specification.

use pgweir_stats::prometheus::{Kind, Value, seconds};
use pgweir_stats::{Collected, Exponential, Point, Reading};
use serde_json::{Value as Json, json};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: counts are since the start.
const CUMULATIVE: u8 = 2;

/// Everything that is sent at once.
pub(super) fn request(families: &[Collected], start_ns: u128, now_ns: u128) -> Json {
    let metrics: Vec<Json> = families
        .iter()
        .filter(|family| !family.points.is_empty())
        .map(|family| metric(family, &start_ns.to_string(), &now_ns.to_string()))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [
        attribute("service.name", "pgweir"),
        attribute("service.version", version),
        attribute("service.instance.id", &instance()),
    ];
    json!({"resourceMetrics": [{
        "resource": {"attributes": attributes},
        "scopeMetrics": [{"scope": {"name": "pgweir", "version": version}, "metrics": metrics}],
    }]})
}

/// What tells this process from others: two on one machine have two numbers.
fn instance() -> String {
    let name = rustix::system::uname();
    let machine = name.nodename().to_string_lossy();
    format!("{machine}:{}", std::process::id())
}

fn metric(family: &Collected, start: &str, now: &str) -> Json {
    let points: Vec<Json> = family
        .points
        .iter()
        .map(|point| data_point(family, point, start, now))
        .collect();
    let (name, help) = (&family.name, &family.help);
    match family.kind {
        Kind::Gauge => json!({
            "name": name, "description": help, "gauge": {"dataPoints": points},
        }),
        Kind::Counter => json!({
            "name": name, "description": help,
            "sum": {"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true},
        }),
        Kind::Histogram => json!({
            "name": name, "description": help, "unit": "s",
            "exponentialHistogram": {"dataPoints": points, "aggregationTemporality": CUMULATIVE},
        }),
    }
}

fn data_point(family: &Collected, point: &Point, start: &str, now: &str) -> Json {
    let labels = family.labels.iter().zip(&point.labels);
    let attributes: Vec<Json> = labels.map(|(name, value)| attribute(name, value)).collect();
    let mut json = json!({
        "attributes": attributes, "startTimeUnixNano": start, "timeUnixNano": now,
    });
    match &point.reading {
        Reading::Number(Value::Unsigned(number)) => json["asInt"] = number.to_string().into(),
        Reading::Number(Value::Signed(number)) => json["asInt"] = number.to_string().into(),
        Reading::Number(Value::Float(number)) => json["asDouble"] = double(*number),
        Reading::Times {
            exponential: times, ..
        } => {
            let buckets: Vec<String> = times.buckets.iter().map(u64::to_string).collect();
            json["count"] = times.count.to_string().into();
            json["sum"] = double(seconds(times.sum_us));
            json["scale"] = Exponential::SCALE.into();
            json["zeroCount"] = times.zero.to_string().into();
            json["zeroThreshold"] = Exponential::ZERO_THRESHOLD.into();
            json["positive"] = json!({"offset": times.offset, "bucketCounts": buckets});
        }
    }
    json
}

/// JSON has no number for what is none.
fn double(number: f64) -> Json {
    match number.is_finite() {
        true => number.into(),
        false if number.is_nan() => "NaN".into(),
        false if number > 0.0 => "Infinity".into(),
        false => "-Infinity".into(),
    }
}

fn attribute(name: &str, value: &str) -> Json {
    json!({"key": name, "value": {"stringValue": value}})
}
