//! What the startup packet asks for.

use std::sync::Arc;

use bytes::BytesMut;
use pgweir_config::{Dialect, Settings, StartupParameters};
use pgweir_session::{Values, may_be_requested, spelled};
use pgweir_wire::backend;
use pgweir_wire::{ProtocolVersion, StartupMessage};

use super::{Login, Wish};
use crate::clients::client::{Identity, Replication, ReplicationKind};
use crate::clients::farewell::Farewell;
use crate::clients::options;
use crate::watch::strict;

/// How a parameter is given.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Form {
    /// By its name.
    Direct,
    /// As `-c name=value` in `options`.
    InOptions,
}

impl Login<'_> {
    /// Reads the parameters, and names the client from here on.
    pub(super) fn read_startup(&self, startup: &StartupMessage) -> Result<Wish, Farewell> {
        let config = self.shared.config();
        let kind = startup.parameter("replication").and_then(replication_kind);
        let (mut user, mut database) = ("", "");
        let mut own = Vec::new();
        let mut values = Values::default();
        let mut take = |form, name: &str, value: &str| {
            self.take_parameter(&config.global, form, name, value, &mut values)
        };
        // `options` comes first, because PostgreSQL lets the other parameters overrule it.
        let options = startup.parameters().filter(|(name, _)| *name == "options");
        let others = startup.parameters().filter(|(name, _)| *name != "options");
        for (name, value) in options.chain(others) {
            match name {
                "user" => user = value,
                "database" => database = value,
                "replication" => {}
                // A server of one client alone can be started with whatever it wants.
                "options" if kind.is_some() => own.push((name.to_owned(), value.to_owned())),
                "options" => {
                    for (name, value) in options::parse(value).map_err(|_| Farewell::Options)? {
                        take(Form::InOptions, &name, &value)?;
                    }
                }
                name if name.starts_with("_pq_.") => {}
                name => take(Form::Direct, name, value)?,
            }
        }
        if user.is_empty() {
            return Err(Farewell::NoUser);
        }
        if database.is_empty() {
            database = user;
        }
        self.name_application(&config.global, &mut values);
        if let Some(kind) = kind {
            let tracked = self.shared.tracked.names().enumerate();
            let wanted = tracked.filter_map(|(index, name)| {
                values
                    .get(index)
                    .map(|value| (name.to_owned(), value.to_string()))
            });
            let requested = values.requested().iter();
            let requested = requested.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let parameters = own.into_iter().chain(wanted).chain(requested).collect();
            let _ = self
                .client
                .replication
                .set(Box::new(Replication { kind, parameters }));
        }
        let (database, user) = self.shared.names(database, user);
        let identity = Identity {
            database: Arc::clone(&database),
            user: Arc::clone(&user),
        };
        let _ = self.client.identity.set(identity);
        if self.shared.strict.is_some() && kind.is_none() {
            let names = values.requested().iter().map(|(name, _)| name);
            strict::note_startup(self.shared, self.client, names);
        }
        Ok(Wish {
            database,
            user,
            values,
            version: startup.version,
        })
    }

    fn name_application(&self, global: &Settings, values: &mut Values) {
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

    /// Keeps a parameter for the client, drops it, or refuses the client for it.
    fn take_parameter(
        &self,
        global: &Settings,
        form: Form,
        name: &str,
        value: &str,
        values: &mut Values,
    ) -> Result<(), Farewell> {
        let ignored = &global.ignore_startup_parameters;
        if let Some(index) = self.shared.tracked.index(name) {
            values.set(index, spelled(name, value).unwrap_or(value));
            return Ok(());
        }
        if ignored.contains(name) || form == Form::InOptions && ignored.contains("options") {
            return Ok(());
        }
        if global.startup_parameters == StartupParameters::Apply && may_be_requested(name) {
            values.request(name, value);
            return Ok(());
        }
        let (place, farewell) = match form {
            Form::Direct => ("", Farewell::Parameter(name.to_owned())),
            Form::InOptions => (" in options", Farewell::ParameterInOptions(name.to_owned())),
        };
        tracing::warn!(
            peer = %self.client,
            "unsupported startup parameter{place}: {name}={value}"
        );
        Err(farewell)
    }

    /// Says which protocol is spoken if the client asked for another one. A PgBouncer ini keeps to
    /// 3.0, as PgBouncer does.
    pub(super) async fn negotiate(
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
}

/// What the parameter `replication` asks for; `None` is an ordinary client.
fn replication_kind(value: &str) -> Option<ReplicationKind> {
    match value.to_ascii_lowercase().as_str() {
        "database" => Some(ReplicationKind::Logical),
        "1" | "on" | "yes" | "true" | "t" | "y" => Some(ReplicationKind::Physical),
        _ => None,
    }
}
