//! One request over HTTP to a service beside the pooler: without encryption, and on a connection of its own. For a few
//! requests in a minute, so nothing is kept.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// `http://HOST[:PORT][/PATH]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Url {
    /// As it stands there, for the header `Host`.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// # Errors
    /// Why it is none; the text does not repeat it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://");
        let rest = rest.ok_or("an address that begins with http:// was expected")?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(80), str::parse);
        if host.is_empty() || authority.contains('@') {
            return Err("an address with a host was expected".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.map_err(|_| "the port is no number")?,
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            authority: authority.to_owned(),
        })
    }
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: &'a Url,
    pub(crate) headers: Vec<(&'static str, &'a str)>,
    pub(crate) body: Vec<u8>,
}

/// The body of an answer that says that all is well.
///
/// # Errors
/// There is none in time, or it says something else; the text has nothing of what was sent or read.
pub(crate) async fn fetch(request: Request<'_>, patience: Duration) -> Result<Vec<u8>, String> {
    let authority = request.url.authority.clone();
    let asked = timeout(patience, exchange(request)).await;
    let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())));
    asked.map_err(|reason| format!("{authority}: {reason}"))
}

async fn exchange(request: Request<'_>) -> Result<Vec<u8>, String> {
    let Url { host, port, .. } = request.url;
    let addresses = lookup_host((host.as_str(), *port)).await;
    let addresses: Vec<SocketAddr> = addresses.map_err(|error| error.to_string())?.collect();
    let stream = TcpStream::connect(&*addresses).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let built = hyper::Request::builder()
        .method(request.method)
        .uri(&request.url.path)
        .header(HOST, &request.url.authority);
    let built = request
        .headers
        .iter()
        .fold(built, |built, (name, value)| built.header(*name, *value));
    let built = built
        .body(Whole(Some(request.body.into())))
        .map_err(|_| "such a request cannot be made")?;
    let answered = async {
        let answer = sender.send_request(built).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = read(answer.into_body()).await?;
        match status.is_success() {
            true => Ok(body),
            false => Err(format!("answered with {status}")),
        }
    };
    // The connection has to be driven until the answer is there, and ends with it.
    tokio::pin!(answered);
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        () = driven => Err("the connection has ended".to_owned()),
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame else { return Ok(read) };
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        }
        if read.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
}

/// A body that is there at once.
struct Whole(Option<bytes::Bytes>);

impl hyper::body::Body for Whole {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        let data = self.0.take().filter(|data| !data.is_empty());
        std::task::Poll::Ready(data.map(|data| Ok(hyper::body::Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(bytes::Bytes::is_empty)
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let left = self.0.as_ref().map_or(0, bytes::Bytes::len);
        hyper::body::SizeHint::with_exact(left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, host, port, path) in [
            ("http://collector:4318", "collector", 4318, "/"),
            ("http://10.0.0.1/v1", "10.0.0.1", 80, "/v1"),
            ("http://[fd00:ec2::23]:81/a?b", "fd00:ec2::23", 81, "/a?b"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((&*url.host, url.port, &*url.path), (host, port, path));
        }
        for text in ["https://x", "x:1", "http://", "http://a:b/", "http://u@h/"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
