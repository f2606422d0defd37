//! The way between a pooler and PostgreSQL, on which everything can come to a standstill: nothing arrives, nothing is
//! refused, nothing ends, as where a firewall drops packets.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Passes bytes on until it is blocked. Lives as long as the process.
#[derive(Debug)]
pub struct Strait {
    /// Where the pooler finds PostgreSQL.
    pub port: u16,
    blocked: Arc<AtomicBool>,
    /// Connections with a smaller number are at a standstill for good.
    open_from: Arc<AtomicU64>,
    next: Arc<AtomicU64>,
}

impl Strait {
    /// The way to this port of this machine.
    ///
    /// # Panics
    /// If there is no port to listen on.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let here = listener.local_addr().expect("it is bound").port();
        let blocked = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&blocked);
        let (open_from, next) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (from, numbers) = (Arc::clone(&open_from), Arc::clone(&next));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let gate = Gate {
                    blocked: Arc::clone(&open),
                    open_from: Arc::clone(&from),
                    number: numbers.fetch_add(1, Ordering::SeqCst),
                };
                thread::spawn(move || join(near, port, &gate));
            }
        });
        Self {
            port: here,
            blocked,
            open_from,
            next,
        }
    }

    /// From now on nothing passes, or all goes on.
    pub fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
    }

    /// From now on nothing passes on the connections that there are, not even their end; new ones are none the worse.
    pub fn cut_off(&self) {
        let all = self.next.load(Ordering::SeqCst);
        self.open_from.store(all, Ordering::SeqCst);
    }
}

/// Whether a connection may go on.
struct Gate {
    blocked: Arc<AtomicBool>,
    open_from: Arc<AtomicU64>,
    number: u64,
}

impl Gate {
    fn wait(&self) {
        let is_shut = || {
            let is_cut_off = self.number < self.open_from.load(Ordering::SeqCst);
            is_cut_off || self.blocked.load(Ordering::SeqCst)
        };
        while is_shut() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn join(near: TcpStream, port: u16, gate: &Gate) {
    gate.wait();
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let ends =
        |from: &TcpStream, to: &TcpStream| Some((from.try_clone().ok()?, to.try_clone().ok()?));
    let (Some((a, b)), Some((c, d))) = (ends(&near, &far), ends(&far, &near)) else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| pass(a, b, gate));
        scope.spawn(|| pass(c, d, gate));
    });
}

/// One direction, up to its end.
fn pass(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = [0; 16 * 1024];
    loop {
        gate.wait();
        let read = from.read(&mut buffer);
        gate.wait();
        match read {
            Ok(0) | Err(_) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(len) if to.write_all(&buffer[..len]).is_ok() => {}
            Ok(_) => {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}
