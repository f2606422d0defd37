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
    /// A token of Amazon RDS, made for each login; with the region, where the host does not name it.
    Rds(Option<String>),
}

impl fmt::Display for PasswordSource {
    /// Without the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Exec(_) => f.write_str("exec:****"),
            Self::Rds(Some(region)) => write!(f, "rds:region={region}"),
            Self::Rds(None) => f.write_str("rds:"),
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
            "rds" => rds(rest),
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
            Self::File(_) | Self::Env(_) | Self::Rds(_) => self.to_string(),
        })
    }
}

/// What stands behind `rds:`, which is a value in every build and of use in some.
fn rds(rest: &str) -> Result<PasswordSource, Invalid> {
    const FEATURE: &str = "rds";
    let region = match rest.strip_prefix("region=") {
        None if rest.is_empty() => None,
        Some(region) if is_region(region) => Some(region.to_owned()),
        Some(_) | None => return Err(Invalid::Malformed(Kind::PasswordSource)),
    };
    match cfg!(feature = "rds") {
        true => Ok(PasswordSource::Rds(region)),
        false => Err(Invalid::NotBuilt { feature: FEATURE }),
    }
}

fn is_region(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_sign)
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
    fn tokens_are_a_source_where_they_are_built() {
        for (text, region) in [("rds:", None), ("rds:region=eu-west-1", Some("eu-west-1"))] {
            let parsed = PasswordSource::parse(text);
            let source = PasswordSource::Rds(region.map(str::to_owned));
            assert_eq!(source.write().as_deref(), Some(text));
            match cfg!(feature = "rds") {
                true => assert_eq!(parsed, Ok(source)),
                false => assert_eq!(parsed, Err(Invalid::NotBuilt { feature: "rds" })),
            }
        }
        for text in ["rds", "rds:eu-west-1", "rds:region=", "rds:region=a b"] {
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
