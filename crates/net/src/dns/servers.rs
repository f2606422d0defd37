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

/// What is said of a name that there is none of.
const NO_SUCH_NAME: &str = "no such name";

/// Looks the addresses of a name up, in the domains of `resolv.conf` too if it is a short one: the first name that has
/// any, of whichever family, is the one that is meant.
///
/// # Errors
/// The text says what a name server said: of a name that is there nothing, rather than that it failed, rather than that
/// another name is not there.
pub(super) async fn search(conf: &ResolvConf, name: &str) -> Result<Vec<Record>, String> {
    let mut outcome = Err(NO_SUCH_NAME.to_owned());
    for candidate in candidates(conf, name) {
        match addresses(conf, &candidate).await {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(none) => outcome = Ok(none),
            Err(reason) if outcome.is_err() && reason != NO_SUCH_NAME => outcome = Err(reason),
            Err(_) => {}
        }
    }
    outcome
}

/// The addresses of exactly this name. IPv4 will do where there is any.
async fn addresses(conf: &ResolvConf, name: &str) -> Result<Vec<Record>, String> {
    let found = ask(conf, name, Kind::A).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    match ask(conf, name, Kind::Aaaa).await {
        // Some servers say so of a name that lacks no more than this kind.
        Err(reason) if reason == NO_SUCH_NAME => Ok(found),
        answer => answer,
    }
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
/// The text says what the last name server said.
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
            Ok(Ok(Answer::NoSuchName)) => return Err(NO_SUCH_NAME.to_owned()),
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

    const AAAA: &[u8] = &[
        0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8,
    ];

    const MISSING: [u8; 2] = [0x81, 0x83];
    const FAILING: [u8; 2] = [0x81, 0x82];
    const FINE: [u8; 2] = [0x81, 0x80];

    /// What is found for `db` where the domains `a` and `b` are searched, and what a server was asked for on the way.
    /// It answers by the domain, which is nothing for the name as it is, and the kind: 1 for IPv4, 28 for IPv6.
    async fn searched(
        zone: impl Fn(char, u8) -> ([u8; 2], &'static [u8]),
    ) -> (Result<Vec<Record>, String>, Vec<(char, u8)>) {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let options = "timeout:5 attempts:1\nsearch a b";
        let conf = conf(server.local_addr().unwrap(), options);
        let mut asked = Vec::new();
        let answering = async {
            let mut question = [0; 512];
            while let Ok((len, asker)) = server.recv_from(&mut question).await {
                let question = &question[..len];
                // Behind the header: 2 d b, and 1 a or 1 b; and at the end the kind and the class.
                let domain = match question[15] {
                    0 => '.',
                    _ => char::from(question[16]),
                };
                let kind = question[len - 3];
                asked.push((domain, kind));
                let (flags, records) = zone(domain, kind);
                let answer = with_flags(question, flags, records);
                server.send_to(&answer, asker).await.unwrap();
            }
        };
        let found = tokio::select! {
            found = search(&conf, "db") => found,
            () = answering => panic!("nothing can be received"),
        };
        (found, asked)
    }

    #[tokio::test]
    async fn the_first_name_with_an_address_of_any_family_is_meant() {
        let (found, asked) = searched(|domain, kind| match (domain, kind) {
            ('a', 28) => (FINE, AAAA),
            ('a', _) => (FINE, &[]),
            ('b', 1) => (FINE, RECORD),
            _ => (MISSING, &[]),
        })
        .await;
        let meant = Record::Address("fd00::8".parse().unwrap());
        assert_eq!(found, Ok(vec![meant]));
        assert_eq!(asked, [('a', 1), ('a', 28)]);
    }

    #[tokio::test]
    async fn a_name_that_is_missing_does_not_hide_one_that_is_there() {
        let (found, asked) = searched(|domain, kind| match (domain, kind) {
            ('b', 28) => (FINE, AAAA),
            ('b', _) => (FINE, &[]),
            _ => (MISSING, &[]),
        })
        .await;
        assert!(found.is_ok_and(|found| found.len() == 1));
        assert_eq!(asked, [('a', 1), ('b', 1), ('b', 28)]);

        let empty = |domain| match domain {
            'a' => (FINE, &[][..]),
            _ => (MISSING, &[][..]),
        };
        let (found, asked) = searched(|domain, _| empty(domain)).await;
        assert_eq!(found, Ok(Vec::new()), "a is there and has no address");
        assert_eq!(asked, [('a', 1), ('a', 28), ('b', 1), ('.', 1)]);
    }

    #[tokio::test]
    async fn a_failure_is_told_rather_than_that_another_name_is_missing() {
        let (found, _) = searched(|domain, _| match domain {
            'a' => (FAILING, &[]),
            _ => (MISSING, &[]),
        })
        .await;
        let told = found.unwrap_err();
        assert!(told.ends_with("fails with code 2"), "{told}");
        let (found, _) = searched(|_, _| (MISSING, &[])).await;
        assert_eq!(found, Err(NO_SUCH_NAME.to_owned()));
    }
}
