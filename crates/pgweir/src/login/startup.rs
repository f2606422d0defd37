//! What the startup packet asks for.

use std::sync::Arc;

use bytes::BytesMut;
use pgweir_config::{Dialect, List, Settings};
use pgweir_session::Values;
use pgweir_wire::backend;
use pgweir_wire::{ProtocolVersion, StartupMessage};

use super::{Login, Wish};
use crate::client::{Identity, Replication, ReplicationKind};
use crate::farewell::Farewell;

impl Login<'_> {
    /// Reads the parameters, and names the client from here on.
    pub(super) fn read_startup(&self, startup: &StartupMessage) -> Result<Wish, Farewell> {
        let config = self.shared.config();
        let ignored = &config.global.ignore_startup_parameters;
        let kind = startup.parameter("replication").and_then(replication_kind);
        let mut options = Vec::new();
        let mut values = Values::default();
        for (name, value) in &startup.parameters {
            match name.as_str() {
                "user" | "database" | "replication" => {}
                // A server of one client alone can be started with whatever it wants.
                "options" if kind.is_some() => options.push((name.clone(), value.clone())),
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
        if let Some(kind) = kind {
            let tracked = self.shared.tracked.names().enumerate();
            let wanted = tracked.filter_map(|(index, name)| {
                values
                    .get(index)
                    .map(|value| (name.to_owned(), value.to_string()))
            });
            let parameters = options.into_iter().chain(wanted).collect();
            let _ = self
                .client
                .replication
                .set(Box::new(Replication { kind, parameters }));
        }
        let (database_name, user_name) = self.shared.names(&database, &user);
        let identity = Identity {
            database: database_name,
            user: user_name,
        };
        let _ = self.client.identity.set(identity);
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
