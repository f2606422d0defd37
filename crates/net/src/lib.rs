//! pgweir-net
#![forbid(unsafe_code)]
