//! A relay, told to another process.

use pgweir_wire::TransactionStatus;
use serde::{Deserialize, Serialize};

use super::mention::Effect;
use super::{Asked, ClientStream, Relay, Rest, Sent, ServersUnnamed, Tally, Waits};
use crate::handover::{Bytes, Catalogue, ParametersState, UnknownStatement, ValuesState};
use crate::outgrown::Comparison;
use crate::parameters::Parameters;
use crate::params::{Tracked, Values};
use crate::pipeline::{Pipeline, PipelineState};
use crate::prepared::{ServerStatements, StatementId};
use crate::residue::{Familiar, Residue};
use crate::spoken::Spoken;

/// All of a [`Relay`] but its counts.
#[derive(Debug, Deserialize, Serialize)]
pub struct RelayState {
    pipeline: PipelineState,
    client_rest: Rest,
    server_rest: Rest,
    stream: ClientStream,
    /// The byte of ReadyForQuery.
    status: char,
    /// The least recently used first.
    statements: Vec<u64>,
    /// An earlier version does not say it, and it let clients use whatever was there.
    #[serde(default = "yes")]
    has_unnamed: bool,
    /// In which batch the server was sent it, if that is not known to have been answered.
    #[serde(default)]
    unnamed_batch: Option<u64>,
    values: ValuesState,
    login_values: ValuesState,
    defaults: ParametersState,
    was_reset: bool,
    has_said_goodbye: bool,
    is_flushed: bool,
    /// Whether it is known that the session holds nothing beyond the books.
    #[serde(default)]
    settled: bool,
    /// What the statement without a name does when it is executed, and whether it has been bound.
    #[serde(default)]
    unnamed_effect: (EffectState, bool),
    /// The first and the last statement.
    spoken: (Bytes, Bytes),
}

#[derive(Debug, Default, Deserialize, Serialize)]
enum EffectState {
    #[default]
    None,
    Deallocates {
        name: Bytes,
        id: u64,
    },
    Forgets,
}

impl EffectState {
    fn of(effect: &Effect) -> Self {
        match effect {
            Effect::None => Self::None,
            Effect::Deallocates(name, id) => Self::Deallocates {
                name: Bytes(name.to_vec()),
                id: id.0,
            },
            Effect::Forgets => Self::Forgets,
        }
    }

    fn restore(self) -> Effect {
        match self {
            Self::None => Effect::None,
            Self::Deallocates { name, id } => Effect::Deallocates(name.0.into(), StatementId(id)),
            Self::Forgets => Effect::Forgets,
        }
    }
}

fn yes() -> bool {
    true
}

impl Relay {
    /// What it is. A query of the pooler's own cannot be told.
    pub fn state(&self, tracked: &Tracked) -> RelayState {
        debug_assert!(!self.is_asking(), "only what serves a client moves");
        RelayState {
            pipeline: self.pipeline.state(),
            client_rest: self.client_rest,
            server_rest: self.server_rest,
            stream: self.stream,
            status: self.status.byte().into(),
            statements: self.statements.iter().map(|known| known.id.0).collect(),
            has_unnamed: self.unnamed.sent != Sent::No,
            unnamed_batch: match self.unnamed.sent {
                Sent::In(batch) => Some(batch),
                Sent::No | Sent::Surely => None,
            },
            values: self.values.state(tracked),
            login_values: self.login_values.state(tracked),
            defaults: self.defaults.state(),
            was_reset: self.was_reset,
            has_said_goodbye: self.has_said_goodbye,
            is_flushed: self.is_flushed,
            settled: self.residue.is_settled(),
            unnamed_effect: (
                EffectState::of(&self.unnamed.effect),
                self.unnamed.is_effect_bound,
            ),
            spoken: self.spoken.state(),
        }
    }

    /// The relay that was this.
    ///
    /// # Errors
    /// It names a statement that is in no catalogue.
    pub fn restore(
        state: RelayState,
        tracked: &Tracked,
        catalogue: &Catalogue,
    ) -> Result<Self, UnknownStatement> {
        let mut statements = ServerStatements::default();
        for id in state.statements {
            statements.insert(catalogue.find(id)?);
        }
        let status = u8::try_from(state.status)
            .ok()
            .and_then(TransactionStatus::from_byte);
        let mut residue = Residue::default();
        if !state.settled {
            residue.note_unreadable();
        }
        Ok(Self {
            pipeline: Pipeline::restore(state.pipeline, catalogue)?,
            client_rest: state.client_rest,
            server_rest: state.server_rest,
            stream: state.stream,
            // Nobody writes another byte; if somebody does, the transaction is rolled back.
            status: status.unwrap_or(TransactionStatus::Failed),
            statements,
            unnamed: ServersUnnamed {
                sent: match (state.has_unnamed, state.unnamed_batch) {
                    (false, _) => Sent::No,
                    (true, Some(batch)) => Sent::In(batch),
                    (true, None) => Sent::Surely,
                },
                effect: state.unnamed_effect.0.restore(),
                is_effect_bound: state.unnamed_effect.1,
            },
            values: Values::restore(&state.values, tracked),
            login_values: Values::restore(&state.login_values, tracked),
            defaults: Parameters::restore(&state.defaults),
            asked: Asked::Other,
            refused: None,
            was_reset: state.was_reset,
            in_hot_standby: None,
            has_said_goodbye: state.has_said_goodbye,
            is_flushed: state.is_flushed,
            spoken: Spoken::restore(state.spoken),
            tally: Tally::default(),
            // What its session may hold is looked for at the next chance.
            residue,
            familiar: Familiar::default(),
            client: 0,
            drawn_by: Some(super::apart::SEVERAL),
            waits: Waits::Nothing,
            is_translated: false,
            translation_tries: 0,
            speaks_of_own: false,
            own_rows: Vec::new(),
            facts: None,
            error_classes: Vec::new(),
            on_cancel: None,
            taken_name: None,
            comparison: Comparison::None,
            raises: false,
            reworded: None,
            judgements: None,
            elsewhere: super::listening::Elsewhere::default(),
        })
    }
}
