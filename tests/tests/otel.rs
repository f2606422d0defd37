//! The promise: with the cargo feature `otel` the metrics go to a collector by OTLP, with the values that /metrics has; a
//! collector that is away disturbs nobody; and a build without it says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgweir_tests::{Http, Ini, Pooler, Service, Tenant, eventually, skip, start};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Nothing if this pgweir has been built without OpenTelemetry.
#[track_caller]
fn start_with_otel(ini: Ini) -> Option<Pooler> {
    let pooler = start(ini);
    if pooler.log().contains("not in this build") {
        skip("this pgweir has been built without OpenTelemetry (cargo build --features otel)");
        return None;
    }
    Some(pooler)
}

fn metric<'v>(request: &'v Value, name: &str) -> Option<&'v Value> {
    let metrics = &request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    metrics
        .as_array()?
        .iter()
        .find(|metric| metric["name"] == name)
}

/// The point whose attributes have these values.
fn point<'v>(points: &'v Value, labels: &[(&str, &str)]) -> Option<&'v Value> {
    let has = |point: &Value, name: &str, value: &str| {
        let attributes = point["attributes"].as_array();
        attributes.is_some_and(|attributes| {
            attributes
                .iter()
                .any(|a| a["key"] == name && a["value"]["stringValue"] == value)
        })
    };
    let mut points = points["dataPoints"].as_array()?.iter();
    points.find(|point| labels.iter().all(|(name, value)| has(point, name, value)))
}

fn integer(value: &Value) -> u64 {
    let text = value.as_str().expect("64 bits are a string");
    text.parse().expect("a number")
}

#[test]
fn a_collector_is_told_what_the_page_says() {
    let Some(tenant) = Tenant::new() else { return };
    let service = Service::start(|_| (200, "{}".to_owned()));
    let ini = Http::set(tenant.ini())
        .set(
            "otel_endpoint",
            format!("http://127.0.0.1:{}", service.port),
        )
        .set("otel_period", 1);
    let Some(pooler) = start_with_otel(ini) else {
        return;
    };
    let mut client = tenant.client(&pooler);
    for _ in 0..20 {
        client.value("select 1 from pg_sleep(0.002)");
    }
    let of_pool = [("database", &*tenant.name), ("user", &*tenant.name)];
    let metrics = Http::of(&pooler).metrics();
    let expected = metrics.value("pgweir_xacts_total", &of_pool);
    let request = loop {
        let call = service.next();
        assert_eq!(call.line, "POST /v1/metrics");
        assert!(call.head.contains("content-type: application/json"));
        let request: Value = serde_json::from_str(&call.body).expect("JSON");
        let counter = metric(&request, "pgweir_xacts_total");
        let told = counter.and_then(|counter| point(&counter["sum"], &of_pool));
        if told.is_some_and(|told| integer(&told["asInt"]) as f64 >= expected) {
            break request;
        }
    };
    let resource = &request["resourceMetrics"][0]["resource"];
    assert_eq!(resource["attributes"][0]["value"]["stringValue"], "pgweir");
    let counter = &metric(&request, "pgweir_xacts_total").expect("it is there")["sum"];
    assert_eq!(
        (&counter["isMonotonic"], &counter["aggregationTemporality"]),
        (&Value::Bool(true), &Value::from(2))
    );
    let gauge = metric(&request, "pgweir_ready").expect("it is there");
    assert_eq!(integer(&gauge["gauge"]["dataPoints"][0]["asInt"]), 1);
    let histogram = metric(&request, "pgweir_query_seconds").expect("it is there");
    let times = point(&histogram["exponentialHistogram"], &of_pool).expect("the pool");
    let buckets = times["positive"]["bucketCounts"]
        .as_array()
        .expect("buckets");
    let counted: u64 = buckets.iter().map(integer).sum();
    assert_eq!(
        counted + integer(&times["zeroCount"]),
        integer(&times["count"])
    );
    assert_eq!(times["scale"], 3);
    assert_eq!(times["zeroThreshold"], 2_f64.powi(-20));
    // No query took less than two milliseconds: 2^(n/8) seconds is where the first bucket begins.
    let offset = times["positive"]["offset"].as_i64().expect("an offset");
    let begins = 2_f64.powf(offset as f64 / 8.0);
    assert!((0.0015..1.0).contains(&begins), "{begins}");
    assert!(times["sum"].as_f64().is_some_and(|sum| sum >= 0.04));
    assert!(
        integer(&times["timeUnixNano"]) > integer(&times["startTimeUnixNano"]),
        "{times}"
    );
    assert!(metric(&request, "pgbouncer_up").is_none());
}

#[test]
fn a_collector_that_is_away_is_said_once_and_comes_back() {
    let Some(tenant) = Tenant::new() else { return };
    let works = Arc::new(AtomicBool::new(false));
    let same = Arc::clone(&works);
    let service = Service::start(move |_| match same.load(Ordering::SeqCst) {
        true => (200, "{}".to_owned()),
        false => (503, String::new()),
    });
    let ini = tenant
        .ini()
        .set(
            "otel_endpoint",
            format!("http://127.0.0.1:{}/", service.port),
        )
        .set("otel_period", 1);
    let Some(pooler) = start_with_otel(ini) else {
        return;
    };
    for _ in 0..3 {
        service.next();
    }
    assert_eq!(tenant.client(&pooler).value("select 1"), "1");
    works.store(true, Ordering::SeqCst);
    eventually(
        SOON,
        || pooler.log(),
        |log| log.contains("metrics are sent to"),
    );
    let log = pooler.log();
    let complaints = log.matches("metrics cannot be sent").count();
    assert_eq!(complaints, 1, "{log}");
    assert!(log.contains("503"), "{log}");
}

#[test]
fn a_build_without_it_says_how_to_get_one() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("otel_endpoint", "http://127.0.0.1:1"));
    let log = pooler.log();
    if !log.contains("not in this build") {
        return skip("this pgweir has been built with OpenTelemetry");
    }
    assert!(log.contains("cargo feature \"otel\""), "{log}");
    assert_eq!(tenant.client(&pooler).value("select 1"), "1");
}
