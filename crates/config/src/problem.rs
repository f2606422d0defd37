//! What is wrong with a configuration, where, and what may help.

use std::fmt;

/// Something that is wrong or doubtful in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; `None` if it is about the file as a whole.
    pub line: Option<usize>,
    /// Whether the file can be used nevertheless.
    pub severity: Severity,
    /// What is wrong, in PgBouncer's words where it has some.
    pub text: String,
    /// What may help.
    pub suggestion: Option<String>,
    /// The lines that PgBouncer logs after `text`, from the inside out.
    pub trail: Vec<String>,
}

/// Whether a file with a problem can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It can.
    Warning,
    /// It cannot.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// `FILE:LINE: error: TEXT (SUGGESTION)`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {}", self.severity, self.text)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " ({suggestion})"),
            None => Ok(()),
        }
    }
}

/// Where a problem is, and which setting it is about.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub(crate) file: String,
    pub(crate) line: Option<usize>,
    /// The name and the text of the setting that PgBouncer would name.
    pub(crate) setting: Option<(String, String)>,
}

impl Spot {
    pub(crate) fn file(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            setting: None,
        }
    }

    pub(crate) fn line(file: &str, line: usize) -> Self {
        Self {
            file: file.to_owned(),
            line: Some(line),
            setting: None,
        }
    }

    pub(crate) fn setting(file: &str, line: usize, name: &str, text: &str) -> Self {
        let setting = Some((name.to_owned(), text.to_owned()));
        Self {
            file: file.to_owned(),
            line: Some(line),
            setting,
        }
    }

    /// PgBouncer's line about the setting as a whole.
    fn invalid_value(&self) -> Option<String> {
        let (name, text) = self.setting.as_ref()?;
        // A connect string is not told if it may contain a password, also under a misspelt key.
        let lower = text.to_ascii_lowercase();
        let hidden = lower.contains("pas") || lower.contains("pwd");
        let text = if hidden { "****" } else { text };
        let (file, line) = (&self.file, self.line.unwrap_or_default());
        Some(format!(
            "invalid value \"{text}\" for parameter {name} in configuration ({file}:{line})"
        ))
    }
}

/// What is wrong, still without its place.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// `None` if PgBouncer says no more than that the value is invalid.
    pub(crate) text: Option<String>,
    pub(crate) suggestion: Option<String>,
}

impl Fault {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            suggestion: None,
        }
    }

    pub(crate) fn hint(mut self, suggestion: impl Into<Option<String>>) -> Self {
        self.suggestion = suggestion.into();
        self
    }
}

/// The reader gave up at an error.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Collects problems and decides whether reading goes on after one.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) problems: Vec<Problem>,
    goes_on: bool,
}

impl Report {
    /// For loading: the first error stops it.
    pub(crate) fn stopping() -> Self {
        Self {
            problems: Vec::new(),
            goes_on: false,
        }
    }

    /// For checking: all problems are wanted.
    pub(crate) fn collecting() -> Self {
        Self {
            problems: Vec::new(),
            goes_on: true,
        }
    }

    /// Whether doubtful things that PgBouncer accepts silently are wanted as well.
    pub(crate) fn is_checking(&self) -> bool {
        self.goes_on
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    pub(crate) fn error(&mut self, spot: &Spot, fault: Fault) -> Result<(), Stopped> {
        self.add(spot, fault, Severity::Error);
        if self.goes_on { Ok(()) } else { Err(Stopped) }
    }

    /// An error after which nothing sensible can be read.
    pub(crate) fn fatal(&mut self, spot: &Spot, fault: Fault) -> Stopped {
        self.add(spot, fault, Severity::Error);
        Stopped
    }

    pub(crate) fn warning(&mut self, spot: &Spot, fault: Fault) {
        self.add(spot, fault, Severity::Warning);
    }

    /// Adds PgBouncer's next line after the error that stopped the reader.
    pub(crate) fn follow_up(&mut self, line: String) {
        if let Some(problem) = self.problems.last_mut() {
            problem.trail.push(line);
        }
    }

    fn add(&mut self, spot: &Spot, fault: Fault, severity: Severity) {
        let invalid_value = spot.invalid_value();
        let (text, trail) = match (fault.text, invalid_value) {
            (Some(text), trail) => (text, trail),
            (None, Some(text)) => (text, None),
            (None, None) => ("invalid value".to_owned(), None),
        };
        let trail = if severity == Severity::Error {
            trail
        } else {
            None
        };
        self.problems.push(Problem {
            file: spot.file.clone(),
            line: spot.line,
            severity,
            text,
            suggestion: fault.suggestion,
            trail: trail.into_iter().collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line() {
        let mut report = Report::collecting();
        let spot = Spot::setting("a.ini", 3, "pol_mode", "x");
        let fault = Fault::new("unknown parameter: pgbouncer/pol_mode");
        report
            .error(&spot, fault.hint("did you mean \"pool_mode\"?".to_owned()))
            .expect("goes on");
        assert_eq!(
            report.problems[0].to_string(),
            "a.ini:3: error: unknown parameter: pgbouncer/pol_mode (did you mean \"pool_mode\"?)"
        );
        assert_eq!(
            report.problems[0].trail,
            ["invalid value \"x\" for parameter pol_mode in configuration (a.ini:3)"]
        );
    }

    #[test]
    fn connect_strings_with_passwords_are_not_told() {
        let mut report = Report::collecting();
        let spot = Spot::setting("a.ini", 3, "db", "pasword=hunter2 x=1");
        report.error(&spot, Fault::new("text")).expect("goes on");
        assert!(!format!("{:?}", report.problems).contains("hunter2"));
    }
}
