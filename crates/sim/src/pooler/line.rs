//! A connection with what was read but not used and what was written but not taken: the twin of
//! `pgweir_net::Buffered`, over simulated wires.

use crate::wires::{Broken, End, Env, Read};

/// One end of a connection and its buffers.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) end: End,
    unread: Vec<u8>,
    offer_again: bool,
    unsent: Vec<u8>,
}

impl Line {
    pub(crate) fn new(end: End) -> Self {
        Self {
            end,
            unread: Vec::new(),
            offer_again: false,
            unsent: Vec::new(),
        }
    }

    /// Everything that has been read and not used, with what one more read brings.
    pub(crate) fn read(&mut self, env: &mut Env) -> Read {
        if std::mem::take(&mut self.offer_again) {
            return Read::Bytes(std::mem::take(&mut self.unread));
        }
        let max = match env.rng.one_in(3) {
            true => env.rng.between(1, 40),
            false => 4_096,
        };
        match env.read(self.end.read, max as usize) {
            Read::Bytes(bytes) => {
                let mut all = std::mem::take(&mut self.unread);
                all.extend(bytes);
                Read::Bytes(all)
            }
            other => other,
        }
    }

    /// Keeps what was not used, to be offered with what follows.
    pub(crate) fn keep(&mut self, mut bytes: Vec<u8>, consumed: usize) {
        debug_assert!(self.unread.is_empty());
        self.unread = bytes.split_off(consumed);
    }

    /// Keeps bytes to be offered at the next read, before anything new.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.offer_unread();
    }

    pub(crate) fn offer_unread(&mut self) {
        self.offer_again = !self.unread.is_empty();
    }

    /// Reads without using; true if the peer is gone.
    pub(crate) fn is_gone(&mut self, env: &mut Env) -> bool {
        loop {
            match env.read(self.end.read, usize::MAX) {
                Read::Bytes(bytes) => self.put_back(&bytes),
                Read::Nothing => return false,
                Read::End => return true,
            }
        }
    }

    /// Writes what is taken now and keeps the rest.
    pub(crate) fn send(&mut self, env: &mut Env, bytes: &[u8]) -> Result<(), Broken> {
        self.unsent.extend_from_slice(bytes);
        self.drain(env)
    }

    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn drain(&mut self, env: &mut Env) -> Result<(), Broken> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let taken = env.write(self.end.write, &self.unsent)?;
        self.unsent.drain(..taken);
        Ok(())
    }
}
