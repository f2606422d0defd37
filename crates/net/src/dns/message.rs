//! Questions to name servers and their answers (RFC 1035), as much of them as a stub needs: one
//! question, and of the answer the records of its kind.
//!
//! What a name server sends is read without recursion and never beyond its end. A name that points
//! to names that point to names is followed a limited number of times.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

const HEADER_BYTES: usize = 12;
const CLASS_IN: u16 = 1;
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;
/// A name has at most 127 labels, and each may be reached by a pointer.
const POINTERS_MAX: usize = 127;

const RECURSION_DESIRED: u16 = 0x0100;
const IS_ANSWER: u16 = 0x8000;
const IS_TRUNCATED: u16 = 0x0200;
const CODE: u16 = 0x000f;
const NO_SUCH_NAME: u16 = 3;

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    A = 1,
    Soa = 6,
    Aaaa = 28,
    Srv = 33,
}

/// A record of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Address(IpAddr),
    Serial(u32),
    Service {
        priority: u16,
        weight: u16,
        port: u16,
        host: String,
    },
}

/// What a name server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The records; none if the name has none of this kind.
    Records(Vec<Record>),
    /// There is no such name.
    NoSuchName,
    /// It does not fit into a datagram: ask by TCP.
    Truncated,
    /// It cannot say.
    Failed(u16),
}

/// A name that the DNS cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is no name that the DNS can have")]
pub(crate) struct BadName;

/// Bytes that are no answer to our question; somebody else's, or garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the name server's answer cannot be read")]
pub(crate) struct NoAnswer;

/// The bytes of a question.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, BadName> {
    let mut out = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    for field in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let len = u8::try_from(label.len()).map_err(|_| BadName)?;
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err(BadName);
        }
        out.push(len);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    if out.len() - HEADER_BYTES > NAME_BYTES_MAX {
        return Err(BadName);
    }
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Ok(out)
}

/// Reads the answer to a question. It must repeat the question, so that an answer to another one is
/// not believed.
pub(crate) fn read_answer(bytes: &[u8], question: &[u8], kind: Kind) -> Result<Answer, NoAnswer> {
    let mut reader = Reader { bytes, at: 0 };
    let id = reader.u16()?;
    let flags = reader.u16()?;
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    let asked = question.get(HEADER_BYTES..).ok_or(NoAnswer)?;
    let repeated = reader.take(asked.len())?;
    let is_ours = question.get(..2) == Some(&id.to_be_bytes()[..])
        && counts[0] == 1
        && repeated.eq_ignore_ascii_case(asked);
    if flags & IS_ANSWER == 0 || !is_ours {
        return Err(NoAnswer);
    }
    if flags & IS_TRUNCATED != 0 {
        return Ok(Answer::Truncated);
    }
    match flags & CODE {
        0 => {}
        NO_SUCH_NAME => return Ok(Answer::NoSuchName),
        code => return Ok(Answer::Failed(code)),
    }
    let mut records = Vec::new();
    for _ in 0..counts[1] {
        // Aliases stand before what they lead to; the name server has followed them.
        records.extend(reader.record(kind)?);
    }
    Ok(Answer::Records(records))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], NoAnswer> {
        let end = self.at.checked_add(len).ok_or(NoAnswer)?;
        let taken = self.bytes.get(self.at..end).ok_or(NoAnswer)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NoAnswer> {
        self.take(N)?.try_into().map_err(|_| NoAnswer)
    }

    fn u16(&mut self) -> Result<u16, NoAnswer> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next record, if it is of this kind.
    fn record(&mut self, wanted: Kind) -> Result<Option<Record>, NoAnswer> {
        self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let _ttl = self.take(4)?;
        let len = usize::from(self.u16()?);
        let end = self.at + len;
        let mut record = None;
        if kind == wanted as u16 && class == CLASS_IN {
            record = Some(self.data(wanted)?);
            if self.at > end {
                return Err(NoAnswer);
            }
        }
        // The rest of a zone's record does not matter, nor do others'.
        self.at = end;
        match end <= self.bytes.len() {
            true => Ok(record),
            false => Err(NoAnswer),
        }
    }

    fn data(&mut self, kind: Kind) -> Result<Record, NoAnswer> {
        Ok(match kind {
            Kind::A => Record::Address(Ipv4Addr::from(self.array::<4>()?).into()),
            Kind::Aaaa => Record::Address(Ipv6Addr::from(self.array::<16>()?).into()),
            Kind::Soa => {
                let (_server, _contact) = (self.name()?, self.name()?);
                Record::Serial(self.array().map(u32::from_be_bytes)?)
            }
            Kind::Srv => Record::Service {
                priority: self.u16()?,
                weight: self.u16()?,
                port: self.u16()?,
                host: self.name()?,
            },
        })
    }

    /// A name, also one that points to where it goes on.
    fn name(&mut self) -> Result<String, NoAnswer> {
        let mut name = String::new();
        let mut after = None;
        let mut pointers = 0;
        loop {
            let len = self.array::<1>()?[0];
            match len >> 6 {
                0 if len == 0 => break,
                0 => {
                    let label = self.take(usize::from(len))?;
                    let label = std::str::from_utf8(label).map_err(|_| NoAnswer)?;
                    if name.len() + label.len() > NAME_BYTES_MAX {
                        return Err(NoAnswer);
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(label);
                }
                3 => {
                    let low = self.array::<1>()?[0];
                    after.get_or_insert(self.at);
                    self.at = usize::from(len & 0x3f) << 8 | usize::from(low);
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        return Err(NoAnswer);
                    }
                }
                _ => return Err(NoAnswer),
            }
        }
        self.at = after.unwrap_or(self.at);
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: &[u8], flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2..4].copy_from_slice(&(IS_ANSWER | flags).to_be_bytes());
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        bytes.extend(records.concat());
        bytes
    }

    /// A record of the name in the question.
    fn record(kind: u16, data: &[u8]) -> Vec<u8> {
        let len = (data.len() as u16).to_be_bytes();
        [
            &[0xc0, 12][..],
            &kind.to_be_bytes(),
            &[0, 1, 0, 0, 0, 60],
            &len,
            data,
        ]
        .concat()
    }

    #[test]
    fn a_question_is_a_header_and_a_name() {
        let bytes = question(0x1234, "db.test.", Kind::A).unwrap();
        assert_eq!(
            bytes,
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02db\x04test\0\0\x01\0\x01"
        );
        for bad in ["", ".", "a..b", &"x".repeat(64), &"abc.".repeat(70)] {
            assert_eq!(question(1, bad, Kind::A), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn addresses_behind_an_alias() {
        let asked = question(7, "db.test", Kind::A).unwrap();
        let alias = record(5, b"\x04real\xc0\x0f");
        let (one, two) = (record(1, &[10, 0, 0, 1]), record(1, &[10, 0, 0, 2]));
        let bytes = answer(&asked, 0, &[&alias, &one, &two]);
        let address = |last| Record::Address(Ipv4Addr::new(10, 0, 0, last).into());
        assert_eq!(
            read_answer(&bytes, &asked, Kind::A),
            Ok(Answer::Records(vec![address(1), address(2)]))
        );
        let asked = question(7, "db.test", Kind::Aaaa).unwrap();
        let bytes = answer(&asked, 0, &[&record(28, &Ipv6Addr::LOCALHOST.octets())]);
        let local = Record::Address(Ipv6Addr::LOCALHOST.into());
        assert_eq!(
            read_answer(&bytes, &asked, Kind::Aaaa),
            Ok(Answer::Records(vec![local]))
        );
    }

    #[test]
    fn serials_and_services() {
        let asked = question(7, "db.test", Kind::Soa).unwrap();
        let mut data = b"\x02ns\xc0\x0c\x04root\xc0\x0c".to_vec();
        data.extend(2_026_112_501_u32.to_be_bytes());
        data.extend([0; 16]);
        let bytes = answer(&asked, 0, &[&record(6, &data)]);
        assert_eq!(
            read_answer(&bytes, &asked, Kind::Soa),
            Ok(Answer::Records(vec![Record::Serial(2_026_112_501)]))
        );
        let asked = question(7, "_ldap._tcp.test", Kind::Srv).unwrap();
        let bytes = answer(
            &asked,
            0,
            &[&record(33, b"\0\x01\0\x02\x01\x85\x01h\xc0\x17")],
        );
        let service = Record::Service {
            priority: 1,
            weight: 2,
            port: 389,
            host: "h.test".into(),
        };
        assert_eq!(
            read_answer(&bytes, &asked, Kind::Srv),
            Ok(Answer::Records(vec![service]))
        );
    }

    #[test]
    fn what_a_name_server_can_say_instead() {
        let asked = question(7, "db.test", Kind::A).unwrap();
        let read = |flags| read_answer(&answer(&asked, flags, &[]), &asked, Kind::A);
        assert_eq!(read(0), Ok(Answer::Records(vec![])));
        assert_eq!(read(3), Ok(Answer::NoSuchName));
        assert_eq!(read(2), Ok(Answer::Failed(2)));
        assert_eq!(read(IS_TRUNCATED), Ok(Answer::Truncated));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = question(7, "db.test", Kind::A).unwrap();
        for other in [
            question(8, "db.test", Kind::A).unwrap(),
            question(7, "dc.test", Kind::A).unwrap(),
            question(7, "db.test", Kind::Aaaa).unwrap(),
        ] {
            let bytes = answer(&other, 0, &[&record(1, &[6, 6, 6, 6])]);
            assert_eq!(read_answer(&bytes, &asked, Kind::A), Err(NoAnswer));
        }
        assert_eq!(
            read_answer(&asked, &asked, Kind::A),
            Err(NoAnswer),
            "an echo"
        );
        let shouted = answer(&question(7, "DB.test", Kind::A).unwrap(), 0, &[]);
        assert_eq!(
            read_answer(&shouted, &asked, Kind::A),
            Ok(Answer::Records(vec![]))
        );
    }

    #[test]
    fn broken_answers_are_refused_and_end() {
        let asked = question(7, "db.test", Kind::Srv).unwrap();
        let to_itself = record(33, b"\0\x01\0\x02\x01\x85\xc0\x19");
        let mut looping = answer(&asked, 0, &[&to_itself]);
        let at = looping.len() - 2;
        let pointer = 0xc000 | u16::try_from(at).unwrap();
        looping[at..].copy_from_slice(&pointer.to_be_bytes());
        assert_eq!(read_answer(&looping, &asked, Kind::Srv), Err(NoAnswer));

        let good = answer(
            &asked,
            0,
            &[&record(33, b"\0\x01\0\x02\x01\x85\x01h\xc0\x0c")],
        );
        for len in 0..good.len() {
            assert_eq!(read_answer(&good[..len], &asked, Kind::Srv), Err(NoAnswer));
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = read_answer(&bad, &asked, Kind::Srv);
        }
    }
}
