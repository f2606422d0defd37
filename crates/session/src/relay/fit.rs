//! Brings a server to the parameters of the client that gets it.

use bytes::BytesMut;
use pgweir_wire::{ErrorFields, SqlState};

use super::{Asked, ClientSide, Relay};
use crate::parameters::Parameters;
use crate::params::Tracked;

impl Relay {
    /// Says what its sessions have when nobody requests another value, as far as RESET does not lead
    /// there.
    pub fn set_defaults(&mut self, defaults: Parameters) {
        self.defaults = defaults;
    }

    /// Why the server could not be brought to the client's parameters; it is as it was before.
    pub fn take_refused(&mut self) -> Option<Box<Refused>> {
        self.refused.take()
    }

    /// Whether the client, which goes on with this server, has reset what it had requested. To
    /// PostgreSQL a reset leads back to what the startup message said, so the server has to be
    /// [fitted](Self::fit) again.
    #[inline]
    pub fn was_reset(&self) -> bool {
        self.was_reset
    }

    /// Whether the server's parameters are the client's already.
    #[inline]
    pub fn fits(&mut self, client: &mut ClientSide) -> bool {
        self.was_reset = false;
        let same = client.values.same(&self.values);
        if same {
            client.values.unite(&mut self.values);
        }
        same
    }

    /// Brings the server's parameters to the client's. `true` if a query was appended to `out`; then
    /// the client waits until [`Self::is_asking`] is over, and [`Self::take_refused`] says whether the
    /// server would not have them.
    pub fn fit(&mut self, client: &mut ClientSide, tracked: &Tracked, out: &mut BytesMut) -> bool {
        if self.fits(client) {
            return false;
        }
        // A client that came from another pooler may have values that nobody has told us.
        client.values.fill(&self.login_values);
        let wanted = &client.values;
        match wanted.fitting(&self.values, tracked, &self.defaults) {
            Some(fitting) => {
                self.ask(&fitting.sql, out);
                self.asked = Asked::Fit {
                    undoing: fitting.undoing,
                    names: fitting.names,
                    wanted: wanted.clone(),
                };
                true
            }
            None => {
                client.values = self.values.clone();
                false
            }
        }
    }
}

/// PostgreSQL's answer to a parameter that a client wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The error's SQLSTATE.
    pub code: Option<SqlState>,
    /// The error's message.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What may help.
    pub hint: Option<String>,
}

impl From<&ErrorFields<'_>> for Refused {
    fn from(fields: &ErrorFields<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| text(bytes));
        Self {
            code: fields.sqlstate(),
            message: text(fields.message),
            detail: some(fields.detail),
            hint: some(fields.hint),
        }
    }
}
