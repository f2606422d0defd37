//! Operations on a relay, with bytes of both sides cut anywhere: never a panic, and whatever either
//! side is given consists of frames.
#![no_main]

use bytes::{BufMut as _, BytesMut};
use libfuzzer_sys::{arbitrary, fuzz_target};
use pgweir_session::{
    Abandon, ClientSide, Gather, Relay, Rules, StateRules, StatementTable, Tracked, Values,
};
use pgweir_wire::Header;

#[derive(Debug, arbitrary::Arbitrary)]
enum Step<'a> {
    /// The client sends a message of a type that it may send.
    Client(u8, &'a [u8]),
    /// The client sends a message that names a statement.
    Statement(u8, u8, u8),
    /// The client sends anything.
    ClientBytes(&'a [u8]),
    /// The server sends a message of a type that it may send.
    Server(u8, &'a [u8]),
    /// The server sends a message that fits well.
    Plain(u8),
    /// The server sends anything.
    ServerBytes(&'a [u8]),
    /// So many bytes of the client arrive.
    FromClient(u8),
    /// So many bytes of the server arrive.
    FromServer(u8),
    /// Another client gets the server, if it is free.
    Lease(u8),
    /// The pooler asks something, if nobody else does.
    Ask,
}

/// What one side is given.
#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    /// Takes whole frames away.
    fn judge(&mut self) {
        let mut at = 0;
        loop {
            let header = Header::peek(&self.0[at..], u32::MAX).expect("frames go out");
            match header {
                Some(header) if self.0.len() - at >= header.frame_len() => at += header.frame_len(),
                Some(_) | None => break,
            }
        }
        self.0.drain(..at);
    }

    fn is_whole(&self) -> bool {
        self.0.is_empty()
    }
}

fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(body.len() as u32 + 4);
    out.put_slice(body);
}

fuzz_target!(|input: (Option<u8>, Vec<Step<'_>>)| {
    let (max_prepared, steps) = input;
    let (tracked, table) = (Tracked::new([]), StatementTable::default());
    let rules = Rules {
        max_prepared: max_prepared.map(usize::from),
        prepares_unnamed: true,
        refuses_queries: false,
        answers_as_postgres: true,
        backends: None,
        private: false,
        state: StateRules::default(),
        max_message: 1 << 20,
        tracked: &tracked,
        statements: &table,
    };
    let mut relay = Relay::new(Values::default());
    let mut clients = [(); 3].map(|()| ClientSide::default());
    clients[1].values.request("jit", "off");
    clients[2].values.request("search_path", "a, b");
    let mut now = 0;
    let (mut client_in, mut server_in) = (Vec::new(), Vec::new());
    let (mut to_client, mut to_server) = (Output::default(), Output::default());
    for step in steps {
        match step {
            Step::Client(tag, body) => {
                let tags = b"BCdcfDEHFPQSX";
                frame(&mut client_in, tags[usize::from(tag) % tags.len()], body);
            }
            Step::Statement(tag, name, text) => {
                let (name, text) = (name % 4, text % 4);
                let (tag, body) = match tag % 5 {
                    0 => (b'P', format!("s{name}\0{text}\0\0\0")),
                    1 => (b'B', format!("\0s{name}\0\0\0\0\0\0\0")),
                    2 => (b'D', format!("Ss{name}\0")),
                    3 => (b'C', format!("Ss{name}\0")),
                    _ => (b'Q', "DISCARD ALL\0".to_owned()),
                };
                frame(&mut client_in, tag, body.as_bytes());
            }
            Step::ClientBytes(bytes) => client_in.extend_from_slice(bytes),
            Step::Server(tag, body) => {
                let tags = b"23CdcDHIWEVnNAtSGs1ZT";
                frame(&mut server_in, tags[usize::from(tag) % tags.len()], body);
            }
            Step::Plain(tag) => {
                let (tag, body): (u8, &[u8]) = match tag % 14 {
                    0 => (b'1', b""),
                    1 => (b'2', b""),
                    2 => (b'3', b""),
                    3 => (b'C', b"SELECT 1\0"),
                    4 => (b'C', b"DISCARD ALL\0"),
                    5 => (b'Z', b"I"),
                    6 => (b'Z', b"T"),
                    7 => (b'E', b"SERROR\0C42601\0Mno\0\0"),
                    8 => (b'G', b"\0\0\0"),
                    9 => (b'S', b"TimeZone\0GMT\0"),
                    10 => (b'n', b""),
                    11 => (b'C', b"SET\0"),
                    12 => (b'C', b"RESET\0"),
                    _ => (b't', b"\0\0"),
                };
                frame(&mut server_in, tag, body);
            }
            Step::ServerBytes(bytes) => server_in.extend_from_slice(bytes),
            Step::FromClient(len) => {
                if relay.is_asking() {
                    continue;
                }
                let offered = &client_in[..client_in.len().min(usize::from(len) * 4)];
                let (mut out, mut fakes) = (Gather::default(), BytesMut::new());
                let client = &mut clients[now];
                let verdict = relay.from_client(offered, client, &rules, &mut out, &mut fakes);
                to_server.0.extend_from_slice(out.bytes(offered));
                to_client.0.extend_from_slice(&fakes);
                to_server.judge();
                let Ok(verdict) = verdict else { return };
                if verdict.terminate {
                    return;
                }
                client_in.drain(..verdict.consumed);
            }
            Step::FromServer(len) => {
                let offered = &server_in[..server_in.len().min(usize::from(len) * 4)];
                let mut out = Gather::default();
                let client = &mut clients[now];
                let Ok(consumed) = relay.from_server(offered, client, &rules, &mut out) else {
                    return;
                };
                to_client.0.extend_from_slice(out.bytes(offered));
                server_in.drain(..consumed);
            }
            Step::Lease(client) if relay.may_release() => {
                now = usize::from(client) % clients.len();
                client_in.clear();
                relay.begin_lease(now as u64 + 1);
                let mut out = BytesMut::new();
                relay.fit(&mut clients[now], &tracked, &mut out);
                to_server.0.extend_from_slice(&out);
            }
            Step::Ask if relay.is_quiet() => {
                let mut out = BytesMut::new();
                relay.ask("select 1", &mut out);
                to_server.0.extend_from_slice(&out);
            }
            Step::Lease(_) | Step::Ask => {}
        }
        to_client.judge();
        to_server.judge();
        assert!(!relay.is_quiet() || to_server.is_whole() && to_client.is_whole());
        assert!(!relay.is_between_replies() || to_client.is_whole());
    }
    let mut out = BytesMut::new();
    if relay.abandon(&mut out) == Abandon::Drain {
        assert!(to_server.is_whole(), "what the pooler adds begins a frame");
    }
});
