//! Opens a server: resolve, connect, encrypt, log in, greet.
//!
//! The slot was taken before this began. Whatever happens here, it ends with exactly one of
//! [`opened`](pgweir_pool::Pools::opened) and [`open_failed`](pgweir_pool::Pools::open_failed), and with the second only when no socket is left.

mod connect_query;
pub(crate) mod diary;
pub(crate) mod secret;

use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_auth::{
    Challenge, ChannelBinding, Mechanism, ServerAuthentication, ServerLogin, ServerStep,
};
use pgweir_config::{Config, Database, Host, LoadBalanceHosts};
use pgweir_net::{Address, Buffered, Stream, Target, UnixName, connect};
use pgweir_pool::{Failure, FailureKind, PoolId, Scope, SlotId};
use pgweir_session::{Relay, Values};
use pgweir_wire::backend::{Authentication, read_parameter_status};
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{CancelKey, ErrorFields, ProtocolVersion, SizeLimits, SqlState, frontend};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::client::Client;
use crate::conversation::{Conversation, Interrupted};
use crate::open::diary::Diary;
use crate::server::{Server, ServerInfo, Work};
use crate::shared::{PoolHome, Rules, Shared, Welcome, lock};
use crate::{close, credentials, events, names, pools, survey};

/// Starts to open a server with a permit that has been taken.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    pool: PoolId,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
) {
    let Some(home) = shared.homes().into_values().find(|home| home.id == pool) else {
        let failure = connect_failure("pool was removed");
        let actions = shared.pools().open_failed(slot, failure, Instant::now());
        return pools::perform(shared, actions);
    };
    tokio::spawn(run(Arc::clone(shared), home, slot, dedicated_to));
}

async fn run(
    shared: Arc<Shared>,
    home: Arc<PoolHome>,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
) {
    let asked_by = dedicated_to.as_ref().map(|client| client.id);
    let mut diary = Diary::default();
    let result = attempt(&shared, &home, slot, dedicated_to, &mut diary).await;
    if let Err(failure) = &result {
        diary.failed(described(failure));
    }
    keep(&shared, &home, asked_by, diary);
    let actions = match result {
        Ok(server) => {
            home.totals.add(&mut pgweir_stats::Tally {
                server_open_count: 1,
                ..Default::default()
            });
            shared.pools().opened(slot, server, Instant::now())
        }
        Err(failure) => {
            shared.servers.remove(&slot.serial());
            events::login_failure(&shared, &home, &failure);
            shared.pools().open_failed(slot, failure, Instant::now())
        }
    };
    pools::perform(&shared, actions);
    shared.ended.notify_waiters();
}

/// A failure with PostgreSQL's code.
fn described(failure: &Failure) -> String {
    match failure.sqlstate {
        Some(code) => format!("{} ({})", failure.message, String::from_utf8_lossy(&code)),
        None => failure.message.to_string(),
    }
}

/// Keeps what an attempt went through for whoever asks.
fn keep(shared: &Shared, home: &PoolHome, asked_by: Option<u64>, diary: Diary) {
    if let Some(client) = asked_by
        && let Some(kept) = lock(&shared.diaries).get_mut(&client)
    {
        kept.clone_from(&diary);
    }
    if diary.failure().is_some() {
        *lock(&home.last_failure) = Some((Instant::now(), diary));
    }
}

/// One attempt. Every socket that was opened has been closed by PostgreSQL when this fails.
async fn attempt(
    shared: &Arc<Shared>,
    home: &Arc<PoolHome>,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
    diary: &mut Diary,
) -> Result<Box<Server>, Failure> {
    let rules = Arc::clone(
        &home
            .rules
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    let id = shared.next_id();
    let chosen = match choose_host(shared, home, &rules, slot) {
        Ok(choice) => {
            let found =
                find_target(shared, &rules.config, &rules.database, choice.host, diary).await;
            if found.is_err() {
                choice.failed();
            }
            found.map(|found| (choice, found))
        }
        Err(failure) => Err(failure),
    };
    let (choice, (target, host)) = match chosen {
        Ok(chosen) => chosen,
        Err(failure) => {
            let name = &home.name;
            let peer = format!("S-{id:#x}: {}/{}@(bad-af)", name.database, name.user);
            log_end(shared, &peer, &failure.message, 0);
            return Err(failure);
        }
    };
    let address = match &target {
        Target::Tcp(address) => Address::Tcp(*address),
        Target::Unix(_) => Address::Unix {
            peer: None,
            port: rules.database.port(),
        },
    };
    let now = Instant::now();
    let info = Arc::new(ServerInfo {
        id,
        home: Arc::clone(home),
        fd: OnceLock::new(),
        target,
        host,
        address,
        connected_at: now,
        local: OnceLock::new(),
        tls: OnceLock::new(),
        certificate_expiry: OnceLock::new(),
        cancel_key: OnceLock::new(),
        welcome: OnceLock::new(),
        prepared: AtomicUsize::new(0),
    });
    shared.servers.insert(slot.serial(), Arc::clone(&info));
    let patience = shared.config().global.server_connect_timeout.limit();
    let mut opening = Opening {
        shared,
        info: &info,
        rules: &rules,
        talk: None,
        dedicated_to,
        diary,
    };
    let outcome = tokio::select! {
        outcome = timeout(patience.unwrap_or(Duration::MAX), opening.run()) => outcome,
        () = shared.held.no_more_logins() => Ok(Err(connect_failure("suspend_timeout").into())),
    };
    if outcome.is_err() {
        let seconds = now.elapsed().as_secs_f64();
        let text = format!("no answer within {seconds:.1} s (server_connect_timeout)");
        opening.diary.failed(text);
    }
    let trouble = match outcome {
        Ok(Ok(server)) => return Ok(server),
        Ok(Err(trouble)) => trouble,
        // Local is known from when the connection stands.
        Err(_) if info.local.get().is_none() => connect_failure("connect failed").into(),
        Err(_) => connect_failure("connect timeout").into(),
    };
    choice.failed();
    log_end(shared, &info, &trouble.log, now.elapsed().as_secs());
    if let Some(mut talk) = opening.talk.take() {
        // PostgreSQL counts a login until its backend has ended: the slot waits for that.
        let _ending = close::Ending::begin(shared, slot, Some(&talk.stream));
        close::wait_for_end(shared, slot, &mut talk.stream).await;
    }
    Err(trouble.failure)
}

fn log_end(shared: &Shared, peer: &impl fmt::Display, reason: &str, age: u64) {
    if shared.config().global.log_disconnections {
        tracing::info!(peer = %peer, "closing because: {reason} (age={age}s)");
    }
}

/// Picks the host of an attempt. The next one goes to the next host in turn, or to this one for as
/// long as it works.
fn choose_host<'a>(
    shared: &Shared,
    home: &'a PoolHome,
    rules: &'a Rules,
    slot: SlotId,
) -> Result<Choice<'a>, Failure> {
    let turn = home.turn.load(Ordering::Relaxed);
    let found = host_with_room(shared, &rules.database, slot, turn)?;
    let (turn, host) = found.map_or((turn, None), |(turn, host)| (turn, Some(host)));
    let sticky = rules.database.load_balance_hosts() == LoadBalanceHosts::Disable;
    let next = if sticky { turn } else { turn.wrapping_add(1) };
    home.turn.store(next, Ordering::Relaxed);
    Ok(Choice {
        host,
        home,
        turn: sticky.then_some(turn),
    })
}

struct Choice<'a> {
    /// `None` is the Unix socket in `unix_socket_dir`.
    host: Option<&'a Host>,
    home: &'a PoolHome,
    /// Which turn it was, if the next attempt is to have the same host.
    turn: Option<usize>,
}

impl Choice<'_> {
    /// It did not work: the next attempt goes to the next host. Attempts that ran side by side and
    /// failed alike go on by one host, not by as many as they were.
    fn failed(&self) {
        if let Some(turn) = self.turn {
            let next = turn.wrapping_add(1);
            let order = Ordering::Relaxed;
            let _ = self.home.turn.compare_exchange(turn, next, order, order);
        }
    }
}

/// Finds an address of a host; a name that has several gives them in turn.
async fn find_target(
    shared: &Shared,
    config: &Config,
    database: &Database,
    host: Option<&Host>,
    diary: &mut Diary,
) -> Result<(Target, Option<Arc<str>>), Failure> {
    let port = database.port();
    let name = match host {
        None => {
            let dir = &config.global.unix_socket_dir;
            if dir.is_empty() {
                let database = &database.name;
                tracing::error!("unix socket dir not configured: {database} (or set its host)");
                return Err(connect_failure("cannot connect"));
            }
            diary.skip("dns", format!("a Unix socket in {dir}"));
            return Ok((Target::Unix(UnixName::in_dir(dir, port)), None));
        }
        Some(Host::Unix(dir)) => {
            diary.skip("dns", format!("a Unix socket in {dir}"));
            return Ok((Target::Unix(UnixName::in_dir(dir, port)), None));
        }
        Some(Host::Tcp(name)) => name,
    };
    diary.begin("dns");
    let Some(ip) = names::resolve(shared, name).await else {
        diary.failed(format!("{name} has no address"));
        return Err(connect_failure("server DNS lookup failed"));
    };
    diary.done(format!("{name} is {ip}"));
    Ok((Target::Tcp((ip, port).into()), Some(name.as_str().into())))
}

/// Whether one of a database's hosts accepts a connection, on which nothing is said.
pub(crate) async fn reach(
    shared: &Shared,
    config: &Config,
    database: &Database,
) -> Result<(), Failure> {
    let hosts = database.hosts();
    let hosts: Vec<Option<&Host>> = match hosts.is_empty() {
        true => vec![None],
        false => hosts.iter().map(Some).collect(),
    };
    let patience = config.global.server_connect_timeout.limit();
    let patience = patience.unwrap_or(REACH_PATIENCE);
    let mut last = connect_failure("connect failed");
    for host in hosts {
        let attempt = async {
            let mut diary = Diary::default();
            let (target, _) = find_target(shared, config, database, host, &mut diary).await?;
            let connected = connect(&target, &shared.tcp_options()).await;
            connected.map_err(|_| connect_failure("connect failed"))
        };
        match timeout(patience, attempt).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(failure)) => last = failure,
            Err(_) => last = connect_failure("connect timeout"),
        }
    }
    Err(last)
}

/// How long that may take where `server_connect_timeout` sets no limit.
const REACH_PATIENCE: Duration = Duration::from_secs(15);

/// The host whose turn it is, or the next one that may have another server; `None` if the database
/// names no host. A host that is the only one has been asked with the other limits.
fn host_with_room<'a>(
    shared: &Shared,
    database: &'a Database,
    slot: SlotId,
    turn: usize,
) -> Result<Option<(usize, &'a Host)>, Failure> {
    let hosts = database.hosts();
    let has_room = |host: &Host| {
        let scope = Scope::HostServers(database.host_name(host).into());
        hosts.len() == 1 || shared.pools().choose_host(slot, &scope)
    };
    if hosts.is_empty() {
        return Ok(None);
    }
    let mut turns = (turn..turn + hosts.len()).map(|turn| (turn, &hosts[turn % hosts.len()]));
    match turns.find(|(_, host)| has_room(host)) {
        Some(found) => Ok(Some(found)),
        None => Err(Failure {
            kind: FailureKind::Busy,
            ..connect_failure("every host has max_host_connections servers")
        }),
    }
}

/// One attempt under way. The conversation is kept here so that it can be ended properly.
struct Opening<'a> {
    shared: &'a Arc<Shared>,
    info: &'a Arc<ServerInfo>,
    rules: &'a Arc<Rules>,
    talk: Option<Conversation>,
    /// The replication client that the server is for.
    dedicated_to: Option<Arc<Client>>,
    diary: &'a mut Diary,
}

/// A failure, and what the log says of it.
struct Trouble {
    log: String,
    failure: Failure,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self {
            log: failure.message.to_string(),
            failure,
        }
    }
}

fn connect_failure(message: &str) -> Failure {
    Failure {
        message: message.into(),
        sqlstate: None,
        kind: FailureKind::Connect,
    }
}

fn login_failure(log: &str, message: String) -> Trouble {
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
    async fn run(&mut self) -> Result<Box<Server>, Trouble> {
        self.diary.begin("tcp");
        let stream = connect(&self.info.target, &self.shared.tcp_options())
            .await
            .map_err(|error| {
                tracing::debug!(peer = %self.info, "{error}");
                self.diary.failed(error.to_string());
                connect_failure("connect failed")
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
        self.diary.done(format!("as {}", self.info.home.name.user));
        let defaults = self.run_connect_query(&mut welcome).await?;
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
        let work = Work::none(Arc::clone(self.rules));
        let mut server = Box::new(Server {
            line,
            relay,
            info: Arc::clone(self.info),
            work,
        });
        if self.dedicated_to.is_none() && survey::is_needed(self.shared, self.rules) {
            // Without an answer the limit is not known yet, as before.
            let asked = survey::ask(self.shared, &mut server).await;
            tracing::debug!(peer = %self.info, "asked for PostgreSQL's limits: {asked:?}");
        }
        Ok(server)
    }

    async fn encrypt(&mut self, mut stream: Stream) -> Result<Stream, Trouble> {
        let tls = self.shared.tls();
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

    /// Sends the startup packet and proves who we are.
    async fn log_in(&mut self) -> Result<(), Trouble> {
        let startup = self.startup_message();
        self.send(&startup).await?;
        let mut exchange = Some(ServerAuthentication::new(self.server_login()?));
        loop {
            let (tag, body) = self.message().await?;
            if tag == tag::NEGOTIATE_PROTOCOL_VERSION {
                continue;
            }
            if tag != tag::AUTHENTICATION {
                return Err(connect_failure("unknown pkt from server").into());
            }
            let current = exchange.take().expect("put back at the end of every round");
            let request = Authentication::parse(&body)
                .map_err(|_| Trouble::from(connect_failure("bad packet")))?;
            let challenge = match request {
                Authentication::Ok => {
                    return current
                        .authenticated()
                        .map_err(|error| refused(&error.to_string()));
                }
                Authentication::CleartextPassword => Challenge::CleartextPassword,
                Authentication::Md5Password { salt } => Challenge::Md5Password { salt },
                Authentication::Sasl(names) => {
                    Challenge::Sasl(names.into_iter().filter_map(Mechanism::from_name).collect())
                }
                Authentication::SaslContinue(data) => Challenge::SaslContinue(data.to_vec()),
                Authentication::SaslFinal(data) => Challenge::SaslFinal(data.to_vec()),
                Authentication::Unsupported(code) => {
                    return Err(refused(&format!("unsupported authentication type {code}")));
                }
            };
            exchange = Some(self.respond(current, challenge).await?);
        }
    }

    async fn respond(
        &mut self,
        exchange: ServerAuthentication,
        challenge: Challenge,
    ) -> Result<ServerAuthentication, Trouble> {
        let mut step = exchange.respond(challenge);
        loop {
            step = match step {
                ServerStep::Send(payload, next) => {
                    let mut out = BytesMut::new();
                    frontend::password(&mut out, payload.expose());
                    self.send(&out).await?;
                    return Ok(next);
                }
                ServerStep::Derive(job, waiting) => {
                    let keys = credentials::derive(self.shared, job).await;
                    waiting.resume(&keys)
                }
                ServerStep::Verified(next) => return Ok(next),
                ServerStep::Fail(failure) => return Err(refused(&failure.to_string())),
            };
        }
    }

    fn server_login(&self) -> Result<ServerLogin, Trouble> {
        let home = &self.info.home;
        let stream = self.talk.as_ref().map(|talk| &talk.stream);
        let binding = stream.and_then(Stream::server_end_point_binding);
        Ok(ServerLogin {
            user: home.name.user.to_string(),
            secret: secret::find(self.shared, home, self.rules).secret,
            channel_binding: binding.map_or(ChannelBinding::Unavailable, ChannelBinding::Available),
            nonce: credentials::nonce(),
        })
    }

    /// What a replication client wants, if the server is for one.
    fn replication(&self) -> Option<&crate::client::Replication> {
        let client = self.dedicated_to.as_ref()?;
        client.replication.get().map(|replication| &**replication)
    }

    fn startup_message(&self) -> BytesMut {
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
        let mut welcome = Welcome {
            untracked: Vec::new(),
            tracked: Values::default(),
        };
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
    fn note_parameter(&self, body: &[u8], welcome: &mut Welcome) -> Result<(), Trouble> {
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

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let talk = self.talk.as_mut().expect("connected");
        talk.send(bytes)
            .await
            .map_err(|_| connect_failure("connect failed").into())
    }

    /// The next message; an ErrorResponse is the end of the attempt.
    async fn message(&mut self) -> Result<(u8, bytes::Bytes), Trouble> {
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

    fn server_error(&self, body: &[u8]) -> Trouble {
        let fields = ErrorFields::parse(body);
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

/// We cannot answer what the server asks: every client of the pool would fail alike.
fn refused(reason: &str) -> Trouble {
    login_failure(
        "failed to answer authreq",
        format!("server login failed: {reason}"),
    )
}
