//! A raw client's connection inside TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Wire;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How a client asks for TLS.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// By an SSLRequest.
    Asked,
    /// By beginning.
    Direct,
    /// By beginning, slowly.
    DirectInPieces,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsWire(StreamOwned<ClientConnection, TcpStream>);

impl TlsWire {
    /// A connection to `localhost`, whose certificate this root has signed.
    ///
    /// # Panics
    /// If there is no handshake.
    #[track_caller]
    pub fn connect(port: u16, root: &CertificateDer<'static>, begin: Begin) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the default versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection =
            ClientConnection::new(Arc::new(config), name).expect("a configuration");

        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        match begin {
            Begin::Asked => {
                socket.write_all(&SSL_REQUEST).expect("it reads");
                let mut answer = [0];
                socket.read_exact(&mut answer).expect("an answer");
                assert_eq!(answer, *b"S");
            }
            Begin::Direct => {}
            Begin::DirectInPieces => {
                let mut hello = Vec::new();
                connection.write_tls(&mut hello).expect("memory");
                for piece in hello.chunks(50) {
                    socket.write_all(piece).expect("it reads");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        connection.complete_io(&mut socket).expect("a handshake");
        if !matches!(begin, Begin::Asked) {
            assert_eq!(connection.alpn_protocol(), Some(&b"postgresql"[..]));
        }
        Self(StreamOwned::new(connection, socket))
    }

    /// The certificate that it was shown.
    ///
    /// # Panics
    /// Never: there was a handshake.
    pub fn peer_certificate(&self) -> CertificateDer<'static> {
        let shown = self.0.conn.peer_certificates().expect("a handshake");
        shown[0].clone()
    }
}

impl Read for TlsWire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsWire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Wire for TlsWire {
    fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}
