//! pgweir-pool
#![forbid(unsafe_code)]
