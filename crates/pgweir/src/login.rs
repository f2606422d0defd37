//! From the first byte of a client to its greeting. Boxed and dropped afterwards.
//!
//! startup and TLS → parameters → limit on all clients → who and where → proof → limits of
//! database and user → the pool's welcome → greeting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use pgweir_auth::{
    Challenge, ChannelBinding, ClientAuthentication, ClientLogin, PasswordMethod, Proof, Secret,
    ServerSecret, Step, hba, ident::IdentMap,
};
use pgweir_config::{AuthType, CONSOLE_DATABASE, Dialect, List};
use pgweir_console::Access;
use pgweir_net::Stream;
use pgweir_net::tls::Hello;
use pgweir_pool::Scope;
use pgweir_session::{ClientSide, Values};
use pgweir_wire::backend::{self, Authentication};
use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{
    CancelKey, FirstPacket, ProtocolVersion, SizeLimits, StartupMessage, TransactionStatus,
};

use crate::client::{Client, Identity};
use crate::conversation::{Conversation, Interrupted};
use crate::credentials;
use crate::farewell::Farewell;
use crate::pools;
use crate::shared::{Route, Shared, Shutdown, lock};

/// What a connection turned out to be.
pub(crate) enum Entry {
    /// A client that has been greeted.
    Client { route: Arc<Route>, side: ClientSide },
    /// A user of the console that has been greeted.
    Console { access: Access },
    /// A CancelRequest.
    Cancel(CancelKey),
}

/// A login under way.
pub(crate) struct Login<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) client: &'a Arc<Client>,
    /// `None` only while TLS is being set up.
    pub(crate) talk: Option<Conversation>,
}

/// What the startup packet asks for.
struct Wish {
    database: String,
    user: String,
    values: Values,
    version: ProtocolVersion,
}

/// How a client is to prove who it is.
enum Method {
    Any,
    Trust,
    Password(PasswordMethod),
    Certificate(Option<Arc<IdentMap>>),
    Peer(Option<Arc<IdentMap>>),
    Reject,
    Unsupported(&'static str),
}

/// What is known of the user that a client wants to be.
enum KnownAs {
    /// Its secret, or nothing but its name.
    Known(Option<Secret>),
    /// Nobody; the exchange is done all the same, so that this cannot be told.
    Unknown,
}

impl Login<'_> {
    /// Logs the client in.
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
        let is_console = wish.database == CONSOLE_DATABASE
            || (wish.database == "pgweir" && self.shared.config().database("pgweir").is_none());
        self.admit_connection(is_console)?;
        let wish = self.negotiate(wish, &startup).await?;
        if is_console {
            return self.enter_console(wish).await;
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
                self.accept_tls(true).await?;
                continue;
            }
            match self.talk()?.first_packet().await.map_err(interrupted)? {
                FirstPacket::Startup(startup) => return Ok(First::Startup(startup)),
                FirstPacket::CancelRequest(key) => return Ok(First::Cancel(key)),
                FirstPacket::SslRequest => {
                    let talk = self.talk()?;
                    let encrypted = talk.stream.tls_info().is_some();
                    let possible = !encrypted && !talk.stream.is_unix();
                    let accepted = possible && self.shared.tls().acceptor.is_some();
                    self.answer_request(if accepted { b"S" } else { b"N" }, "SSL")
                        .await?;
                    if accepted {
                        self.accept_tls(false).await?;
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
        self.client.state().tls = stream.tls_info();
        self.talk = Some(Conversation::new(stream));
        Ok(())
    }

    /// Reads the parameters, and names the client from here on.
    fn read_startup(&self, startup: &StartupMessage) -> Result<Wish, Farewell> {
        let config = self.shared.config();
        let ignored = &config.global.ignore_startup_parameters;
        let mut values = Values::default();
        for (name, value) in &startup.parameters {
            match name.as_str() {
                "user" | "database" => {}
                "replication" if is_off(value) => {}
                "replication" => return Err(Farewell::Unsupported("replication")),
                "options" => self.read_options(value, ignored, &mut values)?,
                name if name.starts_with("_pq_.") => {}
                name => match self.shared.tracked.index(name) {
                    Some(index) => values.set(index, value),
                    None if ignored.contains(name) => {}
                    None => {
                        tracing::warn!(
                            peer = %self.client,
                            "unsupported startup parameter: {name}={value}"
                        );
                        return Err(Farewell::Parameter(name.to_owned()));
                    }
                },
            }
        }
        let user = startup.parameter("user").filter(|user| !user.is_empty());
        let user = user.ok_or(Farewell::NoUser)?.to_owned();
        let database = startup
            .parameter("database")
            .filter(|name| !name.is_empty());
        let database = database.unwrap_or(&user).to_owned();
        self.name_application(&config.global, &mut values);
        let identity = Identity {
            database: database.as_str().into(),
            user: user.as_str().into(),
        };
        let _ = self.client.identity.set(identity);
        Ok(Wish {
            database,
            user,
            values,
            version: startup.version,
        })
    }

    fn name_application(&self, global: &pgweir_config::Settings, values: &mut Values) {
        let Some(index) = self.shared.tracked.index("application_name") else {
            return;
        };
        if global.application_name_add_host {
            let given = values.get(index).map_or("app", |name| name);
            let named = format!("{given} - {}", self.client.address);
            values.set(index, &named);
        }
        if let Some(name) = values.get(index) {
            self.client.state().application_name = Arc::clone(name);
        }
    }

    /// `-c name=value` and `--name=value`, with backslash as PostgreSQL's escape.
    fn read_options(
        &self,
        options: &str,
        ignored: &List,
        values: &mut Values,
    ) -> Result<(), Farewell> {
        for (name, value) in crate::options::parse(options).map_err(|_| Farewell::Options)? {
            if let Some(index) = self.shared.tracked.index(&name) {
                values.set(index, &value);
            } else if !ignored.contains(&name) && !ignored.contains("options") {
                tracing::warn!(
                    peer = %self.client,
                    "unsupported startup parameter in options: {name}={value}"
                );
                return Err(Farewell::ParameterInOptions(name));
            }
        }
        Ok(())
    }

    /// `max_client_conn` counts every connection from its first byte; the console is exempt, so
    /// that somebody can still look.
    fn admit_connection(&self, is_console: bool) -> Result<(), Farewell> {
        let full = self.shared.pools().budget.is_over(&Scope::Clients);
        if full && !is_console {
            Err(Farewell::TooMany(Scope::Clients))
        } else {
            Ok(())
        }
    }

    /// Says which protocol is spoken if the client asked for another one. A PgBouncer ini keeps to
    /// 3.0, as PgBouncer does.
    async fn negotiate(
        &mut self,
        mut wish: Wish,
        startup: &StartupMessage,
    ) -> Result<Wish, Farewell> {
        let newest = match self.shared.config().dialect {
            Dialect::Ini => ProtocolVersion::V3_0,
            Dialect::Toml => ProtocolVersion::V3_2,
        };
        let options = startup.protocol_options();
        let spoken = wish.version.min(newest);
        // 3.1 was never used: whoever asks for it gets 3.0.
        let spoken = if spoken == newest {
            newest
        } else {
            ProtocolVersion::V3_0
        };
        if spoken != wish.version || !options.is_empty() {
            let mut out = BytesMut::new();
            backend::negotiate_protocol_version(&mut out, spoken, &options);
            self.talk()?
                .send(&out)
                .await
                .map_err(|_| Farewell::ClientGone)?;
        }
        wish.version = spoken;
        Ok(wish)
    }

    async fn enter_pool(&mut self, wish: Wish) -> Result<Entry, Farewell> {
        let config = self.shared.config();
        let database = config
            .database(&wish.database)
            .map(std::borrow::Cow::into_owned);
        let mut user = wish.user.clone();
        if config.global.auth_type == AuthType::Any {
            match database
                .as_ref()
                .and_then(|database| database.keys.user.clone())
            {
                Some(forced) => user = forced,
                None => {
                    tracing::error!(peer = %self.client, "auth_type=any requires forced user");
                    return Err(Farewell::Configuration);
                }
            }
        }
        let known = self
            .known_as(&wish.database, &user, database.is_some())
            .await?;
        self.log_attempt(&wish);
        let secret = self.authenticate(&wish.database, &user, known).await?;
        let missing = || Farewell::NoDatabase(wish.database.as_str().into());
        if database.is_none() {
            tracing::info!(
                peer = %self.client,
                "login failed: db={} user={}", wish.database, wish.user
            );
            return Err(missing());
        }
        if self.shared.operator.is_disabled(&wish.database) {
            return Err(Farewell::DatabaseDisabled(wish.database.as_str().into()));
        }
        if self.shared.operator.shutdown() != Shutdown::No {
            return Err(Farewell::ShuttingDown);
        }
        let route = self
            .shared
            .route(&wish.database, &user)
            .map_err(|_| missing())?;
        if let Some(secret) = secret
            && *route.home.name.user == *user
        {
            *lock(&route.home.secret) = Some(secret);
        }
        let rules = route.rules();
        self.take_permits(&[
            (
                Scope::DatabaseClients(wish.database.as_str().into()),
                rules.settings.max_db_client_connections,
            ),
            (
                Scope::UserClients(user.as_str().into()),
                rules.settings.max_user_client_connections,
            ),
        ])?;
        let _ = self.client.route.set(Arc::clone(&route));
        let side = self.greet(&route, wish).await?;
        Ok(Entry::Client { route, side })
    }

    /// Counts the client in, unless a limit is reached. It is counted out when it is forgotten.
    fn take_permits(&self, scopes: &[(Scope, Option<u32>)]) -> Result<(), Farewell> {
        let mut pools = self.shared.pools();
        for (scope, limit) in scopes {
            pools.budget.set_limit(scope.clone(), *limit);
        }
        let scopes: Vec<_> = scopes.iter().map(|(scope, _)| scope.clone()).collect();
        pools
            .budget
            .take(&scopes)
            .map_err(|full| Farewell::TooMany(full.clone()))?;
        drop(pools);
        self.client.counted().scopes.extend(scopes);
        Ok(())
    }

    fn log_attempt(&self, wish: &Wish) {
        if !self.shared.config().global.log_connections {
            return;
        }
        let tls = self
            .client
            .state()
            .tls
            .map_or("no".to_owned(), |tls| tls.to_string());
        tracing::info!(
            peer = %self.client,
            "login attempt: db={} user={} tls={tls} replication=no", wish.database, wish.user
        );
    }

    /// What is known of the user: from the file, or from auth_query.
    async fn known_as(
        &self,
        database: &str,
        user: &str,
        database_exists: bool,
    ) -> Result<KnownAs, Farewell> {
        let config = self.shared.config();
        if config.global.auth_type == AuthType::Any {
            return Ok(KnownAs::Known(None));
        }
        if let Some(secret) = self.shared.files().users.secret(user) {
            return Ok(KnownAs::Known(Some(secret.clone())));
        }
        let auth_user = match config.resolve(database, user) {
            Some(settings) => settings.auth_user,
            None => config.global.auth_user.clone(),
        };
        match auth_user {
            Some(_) if !database_exists => {}
            Some(auth_user) if auth_user == user => return Ok(KnownAs::Known(None)),
            Some(_) => {
                let found = credentials::query(self.shared, self.client, database, user).await?;
                return found
                    .map(|secret| KnownAs::Known(Some(secret)))
                    .ok_or(Farewell::NoSuchUser);
            }
            None => {}
        }
        tracing::info!(peer = %self.client, "no such user: {user}");
        Ok(KnownAs::Unknown)
    }

    /// Lets the client prove who it is. What was learnt serves to log in to PostgreSQL.
    async fn authenticate(
        &mut self,
        database: &str,
        user: &str,
        known: KnownAs,
    ) -> Result<Option<ServerSecret>, Farewell> {
        let (secret, unknown) = match known {
            KnownAs::Known(secret) => (secret, false),
            KnownAs::Unknown => (None, true),
        };
        let fail = |text: &'static str| Err(Farewell::Authentication(text.into()));
        match self.method(database, user)? {
            Method::Any => Ok(None),
            Method::Trust if unknown => fail("\"trust\" authentication failed"),
            Method::Trust => Ok(secret.map(ServerSecret::from)),
            Method::Password(method) => {
                let proof = self.ask_password(user, method, secret.as_ref()).await?;
                Ok(match (proof, secret) {
                    (Proof::Cleartext(password), _) => Some(ServerSecret::Plain(password)),
                    (Proof::ScramStored(keys), _) => Some(ServerSecret::Keys(keys)),
                    (Proof::Md5 | Proof::ScramAdHoc(_), secret) => secret.map(ServerSecret::from),
                })
            }
            Method::Certificate(map) => {
                let name = self
                    .talk()?
                    .stream
                    .peer_certificate()
                    .and_then(|certificate| certificate.common_name());
                let Some(name) = name else {
                    return fail("unauthenticated TLS connection, certificate is needed");
                };
                let admitted = match map {
                    Some(map) => map.admits(|system| system == name, user),
                    None => name == user,
                };
                match admitted && !unknown {
                    true => Ok(secret.map(ServerSecret::from)),
                    false => fail("TLS certificate name mismatch"),
                }
            }
            Method::Peer(map) => {
                let admitted = self.is_peer(user, map.as_deref());
                match admitted && !unknown {
                    true => Ok(secret.map(ServerSecret::from)),
                    false => fail("unix socket login rejected"),
                }
            }
            Method::Reject => Err(Farewell::LoginRejected),
            Method::Unsupported(what) => Err(Farewell::Unsupported(what)),
        }
    }

    fn is_peer(&mut self, user: &str, map: Option<&IdentMap>) -> bool {
        let credentials = self
            .talk()
            .ok()
            .and_then(|talk| talk.stream.peer_credentials());
        let Some(credentials) = credentials else {
            return false;
        };
        let is = |system: &str| crate::system::user_id(system) == Some(credentials.uid);
        match map {
            Some(map) => map.admits(is, user),
            None => is(user),
        }
    }

    fn method(&self, database: &str, user: &str) -> Result<Method, Farewell> {
        Ok(match self.shared.config().global.auth_type {
            AuthType::Any => Method::Any,
            AuthType::Trust => Method::Trust,
            AuthType::Plain => Method::Password(PasswordMethod::Cleartext),
            AuthType::Md5 => Method::Password(PasswordMethod::Md5),
            AuthType::ScramSha256 => Method::Password(PasswordMethod::ScramSha256),
            AuthType::Cert => Method::Certificate(None),
            AuthType::Ldap => Method::Unsupported("authentication by LDAP"),
            AuthType::Pam => Method::Unsupported("authentication by PAM"),
            AuthType::Hba => {
                let files = self.shared.files();
                let rule = files.hba.rule_for(&hba::Connection {
                    database,
                    user,
                    replication: false,
                    tls: self.client.state().tls.is_some(),
                    address: self.client.address.ip(),
                });
                match &rule.ok_or(Farewell::NoMethod)?.method {
                    hba::Method::Trust => Method::Trust,
                    hba::Method::Reject => Method::Reject,
                    hba::Method::Md5 => Method::Password(PasswordMethod::Md5),
                    hba::Method::Password => Method::Password(PasswordMethod::Cleartext),
                    hba::Method::ScramSha256 => Method::Password(PasswordMethod::ScramSha256),
                    hba::Method::Peer(map) => Method::Peer(map.clone()),
                    hba::Method::Cert(map) => Method::Certificate(map.clone()),
                    hba::Method::Ldap(_) => Method::Unsupported("authentication by LDAP"),
                    hba::Method::Pam => Method::Unsupported("authentication by PAM"),
                }
            }
        })
    }

    async fn ask_password(
        &mut self,
        user: &str,
        method: PasswordMethod,
        secret: Option<&Secret>,
    ) -> Result<Proof, Farewell> {
        let binding = self.talk()?.stream.server_end_point_binding();
        let login = ClientLogin {
            user,
            method,
            secret,
            channel_binding: binding.map_or(ChannelBinding::Unavailable, ChannelBinding::Available),
            md5_salt: credentials::random(),
            nonce: credentials::nonce(),
        };
        let mut step = ClientAuthentication::start(login, &self.shared.auth_policy());
        loop {
            step = match step {
                Step::Send(challenge, next) => {
                    self.send_challenge(&challenge).await?;
                    let message = self.talk()?.message(SizeLimits::LOGIN).await;
                    match message.map_err(interrupted)? {
                        (tag::PASSWORD, body) => next.respond(&body),
                        (tag::TERMINATE, _) => return Err(Farewell::ClientClosed),
                        _ => return Err(Farewell::LoginMessage),
                    }
                }
                Step::Derive(job, waiting) => {
                    waiting.resume(credentials::derive(self.shared, job).await)
                }
                Step::Done(success) => {
                    let (last, proof) = success.into_parts();
                    if let Some(last) = last {
                        self.send_challenge(&last).await?;
                    }
                    return Ok(proof);
                }
                Step::Fail(failure) => {
                    tracing::debug!(peer = %self.client, "authentication: {}", failure.cause);
                    return Err(Farewell::Authentication(failure.refusal.to_string().into()));
                }
            };
        }
    }

    async fn send_challenge(&mut self, challenge: &Challenge) -> Result<(), Farewell> {
        let message = match challenge {
            Challenge::CleartextPassword => Authentication::CleartextPassword,
            Challenge::Md5Password { salt } => Authentication::Md5Password { salt: *salt },
            Challenge::Sasl(mechanisms) => Authentication::Sasl(
                mechanisms
                    .iter()
                    .map(|mechanism| mechanism.name())
                    .collect(),
            ),
            Challenge::SaslContinue(data) => Authentication::SaslContinue(data),
            Challenge::SaslFinal(data) => Authentication::SaslFinal(data),
        };
        let mut out = BytesMut::new();
        message.write(&mut out);
        self.talk()?
            .send(&out)
            .await
            .map_err(|_| Farewell::ClientGone)
    }

    /// Waits until it is known what the pool's servers are like, and tells the client.
    async fn greet(&mut self, route: &Route, wish: Wish) -> Result<ClientSide, Farewell> {
        route.home.totals.add(&mut pgweir_stats::Tally {
            client_login_count: 1,
            ..Default::default()
        });
        pools::greet(self.shared, self.client, &route.home).await?;
        let welcome = lock(&route.home.welcome).clone().unwrap_or_default();
        let mut side = ClientSide {
            values: wish.values,
            ..ClientSide::default()
        };
        side.values.fill(&welcome.tracked);
        let mut out = BytesMut::new();
        Authentication::Ok.write(&mut out);
        for (name, value) in &welcome.untracked {
            backend::parameter_status(&mut out, name, value);
        }
        for (index, name) in self.shared.tracked.names().enumerate() {
            if let Some(value) = side.values.get(index) {
                backend::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
            }
        }
        let key = new_cancel_key(wish.version);
        backend::backend_key_data(&mut out, key.process_id, &key.secret);
        let _ = self.client.cancel_key.set(key.clone());
        self.shared.cancel_keys.insert(key, Arc::clone(self.client));
        let config = self.shared.config();
        let notice = &config.global.login_notify_message;
        if !notice.is_empty() {
            backend::Report {
                severity: pgweir_wire::Severity::Notice,
                code: pgweir_wire::SqlState::SUCCESSFUL_COMPLETION,
                message: notice,
                detail: None,
                hint: None,
            }
            .write(&mut out);
        }
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        self.talk()?
            .send(&out)
            .await
            .map_err(|_| Farewell::ClientGone)?;
        Ok(side)
    }

    async fn enter_console(&mut self, wish: Wish) -> Result<Entry, Farewell> {
        self.client.is_console.store(true, Ordering::Relaxed);
        let config = self.shared.config();
        let global = &config.global;
        let own_user = self.is_own_user(&wish.user);
        let is_admin = own_user || global.admin_users.contains(&wish.user);
        if own_user {
            if global.log_connections {
                tracing::info!(peer = %self.client, "pgbouncer access from unix socket");
            }
        } else if global.auth_type != AuthType::Any || !is_admin {
            let known = self.known_as(CONSOLE_DATABASE, &wish.user, true).await?;
            self.log_attempt(&wish);
            let listed = is_admin || global.stats_users.contains(&wish.user);
            if matches!(known, KnownAs::Known(_)) && !listed {
                return Err(Farewell::NotAllowed);
            }
            self.authenticate(CONSOLE_DATABASE, &wish.user, known)
                .await?;
        }
        let access = if is_admin {
            Access::Admin
        } else {
            Access::Stats
        };
        self.take_console_permits(&wish.user, access)?;
        self.shared.console_totals.add(&mut pgweir_stats::Tally {
            client_login_count: 1,
            ..Default::default()
        });
        let key = new_cancel_key(ProtocolVersion::V3_0);
        let mut greeting = Vec::new();
        let mut ok = BytesMut::new();
        Authentication::Ok.write(&mut ok);
        greeting.extend_from_slice(&ok);
        let mut shown = key.process_id.to_be_bytes().to_vec();
        shown.extend_from_slice(&key.secret);
        pgweir_console::write_greeting(&shown, &mut greeting);
        let _ = self.client.cancel_key.set(key.clone());
        self.shared.cancel_keys.insert(key, Arc::clone(self.client));
        self.talk()?
            .send(&greeting)
            .await
            .map_err(|_| Farewell::ClientGone)?;
        Ok(Entry::Console { access })
    }

    /// Administrators are counted, but never kept out.
    fn take_console_permits(&self, user: &str, access: Access) -> Result<(), Farewell> {
        let config = self.shared.config();
        let limit = |value: i32| u32::try_from(value).ok().filter(|&limit| limit > 0);
        let of_user = config
            .users
            .get(user)
            .and_then(|user| user.keys.max_user_client_connections);
        let of_user = of_user.filter(|&limit| limit > 0);
        let scopes = [
            (
                Scope::DatabaseClients(CONSOLE_DATABASE.into()),
                limit(config.global.max_db_client_connections),
            ),
            (
                Scope::UserClients(user.into()),
                limit(of_user.unwrap_or(config.global.max_user_client_connections)),
            ),
        ];
        match access {
            Access::Stats => self.take_permits(&scopes),
            Access::Admin => {
                let scopes = scopes.map(|(scope, _)| scope);
                self.shared.pools().budget.take_unlimited(&scopes);
                self.client.counted().scopes.extend(scopes);
                Ok(())
            }
        }
    }

    /// The user `pgbouncer` (or `pgweir`) on the Unix socket, being the system user that we run as,
    /// needs no proof: it could read our memory anyway.
    fn is_own_user(&self, user: &str) -> bool {
        let own = rustix::process::getuid().as_raw();
        matches!(user, "pgbouncer" | "pgweir")
            && self
                .client
                .address
                .peer_credentials()
                .is_some_and(|peer| peer.uid == own)
    }
}

enum First {
    Startup(StartupMessage),
    Cancel(CancelKey),
}

fn interrupted(interrupted: Interrupted) -> Farewell {
    match interrupted {
        Interrupted::Gone => Farewell::ClientGone,
        Interrupted::Startup(error) => Farewell::Startup(error),
        Interrupted::Frame(error) => {
            tracing::debug!("client sent {error}");
            Farewell::LoginMessage
        }
    }
}

fn is_off(value: &str) -> bool {
    matches!(value, "" | "0" | "off" | "no" | "false")
}

/// A key that nobody can guess. Process ids are positive, because some clients want them so.
fn new_cancel_key(version: ProtocolVersion) -> CancelKey {
    let process_id = i32::from_be_bytes(credentials::random()) & i32::MAX;
    let secret: Box<[u8]> = if version >= ProtocolVersion::V3_2 {
        credentials::random::<32>().into()
    } else {
        credentials::random::<4>().into()
    };
    CancelKey { process_id, secret }
}
