//! The report of a strict run: JUnit or JSON, as text, and how it gets into its file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde_json::json;

use super::findings::{Counted, FindingKind, Findings};
use super::link;

/// The text of a report, in the form that the file's ending asks for.
pub(super) fn text(path: &Path, findings: &Findings) -> String {
    match path.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("xml") => junit(findings),
        Some(_) | None => json(findings),
    }
}

/// Replaces the file as a whole: whoever reads it meanwhile reads the one before.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn json(findings: &Findings) -> String {
    let one = |counted: &Counted| {
        let Counted {
            finding,
            count,
            first,
            last,
        } = counted;
        json!({
            "kind": finding.kind.word(),
            "severity": severity(finding.kind),
            "text": finding.kind.what(),
            "statement": finding.statement,
            "detail": finding.detail,
            "database": &*finding.database,
            "user": &*finding.user,
            "application_name": &*finding.application,
            "address": finding.address,
            "count": count,
            "first": seconds(*first),
            "last": seconds(*last),
            "link": link(finding.kind),
        })
    };
    let (failures, warnings) = findings.severities();
    let counts = FindingKind::ALL.map(|kind| (kind.word().to_owned(), findings.count(kind).into()));
    let report = json!({
        "pgweir": env!("CARGO_PKG_VERSION"),
        "failures": failures,
        "warnings": warnings,
        "not_listed": findings.beyond(),
        "counts": counts.into_iter().collect::<serde_json::Map<_, _>>(),
        "findings": findings.all().iter().map(one).collect::<Vec<_>>(),
    });
    format!("{report:#}\n")
}

/// `error` or `warning`.
pub(crate) fn severity(kind: FindingKind) -> &'static str {
    match kind.fails() {
        true => "error",
        false => "warning",
    }
}

/// Every kind is a test that passes if nothing was found; every finding is one that fails.
fn junit(findings: &Findings) -> String {
    let clean = FindingKind::ALL
        .into_iter()
        .filter(|kind| findings.count(*kind) == 0);
    let mut cases: String = clean.map(passed).collect();
    cases.extend(findings.all().iter().map(case));
    let tests = cases.matches("<testcase ").count();
    let (failures, _) = findings.severities();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"pgweir\" tests=\"{tests}\" failures=\"{failures}\">\n\
         <testsuite name=\"pgweir --strict\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">\n\
         {cases}</testsuite>\n</testsuites>\n"
    )
}

fn passed(kind: FindingKind) -> String {
    let word = kind.word();
    format!("<testcase classname=\"pgweir.strict\" name=\"{word}\"/>\n")
}

fn case(counted: &Counted) -> String {
    let finding = &counted.finding;
    let (word, what) = (finding.kind.word(), finding.kind.what());
    let name = format!("{word}: {}: {}", finding.application, finding.statement);
    let text = format!(
        "{what}\n{}\nstatement: {}\ndatabase: {}\nuser: {}\napplication_name: {}\naddress: {}\ncount: {}\nsee {}\n",
        finding.detail,
        finding.statement,
        finding.database,
        finding.user,
        finding.application,
        finding.address,
        counted.count,
        link(finding.kind),
    );
    let (name, text) = (escaped(&name), escaped(&text));
    let said = match finding.kind.fails() {
        true => format!("<failure type=\"{word}\" message=\"{what}\">{text}</failure>"),
        false => format!("<system-out>{text}</system-out>"),
    };
    format!("<testcase classname=\"pgweir.strict.{word}\" name=\"{name}\">{said}</testcase>\n")
}

/// Text for XML 1.0, which has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "&#{};", c as u32);
            }
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::finding;
    use super::*;

    fn two() -> Findings {
        let (mut findings, now) = (Findings::default(), UNIX_EPOCH);
        let nasty = "set a = '<&\">\u{1}\n'";
        let first = finding(FindingKind::Settings, nasty);
        findings.note(first, String::new(), now);
        findings.note(finding(FindingKind::Startup, "jit"), String::new(), now);
        findings
    }

    #[test]
    fn a_report_ends_as_its_file_does() {
        let findings = Findings::default();
        assert!(text(Path::new("a.XML"), &findings).starts_with("<?xml"));
        assert!(text(Path::new("a"), &findings).starts_with('{'));
    }

    #[test]
    fn junit_has_a_test_per_clean_kind_and_per_finding() {
        let report = junit(&two());
        assert_eq!(report.matches("<testcase ").count(), 13);
        assert_eq!(report.matches("<failure ").count(), 1, "a warning is none");
        assert!(report.contains("tests=\"13\" failures=\"1\""));
        assert!(
            report.contains("set a = '&lt;&amp;&quot;&gt;?&#10;'"),
            "{report}"
        );
        assert_eq!(junit(&Findings::default()).matches("<failure").count(), 0);
    }

    #[test]
    fn json_says_what_and_how_often() {
        let report: serde_json::Value = serde_json::from_str(&json(&two())).expect("it is JSON");
        assert_eq!(report["failures"], 1);
        assert_eq!(report["warnings"], 1);
        assert_eq!(report["counts"]["settings"], 1);
        assert_eq!(report["counts"]["listen"], 0);
        assert_eq!(report["findings"][0]["kind"], "settings");
        assert_eq!(report["findings"][1]["severity"], "warning");
    }
}
