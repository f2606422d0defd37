//! pgweir-auth
#![forbid(unsafe_code)]
