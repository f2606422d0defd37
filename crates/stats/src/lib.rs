//! pgweir-stats
#![forbid(unsafe_code)]
