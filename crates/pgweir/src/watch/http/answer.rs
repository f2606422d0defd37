//! What is answered to which request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use pgweir_net::Address;
use pgweir_stats::{prometheus, protobuf};

use super::format::{self, Format};
use super::{access, metrics, status};
use crate::shared::Shared;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

const STATUS: &str = include_str!("status.html");

/// The status page asks this place only, and is nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const PLACES: &str = "\
/metrics      for Prometheus
/livez        whether the process works
/readyz       whether clients are served; ?db=NAME for one database
/             databases, limits and leak suspects, for people
/status.json  the same for programs
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
    peer: Address,
    request: Request<Incoming>,
) -> Result<Response<Page>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
        set(&mut answer, ALLOW, "GET, HEAD");
        return Ok(answer);
    }
    let path = request.uri().path();
    if matches!(path, "/" | "/status.json")
        && !access::is_allowed(&shared, &peer, request.headers()).await
    {
        let mut answer = page(StatusCode::UNAUTHORIZED, TEXT, "a user of the console\n");
        set(&mut answer, WWW_AUTHENTICATE, "Basic realm=\"pgweir\"");
        return Ok(answer);
    }
    Ok(match path {
        "/metrics" => match format::wanted(request.headers()) {
            Format::Text => written(&shared, prometheus::CONTENT_TYPE, metrics::text).await,
            Format::Protobuf => written(&shared, protobuf::CONTENT_TYPE, metrics::protobuf).await,
        },
        "/status.json" => written(&shared, JSON, status::page).await,
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
        "/" => {
            let mut answer = page(StatusCode::OK, HTML, STATUS);
            set(&mut answer, CONTENT_SECURITY_POLICY, POLICY);
            answer
        }
        _ => page(StatusCode::NOT_FOUND, TEXT, PLACES),
    })
}

async fn written<T: Into<Bytes> + Send + 'static>(
    shared: &Arc<Shared>,
    kind: &'static str,
    write: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Response<Page> {
    let known = Arc::clone(shared);
    match shared.http.write(move || write(&known)).await {
        Some(written) => page(StatusCode::OK, kind, written),
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
    set(&mut answer, CONTENT_TYPE, kind);
    set(&mut answer, CACHE_CONTROL, "no-store");
    set(&mut answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

fn set(answer: &mut Response<Page>, name: HeaderName, value: &'static str) {
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(name, value);
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
