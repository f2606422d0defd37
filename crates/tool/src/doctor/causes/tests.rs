//! Every incident as tables, and what has to be named first.

use super::*;
use crate::testing::table;

const POOLS: &str = "database user cl_active cl_waiting sv_active sv_idle maxwait maxwait_us\n";
const HOLDERS: &str =
    "client_id database user application_name addr server_pid state held_ms silent_ms\n";
const WHY: &str = "kind waiting server_pid client_id application_name last_statement text\n";

/// All is well.
fn well() -> Evidence {
    Evidence {
        host: Some("db:5432".to_owned()),
        diagnosis: table(
            "step outcome us detail\n\
             target info - database~shop~at~db:5432~as~user~bob,~with~a~password~from~the~auth_file\n\
             dns ok 100 db~is~10.0.0.1\ntcp ok 200 10.0.0.1:5432\nauth ok 900 as~bob\nquery ok 300 PostgreSQL~15\n\
             sessions info - PostgreSQL~has~12~of~100~connections~in~use~(3~reserved):~10~from~this~pooler,~2~from~elsewhere",
        ),
        pools: table(&format!("{POOLS}shop bob 5 0 2 3 0 0")),
        client: table("step outcome us detail\ntcp ok 10 x\nauth ok 10 x\nquery ok 10 x"),
        ..Evidence::default()
    }
}

/// Clients wait in a pool whose three servers are in use.
fn crowd() -> Evidence {
    Evidence {
        pools: table(&format!("{POOLS}shop bob 3 9 3 0 7 0")),
        budget: table("name subject used limit binding\npool_size shop/bob 3 3 yes"),
        ..well()
    }
}

fn names(evidence: &Evidence) -> Vec<&'static str> {
    find(evidence).iter().map(|cause| cause.name).collect()
}

fn first(evidence: &Evidence) -> Cause {
    find(evidence)
        .into_iter()
        .next()
        .expect("something is wrong")
}

fn failing(step: &str, detail: &str) -> Evidence {
    Evidence {
        diagnosis: table(&format!(
            "step outcome us detail\n{step} failed 10 {detail}"
        )),
        ..well()
    }
}

#[test]
fn nothing_is_wrong_where_nothing_is() {
    assert_eq!(names(&well()), Vec::<&str>::new());
    let short = Evidence {
        pools: table(&format!("{POOLS}shop bob 5 1 2 0 0 3000")),
        ..well()
    };
    assert_eq!(names(&short), Vec::<&str>::new());
}

#[test]
fn the_step_that_fails_names_the_cause() {
    for (step, detail, name) in [
        ("dns", "db~has~no~address", "dns"),
        (
            "tcp",
            "cannot~connect:~connect:~Connection~refused",
            "postgres_down",
        ),
        ("tcp", "no~answer~within~15.0~s", "unreachable"),
        (
            "tls",
            "certificate~verify~failed:~certificate~has~expired",
            "certificate_expired",
        ),
        (
            "tls",
            "certificate~verify~failed:~no~trusted~certificate~signed~it",
            "certificate_unknown",
        ),
        (
            "auth",
            "password~authentication~failed~for~user~\"bob\"~(28P01)",
            "password",
        ),
        ("auth", "no~pg_hba.conf~entry~for~host~(28000)", "pg_hba"),
        (
            "auth",
            "the~database~system~is~starting~up~(57P03)",
            "starting",
        ),
        ("role", "server~is~not~in~hot~standby~mode", "role"),
        (
            "auth",
            "too~many~connections~for~role~\"bob\"~(53300)",
            "role_limit",
        ),
        (
            "auth",
            "sorry,~too~many~clients~already~(53300)",
            "foreign_sessions",
        ),
    ] {
        let cause = first(&failing(step, detail));
        assert_eq!(cause.name, name, "{step} {detail}");
        assert!(!cause.next.is_empty());
    }
}

#[test]
fn foreign_sessions_are_named_where_postgres_could_be_asked() {
    let mut evidence = failing("auth", "sorry,~too~many~clients~already~(53300)");
    let sessions = table(
        "step outcome us detail\n\
         sessions info - PostgreSQL~has~100~of~100~connections~in~use~(3~reserved):~4~from~this~pooler,~96~from~\
         elsewhere:~90~of~application~cron,~user~ann",
    );
    evidence.diagnosis.cells.extend(sessions.cells);
    let cause = first(&evidence);
    assert_eq!(cause.name, "foreign_sessions");
    assert!(
        cause
            .evidence
            .iter()
            .any(|line| line.contains("90 of application cron"))
    );
    assert!(
        cause
            .evidence
            .iter()
            .any(|line| line.contains("4 connections of PostgreSQL's 100"))
    );
    // The same numbers with the pooler's own share turned round.
    let own = "PostgreSQL has 100 of 100 connections in use (3 reserved): 96 from this pooler, 4 from elsewhere";
    let last = evidence.diagnosis.cells.last_mut().expect("just added");
    last[3] = Some(own.to_owned());
    assert_eq!(first(&evidence).name, "over_budget");
}

#[test]
fn of_several_hosts_the_one_that_is_full_is_counted() {
    let full = failing("auth", "sorry,~too~many~clients~already~(53300)");
    let budget = |own: u64, other: u64| {
        table(&format!(
            "name subject used limit\n\
             max_connections a:5432 400 400\nmax_connections db:5432 100 100\n\
             max_host_connections a:5432 {other} -\nmax_host_connections db:5432 {own} -\n\
             pool_size a/bob {other} 200\npool_size shop/bob {own} 90"
        ))
    };
    let with = |own, other| Evidence {
        budget: budget(own, other),
        ..full.clone()
    };
    // Neither the servers of the other host nor its max_connections count.
    assert_eq!(first(&with(80, 10)).name, "over_budget");
    assert_eq!(first(&with(10, 190)).name, "foreign_sessions");
    let told = first(&with(10, 190)).evidence;
    assert_eq!(
        told[1],
        "this pooler has 10 connections of PostgreSQL's 100"
    );
    // Nobody is blamed where it may be either host.
    let either = Evidence {
        host: None,
        ..with(80, 10)
    };
    assert_eq!(first(&either).name, "postgres_full");
    assert_eq!(first(&either).evidence.len(), 1);
}

#[test]
fn a_host_is_named_as_the_budget_names_it() {
    let databases = table(
        "name host port\nshop DB 5432\nblog /run/pg 5433\nlocal - 5432\npair db,standby 5432",
    );
    let config = table("key value\nunix_socket_dir /tmp");
    let host = |database| way::host_of(&databases, &config, database);
    assert_eq!(host("shop").as_deref(), Some("db:5432"));
    assert_eq!(host("blog").as_deref(), Some("/run/pg:5433"));
    assert_eq!(host("local").as_deref(), Some("/tmp:5432"));
    assert_eq!(host("pair"), None);
    assert_eq!(host("nobody"), None);
}

#[test]
fn silent_holders_are_a_leak_of_their_application() {
    let holders = table(&format!(
        "{HOLDERS}\
         7 shop bob checkout 10.0.0.1:5 70 idle~in~transaction 9000 9000\n\
         8 shop bob checkout 10.0.0.1:6 71 idle~in~transaction 8000 8000\n\
         9 shop bob web 10.0.0.2:6 72 active 10 0"
    ));
    let evidence = Evidence {
        holders,
        why: table(&format!(
            "{WHY}silent 0 70 7 checkout update~x said~nothing"
        )),
        ..crowd()
    };
    let cause = first(&evidence);
    assert_eq!(cause.name, "leak");
    assert!(cause.title.contains("checkout"));
    assert!(cause.evidence.iter().any(|line| line.contains("update x")));
    // Without anybody who waits, only those whom the pooler suspects count.
    let calm = Evidence {
        pools: well().pools,
        ..evidence
    };
    assert_eq!(names(&calm), Vec::<&str>::new());
    let suspected = Evidence {
        leaks: table(&format!(
            "stage {HOLDERS}suspected 7 shop bob checkout 10.0.0.1:5 70 idle~in~transaction 9000 9000"
        )),
        ..calm
    };
    assert_eq!(first(&suspected).name, "leak");
}

#[test]
fn sessions_that_keep_their_servers_leak_no_transaction() {
    let holders = table(&format!(
        "{HOLDERS}\
         7 shop bob o'web 10.0.0.1:5 70 idle 90000 90000\n\
         8 shop bob o'web 10.0.0.1:6 71 idle 80000 80000\n\
         9 shop bob o'web 10.0.0.1:7 72 idle~in~transaction 99000 99000"
    ));
    let cause = first(&Evidence { holders, ..crowd() });
    assert_eq!(cause.name, "leak");
    assert_eq!(
        cause.title,
        "an application keeps servers between transactions: o'web holds servers and says nothing"
    );
    assert!(
        cause.evidence[1].contains(", idle, silent for 90 s"),
        "{cause:?}"
    );
    assert_eq!(
        cause.next[0],
        r"pgweir kill --app 'o'\''web' --state idle --held 1min --idle 1min --dry-run, then without --dry-run"
    );
    assert!(
        cause.next[2].starts_with("client_idle_timeout"),
        "{cause:?}"
    );
    assert!(!cause.next.concat().contains("idle_transaction_timeout"));
}

#[test]
fn an_examination_that_finds_no_room_does_not_hide_a_leak() {
    let holders = table(&format!(
        "{HOLDERS}7 shop bob checkout 10.0.0.1:5 70 idle~in~transaction 9000 9000"
    ));
    let evidence = Evidence {
        holders,
        diagnosis: table("step outcome us detail\npermit failed - no~connection~is~left"),
        ..crowd()
    };
    assert_eq!(names(&evidence), ["leak", "own_limit"]);
}

#[test]
fn servers_at_work_are_slow_queries() {
    let holders = table(&format!(
        "{HOLDERS}\
         7 shop bob report 10.0.0.1:5 70 active 9000 0\n\
         8 shop bob report 10.0.0.1:6 71 active 8000 0\n\
         9 shop bob checkout 10.0.0.2:6 72 idle~in~transaction 2000 2000"
    ));
    let evidence = Evidence { holders, ..crowd() };
    assert_eq!(first(&evidence).name, "slow");
    assert!(first(&evidence).evidence[0].contains("2 for report"));
}

#[test]
fn those_who_wait_for_a_lock_are_not_slow() {
    let holders = table(&format!(
        "{HOLDERS}\
         7 shop bob web 10.0.0.1:5 70 active 9000 0\n\
         8 shop bob web 10.0.0.1:6 71 active 8000 0\n\
         9 shop bob report 10.0.0.2:6 72 idle~in~transaction 9500 9500"
    ));
    let evidence = Evidence {
        holders,
        why: table(&format!(
            "{WHY}lock 2 72 9 report lock~table~x 2~servers~wait~for~pid~72"
        )),
        ..crowd()
    };
    let cause = first(&evidence);
    assert_eq!(cause.name, "locks");
    assert!(cause.next[0].contains("--client 9"));
    assert!(!names(&evidence).contains(&"slow"));
    let stranger = Evidence {
        why: table(&format!("{WHY}lock 2 99 - psql - 2~servers~wait")),
        ..evidence
    };
    assert!(first(&stranger).next[0].contains("pg_cancel_backend(99)"));
}

#[test]
fn a_prepared_transaction_is_finished_by_its_name() {
    let why = |statement: &str| {
        table(&format!(
            "kind waiting server_pid client_id user last_statement text\n\
             lock 2 - - bob {statement} 2~servers~wait"
        ))
    };
    let cause = |statement| {
        let why = why(statement);
        first(&Evidence { why, ..crowd() })
    };
    let known = cause("PREPARE~TRANSACTION~'move~7'");
    assert_eq!(
        known.title,
        "a lock pile-up: 2 servers wait for a prepared transaction"
    );
    assert!(
        known.next[0]
            .ends_with("user bob: COMMIT PREPARED 'move 7', or ROLLBACK PREPARED 'move 7'"),
        "{known:?}"
    );
    let unknown = cause("-");
    assert!(unknown.next[0].contains("pg_prepared_xacts"), "{unknown:?}");
}

#[test]
fn what_was_ordered_goes_before_everything() {
    let evidence = Evidence {
        maintenance: table("database mode by\nshop hold ops"),
        ..crowd()
    };
    assert_eq!(first(&evidence).name, "ordered");
    let evidence = Evidence {
        entry: table("name paused disabled\nshop 1 0"),
        ..crowd()
    };
    assert!(first(&evidence).title.contains("shop is paused"));
    let evidence = Evidence {
        state: table("key value\nactive no\npaused yes\nsuspended no"),
        ..crowd()
    };
    assert_eq!(names(&evidence), ["ordered"]);
    assert_eq!(first(&evidence).next, ["RESUME on the console"]);
    let evidence = Evidence {
        state: table("key value\nactive yes\npaused no\nsuspended no"),
        ..crowd()
    };
    assert_eq!(names(&evidence), ["crowded"]);
}

#[test]
fn an_order_is_told_with_the_name_of_its_own_database() {
    let evidence = Evidence {
        maintenance: table("database mode by\nblog hold ops"),
        entry: table("name paused disabled\nshop 1 0\nblog 0 0"),
        ..crowd()
    };
    let causes = find(&evidence);
    assert!(causes[0].title.starts_with("blog is under maintenance"));
    assert_eq!(causes[0].evidence, ["0 clients waiting"]);
    assert_eq!(causes[0].next, ["pgweir maintenance off blog"]);
    assert!(causes[1].title.starts_with("shop is paused"));
    assert_eq!(causes[1].evidence, ["9 clients waiting"]);
    assert_eq!(causes[1].next, ["RESUME shop on the console"]);
}

#[test]
fn a_queue_without_another_cause_is_a_limit() {
    assert_eq!(first(&crowd()).name, "crowded");
    assert!(first(&crowd()).evidence[0].contains("pool_size shop/bob: 3 of 3"));
}

#[test]
fn a_client_that_does_not_get_through_is_told_last() {
    let evidence = Evidence {
        client: table("step outcome us detail\nauth failed 10 SSL~required"),
        ..well()
    };
    assert_eq!(first(&evidence).name, "client");
    assert!(first(&evidence).next[0].contains("sslmode=require"));
}
