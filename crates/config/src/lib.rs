//! pgweir-config
#![forbid(unsafe_code)]
