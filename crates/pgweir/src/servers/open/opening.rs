//! One attempt to log in: TLS, the login, the welcome.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use bytes::BytesMut;
use pgweir_config::TargetSessionAttrs;
use pgweir_net::{Buffered, connect};
use pgweir_pool::{Failure, FailureKind};
use pgweir_session::Relay;
use pgweir_wire::backend::read_parameter_status;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{CancelKey, ErrorFields, ProtocolVersion, SizeLimits, SqlState, frontend};

use super::connect_failure;
use super::connect_query::columns;
use super::diary::Diary;
use super::secret::Found;
use crate::clients::client::Client;
use crate::clients::conversation::{Conversation, Interrupted};
use crate::clients::welcome::Welcome;
use crate::process::shortage::Shortage;
use crate::process::workers;
use crate::servers::server::{Server, ServerInfo, Work};
use crate::servers::survey;
use crate::shared::{Rules, Shared, lock};

/// One attempt under way. The conversation is kept here so that it can be ended properly.
pub(super) struct Opening<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) info: &'a Arc<ServerInfo>,
    pub(super) rules: &'a Arc<Rules>,
    /// What it logs in with.
    pub(super) secret: &'a Found,
    /// What PostgreSQL has to be.
    pub(super) wanted: TargetSessionAttrs,
    pub(super) talk: Option<Conversation>,
    /// What PostgreSQL has refused, or cannot be answered.
    pub(super) refused: Option<Refused>,
    /// The replication client that the server is for.
    pub(super) dedicated_to: Option<Arc<Client>>,
    pub(super) diary: &'a mut Diary,
}

/// What about a login was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// The secret: it is wrong, or of another kind than PostgreSQL's.
    Secret,
    /// Who we are, from where: it may be the secret where PostgreSQL asks somebody else about it.
    Authorization,
}

/// A failure, and what the log says of it.
pub(super) struct Trouble {
    pub(super) log: String,
    pub(super) failure: Failure,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self {
            log: failure.message.to_string(),
            failure,
        }
    }
}

pub(super) fn login_failure(log: &str, message: String) -> Trouble {
    let failure = Failure {
        message: message.into(),
        sqlstate: None,
        kind: FailureKind::Login,
    };
    Trouble {
        log: log.to_owned(),
        failure,
    }
}

impl Opening<'_> {
    pub(super) async fn run(&mut self) -> Result<Box<Server>, Trouble> {
        self.diary.begin("tcp");
        let stream = connect(&self.info.target, &self.shared.tcp_options())
            .await
            .map_err(|error| {
                self.diary.failed(error.to_string());
                match Shortage::of(&error.source) {
                    Some(short) => {
                        tracing::error!(peer = %self.info, "{error}");
                        short.failure()
                    }
                    None => {
                        tracing::debug!(peer = %self.info, "{error}");
                        connect_failure("connect failed")
                    }
                }
            })?;
        self.diary.done(self.info.target.to_string());
        let _ = self.info.fd.set(stream.as_fd().as_raw_fd());
        let local = stream.local_address(self.info.address.port());
        if let Ok(local) = local {
            let _ = self.info.local.set(local);
            if self.shared.config().global.log_connections {
                tracing::info!(peer = %self.info, "new connection to server (from {local})");
            }
        }
        let stream = self.encrypt(stream).await?;
        self.talk = Some(Conversation::new(stream));
        self.diary.begin("auth");
        self.log_in().await?;
        let mut welcome = self.read_welcome().await?;
        let user = &self.info.home.name.user;
        let with = self.secret.described();
        self.diary.done(format!("as {user}, with {with}"));
        self.look_at_role(&mut welcome).await?;
        let defaults = self.run_connect_query(&mut welcome).await?;
        self.ask_for_limits(&mut welcome).await?;
        let talk = self
            .talk
            .take()
            .expect("the conversation has gone on until here");
        let mut line = Buffered::new(talk.stream);
        line.put_back_bytes(&talk.unread);
        let mut relay = Relay::new(welcome.tracked.clone());
        relay.set_defaults(defaults);
        let welcome = Arc::new(welcome);
        let _ = self.info.welcome.set(Arc::clone(&welcome));
        if self.dedicated_to.is_none() {
            *lock(&self.info.home.welcome) = Some(welcome);
        }
        let mut work = Work::none(Arc::clone(self.rules));
        work.is_new = true;
        Ok(Box::new(Server {
            line,
            relay,
            info: Arc::clone(self.info),
            work,
            thread: workers::here(),
        }))
    }

    /// Asks for PostgreSQL's limits where something depends on them. Without an answer they are not known yet, as
    /// before.
    async fn ask_for_limits(&mut self, welcome: &mut Welcome) -> Result<(), Trouble> {
        if self.dedicated_to.is_some() || !survey::is_needed(self.shared, &self.info.home) {
            return Ok(());
        }
        let rows = self.query("the survey", survey::QUESTION, welcome).await?;
        let row = rows.last().and_then(|row| columns(row).ok());
        let texts = row.iter().flatten().map(|text| Some(&**text));
        let learnt = survey::learn(self.shared, &self.info.home, texts);
        tracing::debug!(peer = %self.info, "asked for PostgreSQL's limits: {learnt:?}");
        Ok(())
    }

    /// What a replication client wants, if the server is for one.
    fn replication(&self) -> Option<&crate::clients::client::Replication> {
        let client = self.dedicated_to.as_ref()?;
        client.replication.get().map(|replication| &**replication)
    }

    pub(super) fn startup_message(&self) -> BytesMut {
        let keys = &self.rules.database.keys;
        let mut parameters = vec![
            ("user", &*self.info.home.name.user),
            ("database", self.rules.database.dbname()),
        ];
        let of_entry = [
            ("client_encoding", &keys.client_encoding),
            ("datestyle", &keys.datestyle),
            ("timezone", &keys.timezone),
            ("application_name", &keys.application_name),
        ];
        parameters.extend(
            of_entry
                .into_iter()
                .filter_map(|(name, value)| value.as_ref().map(|value| (name, value.as_str()))),
        );
        if let Some(replication) = self.replication() {
            parameters.push(("replication", replication.kind.word()));
            let wanted = replication.parameters.iter();
            parameters.extend(wanted.map(|(name, value)| (name.as_str(), value.as_str())));
        }
        let mut out = BytesMut::new();
        frontend::startup(&mut out, ProtocolVersion::V3_0, parameters);
        out
    }

    /// Reads what the server says of itself, up to its first ReadyForQuery.
    async fn read_welcome(&mut self) -> Result<Welcome, Trouble> {
        let mut welcome = Welcome::default();
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                tag::PARAMETER_STATUS => self.note_parameter(&body, &mut welcome)?,
                tag::BACKEND_KEY_DATA => {
                    if let Some(key) = CancelKey::parse(&body) {
                        let _ = self.info.cancel_key.set(key);
                    }
                }
                tag::READY_FOR_QUERY => return Ok(welcome),
                tag::NOTICE_RESPONSE => {}
                _ => return Err(connect_failure("unknown pkt from server").into()),
            }
        }
    }

    /// A parameter that the server reports.
    pub(super) fn note_parameter(&self, body: &[u8], welcome: &mut Welcome) -> Result<(), Trouble> {
        let Ok((name, value)) = read_parameter_status(body) else {
            return Err(connect_failure("broken ParameterStatus packet").into());
        };
        let text = (std::str::from_utf8(name), std::str::from_utf8(value));
        if let (Ok(name), Ok(value)) = text
            && let Some(index) = self.shared.tracked.index(name)
        {
            welcome.tracked.set(index, value);
            return Ok(());
        }
        match welcome
            .untracked
            .iter_mut()
            .find(|(known, _)| known == name)
        {
            Some((_, known)) => *known = value.to_vec(),
            None => welcome.untracked.push((name.to_vec(), value.to_vec())),
        }
        Ok(())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let talk = self.talk.as_mut().expect("connected");
        talk.send(bytes)
            .await
            .map_err(|_| connect_failure("connect failed").into())
    }

    /// The next message; an ErrorResponse is the end of the attempt.
    pub(super) async fn message(&mut self) -> Result<(u8, bytes::Bytes), Trouble> {
        let talk = self.talk.as_mut().expect("connected");
        match talk.message(SizeLimits::SERVER_LOGIN).await {
            Ok((tag::ERROR_RESPONSE, body)) => Err(self.server_error(&body)),
            Ok(message) => Ok(message),
            Err(Interrupted::Gone) => Err(connect_failure("server conn crashed?").into()),
            Err(Interrupted::Frame(_) | Interrupted::Startup(_)) => {
                Err(connect_failure("bad packet").into())
            }
        }
    }

    pub(super) fn server_error(&mut self, body: &[u8]) -> Trouble {
        let fields = ErrorFields::parse(body);
        self.refused = match fields.sqlstate() {
            Some(SqlState::INVALID_PASSWORD) => Some(Refused::Secret),
            Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => Some(Refused::Authorization),
            Some(_) | None => None,
        };
        let severity = String::from_utf8_lossy(fields.severity);
        let message = String::from_utf8_lossy(fields.message);
        if self.replication().is_some() {
            // A missing right to replicate says nothing about other logins, and its client is told
            // no more than that.
            tracing::warn!(peer = %self.info, "S: login failed: {severity} {message}");
            return login_failure("login failed", "login failed".to_owned());
        }
        tracing::warn!("server login failed: {severity} {message}");
        let sqlstate = fields.sqlstate();
        // "The database system is starting up" passes: nobody is refused for it.
        let kind = match sqlstate {
            Some(SqlState::CANNOT_CONNECT_NOW) => FailureKind::Connect,
            // Others have taken what there is: it passes, too, and clients wait as for any server.
            Some(SqlState::TOO_MANY_CONNECTIONS) => FailureKind::Busy,
            Some(_) | None => FailureKind::Login,
        };
        Failure {
            message: message.as_ref().into(),
            sqlstate: sqlstate.map(|s| s.0),
            kind,
        }
        .into()
    }
}
