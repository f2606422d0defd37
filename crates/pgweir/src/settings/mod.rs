//! What the configuration means for what runs, and how it changes meanwhile: limits, certificates, users, overrides.

pub(crate) mod auth_files;
pub(crate) mod file_mark;
pub(crate) mod limits;
pub(crate) mod overrides;
pub(crate) mod preflight;
pub(crate) mod reload;
pub(crate) mod tls;
pub(crate) mod treatment;
