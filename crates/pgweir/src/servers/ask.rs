//! Queries of the pooler's own on a server that no client is using at the moment.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use pgweir_net::buffer::with_scratch;
use pgweir_session::{ClientSide, Gather, Relay, Rules};
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, HEADER_LEN, Header, Reader, frontend};

use crate::servers::server::Server;

/// Writes what is queued and reads until the server owes nothing any more; what it said. A COPY
/// that a client has left behind is ended when it begins.
pub(crate) async fn until_quiet(
    server: &mut Server,
    side: &mut ClientSide,
    rules: &Rules<'_>,
) -> Result<BytesMut, String> {
    let mut said = BytesMut::new();
    let all = |part: &mut BytesMut| said.unsplit(part.split());
    until(server, side, rules, Relay::is_quiet, all).await?;
    Ok(said)
}

/// As [`until_quiet`], up to another moment, and what the server says is thrown away, however much it is. What has been
/// done stays done if this is dropped.
pub(crate) async fn pass_over(
    server: &mut Server,
    side: &mut ClientSide,
    rules: &Rules<'_>,
    is_done: impl Fn(&Relay) -> bool,
) -> Result<(), String> {
    until(server, side, rules, is_done, BytesMut::clear).await
}

/// `hear` gets each part of what the server says.
async fn until(
    server: &mut Server,
    side: &mut ClientSide,
    rules: &Rules<'_>,
    is_done: impl Fn(&Relay) -> bool,
    mut hear: impl FnMut(&mut BytesMut),
) -> Result<(), String> {
    let (mut said, mut out) = (BytesMut::new(), BytesMut::new());
    poll_fn(|cx| {
        loop {
            write(server, cx)?;
            if is_done(&server.relay) {
                return Poll::Ready(Ok(()));
            }
            if !ready!(poll_said(server, side, rules, cx, &mut said))? {
                return Poll::Ready(Err("server conn crashed?".to_owned()));
            }
            hear(&mut said);
            out.clear();
            let _ = server.relay.abandon(&mut out);
            server.line.queue(&out);
        }
    })
    .await
}

/// Writes what is queued, as far as the server takes it.
pub(crate) fn write(server: &mut Server, cx: &mut Context<'_>) -> Result<(), String> {
    match server.line.has_unsent().then(|| server.line.poll_drain(cx)) {
        Some(Poll::Ready(Err(error))) => Err(error.to_string()),
        Some(Poll::Ready(Ok(())) | Poll::Pending) | None => Ok(()),
    }
}

/// Reads once, and appends what the server says; `false`: it has closed the connection.
pub(crate) fn poll_said(
    server: &mut Server,
    side: &mut ClientSide,
    rules: &Rules<'_>,
    cx: &mut Context<'_>,
    said: &mut BytesMut,
) -> Poll<Result<bool, String>> {
    with_scratch(|scratch| {
        let input =
            ready!(server.line.poll_read(cx, scratch)).map_err(|error| error.to_string())?;
        let bytes = input.bytes(scratch);
        if bytes.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let mut heard = Gather::default();
        let consumed = server
            .relay
            .from_server(bytes, side, rules, &mut heard)
            .map_err(|violation| violation.to_string())?;
        said.extend_from_slice(heard.bytes(bytes));
        server.line.keep(input, scratch, consumed);
        Poll::Ready(Ok(true))
    })
}

/// Runs one query whose result does not matter, only whether it worked.
pub(crate) async fn run(server: &mut Server, sql: &str, rules: &Rules<'_>) -> Result<(), String> {
    let mut out = BytesMut::new();
    server.relay.ask(sql, &mut out);
    server.line.queue(&out);
    let mut nobody = ClientSide::default();
    pass_over(server, &mut nobody, rules, Relay::is_quiet).await
}

/// Brings a server to what its sessions begin with, for a client that is nobody: no client's
/// search_path may decide what a query of the pooler's own means.
pub(crate) async fn as_nobody(
    server: &mut Server,
    rules: &Rules<'_>,
) -> Result<ClientSide, String> {
    let mut nobody = ClientSide::default();
    if let Some(welcome) = server.info.welcome.get() {
        nobody.values = welcome.tracked.clone();
    }
    let mut out = BytesMut::new();
    if server.relay.fit(&mut nobody, rules.tracked, &mut out) {
        server.line.queue(&out);
        pass_over(server, &mut nobody, rules, Relay::is_quiet).await?;
    }
    match server.relay.take_refused() {
        Some(refused) => Err(refused.message),
        None => Ok(nobody),
    }
}

/// Runs one query as a client would, and returns the cells of the last row of its result.
pub(crate) async fn row(
    server: &mut Server,
    sql: &str,
    rules: &Rules<'_>,
) -> Result<Vec<Option<Vec<u8>>>, String> {
    let mut request = BytesMut::new();
    frontend::query(&mut request, sql);
    let (mut to_server, mut to_client) = (Gather::default(), BytesMut::new());
    let mut nobody = as_nobody(server, rules).await?;
    server
        .relay
        .from_client(&request, &mut nobody, rules, &mut to_server, &mut to_client)
        .map_err(|violation| violation.to_string())?;
    server.line.queue(to_server.bytes(&request));
    let reply = until_quiet(server, &mut nobody, rules).await?;
    last_row(&reply)
}

fn last_row(mut reply: &[u8]) -> Result<Vec<Option<Vec<u8>>>, String> {
    let mut row = None;
    while let Ok(Some((header, body))) = Header::whole(reply, u32::MAX) {
        match header.tag {
            tag::ERROR_RESPONSE => {
                return Err(String::from_utf8_lossy(ErrorFields::parse(body).message).into_owned());
            }
            tag::DATA_ROW => row = Some(cells(body)?),
            _ => {}
        }
        reply = &reply[HEADER_LEN + body.len()..];
    }
    row.ok_or_else(|| "no rows".to_owned())
}

fn cells(body: &[u8]) -> Result<Vec<Option<Vec<u8>>>, String> {
    let broken = |_| "broken row".to_owned();
    let mut reader = Reader::new(body);
    let count = reader.i16().map_err(broken)?;
    let mut cell = || -> Result<Option<Vec<u8>>, String> {
        match usize::try_from(reader.i32().map_err(broken)?) {
            Ok(len) => Ok(Some(reader.bytes(len).map_err(broken)?.to_vec())),
            Err(_) => Ok(None),
        }
    };
    (0..count).map(|_| cell()).collect()
}
