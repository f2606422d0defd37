//! Which values clients came with lately: how like clients come to share one copy at their login.

use std::collections::VecDeque;

use bytes::BytesMut;
use pgweir_wire::backend;

use super::{Tracked, Values};

/// The values that clients came with lately, so that the next one with the same shares their copy, and
/// the ParameterStatus messages of the tracked ones.
#[derive(Debug, Default)]
pub struct Latest {
    kinds: VecDeque<(Values, Box<[u8]>)>,
}

impl Latest {
    /// Kinds of clients that are told apart; applications of one user are few.
    const KINDS_MAX: usize = 8;

    /// Lets `values` share a copy that is known, or makes it known. What the client is told of them.
    pub fn share(&mut self, values: &mut Values, tracked: &Tracked) -> &[u8] {
        let known = self.kinds.iter().position(|(kind, _)| kind.same(values));
        let at = known.unwrap_or_else(|| {
            self.kinds.truncate(Self::KINDS_MAX - 1);
            let statuses = values.statuses(tracked);
            self.kinds.push_front((values.clone(), statuses));
            0
        });
        let (kind, statuses) = &self.kinds[at];
        values.clone_from(kind);
        statuses
    }
}

impl Values {
    /// The tracked ones as ParameterStatus messages.
    fn statuses(&self, tracked: &Tracked) -> Box<[u8]> {
        let mut out = BytesMut::new();
        for (index, name) in tracked.names().enumerate() {
            if let Some(value) = self.get(index) {
                backend::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
            }
        }
        out[..].into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::values;
    use super::*;

    #[test]
    fn kinds_of_clients_that_come_in_turns_share_a_copy_each() {
        let tracked = Tracked::new([]);
        let mut latest = Latest::default();
        let mut login = |name: &str| {
            let mut values = values(&tracked, &[("application_name", name)]);
            values.request("jit", "off");
            let told = latest.share(&mut values, &tracked);
            assert!(told.ends_with(&[name.as_bytes(), b"\0"].concat()));
            Arc::as_ptr(&values.shared)
        };
        let first = [login("shop"), login("report")];
        for _ in 0..3 {
            assert_eq!([login("shop"), login("report")], first);
        }
        for other in 0..100 {
            login(&other.to_string());
        }
        assert_eq!(latest.kinds.len(), Latest::KINDS_MAX);
    }
}
