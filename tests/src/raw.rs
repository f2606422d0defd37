//! A client that says exactly what it is told to say, and reads exactly what comes back.
//!
//! Drivers hide what a pooler gets wrong: the order of messages, an answer too many, a connection that is cut
//! instead of closed. Here a test sends messages by name and compares the answer, message by message, with a text
//! such as `T D(1) C(SELECT 1) Z(I)`: the tags of PostgreSQL's manual, and in parentheses what matters of the body.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use bytes::{BufMut, BytesMut};
use pgweir_harness::Table;
use pgweir_wire::{
    CancelKey, ErrorFields, Header, ProtocolVersion, Reader,
    backend::{Authentication, read_parameter_status},
    frontend,
    tag::backend as tag,
};

/// Nothing in a test takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// One message from the server's side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Its type.
    pub tag: u8,
    /// What stands behind the length.
    pub body: Vec<u8>,
}

impl Message {
    /// The values of a DataRow as text; NULL is `NULL`.
    pub fn values(&self) -> Vec<String> {
        let mut reader = Reader::new(&self.body);
        let count = reader.i16().unwrap_or(0);
        let mut value = || match reader.i32().ok()? {
            -1 => Some("NULL".to_owned()),
            len => {
                let bytes = reader.bytes(usize::try_from(len).ok()?).ok()?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
        };
        (0..count).map_while(|_| value()).collect()
    }

    /// The detail and the hint of an error, each empty where there is none.
    pub fn explanation(&self) -> (String, String) {
        let field = |wanted: u8| {
            let mut fields = self.body.split(|byte| *byte == 0);
            let found = fields.find(|field| field.first() == Some(&wanted));
            let text = found.map_or_else(Vec::new, |field| field[1..].to_vec());
            String::from_utf8_lossy(&text).into_owned()
        };
        (field(b'D'), field(b'H'))
    }

    /// The names of a RowDescription's columns.
    pub fn columns(&self) -> Vec<String> {
        let mut reader = Reader::new(&self.body);
        let count = reader.i16().unwrap_or(0);
        let mut name = || {
            let name = String::from_utf8_lossy(reader.string().ok()?).into_owned();
            reader.bytes(18).ok()?;
            Some(name)
        };
        (0..count).map_while(|_| name()).collect()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tag as char)?;
        let text = String::from_utf8_lossy;
        match self.tag {
            tag::DATA_ROW => write!(f, "({})", self.values().join(",")),
            tag::COMMAND_COMPLETE => {
                write!(f, "({})", text(&self.body).trim_end_matches('\0'))
            }
            tag::READY_FOR_QUERY => write!(f, "({})", text(&self.body)),
            tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => {
                let fields = ErrorFields::parse(&self.body);
                let (code, message) = (text(fields.code), text(fields.message));
                match fields.severity {
                    b"ERROR" | b"NOTICE" => write!(f, "({code} {message})"),
                    severity => write!(f, "({} {code} {message})", text(severity)),
                }
            }
            tag::PARAMETER_STATUS => match read_parameter_status(&self.body) {
                Ok((name, value)) => write!(f, "({}={})", text(name), text(value)),
                Err(_) => write!(f, "(broken)"),
            },
            tag::NOTIFICATION_RESPONSE => {
                let mut reader = Reader::new(&self.body);
                let sender = reader.i32().unwrap_or_default();
                let mut text = || text(reader.string().unwrap_or_default());
                write!(f, "({sender},{},{})", text(), text())
            }
            _ => Ok(()),
        }
    }
}

/// Messages in the words of this module.
pub fn story(messages: &[Message]) -> String {
    let words: Vec<String> = messages.iter().map(Message::to_string).collect();
    words.join(" ")
}

/// Messages to send in one write.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: BytesMut,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Query
    #[must_use]
    pub fn query(mut self, sql: &str) -> Self {
        frontend::query(&mut self.bytes, sql);
        self
    }

    /// Parse, with the types of the parameters left to the server
    #[must_use]
    pub fn parse(self, name: &str, sql: &str) -> Self {
        self.message(b'P', |out| {
            string(out, name);
            string(out, sql);
            out.put_i16(0);
        })
    }

    /// Bind, all as text
    #[must_use]
    pub fn bind(self, portal: &str, statement: &str, values: &[&str]) -> Self {
        self.message(b'B', |out| {
            string(out, portal);
            string(out, statement);
            out.put_i16(0);
            out.put_i16(values.len() as i16);
            for value in values {
                out.put_i32(value.len() as i32);
                out.put_slice(value.as_bytes());
            }
            out.put_i16(0);
        })
    }

    /// Describe of a statement
    #[must_use]
    pub fn describe_statement(self, name: &str) -> Self {
        self.named(b'D', b'S', name)
    }

    /// Describe of a portal
    #[must_use]
    pub fn describe_portal(self, name: &str) -> Self {
        self.named(b'D', b'P', name)
    }

    /// Execute, without a limit on the rows
    #[must_use]
    pub fn execute(self, portal: &str) -> Self {
        self.execute_rows(portal, 0)
    }

    /// Execute, of so many rows
    #[must_use]
    pub fn execute_rows(self, portal: &str, rows: i32) -> Self {
        self.message(b'E', |out| {
            string(out, portal);
            out.put_i32(rows);
        })
    }

    /// Parse, Bind, Execute of an unnamed statement
    #[must_use]
    pub fn run(self, sql: &str) -> Self {
        self.parse("", sql).bind("", "", &[]).execute("")
    }

    /// Close of a statement
    #[must_use]
    pub fn close_statement(self, name: &str) -> Self {
        self.named(b'C', b'S', name)
    }

    /// Flush
    #[must_use]
    pub fn flush(mut self) -> Self {
        frontend::flush(&mut self.bytes);
        self
    }

    /// Sync
    #[must_use]
    pub fn sync(mut self) -> Self {
        frontend::sync(&mut self.bytes);
        self
    }

    /// CopyData
    #[must_use]
    pub fn copy_data(self, data: &[u8]) -> Self {
        self.message(b'd', |out| out.put_slice(data))
    }

    /// CopyDone
    #[must_use]
    pub fn copy_done(self) -> Self {
        self.message(b'c', |_| ())
    }

    /// CopyFail
    #[must_use]
    pub fn copy_fail(mut self, reason: &str) -> Self {
        frontend::copy_fail(&mut self.bytes, reason);
        self
    }

    /// PasswordMessage and SASLResponse
    #[must_use]
    pub fn password(mut self, content: &[u8]) -> Self {
        frontend::password(&mut self.bytes, content);
        self
    }

    /// SASLInitialResponse
    #[must_use]
    pub fn sasl_initial(mut self, mechanism: &str, data: &str) -> Self {
        frontend::sasl_initial_response(&mut self.bytes, mechanism, data.as_bytes());
        self
    }

    /// Terminate
    #[must_use]
    pub fn terminate(mut self) -> Self {
        frontend::terminate(&mut self.bytes);
        self
    }

    /// Bytes that may be no message at all
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.put_slice(bytes);
        self
    }

    /// What has been collected.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn named(self, tag: u8, kind: u8, name: &str) -> Self {
        self.message(tag, |out| {
            out.put_u8(kind);
            string(out, name);
        })
    }

    fn message(mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) -> Self {
        let mut out = BytesMut::new();
        body(&mut out);
        self.bytes.put_u8(tag);
        self.bytes.put_u32(out.len() as u32 + 4);
        self.bytes.put_slice(&out);
        self
    }
}

fn string(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

/// What a client's bytes travel on.
pub trait Wire: Read + Write + Send + Sync + fmt::Debug {
    /// The socket below, for its time limits and to close it.
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// A connection to a pooler or to PostgreSQL. Dropping it closes the socket without a word.
#[derive(Debug)]
pub struct RawClient {
    wire: Box<dyn Wire>,
    port: u16,
    unread: Vec<u8>,
    /// What the server said of itself at login.
    pub parameters: Vec<(String, String)>,
    /// What cancels this client's queries.
    pub key: Option<CancelKey>,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// In order: everything it said could be read.
    Closed,
    /// Reset: what it said last may be lost.
    Reset,
}

fn startup_message(parameters: &[(&str, &str)]) -> BytesMut {
    let mut out = BytesMut::new();
    frontend::startup(&mut out, ProtocolVersion::V3_0, parameters.iter().copied());
    out
}

impl RawClient {
    /// A connection on which nothing has been said.
    ///
    /// # Panics
    /// If nobody listens.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).expect("somebody listens")
    }

    /// A connection on which nothing has been said.
    pub fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        Self::on(Box::new(stream), port)
    }

    /// A connection that has been made already, to this port.
    pub fn on(wire: Box<dyn Wire>, port: u16) -> io::Result<Self> {
        wire.socket().set_nodelay(true)?;
        wire.socket().set_read_timeout(Some(PATIENCE))?;
        wire.socket().set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            wire,
            port,
            unread: Vec::new(),
            parameters: Vec::new(),
            key: None,
        })
    }

    /// Logs in without a password.
    ///
    /// # Panics
    /// If it is not let in.
    #[track_caller]
    pub fn login(port: u16, database: &str, user: &str) -> Self {
        Self::login_with(port, &[("database", database), ("user", user)])
    }

    /// Logs in with these parameters in the startup message, without a password.
    ///
    /// # Panics
    /// If it is not let in.
    #[track_caller]
    pub fn login_with(port: u16, parameters: &[(&str, &str)]) -> Self {
        match Self::try_login(port, parameters) {
            Ok(client) => client,
            Err(said) => panic!("not let in: {said}"),
        }
    }

    /// Logs in without a password. The error is all that was said instead.
    #[track_caller]
    pub fn try_login(port: u16, parameters: &[(&str, &str)]) -> Result<Self, String> {
        let mut client = Self::try_connect(port).map_err(|error| error.to_string())?;
        let startup = startup_message(parameters);
        let sent = client.try_send_bytes(&startup);
        sent.map_err(|error| error.to_string())?;
        client.finish_login()?;
        Ok(client)
    }

    /// Sends the startup message and reads nothing.
    #[track_caller]
    pub fn start_login(&mut self, parameters: &[(&str, &str)]) {
        self.send_bytes(&startup_message(parameters));
    }

    /// Reads up to the first ReadyForQuery. The error is all that was said.
    #[track_caller]
    pub fn finish_login(&mut self) -> Result<(), String> {
        let mut said = Vec::new();
        loop {
            let Ok(message) = self.read() else {
                return Err(story(&said));
            };
            match message.tag {
                tag::READY_FOR_QUERY => return Ok(()),
                tag::PARAMETER_STATUS => {
                    let (name, value) =
                        read_parameter_status(&message.body).expect("name and value");
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    self.parameters.push((text(name), text(value)));
                }
                tag::BACKEND_KEY_DATA => self.key = CancelKey::parse(&message.body),
                tag::AUTHENTICATION => match Authentication::parse(&message.body) {
                    Ok(Authentication::Ok) => {}
                    other => return Err(format!("asked for {other:?}")),
                },
                _ => said.push(message),
            }
        }
    }

    /// The value of a parameter that the server said at login.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rfind(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Sends messages and reads nothing.
    #[track_caller]
    pub fn send(&mut self, batch: &Batch) {
        self.send_bytes(batch.as_bytes());
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("the other side reads");
    }

    /// Sends bytes, if the other side still takes them.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    /// Says that nothing more will be sent, and can still read.
    pub fn half_close(&self) {
        let _ = self.wire.socket().shutdown(Shutdown::Write);
    }

    /// The next message, or how the connection ended.
    ///
    /// # Panics
    /// If nothing comes for a long time.
    #[track_caller]
    pub fn read(&mut self) -> Result<Message, End> {
        loop {
            let header = Header::peek(&self.unread, i32::MAX as u32).expect("a possible length");
            if let Some(header) = header
                && self.unread.len() >= header.frame_len()
            {
                let rest = self.unread.split_off(header.frame_len());
                let frame = std::mem::replace(&mut self.unread, rest);
                return Ok(Message {
                    tag: header.tag,
                    body: frame[pgweir_wire::HEADER_LEN..].to_vec(),
                });
            }
            self.fill()?;
        }
    }

    /// The next byte, such as the answer to a request for encryption.
    #[track_caller]
    pub fn read_byte(&mut self) -> Result<u8, End> {
        while self.unread.is_empty() {
            self.fill()?;
        }
        Ok(self.unread.remove(0))
    }

    #[track_caller]
    fn fill(&mut self) -> Result<(), End> {
        let mut chunk = [0; 16 * 1024];
        match self.wire.read(&mut chunk) {
            Ok(0) => Err(End::Closed),
            Ok(len) => {
                self.unread.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(End::Reset),
            // A signal says nothing about the connection.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => panic!(
                "nothing came ({error}); unread: {}",
                String::from_utf8_lossy(&self.unread)
            ),
        }
    }

    /// Reads up to ReadyForQuery, or to the end of the connection.
    #[track_caller]
    pub fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Ok(message) = self.read() {
            let ready = message.tag == tag::READY_FOR_QUERY;
            messages.push(message);
            if ready {
                break;
            }
        }
        messages
    }

    /// Sends messages and tells what came back, up to ReadyForQuery.
    #[track_caller]
    pub fn ask(&mut self, batch: &Batch) -> String {
        self.send(batch);
        story(&self.until_ready())
    }

    /// Sends Query and tells what came back.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> String {
        self.ask(&Batch::new().query(sql))
    }

    /// Sends Query and gives the rows; several values of a row are divided by `|`.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<String> {
        self.send(&Batch::new().query(sql));
        let messages = self.until_ready();
        let failed = messages
            .iter()
            .any(|message| message.tag == tag::ERROR_RESPONSE)
            || messages.last().map(|last| last.tag) != Some(tag::READY_FOR_QUERY);
        assert!(!failed, "{sql}: {}", story(&messages));
        let rows = messages
            .iter()
            .filter(|message| message.tag == tag::DATA_ROW);
        rows.map(|row| row.values().join("|")).collect()
    }

    /// Sends Query and gives the only row.
    ///
    /// # Panics
    /// If it fails, or gives no row or several.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.remove(0)
    }

    /// Sends Query and gives columns and rows.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn table(&mut self, sql: &str) -> Table {
        self.send(&Batch::new().query(sql));
        let messages = self.until_ready();
        let of = |tag| messages.iter().filter(move |message| message.tag == tag);
        assert_eq!(
            of(tag::ROW_DESCRIPTION).count(),
            1,
            "{sql}: {}",
            story(&messages)
        );
        Table {
            columns: of(tag::ROW_DESCRIPTION)
                .flat_map(Message::columns)
                .collect(),
            rows: of(tag::DATA_ROW).map(Message::values).collect(),
        }
    }

    /// Reads to the end of the connection; tells what came, and how it ended.
    #[track_caller]
    pub fn until_end(&mut self) -> (String, End) {
        let mut messages = Vec::new();
        loop {
            match self.read() {
                Ok(message) => messages.push(message),
                Err(end) => return (story(&messages), end),
            }
        }
    }

    /// Reads to the end of the connection, which must come in order.
    ///
    /// # Panics
    /// If the connection is reset.
    #[track_caller]
    pub fn until_closed(&mut self) -> String {
        let (said, end) = self.until_end();
        assert_eq!(end, End::Closed, "after {said}");
        said
    }

    /// Whether nothing comes for so long.
    ///
    /// # Panics
    /// If the connection ends.
    #[track_caller]
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        self.wire
            .socket()
            .set_read_timeout(Some(time))
            .expect("a time above zero");
        let started = Instant::now();
        let mut chunk = [0; 16 * 1024];
        let read = self.wire.read(&mut chunk);
        self.wire
            .socket()
            .set_read_timeout(Some(PATIENCE))
            .expect("a time above zero");
        match read {
            Ok(0) => panic!("closed after {:?}", started.elapsed()),
            Ok(len) => {
                self.unread.extend_from_slice(&chunk[..len]);
                false
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                panic!("reset after {:?}", started.elapsed())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.is_silent_for(time),
            Err(_) => true,
        }
    }

    /// Takes so many bytes of the answers without looking at them.
    pub fn swallow(&mut self, mut bytes: u64) {
        let had = bytes.min(self.unread.len() as u64);
        self.unread.drain(..had as usize);
        bytes -= had;
        let mut chunk = vec![0; 64 * 1024];
        while bytes > 0 {
            let most = usize::try_from(bytes).map_or(chunk.len(), |left| left.min(chunk.len()));
            match self.wire.read(&mut chunk[..most]) {
                Ok(0) => panic!("ended {bytes} bytes early"),
                Ok(len) => bytes -= len as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}, {bytes} bytes early"),
            }
        }
    }

    /// Asks over a connection of its own to cancel what this client runs, and waits until that has been taken.
    #[track_caller]
    pub fn cancel(&self) {
        let key = self.key.clone().expect("logged in");
        cancel(self.port, &key);
    }
}

/// Sends a CancelRequest and waits until the other side has closed.
#[track_caller]
pub fn cancel(port: u16, key: &CancelKey) {
    let mut out = BytesMut::new();
    frontend::cancel_request(&mut out, key);
    let mut connection = RawClient::connect(port);
    connection.send_bytes(&out);
    let (said, _) = connection.until_end();
    assert_eq!(said, "", "a cancel request is not answered");
}
