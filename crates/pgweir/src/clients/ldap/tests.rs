use tokio::net::{TcpListener, TcpStream};

use super::*;

/// An entry that the first request of a connection has found: `cn=a`, without attributes.
const ENTRY: &[u8] = b"\x30\x0d\x02\x01\x01\x64\x08\x04\x04cn=a\x30\x00";

#[tokio::test]
async fn a_second_entry_is_enough() {
    let options = LdapOptions::parse("ldapserver=a ldapbasedn=\"dc=b\"").expect("options");
    let UserDn::Search(search) = &options.user_dn else {
        panic!("it is searched for")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let directory = async {
        let (mut stream, _) = listener.accept().await.expect("somebody connects");
        let mut request = [0; 512];
        let _ = stream.read(&mut request).await.expect("a search comes");
        // No end of the search follows.
        let entries = ENTRY.repeat(3);
        stream.write_all(&entries).await.expect("they are read");
    };
    let searching = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let mut line = Line {
            stream: Stream::Tcp(stream),
            received: BytesMut::new(),
            server: "a".to_owned(),
            last: 0,
        };
        line.search(search, "joe").await
    };
    let (found, ()) = tokio::join!(searching, directory);
    assert_eq!(found, Ok(vec!["cn=a".to_owned(); 2]));
}
