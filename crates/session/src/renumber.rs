//! Process ids in what a client sends: it knows those of clients, and PostgreSQL those of servers.

use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{HEADER_LEN, Header, Reader, put_frame};

/// A client's message in which numbers stand for processes, with those replaced for which `real` has
/// another. `None` where there are none.
pub fn renumbered(frame: &[u8], real: &mut dyn FnMut(i32) -> Option<i32>) -> Option<Vec<u8>> {
    let header = Header::peek(frame, u32::MAX).ok().flatten()?;
    let body = frame.get(HEADER_LEN..header.frame_len())?;
    let body = match header.tag {
        tag::QUERY | tag::PARSE => in_text(body, real),
        tag::BIND => in_values(body, real),
        _ => None,
    }?;
    let mut out = Vec::new();
    put_frame(&mut out, header.tag, &[&body]).ok()?;
    Some(out)
}

/// Numbers in a text, in quotes or not.
fn in_text(text: &[u8], real: &mut dyn FnMut(i32) -> Option<i32>) -> Option<Vec<u8>> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
    let (mut out, mut at, mut done) = (Vec::new(), 0, 0);
    while at < text.len() {
        let len = text[at..].iter().take_while(|byte| is_word(**byte)).count();
        if let Some(number) = number(&text[at..at + len])
            && let Some(real) = real(number)
        {
            out.extend_from_slice(&text[done..at]);
            out.extend_from_slice(real.to_string().as_bytes());
            done = at + len;
        }
        at += len.max(1);
    }
    if done == 0 {
        return None;
    }
    out.extend_from_slice(&text[done..]);
    Some(out)
}

fn number(digits: &[u8]) -> Option<i32> {
    let is_number = digits.first().is_some_and(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

/// The values of a Bind: decimal numbers, or integers of 4 or 8 bytes.
fn in_values(body: &[u8], real: &mut dyn FnMut(i32) -> Option<i32>) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body);
    reader.string().ok()?;
    reader.string().ok()?;
    let mut formats = Vec::new();
    for _ in 0..reader.i16().ok()? {
        formats.push(reader.i16().ok()?);
    }
    let count = usize::try_from(reader.i16().ok()?).ok()?;
    let (mut out, mut found) = (body[..body.len() - reader.rest().len()].to_vec(), false);
    for index in 0..count {
        let len = reader.i32().ok()?;
        let Ok(bytes) = usize::try_from(len) else {
            out.extend_from_slice(&len.to_be_bytes());
            continue;
        };
        let value = reader.bytes(bytes).ok()?;
        let format = match &formats[..] {
            [] => 0,
            [all] => *all,
            each => *each.get(index)?,
        };
        let number = match (format, value.len()) {
            (0, _) => number(value),
            (_, 4) => value.try_into().ok().map(i32::from_be_bytes),
            (_, 8) => {
                let long = value.try_into().ok().map(i64::from_be_bytes);
                long.and_then(|long| i32::try_from(long).ok())
            }
            _ => None,
        };
        let real = match number.and_then(&mut *real) {
            None => value.to_vec(),
            Some(real) => {
                found = true;
                match (format, value.len()) {
                    (0, _) => real.to_string().into_bytes(),
                    (_, 4) => real.to_be_bytes().to_vec(),
                    _ => i64::from(real).to_be_bytes().to_vec(),
                }
            }
        };
        out.extend_from_slice(&i32::try_from(real.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&real);
    }
    out.extend_from_slice(reader.rest());
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frame;

    /// 1000 and more stand for clients.
    fn real(number: i32) -> Option<i32> {
        (number >= 1000).then(|| number - 1000)
    }

    fn text(sql: &str) -> Option<String> {
        let renumbered = renumbered(&frame(b'Q', sql.as_bytes()), &mut real)?;
        let header = Header::peek(&renumbered, u32::MAX).ok().flatten();
        assert_eq!(header.map(Header::frame_len), Some(renumbered.len()));
        Some(String::from_utf8_lossy(&renumbered[HEADER_LEN..]).into_owned())
    }

    #[test]
    fn replaces_numbers_in_texts() {
        let changed = |sql: &str| Some(sql.to_owned());
        assert_eq!(
            text("select f(1005), f('1006')"),
            changed("select f(5), f('6')")
        );
        assert_eq!(text("select f(1005::int)\0"), changed("select f(5::int)\0"));
        for sql in ["select f(5)", "a1005", "1005.5", "f1005_6", "$1005", ""] {
            assert_eq!(text(sql), None, "{sql}");
        }
    }

    #[test]
    fn replaces_values_of_every_format() {
        let bind = |formats: &[u8], values: &[u8]| {
            let body = [b"p\0s\0", formats, values, &[0, 0]].concat();
            frame(b'B', &body)
        };
        let as_text = bind(&[0, 0], b"\0\x02\0\0\0\x041005\xff\xff\xff\xff");
        let expected = bind(&[0, 0], b"\0\x02\0\0\0\x015\xff\xff\xff\xff");
        assert_eq!(renumbered(&as_text, &mut real), Some(expected));

        let formats = [0, 2, 0, 1, 0, 1];
        let values = b"\0\x02\0\0\0\x04\0\0\x03\xed\0\0\0\x08\0\0\0\0\0\0\x03\xee";
        let expected = b"\0\x02\0\0\0\x04\0\0\0\x05\0\0\0\x08\0\0\0\0\0\0\0\x06";
        assert_eq!(
            renumbered(&bind(&formats, values), &mut real),
            Some(bind(&formats, expected))
        );
        assert_eq!(renumbered(&bind(&formats, expected), &mut real), None);
    }

    #[test]
    fn nothing_that_is_cut_short_is_touched() {
        let whole = frame(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x041005\0\0");
        assert!(renumbered(&whole, &mut real).is_some());
        for len in 0..whole.len() {
            assert_eq!(renumbered(&whole[..len], &mut real), None, "{len}");
        }
    }
}
