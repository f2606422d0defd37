//! Asking name servers.
//!
//! A stub: it asks the servers of `resolv.conf` one after the other and leaves the search to them.
//! Every question has a number that cannot be guessed and a socket of its own, connected to the
//! server, so that nobody else's answer is even received.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustls::crypto::SecureRandom;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Answer, Kind, Record};
use super::resolv_conf::ResolvConf;
use crate::os_text;

/// The largest datagram of the DNS without extensions, and then some.
const DATAGRAM_BYTES: usize = 4096;

/// Looks a name up, in the domains of `resolv.conf` too if it is a short one.
///
/// # Errors
/// The text says what the last name server said.
pub(super) async fn search(
    conf: &ResolvConf,
    name: &str,
    kind: Kind,
) -> Result<Vec<Record>, String> {
    let mut last = Ok(Vec::new());
    for candidate in candidates(conf, name) {
        last = ask(conf, &candidate, kind).await;
        match &last {
            Ok(records) if !records.is_empty() => return last,
            Ok(_) | Err(_) => {}
        }
    }
    last
}

/// The full names that a name may stand for, the most likely one first.
fn candidates(conf: &ResolvConf, name: &str) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let searched = conf.search.iter().map(|domain| format!("{name}.{domain}"));
    let as_is = std::iter::once(name.to_owned());
    match name.matches('.').count() >= conf.ndots {
        true => as_is.chain(searched).collect(),
        false => searched.chain(as_is).collect(),
    }
}

/// Asks for exactly this name.
///
/// # Errors
/// As for [`search`].
pub(super) async fn ask(conf: &ResolvConf, name: &str, kind: Kind) -> Result<Vec<Record>, String> {
    let mut servers = conf.servers.clone();
    let id = random_number()?;
    if conf.rotate {
        let first = usize::from(id) % servers.len();
        servers.rotate_left(first);
    }
    let question = message::question(id, name, kind).map_err(|bad| bad.to_string())?;
    let mut reason = String::new();
    for server in servers.iter().cycle().take(servers.len() * conf.attempts) {
        let answer = timeout(conf.timeout, exchange(*server, &question, kind)).await;
        reason = match answer {
            Ok(Ok(Answer::Records(records))) => return Ok(records),
            Ok(Ok(Answer::NoSuchName)) => return Err("no such name".to_owned()),
            Ok(Ok(Answer::Failed(code))) => format!("{server} fails with code {code}"),
            Ok(Ok(Answer::Truncated)) => format!("{server} gives no whole answer"),
            Ok(Err(error)) => format!("{server}: {}", os_text(&error)),
            Err(_) => format!("{server} does not answer"),
        };
    }
    Err(reason)
}

fn random_number() -> Result<u16, String> {
    let mut bytes = [0; 2];
    let random: &dyn SecureRandom = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random
        .fill(&mut bytes)
        .map_err(|_| "no random numbers".to_owned())?;
    Ok(u16::from_be_bytes(bytes))
}

/// Asks one server by a datagram, and by TCP if its answer does not fit into one.
async fn exchange(server: SocketAddr, question: &[u8], kind: Kind) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        let len = socket.recv(&mut datagram).await?;
        // Somebody may try to guess our answer: what is none does not end the waiting.
        match message::read_answer(&datagram[..len], question, kind) {
            Ok(Answer::Truncated) => return exchange_by_tcp(server, question, kind).await,
            Ok(answer) => return Ok(answer),
            Err(_) => {}
        }
    }
}

/// A message on TCP has its length in front.
async fn exchange_by_tcp(server: SocketAddr, question: &[u8], kind: Kind) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&len.to_be_bytes()[..], question].concat())
        .await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    message::read_answer(&answer, question, kind).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_looked_for_in_the_domains_first() {
        let conf = ResolvConf::parse("search a.test b.test\noptions ndots:2\n");
        assert_eq!(candidates(&conf, "db"), ["db.a.test", "db.b.test", "db"]);
        assert_eq!(candidates(&conf, "x.y.z")[0], "x.y.z");
        assert_eq!(candidates(&conf, "db."), ["db."]);
    }

    fn conf(server: SocketAddr, options: &str) -> ResolvConf {
        ResolvConf::parse(&format!("nameserver {server}\noptions {options}\n"))
    }

    fn with_flags(question: &[u8], flags: [u8; 2], records: &[u8]) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[2..4].copy_from_slice(&flags);
        answer[7] = u8::from(!records.is_empty());
        answer.extend_from_slice(records);
        answer
    }

    const RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 7];

    fn found() -> Vec<Record> {
        vec![Record::Address([10, 0, 0, 7].into())]
    }

    #[tokio::test]
    async fn what_is_no_answer_is_not_believed() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let conf = conf(server.local_addr().unwrap(), "timeout:5");
        let answer = async {
            let mut question = [0; 512];
            let (len, asker) = server.recv_from(&mut question).await.unwrap();
            let mut forged = with_flags(&question[..len], [0x81, 0x80], RECORD);
            forged[0] ^= 1;
            server.send_to(&forged, asker).await.unwrap();
            server.send_to(b"garbage", asker).await.unwrap();
            let true_one = with_flags(&question[..len], [0x81, 0x80], RECORD);
            server.send_to(&true_one, asker).await.unwrap();
        };
        let (records, ()) = tokio::join!(ask(&conf, "db.test", Kind::A), answer);
        assert_eq!(records, Ok(found()));
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_is_fetched_by_tcp() {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            if let Ok(tcp) = tokio::net::TcpListener::bind(address).await {
                break (udp, tcp);
            }
        };
        let conf = conf(udp.local_addr().unwrap(), "timeout:5");
        let answer = async {
            let mut question = [0; 512];
            let (len, asker) = udp.recv_from(&mut question).await.unwrap();
            let cut = with_flags(&question[..len], [0x83, 0x80], &[]);
            udp.send_to(&cut, asker).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let len = usize::from(stream.read_u16().await.unwrap());
            stream.read_exact(&mut question[..len]).await.unwrap();
            let whole = with_flags(&question[..len], [0x81, 0x80], RECORD);
            stream.write_u16(whole.len() as u16).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        let (records, ()) = tokio::join!(ask(&conf, "db.test", Kind::A), answer);
        assert_eq!(records, Ok(found()));
    }

    #[tokio::test]
    async fn the_next_server_is_asked_where_one_does_not_answer() {
        let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut conf = conf(deaf.local_addr().unwrap(), "timeout:1");
        conf.servers.push(server.local_addr().unwrap());
        conf.timeout = std::time::Duration::from_millis(50);
        let answer = async {
            let mut question = [0; 512];
            let (len, asker) = server.recv_from(&mut question).await.unwrap();
            let answer = with_flags(&question[..len], [0x81, 0x80], RECORD);
            server.send_to(&answer, asker).await.unwrap();
        };
        let (records, ()) = tokio::join!(ask(&conf, "db.test", Kind::A), answer);
        assert_eq!(records, Ok(found()));

        conf.servers.truncate(1);
        conf.attempts = 1;
        let silent = ask(&conf, "db.test", Kind::A).await.unwrap_err();
        assert!(silent.ends_with("does not answer"), "{silent}");
    }
}
