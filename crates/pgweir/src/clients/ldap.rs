//! Asks an LDAP server whether a password is right.
//!
//! As PostgreSQL does it: the search and the user's own bind use a connection each, so that a
//! server never has to forget who searched. A login waits here and holds up nobody else; its own
//! time limit ends the waiting.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use pgweir_auth::Password;
use pgweir_auth::hba::{Hba, Method};
use pgweir_auth::ldap::{
    BadOptions, LdapConf, LdapOptions, Outcome, Reply, Requirement, Search, Security, UserDn,
    request,
};
use pgweir_net::tls::{ClientSide, Connector, Parameters, Pem, SslMode, TlsError};
use pgweir_net::{Stream, Target, TcpOptions, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::shared::Shared;

/// Logins that talk to LDAP servers at the same time; more wait for a place. A storm of logins
/// shall not become one at the directory.
pub(crate) const LOGINS_MAX: usize = 32;

/// How long connecting to one server may take, TLS included; then comes the next one.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long all of it may take where `client_login_timeout` allows more: a server that is silent
/// must not keep a place for good.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where libldap looks for its file: on Debian, elsewhere.
const CONF_FILES: [&str; 2] = ["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

/// What the configuration says about LDAP.
#[derive(Debug, Default)]
pub(crate) struct Ldap {
    /// `auth_ldap_options`.
    pub(crate) global: Option<Result<Arc<LdapOptions>, BadOptions>>,
    /// How connections are encrypted, if any are.
    tls: Option<Result<Connector, TlsError>>,
}

impl Ldap {
    /// Reads the options, and gets TLS ready if some of them want it. Says what is wrong.
    pub(crate) fn read(options: Option<&str>, hba: &Hba) -> (Self, Vec<String>) {
        let global = options.map(|text| LdapOptions::parse(text).map(Arc::new));
        let mut problems = Vec::new();
        if let Some(Err(bad)) = &global {
            problems.push(format!("auth_ldap_options: {bad}"));
        }
        let in_rules = hba.rules.iter().filter_map(|rule| match &rule.method {
            Method::Ldap(options) => options.as_ref().ok(),
            _ => None,
        });
        let mut all = in_rules.chain(global.iter().flatten());
        let tls = all
            .any(|options| options.security != Security::None)
            .then(connector);
        if let Some(Err(error)) = &tls {
            problems.push(format!("TLS to LDAP servers: {error}"));
        }
        (Self { global, tls }, problems)
    }
}

/// TLS as `ldap.conf` wants it: there are no keys of our own for that.
fn connector() -> Result<Connector, TlsError> {
    let conf = read_conf();
    let sslmode = match conf.requirement {
        Requirement::Nothing => SslMode::Require,
        Requirement::Valid => SslMode::VerifyFull,
    };
    let side = ClientSide {
        sslmode,
        ca: conf.ca_file.as_deref().map(Pem::read).transpose()?,
        certificate: None,
        key: None,
        parameters: Parameters::default(),
    };
    Ok(Connector::new(&side)?.without_alpn())
}

/// The machine's file, then the one of this process, then its environment: libldap's order.
fn read_conf() -> LdapConf {
    let mut conf = LdapConf::default();
    let variable = |name: &str| std::env::var(name).ok();
    if variable("LDAPNOINIT").is_some() {
        return conf;
    }
    let files = CONF_FILES.iter().map(|file| (*file).to_owned());
    for file in files.chain(variable("LDAPCONF")) {
        // Most machines have none, and that is no error for libldap either.
        if let Ok(text) = std::fs::read_to_string(file) {
            conf.read(&text);
        }
    }
    for option in ["TLS_CACERT", "TLS_REQCERT"] {
        if let Some(value) = variable(&format!("LDAP{option}")) {
            conf.set(option, &value);
        }
    }
    conf
}

/// Whether this is the user's password.
///
/// # Errors
/// It is not, or that could not be found out; the text is for the log.
pub(crate) async fn check(
    shared: &Shared,
    options: &LdapOptions,
    user: &str,
    password: &Password,
) -> Result<(), String> {
    // Servers take a DN with an empty password for nobody in particular, and say yes.
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    let judged = async {
        let _place = shared.ldap_lane.acquire().await;
        judge(shared, options, user, password).await
    };
    match timeout(PATIENCE, judged).await {
        Ok(result) => result,
        Err(_) => Err(format!("no LDAP server has answered in {PATIENCE:?}")),
    }
}

async fn judge(
    shared: &Shared,
    options: &LdapOptions,
    user: &str,
    password: &Password,
) -> Result<(), String> {
    let dn = match &options.user_dn {
        UserDn::Pattern { prefix, suffix } => format!("{prefix}{user}{suffix}"),
        UserDn::Search(search) => find(shared, options, search, user).await?,
    };
    let mut line = open(shared, options).await?;
    let outcome = line.bind(&dn, password).await?;
    let server = line.close().await;
    match outcome.is_success() {
        true => Ok(()),
        false => Err(format!(
            "LDAP login failed for user {dn} on server {server}: {outcome}"
        )),
    }
}

/// The DN of the one entry that the search finds.
async fn find(
    shared: &Shared,
    options: &LdapOptions,
    search: &Search,
    user: &str,
) -> Result<String, String> {
    let mut line = open(shared, options).await?;
    let outcome = line.bind(&search.bind_dn, &search.bind_password).await?;
    if !outcome.is_success() {
        return Err(format!(
            "could not perform initial LDAP bind for ldapbinddn \"{}\" on server \"{}\": {outcome}",
            search.bind_dn, line.server
        ));
    }
    let mut found = line.search(search, user).await?;
    let server = line.close().await;
    match (found.pop(), found.is_empty()) {
        (Some(dn), true) => Ok(dn),
        (None, _) => Err(format!(
            "LDAP user \"{user}\" does not exist on server {server}"
        )),
        (Some(_), false) => Err(format!(
            "LDAP user \"{user}\" is not unique on server {server}"
        )),
    }
}

/// Connects to the first server that can be reached.
async fn open(shared: &Shared, options: &LdapOptions) -> Result<Line, String> {
    let mut reason = "the DNS names no LDAP server".to_owned();
    for (host, port) in servers(shared, options).await? {
        let attempt = timeout(CONNECT_PATIENCE, Line::open(shared, options, &host, port));
        reason = match attempt.await {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(error)) => error,
            Err(_) => format!("connecting took more than {CONNECT_PATIENCE:?}"),
        };
        tracing::warn!("LDAP server {host}:{port}: {reason}");
    }
    Err(format!("no LDAP server can be reached: {reason}"))
}

async fn servers(shared: &Shared, options: &LdapOptions) -> Result<Vec<(String, u16)>, String> {
    match options.domain() {
        Some(domain) if options.hosts.is_empty() => {
            let service = format!("_ldap._tcp.{domain}");
            let found = shared.resolver.services(&service).await;
            found.map_err(|error| error.to_string())
        }
        _ => {
            let with_port = |host: &String| (host.clone(), options.port);
            Ok(options.hosts.iter().map(with_port).collect())
        }
    }
}

/// A connection to an LDAP server.
struct Line {
    stream: Stream,
    received: BytesMut,
    server: String,
    /// The number of the last request.
    last: i32,
}

impl Line {
    async fn open(
        shared: &Shared,
        options: &LdapOptions,
        host: &str,
        port: u16,
    ) -> Result<Self, String> {
        let mut line = Self {
            stream: reach(shared, host, port).await?,
            received: BytesMut::new(),
            server: host.to_owned(),
            last: 0,
        };
        if options.security == Security::StartTls {
            let outcome = line.ask(request::start_tls).await?;
            if !outcome.is_success() {
                return Err(format!("could not start LDAP TLS session: {outcome}"));
            }
            // Bytes that came in the clear must not be taken for the server's own.
            if !line.received.is_empty() {
                return Err("received unencrypted data after the answer to StartTLS".to_owned());
            }
        }
        if options.security == Security::None {
            return Ok(line);
        }
        let files = shared.files();
        let connector = match &files.ldap.tls {
            Some(Ok(connector)) => connector.clone(),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("TLS was not set up".to_owned()),
        };
        let Self { stream, .. } = line;
        let stream = connector.connect(stream, host).await;
        line = Self {
            stream: stream.map_err(|error| format!("TLS handshake failed: {error}"))?,
            ..line
        };
        Ok(line)
    }

    async fn bind(&mut self, dn: &str, password: &Password) -> Result<Outcome, String> {
        self.ask(|id| request::bind(id, dn, password.expose()))
            .await
    }

    /// The names of the entries found, of many the first two: more than one is as bad.
    async fn search(&mut self, search: &Search, user: &str) -> Result<Vec<String>, String> {
        self.last += 1;
        let request = request::search(self.last, search, user).map_err(|bad| bad.to_string())?;
        self.send(&request).await?;
        let mut found = Vec::new();
        loop {
            match self.reply().await? {
                Reply::Entry { id, dn } if id == self.last => {
                    found.push(dn);
                    // Some send all that they have, whatever limit they are given.
                    if found.len() > 1 {
                        return Ok(found);
                    }
                }
                Reply::Done { id, outcome } if id == self.last => {
                    return match outcome.is_success() {
                        true => Ok(found),
                        false => Err(format!(
                            "could not search LDAP on server \"{}\": {outcome}",
                            self.server
                        )),
                    };
                }
                other => self.pass_over(other)?,
            }
        }
    }

    /// Sends a request and waits for how it ends.
    async fn ask<R: AsRef<[u8]>>(
        &mut self,
        request: impl FnOnce(i32) -> R,
    ) -> Result<Outcome, String> {
        self.last += 1;
        self.send(request(self.last).as_ref()).await?;
        loop {
            match self.reply().await? {
                Reply::Done { id, outcome } if id == self.last => return Ok(outcome),
                other => self.pass_over(other)?,
            }
        }
    }

    fn pass_over(&self, reply: Reply) -> Result<(), String> {
        match reply {
            Reply::Other => Ok(()),
            Reply::Done { id: 0, outcome } => Err(self.trouble(&outcome.to_string())),
            Reply::Done { .. } | Reply::Entry { .. } => {
                Err(self.trouble("it answers what was not asked"))
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let sent: io::Result<()> = sent.await;
        sent.map_err(|error| self.trouble(&pgweir_net::os_text(&error)))
    }

    async fn reply(&mut self) -> Result<Reply, String> {
        loop {
            let read = Reply::read(&self.received);
            if let Some((reply, len)) = read.map_err(|bad| self.trouble(&bad.to_string()))? {
                self.received.advance(len);
                return Ok(reply);
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(self.trouble("it has closed the connection")),
                Ok(_) => {}
                Err(error) => return Err(self.trouble(&pgweir_net::os_text(&error))),
            }
        }
    }

    fn trouble(&self, what: &str) -> String {
        format!("LDAP server \"{}\": {what}", self.server)
    }

    /// Says goodbye, and gives back whom.
    async fn close(mut self) -> String {
        // Nothing depends on it any more.
        let _ = self.send(&request::unbind(self.last + 1)).await;
        self.server
    }
}

/// Connects to the first address of a host that answers.
async fn reach(shared: &Shared, host: &str, port: u16) -> Result<Stream, String> {
    let addresses = shared.resolver.addresses(host).await;
    let addresses = addresses.map_err(|error| error.to_string())?;
    let mut reason = String::new();
    for ip in addresses {
        let target = Target::Tcp((ip, port).into());
        match connect(&target, &TcpOptions::default()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests;
