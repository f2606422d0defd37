//! A blocking client without passwords, TLS or curiosity about what it reads.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::scan::Scan;

/// Protocol 3.0, in the StartupMessage.
pub const START: u32 = 196_608;

/// A slow reader takes a little this often.
const READS_PER_SECOND: u32 = 50;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    scan: Scan,
}

impl Client {
    /// Connects to 127.0.0.1 and logs in as `postgres` to the database of that name.
    ///
    /// # Errors
    /// If the connection fails or the server asks for a password.
    pub fn connect(port: u16, scratch: &mut [u8]) -> io::Result<Self> {
        Self::connect_to("127.0.0.1", port, scratch)
    }

    /// As [`Self::connect`], to any address.
    ///
    /// # Errors
    /// If the connection fails or the server asks for a password.
    pub fn connect_to(host: &str, port: u16, scratch: &mut [u8]) -> io::Result<Self> {
        let mut stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        stream.write_all(&startup_packet())?;
        let scan = Scan::default();
        let mut client = Self { stream, scan };
        client.read_until_quiet(scratch)?;
        Ok(client)
    }

    /// Runs SQL and reads everything that comes back; gives the number of bytes.
    ///
    /// # Errors
    /// If the connection fails or the server answers with an error.
    pub fn query(&mut self, sql: &str, scratch: &mut [u8]) -> io::Result<u64> {
        self.ask(sql)?;
        self.read_until_quiet(scratch)
    }

    /// Runs SQL and reads what comes back at this speed and no faster; gives the number of bytes.
    ///
    /// # Errors
    /// If the connection fails or the server answers with an error.
    pub fn query_slowly(&mut self, sql: &str, bytes_per_second: u32) -> io::Result<u64> {
        let mut scratch = vec![0; (bytes_per_second / READS_PER_SECOND).max(1) as usize];
        self.ask(sql)?;
        let mut bytes = 0;
        while !self.scan.is_quiet() {
            bytes += self.read(&mut scratch, |_| {})?;
            thread::sleep(Duration::from_secs(1) / READS_PER_SECOND);
        }
        Ok(bytes)
    }

    /// Runs `COPY ... FROM STDIN` and sends `data` again and again until `bytes` have been sent.
    ///
    /// # Errors
    /// If the connection fails or the server answers with an error.
    pub fn copy_in(
        &mut self,
        sql: &str,
        data: &[u8],
        bytes: u64,
        scratch: &mut [u8],
    ) -> io::Result<u64> {
        self.ask(sql)?;
        let mut ready = false;
        while !ready {
            self.read(scratch, |tag| ready |= tag == b'G')?;
        }
        let mut message = Vec::with_capacity(data.len() + 5);
        put_message(&mut message, b'd', data);
        let mut sent = 0;
        while sent < bytes {
            self.stream.write_all(&message)?;
            sent += message.len() as u64;
        }
        let mut end = Vec::new();
        put_message(&mut end, b'c', b"");
        self.stream.write_all(&end)?;
        self.read_until_quiet(scratch)?;
        Ok(sent)
    }

    fn ask(&mut self, sql: &str) -> io::Result<()> {
        let mut message = Vec::new();
        put_message(&mut message, b'Q', &[sql.as_bytes(), b"\0"].concat());
        self.scan.asked();
        self.stream.write_all(&message)
    }

    pub(crate) fn read_until_quiet(&mut self, scratch: &mut [u8]) -> io::Result<u64> {
        let mut bytes = 0;
        while !self.scan.is_quiet() {
            bytes += self.read(scratch, |_| {})?;
        }
        Ok(bytes)
    }

    fn read(&mut self, scratch: &mut [u8], mut seen: impl FnMut(u8)) -> io::Result<u64> {
        let len = self.stream.read(scratch)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut failed = false;
        self.scan.feed(&scratch[..len], |tag| {
            failed |= tag == b'E';
            seen(tag);
        });
        if failed {
            let text = String::from_utf8_lossy(&scratch[..len]).replace('\0', " ");
            return Err(io::Error::other(text));
        }
        Ok(len as u64)
    }
}

/// The first message of a client: user and database `postgres`.
pub fn startup_packet() -> Vec<u8> {
    let body = b"user\0postgres\0database\0postgres\0\0";
    let mut packet = Vec::new();
    packet.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
    packet.extend_from_slice(&START.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

fn put_message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(4 + body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
}
