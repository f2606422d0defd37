//! pgweir-sim
#![forbid(unsafe_code)]
