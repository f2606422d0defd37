//! `docs/metrics.md`: what is served over HTTP.

use std::fmt::Write as _;

use pgweir_stats::metrics::{
    self, BOUNDS_US, LEGACY_STATS, LEGACY_STATS_PREFIX, Metric, STATS_PREFIX,
};
use pgweir_stats::prometheus::Kind;
use pgweir_stats::{COUNTERS, Counter};

const INTRODUCTION: &str = "\
<!-- Written by `cargo xtask docs`: change the declarations, not this file. -->

# Metrics and health

`metrics_listen` says where they are served: `127.0.0.1:9127` in a TOML file, nowhere in an ini file. Addresses with
ports and paths of Unix sockets, divided by commas. Nobody is asked for a password but for the status, so keep it where
only monitoring gets to.

| path | what |
|---|---|
| `/metrics` | for Prometheus, in the text format 0.0.4, or in protobuf for who prefers that |
| `/livez` | 200 while the process works, 503 if its janitor has not come for ten seconds |
| `/readyz` | 200 if clients are served here, 503 if not, with the reasons; `?db=NAME` for one database |
| `/` | the status, for people: what holds clients back, the last 15 minutes, databases, leak suspects, applications, errors, limits; nothing can be changed there |
| `/status.json` | the same, for programs |

A connection is for one request and lives for 15 seconds at most. There are 32 of them for each address, and a hundred in
a second; who comes then takes the place of the oldest. Pages are written by a thread of their own, one at a time and at most half of the
time. They are there as long as the process is, also while it waits for its clients to leave.

## Status

On the machine itself everybody may see it, as long as `status_token` is empty. From elsewhere, and with a token
everywhere, it takes `Authorization: Bearer TOKEN`, or a browser's login with the token as the password, or with the name and
the password of an `admin_users` or `stats_users` who is in `auth_file`. Behind a proxy on the same machine, set a token. The page asks
nobody but the pooler for anything, and shows no statements.

## Ready

`/readyz` says 503 while the pooler is suspended or ends, and, as `ready_policy` has it, if no database works (`any`),
if one does not (`all`), or never because of databases (`process`). A database does not work if it is disabled, drained or
refused by MAINTENANCE, or if it has no server and the last login failed. One that is paused, or held by
MAINTENANCE, works: its clients wait here on purpose. None of it needs a client: a failed login is tried again, and a PostgreSQL
of which nobody has a server is called every `server_login_retry` seconds (every second while it does not answer); that
connection is closed without a word, which PostgreSQL does not log (unless `log_connections` is on) and which takes none of its
`max_connections`.

For Kubernetes: `livenessProbe` on `/livez`, `readinessProbe` on `/readyz`, with `metrics_listen = \"*:9127\"`. A
deployment, recording rules, alerts and a Grafana dashboard are in [deploy/](../deploy).

With `error_codes = postgres` a client whose database has been down for `server_down_timeout` is told `57P03` at once, before
it is asked for a password; so `pg_isready -d NAME` says *rejecting connections*.

## Names

`database` and `user` are those of the pool. Databases that are configured have their names; of those that come from `*`
the first 100 have, and of all pools the first 250. The rest is `other`. The series of a pool
ends when it is forgotten; what it has counted stays in the sums of its database and of `other`, which never fall. A database
from `*` that is dropped ends with its series. Labels that clients choose, and
SQLSTATEs that servers do, are bounded as well. In the families of applications the first 100 names have their own series; who
comes then is `other`, until a name has had no clients for an hour: its series end, and the next new name has its place.

Where PgBouncer had [pgbouncer_exporter](https://github.com/prometheus-community/pgbouncer_exporter), nothing else is
needed: the names, labels and units of its version 0.12 are on the page, and those of versions before 0.11 with
`metrics_legacy_names = 1`.

## Native histograms

A scraper whose `Accept` prefers `application/vnd.google.protobuf` (with `proto=io.prometheus.client.MetricFamily` and
`encoding=delimited`) gets the same page in that format. There every histogram has the bounds below and is a native histogram, too:
eight buckets for each doubling (schema 3), whatever the times are. Prometheus asks so with
`--enable-feature=native-histograms` (2.40 to 3.7) or `scrape_native_histograms: true` (3.8 and later). It then keeps the
native ones only and drops the `_bucket` series that the rules and the dashboard in [deploy/](../deploy) read; to have both, set
`scrape_classic_histograms: true` (`always_scrape_classic_histograms` from 3.0 on) for the job. A native one is asked for without
`_bucket` and `le`: `histogram_quantile(0.99, sum by (database) (rate(pgweir_client_wait_seconds[5m])))`.

## By OTLP

A pgweir with the cargo feature `otel` sends its own families, under these names, to `otel_endpoint` (`http://collector:4318`) every
`otel_period`: in JSON over HTTP, cumulative since the start, histograms exponential (native ones in Prometheus). A collector that
is away is said once.

## What clients wait for

`pgweir_client_wait_cause_seconds` has the waits by what kept the client from being served: `pool_size` (no server is idle and the
pool may have no more), another limit by its key, `login` (a server is on its way), `server_down` (the last login failed, and the
next comes in a while) or `paused`. A wait may have several causes one after the other: they are looked at when it begins and three
times per second from then on, and it counts under the one that lasted longest without a break. Waits that end with a refusal, a
time limit or a client that leaves count as well, and those of logins that wait for the first server of their pool; so there
can be more than in `pgweir_client_wait_seconds`, which has the waits that ended with a server, and the many of zero.
Replication connections, whose servers are theirs alone, are not in it.

";

/// The page.
pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("## pgweir's own\n\n");
    table(&mut page, metrics::own());
    let bounds = BOUNDS_US.iter().map(|&us| us as f64 / 1e6);
    let bounds: Vec<String> = bounds.map(|bound| bound.to_string()).collect();
    let _ = writeln!(
        page,
        "\nHistograms have the bounds {} seconds. Native ones have no bounds. Times are known to a sixteenth. `SHOW STATS_HIST` has percentiles of them.\n",
        bounds.join(", ")
    );
    page.push_str("## Those of pgbouncer_exporter\n\n");
    table(&mut page, metrics::exporter());
    page.push_str("\nFor each database, with the label `database`:\n\n| metric | before 0.11 | meaning |\n|---|---|---|\n");
    for counter in COUNTERS {
        exported(&mut page, counter);
    }
    page
}

fn table<'m>(page: &mut String, metrics: impl Iterator<Item = &'m Metric>) {
    page.push_str("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let (name, labels, help) = (metric.name, metric.labels.join(", "), metric.help);
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
    }
}

fn exported(page: &mut String, counter: &Counter) {
    let Some(suffix) = counter.exporter else {
        return;
    };
    let legacy = match LEGACY_STATS.contains(&counter.name) {
        true => format!("`{LEGACY_STATS_PREFIX}{suffix}`"),
        false => String::new(),
    };
    let help = counter.help;
    let _ = writeln!(page, "| `{STATS_PREFIX}{suffix}` | {legacy} | {help} |");
}
