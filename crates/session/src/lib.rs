//! pgweir-session
#![forbid(unsafe_code)]
