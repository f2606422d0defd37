//! What is answered to which request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use pgweir_stats::prometheus;

use super::{metrics, status};
use crate::shared::Shared;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

const PLACES: &str = "\
/metrics      for Prometheus
/livez        whether the process works
/readyz       whether clients are served; ?db=NAME for one database
/status.json  databases, limits and leak suspects
";

/// A page.
pub(super) struct Page(Option<Bytes>);

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Answers a request; a body that it may have is not read.
pub(super) async fn to(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Page>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return Ok(answer);
    }
    Ok(match request.uri().path() {
        "/metrics" => written(&shared, prometheus::CONTENT_TYPE, metrics::page).await,
        "/status.json" => written(&shared, JSON, |shared, _| status::page(shared)).await,
        "/livez" | "/healthz" => {
            let (alive, text) = status::alive(&shared);
            page(code(alive), JSON, text)
        }
        "/readyz" => match database(request.uri().query().unwrap_or_default()) {
            None => {
                let (ready, text) = status::ready(&shared);
                page(code(ready), JSON, text)
            }
            Some(name) => match status::database_ready(&shared, &name) {
                Some((ready, text)) => page(code(ready), JSON, text),
                None => page(StatusCode::NOT_FOUND, TEXT, "no such database\n"),
            },
        },
        "/" => page(StatusCode::OK, TEXT, PLACES),
        _ => page(StatusCode::NOT_FOUND, TEXT, PLACES),
    })
}

async fn written(
    shared: &Arc<Shared>,
    kind: &'static str,
    write: impl FnOnce(&Shared, std::time::Duration) -> String + Send + 'static,
) -> Response<Page> {
    let known = Arc::clone(shared);
    match shared.http.write(move |last| write(&known, last)).await {
        Some(text) => page(StatusCode::OK, kind, text),
        None => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "a bug\n"),
    }
}

fn code(good: bool) -> StatusCode {
    match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn page(code: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Page> {
    let mut answer = Response::new(Page(Some(text.into())));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The value of `db` in a query string.
fn database(query: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == "db")
        .map(|(_, value)| decoded(value))
}

/// Undoes percent encoding; what is none stays as it is.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let code = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                bytes.push(high * 16 + low);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_stands_in_the_query() {
        for (query, name) in [
            ("db=app", Some("app")),
            ("a=b&db=my%20app", Some("my app")),
            ("db=a%C3%A4", Some("aä")),
            ("db=100%", Some("100%")),
            ("db=%4", Some("%4")),
            ("db=", Some("")),
            ("verbose", None),
        ] {
            assert_eq!(database(query).as_deref(), name, "{query}");
        }
    }
}
