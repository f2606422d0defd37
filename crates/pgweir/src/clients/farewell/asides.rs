//! What a client is told whose connection goes on, beyond refusals: the same in both dialects.

use std::borrow::Cow;
use std::time::Duration;

use pgweir_session::Kinds;
use pgweir_wire::{Severity, SqlState};

use super::Answer;
use crate::watch::strict::{self, FindingKind};

fn answer(severity: Severity, code: SqlState, text: impl Into<Cow<'static, str>>) -> Answer {
    Answer {
        severity,
        code,
        text: text.into(),
        detail: None,
        hint: None,
    }
}

/// `query_wait_notify`, in PgBouncer's words.
pub(crate) fn queued() -> Answer {
    let text = "No server connection available in postgres backend, client being queued";
    answer(Severity::Notice, SqlState::SUCCESSFUL_COMPLETION, text)
}

/// A cancel has reached a query that waits, in PostgreSQL's words.
pub(crate) fn canceled_while_waiting() -> Answer {
    let text = "canceling statement due to user request";
    Answer {
        detail: Some("It was waiting for a server and has not been run.".to_owned()),
        ..answer(Severity::Error, SqlState::QUERY_CANCELED, text)
    }
}

/// `leak_action = notice`
pub(crate) fn silent_too_long() -> Answer {
    let text = "this transaction has been idle for longer than leak_after";
    Answer {
        hint: Some("Others may be waiting for its server: COMMIT or ROLLBACK.".to_owned()),
        ..answer(Severity::Notice, SqlState::SUCCESSFUL_COMPLETION, text)
    }
}

/// `leak_action = rollback`, when the client goes on.
pub(crate) fn rolled_back() -> Answer {
    let code = SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
    let text = "the transaction was rolled back because it was idle (leak_action)";
    Answer {
        detail: Some("Nothing of this request has been run.".to_owned()),
        hint: Some("Retry the transaction as a whole, and do nothing slow in it.".to_owned()),
        ..answer(Severity::Error, code, text)
    }
}

/// `leak_action = cancel`
pub(crate) fn took_too_long(usual: Duration, took: Duration) -> Answer {
    let text = "canceling statement: it takes far longer than it normally does (leak_action)";
    let seconds = took.as_secs();
    Answer {
        detail: Some(format!(
            "It was canceled after {seconds} s; 99 of 100 such statements end within {usual:?}."
        )),
        hint: Some("It may have waited for a lock, or have another plan than usual.".to_owned()),
        ..answer(Severity::Error, SqlState::QUERY_CANCELED, text)
    }
}

/// `leak_action = rollback`, when the client goes on and on; in PostgreSQL's words.
pub(crate) fn still_failed() -> Answer {
    let text = "current transaction is aborted, commands ignored until end of transaction block";
    answer(Severity::Error, SqlState::IN_FAILED_SQL_TRANSACTION, text)
}

/// What the client had set is not there any more.
pub(crate) fn parameters_lost(reason: &str) -> Answer {
    let text = "parameters that were set in the session are lost";
    Answer {
        detail: Some(reason.to_owned()),
        ..answer(Severity::Warning, SqlState::WARNING, text)
    }
}

/// Why a client loses what binds a server to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost {
    /// Another client is to have the server.
    Needed,
    /// `state_policy`
    Policy,
    /// It is not known what there is.
    Unknown,
}

/// What bound a server to the client has been taken back.
pub(crate) fn state_taken_back(what: impl std::fmt::Display, lost: Lost) -> Answer {
    let text = format!("session state ends with the transaction: {what}");
    let why = match lost {
        Lost::Needed => {
            "Another client needs the server; max_pinned servers of a pool are spared that."
        }
        Lost::Policy => "It ends with the transaction (state_policy).",
        Lost::Unknown => "The server did not say what it is.",
    };
    Answer {
        detail: Some(why.to_owned()),
        ..answer(Severity::Warning, SqlState::WARNING, text)
    }
}

/// `state_policy`: a statement says that it leaves what is refused.
pub(crate) fn state_refused(kinds: Kinds) -> Answer {
    let text = format!("{kinds}: refused in this pooling mode");
    let detail = "The statement would leave it in the session of a server that others use, too.";
    let hint = "An operator has refused this kind (state_policy); use a database in session pooling for it.";
    Answer {
        detail: Some(detail.to_owned()),
        hint: Some(hint.to_owned()),
        ..answer(Severity::Error, SqlState::FEATURE_NOT_SUPPORTED, text)
    }
}

/// `state_policy`: a transaction has left what is kept, but not liked.
pub(crate) fn state_warned(kinds: Kinds) -> Answer {
    let text = format!("session state was left by the transaction: {kinds}");
    let detail = "It is kept for this client. Other poolers would lose it, or give it to others.";
    let hint = "An operator has asked for this warning (state_policy).";
    Answer {
        detail: Some(detail.to_owned()),
        hint: Some(hint.to_owned()),
        ..answer(Severity::Warning, SqlState::WARNING, text)
    }
}

/// A strict run has found something; `why` says what has not been run.
pub(crate) fn finding(kind: FindingKind, statement: &str, why: &str) -> Answer {
    let code = match kind {
        FindingKind::Leak | FindingKind::Hold => SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        _ => SqlState::FEATURE_NOT_SUPPORTED,
    };
    let text = format!("strict: {} ({})", kind.what(), kind.word());
    let detail = match statement.is_empty() {
        true => why.to_owned(),
        false => format!("Statement: {statement}\n{why}"),
    };
    Answer {
        detail: Some(detail),
        hint: Some(format!(
            "See {}; strict_allow silences it.",
            strict::link(kind)
        )),
        ..answer(Severity::Error, code, text)
    }
}
