//! The harness itself against a real PostgreSQL: what tests rely on without saying so.

use pgweir_harness::{Cluster, ClusterOptions, Error, Ini, Pooler, Stop};

#[test]
fn a_cluster_obeys_its_options() {
    let options = ClusterOptions {
        max_connections: 17,
        hba: vec!["host all stranger 127.0.0.1/32 reject".to_owned()],
        conf: vec!["work_mem = '5MB'".to_owned()],
        tls: None,
        in_memory: false,
    };
    let Some(cluster) = Cluster::start_or_skip(options) else {
        return;
    };
    cluster.psql("postgres", "create role stranger login");

    assert_eq!(cluster.psql("postgres", "show max_connections"), "17");
    assert_eq!(cluster.psql("postgres", "show work_mem"), "5MB");
    let refused = cluster
        .endpoint()
        .psql("host=127.0.0.1 dbname=postgres", "stranger", "select 1");
    assert!(refused.is_err_and(|error| error.to_string().contains("pg_hba.conf rejects")));
}

#[test]
fn a_restart_keeps_port_and_data_even_after_a_crash() {
    let Some(mut cluster) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    let port = cluster.port();
    cluster.psql("postgres", "create table kept as select 42 as answer");

    cluster.stop(Stop::Immediate).expect("it runs");
    cluster.start_again().expect("its port is still free");
    cluster.restart().expect("it runs again");

    assert_eq!(cluster.port(), port);
    assert_eq!(cluster.psql("postgres", "select answer from kept"), "42");
}

#[test]
fn nothing_stays_behind() {
    let Some(cluster) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    let (dir, pid) = (
        cluster.socket_dir().to_owned(),
        cluster.pid().expect("it runs"),
    );

    drop(cluster);

    assert!(!dir.exists());
    assert!(pgweir_harness::rss(pid).is_err());
}

#[test]
fn a_pooler_that_cannot_start_is_named_with_its_last_words() {
    let Some(cluster) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    let says_why = "/bin/ls".as_ref();

    match Pooler::start_binary(
        says_why,
        Ini::in_front_of(&cluster).set("pool_mode", "session"),
    ) {
        Err(Error::Exited { name, tail, .. }) => {
            assert_eq!(name, "ls");
            assert!(tail.contains("pgweir.ini"), "{tail}");
        }
        other => panic!("{other:?}"),
    }
}
