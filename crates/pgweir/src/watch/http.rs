//! Metrics and health over HTTP, beside the pooling and never in its way: who may connect, how many
//! at once, and for how long.
//!
//! A scraper that is slow or rude costs one of a few connections for a few seconds, and there are
//! only so many in a second. Pages are written
//! by another thread, one at a time, and at most half of the time: whoever asks without end takes
//! half a processor and no more.

mod access;
mod answer;
mod format;
mod metrics;
mod status;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pgweir_config::{Config, Dialect, Endpoint, Settings};
use pgweir_net::{
    Accepted, Address, ListenOptions, Listener, Opened, Stream, TcpOptions, UnixPermissions,
    resolve_listen_address,
};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::shared::{Shared, Shutdown};

/// Connections of one listener. Who comes when there are so many takes the place of the oldest, which
/// is the slowest.
const CONNECTIONS_MAX: usize = 32;

/// Time between two connections, and for how long it may be ignored: a hundred in a second, and fifty
/// at once.
const PACE: Duration = Duration::from_millis(10);
const BURST: Duration = Duration::from_millis(500);

/// Connections that wait for their turn in the kernel.
const BACKLOG: u32 = 128;

/// How long a connection lives: for one request and its answer.
const CONNECTION_TIME: Duration = Duration::from_secs(15);

/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long the head of a request may be, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// How long to wait after an accept has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long another process may keep the address after it has handed over.
const TAKEOVER_TIME: Duration = Duration::from_secs(10);

/// What pages share.
#[derive(Debug)]
pub(crate) struct Http {
    /// Whoever writes a page has this, and begins not before the moment in it.
    lane: Arc<Mutex<Instant>>,
    /// How long the last metrics page took, in microseconds.
    last_us: AtomicU64,
}

impl Http {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            lane: Arc::new(Mutex::new(now)),
            last_us: AtomicU64::new(0),
        }
    }

    /// Our metrics as values, in their turn.
    #[cfg(feature = "otel")]
    pub(crate) async fn collect(
        &self,
        shared: &Arc<Shared>,
    ) -> Option<Vec<pgweir_stats::Collected>> {
        let shared = Arc::clone(shared);
        self.write(move || metrics::collect(&shared)).await
    }

    /// Has a page written, or another thing done that takes its time, in its turn, by another thread.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let mut free_at = Arc::clone(&self.lane).lock_owned().await;
        let pause = free_at.saturating_duration_since(Instant::now());
        sleep(pause).await;
        let written = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let page = write();
            *free_at = Instant::now() + begun.elapsed();
            page
        });
        written.await.ok()
    }
}

/// Opens every place of `metrics_listen`. Where nobody has asked for it, a place that is taken is none.
///
/// # Errors
/// The text for the log; the program cannot start.
pub(crate) fn open(config: &Config, tcp: TcpOptions) -> Result<Vec<Listener>, String> {
    let settings = &config.global;
    match bind(settings, tcp) {
        Err(text) if is_default(config) => {
            tracing::warn!("{text}; without metrics, because metrics_listen is not set");
            Ok(Vec::new())
        }
        opened => opened,
    }
}

/// Whether the places are those of a TOML file that names none.
fn is_default(config: &Config) -> bool {
    let default = Settings::defaults(Dialect::Toml).metrics_listen;
    config.dialect == Dialect::Toml && config.global.metrics_listen == default
}

fn bind(settings: &Settings, tcp: TcpOptions) -> Result<Vec<Listener>, String> {
    let options = ListenOptions {
        backlog: BACKLOG,
        reuse_port: false,
        tcp,
    };
    let mut listeners = Vec::new();
    for place in settings.metrics_listen.list() {
        let failed = |error: &dyn std::fmt::Display| format!("metrics_listen: {error}");
        match place {
            Endpoint::Tcp { host, port } => {
                let addresses = resolve_listen_address(host, *port)
                    .map_err(|error| failed(&format!("cannot resolve {host}: {error}")))?;
                for address in addresses {
                    let listener = Listener::bind_tcp(address, &options);
                    listeners.push(listener.map_err(|error| failed(&error))?);
                }
            }
            Endpoint::Unix(path) => {
                let permissions = UnixPermissions {
                    mode: settings.unix_socket_mode.0,
                    group: None,
                };
                let listener = Listener::bind_path(path, permissions, &options);
                listeners.push(listener.map_err(|error| failed(&error))?);
            }
        }
    }
    Ok(listeners)
}

/// Opens the places that another process has just left, or is about to.
pub(crate) async fn take_over(shared: Arc<Shared>) {
    let (begun, options) = (Instant::now(), shared.tcp_options());
    loop {
        match bind(&shared.config().global, options) {
            Ok(listeners) => {
                listeners
                    .into_iter()
                    .for_each(|listener| drop(start(&shared, listener)));
                return;
            }
            Err(text) if begun.elapsed() > TAKEOVER_TIME => {
                return tracing::error!("{text}; going on without metrics");
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Whether anybody is to be told how databases are.
pub(crate) fn is_on(settings: &Settings) -> bool {
    !settings.metrics_listen.list().is_empty()
}

/// Serves what connects to a listener, until the process ends: also while it waits for its clients.
pub(crate) fn start(shared: &Arc<Shared>, listener: Listener) -> JoinHandle<()> {
    tracing::info!("metrics on {}", listener.name());
    tokio::spawn(run(Arc::clone(shared), listener))
}

async fn run(shared: Arc<Shared>, listener: Listener) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    let mut next = Instant::now();
    loop {
        let changed = shared.operator.changed.notified();
        if shared.operator.shutdown() == Shutdown::Now {
            return listener.remove_file();
        }
        tokio::select! {
            () = changed => {}
            accepted = listener.accept() => match accepted.and_then(Accepted::open) {
                Ok(Opened { stream, peer, .. }) => {
                    connections.retain(|connection| !connection.is_finished());
                    if connections.len() >= CONNECTIONS_MAX && let Some(oldest) = connections.pop_front() {
                        oldest.abort();
                    }
                    let task = tokio::spawn(serve(Arc::clone(&shared), stream, peer));
                    connections.push_back(task.abort_handle());
                    sleep(pace(&mut next, Instant::now())).await;
                }
                Err(error) => {
                    tracing::error!("accept() failed on {}: {error}", listener.name());
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// How long to wait for the next connection, after one at `now`.
fn pace(next: &mut Instant, now: Instant) -> Duration {
    let earliest = now.checked_sub(BURST).unwrap_or(now);
    *next = earliest.max(*next) + PACE;
    next.saturating_duration_since(now)
}

/// One request and its answer.
async fn serve(shared: Arc<Shared>, stream: Stream, peer: Address) {
    let answer = service_fn(move |request| answer::to(Arc::clone(&shared), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("HTTP: {error}"),
        Err(_) => tracing::debug!("HTTP: a connection took too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_there_is_a_pace() {
        let start = Instant::now();
        let (mut next, mut now) = (start, start + 10 * BURST);
        let waits: Vec<Duration> = (0..60).map(|_| pace(&mut next, now)).collect();
        assert!(waits[..50].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[50], PACE);
        assert_eq!(waits[59], 10 * PACE);
        now += 10 * BURST;
        assert!(pace(&mut next, now).is_zero());
    }
}
