//! pgweir-wire
#![forbid(unsafe_code)]
