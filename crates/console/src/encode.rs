//! The few backend messages that the console sends, appended to a buffer.

/// Appends one message: the tag, the length, and whatever `body` writes.
pub(crate) fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    with_len(out, 4, body);
}

/// Appends a length and then what `content` writes; `own` bytes of the length field count as well.
pub(crate) fn with_len(out: &mut Vec<u8>, own: usize, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    let len = out.len() - start - 4 + own;
    let len = i32::try_from(len).expect("the console writes no message near 2 GiB");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

pub(crate) fn ready_for_query(out: &mut Vec<u8>) {
    message(out, b'Z', |body| body.push(b'I'));
}

pub(crate) fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |body| string(body, tag));
}

/// ErrorResponse with the three fields PgBouncer sends, which are fewer than a server's.
pub(crate) fn error_response(out: &mut Vec<u8>, severity: &str, sqlstate: &str, text: &str) {
    fields(
        out,
        b'E',
        &[(b'S', severity), (b'C', sqlstate), (b'M', text)],
    );
}

pub(crate) fn notice_response(out: &mut Vec<u8>, text: &str, detail: Option<&str>) {
    let base = [(b'S', "NOTICE"), (b'C', "00000"), (b'M', text)];
    match detail {
        None => fields(out, b'N', &base),
        Some(detail) => fields(out, b'N', &[base[0], base[1], base[2], (b'D', detail)]),
    }
}

pub(crate) fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |body| {
        string(body, name);
        string(body, value);
    });
}

/// A zero-terminated string. A zero byte inside would end it early, so it is left out.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.push(0);
}

fn fields(out: &mut Vec<u8>, tag: u8, fields: &[(u8, &str)]) {
    message(out, tag, |body| {
        for (code, text) in fields {
            body.push(*code);
            string(body, text);
        }
        body.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_its_length_field_but_not_its_tag() {
        let mut out = vec![b'x'];
        ready_for_query(&mut out);
        command_complete(&mut out, "SHOW");
        assert_eq!(out, b"xZ\0\0\0\x05IC\0\0\0\x09SHOW\0");
    }

    #[test]
    fn a_zero_byte_cannot_end_a_string_early() {
        let mut out = Vec::new();
        error_response(&mut out, "ERROR", "08P01", "a\0b");
        assert_eq!(out, b"E\0\0\0\x17SERROR\0C08P01\0Mab\0\0");
    }
}
