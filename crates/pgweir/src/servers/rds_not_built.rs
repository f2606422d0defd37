//! Stands in for `rds.rs` in a build without the feature `rds`.

use pgweir_auth::Secret;

use crate::shared::PoolHome;

/// Nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Rds {}

impl Rds {
    /// There are no tokens. The configuration does not take such a source, either.
    #[expect(clippy::unused_async, reason = "as the real one")]
    pub(crate) async fn token(
        &self,
        _home: &PoolHome,
        _host: &str,
        _region: Option<&str>,
    ) -> Result<Secret, String> {
        Err("tokens of Amazon RDS are not in this build (build pgweir with the cargo feature \"rds\")".to_owned())
    }
}
