//! A pipeline, told to another process.

use serde::{Deserialize, Serialize};

use super::{Doubt, Owed, Pipeline};
use crate::changes::{Changes, ChangesState};
use crate::handover::{Catalogue, UnknownStatement};

/// All of a [`Pipeline`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct PipelineState {
    owed: Vec<Owed>,
    changes: ChangesState,
    open: bool,
    #[serde(default)]
    executed: bool,
    doubt: Doubt,
    unknown_failed: bool,
}

impl Pipeline {
    /// What it is.
    pub(crate) fn state(&self) -> PipelineState {
        PipelineState {
            owed: self.owed.iter().copied().collect(),
            changes: self.changes.state(),
            open: self.open,
            executed: self.executed,
            doubt: self.doubt,
            unknown_failed: self.unknown_failed,
        }
    }

    /// The pipeline that was this.
    ///
    /// # Errors
    /// It names a statement that is in no catalogue.
    pub(crate) fn restore(
        state: PipelineState,
        catalogue: &Catalogue,
    ) -> Result<Self, UnknownStatement> {
        let PipelineState {
            owed,
            changes,
            open,
            executed,
            doubt,
            unknown_failed,
        } = state;
        Ok(Self {
            forgetting: owed.iter().filter(|owed| owed.forgets).count(),
            owed: owed.into(),
            changes: Changes::restore(changes, catalogue)?,
            open,
            executed,
            doubt,
            unknown_failed,
        })
    }
}
