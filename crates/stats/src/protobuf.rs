//! Prometheus' protobuf format: messages `io.prometheus.client.MetricFamily`, each after its length. Unlike the
//! text it has native histograms; they come beside the declared buckets, and the scraper takes what it is set up for.
//!
//! Source of the numbers of fields: `metrics.proto` in prometheus/client_model.

use crate::collected::{Collected, Exponential, Point, Reading};
use crate::prometheus::{Kind, Value, seconds};

/// The value of the HTTP header `Content-Type` of such a page.
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// So many empty buckets between two that are not cost less than a span of their own.
const GAP_MAX: usize = 2;

/// The families that have samples.
pub fn page(families: &[Collected]) -> Vec<u8> {
    let mut page = Message::default();
    for family in families.iter().filter(|family| !family.points.is_empty()) {
        page.delimited(&of_family(family));
    }
    page.0
}

fn of_family(family: &Collected) -> Message {
    let mut message = Message::default();
    message.text(1, &family.name);
    message.text(2, &family.help);
    let kind = match family.kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Histogram => 4,
    };
    message.unsigned(3, kind);
    for point in &family.points {
        message.message(4, &metric(family, point));
    }
    message
}

fn metric(family: &Collected, point: &Point) -> Message {
    let mut message = Message::default();
    for (name, value) in family.labels.iter().zip(&point.labels) {
        let mut label = Message::default();
        label.text(1, name);
        label.text(2, value);
        message.message(1, &label);
    }
    match &point.reading {
        Reading::Number(value) => {
            // A counter's message and a gauge's both have their value first.
            let mut number = Message::default();
            number.double(1, float(*value));
            let field = match family.kind {
                Kind::Counter => 3,
                Kind::Gauge | Kind::Histogram => 2,
            };
            message.message(field, &number);
        }
        Reading::Times {
            exponential,
            at_most,
        } => message.message(7, &histogram(exponential, at_most)),
    }
    message
}

fn histogram(times: &Exponential, at_most: &[(u64, u64)]) -> Message {
    let mut message = Message::default();
    message.unsigned(1, times.count);
    message.double(2, seconds(times.sum_us));
    let bounds = at_most.iter().map(|&(us, count)| (seconds(us), count));
    for (bound, count) in bounds.chain([(f64::INFINITY, times.count)]) {
        let mut bucket = Message::default();
        bucket.unsigned(1, count);
        bucket.double(2, bound);
        message.message(3, &bucket);
    }
    message.signed(5, Exponential::SCALE.into());
    message.double(6, Exponential::ZERO_THRESHOLD);
    message.unsigned(7, times.zero);
    let (spans, counts) = spans(times);
    for (gap, length) in spans {
        let mut span = Message::default();
        span.signed(1, gap);
        span.unsigned(2, length);
        message.message(12, &span);
    }
    // Each count is told by how much it is more than the one before.
    let before = [0].into_iter().chain(counts.iter().copied());
    let mut deltas = Message::default();
    for (count, before) in counts.iter().zip(before) {
        deltas.varint(zigzag(count.wrapping_sub(before).cast_signed()));
    }
    if !counts.is_empty() {
        message.message(13, &deltas);
    }
    message
}

/// Runs of buckets, and the counts of all buckets that are in one. A run is told by how many buckets it comes
/// after the one before, the first by the number of its first bucket, and by its length.
fn spans(times: &Exponential) -> (Vec<(i64, u64)>, Vec<u64>) {
    let (mut spans, mut counts): (Vec<(i64, u64)>, _) = (Vec::new(), Vec::new());
    // Prometheus numbers a bucket by where it ends.
    let first = i64::from(times.offset) + 1;
    let mut gap = 0;
    for &count in &times.buckets {
        if count == 0 {
            gap += 1;
            continue;
        }
        match spans.last_mut() {
            Some((_, length)) if gap <= GAP_MAX => {
                *length += gap as u64 + 1;
                counts.resize(counts.len() + gap, 0);
            }
            Some(_) => spans.push((gap as i64, 1)),
            None => spans.push((first + gap as i64, 1)),
        }
        counts.push(count);
        gap = 0;
    }
    (spans, counts)
}

fn float(value: Value) -> f64 {
    match value {
        Value::Unsigned(value) => value as f64,
        Value::Signed(value) => value as f64,
        Value::Float(value) => value,
    }
}

/// Numbers near zero are short, also those below it.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A message while it is written: fields, each with its number and how it is to be read.
#[derive(Default)]
struct Message(Vec<u8>);

/// How a field is to be read.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
}

impl Message {
    fn unsigned(&mut self, field: u8, value: u64) {
        self.key(field, Wire::Varint);
        self.varint(value);
    }

    fn signed(&mut self, field: u8, value: i64) {
        self.unsigned(field, zigzag(value));
    }

    fn double(&mut self, field: u8, value: f64) {
        self.key(field, Wire::Fixed64);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, field: u8, text: &str) {
        self.key(field, Wire::Length);
        self.varint(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    fn message(&mut self, field: u8, message: &Self) {
        self.key(field, Wire::Length);
        self.delimited(message);
    }

    fn delimited(&mut self, message: &Self) {
        self.varint(message.0.len() as u64);
        self.0.extend(&message.0);
    }

    /// A field's number is below 16, so that this is one byte.
    fn key(&mut self, field: u8, wire: Wire) {
        self.0.push(field << 3 | wire as u8);
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LatencyHistogram;
    use crate::prometheus::Page;

    fn exponential(offset: i32, buckets: &[u64]) -> Exponential {
        Exponential {
            offset,
            buckets: buckets.to_vec(),
            count: buckets.iter().sum(),
            ..Exponential::default()
        }
    }

    #[test]
    fn a_gauge_is_its_bytes() {
        let mut page = Page::collecting();
        page.named("up", &["l"], "An up.", Kind::Gauge)
            .sample(&["ab"], 2_u64);
        page.named("none", &[], "Nothing.", Kind::Gauge);
        let bytes = super::page(&page.into_collected());
        let expected: &[u8] = b"\x24\
            \x0a\x02up\
            \x12\x06An up.\
            \x18\x01\
            \x22\x14\
            \x0a\x07\x0a\x01l\x12\x02ab\
            \x12\x09\x09\0\0\0\0\0\0\0\x40";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_counter_has_a_field_of_its_own_and_long_lengths_have_two_bytes() {
        let mut page = Page::collecting();
        let help = "x".repeat(200);
        page.named("n_total", &[], &help, Kind::Counter)
            .sample(&[], 0_u64);
        let bytes = super::page(&page.into_collected());
        let mut expected = b"\xe3\x01\x0a\x07n_total\x12\xc8\x01".to_vec();
        expected.extend(help.as_bytes());
        expected.extend(b"\x18\0\x22\x0b\x1a\x09\x09\0\0\0\0\0\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_histogram_is_its_bytes() {
        let mut times = LatencyHistogram::new();
        // The bucket 0 of Prometheus ends at 1 s.
        for us in [0, 950_000, 950_000] {
            times.record(us);
        }
        let mut page = Page::collecting();
        page.named("t_seconds", &[], "", Kind::Histogram)
            .histogram(&[], &times, &[500_000]);
        let bytes = super::page(&page.into_collected());
        let at = bytes.iter().position(|&byte| byte == 0x3a);
        let histogram = &bytes[at.expect("a histogram") + 2..];
        let expected: &[u8] = b"\x08\x03\
            \x11\x66\x66\x66\x66\x66\x66\xfe\x3f\
            \x1a\x0b\x08\x01\x11\0\0\0\0\0\0\xe0\x3f\
            \x1a\x0b\x08\x03\x11\0\0\0\0\0\0\xf0\x7f\
            \x28\x06\
            \x31\0\0\0\0\0\0\xb0\x3e\
            \x38\x01\
            \x62\x04\x08\0\x10\x01\
            \x6a\x01\x04";
        assert_eq!(histogram, expected);
    }

    #[test]
    fn an_empty_histogram_is_still_a_native_one() {
        let message = histogram(&Exponential::default(), &[]);
        let threshold = [&[0x31][..], &Exponential::ZERO_THRESHOLD.to_le_bytes()].concat();
        assert!(message.0.windows(9).any(|bytes| bytes == threshold));
        assert!(message.0.ends_with(&[0x38, 0]));
    }

    #[test]
    fn few_empty_buckets_are_told_and_many_are_a_gap() {
        let times = exponential(-5, &[3, 0, 0, 4, 0, 0, 0, 1]);
        let (told, counts) = spans(&times);
        assert_eq!(told, [(-4, 4), (3, 1)]);
        assert_eq!(counts, [3, 0, 0, 4, 1]);
        let message = histogram(&times, &[]);
        let deltas = [0x6a, 5, 6, 5, 0, 8, 5];
        assert!(message.0.ends_with(&deltas), "{:?}", message.0);
    }

    #[test]
    fn negative_numbers_are_short() {
        let numbers = [0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag);
        assert_eq!(numbers, [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
    }
}
