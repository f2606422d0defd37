//! Whole lives of clients, the pooler and a fake PostgreSQL: every law holds, in any crowd and any trouble.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use pgweir_sim::{Plan, live};

fuzz_target!(|input: (u64, u8, u8, bool, bool)| {
    let (seed, clients, episodes, trouble, crowded) = input;
    let plan = Plan {
        seed,
        clients: 1 + usize::from(clients % 32),
        episodes: 1 + u32::from(episodes % 12),
        trouble,
        crowded,
    };
    if let Some(broken) = live(&plan, Instant::now(), false).broken {
        panic!("{plan:?}: {broken}");
    }
});
