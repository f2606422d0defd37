//! The way between a pooler and PostgreSQL, on which everything can come to a standstill: nothing arrives, nothing is
//! refused, nothing ends, as where a firewall drops packets.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// A port behind which PostgreSQL is. Lives as long as the process.
#[derive(Debug)]
pub struct Strait {
    /// Where the pooler finds PostgreSQL.
    pub port: u16,
    way: Arc<Way>,
}

/// What all connections have in common.
#[derive(Debug, Default)]
struct Way {
    blocked: AtomicBool,
    /// Connections with a smaller number are at a standstill for good.
    open_from: AtomicU64,
    next: AtomicU64,
    /// Both ends of each connection, by its number.
    ends: Mutex<HashMap<u64, [TcpStream; 2]>>,
}

impl Strait {
    /// The way to this port of this machine.
    ///
    /// # Panics
    /// If there is no port to listen on.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let here = listener.local_addr().expect("it is bound").port();
        let way = Arc::new(Way::default());
        let same = Arc::clone(&way);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (way, number) = (Arc::clone(&same), same.next.fetch_add(1, Ordering::SeqCst));
                thread::spawn(move || way.join(near, port, number));
            }
        });
        Self { port: here, way }
    }

    /// From now on nothing passes, or all goes on.
    pub fn block(&self, blocked: bool) {
        self.way.blocked.store(blocked, Ordering::SeqCst);
    }

    /// From now on nothing passes on the connections that there are, not even their end; new ones are none the worse.
    pub fn cut_off(&self) {
        let all = self.way.next.load(Ordering::SeqCst);
        self.way.open_from.store(all, Ordering::SeqCst);
    }

    /// Says something to the pooler on all its connections, in PostgreSQL's name.
    ///
    /// # Panics
    /// If a connection does not take it.
    pub fn say_to_pooler(&self, bytes: &[u8]) {
        for [near, _] in self.way.ends().values() {
            let mut near = near;
            near.write_all(bytes).expect("the pooler reads");
        }
    }

    /// Ends what has been joined up to now. Neither side has said goodbye.
    ///
    /// # Panics
    /// If a thread has died.
    pub fn cut(&self) {
        for socket in self.way.ends().drain().flat_map(|(_, ends)| ends) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Way {
    fn ends(&self) -> MutexGuard<'_, HashMap<u64, [TcpStream; 2]>> {
        self.ends.lock().expect("no thread has died")
    }

    /// Waits until a connection may go on.
    fn wait(&self, number: u64) {
        let is_shut = || {
            let is_cut_off = number < self.open_from.load(Ordering::SeqCst);
            is_cut_off || self.blocked.load(Ordering::SeqCst)
        };
        while is_shut() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn join(&self, near: TcpStream, port: u16, number: u64) {
        self.wait(number);
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
            return;
        };
        // As PostgreSQL and poolers have it: what is small is on its way at once.
        for end in [&near, &far] {
            let _ = end.set_nodelay(true);
        }
        let ends =
            |from: &TcpStream, to: &TcpStream| Some((from.try_clone().ok()?, to.try_clone().ok()?));
        let (Some((a, b)), Some((c, d))) = (ends(&near, &far), ends(&far, &near)) else {
            return;
        };
        self.ends().insert(number, [near, far]);
        thread::scope(|scope| {
            scope.spawn(|| self.pass(a, b, number));
            scope.spawn(|| self.pass(c, d, number));
        });
        self.ends().remove(&number);
    }

    /// One direction, up to its end.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, number: u64) {
        let mut buffer = [0; 16 * 1024];
        loop {
            self.wait(number);
            let read = from.read(&mut buffer);
            self.wait(number);
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
}
