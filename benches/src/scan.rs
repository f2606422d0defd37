//! Walks over the messages of a server without looking into them.

const HEADER_LEN: usize = 5;

/// Where a stream of messages stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// The start of a header that was cut by the end of a read.
    head: [u8; HEADER_LEN],
    have: usize,
    /// Bytes of the current message's body that are still to come.
    skip: usize,
    /// Whether the body that comes next is the status byte of ReadyForQuery.
    status_next: bool,
    quiet: bool,
}

impl Scan {
    /// Whether the last thing seen was a ReadyForQuery outside of a transaction.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says that the server has been asked something.
    #[inline]
    pub fn asked(&mut self) {
        self.quiet = false;
    }

    /// Walks over the next bytes and calls `seen` with the tag of every message that begins in them.
    #[inline]
    pub fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8)) {
        loop {
            if self.status_next
                && let Some(status) = bytes.first()
            {
                self.status_next = false;
                self.quiet = *status == b'I';
            }
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let Some(header) = self.header(&mut bytes) else {
                return;
            };
            let [tag, length @ ..] = header;
            // The length counts itself.
            self.skip = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            self.status_next = tag == b'Z';
            self.quiet = false;
            seen(tag);
        }
    }

    #[inline]
    fn header(&mut self, bytes: &mut &[u8]) -> Option<[u8; HEADER_LEN]> {
        if self.have == 0
            && let Some((header, rest)) = bytes.split_first_chunk()
        {
            *bytes = rest;
            return Some(*header);
        }
        let taken = bytes.len().min(HEADER_LEN - self.have);
        let (start, rest) = bytes.split_at(taken);
        self.head[self.have..self.have + taken].copy_from_slice(start);
        self.have += taken;
        *bytes = rest;
        if self.have < HEADER_LEN {
            return None;
        }
        self.have = 0;
        Some(self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I";

    #[test]
    fn sees_the_end_of_a_reply_however_it_is_cut() {
        for cut in 0..=REPLY.len() {
            let mut scan = Scan::default();
            let mut tags = Vec::new();
            let (first, second) = REPLY.split_at(cut);
            scan.feed(first, |tag| tags.push(tag));
            assert_eq!(scan.is_quiet(), second.is_empty(), "cut at {cut}");
            scan.feed(second, |tag| tags.push(tag));
            assert!(scan.is_quiet(), "cut at {cut}");
            assert_eq!(tags, b"CZ", "cut at {cut}");
        }
    }

    #[test]
    fn a_transaction_is_not_quiet() {
        let mut scan = Scan::default();
        scan.feed(b"Z\x00\x00\x00\x05T", |_| {});
        assert!(!scan.is_quiet());
    }
}
