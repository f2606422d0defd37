//! Queries of the pooler's own on a server that no client is using at the moment.

use std::future::poll_fn;
use std::task::Poll;

use bytes::BytesMut;
use pgweir_net::buffer::with_scratch;
use pgweir_session::{ClientSide, Gather, Relay, Rules};

use crate::server::Server;

/// Writes what is queued and reads until the server owes nothing any more; what it said. A COPY
/// that a client has left behind is ended when it begins.
pub(crate) async fn until_quiet(
    server: &mut Server,
    side: &mut ClientSide,
    rules: &Rules<'_>,
) -> Result<Vec<u8>, String> {
    until(server, side, rules, Relay::is_quiet).await
}

/// As [`until_quiet`], up to another moment. What has been done stays done if this is dropped, but
/// what was said is lost.
pub(crate) async fn until(
    server: &mut Server,
    side: &mut ClientSide,
    rules: &Rules<'_>,
    is_done: impl Fn(&Relay) -> bool,
) -> Result<Vec<u8>, String> {
    let mut said = Vec::new();
    let (mut heard, mut out) = (Gather::default(), BytesMut::new());
    poll_fn(|cx| {
        with_scratch(|scratch| {
            loop {
                if server.line.has_unsent()
                    && let Poll::Ready(Err(error)) = server.line.poll_drain(cx)
                {
                    return Poll::Ready(Err(error.to_string()));
                }
                if is_done(&server.relay) {
                    return Poll::Ready(Ok(()));
                }
                let input = match server.line.poll_read(cx, scratch) {
                    Poll::Ready(Ok(input)) => input,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                    Poll::Pending => return Poll::Pending,
                };
                let bytes = input.bytes(scratch);
                if bytes.is_empty() {
                    return Poll::Ready(Err("server conn crashed?".to_owned()));
                }
                heard.clear();
                let consumed = server
                    .relay
                    .from_server(bytes, side, rules, &mut heard)
                    .map_err(|violation| violation.to_string())?;
                said.extend_from_slice(heard.bytes(bytes));
                server.line.keep(input, scratch, consumed);
                out.clear();
                let _ = server.relay.abandon(&mut out);
                server.line.queue(&out);
            }
        })
    })
    .await?;
    Ok(said)
}

/// Runs one query whose result does not matter, only whether it worked.
pub(crate) async fn run(server: &mut Server, sql: &str, rules: &Rules<'_>) -> Result<(), String> {
    let mut out = BytesMut::new();
    server.relay.ask(sql, &mut out);
    server.line.queue(&out);
    let mut nobody = ClientSide::default();
    until_quiet(server, &mut nobody, rules).await.map(|_| ())
}
