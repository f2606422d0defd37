//! What asks the pooler over HTTP, and reads a metrics page.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use pgweir_harness::{Ini, Pooler};

/// Longer than the pooler gives any connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where pages are, on a Unix socket in the pooler's own directory.
#[derive(Debug, Clone)]
pub struct Http {
    path: PathBuf,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status; 0 is none.
    pub code: u16,
    /// The status line and the headers.
    pub head: String,
    /// The rest.
    pub body: String,
}

impl Http {
    /// Adds the socket to a configuration.
    #[must_use]
    pub fn set(ini: Ini) -> Ini {
        ini.set("metrics_listen", "{dir}/http")
    }

    /// That of a pooler which was configured so.
    pub fn of(pooler: &Pooler) -> Self {
        Self {
            path: pooler.socket_dir.join("http"),
        }
    }

    /// A connection on which nothing was said yet.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Asks for a page.
    ///
    /// # Panics
    /// If there is no answer at all.
    #[track_caller]
    pub fn get(&self, page: &str) -> Answer {
        self.try_get(page).expect("the pooler answers over HTTP")
    }

    /// Asks for a page.
    pub fn try_get(&self, page: &str) -> io::Result<Answer> {
        self.say(format!("GET {page} HTTP/1.1\r\nHost: weir\r\n\r\n").as_bytes())
    }

    /// Sends these bytes, whatever they are, and reads to the end of the connection.
    pub fn say(&self, bytes: &[u8]) -> io::Result<Answer> {
        let mut stream = self.connect()?;
        // Who is sent away may not have read everything.
        let _ = stream.write_all(bytes);
        Self::read(&mut stream)
    }

    /// Asks for the metrics page in this form. Gives the head and the body.
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn metrics_as(&self, accept: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect().expect("the pooler listens");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: weir\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let bytes = Self::read_bytes(&mut stream).expect("the pooler answers over HTTP");
        let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, body) = bytes.split_at(end.expect("a head") + 4);
        (String::from_utf8_lossy(head).into_owned(), body.to_vec())
    }

    /// Reads an answer to the end of the connection.
    pub fn read(stream: &mut UnixStream) -> io::Result<Answer> {
        let bytes = Self::read_bytes(stream)?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            code: code.unwrap_or(0),
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    fn read_bytes(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Ok(_) | Err(_) => Ok(bytes),
        }
    }

    /// The metrics page.
    ///
    /// # Panics
    /// If there is none, or it cannot be read.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.code, 200, "{}", answer.head);
        Metrics::parse(&answer.body)
    }
}

/// A metrics page.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// The type of every family, by name.
    pub types: BTreeMap<String, String>,
    /// All samples in their order.
    pub samples: Vec<Sample>,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, with `_bucket`, `_sum` or `_count` if it is a part of a histogram.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// # Panics
    /// If it is not the text format: a family that comes twice or has samples elsewhere, a value that
    /// is no number, a label that does not end.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap_or_default().to_owned();
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert_eq!(name, family, "TYPE follows HELP");
                let known = metrics.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{name} comes twice");
                continue;
            }
            let sample = Sample::parse(line);
            let part = sample.name.strip_prefix(&family).unwrap_or("elsewhere");
            assert!(
                matches!(part, "" | "_bucket" | "_sum" | "_count"),
                "{line} in {family}"
            );
            metrics.samples.push(sample);
        }
        metrics
    }

    /// The samples of this name that have these labels, and perhaps others.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(name, value): &(&str, &str)| {
                sample.labels.get(*name).is_some_and(|label| label == value)
            };
            sample.name == name && labels.iter().all(has)
        })
    }

    /// The value of the one sample with these labels.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.all(name, labels).collect();
        match found[..] {
            [sample] => sample.value,
            _ => panic!("{name} {labels:?}: {found:?}"),
        }
    }

    /// All values with these labels added up.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }
}

impl Sample {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let end = line.find(['{', ' ']).expect(line);
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            let (parsed, after) = parse_labels(inside);
            (labels, rest) = (parsed, after);
        }
        let value = match rest.trim() {
            "+Inf" => f64::INFINITY,
            value => value.parse().expect(line),
        };
        Self {
            name: name.to_owned(),
            labels,
            value,
        }
    }
}

#[track_caller]
fn parse_labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    loop {
        let (name, after) = rest.split_once("=\"").expect(text);
        let (value, after) = unescaped(after);
        labels.insert(name.to_owned(), value);
        match after.split_at(1) {
            (",", next) => rest = next,
            ("}", next) => return (labels, next),
            _ => panic!("{text}"),
        }
    }
}

/// A label's value up to its closing quote, and what follows.
#[track_caller]
fn unescaped(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, character)) = chars.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
    }
    panic!("no end: {text}")
}
