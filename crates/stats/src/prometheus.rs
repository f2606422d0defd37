//! Prometheus' text format (version 0.0.4): a page of families, each written once and whole.
//!
//! [`Page::family`] writes the `HELP` and `TYPE` lines and lends out the only way to write samples,
//! so the samples of two families cannot be mixed, which a scraper would refuse. The same families as
//! values are [`Page::collecting`]'s, for [`crate::protobuf`] and for OTLP.

use std::fmt::Write;

use crate::LatencyHistogram;
use crate::collected::{Collected, Exponential, Point, Reading};
use crate::metrics::Metric;

/// The value of the HTTP header `Content-Type` of such a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until a restart.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts per upper bound.
    Histogram,
}

/// The number of one sample.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A count.
    Unsigned(u64),
    /// A number that may be negative.
    Signed(i64),
    /// Anything else; seconds are floats.
    Float(f64),
}

/// A metrics page while it is written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// In place of the text.
    collected: Option<Vec<Collected>>,
}

/// One family of a page, open for its samples.
#[derive(Debug)]
pub struct Family<'p> {
    name: &'p str,
    labels: &'p [&'p str],
    text: &'p mut String,
    /// The upper bounds of its histograms, as they are written.
    bounds: Vec<(u64, String)>,
    /// In place of the text.
    points: Option<&'p mut Vec<Point>>,
}

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that has no text.
    pub fn collecting() -> Self {
        Self {
            collected: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// Starts a family. It may appear once on a page.
    pub fn family(&mut self, metric: &Metric) -> Family<'_> {
        self.named(metric.name, metric.labels, metric.help, metric.kind)
    }

    /// Starts a family whose name is put together elsewhere.
    pub fn named<'p>(
        &'p mut self,
        name: &'p str,
        labels: &'p [&'p str],
        help: &str,
        kind: Kind,
    ) -> Family<'p> {
        debug_assert!(is_name(name), "{name:?} is not a metric name");
        if let Some(collected) = &mut self.collected {
            collected.push(Collected {
                name: name.to_owned(),
                help: help.to_owned(),
                kind,
                labels: labels.iter().map(|&label| label.to_owned()).collect(),
                points: Vec::new(),
            });
            return Family {
                name,
                labels,
                text: &mut self.text,
                bounds: Vec::new(),
                points: collected.last_mut().map(|family| &mut family.points),
            };
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        push_escaped(&mut self.text, help, Escape::Help);
        push(&mut self.text, format_args!("\n# TYPE {name} {kind}\n"));
        Family {
            name,
            labels,
            text: &mut self.text,
            bounds: Vec::new(),
            points: None,
        }
    }

    /// The families that were collected.
    pub fn into_collected(self) -> Vec<Collected> {
        self.collected.unwrap_or_default()
    }

    /// The finished page.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample. The values of the labels may be any text; they stand in the order of the
    /// family's labels.
    pub fn sample(&mut self, labels: &[&str], value: impl Into<Value>) -> &mut Self {
        match &mut self.points {
            Some(points) => points.push(point(labels, Reading::Number(value.into()))),
            None => self.line("", labels, value.into()),
        }
        self
    }

    /// Writes a histogram in seconds with the given upper bounds in microseconds, ascending.
    pub fn histogram(
        &mut self,
        labels: &[&str],
        histogram: &LatencyHistogram,
        bounds_us: &[u64],
    ) -> &mut Self {
        let counts = histogram.counts_at_most(bounds_us);
        if let Some(points) = &mut self.points {
            let exponential = Exponential::of(histogram);
            let at_most = bounds_us.iter().copied().zip(counts).collect();
            let times = Reading::Times {
                exponential,
                at_most,
            };
            points.push(point(labels, times));
            return self;
        }
        // Most lines of a page are these, so what they have in common is put together once.
        if !self.bounds.iter().map(|(us, _)| us).eq(bounds_us) {
            self.bounds = bounds_us.iter().map(|&us| (us, bound(us))).collect();
        }
        let mut head = String::new();
        let separator = push_head(&mut head, self.name, "_bucket", self.labels, labels);
        for ((_, bound), count) in self.bounds.iter().zip(counts) {
            self.text.push_str(&head);
            self.text.push(separator);
            self.text.push_str(bound);
            push_value(self.text, Value::Unsigned(count));
            self.text.push('\n');
        }
        self.text.push_str(&head);
        self.text.push(separator);
        self.text.push_str("le=\"+Inf\"} ");
        push_value(self.text, Value::Unsigned(histogram.count()));
        self.text.push('\n');
        let sum = Value::Float(seconds(histogram.sum_us()));
        self.line("_sum", labels, sum);
        self.line("_count", labels, Value::Unsigned(histogram.count()));
        self
    }

    fn line(&mut self, suffix: &str, labels: &[&str], value: Value) {
        if push_head(self.text, self.name, suffix, self.labels, labels) == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        push_value(self.text, value);
        self.text.push('\n');
    }
}

/// Writes the beginning of a line, up to its last label. Returns what stands before another one.
fn push_head(text: &mut String, name: &str, suffix: &str, names: &[&str], labels: &[&str]) -> char {
    debug_assert_eq!(labels.len(), names.len(), "labels of {name}");
    text.push_str(name);
    text.push_str(suffix);
    let mut separator = '{';
    for (name, label) in names.iter().zip(labels) {
        debug_assert!(is_name(name), "{name:?} is not a label name");
        text.push(separator);
        text.push_str(name);
        text.push_str("=\"");
        push_escaped(text, label, Escape::Label);
        text.push('"');
        separator = ',';
    }
    separator
}

/// The label of an upper bound, and the end of the labels.
fn bound(us: u64) -> String {
    format!("le=\"{}\"}} ", seconds(us))
}

fn point(labels: &[&str], reading: Reading) -> Point {
    Point {
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        reading,
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Unsigned(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Unsigned(u64::from(value))
    }
}

/// Microseconds as the seconds that Prometheus wants.
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// Backslash and line feed.
    Help,
    /// These and the double quote.
    Label,
}

fn push_escaped(text: &mut String, raw: &str, escape: Escape) {
    // Nearly always there is nothing to escape.
    if !raw.contains(['\\', '\n', '"']) {
        return text.push_str(raw);
    }
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if escape == Escape::Label => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

fn push_value(text: &mut String, value: Value) {
    match value {
        Value::Unsigned(value) => push(text, format_args!("{value}")),
        Value::Signed(value) => push(text, format_args!("{value}")),
        Value::Float(value) if value.is_nan() => text.push_str("NaN"),
        Value::Float(f64::INFINITY) => text.push_str("+Inf"),
        Value::Float(f64::NEG_INFINITY) => text.push_str("-Inf"),
        Value::Float(value) => push(text, format_args!("{value}")),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("writing to a String does not fail");
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts_well
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_family_is_help_type_and_samples() {
        let mut page = Page::new();
        page.named(
            "pgbouncer_up",
            &[],
            "Whether the last scrape worked.",
            Kind::Gauge,
        )
        .sample(&[], 1u64);
        page.family(&Metric {
            name: "pgbouncer_pools_server_idle_connections",
            kind: Kind::Gauge,
            labels: &["database", "user"],
            help: "Idle servers.",
        })
        .sample(&["p0", "bob"], 3usize)
        .sample(&["p1", "bob"], 0usize);
        assert_eq!(
            page.into_text(),
            "# HELP pgbouncer_up Whether the last scrape worked.\n\
             # TYPE pgbouncer_up gauge\n\
             pgbouncer_up 1\n\
             # HELP pgbouncer_pools_server_idle_connections Idle servers.\n\
             # TYPE pgbouncer_pools_server_idle_connections gauge\n\
             pgbouncer_pools_server_idle_connections{database=\"p0\",user=\"bob\"} 3\n\
             pgbouncer_pools_server_idle_connections{database=\"p1\",user=\"bob\"} 0\n"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::new();
        let labels = &["application_name"];
        page.named("x", labels, "a \"quoted\" \\ help\nline", Kind::Counter)
            .sample(&["a\"b\\c\nd"], 1u64);
        assert_eq!(
            page.into_text(),
            "# HELP x a \"quoted\" \\\\ help\\nline\n# TYPE x counter\n\
             x{application_name=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
    }

    #[test]
    fn floats_have_prometheus_spelling() {
        let mut page = Page::new();
        page.named("x", &[], "", Kind::Gauge)
            .sample(&[], 0.25)
            .sample(&[], f64::INFINITY)
            .sample(&[], f64::NEG_INFINITY)
            .sample(&[], f64::NAN)
            .sample(&[], -4i64);
        let text = page.into_text();
        let values: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(values, ["x 0.25", "x +Inf", "x -Inf", "x NaN", "x -4"]);
    }

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let mut latencies = LatencyHistogram::new();
        [500, 1_500, 2_000_000]
            .iter()
            .for_each(|&us| latencies.record(us));
        let mut page = Page::new();
        page.named("wait_seconds", &["database"], "Waits.", Kind::Histogram)
            .histogram(&["p0"], &latencies, &[1_000, 1_000_000]);
        let text = page.into_text();
        let samples: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            samples,
            [
                "wait_seconds_bucket{database=\"p0\",le=\"0.001\"} 1",
                "wait_seconds_bucket{database=\"p0\",le=\"1\"} 2",
                "wait_seconds_bucket{database=\"p0\",le=\"+Inf\"} 3",
                "wait_seconds_sum{database=\"p0\"} 2.002",
                "wait_seconds_count{database=\"p0\"} 3",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_label_stays_on_its_line(label in any::<String>(), help in any::<String>()) {
            let mut page = Page::new();
            page.named("x", &["l"], &help, Kind::Gauge).sample(&[&label], 1u64);
            prop_assert_eq!(page.into_text().matches('\n').count(), 3);
        }
    }
}
