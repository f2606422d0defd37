//! pgweir-console
#![forbid(unsafe_code)]
