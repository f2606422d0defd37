//! Where a password is read when a server is opened, in place of the configuration.

use std::fmt;

use super::{Invalid, Kind, Value};

/// A place that has one password on its first line, and while it is being changed another one on its
/// second.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// A file, read for every new server.
    File(String),
    /// A variable of the pooler's own environment.
    Env(String),
    /// What a command of the shell writes to its standard output. It may itself hold a secret.
    Exec(String),
}

impl fmt::Display for PasswordSource {
    /// Without the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Exec(_) => f.write_str("exec:****"),
        }
    }
}

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordSource({self})")
    }
}

impl Value for PasswordSource {
    const KIND: Kind = Kind::PasswordSource;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let text = String::parse(text)?;
        let (form, rest) = text.split_once(':').unwrap_or_default();
        let rest = rest.trim_ascii();
        let malformed = Err(Invalid::Malformed(Self::KIND));
        match form {
            _ if rest.is_empty() => malformed,
            "file" => Ok(Self::File(rest.to_owned())),
            "env" if !rest.contains('=') => Ok(Self::Env(rest.to_owned())),
            "exec" => Ok(Self::Exec(rest.to_owned())),
            _ => malformed,
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn write(&self) -> Option<String> {
        Some(match self {
            Self::Exec(command) => format!("exec:{command}"),
            Self::File(_) | Self::Env(_) => self.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_written() {
        for (text, source) in [
            (
                "file:/run/secrets/db",
                PasswordSource::File("/run/secrets/db".to_owned()),
            ),
            (
                "env:DB_PASSWORD",
                PasswordSource::Env("DB_PASSWORD".to_owned()),
            ),
            (
                "exec:vault read -field=p db:x",
                PasswordSource::Exec("vault read -field=p db:x".to_owned()),
            ),
        ] {
            assert_eq!(PasswordSource::parse(text), Ok(source.clone()));
            assert_eq!(source.write().as_deref(), Some(text));
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        for text in [
            "",
            "/run/secrets/db",
            "file:",
            "env: ",
            "env:A=b",
            "http:x",
            "hunter2",
        ] {
            let refused = PasswordSource::parse(text);
            assert_eq!(
                refused,
                Err(Invalid::Malformed(Kind::PasswordSource)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_command_is_not_shown() {
        let source = PasswordSource::parse("exec:curl -H token:hunter2 x").expect("a source");
        assert!(!format!("{source} {source:?} {:?}", source.show()).contains("hunter2"));
    }
}
