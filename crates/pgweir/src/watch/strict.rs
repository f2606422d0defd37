//! A strict run (`strict = 1`, `--strict`): what would go wrong behind a pooler sooner or later is an error at
//! once, is remembered with its statement, and fails the run. For tests, not for production.
//!
//! What is looked for is found elsewhere: by the text of statements and by looks at sessions (`relay/apart.rs`),
//! by the looks at leases (`leaks`), and where clients leave (`serve`).

mod findings;
mod report;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use pgweir_config::Settings;
use pgweir_session::residue::Kinds;
use pgweir_session::{Case, Said, normalized};
use tokio::sync::Notify;

pub(crate) use self::findings::{Counted, Finding, FindingKind, Findings};
pub(crate) use self::report::severity;
pub(crate) use self::watch::{Holds, look_at_holds, suspected};
use crate::clients::client::{Client, Identity};
use crate::clients::farewell::{Answer, Farewell, asides};
use crate::settings::treatment::Treatment;
use crate::shared::{Shared, lock};
use crate::watch::leaks;

/// How often the report is written at most.
const WRITTEN_EVERY: Duration = Duration::from_millis(100);

/// The exit code of a run that has found something.
pub(crate) const EXIT_CODE: u8 = 3;

/// What a strict run needs to remember.
#[derive(Debug)]
pub(crate) struct Strict {
    findings: Mutex<Findings>,
    holds: Mutex<Holds>,
    report: Option<PathBuf>,
    /// Rung when something was found.
    changed: Notify,
}

impl Strict {
    /// Nothing, unless the run is a strict one.
    pub(crate) fn of(settings: &Settings) -> Option<Box<Self>> {
        let report = Some(&settings.strict_report).filter(|path| !path.is_empty());
        settings.strict.then(|| {
            Box::new(Self {
                findings: Mutex::default(),
                holds: Mutex::default(),
                report: report.map(PathBuf::from),
                changed: Notify::new(),
            })
        })
    }

    /// All that was found so far.
    pub(crate) fn findings(&self) -> Findings {
        lock(&self.findings).clone()
    }

    /// Writes the report, if there is to be one.
    ///
    /// # Errors
    /// It cannot be written.
    fn write(&self) -> Result<(), String> {
        let Some(path) = &self.report else {
            return Ok(());
        };
        let text = report::text(path, &lock(&self.findings));
        let written = report::write(path, &text);
        written.map_err(|error| format!("cannot write strict_report {}: {error}", path.display()))
    }
}

/// Where a kind of finding is explained.
pub(crate) fn link(kind: FindingKind) -> String {
    let page = match env!("CARGO_PKG_REPOSITORY") {
        "" => "docs/strict.md".to_owned(),
        repository => format!("{repository}/blob/main/docs/strict.md"),
    };
    format!("{page}#{}", kind.word())
}

/// Begins a strict run, if it is one: writes a report in which nothing was found.
///
/// # Errors
/// The report cannot be written.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), String> {
    let Some(strict) = &shared.strict else {
        return Ok(());
    };
    strict.write()?;
    tracing::warn!("strict run, which is for tests: what goes wrong behind a pooler is an error");
    tokio::spawn(keep_report(Arc::clone(shared)));
    Ok(())
}

/// Writes the report whenever something was found, so that it is there however the process ends.
async fn keep_report(shared: Arc<Shared>) {
    loop {
        if let Some(strict) = &shared.strict {
            strict.changed.notified().await;
        }
        let shared = Arc::clone(&shared);
        let written = tokio::task::spawn_blocking(move || match &shared.strict {
            Some(strict) => strict.write(),
            None => Ok(()),
        });
        if let Ok(Err(error)) = written.await {
            tracing::error!("{error}");
        }
        tokio::time::sleep(WRITTEN_EVERY).await;
    }
}

/// Ends a strict run: the report is written once more. Whether the run has failed.
pub(crate) fn finish(shared: &Shared) -> bool {
    let Some(strict) = &shared.strict else {
        return false;
    };
    if let Err(error) = strict.write() {
        tracing::error!("{error}");
    }
    let (failures, warnings) = strict.findings().severities();
    tracing::info!("strict run: {failures} findings and {warnings} warnings");
    failures > 0
}

/// Enters something that a client has done, unless that is allowed. The statement as it is to be shown; `None`:
/// nothing is wrong.
pub(crate) fn note(
    shared: &Shared,
    client: &Client,
    kind: FindingKind,
    statement: &[u8],
    detail: &str,
) -> Option<String> {
    shared.strict.as_ref()?;
    let application = Arc::clone(&client.state().application_name);
    let (database, user) = match client.identity.get() {
        Some(Identity { database, user }) => (Arc::clone(database), Arc::clone(user)),
        None => ("".into(), "".into()),
    };
    let shown = leaks::shown(&shared.config(), statement);
    let finding = Finding {
        kind,
        database,
        user,
        application,
        address: client.address.to_string(),
        statement: shown.clone(),
        detail: detail.to_owned(),
    };
    enter(shared, finding, statement, &client.to_string()).then_some(shown)
}

/// Enters a finding, unless it is allowed, which is `false`.
fn enter(shared: &Shared, finding: Finding, statement: &[u8], peer: &str) -> bool {
    let Some(strict) = &shared.strict else {
        return false;
    };
    let kind = finding.kind;
    let allow = &shared.config().global.strict_allow;
    if allow.covers(kind.word(), &finding.application) {
        return false;
    }
    let (app, shown) = (Arc::clone(&finding.application), finding.statement.clone());
    let (print, now) = (normalized(statement), SystemTime::now());
    if lock(&strict.findings).note(finding, print, now) {
        let (word, what) = (kind.word(), kind.what());
        tracing::warn!(
            peer,
            "strict: {word}: {what}: app={app} statement=\"{shown}\""
        );
    }
    strict.changed.notify_one();
    true
}

/// Kinds of state, each with its kind of finding, which goes by the same word.
fn findings_of(kinds: Kinds) -> impl Iterator<Item = (Kinds, FindingKind)> {
    let all = FindingKind::ALL.into_iter();
    let state = all.filter_map(|finding| Some((Kinds::by_word(finding.word())?, finding)));
    state.filter(move |(kind, _)| kinds.has(*kind))
}

/// Judges a statement that would surely leave something, or asks for what is not there for sure. What is less
/// sure is decided when its transaction has ended.
pub(crate) fn judge(
    shared: &Shared,
    client: &Client,
    treatment: Treatment,
    case: &Case<'_>,
) -> Option<Answer> {
    if !treatment.is_strict || !case.runs || !case.stays {
        return None;
    }
    let detail = "It is alone in its transaction. It has not been run.";
    let kinds = case.kinds.without(treatment.allowed);
    let mut found: Vec<_> = findings_of(kinds).map(|(_, kind)| kind).collect();
    if case.asks_drawn {
        found.push(FindingKind::Sequence);
    }
    let noted = found.into_iter().filter_map(|kind| {
        let shown = note(shared, client, kind, case.text, detail)?;
        Some(asides::finding(
            kind,
            &shown,
            "The statement has not been run.",
        ))
    });
    // All of them are entered, and the client is told of the first.
    noted.collect::<Vec<_>>().into_iter().next()
}

/// What a transaction has left although no single text was sure to: which kinds of it are no good, and what the
/// client is told when it asks for something else.
pub(crate) fn examine(
    shared: &Shared,
    client: &Client,
    left: Kinds,
    said: &[Said],
    names: &str,
) -> (Kinds, Option<Answer>) {
    let (mut caught, mut first) = (Kinds::NONE, None);
    for (kind, finding) in findings_of(left) {
        let statement = statement_of(kind, said);
        let detail = match kind.has(Kinds::SETTINGS) && !names.is_empty() {
            true => format!("It was there when the transaction had ended: {names}."),
            false => "It was there when the transaction had ended.".to_owned(),
        };
        let Some(shown) = note(shared, client, finding, &statement, &detail) else {
            continue;
        };
        caught.add(kind);
        let why = "The transaction before this request has left it. Nothing of this request has been run.";
        first.get_or_insert_with(|| asides::finding(finding, &shown, why));
    }
    (caught, first)
}

/// Which statement has left something, as far as the texts say: those that announce it, or all that can have.
fn statement_of(kind: Kinds, said: &[Said]) -> Vec<u8> {
    let announced: Vec<_> = said.iter().filter(|(kinds, _)| kinds.has(kind)).collect();
    let candidates: Vec<&[u8]> = match announced.is_empty() {
        false => announced.into_iter().map(|(_, text)| &**text).collect(),
        true => said.iter().map(|(_, text)| &**text).collect(),
    };
    candidates.join(&b"; "[..])
}

/// What a client did that is sent away for it.
fn fault(farewell: &Farewell) -> Option<(FindingKind, &[u8])> {
    match farewell {
        Farewell::TransactionInStatementMode => Some((FindingKind::Unsupported, b"BEGIN")),
        Farewell::Violation(violation) if violation.is_clients() => {
            Some((FindingKind::Unsupported, b""))
        }
        Farewell::Parameter(name) | Farewell::ParameterInOptions(name) => {
            Some((FindingKind::Startup, name.as_bytes()))
        }
        _ => None,
    }
}

/// A client leaves, or is sent away.
pub(crate) fn note_farewell(shared: &Shared, client: &Client, farewell: &Farewell) {
    if let Some((kind, statement)) = fault(farewell) {
        let detail = match farewell {
            Farewell::Violation(violation) => violation.to_string(),
            other => other.reason().into_owned(),
        };
        note(shared, client, kind, statement, &detail);
    }
}

/// Where a client that is sent away can read more, in a strict run.
pub(crate) fn hint(shared: &Shared, farewell: &Farewell) -> Option<String> {
    shared.strict.as_ref()?;
    fault(farewell).map(|(kind, _)| format!("See {}.", link(kind)))
}

/// A client has closed its connection while its transaction was open.
pub(crate) fn note_abandoned(
    shared: &Shared,
    client: &Client,
    farewell: &Farewell,
    last_statement: &[u8],
) {
    let detail = match farewell {
        Farewell::ClientClosed => "It said Terminate.",
        Farewell::ClientGone => "It closed the socket without Terminate.",
        _ => return,
    };
    note(
        shared,
        client,
        FindingKind::Abandoned,
        last_statement,
        detail,
    );
}

/// Parameters of a startup message that PgBouncer would refuse.
pub(crate) fn note_startup<'a>(
    shared: &Shared,
    client: &Client,
    names: impl Iterator<Item = &'a str>,
) {
    for name in names {
        let detail = "PgBouncer would refuse the login (ignore_startup_parameters).";
        note(
            shared,
            client,
            FindingKind::Startup,
            name.as_bytes(),
            detail,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_state_has_a_finding() {
        let kinds = findings_of(Kinds::ALL).map(|(kind, _)| kind);
        assert_eq!(kinds.fold(Kinds::NONE, Kinds::union), Kinds::ALL);
        assert_eq!(findings_of(Kinds::NONE).next(), None);
    }
}
