//! A name server that says what a test wants it to say, and counts what it is asked.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

const A: u16 = 1;
const SOA: u16 = 6;
const SRV: u16 = 33;

/// Answers over UDP for as long as the program runs.
#[derive(Clone, Debug)]
pub struct NameServer {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
}

#[derive(Debug, Default)]
struct Says {
    addresses: BTreeMap<String, Vec<Ipv4Addr>>,
    serials: BTreeMap<String, u32>,
    services: BTreeMap<String, (u16, String)>,
    asked: BTreeMap<String, usize>,
}

impl NameServer {
    /// One that knows no name yet.
    ///
    /// # Panics
    /// If there is no port for it.
    #[expect(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for the name server");
        let server = Self {
            address: socket.local_addr().expect("it is bound"),
            says: Arc::default(),
        };
        let says = Arc::clone(&server.says);
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((len, asker)) = socket.recv_from(&mut question) {
                let answer = lock(&says).answer(&question[..len]);
                let _ = answer.map(|answer| socket.send_to(&answer, asker));
            }
        });
        server
    }

    /// A `resolv.conf` that leads here.
    pub fn resolv_conf(&self) -> String {
        format!(
            "nameserver {}\noptions timeout:1 attempts:1\n",
            self.address
        )
    }

    /// Gives a name these addresses; none makes it unknown.
    pub fn set(&self, name: &str, addresses: &[[u8; 4]]) {
        let addresses: Vec<_> = addresses.iter().copied().map(Ipv4Addr::from).collect();
        let mut says = lock(&self.says);
        match addresses.is_empty() {
            true => says.addresses.remove(name),
            false => says.addresses.insert(name.to_owned(), addresses),
        };
    }

    /// Gives a zone this serial.
    pub fn set_serial(&self, zone: &str, serial: u32) {
        lock(&self.says).serials.insert(zone.to_owned(), serial);
    }

    /// Names the host of a service.
    pub fn set_service(&self, service: &str, host: &str, port: u16) {
        let host = (port, host.to_owned());
        lock(&self.says).services.insert(service.to_owned(), host);
    }

    /// How often the addresses of a name were asked for.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.says).asked.get(name).copied().unwrap_or(0)
    }
}

fn lock(says: &Mutex<Says>) -> MutexGuard<'_, Says> {
    says.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Says {
    /// The answer to a question in the form of RFC 1035; nothing to what is none.
    fn answer(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        let (name, kind, end) = read_question(question)?;
        let records = self.records(&name, kind);
        let is_known = self.addresses.contains_key(&name)
            || self.serials.contains_key(&name)
            || self.services.contains_key(&name);
        let mut answer = question.get(..2)?.to_vec();
        // An answer, with recursion; NXDOMAIN where nothing is known of the name.
        answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1]);
        answer.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(question.get(12..end)?);
        for data in records {
            // The name of the question, class IN, good for an hour: whoever believes that is wrong here.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0x0e, 0x10]);
            answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }

    fn records(&mut self, name: &str, kind: u16) -> Vec<Vec<u8>> {
        match kind {
            A => {
                *self.asked.entry(name.to_owned()).or_default() += 1;
                let addresses = self.addresses.get(name).into_iter().flatten();
                addresses.map(|ip| ip.octets().to_vec()).collect()
            }
            SOA => {
                let record = |serial: &u32| {
                    let mut data = [write_name("ns.test"), write_name("root.test")].concat();
                    data.extend(serial.to_be_bytes());
                    data.extend([0; 16]);
                    data
                };
                self.serials.get(name).map(record).into_iter().collect()
            }
            SRV => {
                let record = |(port, host): &(u16, String)| {
                    let mut data = vec![0; 4];
                    data.extend(port.to_be_bytes());
                    data.extend(write_name(host));
                    data
                };
                self.services.get(name).map(record).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The name and the kind that are asked for, and where the question ends.
fn read_question(question: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = String::from_utf8_lossy(question.get(at..at + len)?);
        labels.push(label.to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn write_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
