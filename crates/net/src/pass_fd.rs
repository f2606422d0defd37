//! Descriptors that ride on bytes over a Unix socket, from one process to another.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors that one read may bring. The kernel ends a read behind the first bytes that carry
/// some, so this is what one message carries; we send one.
const FDS_PER_READ: usize = 8;

/// Writes once; the descriptor rides on the first byte. How many bytes were taken.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is for one descriptor");
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(sent)
}

/// Reads once, and appends the descriptors that came along. Zero is the end.
///
/// # Errors
/// As the operating system says; also if descriptors were lost, because this process may not open
/// so many.
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS_PER_READ))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(buf)],
        &mut control,
        close_on_exec(),
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "descriptors were lost on the way; too many open files?",
        ));
    }
    Ok(received.bytes)
}

#[cfg(not(target_vendor = "apple"))]
fn close_on_exec() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

/// There is no such flag; nothing is executed before the descriptors are in use.
#[cfg(target_vendor = "apple")]
fn close_on_exec() -> RecvFlags {
    RecvFlags::empty()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(send(near.as_fd(), b"row", theirs.as_fd()).unwrap(), 3);
        drop(theirs);

        let (mut buf, mut fds) = ([0; 64], VecDeque::new());
        assert_eq!(
            receive_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap(),
            3
        );
        assert_eq!(&buf[..3], b"row");
        let mut arrived = UnixStream::from(fds.pop_front().unwrap());
        arrived.write_all(b"hello").unwrap();
        let mut word = [0; 5];
        ours.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"hello");
        assert!(fds.is_empty());
    }

    #[test]
    fn messages_with_descriptors_are_not_glued_together() {
        let (near, far) = UnixStream::pair().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        for fd in [&one, &other] {
            send(near.as_fd(), b"row", fd.as_fd()).unwrap();
        }
        drop(near);
        let (mut buf, mut fds) = ([0; 64], VecDeque::new());
        for count in [1, 2] {
            assert_eq!(
                receive_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap(),
                3
            );
            assert_eq!(fds.len(), count);
        }
        assert_eq!(
            receive_with_fds(far.as_fd(), &mut buf, &mut fds).unwrap(),
            0
        );
    }
}
