//! TLS on a connection to PostgreSQL, as far as the configuration asks for it.

use bytes::BytesMut;
use pgweir_net::Stream;
use pgweir_wire::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect_failure;
use super::opening::{Opening, Trouble};
use super::proof::refused;
use crate::clients::conversation::Conversation;

const NOT_VERIFIED: &str = "a token of Amazon RDS goes over TLS only, to a server that is verified: \
                            set server_tls_sslmode to verify-full";

impl Opening<'_> {
    pub(super) async fn encrypt(&mut self, mut stream: Stream) -> Result<Stream, Trouble> {
        let tls = self.shared.tls();
        if self.secret.needs_verified && (stream.is_unix() || !tls.verifies_servers()) {
            self.diary.begin("tls");
            self.talk = Some(Conversation::new(stream));
            return Err(refused(NOT_VERIFIED));
        }
        if stream.is_unix() || !tls.requests_server_tls() {
            let why = match stream.is_unix() {
                true => "a Unix socket needs none",
                false => "server_tls_sslmode = disable",
            };
            self.diary.skip("tls", why);
            return Ok(stream);
        }
        self.diary.begin("tls");
        let lost = |_| Trouble::from(connect_failure("connect failed"));
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(lost)?;
        match stream.read_u8().await.map_err(lost)? {
            b'S' => {}
            b'N' if tls.requires_server_tls() => {
                self.talk = Some(Conversation::new(stream));
                return Err(connect_failure("server refused SSL").into());
            }
            b'N' => {
                self.diary.done("PostgreSQL has none, and none is needed");
                return Ok(stream);
            }
            _ => return Err(connect_failure("weird SSL answer from server").into()),
        }
        match tls.encrypt(stream, self.info.host.as_deref()).await {
            Ok(stream) => {
                let certificate = stream.peer_certificate();
                if let Some(expiry) = certificate.and_then(|shown| shown.expiry()) {
                    let _ = self.info.certificate_expiry.set(expiry);
                }
                if let Some(info) = stream.tls_info() {
                    let _ = self.info.tls.set(info);
                    tracing::info!(peer = %self.info, "SSL established: {info}");
                }
                let info = self.info.tls.get().map(ToString::to_string);
                self.diary.done(info.unwrap_or_default());
                Ok(stream)
            }
            Err(error) => {
                tracing::warn!(peer = %self.info, "TLS handshake with server failed: {error}");
                self.diary.failed(error.to_string());
                Err(connect_failure("TLS handshake failed").into())
            }
        }
    }
}
