//! ROTATE: reads a user's secrets where they stand now, tries them at PostgreSQL, and says what has become
//! of them. It never shows one.

use std::sync::Arc;
use std::time::Instant;

use pgweir_auth::ServerSecret;
use pgweir_console::CommandError;
use pgweir_console::tables::DiagnosisRow;

use crate::operators::diagnose::{self, failed, info};
use crate::servers::control;
use crate::servers::open::secret::{self, Found};
use crate::settings::auth_files;
use crate::shared::{PoolHome, Shared, lock};

/// Carries the order out.
pub(crate) async fn rows(
    shared: &Arc<Shared>,
    database: &str,
    user: Option<&str>,
) -> Result<Vec<DiagnosisRow>, CommandError> {
    let home = diagnose::home(shared, database, user)?;
    let rules = home.rules();
    let begun = Instant::now();
    let before = lock(&home.proven_secret).clone();
    auth_files::read_again(shared);
    let found = match secret::known(shared, &home, &rules, rules.first_host(), Some(begun)).await {
        Ok(found) => found,
        Err(reason) => return Ok(vec![failed("secret", reason), not_taken(&home)]),
    };
    let mut rows: Vec<_> = found
        .iter()
        .map(|found| info("secret", compared(found, before.as_ref())))
        .collect();
    let (opened, diary) = control::open(shared, &home).await;
    rows.extend(diary.entries().iter().map(diagnose::step));
    match opened {
        Ok(_) => {
            // Clients need not wait for the next attempt, which now works.
            shared.pools().try_again(home.id);
            rows.push(taken(&home, &found, before.as_ref()));
        }
        Err(why) => {
            if diary.failure().is_none() {
                rows.push(failed("permit", why));
            }
            rows.push(not_taken(&home));
        }
    }
    Ok(rows)
}

fn compared(found: &Found, before: Option<&ServerSecret>) -> String {
    let what = found.described();
    match before {
        None => format!("{what}, of which PostgreSQL has taken none yet"),
        Some(before) if *before == found.secret => {
            format!("{what}, the one that PostgreSQL took the last time")
        }
        Some(_) => format!("{what}, another one than PostgreSQL took the last time"),
    }
}

fn taken(home: &PoolHome, found: &[Found], before: Option<&ServerSecret>) -> DiagnosisRow {
    let proven = lock(&home.proven_secret).clone();
    let which = found
        .iter()
        .find(|found| Some(&found.secret) == proven.as_ref());
    let which = which.map_or_else(|| "what the pooler has".to_owned(), Found::described);
    let news = match before {
        Some(before) if Some(before) != proven.as_ref() => ", which is new",
        Some(_) | None => "",
    };
    let user = &home.name.user;
    DiagnosisRow {
        outcome: "ok",
        ..info(
            "rotate",
            format!("PostgreSQL takes {which}{news}, for user {user}"),
        )
    }
}

fn not_taken(home: &PoolHome) -> DiagnosisRow {
    let text = format!(
        "nothing that the pooler has lets it in as {}",
        home.name.user
    );
    failed("rotate", text)
}
