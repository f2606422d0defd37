//! `connect_query`, and what it changes.

use bytes::{Bytes, BytesMut};
use pgweir_config::StartupParameters;
use pgweir_session::Parameters;
use pgweir_wire::read::Truncated;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, Reader, SizeLimits, frontend};

use super::connect_failure;
use super::opening::{Opening, Trouble};
use crate::clients::welcome::Welcome;

/// Parameters that have been set in this session, not by its startup message.
const SET_IN_SESSION: &str = "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
     WHERE source = 'session'";

impl Opening<'_> {
    /// Runs `connect_query`, whose errors are logged and do not matter. What it has set is what the
    /// pool's sessions have where no client requests something else.
    pub(super) async fn run_connect_query(
        &mut self,
        welcome: &mut Welcome,
    ) -> Result<Parameters, Trouble> {
        let mut defaults = Parameters::default();
        let Some(sql) = self.rules.database.keys.connect_query.clone() else {
            return Ok(defaults);
        };
        self.query("connect_query", &sql, welcome).await?;
        let global = &self.shared.config().global;
        if self.rules.keeps_private || global.startup_parameters == StartupParameters::Apply {
            for row in self.query("connect_query", SET_IN_SESSION, welcome).await? {
                if let Ok([name, setting]) = columns(&row).as_deref() {
                    defaults.set(name, setting);
                }
            }
        }
        Ok(defaults)
    }

    /// Runs a query, which the log calls `name`; its rows.
    pub(super) async fn query(
        &mut self,
        name: &str,
        sql: &str,
        welcome: &mut Welcome,
    ) -> Result<Vec<Bytes>, Trouble> {
        let mut out = BytesMut::new();
        frontend::query(&mut out, sql);
        self.send(&out).await?;
        let mut rows = Vec::new();
        loop {
            let talk = self.talk.as_mut().expect("connected");
            match talk.message(SizeLimits::HELD).await {
                Ok((tag::READY_FOR_QUERY, _)) => return Ok(rows),
                Ok((tag::ERROR_RESPONSE, body)) => {
                    let message =
                        String::from_utf8_lossy(ErrorFields::parse(&body).message).into_owned();
                    tracing::warn!(peer = %self.info, "error in {name}: {message}");
                }
                Ok((tag::PARAMETER_STATUS, body)) => self.note_parameter(&body, welcome)?,
                Ok((tag::DATA_ROW, body)) => rows.push(body),
                Ok(_) => {}
                Err(_) => return Err(connect_failure("server conn crashed?").into()),
            }
        }
    }
}

/// The texts of a row in which nothing is null.
pub(super) fn columns(row: &[u8]) -> Result<Vec<String>, Truncated> {
    let mut reader = Reader::new(row);
    let count = reader.i16()?;
    let mut column = || {
        let len = usize::try_from(reader.i32()?).map_err(|_| Truncated)?;
        reader
            .bytes(len)
            .map(|text| String::from_utf8_lossy(text).into_owned())
    };
    (0..count).map(|_| column()).collect()
}
