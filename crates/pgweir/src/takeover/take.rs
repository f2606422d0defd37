//! The new process: finds the old one, and asks it for everything.
//!
//! All this happens before anything else runs, so it simply waits.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use bytes::BytesMut;
use pgweir_config::Settings;
use pgweir_console::HANDOVER_VERSION;
use pgweir_net::{UnixName, receive_with_fds};
use pgweir_session::handover::{Bytes, ClientState, ValuesState};
use pgweir_wire::backend::Authentication;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, HEADER_LEN, Header, ProtocolVersion, Reader, frontend};

use super::parcel::{Age, Buffers, Client, LearntSecret, Parcel, Relay, Server};

/// PgBouncer names its console and the user who needs no password there so; so do we.
const CONSOLE: &str = "pgbouncer";

/// The longest text that the old process may send of one thing: several messages that a client's relay holds may stand in it, in
/// base64. It is a process of our own user's.
const MESSAGE_MAX: u32 = i32::MAX.cast_unsigned();

/// The old process, on its console.
pub(crate) struct Predecessor {
    socket: UnixStream,
    unread: BytesMut,
    sockets: VecDeque<OwnedFd>,
}

/// What it has handed over.
pub(crate) struct Estate {
    pub(crate) parcels: Vec<(Parcel, Option<OwnedFd>)>,
    pub(crate) from: Kind,
}

/// What the old process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One that tells everything.
    Pgweir,
    /// One that tells what PgBouncer tells.
    PgBouncer,
}

/// The columns of a row; `None` is NULL.
type Row = Vec<Option<String>>;

/// Whether a process accepts connections on the configured Unix socket; then a start without a
/// takeover is a mistake.
pub(crate) fn find(settings: &Settings) -> Option<UnixStream> {
    let name = UnixName::in_dir(&settings.unix_socket_dir, settings.listen_port);
    match settings.unix_socket_dir.is_empty() {
        true => None,
        false => UnixStream::connect(name.file()?).ok(),
    }
}

impl Predecessor {
    /// Logs in to the console of the process that has this socket.
    ///
    /// # Errors
    /// The text for the log.
    pub(crate) fn log_in(socket: UnixStream) -> Result<Self, String> {
        let mut predecessor = Self {
            socket,
            unread: BytesMut::new(),
            sockets: VecDeque::new(),
        };
        let mut out = BytesMut::new();
        let parameters = [("user", CONSOLE), ("database", CONSOLE)];
        frontend::startup(&mut out, ProtocolVersion::V3_0, parameters);
        predecessor.send(&out)?;
        loop {
            let (kind, body) = predecessor.message()?;
            match kind {
                tag::READY_FOR_QUERY => return Ok(predecessor),
                tag::ERROR_RESPONSE => return Err(format!("login failed: {}", error_text(&body))),
                tag::AUTHENTICATION => match Authentication::parse(&body) {
                    Ok(Authentication::Ok) => {}
                    _ => return Err("login failed: it asks for a password".to_owned()),
                },
                _ => {}
            }
        }
    }

    /// Lets it hold everything, and takes everything over.
    ///
    /// # Errors
    /// The text for the log. The old process goes on as if nothing had happened.
    pub(crate) fn take(&mut self) -> Result<Estate, String> {
        let mut parcels = Vec::new();
        let answer = self.ask(&format!("HANDOVER {HANDOVER_VERSION};"), |row, sockets| {
            parcels.push(parcel(row, sockets)?);
            Ok(())
        })?;
        match answer {
            Ok(()) => Ok(Estate {
                parcels,
                from: Kind::Pgweir,
            }),
            Err(refusal) if refusal.contains("invalid command") => self.take_from_pgbouncer(),
            Err(refusal) => Err(refusal),
        }
    }

    fn take_from_pgbouncer(&mut self) -> Result<Estate, String> {
        tracing::info!("login OK, sending SUSPEND");
        self.ask("SUSPEND;", |_, _| Ok(()))??;
        tracing::info!("SUSPEND finished, sending SHOW FDS");
        let mut parcels = Vec::new();
        self.ask("SHOW FDS;", |row, sockets| {
            parcels.push(parcel_of_fds(row, sockets)?);
            Ok(())
        })??;
        tracing::info!("SHOW FDS finished");
        Ok(Estate {
            parcels,
            from: Kind::PgBouncer,
        })
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Errors
    /// The text for the log. If somebody has resumed meanwhile it goes on, and all is its own again.
    pub(crate) fn end(mut self) -> Result<(), String> {
        tracing::info!("sending SHUTDOWN;");
        let mut out = BytesMut::new();
        frontend::query(&mut out, "SHUTDOWN;");
        match self.socket.write_all(&out) {
            // It has died already, unless what it has said is a refusal.
            Err(error) if is_gone(&error) => {}
            other => other.map_err(unheard)?,
        }
        let mut sink = [0; 512];
        loop {
            match self.socket.read(&mut sink) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    self.unread.extend_from_slice(&sink[..len]);
                    if let Some(refusal) = refusal(&self.unread) {
                        return Err(refusal);
                    }
                }
                // It did not read all that we sent: that is an end, too.
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("error while waiting for its end: {error}")),
            }
        }
    }

    /// Asks one thing; `take` gets each row, with the sockets that have come so far. The inner error
    /// is what the old process says.
    fn ask(
        &mut self,
        sql: &str,
        mut take: impl FnMut(Row, &mut VecDeque<OwnedFd>) -> Result<(), String>,
    ) -> Result<Result<(), String>, String> {
        self.query(sql)?;
        let mut answer = Ok(());
        loop {
            let (kind, body) = self.message()?;
            match kind {
                tag::READY_FOR_QUERY => return Ok(answer),
                tag::ERROR_RESPONSE => answer = Err(error_text(&body)),
                tag::DATA_ROW => {
                    let row = columns(&body).ok_or("the running process sent a broken row")?;
                    take(row, &mut self.sockets)?;
                }
                _ => {}
            }
        }
    }

    fn query(&mut self, sql: &str) -> Result<(), String> {
        let mut out = BytesMut::new();
        frontend::query(&mut out, sql);
        self.send(&out)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(unheard)
    }

    fn message(&mut self) -> Result<(u8, BytesMut), String> {
        loop {
            let header = Header::peek(&self.unread, MESSAGE_MAX).map_err(|e| e.to_string())?;
            if let Some(header) = header
                && self.unread.len() >= header.frame_len()
            {
                let mut frame = self.unread.split_to(header.frame_len());
                return Ok((header.tag, frame.split_off(HEADER_LEN)));
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Result<(), String> {
        let mut buf = [0; 16 * 1024];
        let fd = self.socket.as_fd();
        match receive_with_fds(fd, &mut buf, &mut self.sockets) {
            Ok(0) => Err("the running process has closed the connection".to_owned()),
            Ok(len) => {
                self.unread.extend_from_slice(&buf[..len]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(format!("cannot hear the running process: {error}")),
        }
    }
}

fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(ErrorFields::parse(body).message).into_owned()
}

fn unheard(error: io::Error) -> String {
    format!("cannot talk to the running process: {error}")
}

fn is_gone(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    kinds.contains(&error.kind())
}

/// What an answer begins with, if that is an error: a process that ends says nothing, and one that has closed its console for
/// another reason goes on.
fn refusal(answer: &[u8]) -> Option<String> {
    let (header, body) = Header::whole(answer, MESSAGE_MAX).ok()??;
    (header.tag == tag::ERROR_RESPONSE).then(|| error_text(body))
}

fn columns(body: &[u8]) -> Option<Row> {
    let mut reader = Reader::new(body);
    let count = reader.i16().ok()?;
    let mut column = || {
        let len = reader.i32().ok()?;
        let Ok(len) = usize::try_from(len) else {
            return Some(None);
        };
        let text = std::str::from_utf8(reader.bytes(len).ok()?).ok()?;
        Some(Some(text.to_owned()))
    };
    (0..count).map(|_| column()).collect()
}

fn parcel(
    mut row: Row,
    sockets: &mut VecDeque<OwnedFd>,
) -> Result<(Parcel, Option<OwnedFd>), String> {
    let text = row.pop().flatten().unwrap_or_default();
    let parcel: Parcel = serde_json::from_str(&text)
        .map_err(|error| format!("invalid data from the running process: {error}"))?;
    let socket = match parcel.has_socket() {
        true => Some(next(sockets)?),
        false => None,
    };
    Ok((parcel, socket))
}

fn next(sockets: &mut VecDeque<OwnedFd>) -> Result<OwnedFd, String> {
    let missing = "the running process sent a row without its socket";
    sockets.pop_front().ok_or_else(|| missing.to_owned())
}

/// One row of PgBouncer's SHOW FDS as a parcel. Columns that it may not have are NULL.
fn parcel_of_fds(
    row: Row,
    sockets: &mut VecDeque<OwnedFd>,
) -> Result<(Parcel, Option<OwnedFd>), String> {
    let socket = Some(next(sockets)?);
    let mut row = row.into_iter();
    let mut text = || row.next().flatten();
    let [fd, task, user, database, _addr, _port, cancel, link] = std::array::from_fn(|_| text());
    let names = [
        "client_encoding",
        "standard_conforming_strings",
        "DateStyle",
        "TimeZone",
    ];
    let tracked = names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), text()?)))
        .collect();
    let values = ValuesState {
        tracked,
        requested: Vec::new(),
    };
    let [password, client_key, _server_key] = std::array::from_fn(|_| text());
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    // PgBouncer 1.25 writes the key as an unsigned number.
    let key: u64 = cancel.map_or(0, |text| {
        let signed = text.parse::<i64>().map(i64::cast_unsigned);
        signed.or_else(|_| text.parse()).unwrap_or(0)
    });
    let link = Some(number(link)).filter(|link| *link != 0);
    let parcel = match task.as_deref() {
        Some("pooler") => Parcel::Listener,
        Some("client") => Parcel::Client(Box::new(Client {
            server: link,
            database: database.unwrap_or_default(),
            user: user.unwrap_or_default(),
            cancel_key: Bytes(key.to_be_bytes().to_vec()),
            side: ClientState::of_values(values),
            buffers: Buffers::default(),
            notifications: Bytes::default(),
            replication: None,
            connected: Age::default(),
            since: Age::default(),
            waits: false,
            secret: LearntSecret {
                password: password.map(|text| Bytes(text.into_bytes())),
                scram_client_key: client_key.and_then(|text| hex(&text)).map(Bytes),
            },
        })),
        Some("server") => Parcel::Server(Box::new(Server {
            number: number(fd),
            is_lent: link.is_some(),
            is_own: false,
            database: database.unwrap_or_default(),
            user: user.unwrap_or_default(),
            cancel_key: Bytes(key.to_be_bytes().to_vec()),
            relay: Relay::Unknown(values),
            buffers: Buffers::default(),
            welcome: None,
            opened: Age::default(),
            host: None,
            destination: None,
            is_obsolete: false,
            query: None,
            transaction: None,
        })),
        other => return Err(format!("the running process has a socket for {other:?}")),
    };
    Ok((parcel, socket))
}

/// The bytes of a bytea.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests;
