//! From the first byte of a client to its greeting. Boxed and dropped afterwards.
//!
//! startup and TLS → parameters → limit on all clients → who and where → proof → limits of
//! database and user → the pool's welcome → greeting.

mod authenticate;
mod enter;
mod startup;

use std::sync::Arc;

use pgweir_config::CONSOLE_DATABASE;
use pgweir_console::Access;
use pgweir_net::Stream;
use pgweir_net::tls::Hello;
use pgweir_pool::{Refusal, Scope};
use pgweir_session::{ClientSide, Values};
use pgweir_wire::{
    CancelKey, FirstPacket, FrameError, ProtocolVersion, StartupError, StartupMessage,
};

use crate::clients::client::{Client, Lease};
use crate::clients::conversation::{Conversation, Interrupted};
use crate::clients::farewell::Farewell;
use crate::shared::{Route, Shared};
use crate::watch::health;

/// Connections beyond `max_client_conn` that may still set up TLS.
const TLS_FOR_CONSOLES: u32 = 64;

/// What a connection turned out to be.
pub(crate) enum Entry {
    /// A client that has been greeted.
    Client(Box<Entrance>),
    /// A user of the console that has been greeted.
    Console { access: Access },
    /// A CancelRequest.
    Cancel(CancelKey),
}

/// What a client begins with.
pub(crate) struct Entrance {
    pub(crate) route: Arc<Route>,
    pub(crate) side: ClientSide,
    /// The server of a replication client, which it has for life.
    pub(crate) own: Option<Lease>,
}

/// A login under way.
pub(crate) struct Login<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) client: &'a Arc<Client>,
    /// `None` only while TLS is being set up.
    pub(crate) talk: &'a mut Option<Conversation>,
}

/// What the startup packet asks for.
struct Wish {
    database: Arc<str>,
    user: Arc<str>,
    values: Values,
    version: ProtocolVersion,
}

enum First {
    Startup(StartupMessage),
    Cancel(CancelKey),
}

impl Login<'_> {
    /// Logs the client in. What few clients need, and is large, is boxed.
    pub(crate) async fn run(&mut self) -> Result<Entry, Farewell> {
        let startup = match self.first_packet().await? {
            First::Startup(startup) => startup,
            First::Cancel(key) => return Ok(Entry::Cancel(key)),
        };
        let clients_must = self.shared.tls().clients_must;
        let stream = &self.talk()?.stream;
        if clients_must && stream.tls_info().is_none() && !stream.is_unix() {
            return Err(Farewell::TlsRequired);
        }
        let wish = self.read_startup(&startup)?;
        let is_console = *wish.database == *CONSOLE_DATABASE
            || (*wish.database == *"pgweir" && self.shared.config().database("pgweir").is_none());
        self.admit_connection(is_console)?;
        if !is_console && let Some(failure) = health::refusal(self.shared, &wish.database) {
            return Err(Farewell::Refused(Refusal::Failing(failure)));
        }
        let wish = self.negotiate(wish, &startup).await?;
        if is_console {
            return Box::pin(self.enter_console(wish)).await;
        }
        self.enter_pool(wish).await
    }

    fn talk(&mut self) -> Result<&mut Conversation, Farewell> {
        self.talk.as_mut().ok_or(Farewell::ClientGone)
    }

    /// Reads packets until one is not about encryption.
    async fn first_packet(&mut self) -> Result<First, Farewell> {
        loop {
            if self.begins_with_tls().await? {
                self.refuse_before_tls()?;
                Box::pin(self.accept_tls(true)).await?;
                continue;
            }
            match self.talk()?.first_packet().await.map_err(interrupted)? {
                FirstPacket::Startup(startup) => return Ok(First::Startup(startup)),
                FirstPacket::CancelRequest(key) => return Ok(First::Cancel(key)),
                FirstPacket::SslRequest => {
                    self.refuse_before_tls()?;
                    let talk = self.talk()?;
                    let encrypted = talk.stream.tls_info().is_some();
                    let possible = !encrypted && !talk.stream.is_unix();
                    let accepted = possible && self.shared.tls().acceptor.is_some();
                    self.answer_request(if accepted { b"S" } else { b"N" }, "SSL")
                        .await?;
                    if accepted {
                        Box::pin(self.accept_tls(false)).await?;
                    }
                }
                FirstPacket::GssEncRequest => {
                    self.answer_request(b"N", "GSSAPI encryption").await?;
                }
            }
        }
    }

    /// Whether the client speaks TLS without having asked for it.
    async fn begins_with_tls(&mut self) -> Result<bool, Farewell> {
        const HANDSHAKE_RECORD: u8 = 0x16;
        let possible = self.shared.tls().acceptor.is_some();
        let talk = self.talk()?;
        if !possible || !matches!(talk.stream, Stream::Tcp(_)) {
            return Ok(false);
        }
        let first = talk.first_byte().await.map_err(interrupted)?;
        Ok(first == HANDSHAKE_RECORD)
    }

    async fn answer_request(&mut self, answer: &[u8], what: &'static str) -> Result<(), Farewell> {
        let talk = self.talk()?;
        // Bytes that came in the clear behind the request would be taken for encrypted ones.
        if !talk.unread.is_empty() {
            return Err(Farewell::BytesBehindRequest(what));
        }
        talk.send(answer).await.map_err(|_| Farewell::ClientGone)
    }

    async fn accept_tls(&mut self, direct: bool) -> Result<(), Farewell> {
        let Some(acceptor) = self.shared.tls().acceptor.clone() else {
            return Err(Farewell::LoginMessage);
        };
        let talk = self.talk.take().ok_or(Farewell::ClientGone)?;
        let hello = match direct {
            true => Hello::Direct {
                received: &talk.unread,
            },
            false => Hello::AfterRequest,
        };
        let stream = acceptor.accept(talk.stream, hello).await.map_err(|error| {
            tracing::info!(peer = %self.client, "TLS handshake failed: {error}");
            Farewell::ClientGone
        })?;
        if let Some(info) = stream.tls_info() {
            let _ = self.client.tls.set(Box::new(info));
        }
        *self.talk = Some(Conversation::new(stream));
        Ok(())
    }

    /// `max_client_conn` counts every connection from its first byte; the console is exempt, so
    /// that somebody can still look.
    fn admit_connection(&self, is_console: bool) -> Result<(), Farewell> {
        let pools = self.shared.pools();
        match pools.budget.first_over(self.client.counted().ids()) {
            Some(scope) if !is_console => Err(Farewell::too_many(scope, &pools.budget)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether there are so many connections that TLS is too much for one that will be refused. Some
    /// more than the limit are let so far, because they may be for the console.
    fn refuse_before_tls(&self) -> Result<(), Farewell> {
        let pools = self.shared.pools();
        let over = pools.budget.excess(&Scope::Clients) > TLS_FOR_CONSOLES;
        match over {
            true => Err(Farewell::too_many(&Scope::Clients, &pools.budget)),
            false => Ok(()),
        }
    }
}

fn interrupted(interrupted: Interrupted) -> Farewell {
    match interrupted {
        Interrupted::Gone => Farewell::ClientGone,
        Interrupted::Startup(StartupError::Terminate) => Farewell::ClientClosed,
        Interrupted::Startup(error) => Farewell::Startup(error),
        Interrupted::Frame(error @ FrameError::TooShort { .. }) => Farewell::Header(error),
        Interrupted::Frame(error) => {
            tracing::debug!("client sent {error}");
            match error {
                FrameError::TooLong { length, .. } if i32::try_from(length).is_ok() => {
                    Farewell::LongLoginMessage
                }
                FrameError::TooLong { .. } | FrameError::TooShort { .. } => Farewell::LoginMessage,
            }
        }
    }
}
