//! The first things anybody tries: one query, a benchmark, a look at the console.

use pgweir_tests::{
    Cluster, ClusterOptions, Ini, postgres_with_app, self_signed_tls, start, transaction_pooler,
};

#[test]
fn answers_a_query_in_transaction_mode() {
    let Some(postgres) = postgres_with_app() else {
        return;
    };
    let pooler = transaction_pooler(&postgres, 1);

    assert_eq!(pooler.psql("app", "postgres", "select 1"), "1");
    assert_eq!(
        pooler.psql("app", "postgres", "select current_database()"),
        "app"
    );
}

#[test]
fn two_clients_in_turn_share_one_server() {
    let Some(postgres) = postgres_with_app() else {
        return;
    };
    let pooler = transaction_pooler(&postgres, 1);

    let first = pooler.psql("app", "postgres", "select pg_backend_pid()");
    let second = pooler.psql("app", "postgres", "select pg_backend_pid()");

    assert_eq!(first, second);
    assert_eq!(postgres.backends(), 1);
}

#[test]
fn pgbench_runs_without_failures_with_simple_queries() {
    run_pgbench("simple");
}

#[test]
fn pgbench_runs_without_failures_with_extended_queries() {
    run_pgbench("extended");
}

#[test]
fn pgbench_runs_without_failures_with_prepared_statements() {
    run_pgbench("prepared");
}

#[test]
fn show_pools_has_the_columns_that_monitors_read() {
    let Some(postgres) = postgres_with_app() else {
        return;
    };
    let pooler = transaction_pooler(&postgres, 1);
    pooler.psql("app", "postgres", "select 1");

    let pools = pooler.console("SHOW POOLS");

    let app = pools
        .find("database", "app")
        .expect("a pool for the database that was used");
    assert_eq!(app.get("user"), Some("postgres"));
    assert_eq!(app.get("pool_mode"), Some("transaction"));
    assert_eq!((app.number("cl_active"), app.number("cl_waiting")), (0, 0));
    assert_eq!(
        (
            app.number("sv_active"),
            app.number("sv_idle") + app.number("sv_used")
        ),
        (0, 1)
    );
    assert_eq!((app.number("sv_login"), app.number("maxwait")), (0, 0));
}

#[test]
fn reload_takes_up_a_new_database() {
    let Some(postgres) = postgres_with_app() else {
        return;
    };
    let ini = Ini::in_front_of(&postgres).set("pool_mode", "transaction");
    let pooler = start(ini.clone());
    let target = format!("host=127.0.0.1 port={} dbname=app", postgres.port());

    pooler
        .reload(ini.database("alias", &target))
        .expect("RELOAD");

    assert_eq!(
        pooler.psql("alias", "postgres", "select current_database()"),
        "app"
    );
}

#[test]
fn the_way_to_postgresql_is_encrypted_where_that_is_required() {
    let options = ClusterOptions {
        tls: Some(self_signed_tls()),
        ..ClusterOptions::default()
    };
    let Some(postgres) = Cluster::start_or_skip(options) else {
        return;
    };
    let pooler = start(Ini::in_front_of(&postgres).set("server_tls_sslmode", "require"));

    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

    assert_eq!(pooler.psql("postgres", "postgres", encrypted), "t");
}

/// Twenty clients share five servers, and each of their transactions arrives in PostgreSQL once.
#[track_caller]
fn run_pgbench(mode: &str) {
    let Some(postgres) = postgres_with_app() else {
        return;
    };
    let pooler = transaction_pooler(&postgres, 5);
    postgres.pgbench("app", &["-i", "-q", "-s", "1"]);

    // A thread for each client: pgbench prepares with a blocking call, so a thread that prepares for a client
    // who waits for a server would not end the transaction of another of its clients, who has one.
    let run = pooler.pgbench("app", &["-M", mode, "-c", "20", "-j", "20", "-t", "50"]);

    assert_eq!(
        (run.transactions, run.failed),
        (20 * 50, 0),
        "{}",
        run.output
    );
    assert_eq!(
        postgres.psql("app", "select count(*) from pgbench_history"),
        "1000"
    );
    assert!(postgres.backends() <= 5, "{} backends", postgres.backends());
}
