//! Requests that come whether or not the earlier ones have been answered.
//!
//! A closed loop (every client asks again when it has its answer) cannot show what happens beyond capacity: it slows
//! down with the server. Here requests are due at fixed times, and what they wait for counts from then on.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{client::Client, report::Outcome};

const SCRATCH_LEN: usize = 4 * 1024;

/// Threads do little but wait.
const STACK_LEN: usize = 128 * 1024;

/// What is asked, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// On 127.0.0.1.
    pub port: u16,
    /// One statement.
    pub sql: &'a str,
    /// Connections that are logged in before it begins. If all are busy, requests wait for one of them.
    pub connections: usize,
    /// Requests per second. Zero is a closed loop: as many as there are connections are under way all the time.
    pub rate: u32,
    /// Threads that try to log in beside them, again and again, and are refused.
    pub knocking: usize,
    /// For how long requests become due.
    pub time: Duration,
}

/// What has become of one request.
struct Answer {
    latency: Duration,
    /// The server's error, if it was one.
    error: Option<String>,
}

impl Demand<'_> {
    /// Asks until the time is over, and waits for all answers.
    ///
    /// # Errors
    /// If a connection cannot be opened, or is closed.
    pub fn run(&self) -> io::Result<Outcome> {
        let mut scratch = vec![0; SCRATCH_LEN];
        let clients = (0..self.connections)
            .map(|_| Client::connect(self.port, &mut scratch))
            .collect::<io::Result<Vec<_>>>()?;
        let due = Due::default();
        let start = Instant::now();
        let end = start + self.time;
        let answers = thread::scope(|scope| {
            let workers = clients.into_iter().map(|client| {
                let builder = thread::Builder::new().stack_size(STACK_LEN);
                let work = || match self.rate {
                    0 => ask(client, self.sql, || {
                        Some(Instant::now()).filter(|now| *now < end)
                    }),
                    _ => ask(client, self.sql, || due.next()),
                };
                builder.spawn_scoped(scope, work)
            });
            let knocking = (0..self.knocking).map(|_| {
                let builder = thread::Builder::new().stack_size(STACK_LEN);
                builder.spawn_scoped(scope, || knock(self.port, end))
            });
            let workers = workers.chain(knocking).collect::<io::Result<Vec<_>>>();
            if self.rate > 0 {
                due.fill(start, self.rate, end);
            }
            let mut answers = Vec::new();
            for worker in workers? {
                let panicked = |_| io::Error::other("a thread has panicked");
                answers.extend(worker.join().map_err(panicked)??);
            }
            Ok::<_, io::Error>(answers)
        })?;
        Ok(summary(answers, start.elapsed()))
    }
}

fn ask(
    mut client: Client,
    sql: &str,
    next: impl Fn() -> Option<Instant>,
) -> io::Result<Vec<Answer>> {
    let mut scratch = vec![0; SCRATCH_LEN];
    let mut answers = Vec::new();
    while let Some(due) = next() {
        let error = match client.query(sql, &mut scratch) {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::Other => {
                client.read_until_quiet(&mut scratch)?;
                Some(error.to_string())
            }
            Err(error) => return Err(error),
        };
        answers.push(Answer {
            latency: due.elapsed(),
            error,
        });
    }
    Ok(answers)
}

/// Between two attempts to log in.
const KNOCKS: Duration = Duration::from_millis(5);

/// Tries to log in until the time is over. What is not refused ends it.
fn knock(port: u16, end: Instant) -> io::Result<Vec<Answer>> {
    let mut scratch = vec![0; SCRATCH_LEN];
    let mut answers = Vec::new();
    while Instant::now() < end {
        let due = Instant::now();
        let error = match Client::connect(port, &mut scratch) {
            // Others have left already.
            Ok(_) if Instant::now() >= end => break,
            Ok(_) => return Err(io::Error::other("a login was not refused")),
            Err(error) if error.kind() == ErrorKind::Other => error.to_string(),
            Err(error) => return Err(error),
        };
        answers.push(Answer {
            latency: due.elapsed(),
            error: Some(error),
        });
        thread::sleep(KNOCKS);
    }
    Ok(answers)
}

/// Requests that are due and that nobody has sent yet.
#[derive(Default)]
struct Due {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    due: VecDeque<Instant>,
    is_over: bool,
}

impl Due {
    /// Makes requests due at their times.
    fn fill(&self, start: Instant, rate: u32, end: Instant) {
        let mut at = start;
        while at < end {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            // What was slept through is due as well.
            while at <= Instant::now() && at < end {
                queue.due.push_back(at);
                self.changed.notify_one();
                at += Duration::from_secs(1) / rate;
            }
        }
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_over = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Instant> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |queue: &mut Queue| queue.due.is_empty() && !queue.is_over;
        let queue = self.changed.wait_while(queue, idle);
        queue
            .unwrap_or_else(PoisonError::into_inner)
            .due
            .pop_front()
    }
}

fn summary(answers: Vec<Answer>, time: Duration) -> Outcome {
    let latencies = |failed: bool| -> Vec<Duration> {
        let some = answers
            .iter()
            .filter(|answer| answer.error.is_some() == failed);
        let mut latencies: Vec<_> = some.map(|answer| answer.latency).collect();
        latencies.sort_unstable();
        latencies
    };
    let (served, refused) = (latencies(false), latencies(true));
    Outcome {
        seconds: time.as_secs_f64(),
        served: served.len() as u64,
        refused: refused.len() as u64,
        served_p50_ms: quantile(&served, 50),
        served_p99_ms: quantile(&served, 99),
        refused_p50_ms: quantile(&refused, 50),
        refused_p99_ms: quantile(&refused, 99),
        error: answers.into_iter().find_map(|answer| answer.error),
    }
}

/// A percentile in milliseconds; zero of nothing.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(0.0, |latency| 1000.0 * latency.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_those_that_are_there() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(
            (quantile(&sorted, 50), quantile(&sorted, 99)),
            (101.0, 199.0)
        );
        assert_eq!((quantile(&[], 99), quantile(&sorted[..1], 99)), (0.0, 1.0));
    }

    #[test]
    fn requests_are_due_at_their_times() {
        let due = Due::default();
        let start = Instant::now();
        due.fill(start, 1000, start + Duration::from_millis(20));
        let times: Vec<_> = std::iter::from_fn(|| due.next()).collect();
        let expected: Vec<_> = (0..20)
            .map(|ms| start + Duration::from_millis(ms))
            .collect();
        assert_eq!(times, expected);
    }
}
