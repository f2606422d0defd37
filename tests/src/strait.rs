//! The way between a pooler and PostgreSQL, on which everything can come to a standstill: nothing arrives, nothing is
//! refused, nothing ends, as where a firewall drops packets.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Passes bytes on until it is blocked. Lives as long as the process.
#[derive(Debug)]
pub struct Strait {
    /// Where the pooler finds PostgreSQL.
    pub port: u16,
    blocked: Arc<AtomicBool>,
    /// Both ends of each connection, by its port towards PostgreSQL.
    sockets: Arc<Mutex<HashMap<u16, [TcpStream; 2]>>>,
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
        let sockets = Arc::new(Mutex::new(HashMap::new()));
        let (open, known) = (Arc::clone(&blocked), Arc::clone(&sockets));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (blocked, known) = (Arc::clone(&open), Arc::clone(&known));
                thread::spawn(move || join(near, port, &blocked, &known));
            }
        });
        Self {
            port: here,
            blocked,
            sockets,
        }
    }

    /// From now on nothing passes, or all goes on.
    pub fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
    }

    /// Ends what has been joined up to now. Neither side has said goodbye.
    ///
    /// # Panics
    /// If a thread has died.
    pub fn cut(&self) {
        let mut sockets = self.sockets.lock().expect("no panic");
        for socket in sockets.drain().flat_map(|(_, ends)| ends) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn wait(blocked: &AtomicBool) {
    while blocked.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn join(
    near: TcpStream,
    port: u16,
    blocked: &AtomicBool,
    known: &Mutex<HashMap<u16, [TcpStream; 2]>>,
) {
    wait(blocked);
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let ends =
        |from: &TcpStream, to: &TcpStream| Some((from.try_clone().ok()?, to.try_clone().ok()?));
    let (Some((a, b)), Some((c, d))) = (ends(&near, &far), ends(&far, &near)) else {
        return;
    };
    let Ok(address) = far.local_addr() else {
        return;
    };
    let key = address.port();
    known.lock().expect("no panic").insert(key, [near, far]);
    thread::scope(|scope| {
        scope.spawn(|| pass(a, b, blocked));
        scope.spawn(|| pass(c, d, blocked));
    });
    known.lock().expect("no panic").remove(&key);
}

/// One direction, up to its end.
fn pass(mut from: TcpStream, mut to: TcpStream, blocked: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    loop {
        wait(blocked);
        let read = from.read(&mut buffer);
        wait(blocked);
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
