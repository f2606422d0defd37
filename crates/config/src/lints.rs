//! What is wrong with a configuration although each of its lines can be read.
//!
//! But for TLS only `check` looks here: PgBouncer starts with most of these, or says them when it is
//! too late.

use crate::CONSOLE_DATABASE;
use crate::Settings;
use crate::config::Config;
use crate::declare::Place;
use crate::draft::Seen;
use crate::problem::{Fault, Report, Spot};
use crate::value::{AuthType, HostLimit, PasswordSource, SessionState, SslMode, StatePolicies};

const PEER_ID_MAX: u32 = 16383;

/// Adds what is wrong with `config`, at the lines where it was set.
pub(crate) fn look_at(config: &Config, seen: &Seen, file: &str, report: &mut Report) {
    let mut lints = Lints { seen, file, report };
    lints.listening(config);
    lints.client_tls(config);
    lints.users(config);
    lints.databases(config);
    lints.tokens(config);
    lints.session_state(config);
    lints.peers(config);
    lints.fleet(config);
    lints.otel(config);
}

/// Why the TLS set-up towards clients refuses, which ends the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TlsFault {
    /// The key that asks for too much.
    pub key: &'static str,
    /// PgBouncer's words.
    pub text: &'static str,
    /// What can be done.
    pub way_out: &'static str,
}

/// The demands of these settings on TLS towards clients that their files cannot meet.
pub fn client_tls_faults(settings: &Settings) -> impl Iterator<Item = TlsFault> {
    let mode = settings.client_tls_sslmode;
    let has_certificate =
        !settings.client_tls_key_file.is_empty() && !settings.client_tls_cert_file.is_empty();
    let no_certificate = TlsFault {
        key: "client_tls_sslmode",
        text: "To allow TLS connections from clients, client_tls_key_file and \
               client_tls_cert_file must be set.",
        way_out: "or client_tls_sslmode = disable",
    };
    let unproven = TlsFault {
        key: "auth_type",
        text: "auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL",
        way_out: "set client_tls_sslmode = verify-full",
    };
    let no_authority = TlsFault {
        key: "client_tls_sslmode",
        text: "client_tls_sslmode requires client_tls_ca_file",
        way_out: "set client_tls_ca_file",
    };
    let is_unproven = settings.auth_type == AuthType::Cert && mode != SslMode::VerifyFull;
    let lacks_authority = mode == SslMode::VerifyFull && settings.client_tls_ca_file.is_empty();
    let faults = [
        (mode != SslMode::Disable && !has_certificate, no_certificate),
        (is_unproven, unproven),
        (lacks_authority, no_authority),
    ];
    faults
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, fault)| fault)
}

struct Lints<'a> {
    seen: &'a Seen,
    file: &'a str,
    report: &'a mut Report,
}

impl Lints<'_> {
    fn listening(&mut self, config: &Config) {
        let global = &config.global;
        if global.listen_addr.is_empty() && global.unix_socket_dir.is_empty() {
            let fault = Fault::new("nowhere to listen on");
            self.error(
                "unix_socket_dir",
                fault,
                "set listen_addr or unix_socket_dir",
            );
        }
    }

    fn client_tls(&mut self, config: &Config) {
        for fault in client_tls_faults(&config.global) {
            self.error(fault.key, Fault::new(fault.text), fault.way_out);
        }
    }

    fn users(&mut self, config: &Config) {
        let global = &config.global;
        let needs_secrets = match global.auth_type {
            AuthType::Trust
            | AuthType::Plain
            | AuthType::Md5
            | AuthType::Cert
            | AuthType::ScramSha256 => true,
            AuthType::Any | AuthType::Hba | AuthType::Ldap | AuthType::Pam => false,
        };
        let has_query = global.auth_user.is_some()
            || config
                .databases
                .values()
                .any(|database| database.keys.auth_user.is_some());
        if needs_secrets && global.auth_file.is_none() && !has_query {
            let fault = Fault::new("no users are known, so nobody can log in");
            self.warning("auth_type", fault, "set auth_file or auth_user");
        }
        if global.auth_type == AuthType::Hba && global.auth_hba_file.is_empty() {
            let fault = Fault::new("auth_type=hba without rules refuses everybody");
            self.warning("auth_type", fault, "set auth_hba_file");
        }
        if global.auth_type == AuthType::Ldap && global.auth_ldap_options.is_none() {
            let fault = Fault::new("auth_type=ldap without options refuses everybody");
            self.warning("auth_type", fault, "set auth_ldap_options");
        }
        if global.auth_type == AuthType::Any {
            for database in config.databases.values().filter(|d| d.keys.user.is_none()) {
                let text = format!(
                    "auth_type=any needs a forced user, and {} has none",
                    database.name
                );
                let spot = self.spot(Place::Database, &database.name);
                let hint = "add user=NAME to its entry".to_owned();
                self.report.warning(&spot, Fault::new(text).hint(hint));
            }
        }
    }

    fn databases(&mut self, config: &Config) {
        for database in config.databases.values().chain(&config.autodb) {
            let spot = self.spot(Place::Database, &database.name);
            if database.keys.auth_dbname.as_deref() == Some(CONSOLE_DATABASE) {
                let text = format!(
                    "cannot use the reserved \"{CONSOLE_DATABASE}\" database as an auth_dbname"
                );
                let hint = "clients of this database cannot log in".to_owned();
                self.report.error(&spot, Fault::new(text).hint(hint)).ok();
            }
            let keys = &database.keys;
            if keys.user.is_none() && (keys.password.is_some() || keys.password_from.is_some()) {
                let fault = Fault::new("a password without a user is not used");
                let hint = "add user=NAME to the entry, or password_from to that user's".to_owned();
                self.report.warning(&spot, fault.hint(hint));
            }
            let size = database.keys.pool_size.filter(|size| *size >= 0);
            let size = size.unwrap_or(config.global.default_pool_size);
            let min = database
                .keys
                .min_pool_size
                .unwrap_or(config.global.min_pool_size);
            if size > 0 && min > size {
                let text = format!("min_pool_size {min} is more than the pool's size {size}");
                let hint = "the pool never has more servers than its size".to_owned();
                self.report.warning(&spot, Fault::new(text).hint(hint));
            }
        }
        if config.databases.is_empty() && config.autodb.is_none() {
            let fault = Fault::new("there is no database that clients could use");
            self.warning(
                "",
                fault,
                "add an entry to the databases, or the entry \"*\"",
            );
        }
    }

    /// A token is as good as a password, so it is shown only to a server that has proved its name.
    fn tokens(&mut self, config: &Config) {
        if config.global.server_tls_sslmode == SslMode::VerifyFull {
            return;
        }
        let is_token = |from: &Option<PasswordSource>| matches!(from, Some(PasswordSource::Rds(_)));
        let databases = config.databases.values().chain(&config.autodb);
        let databases = databases
            .filter(|database| is_token(&database.keys.password_from))
            .map(|database| (Place::Database, &database.name));
        let users = config.users.values();
        let users = users
            .filter(|user| is_token(&user.keys.password_from))
            .map(|user| (Place::User, &user.name));
        for (place, name) in databases.chain(users) {
            let fault = Fault::new("a token of Amazon RDS goes only to a server that is verified");
            let hint = "set server_tls_sslmode = verify-full".to_owned();
            let spot = self.spot(place, name);
            self.report.warning(&spot, fault.hint(hint));
        }
    }

    fn session_state(&mut self, config: &Config) {
        let global = &config.global;
        let is_shared = global.session_state == SessionState::Pgbouncer && !global.strict;
        if is_shared && global.state_policy != StatePolicies::default() {
            let fault = Fault::new("state_policy does nothing with session_state = pgbouncer");
            let hint = "say allow for the kinds that may reach others, and session_state = private";
            self.warning("state_policy", fault, hint);
        }
    }

    fn peers(&mut self, config: &Config) {
        let own = u32::from(config.global.peer_id);
        if own > PEER_ID_MAX {
            let fault = Fault::new(format!("peer_id {own} does not fit into a cancel key"));
            self.error("peer_id", fault, "use a number from 1 to 16383");
        }
        for id in config.peers.keys().filter(|id| **id > PEER_ID_MAX) {
            let spot = self.spot(Place::Peer, &id.to_string());
            let fault = Fault::new(format!("peer {id} does not fit into a cancel key"));
            let hint = "use a number from 1 to 16383".to_owned();
            self.report.error(&spot, fault.hint(hint)).ok();
        }
        if own == 0 && !config.peers.is_empty() {
            let fault = Fault::new("peers are ignored as long as peer_id is 0");
            self.warning("peer_id", fault, "set peer_id to our own number");
        }
    }

    fn otel(&mut self, config: &Config) {
        let endpoint = &config.global.otel_endpoint;
        if endpoint.is_empty() {
            return;
        }
        if !cfg!(feature = "otel") {
            let fault = Fault::new("OpenTelemetry is not in this build");
            let way_out = "build pgweir with --features otel, or leave otel_endpoint empty";
            self.error("otel_endpoint", fault, way_out);
        } else if !endpoint.starts_with("http://") {
            let fault = Fault::new("otel_endpoint is no address that begins with http://");
            self.error("otel_endpoint", fault, "for instance http://collector:4318");
        }
    }

    /// A part of a limit is at least one server.
    fn fleet(&mut self, config: &Config) {
        let global = &config.global;
        let poolers = global.poolers();
        let host = match global.max_host_connections {
            HostLimit::Count(count) => Some(count),
            HostLimit::Off | HostLimit::Percent(_) | HostLimit::Auto => None,
        };
        let of = |limit: i32| u32::try_from(limit).ok().filter(|&limit| limit > 0);
        for (key, limit) in [
            ("max_host_connections", host),
            ("max_db_connections", of(global.max_db_connections)),
            ("max_user_connections", of(global.max_user_connections)),
        ] {
            if let Some(limit) = limit.filter(|&limit| limit < poolers) {
                let fault = Fault::new(format!(
                    "{key} is {limit}, and each of {poolers} poolers has one server of it at least"
                ));
                self.error("fleet", fault, "lower fleet, or raise the limit");
            }
        }
        if poolers > 1 && global.max_host_connections == HostLimit::Off {
            let fault =
                Fault::new("poolers of a fleet share max_host_connections, which is not set");
            self.warning(
                "fleet",
                fault,
                "set max_host_connections, for instance to auto",
            );
        }
    }

    fn error(&mut self, key: &str, fault: Fault, hint: &str) {
        let spot = self.spot(Place::Global, key);
        self.report.error(&spot, fault.hint(hint.to_owned())).ok();
    }

    fn warning(&mut self, key: &str, fault: Fault, hint: &str) {
        let spot = self.spot(Place::Global, key);
        self.report.warning(&spot, fault.hint(hint.to_owned()));
    }

    /// Where it is set, or the file as a whole.
    fn spot(&self, place: Place, name: &str) -> Spot {
        let spot = self.seen.spots.get(&(place, name.to_owned()));
        let Some(spot) = spot else {
            return Spot::file(self.file);
        };
        Spot {
            setting: None,
            ..spot.clone()
        }
    }
}

#[cfg(test)]
mod tests;
