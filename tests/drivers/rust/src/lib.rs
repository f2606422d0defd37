//! What the Rust clients share: steps that print a line each.

use std::time::{Duration, Instant};

/// Connections of a client's pool.
pub const CONNECTIONS: usize = 20;
/// Transactions that go through it.
pub const TRANSACTIONS: i32 = 200;

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs steps and remembers whether one failed.
#[derive(Debug, Default)]
pub struct Steps {
    failed: bool,
}

impl Steps {
    /// Runs one step to its end, or for a minute.
    pub async fn step(&mut self, name: &str, step: impl Future<Output = Result<(), Error>>) {
        let result = match tokio::time::timeout(Duration::from_secs(60), step).await {
            Ok(result) => result,
            Err(late) => Err(late.into()),
        };
        match result {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                self.failed = true;
                println!("FAIL {name}: {}", with_causes(&*error));
            }
        }
    }

    /// Ends the process.
    pub fn exit(self) -> ! {
        std::process::exit(self.failed.into())
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ").replace('\n', " ")
}

/// The value of a variable that `run` has set.
pub fn env(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; start this with tests/drivers/run"))
}

/// Fails unless both are the same.
pub fn equal<T: PartialEq + std::fmt::Debug>(expected: T, got: T) -> Result<(), Error> {
    if expected == got {
        return Ok(());
    }
    Err(format!("expected {expected:?}, got {got:?}").into())
}

/// Fails unless little time has passed since a query began that was cancelled.
pub fn cancelled_quickly(start: Instant) -> Result<(), Error> {
    match start.elapsed() {
        took if took < Duration::from_secs(8) => Ok(()),
        took => Err(format!("the cancel took {took:?}").into()),
    }
}
