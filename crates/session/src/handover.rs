//! What a client and a server are to each other, told to another process: an online restart gives
//! it the sockets, and this with them.
//!
//! The states are plain values that serde can write. Parameters are told by name, because the next
//! process may track others; statements are told once, in a [`Catalogue`], and named by their ids.

use std::collections::HashMap;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::channels::Channels;
use crate::parameters::Parameters;
use crate::params::{Tracked, Values};
use crate::prepared::{ClientStatements, Statement, StatementId, StatementTable, Unnamed};
use crate::relay::ClientSide;

/// Bytes that are written as text.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        BASE64_STANDARD.encode(bytes.0)
    }
}

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_STANDARD.decode(text).map(Self)
    }
}

/// The statements that another process has told, by their ids there.
#[derive(Debug, Default)]
pub struct Catalogue {
    by_id: HashMap<u64, Arc<Statement>>,
}

/// A state that names a statement which was not told.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("prepared statement {0} was used but not handed over")]
pub struct UnknownStatement(pub u64);

/// A [`Statement`]. Those that it needs are told before it.
#[derive(Debug, Deserialize, Serialize)]
pub struct StatementState {
    id: u64,
    definition: Bytes,
    /// What it executes by its name on servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs: Option<u64>,
}

impl Statement {
    /// What it is. How its session read it is not told.
    pub fn state(&self) -> StatementState {
        StatementState {
            id: self.id.0,
            definition: Bytes(self.definition.to_vec()),
            needs: self.needs.as_ref().map(|needs| needs.id.0),
        }
    }
}

impl Catalogue {
    /// Lets `table` know a statement by the name that it has on servers.
    ///
    /// # Errors
    /// It needs one that has not been told.
    pub fn adopt(
        &mut self,
        state: &StatementState,
        table: &StatementTable,
    ) -> Result<(), UnknownStatement> {
        let needs = state.needs.map(|id| self.find(id)).transpose()?;
        let statement = table.adopt(StatementId(state.id), &state.definition.0, needs);
        self.by_id.insert(state.id, statement);
        Ok(())
    }

    /// The statement with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: u64) -> Result<Arc<Statement>, UnknownStatement> {
        self.by_id
            .get(&id)
            .map(Arc::clone)
            .ok_or(UnknownStatement(id))
    }
}

/// [`Values`] by name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ValuesState {
    /// The tracked ones.
    pub tracked: Vec<(String, String)>,
    /// The requested ones.
    pub requested: ParametersState,
}

/// [`Parameters`] by name; `None` is in doubt.
pub type ParametersState = Vec<(String, Option<String>)>;

impl Values {
    /// What they are.
    pub fn state(&self, tracked: &Tracked) -> ValuesState {
        let named = tracked.names().enumerate();
        ValuesState {
            tracked: named
                .filter_map(|(index, name)| Some((name.to_owned(), self.get(index)?.to_string())))
                .collect(),
            requested: self.requested().state(),
        }
    }

    /// The values that were this. What is not tracked here was, to this process, requested.
    pub fn restore(state: &ValuesState, tracked: &Tracked) -> Self {
        let mut values = Self::default();
        values.restore_requested(&state.requested);
        for (name, value) in &state.tracked {
            match tracked.index(name) {
                Some(index) => values.set(index, value),
                None => values.request(name, value),
            }
        }
        values
    }
}

/// All of a [`ClientSide`].
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct ClientState {
    values: ValuesState,
    statements: Vec<(Bytes, u64)>,
    /// The definition of the one without a name.
    #[serde(default)]
    unnamed: Option<Bytes>,
    /// What that is on servers, if they have it under a name.
    #[serde(default)]
    unnamed_statement: Option<u64>,
    /// What the startup message requested, if that is not what is requested now.
    #[serde(default)]
    startup: Option<ParametersState>,
    /// What it listens to without a server.
    #[serde(default)]
    channels: Vec<String>,
}

impl ClientState {
    /// Whether it listens to something without a server.
    pub fn listens(&self) -> bool {
        !self.channels.is_empty()
    }

    /// Of a client of which only some parameters are known.
    pub fn of_values(values: ValuesState) -> Self {
        Self {
            values,
            statements: Vec::new(),
            unnamed: None,
            unnamed_statement: None,
            startup: None,
            channels: Vec::new(),
        }
    }
}

impl ClientSide {
    /// What it is.
    pub fn state(&self, tracked: &Tracked) -> ClientState {
        let named = self.statements.iter();
        let prepared = self.statements.get(b"");
        let unnamed = self.unnamed.get();
        let unnamed = unnamed.or_else(|| prepared.map(|statement| &*statement.definition));
        let channels = self.channels.iter().flat_map(|channels| channels.iter());
        ClientState {
            values: self.values.state(tracked),
            statements: named
                .map(|(name, statement)| (Bytes(name.to_vec()), statement.id.0))
                .collect(),
            unnamed: unnamed.map(|text| Bytes(text.to_vec())),
            unnamed_statement: prepared.map(|statement| statement.id.0),
            startup: self.startup.as_ref().map(|startup| startup.state()),
            channels: channels.map(|channel| channel.to_string()).collect(),
        }
    }

    /// The client's side that was this.
    ///
    /// # Errors
    /// It names a statement that is in no catalogue.
    pub fn restore(
        state: ClientState,
        tracked: &Tracked,
        catalogue: &Catalogue,
    ) -> Result<Self, UnknownStatement> {
        let mut statements = ClientStatements::default();
        for (name, id) in state.statements {
            statements.insert(name.0.into(), catalogue.find(id)?);
        }
        let startup = state.startup.as_ref();
        let channels = state.channels.into_iter().map(Arc::from);
        let channels: Channels = channels.collect();
        let mut unnamed = Unnamed::default();
        if let Some(id) = state.unnamed_statement {
            statements.insert(Box::default(), catalogue.find(id)?);
        }
        let prepared = statements.get(b"").map(|statement| &*statement.definition);
        // What is prepared is told twice, for an earlier version.
        if let Some(definition) = state.unnamed.filter(|told| prepared != Some(&told.0)) {
            unnamed.set(&definition.0, true);
        }
        Ok(Self {
            statements,
            unnamed,
            values: Values::restore(&state.values, tracked),
            startup: startup.map(|startup| Box::new(Parameters::restore(startup))),
            masks: startup.is_some(),
            channels: (!channels.is_empty()).then(|| Box::new(channels)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Reading;

    #[test]
    fn bytes_pass_as_text() {
        let bytes = Bytes(vec![0, 255, b'"', b'\\']);
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), bytes);
        assert!(serde_json::from_str::<Bytes>("\"?\"").is_err());
    }

    #[test]
    fn a_clients_side_is_told_by_names() {
        let (here, there) = (
            Tracked::new(["search_path"]),
            Tracked::new(["IntervalStyle"]),
        );
        let table = StatementTable::default();
        let mut side = ClientSide::default();
        side.values.set(here.index("TimeZone").unwrap(), "UTC");
        side.values.set(here.index("search_path").unwrap(), "a");
        let statement = table.intern(b"select 1\0\0\0", Reading::Fixed);
        side.statements
            .insert((*b"s").into(), Arc::clone(&statement));

        let state = side.state(&here);
        let unknown = ClientSide::restore(side.state(&here), &there, &Catalogue::default());
        assert_eq!(unknown.unwrap_err(), UnknownStatement(statement.id.0));
        let mut catalogue = Catalogue::default();
        let elsewhere = StatementTable::default();
        catalogue.adopt(&statement.state(), &elsewhere).unwrap();
        let restored = ClientSide::restore(state, &there, &catalogue).unwrap();
        let told = restored.values.state(&there);
        assert_eq!(told.tracked, [("TimeZone".to_owned(), "UTC".to_owned())]);
        assert_eq!(
            told.requested,
            [("search_path".to_owned(), Some("a".to_owned()))],
            "what is not tracked there is kept all the same"
        );
        assert!(restored.statements.contains(b"s"));
    }

    #[test]
    fn a_statement_that_executes_another_is_told_with_it() {
        let here = StatementTable::default();
        let inner = here.intern(b"select 1\0\0\0", Reading::Fixed);
        let executes = b"execute PGBOUNCER_1\0\0\0";
        let outer = here.intern_needing(executes, Reading::Fixed, Some(Arc::clone(&inner)));
        let (there, mut catalogue) = (StatementTable::default(), Catalogue::default());
        let unknown = catalogue.adopt(&outer.state(), &there);
        assert_eq!(unknown, Err(UnknownStatement(inner.id.0)));
        for told in here.all() {
            catalogue.adopt(&told.state(), &there).unwrap();
        }
        let adopted = catalogue.find(outer.id.0).unwrap();
        assert_eq!(adopted.needs.as_ref().unwrap().id, inner.id);
    }
}
