//! pgweir-harness
