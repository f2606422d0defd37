//! The promise: a scraper that asks for Prometheus' protobuf format gets the whole page in it, with the values that
//! the text has, and histograms as native ones too.

use std::collections::BTreeMap;

use pgweir_tests::{
    Http, Tenant,
    http::Metrics,
    protobuf::{self, Family, Histogram},
    start,
};

/// What Prometheus 2.53 asks for when it takes native histograms.
const NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
    q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// What it asks for otherwise.
const TEXT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

#[track_caller]
fn page(http: &Http) -> Vec<Family> {
    let (head, body) = http.metrics_as(NATIVE);
    let kind = "content-type: application/vnd.google.protobuf; \
        proto=io.prometheus.client.MetricFamily; encoding=delimited";
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains(kind),
        "{head}"
    );
    protobuf::families(&body)
}

#[track_caller]
fn histogram<'a>(page: &'a [Family], name: &str, labels: &[(&str, &str)]) -> &'a Histogram {
    let family = page.iter().find(|family| family.name == name);
    let family = family.unwrap_or_else(|| panic!("no {name}"));
    let has = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let labels: BTreeMap<_, _> = labels.iter().map(has).collect();
    let metric = family.metrics.iter().find(|metric| metric.labels == labels);
    let metric = metric.unwrap_or_else(|| panic!("{name} has no {labels:?}: {family:?}"));
    metric.histogram.as_ref().expect("a histogram")
}

/// How many are in native buckets that `takes` by where they begin and end, and how many are zero.
fn native(histogram: &Histogram, takes: impl Fn(f64, f64) -> bool) -> u64 {
    let end = |n: i64| 2_f64.powf(n as f64 * 0.5_f64.powi(histogram.schema as i32));
    let buckets = histogram.native.iter();
    let taken = buckets.filter(|(n, _)| takes(end(**n - 1), end(**n)));
    histogram.zero_count + taken.map(|(_, count)| count).sum::<u64>()
}

/// Both forms tell the same, to a sixteenth.
#[track_caller]
fn agrees(histogram: &Histogram) {
    for &(bound, count) in &histogram.classic {
        let least = native(histogram, |_, end| end <= bound * 15.0 / 16.0);
        let most = native(histogram, |begin, _| begin < bound * 17.0 / 16.0);
        assert!((least..=most).contains(&count), "{bound}: {histogram:?}");
    }
}

#[test]
fn times_are_in_native_buckets_around_them_and_in_the_declared_ones() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let mut client = tenant.client(&pooler);
    for _ in 0..20 {
        client.value("select 1");
    }
    for _ in 0..3 {
        client.value("select 1 from pg_sleep(0.3)");
    }
    let page = page(&http);
    let pool = [("database", &*tenant.name), ("user", &*tenant.name)];
    let queries = histogram(&page, "pgweir_query_seconds", &pool);
    assert_eq!((queries.count, native(queries, |_, _| true)), (23, 23));
    assert!((0.9..60.0).contains(&queries.sum), "{queries:?}");
    assert_eq!(
        (queries.schema, queries.zero_threshold),
        (3, 2_f64.powi(-20))
    );
    assert!(native(queries, |_, end| end < 0.28) <= 20, "{queries:?}");
    agrees(queries);
    assert_eq!(queries.classic.last(), Some(&(f64::INFINITY, 23)));
    assert!(queries.classic.is_sorted(), "{queries:?}");
    // Nobody waited: the login has brought the server.
    let waits = histogram(&page, "pgweir_client_wait_seconds", &pool);
    assert_eq!((waits.count, waits.zero_count), (23, 23));
    assert_eq!(waits.native, BTreeMap::new());
}

#[test]
fn it_is_the_page_that_is_also_there_as_text() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()).set("metrics_legacy_names", 1));
    let http = Http::of(&pooler);
    let mut client = tenant.client(&pooler);
    for _ in 0..20 {
        client.value("select 1");
    }
    let (head, body) = http.metrics_as(TEXT);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let text = Metrics::parse(&String::from_utf8(body).expect("text"));
    let page = page(&http);

    let kinds = |family: &Family| {
        let kind = match family.kind {
            0 => "counter",
            1 => "gauge",
            4 => "histogram",
            other => panic!("no such type: {other}"),
        };
        (family.name.clone(), kind.to_owned())
    };
    let mut types = text.types.clone();
    // What has no sample is not said.
    types.retain(|name, _| {
        let is_part = |sample: &str| sample.strip_prefix(&**name).is_some_and(is_suffix);
        text.samples.iter().any(|sample| is_part(&sample.name))
    });
    assert_eq!(page.iter().map(kinds).collect::<BTreeMap<_, _>>(), types);
    assert!(types.len() > 100, "{}", types.len());

    let of_pool = ("database", &*tenant.name);
    let mut compared = 0;
    for family in &page {
        for metric in &family.metrics {
            let labels: Vec<_> = metric.labels.iter().map(|(n, v)| (&**n, &**v)).collect();
            if let Some((field, number)) = metric.number {
                assert_eq!(
                    field,
                    if family.kind == 0 { 3 } else { 2 },
                    "{}",
                    family.name
                );
                let told = text.value(&family.name, &labels);
                // Times and memory go on meanwhile.
                if labels.contains(&of_pool) && !family.name.ends_with("_seconds") {
                    assert_eq!(told, number, "{} {labels:?}", family.name);
                    compared += 1;
                }
            }
            if let Some(histogram) = &metric.histogram {
                let part = |suffix: &str| text.value(&format!("{}_{suffix}", family.name), &labels);
                assert_eq!(part("count"), histogram.count as f64, "{}", family.name);
                assert_eq!(part("sum"), histogram.sum, "{}", family.name);
                let bounds = text.all(&family.name, &[]).count();
                assert_eq!(bounds, 0, "a histogram has parts only");
                for (bound, count) in &histogram.classic {
                    let bound = match bound.is_finite() {
                        true => bound.to_string(),
                        false => "+Inf".to_owned(),
                    };
                    let name = format!("{}_bucket", family.name);
                    let labels = [&labels[..], &[("le", &*bound)]].concat();
                    assert_eq!(
                        text.value(&name, &labels),
                        *count as f64,
                        "{name} {labels:?}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "{compared}");
}

fn is_suffix(rest: &str) -> bool {
    matches!(rest, "" | "_bucket" | "_sum" | "_count")
}

#[test]
fn whoever_does_not_ask_for_it_gets_text() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    for accept in ["*/*", "application/vnd.google.protobuf", "text/html"] {
        let (head, body) = http.metrics_as(accept);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(body.starts_with(b"# HELP "), "{accept}");
    }
}
