//! Stands in for `pam.rs` in a build without the feature `pam`, which needs libpam.

use pgweir_auth::Password;

/// Why this build cannot do it.
pub(crate) const NOT_BUILT: Option<&str> =
    Some("PAM is not in this build (build pgweir with the cargo feature \"pam\")");

/// Nothing is needed.
#[derive(Debug, Default)]
pub(crate) struct Pam {}

impl Pam {
    /// Nobody is let in.
    #[expect(clippy::unused_async, reason = "as the real one")]
    pub(crate) async fn check(
        &self,
        _user: &str,
        _password: &Password,
        _address: &str,
    ) -> Result<(), String> {
        Err(NOT_BUILT.unwrap_or_default().to_owned())
    }
}
