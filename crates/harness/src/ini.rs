//! The pooler's configuration file, as a test writes it.

use std::fmt;

use crate::cluster::Cluster;

/// A PgBouncer-style ini file with the files it names.
///
/// In every value and file, `{dir}` stands for the pooler's own directory. What a test does not set, such as the
/// port, [`Pooler::start`](crate::Pooler::start) adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ini {
    sections: Vec<Section>,
    files: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Section {
    /// Empty for what comes before the first header.
    name: String,
    lines: Vec<String>,
}

impl Ini {
    /// Every database of the cluster for the user `postgres`, without passwords, over TCP.
    pub fn in_front_of(cluster: &Cluster) -> Self {
        Self::default()
            .database("*", &format!("host=127.0.0.1 port={}", cluster.port()))
            .set("auth_type", "trust")
            .set("auth_file", "{dir}/userlist.txt")
            .set("admin_users", "postgres")
            .file("userlist.txt", "\"postgres\" \"\"\n")
    }

    /// Sets a key of `[pgbouncer]`.
    #[must_use]
    pub fn set(self, key: &str, value: impl fmt::Display) -> Self {
        self.line("pgbouncer", key, &value.to_string())
    }

    /// Sets a line of `[databases]`.
    #[must_use]
    pub fn database(self, name: &str, connection: &str) -> Self {
        self.line("databases", name, connection)
    }

    /// Sets a line of `[users]`.
    #[must_use]
    pub fn user(self, name: &str, settings: &str) -> Self {
        self.line("users", name, settings)
    }

    /// Sets the line of a key in any section, in place of the one it has.
    #[must_use]
    pub fn line(mut self, section: &str, key: &str, value: &str) -> Self {
        let line = format!("{key} = {value}");
        let lines = &mut self.section(section).lines;
        match lines.iter_mut().find(|line| key_of(line) == Some(key)) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
        self
    }

    /// A file that is written into the pooler's directory.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.retain(|(old, _)| old != name);
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// The value of a key of `[pgbouncer]`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let section = self
            .sections
            .iter()
            .find(|section| section.name == "pgbouncer")?;
        let line = section
            .lines
            .iter()
            .rfind(|line| key_of(line) == Some(key))?;
        line.split_once('=').map(|(_, value)| value.trim())
    }

    /// Sets a key of `[pgbouncer]` unless it is set.
    pub(crate) fn or_set(self, key: &str, value: impl fmt::Display) -> Self {
        if self.get(key).is_some() {
            self
        } else {
            self.set(key, value)
        }
    }

    pub(crate) fn files(&self) -> &[(String, String)] {
        &self.files
    }

    fn section(&mut self, name: &str) -> &mut Section {
        let at = self
            .sections
            .iter()
            .position(|section| section.name == name);
        let at = at.unwrap_or_else(|| {
            self.sections.push(Section {
                name: name.to_owned(),
                lines: Vec::new(),
            });
            self.sections.len() - 1
        });
        &mut self.sections[at]
    }
}

/// Takes the text of a whole file apart, so that the port can still be added to it.
impl From<&str> for Ini {
    fn from(text: &str) -> Self {
        let mut ini = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            match line
                .trim()
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                Some(name) => {
                    current = name.to_owned();
                    ini.section(name);
                }
                None => ini.section(&current).lines.push(line.to_owned()),
            }
        }
        ini
    }
}

impl fmt::Display for Ini {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            if !section.name.is_empty() {
                writeln!(f, "[{}]", section.name)?;
            }
            for line in &section.lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

fn key_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (key, _) = line.split_once('=')?;
    (!line.starts_with([';', '#'])).then(|| key.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_twice_stands_once() {
        let ini = Ini::default()
            .set("pool_mode", "session")
            .set("pool_mode", "transaction");
        assert_eq!(ini.to_string(), "[pgbouncer]\npool_mode = transaction\n");
    }

    #[test]
    fn a_text_comes_out_as_it_went_in() {
        let text =
            "; first\n[databases]\na = host=b\n\n[pgbouncer]\n;listen_port = 1\n%include x\n";
        assert_eq!(Ini::from(text).to_string(), text);
    }

    #[test]
    fn a_key_behind_a_comment_sign_is_not_set() {
        let ini = Ini::from("[pgbouncer]\n;listen_port = 1\n");
        assert_eq!(ini.get("listen_port"), None);
        assert_eq!(ini.or_set("listen_port", 7).get("listen_port"), Some("7"));
    }
}
