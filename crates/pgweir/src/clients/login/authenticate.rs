//! Whether a client is who it says.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgweir_auth::ident::IdentMap;
use pgweir_auth::ldap::{BadOptions, LdapOptions};
use pgweir_auth::{
    Challenge, ChannelBinding, ClientAuthentication, ClientLogin, Failure, Nonce, Password,
    PasswordMethod, Proof, Secret, ServerSecret, Step, hba, read_password,
};
use pgweir_config::{AuthType, CONSOLE_DATABASE, Config};
use pgweir_net::Stream;
use pgweir_wire::SizeLimits;
use pgweir_wire::backend::Authentication;
use pgweir_wire::tag::frontend as tag;

use super::{Login, interrupted};
use crate::clients::client::ReplicationKind;
use crate::clients::farewell::Farewell;
use crate::clients::{credentials, ldap};

/// How a client is to prove who it is.
enum Method {
    Any,
    Trust,
    Password(PasswordMethod),
    Certificate(Option<Arc<IdentMap>>),
    Peer(Option<Arc<IdentMap>>),
    Ldap(Option<Result<Arc<LdapOptions>, BadOptions>>),
    Pam,
    Reject,
}

impl Method {
    /// Whether somebody else judges the password, so that nothing need be known of the user.
    fn judge(&self) -> Option<&'static str> {
        match self {
            Self::Ldap(_) => Some("LDAP"),
            Self::Pam => Some("PAM"),
            Self::Any
            | Self::Trust
            | Self::Password(_)
            | Self::Certificate(_)
            | Self::Peer(_)
            | Self::Reject => None,
        }
    }
}

/// What is known of the user that a client wants to be.
pub(super) enum KnownAs {
    /// Its secret, or nothing but its name.
    Known(Option<Secret>),
    /// Two secrets, because a password is being changed.
    KnownTwice(Secret, Secret),
    /// Nothing: somebody else knows, and will judge the password.
    Elsewhere,
    /// Nobody; the exchange is done all the same, so that this cannot be told.
    Unknown,
}

impl Login<'_> {
    /// What is known of the user: from the file, or from auth_query, which may have another name for it.
    pub(super) async fn known_as(
        &self,
        config: &Config,
        database: &str,
        user: &mut Arc<str>,
        database_exists: bool,
    ) -> Result<KnownAs, Farewell> {
        let method = self.method(config, database, user);
        if let Some(judge) = method.as_ref().ok().and_then(Method::judge) {
            let entry = config.database(database);
            let looks_up = entry.is_some_and(|entry| entry.keys.auth_user.is_some());
            if looks_up && database != CONSOLE_DATABASE {
                tracing::error!(
                    peer = %self.client,
                    "{judge} can't be used together with database authentication"
                );
                return Err(Farewell::Configuration);
            }
            return Ok(KnownAs::Elsewhere);
        }
        if config.global.auth_type == AuthType::Any {
            return Ok(KnownAs::Known(None));
        }
        match self.shared.files().users.secrets(user) {
            (Some(secret), None) => return Ok(KnownAs::Known(Some(secret.clone()))),
            (Some(secret), Some(second)) => {
                return Ok(KnownAs::KnownTwice(secret.clone(), second.clone()));
            }
            (None, _) => {}
        }
        let settings = credentials::settings(config, database, user);
        if database_exists && settings.is_some_and(|settings| settings.auth_user.is_some()) {
            // Where whoever it turns out to be is sent away, PostgreSQL is not asked.
            let is_refused = matches!(method, Err(_) | Ok(Method::Reject));
            if is_refused && !self.admits_somebody(database, user) {
                return Ok(KnownAs::Unknown);
            }
            let query = credentials::query(self.shared, self.client, database, user);
            let found = Box::pin(query).await?;
            return match found {
                Some((name, secret)) => {
                    (_, *user) = self.shared.names(database, &name);
                    Ok(KnownAs::Known(Some(secret)))
                }
                // As far as we are concerned this user is known, if only by an entry of its own.
                None if config.users.contains_key(&**user) => Ok(KnownAs::Known(None)),
                None => {
                    if config.global.log_connections {
                        tracing::info!(peer = %self.client, "login failed: db={database}");
                    }
                    Err(Farewell::NoSuchUser)
                }
            };
        }
        tracing::info!(peer = %self.client, "no such user: {user}");
        Ok(KnownAs::Unknown)
    }

    /// Lets the client prove who it is. What was learnt serves to log in to PostgreSQL. The exchanges are boxed:
    /// they are large, and trust needs none.
    pub(super) async fn authenticate(
        &mut self,
        config: &Config,
        database: &str,
        user: &str,
        known: KnownAs,
    ) -> Result<Option<ServerSecret>, Farewell> {
        let (secret, second, unknown) = match known {
            KnownAs::Known(secret) => (secret, None, false),
            KnownAs::KnownTwice(secret, second) => (Some(secret), Some(second), false),
            // If the rules have changed in between, nothing must be taken for granted.
            KnownAs::Elsewhere | KnownAs::Unknown => (None, None, true),
        };
        // Of two, nobody knows which is meant; both are in the file.
        let is_only = second.is_none();
        let filed =
            move |secret: Option<Secret>| secret.filter(|_| is_only).map(ServerSecret::from);
        let fail = |text: &'static str| Err(Farewell::Authentication(text.into()));
        let method = self.method(config, database, user)?;
        match method {
            Method::Any => Ok(None),
            Method::Trust if unknown => fail("\"trust\" authentication failed"),
            Method::Trust => Ok(filed(secret)),
            Method::Password(method) => {
                let secrets = (secret.as_ref(), second.as_ref());
                let proof = Box::pin(self.ask_password(user, method, secrets)).await?;
                Ok(match proof {
                    Proof::Cleartext(password) => Some(ServerSecret::Plain(password)),
                    Proof::ScramStored(keys) => Some(ServerSecret::Keys(keys)),
                    Proof::Md5 | Proof::ScramAdHoc(_) => filed(secret),
                })
            }
            Method::Certificate(map) => match self.is_certified(user, map.as_deref()) && !unknown {
                true => Ok(filed(secret)),
                false => fail("certificate authentication failed"),
            },
            Method::Peer(map) => {
                let admitted = self.is_peer(user, map.as_deref());
                match admitted && !unknown {
                    true => Ok(filed(secret)),
                    false => fail("unix socket login rejected"),
                }
            }
            Method::Ldap(options) => Box::pin(self.ask_ldap(user, options)).await.map(Some),
            Method::Pam => Box::pin(self.ask_pam(user)).await.map(Some),
            Method::Reject => Err(Farewell::LoginRejected),
        }
    }

    /// Whether the client has shown a certificate of this user.
    fn is_certified(&mut self, user: &str, map: Option<&IdentMap>) -> bool {
        let shown = self.talk().ok().map(|talk| &talk.stream);
        let encrypted = shown.is_some_and(|stream| stream.tls_info().is_some());
        let Some(certificate) = shown.and_then(Stream::peer_certificate) else {
            let needed = match encrypted {
                true => "TLS client certificate required",
                false => "TLS connection required",
            };
            tracing::error!(peer = %self.client, "{needed}");
            return false;
        };
        let admitted = match map {
            Some(map) => map.admits(|system| certificate.names_user(system), user),
            None => certificate.names_user(user),
        };
        if !admitted {
            match map {
                Some(map) => tracing::error!(
                    peer = %self.client,
                    "ident map: {} does not have a match", map.name
                ),
                None => tracing::error!(peer = %self.client, "TLS certificate name mismatch"),
            }
        }
        admitted
    }

    fn is_peer(&mut self, user: &str, map: Option<&IdentMap>) -> bool {
        let credentials = self
            .talk()
            .ok()
            .and_then(|talk| talk.stream.peer_credentials());
        let Some(credentials) = credentials else {
            return false;
        };
        let is = |system: &str| crate::process::system::user_id(system) == Some(credentials.uid);
        let Some(map) = map else {
            return is(user);
        };
        let admitted = map.admits(is, user);
        if !admitted {
            tracing::error!(peer = %self.client, "ident map {} cannot be matched", map.name);
        }
        admitted
    }

    fn method(&self, config: &Config, database: &str, user: &str) -> Result<Method, Farewell> {
        Ok(match config.global.auth_type {
            AuthType::Any => Method::Any,
            AuthType::Trust => Method::Trust,
            AuthType::Plain => Method::Password(PasswordMethod::Cleartext),
            AuthType::Md5 => Method::Password(PasswordMethod::Md5),
            AuthType::ScramSha256 => Method::Password(PasswordMethod::ScramSha256),
            AuthType::Cert => Method::Certificate(None),
            AuthType::Ldap => Method::Ldap(self.shared.files().ldap.global.clone()),
            AuthType::Pam => Method::Pam,
            AuthType::Hba => {
                let files = self.shared.files();
                let rule = files.hba.rule_for(&self.connection(database, user));
                match &rule.ok_or(Farewell::NoMethod)?.method {
                    hba::Method::Trust => Method::Trust,
                    hba::Method::Reject => Method::Reject,
                    hba::Method::Md5 => Method::Password(PasswordMethod::Md5),
                    hba::Method::Password => Method::Password(PasswordMethod::Cleartext),
                    hba::Method::ScramSha256 => Method::Password(PasswordMethod::ScramSha256),
                    hba::Method::Peer(map) => Method::Peer(map.clone()),
                    hba::Method::Cert(map) => Method::Certificate(map.clone()),
                    hba::Method::Ldap(options) => Method::Ldap(Some(options.clone())),
                    hba::Method::Pam => Method::Pam,
                }
            }
        })
    }

    fn admits_somebody(&self, database: &str, user: &str) -> bool {
        let connection = self.connection(database, user);
        self.shared.files().hba.admits_somebody(&connection)
    }

    fn connection<'a>(&self, database: &'a str, user: &'a str) -> hba::Connection<'a> {
        let wish = self.client.replication.get();
        hba::Connection {
            database,
            user,
            // Logical replication is matched as any other login to its database.
            replication: wish.is_some_and(|wish| wish.kind == ReplicationKind::Physical),
            tls: self.client.tls.get().is_some(),
            address: self.client.address.ip(),
        }
    }

    async fn ask_password(
        &mut self,
        user: &str,
        method: PasswordMethod,
        (secret, second): (Option<&Secret>, Option<&Secret>),
    ) -> Result<Proof, Farewell> {
        let binding = self.talk()?.stream.server_end_point_binding();
        let random = credentials::random::<22>();
        let [a, b, c, d, nonce @ ..] = random;
        let login = ClientLogin {
            user,
            method,
            secret,
            second,
            channel_binding: binding.map_or(ChannelBinding::Unavailable, ChannelBinding::Available),
            md5_salt: [a, b, c, d],
            nonce: Nonce(nonce),
        };
        let mut step = ClientAuthentication::start(login, &self.shared.auth_policy());
        loop {
            step = match step {
                Step::Send(challenge, next) => {
                    self.send_challenge(&challenge).await?;
                    next.respond(&self.password_message().await?)
                }
                Step::Derive(job, waiting) => {
                    waiting.resume(credentials::derive(self.shared, job).await)
                }
                Step::Done(success) => {
                    let (last, proof) = success.into_parts();
                    // As PostgreSQL does, it goes out with the greeting, or with a refusal.
                    if let Some(last) = last {
                        let message = encode(&last);
                        self.talk()?.hold(message);
                    }
                    return Ok(proof);
                }
                Step::Fail(failure) => return Err(self.refused(&failure)),
            };
        }
    }

    /// Lets an LDAP server judge the client's password.
    async fn ask_ldap(
        &mut self,
        user: &str,
        options: Option<Result<Arc<LdapOptions>, BadOptions>>,
    ) -> Result<ServerSecret, Farewell> {
        let options = options.ok_or(Farewell::NoLdapOptions)?;
        let password = self.ask_cleartext().await?;
        let judged = match &options {
            Ok(options) => ldap::check(self.shared, options, user, &password).await,
            Err(bad) => Err(bad.to_string()),
        };
        self.judged(judged, password, "LDAP authentication failed")
    }

    /// Lets PAM judge the client's password.
    async fn ask_pam(&mut self, user: &str) -> Result<ServerSecret, Farewell> {
        let password = self.ask_cleartext().await?;
        let address = self.client.address.host().to_string();
        let judged = self.shared.pam.check(user, &password, &address).await;
        self.judged(judged, password, "PAM authentication failed")
    }

    fn judged(
        &self,
        judged: Result<(), String>,
        password: Password,
        refusal: &'static str,
    ) -> Result<ServerSecret, Farewell> {
        match judged {
            Ok(()) => Ok(ServerSecret::Plain(password)),
            Err(reason) => {
                tracing::warn!(peer = %self.client, "{reason}");
                Err(Farewell::Authentication(refusal.into()))
            }
        }
    }

    async fn ask_cleartext(&mut self) -> Result<Password, Farewell> {
        self.send_challenge(&Challenge::CleartextPassword).await?;
        let answer = self.password_message().await?;
        read_password(&answer).map_err(|failure| self.refused(&failure))
    }

    fn refused(&self, failure: &Failure) -> Farewell {
        tracing::debug!(peer = %self.client, "authentication: {}", failure.cause);
        if let Some(line) = failure.log_line() {
            tracing::error!(peer = %self.client, "{line}");
        }
        Farewell::Authentication(failure.refusal.to_string().into())
    }

    async fn password_message(&mut self) -> Result<Bytes, Farewell> {
        let message = self.talk()?.message(SizeLimits::LOGIN).await;
        match message.map_err(interrupted)? {
            (tag::PASSWORD, body) => Ok(body),
            (tag::TERMINATE, _) => Err(Farewell::ClientClosed),
            _ => Err(Farewell::LoginMessage),
        }
    }

    async fn send_challenge(&mut self, challenge: &Challenge) -> Result<(), Farewell> {
        let message = encode(challenge);
        let sent = self.talk()?.send(&message).await;
        sent.map_err(|_| Farewell::ClientGone)
    }
}

/// Room for what most clients are asked.
const CHALLENGE_LEN: usize = 128;

fn encode(challenge: &Challenge) -> BytesMut {
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
    let mut out = BytesMut::with_capacity(CHALLENGE_LEN);
    message.write(&mut out);
    out
}
