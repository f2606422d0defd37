//! Many lives, one after the other; the first that breaks a law is told, as small as it gets.

use std::time::Instant;

use pgweir_sim::{Plan, live};

/// Lives in an ordinary run: a few seconds.
const SEEDS: u64 = 400;

#[test]
fn no_life_breaks_a_law() {
    if let Some(seed) = number("PGWEIR_SIM_SEED") {
        return tell(&Plan::new(seed));
    }
    for seed in 0..number("PGWEIR_SIM_SEEDS").unwrap_or(SEEDS) {
        if live(&Plan::new(seed), Instant::now(), false)
            .broken
            .is_some()
        {
            tell(&Plan::new(seed));
        }
    }
}

/// Tells a life; one that breaks a law is made as small as possible first.
fn tell(plan: &Plan) {
    let mut smaller = plan.smaller().into_iter();
    let smallest = smaller.find(|plan| live(plan, Instant::now(), false).broken.is_some());
    let plan = smallest.unwrap_or_else(|| plan.clone());
    let outcome = live(&plan, Instant::now(), true);
    for line in &outcome.trace {
        eprintln!("{line}");
    }
    eprintln!(
        "{plan:?}: {} events in {:?}",
        outcome.events, outcome.lasted
    );
    if let Some(broken) = outcome.broken {
        panic!("PGWEIR_SIM_SEED={}: {broken}", plan.seed);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
