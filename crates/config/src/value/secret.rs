//! Texts that are never shown.

use std::fmt;

use super::{Invalid, Kind, Value};

/// A password, or none at all. It never appears in logs: neither `Debug` nor `show` tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for those who have to send or hash it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Value for Secret {
    const KIND: Kind = Kind::Secret;

    fn parse(text: &str) -> Result<Self, Invalid> {
        String::parse(text).map(Self)
    }

    fn show(&self) -> Option<String> {
        // That there is none is no secret.
        Some(if self.0.is_empty() { "" } else { "****" }.to_owned())
    }

    fn write(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::parse("hunter2").expect("a secret");
        assert!(!format!("{secret:?}{:?}", secret.show()).contains("hunter2"));
        assert_eq!(secret.write().as_deref(), Some("hunter2"));
    }
}
