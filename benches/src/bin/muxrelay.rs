//! A bare multiplexing relay: what moving the bytes costs when nothing else is done.
//!
//! `muxrelay SERVER_PORT SERVERS transaction|session` logs `SERVERS` connections in to PostgreSQL on 127.0.0.1, prints
//! the port it listens on, and lends them to clients first come, first served. One thread, edge-triggered epoll, one
//! shared read buffer; a client owns no buffer, and one that waits is simply not read. In transaction mode a server
//! is lent on after a ReadyForQuery outside of a transaction, in session mode when its client leaves.
//!
//! It is a floor, not a pooler. Every client is greeted with what PostgreSQL told the first server connection; there
//! is no authentication, no cancel, no timeout, no parameter tracking and no prepared statements that survive the
//! change of servers. It expects a startup packet in one piece, and a client that sends its next batch only after the
//! answer to the last one.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    env,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::ExitCode,
};

use pgweir_benches::{START, Scan, startup_packet};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use slab::Slab;

const BUFFER_LEN: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;
const LISTENER: u64 = u64::MAX;

const TERMINATE: u8 = b'X';
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [port, servers, mode] = args.as_slice() else {
        eprintln!("usage: muxrelay SERVER_PORT SERVERS transaction|session");
        return ExitCode::FAILURE;
    };
    let (Ok(port), Ok(servers)) = (port.parse(), servers.parse()) else {
        eprintln!("muxrelay: port and number of servers must be numbers");
        return ExitCode::FAILURE;
    };
    match Relay::new(port, servers, mode == "session").and_then(Relay::run) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("muxrelay: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    server_port: u16,
    session_mode: bool,
    greeting: Vec<u8>,
    sockets: Slab<Socket>,
    idle_servers: Vec<usize>,
    /// Clients that have sent something and have no server.
    waiting: VecDeque<usize>,
    buffer: Box<[u8]>,
}

struct Socket {
    stream: TcpStream,
    role: Role,
    /// Who gets what is read here.
    peer: Option<usize>,
    /// The kernel may have bytes for us; it tells only once.
    readable: bool,
    /// The other end has closed: a short read is not the last word.
    ended: bool,
    /// What the other end did not take yet.
    unsent: Vec<u8>,
}

enum Role {
    Startup,
    Client,
    Waiting,
    Server(Scan),
}

/// What reading a socket came to.
enum Got {
    Bytes(usize),
    NothingNow,
    End,
}

enum Never {}

impl Relay {
    fn new(server_port: u16, servers: usize, session_mode: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        let mut relay = Self {
            epoll,
            listener,
            server_port,
            session_mode,
            greeting: Vec::new(),
            sockets: Slab::new(),
            idle_servers: Vec::new(),
            waiting: VecDeque::new(),
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
        };
        for _ in 0..servers {
            let server = relay.open_server()?;
            relay.idle_servers.push(server);
        }
        Ok(relay)
    }

    fn run(mut self) -> io::Result<Never> {
        println!("{}", self.listener.local_addr()?.port());
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    key => self.on_event(key as usize, event.flags)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream, Role::Startup)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
    }

    fn add(&mut self, stream: TcpStream, role: Role) -> io::Result<usize> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(key as u64), flags)?;
        entry.insert(Socket {
            stream,
            role,
            peer: None,
            readable: false,
            ended: false,
            unsent: Vec::new(),
        });
        Ok(key)
    }

    /// Logs in, waiting for the answer; the first answer becomes the greeting of all clients.
    fn open_server(&mut self) -> io::Result<usize> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.server_port))?;
        stream.write_all(&startup_packet())?;
        let (mut scan, mut greeting) = (Scan::default(), Vec::new());
        while !scan.is_quiet() {
            let len = stream.read(&mut self.buffer)?;
            if len == 0 {
                return Err(io::Error::other("PostgreSQL refused a login"));
            }
            greeting.extend_from_slice(&self.buffer[..len]);
            scan.feed(&self.buffer[..len], |_| {});
        }
        if self.greeting.is_empty() {
            self.greeting = greeting;
        }
        self.add(stream, Role::Server(scan))
    }

    fn on_event(&mut self, key: usize, flags: EventFlags) -> io::Result<()> {
        // The socket may have been closed by an earlier event of the same turn.
        let Some(socket) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        if flags.contains(EventFlags::OUT) && !socket.unsent.is_empty() {
            let unsent = std::mem::take(&mut socket.unsent);
            if socket.send(&unsent).is_err() {
                return self.close(key);
            }
            if socket.unsent.is_empty()
                && let Some(peer) = socket.peer
            {
                self.pump(peer)?;
            }
        }
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if let Some(socket) = self.sockets.get_mut(key)
            && flags.intersects(EventFlags::IN | ends)
        {
            socket.readable = true;
            socket.ended |= flags.intersects(ends);
            self.pump(key)?;
        }
        Ok(())
    }

    /// Moves what can be read.
    fn pump(&mut self, key: usize) -> io::Result<()> {
        while let Some(socket) = self.sockets.get(key)
            && socket.readable
        {
            match (&socket.role, socket.peer) {
                (Role::Startup, _) => self.greet(key)?,
                (Role::Client, None) => match self.idle_servers.pop() {
                    Some(server) => self.lend(server, Some(key))?,
                    None => {
                        self.sockets[key].role = Role::Waiting;
                        self.waiting.push_back(key);
                    }
                },
                (Role::Waiting, _) => return Ok(()),
                (Role::Server(_), None) => return Err(io::Error::other("PostgreSQL hung up")),
                (Role::Client | Role::Server(_), Some(peer)) => {
                    if !self.sockets[peer].unsent.is_empty() {
                        // Whoever drains it comes back here.
                        return Ok(());
                    }
                    self.forward(key, peer)?;
                }
            }
        }
        Ok(())
    }

    fn forward(&mut self, from: usize, to: usize) -> io::Result<()> {
        let len = match self.sockets[from].receive(&mut self.buffer) {
            Got::Bytes(len) => len,
            Got::NothingNow => return Ok(()),
            Got::End => return self.close(from),
        };
        if let Role::Server(scan) = &mut self.sockets[to].role {
            if scan.is_quiet() && self.buffer[0] == TERMINATE {
                return self.close(from);
            }
            scan.asked();
        }
        let bytes = &self.buffer[..len];
        let sent = self.sockets[to].send(bytes);
        let mut quiet = false;
        if let Role::Server(scan) = &mut self.sockets[from].role {
            scan.feed(bytes, |_| {});
            quiet = scan.is_quiet();
        }
        if sent.is_err() {
            return self.close(to);
        }
        if quiet && !self.session_mode {
            self.sockets[from].peer = None;
            self.sockets[to].peer = None;
            return self.lend(from, None);
        }
        Ok(())
    }

    /// Lends a server to `first` or else to the first client that waits and really wants one.
    fn lend(&mut self, server: usize, first: Option<usize>) -> io::Result<()> {
        let mut next = first.or_else(|| self.waiting.pop_front());
        while let Some(client) = next {
            if self.begin(client, server)? {
                return self.pump(client);
            }
            next = self.waiting.pop_front();
        }
        self.idle_servers.push(server);
        Ok(())
    }

    fn begin(&mut self, client: usize, server: usize) -> io::Result<bool> {
        let socket = &mut self.sockets[client];
        socket.role = Role::Client;
        let len = match socket.receive(&mut self.buffer) {
            Got::Bytes(len) if self.buffer[0] != TERMINATE => len,
            Got::NothingNow => return Ok(false),
            Got::Bytes(_) | Got::End => return self.close(client).map(|()| false),
        };
        socket.peer = Some(server);
        let socket = &mut self.sockets[server];
        socket.peer = Some(client);
        if let Role::Server(scan) = &mut socket.role {
            scan.asked();
        }
        socket.send(&self.buffer[..len]).map(|()| true)
    }

    fn greet(&mut self, key: usize) -> io::Result<()> {
        let socket = &mut self.sockets[key];
        let len = match socket.receive(&mut self.buffer) {
            Got::Bytes(len) => len,
            Got::NothingNow => return Ok(()),
            Got::End => return self.close(key),
        };
        let code = self.buffer[..len].get(4..8);
        let code = code.and_then(|code| Some(u32::from_be_bytes(code.try_into().ok()?)));
        let sent = match code {
            Some(SSL_REQUEST | GSSENC_REQUEST) => socket.send(b"N"),
            Some(START) => {
                socket.role = Role::Client;
                socket.send(&self.greeting)
            }
            Some(CANCEL_REQUEST) | Some(_) | None => return self.close(key),
        };
        sent.or_else(|_| self.close(key))
    }

    /// A server whose client left in the middle of something is replaced by a fresh one.
    fn close(&mut self, key: usize) -> io::Result<()> {
        let socket = self.sockets.remove(key);
        let (Role::Client, Some(server)) = (socket.role, socket.peer) else {
            return match socket.peer {
                Some(_) => Err(io::Error::other("PostgreSQL hung up in a transaction")),
                None => Ok(()),
            };
        };
        self.sockets[server].peer = None;
        match &self.sockets[server].role {
            Role::Server(scan) if scan.is_quiet() => self.lend(server, None),
            _ => {
                self.sockets.remove(server);
                let fresh = self.open_server()?;
                self.lend(fresh, None)
            }
        }
    }
}

impl Socket {
    fn receive(&mut self, buffer: &mut [u8]) -> Got {
        match self.stream.read(buffer) {
            Ok(0) => Got::End,
            Ok(len) => {
                // A short read has emptied the socket; the kernel will tell when there is more.
                self.readable = len == buffer.len() || self.ended;
                Got::Bytes(len)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Got::NothingNow
            }
            Err(_) => Got::End,
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        debug_assert!(
            self.unsent.is_empty(),
            "a peer that is behind is not given more"
        );
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
