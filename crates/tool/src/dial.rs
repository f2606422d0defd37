//! The way to a pooler or to PostgreSQL: name, connection, TLS, login, each by itself, so that each can be timed.

use std::path::Path;

use pgweir_net::tls::{ClientSide, Connector, Parameters, Pem, SslMode};
use pgweir_net::{Stream, Target, TcpOptions, UnixName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::lookup_host;
use tokio_postgres::{Client, Config, NoTls};

/// Asks a server whether it speaks TLS: the length of the packet, and the number of this request.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whether a host is the directory of a Unix socket.
pub(crate) fn is_unix(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

/// Where a name leads.
pub(crate) async fn find(host: &str, port: u16) -> Result<Target, String> {
    if is_unix(host) {
        return Ok(Target::Unix(UnixName::in_dir(host, port)));
    }
    let mut found = lookup_host((host, port))
        .await
        .map_err(|error| error.to_string())?;
    let address = found
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    Ok(Target::Tcp(address))
}

/// A connection without TLS.
pub(crate) async fn connect(target: &Target) -> Result<Stream, String> {
    let options = TcpOptions {
        keepalive: None,
        user_timeout: None,
        socket_buffer: 0,
    };
    let connected = pgweir_net::connect(target, &options).await;
    connected.map_err(|error| error.to_string())
}

/// TLS, if the server speaks it; a server that must prove who it is has to. Unix sockets need none.
pub(crate) async fn encrypt(
    mut stream: Stream,
    host: &str,
    ca: Option<&Path>,
) -> Result<Stream, String> {
    if stream.is_unix() {
        return Ok(stream);
    }
    let lost = |error: std::io::Error| error.to_string();
    stream.write_all(&SSL_REQUEST).await.map_err(lost)?;
    match stream.read_u8().await.map_err(lost)? {
        b'S' => {
            let connector = connector(ca)?;
            let encrypted = connector.connect(stream, host).await;
            encrypted.map_err(|error| error.to_string())
        }
        b'N' if ca.is_none() => Ok(stream),
        b'N' => Err("the server speaks no TLS, and --tls-ca wants its certificate".to_owned()),
        _ => Err("what answers is no PostgreSQL and no pooler".to_owned()),
    }
}

/// Without an authority any certificate will do, as for libpq's `sslmode=prefer`.
fn connector(ca: Option<&Path>) -> Result<Connector, String> {
    let read = |path: &Path| Pem::read(&path.to_string_lossy());
    let side = ClientSide {
        sslmode: if ca.is_some() {
            SslMode::VerifyFull
        } else {
            SslMode::Prefer
        },
        ca: ca
            .map(read)
            .transpose()
            .map_err(|error| error.to_string())?,
        certificate: None,
        key: None,
        parameters: Parameters::default(),
    };
    Connector::new(&side).map_err(|error| error.to_string())
}

/// A login on a connection.
pub(crate) async fn log_in(
    stream: Stream,
    database: &str,
    user: &str,
    password: Option<&str>,
) -> Result<Client, String> {
    let mut wanted = Config::new();
    wanted
        .dbname(database)
        .user(user)
        .application_name("pgweir");
    if let Some(password) = password {
        wanted.password(password);
    }
    let (client, connection) = wanted
        .connect_raw(stream, NoTls)
        .await
        .map_err(|error| words(&error))?;
    // It ends with the client; what it fails with, the client's calls fail with as well.
    tokio::spawn(connection);
    Ok(client)
}

/// An error with what it comes from.
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(told) = error.as_db_error() {
        return told.message().to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
