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
use crate::residue::{Familiar, Kinds, Named, Residue};
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
    /// What the texts since then say that there may be.
    #[serde(default)]
    announced: Kinds,
    /// The parameters that they have named: PostgreSQL lists those with a dot only by their names. An earlier version does
    /// not say it.
    #[serde(default)]
    named: Option<Vec<Named>>,
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
            announced: self.residue.announced(),
            named: Some(self.residue.named().to_vec()),
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
        let residue = match state.settled {
            true => Residue::default(),
            false => Residue::told(state.announced, state.named),
        };
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::relay::{ClientSide, Settled};
    use crate::residue::{Memory, scan};

    /// What is told of a relay whose session has been asked this.
    fn told(sql: &str) -> serde_json::Value {
        let mut relay = Relay::new(Values::default());
        relay
            .residue
            .note(&scan(sql.as_bytes()), Kinds::NONE, |_| false);
        serde_json::to_value(relay.state(&Tracked::new([]))).unwrap()
    }

    fn restored(told: serde_json::Value) -> Relay {
        let state = serde_json::from_value(told).unwrap();
        Relay::restore(state, &Tracked::new([]), &Catalogue::default()).unwrap()
    }

    #[test]
    fn a_parameter_that_a_text_has_named_is_asked_for_elsewhere_too() {
        for sql in [
            "set app.tenant = 'a'",
            "select set_config('app.tenant', 'a', false)",
        ] {
            let mut relay = restored(told(sql));
            let question = relay.question(&Memory::default(), Instant::now());
            let question = question.expect("it has to be looked for").sql("somebody");
            assert!(question.contains("'app.tenant'"), "{sql}: {question}");
        }
    }

    #[test]
    fn what_an_earlier_version_does_not_name_is_not_known() {
        for (names_lack, expected) in [
            (false, Settled::Bound(Kinds::NONE)),
            (true, Settled::Unknown),
        ] {
            let mut told = told("set app.tenant = 'a'");
            if names_lack {
                told.as_object_mut().unwrap().remove("named");
            }
            let mut relay = restored(told);
            relay.facts = Some(Box::default());
            let (mut client, tracked) = (ClientSide::default(), Tracked::new([]));
            let (mut memory, now) = (Memory::default(), Instant::now());
            let settled = relay.settle(&mut client, &tracked, &mut memory, now);
            assert_eq!(settled, expected);
            assert_eq!(relay.residue.is_settled(), !names_lack);
            assert!(relay.cleaning().is_none(), "only DISCARD ALL helps");
        }
    }

    #[test]
    fn what_binds_a_server_is_known_elsewhere_too() {
        let mut relay = Relay::new(Values::default());
        relay.residue.settle(Kinds::TEMPORARY, Instant::now());
        let state = serde_json::to_value(relay.state(&Tracked::new([]))).unwrap();
        let residue = restored(state).residue;
        assert!(residue.may_mean_another() && !residue.is_settled());
        assert_eq!(residue.announced(), Kinds::TEMPORARY);
    }
}
