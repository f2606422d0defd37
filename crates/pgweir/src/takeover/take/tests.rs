//! What the old process says, and how it ends.

use std::os::unix::net::UnixStream;

use super::*;

fn row(columns: &[&str]) -> Row {
    let columns = columns.iter();
    columns
        .map(|text| (*text != "NULL").then(|| (*text).to_owned()))
        .collect()
}

fn sockets() -> VecDeque<OwnedFd> {
    let (near, _) = UnixStream::pair().unwrap();
    VecDeque::from([near.into()])
}

#[test]
fn a_row_of_pgbouncers_is_understood() {
    let client = row(&[
        "17",
        "client",
        "ann",
        "app",
        "127.0.0.1",
        "45678",
        "18446744073709551615",
        "19",
        "UTF8",
        "on",
        "ISO, MDY",
        "NULL",
        "md5abc",
        "\\x00ff",
        "\\x01",
    ]);
    let (parcel, socket) = parcel_of_fds(client, &mut sockets()).unwrap();
    let Parcel::Client(client) = parcel else {
        panic!("another parcel")
    };
    assert_eq!((&*client.user, &*client.database), ("ann", "app"));
    assert_eq!(client.server, Some(19));
    assert_eq!(client.cancel_key, Bytes(vec![0xff; 8]));
    assert_eq!(client.secret.password, Some(Bytes(b"md5abc".to_vec())));
    assert_eq!(client.secret.scram_client_key, Some(Bytes(vec![0, 0xff])));
    assert!(socket.is_some());
}

#[test]
fn an_older_pgbouncer_has_fewer_columns() {
    let server = row(&["19", "server", "ann", "app", "127.0.0.1", "5432", "-1", "0"]);
    let (parcel, _) = parcel_of_fds(server, &mut sockets()).unwrap();
    let Parcel::Server(server) = parcel else {
        panic!("another parcel")
    };
    assert_eq!((server.number, server.is_lent), (19, false));
    assert_eq!(server.cancel_key, Bytes(vec![0xff; 8]));
}

#[test]
fn a_row_without_a_socket_is_refused() {
    let pooler = || row(&["7", "pooler"]);
    assert!(parcel_of_fds(pooler(), &mut sockets()).is_ok());
    assert!(parcel_of_fds(pooler(), &mut VecDeque::new()).is_err());
    let unheard_of = row(&["7", "printer"]);
    assert!(parcel_of_fds(unheard_of, &mut sockets()).is_err());
}

#[test]
fn a_parcel_takes_its_own_socket_only() {
    let mut sockets = sockets();
    let statement = r#"{"Statement":{"id":1,"definition":""}}"#;
    let (_, none) = parcel(row(&[statement]), &mut sockets).unwrap();
    assert!(none.is_none());
    let (_, some) = parcel(row(&["\"Listener\""]), &mut sockets).unwrap();
    assert!(some.is_some());
    assert!(parcel(row(&["\"Listener\""]), &mut sockets).is_err());
    assert!(parcel(row(&["{"]), &mut sockets).is_err());
}

/// An old process on its console, and what stands for it.
fn console() -> (Predecessor, UnixStream) {
    let (socket, old) = UnixStream::pair().unwrap();
    let predecessor = Predecessor {
        socket,
        unread: BytesMut::new(),
        sockets: VecDeque::new(),
    };
    (predecessor, old)
}

fn error(severity: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0C08P01\0Mit goes on\0\0");
    let len = u32::try_from(fields.len()).unwrap() + 4;
    [&b"E"[..], &len.to_be_bytes()[..], fields.as_bytes()].concat()
}

#[test]
fn a_process_that_has_died_has_ended() {
    let (predecessor, old) = console();
    drop(old);
    assert_eq!(predecessor.end(), Ok(()));
}

#[test]
fn a_process_that_has_refused_has_not_ended() {
    for severity in ["ERROR", "FATAL"] {
        let (predecessor, mut old) = console();
        old.write_all(&error(severity)).unwrap();
        drop(old);
        assert_eq!(
            predecessor.end(),
            Err("it goes on".to_owned()),
            "{severity}"
        );
    }
}

#[test]
fn a_parcel_may_be_longer_than_a_message_in_it() {
    let (mut predecessor, mut old) = console();
    let len = pgweir_wire::SizeLimits::HELD * 4 / 3;
    let writing = std::thread::spawn(move || {
        let header = [&b"D"[..], &(len + 4).to_be_bytes()[..]].concat();
        old.write_all(&header)?;
        old.write_all(&vec![b'x'; len as usize])
    });
    let (_, body) = predecessor.message().unwrap();
    assert_eq!(body.len(), len as usize);
    writing.join().unwrap().unwrap();
}
