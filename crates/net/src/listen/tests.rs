//! Listening, with clients that connect.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::address::Address;
use crate::connect::{Target, connect};
use crate::stream::Stream;

const PERMISSIONS: UnixPermissions = UnixPermissions {
    mode: 0o777,
    group: None,
};

fn options() -> ListenOptions {
    ListenOptions {
        backlog: 16,
        reuse_port: false,
        tcp: TcpOptions::default(),
    }
}

fn local_tcp() -> Listener {
    Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &options()).unwrap()
}

async fn reach(target: &Target) -> Stream {
    connect(target, &TcpOptions::default()).await.unwrap()
}

async fn take(listener: &Listener) -> (Stream, Address) {
    let accepted = timeout(Duration::from_secs(60), listener.accept()).await;
    let accepted = accepted.expect("nobody came").unwrap();
    let Opened { stream, peer, .. } = accepted.open().unwrap();
    (stream, peer)
}

fn tcp_target(listener: &Listener) -> Target {
    Target::Tcp(listener.name().parse().unwrap())
}

#[tokio::test]
async fn accepts_over_tcp_with_inherited_options() {
    let mut options = options();
    options.tcp.user_timeout = Some(Duration::from_secs(9));
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let client = reach(&tcp_target(&listener)).await;
    let (server, address) = take(&listener).await;
    assert_eq!(address, client.local_address(0).unwrap());
    let fd = server.as_fd();
    let socket = SockRef::from(&fd);
    assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    assert_eq!(
        socket.tcp_user_timeout().unwrap(),
        Some(Duration::from_secs(9))
    );
}

#[tokio::test]
async fn our_end_of_a_connection_is_known_for_one_address_and_for_all_of_them() {
    for bind in ["127.0.0.1:0", "0.0.0.0:0"] {
        let listener = Listener::bind_tcp(bind.parse().unwrap(), &options()).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], listener.port()));
        let _client = reach(&Target::Tcp(here)).await;
        let opened = listener.accept().await.unwrap().open().unwrap();
        assert_eq!(opened.local, Address::Tcp(here));
    }
}

#[tokio::test]
async fn what_a_connection_begins_with_is_read_and_answered_before_the_reactor_has_looked() {
    let listener = local_tcp();
    let mut client = reach(&tcp_target(&listener)).await;
    let accepted = listener.accept().await.unwrap();
    let mut buf = [0; 16];
    assert_eq!(accepted.read_now(&mut buf), 0);
    client.write_all(b"hello, and more").await.unwrap();
    assert_eq!(accepted.read_now(&mut buf[..5]), 5);
    assert_eq!(&buf[..5], b"hello");
    let mut server = accepted.open().unwrap().stream;
    assert_eq!(server.send_now(b"well"), 4);
    client.read_exact(&mut buf[..4]).await.unwrap();
    assert_eq!(&buf[..4], b"well");
    // What was not read yet is seen by the reactor, and so is the end.
    drop(client);
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b", and more");
}

#[tokio::test]
async fn accepts_over_unix_and_removes_its_file_when_closed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let permissions = UnixPermissions {
        mode: 0o700,
        group: None,
    };
    let listener = Listener::bind_unix(dir, 6432, permissions, &options()).unwrap();
    let name = UnixName::in_dir(dir, 6432);
    assert_eq!(listener.name(), name.to_string());
    let path = name.file().unwrap().to_owned();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);

    let _client = reach(&Target::Unix(name)).await;
    let (_server, address) = take(&listener).await;
    assert_eq!(
        address.to_string(),
        format!("unix({}):6432", std::process::id())
    );
    listener.remove_file();
    assert!(!path.exists());
}

#[tokio::test]
async fn everybody_who_has_come_is_accepted_and_so_is_who_comes_later() {
    let listener = local_tcp();
    let target = tcp_target(&listener);
    for _ in 0..2 {
        let clients = [reach(&target).await, reach(&target).await];
        for client in clients {
            let (_server, address) = take(&listener).await;
            assert_eq!(address, client.local_address(0).unwrap());
        }
        assert!(poll_fn(|cx| Poll::Ready(listener.poll_accept(cx).is_pending())).await);
    }
}

#[tokio::test]
async fn of_two_who_share_a_socket_the_slower_waits_for_the_next() {
    let listener = local_tcp();
    let target = tcp_target(&listener);
    let fd = listener.as_fd().try_clone_to_owned().unwrap();
    let other = Listener::from_fd(fd, 0, &TcpOptions::default()).unwrap();
    for _ in 0..2 {
        let _client = reach(&target).await;
        take(&listener).await;
        yield_now().await;
        assert!(poll_fn(|cx| Poll::Ready(other.poll_accept(cx).is_pending())).await);
        let client = reach(&target).await;
        let (_server, address) = take(&other).await;
        assert_eq!(address, client.local_address(0).unwrap());
    }
}

#[tokio::test]
async fn accepts_in_the_abstract_namespace() {
    let dir = format!("@pgweir-test-{}", std::process::id());
    let listener = Listener::bind_unix(&dir, 7, PERMISSIONS, &options()).unwrap();
    assert_eq!(listener.name(), format!("unix:{dir}/.s.PGSQL.7"));
    let mut client = reach(&Target::Unix(UnixName::in_dir(&dir, 7))).await;
    let (mut server, _) = take(&listener).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    let error = Listener::bind_unix(&dir, 7, PERMISSIONS, &options()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unix socket is in use, cannot continue")
    );
}

#[tokio::test]
async fn replaces_a_stale_unix_socket_but_not_a_living_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let first = Listener::bind_unix(dir, 1, PERMISSIONS, &options()).unwrap();
    let error = Listener::bind_unix(dir, 1, PERMISSIONS, &options()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unix socket is in use, cannot continue")
    );

    drop(first);
    let second = Listener::bind_unix(dir, 1, PERMISSIONS, &options()).unwrap();
    let _client = reach(&Target::Unix(UnixName::in_dir(dir, 1))).await;
    take(&second).await;
}

#[tokio::test]
async fn leaves_foreign_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().to_str().unwrap();
    fs::write(dir.path().join(".s.PGSQL.1"), "notes").unwrap();
    let error = Listener::bind_unix(text, 1, PERMISSIONS, &options()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the file exists and is not a socket"),
        "{error}"
    );

    fs::write(dir.path().join(".s.PGSQL.2.lock"), "1").unwrap();
    let error = Listener::bind_unix(text, 2, PERMISSIONS, &options()).unwrap_err();
    assert!(
        error.to_string().starts_with("unix port 2 is in use"),
        "{error}"
    );
}

#[tokio::test]
async fn a_closed_listener_leaves_the_file_of_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().to_str().unwrap();
    let old = Listener::bind_unix(text, 1, PERMISSIONS, &options()).unwrap();
    let path = dir.path().join(".s.PGSQL.1");
    fs::rename(&path, dir.path().join("aside")).unwrap();
    let _new = Listener::bind_unix(text, 1, PERMISSIONS, &options()).unwrap();
    old.remove_file();
    assert!(path.exists());
}

#[tokio::test]
async fn names_the_address_that_is_taken() {
    let first = local_tcp();
    let addr = first.name().parse().unwrap();
    let error = Listener::bind_tcp(addr, &options()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {addr}: bind(): Address already in use")
    );
}

#[tokio::test]
async fn two_can_share_a_port_only_when_asked_to() {
    let shared = ListenOptions {
        reuse_port: true,
        ..options()
    };
    let first = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
    let addr = first.name().parse().unwrap();
    Listener::bind_tcp(addr, &shared).unwrap();
    Listener::bind_tcp(addr, &options()).unwrap_err();
}

#[tokio::test]
async fn dropping_refuses_newcomers_and_those_in_the_queue() {
    let listener = local_tcp();
    let target = tcp_target(&listener);
    let mut queued = reach(&target).await;
    drop(listener);
    assert!(matches!(queued.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    connect(&target, &TcpOptions::default()).await.unwrap_err();
}

#[tokio::test]
async fn adopts_a_listening_socket_and_nothing_else() {
    let listener = local_tcp();
    let target = tcp_target(&listener);
    let fd = listener.as_fd().try_clone_to_owned().unwrap();
    drop(listener);
    let adopted = Listener::from_fd(fd, 0, &TcpOptions::default()).unwrap();
    let client = reach(&target).await;
    take(&adopted).await;

    let fd = client.as_fd().try_clone_to_owned().unwrap();
    let error = Listener::from_fd(fd, 0, &TcpOptions::default()).unwrap_err();
    assert!(
        error.to_string().ends_with("not a listening socket"),
        "{error}"
    );
}

#[test]
fn a_star_is_every_address() {
    let all = resolve_listen_address("*", 6432).unwrap();
    assert_eq!(all.first(), Some(&"0.0.0.0:6432".parse().unwrap()));
    let one = resolve_listen_address("127.0.0.1", 6432).unwrap();
    assert_eq!(one, ["127.0.0.1:6432".parse().unwrap()]);
    let six = resolve_listen_address("::1", 6432).unwrap();
    assert_eq!(six, ["[::1]:6432".parse().unwrap()]);
}
