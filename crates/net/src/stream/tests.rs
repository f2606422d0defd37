//! Connections: what is read, where they end, and how they move.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::buffer::Buffered;

const SOON: Duration = Duration::from_secs(5);

async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (Stream::Tcp(near), Stream::Tcp(far))
}

fn unix_pair() -> (Stream, Stream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Stream::Unix(near), Stream::Unix(far))
}

/// Waits until the reactor has seen what the other end did, as time passes between two loans.
async fn idle_read(stream: &mut Stream, buf: &mut [u8]) -> io::Result<usize> {
    for _ in 0..100 {
        match stream.try_read_idle(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            other => return other,
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[test]
fn is_a_socket_and_one_word() {
    assert_eq!(
        size_of::<Stream>(),
        size_of::<TcpStream>() + size_of::<usize>()
    );
    // In a debug build mio adds a word to every socket.
    let largest = if cfg!(debug_assertions) { 48 } else { 40 };
    assert!(
        size_of::<Stream>() <= largest,
        "{} bytes",
        size_of::<Stream>()
    );
}

#[tokio::test]
async fn an_idle_stream_shows_silence_stray_bytes_and_the_end() {
    for (mut near, mut far) in [tcp_pair().await, unix_pair()] {
        let mut buf = [0; 16];
        let silent = near.try_read_idle(&mut buf).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);

        far.write_all(b"stray").await.unwrap();
        assert_eq!(idle_read(&mut near, &mut buf).await.unwrap(), 5);
        assert_eq!(&buf[..5], b"stray");

        drop(far);
        assert_eq!(idle_read(&mut near, &mut buf).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_half_close_ends_one_direction_only() {
    for (mut near, mut far) in [tcp_pair().await, unix_pair()] {
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        far.write_all(b"late").await.unwrap();
        let mut buf = [0; 4];
        near.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"late");
    }
}

#[tokio::test]
async fn abort_resets_a_tcp_peer() {
    let (near, mut far) = tcp_pair().await;
    near.abort();
    let error = far.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn moves_out_of_the_reactor_and_back() {
    for (near, mut far) in [tcp_pair().await, unix_pair()] {
        let was_unix = near.is_unix();
        let fd = near.into_fd().unwrap().unwrap();
        let mut near = Stream::from_fd(fd).unwrap();
        assert_eq!(near.is_unix(), was_unix);
        near.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        far.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
    }
}

#[test]
fn a_connection_moves_to_another_reactor_with_what_was_read() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let read = async |line: &mut Buffered| {
        let mut scratch = [0; 64];
        let input = std::future::poll_fn(|cx| line.poll_read(cx, &mut scratch));
        let input = timeout(SOON, input).await.expect("it is woken").unwrap();
        input.bytes(&scratch).to_vec()
    };
    let (line, mut far) = first.block_on(async {
        let (near, mut far) = tcp_pair().await;
        let mut line = Buffered::new(near);
        far.write_all(b"before").await.unwrap();
        let seen = read(&mut line).await;
        line.put_back_bytes(&seen);
        far.write_all(b", between").await.unwrap();
        assert!(line.can_move());
        (line, far)
    });
    let mut line = second.block_on(async {
        let mut line = line.move_here().unwrap();
        assert_eq!(read(&mut line).await, b"before");
        assert_eq!(read(&mut line).await, b", between");
        line
    });
    first.block_on(far.write_all(b" and after")).unwrap();
    // Nobody runs the first any more.
    let after = second.block_on(read(&mut line));
    assert_eq!(after, b" and after");
}

#[tokio::test]
async fn knows_both_ends() {
    let (near, far) = tcp_pair().await;
    assert_eq!(near.peer_address(0).unwrap(), far.local_address(0).unwrap());
    assert!(near.tls_info().is_none() && near.server_end_point_binding().is_none());

    let (near, _far) = unix_pair();
    let address = near.peer_address(6432).unwrap();
    assert_eq!(
        address.to_string(),
        format!("unix({}):6432", std::process::id())
    );
    assert!(address.peer_credentials().is_some());
}
