//! In which form a scraper wants the metrics page: as text, unless it prefers protobuf and says so.
//!
//! Source: RFC 9110, 12.5.1, for the header `Accept`; Prometheus' "Exposition formats" for what is in it.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

/// The form of the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// What everybody can read.
    Text,
    /// What has native histograms.
    Protobuf,
}

const PROTOBUF: &str = "application/vnd.google.protobuf";
const FAMILY: &str = "io.prometheus.client.MetricFamily";

/// The form that the header asks for. Whoever names protobuf can read it, so it also wins where both are as
/// welcome; a wildcard is no wish for it.
pub(super) fn wanted(headers: &HeaderMap) -> Format {
    let values = headers.get_all(ACCEPT).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).filter_map(range);
    let (mut text, mut protobuf) = ((0, 0.0), 0.0);
    for (what, weight) in ranges {
        match what {
            Range::Protobuf => protobuf = weight.max(protobuf),
            // The most precise word on it counts.
            Range::Text(precision) if precision >= text.0 => text = (precision, weight),
            Range::Text(_) => {}
        }
    }
    match protobuf > 0.0 && protobuf >= text.1 {
        true => Format::Protobuf,
        false => Format::Text,
    }
}

/// One of the things that a header accepts, if it is one that there is.
enum Range {
    Protobuf,
    /// With how precisely it says so.
    Text(u8),
}

/// What is accepted, and how welcome it is: from 0.0, not at all, to 1.0.
fn range(text: &str) -> Option<(Range, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let parameters = parts.filter_map(|part| part.split_once('='));
    let parameters = parameters.map(|(name, value)| (name.trim(), value.trim().trim_matches('"')));
    let parameters: Vec<(&str, &str)> = parameters.collect();
    let of = |name: &str| {
        let mut found = parameters
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| *value)
    };
    let weight = match of("q") {
        Some(weight) => weight.parse().ok()?,
        None => 1.0,
    };
    let is_delimited = of("proto") == Some(FAMILY) && of("encoding") == Some("delimited");
    let is_version = matches!(of("version"), None | Some("0.0.4"));
    let range = match &*media {
        PROTOBUF if is_delimited => Range::Protobuf,
        "text/plain" if is_version => Range::Text(2),
        "text/*" => Range::Text(1),
        "*/*" => Range::Text(0),
        _ => return None,
    };
    (0.0..=1.0).contains(&weight).then_some((range, weight))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        wanted(&headers)
    }

    const DELIMITED: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn prometheus_gets_protobuf_when_it_prefers_it() {
        // What Prometheus 2.53 sends with native histograms, and without.
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
            application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let usual = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,application/vnd.google.protobuf;\
            proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.2,*/*;q=0.1";
        assert_eq!(of(&[native]), Format::Protobuf);
        assert_eq!(of(&[usual]), Format::Text);
        assert_eq!(of(&[DELIMITED]), Format::Protobuf);
        assert_eq!(of(&["text/plain;q=0.9", DELIMITED]), Format::Protobuf);
        let quoted = "Application/Vnd.Google.Protobuf; Encoding=delimited ;\
            proto=\"io.prometheus.client.MetricFamily\" , text/plain";
        assert_eq!(of(&[quoted]), Format::Protobuf);
    }

    #[test]
    fn everybody_else_gets_text() {
        for values in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["text/html,*/*;q=0.8"],
            &["application/vnd.google.protobuf"],
            &[
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            ],
            &["application/vnd.google.protobuf;proto=other;encoding=delimited"],
            &[
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0",
            ],
            &[
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=nan",
            ],
            &[
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5",
                "*/*;q=0.1, text/plain;q=0.6",
            ],
        ] {
            assert_eq!(of(values), Format::Text, "{values:?}");
        }
    }

    #[test]
    fn the_most_precise_word_on_text_counts() {
        let precise = "*/*, text/*;q=0.4, text/plain;q=0.3";
        let half = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5";
        assert_eq!(of(&[half, precise]), Format::Protobuf);
        assert_eq!(of(&[precise, half]), Format::Protobuf);
        let other = "text/plain;version=9;q=0.1, */*;q=0.6";
        assert_eq!(of(&[half, other]), Format::Text);
    }
}
