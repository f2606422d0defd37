//! A service beside the pooler that is asked over HTTP: remembers what it was asked, and answers what the test says.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method and the path.
    pub line: String,
    /// The headers, in small letters.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Listens as long as the process lives.
#[derive(Debug)]
pub struct Service {
    /// Where.
    pub port: u16,
    calls: Receiver<Call>,
}

impl Service {
    /// One that answers so: with a status and a body for each line of a request.
    ///
    /// # Panics
    /// If there is no port to listen on.
    pub fn start(answer: impl Fn(&Call) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (sender, calls) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks badly is seen in what the test waits for.
                let _ = serve(stream, &sender, &answer);
            }
        });
        Self { port, calls }
    }

    /// The next thing that it is asked.
    ///
    /// # Panics
    /// If nothing comes for a while.
    #[track_caller]
    pub fn next(&self) -> Call {
        let call = self.calls.recv_timeout(Duration::from_secs(20));
        call.expect("it is asked")
    }
}

fn serve(
    stream: TcpStream,
    calls: &Sender<Call>,
    answer: &impl Fn(&Call) -> (u16, String),
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut head) = (String::new(), String::new());
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header == "\r\n" {
            break;
        }
        head.push_str(&header.to_ascii_lowercase());
    }
    let length = head
        .lines()
        .find_map(|header| header.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let call = Call {
        line: line.trim_end_matches(" HTTP/1.1\r\n").to_owned(),
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (status, text) = answer(&call);
    let mut stream = reader.into_inner();
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{text}"
    )?;
    let _ = calls.send(call);
    Ok(())
}
