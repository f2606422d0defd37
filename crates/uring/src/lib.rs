//! Sends to many sockets with one system call, by io_uring. For Linux.
//!
//! One of three crates of this project with `unsafe` in it, because the kernel is told where bytes lie; `docs/adr/0026-outbox.md` says
//! what it is for. It is small, and has one type. Nothing goes on in the kernel when [`Ring::send_each`] has returned, so that nothing
//! of io_uring's lifetimes, cancellations and order is left for its caller.

#![cfg(target_os = "linux")]
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![warn(missing_docs)]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::thread;

use io_uring::{IoUring, Probe, opcode, types};
use rustix::net::{SendFlags, send};

/// As with `send(2)`: do not wait, and no SIGPIPE.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Bytes for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// Whoever asks for it keeps the socket open meanwhile; a number that has been closed gets `EBADF`.
    pub socket: RawFd,
    /// What to send.
    pub bytes: &'a [u8],
}

/// How many bytes a socket has taken, or why it took none. `WouldBlock`: it is full.
pub type Sent = io::Result<usize>;

/// A ring that sends.
pub struct Ring {
    /// Until the kernel has refused something: what it was not given must never be given to it later.
    ring: Option<IoUring>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// For up to `capacity` sockets at a time.
    ///
    /// # Errors
    /// The kernel has no io_uring (before 5.6), or its administrator or the container's profile does not allow it.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let ring = IoUring::new(capacity)?;
        let mut known = Probe::new();
        ring.submitter().register_probe(&mut known)?;
        if !known.is_supported(opcode::Send::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring: Some(ring) })
    }

    /// Sends each, in their order, without waiting for room. `sent` gets what became of the first so many.
    ///
    /// # Errors
    /// The kernel has refused the others, or there are more than the ring has places: of those nothing has been sent, and
    /// the kernel will be asked no more.
    pub fn send_each<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a>>,
        sent: &mut Vec<Sent>,
    ) -> io::Result<()> {
        sent.clear();
        let Some(mut ring) = self.ring.take() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut queue = ring.submission();
        for (index, send) in sends.enumerate() {
            let entry = entry(&send).user_data(index as u64);
            // SAFETY: the bytes are borrowed until this function returns, and it does so only when the kernel has
            // completed everything that it was given. What it was not given is forgotten with the ring.
            unsafe { queue.push(&entry) }.map_err(io::Error::other)?;
        }
        let total = queue.len();
        drop(queue);
        let (submitted, outcome) = submit(&ring, total);
        collect(&mut ring, submitted, sent);
        outcome?;
        self.ring = Some(ring);
        Ok(())
    }
}

/// Gives the kernel what is in the queue: how much of it has been taken, in its order.
fn submit(ring: &IoUring, total: usize) -> (usize, io::Result<()>) {
    let mut submitted = 0;
    while submitted < total {
        match ring.submit() {
            Ok(more) => submitted += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (submitted, Err(error)),
        }
    }
    (submitted, Ok(()))
}

/// Collects what became of the first `submitted`. A send that does not wait is over when it has been submitted, so all of them
/// are there; but not even a kernel that thinks otherwise may read bytes that somebody else writes into.
fn collect(ring: &mut IoUring, submitted: usize, sent: &mut Vec<Sent>) {
    sent.resize_with(submitted, || Ok(0));
    let mut missing = submitted;
    loop {
        for completed in ring.completion() {
            missing -= 1;
            if let Some(place) = sent.get_mut(completed.user_data() as usize) {
                *place = match usize::try_from(completed.result()) {
                    Ok(len) => Ok(len),
                    Err(_) => Err(io::Error::from_raw_os_error(-completed.result())),
                };
            }
        }
        if missing == 0 {
            return;
        }
        thread::yield_now();
    }
}

fn entry(send: &Send<'_>) -> io_uring::squeue::Entry {
    // The kernel's own field has 32 bits.
    let len = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(types::Fd(send.socket), send.bytes.as_ptr(), len)
        .flags(FLAGS.bits().cast_signed())
        .build()
}

/// The same for one socket, by `send(2)`, which costs less when there is only one.
///
/// # Errors
/// As the operating system says.
pub fn send_one(one: &Send<'_>) -> Sent {
    // SAFETY: the number is used for one call. What it stands for is what whoever asks has promised.
    let socket = unsafe { BorrowedFd::borrow_raw(one.socket) };
    Ok(send(socket, one.bytes, FLAGS)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Says so and is done where the kernel has no io_uring.
    fn ring() -> Option<Ring> {
        Ring::new(8)
            .inspect_err(|error| println!("skipped: io_uring: {error}"))
            .ok()
    }

    fn to<'a>(socket: &UnixStream, bytes: &'a [u8]) -> Send<'a> {
        Send {
            socket: socket.as_raw_fd(),
            bytes,
        }
    }

    #[test]
    fn each_gets_its_own_in_order() {
        let Some(mut ring) = ring() else { return };
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        let mut sent = Vec::new();
        for _ in 0..100 {
            let texts = ["one", "two2", "three"];
            let sends = pairs.iter().zip(texts);
            let sends: Vec<_> = sends
                .map(|((near, _), text)| to(near, text.as_bytes()))
                .collect();
            ring.send_each(sends.into_iter(), &mut sent).unwrap();
            for (((_, far), text), sent) in pairs.iter().zip(texts).zip(&sent) {
                assert_eq!(*sent.as_ref().unwrap(), text.len());
                let mut buf = [0; 16];
                let len = (&*far).read(&mut buf).unwrap();
                assert_eq!(&buf[..len], text.as_bytes());
            }
        }
    }

    #[test]
    fn who_is_full_gone_or_closed_is_told_and_the_others_are_served() {
        let Some(mut ring) = ring() else { return };
        let (full, _far) = UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while send_one(&to(&full, &[0; 4096])).is_ok() {}
        let (gone, far) = UnixStream::pair().unwrap();
        drop(far);
        // A number that is nobody's: one that was closed could be another test's by now.
        let closed = RawFd::MAX;
        let (well, mut hears) = UnixStream::pair().unwrap();
        let sends = [
            to(&full, b"full"),
            to(&gone, b"gone"),
            Send {
                socket: closed,
                bytes: b"closed",
            },
            to(&well, b"well"),
        ];
        let mut sent = Vec::new();
        ring.send_each(sends.into_iter(), &mut sent).unwrap();
        let kinds: Vec<_> = sent
            .iter()
            .map(|sent| sent.as_ref().map_err(|error| error.kind()))
            .collect();
        assert_eq!(kinds[0], Err(io::ErrorKind::WouldBlock));
        assert_eq!(kinds[1], Err(io::ErrorKind::BrokenPipe));
        assert!(kinds[2].is_err());
        assert_eq!(kinds[3], Ok(&4));
        let mut buf = [0; 4];
        hears.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"well");
    }

    #[test]
    fn more_than_there_is_room_for_is_refused_and_nothing_of_it_is_sent_later() {
        let Some(mut ring) = ring() else { return };
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut sent = Vec::new();
        for many in [9, 1] {
            let sends = (0..many).map(|_| to(&near, b"hello"));
            ring.send_each(sends, &mut sent).unwrap_err();
            assert!(sent.is_empty());
        }
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"");
    }

    #[test]
    fn a_part_is_told_as_a_part() {
        let Some(mut ring) = ring() else { return };
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let bytes = vec![7; 4 * 1024 * 1024];
        let mut sent = Vec::new();
        ring.send_each([to(&near, &bytes)].into_iter(), &mut sent)
            .unwrap();
        let len = *sent[0].as_ref().unwrap();
        assert!((1..bytes.len()).contains(&len), "{len}");
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), len);
    }
}
