//! Reads Prometheus' protobuf format, by the numbers of fields in prometheus/client_model's `metrics.proto`.

use std::collections::BTreeMap;

/// One family.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// Its type: 0 counter, 1 gauge, 4 histogram.
    pub kind: u64,
    /// Its samples.
    pub metrics: Vec<Metric>,
}

/// One sample.
#[derive(Clone, Debug, Default)]
pub struct Metric {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Of a counter or a gauge: which of both it is by its field, and the number.
    pub number: Option<(u64, f64)>,
    /// Of a histogram.
    pub histogram: Option<Histogram>,
}

/// One histogram, in both forms.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// All.
    pub count: u64,
    /// Added up.
    pub sum: f64,
    /// Upper bounds with how many are at most that.
    pub classic: Vec<(f64, u64)>,
    /// 2^schema native buckets for each doubling.
    pub schema: i64,
    /// What is at most that is zero.
    pub zero_threshold: f64,
    /// How many are zero.
    pub zero_count: u64,
    /// How many are in each native bucket; the bucket n ends at 2^(n / 2^schema).
    pub native: BTreeMap<i64, u64>,
}

/// The value of a field.
enum Value<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// All families of a page.
///
/// # Panics
/// If it is not such a page.
#[track_caller]
pub fn families(mut page: &[u8]) -> Vec<Family> {
    let mut families = Vec::new();
    while !page.is_empty() {
        families.push(family(bytes(&mut page)));
    }
    families
}

#[track_caller]
fn family(message: &[u8]) -> Family {
    let mut family = Family::default();
    for field in fields(message) {
        match field {
            (1, Value::Bytes(name)) => family.name = text(name),
            (2, Value::Bytes(help)) => assert!(!text(help).is_empty()),
            (3, Value::Number(kind)) => family.kind = kind,
            (4, Value::Bytes(message)) => family.metrics.push(metric(message)),
            (other, _) => panic!("field {other} of a family"),
        }
    }
    family
}

#[track_caller]
fn metric(message: &[u8]) -> Metric {
    let mut metric = Metric::default();
    for field in fields(message) {
        match field {
            (1, Value::Bytes(label)) => {
                let mut words = fields(label).into_iter().map(|(_, value)| match value {
                    Value::Bytes(word) => text(word),
                    Value::Number(_) | Value::Double(_) => panic!("a label is no number"),
                });
                let (name, value) = (words.next(), words.next());
                let known = metric
                    .labels
                    .insert(name.expect("a name"), value.expect("a value"));
                assert_eq!(known, None, "a label comes once");
            }
            (kind @ (2 | 3), Value::Bytes(number)) => {
                let [(1, Value::Double(number))] = fields(number)[..] else {
                    panic!("a number is one field");
                };
                metric.number = Some((kind, number));
            }
            (7, Value::Bytes(message)) => metric.histogram = Some(histogram(message)),
            (other, _) => panic!("field {other} of a metric"),
        }
    }
    metric
}

#[track_caller]
fn histogram(message: &[u8]) -> Histogram {
    let mut histogram = Histogram::default();
    let (mut spans, mut counts) = (Vec::new(), Vec::new());
    for field in fields(message) {
        match field {
            (1, Value::Number(count)) => histogram.count = count,
            (2, Value::Double(sum)) => histogram.sum = sum,
            (3, Value::Bytes(bucket)) => {
                let [(1, Value::Number(count)), (2, Value::Double(bound))] = fields(bucket)[..]
                else {
                    panic!("a bucket is a count and a bound");
                };
                histogram.classic.push((bound, count));
            }
            (5, Value::Number(schema)) => histogram.schema = signed(schema),
            (6, Value::Double(threshold)) => histogram.zero_threshold = threshold,
            (7, Value::Number(count)) => histogram.zero_count = count,
            (12, Value::Bytes(span)) => {
                let [(1, Value::Number(gap)), (2, Value::Number(length))] = fields(span)[..] else {
                    panic!("a span is a gap and a length");
                };
                spans.push((signed(gap), length));
            }
            (13, Value::Bytes(mut deltas)) => {
                while !deltas.is_empty() {
                    let before = counts.last().copied().unwrap_or(0);
                    counts.push(before + signed(varint(&mut deltas)));
                }
            }
            (other, _) => panic!("field {other} of a histogram"),
        }
    }
    let mut counts = counts.into_iter();
    let mut bucket = 0;
    for (gap, length) in spans {
        bucket += gap;
        for _ in 0..length {
            let count = counts.next().expect("every bucket of a span has a count");
            histogram
                .native
                .insert(bucket, count.try_into().expect("a count"));
            bucket += 1;
        }
    }
    assert_eq!(counts.next(), None, "every count has a bucket");
    histogram
}

#[track_caller]
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => {
                let (double, rest) = message.split_first_chunk().expect("eight bytes");
                message = rest;
                Value::Double(f64::from_le_bytes(*double))
            }
            2 => Value::Bytes(bytes(&mut message)),
            other => panic!("no such type of a field: {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

#[track_caller]
fn bytes<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(varint(from)).expect("a length");
    let (bytes, rest) = from.split_at_checked(length).expect("as long as it says");
    *from = rest;
    bytes
}

#[track_caller]
fn varint(from: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = from.split_first().expect("a number ends");
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn signed(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[track_caller]
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("texts are UTF-8")
}
