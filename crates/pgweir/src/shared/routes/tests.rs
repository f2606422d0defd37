use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use pgweir_auth::ProcessKey;
use pgweir_config::Phase;
use pgweir_stats::{LatencyView, LoginPhase, OTHER, Tally};

use super::*;
use crate::clients::lot::Lot;
use crate::process::log::Log;
use crate::process::workers::Workers;
use crate::settings::auth_files::AuthFiles;
use crate::settings::tls::Tls;
use crate::shared::Hold;
use crate::watch::totals;

const ROUNDS: usize = 500;

fn config(text: &str) -> Config {
    let mut config = Config::new("a.ini");
    config
        .load(Phase::Start, &mut |_| Ok(text.to_owned()))
        .expect("loads");
    config
}

/// A pooler that has no sockets, with these lines in its file.
fn shared(text: &str) -> Shared {
    let config = config(text);
    let tls = Tls::load(&config.global).expect("there is none");
    let (_, workers) = Workers::start(1).expect("starts");
    let (files, key) = (AuthFiles::default(), ProcessKey::new([7; 32]));
    let lot = Lot::open().expect("opens");
    Shared::new(Log::start(true, 0), config, tls, files, key, lot, workers)
}

/// Lets both do something at the same time, again and again. In how many rounds what came of it is wrong.
fn at_once<A: Send, B>(
    one: impl Fn(usize) -> A + Sync,
    other: impl Fn(usize) -> B,
    is_wrong: impl Fn(A, B) -> bool,
) -> usize {
    let (begin, (give, take)) = (Barrier::new(2), mpsc::channel());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                begin.wait();
                give.send(one(round)).expect("it is waited for");
            }
        });
        let rounds = 0..ROUNDS;
        let wrong = rounds.filter(|round| {
            begin.wait();
            let second = other(*round);
            is_wrong(take.recv().expect("it does as many"), second)
        });
        wrong.count()
    })
}

const SHOP: &str = "[databases]\nshop = host=db\n[pgbouncer]\n";

fn log_in(shared: &Shared, round: usize) -> Arc<Route> {
    let route = shared.route("shop", &format!("user {round}"));
    route.expect("the database is there")
}

#[test]
fn two_first_logins_at_once_take_one_route() {
    let shared = shared(SHOP);
    let log_in = |round| log_in(&shared, round);
    let wrong = at_once(log_in, log_in, |one, other| !Arc::ptr_eq(&one, &other));
    assert_eq!(wrong, 0);
}

#[test]
fn a_login_beside_a_reload_follows_the_new_configuration() {
    let shared = shared(SHOP);
    let log_in = |round| log_in(&shared, round);
    let reload = |_| shared.set_config(config(SHOP));
    let wrong = at_once(log_in, reload, |route, ()| {
        let (now, of_route) = (shared.config(), &route.rules().config);
        !Arc::ptr_eq(of_route, &now) || !Arc::ptr_eq(&route.home.rules().config, &now)
    });
    assert_eq!(wrong, 0);
}

#[test]
fn a_pool_that_is_made_beside_a_pause_is_paused() {
    let shared = shared(SHOP);
    let route = thread::scope(|scope| {
        let mut pools = shared.pools();
        let login = scope.spawn(|| log_in(&shared, 0));
        // By now it waits for the pools.
        thread::sleep(Duration::from_millis(100));
        shared.operator.set_hold(Hold::Paused);
        let _ = pools.pause(|_| true, Instant::now());
        drop(pools);
        login.join().expect("it comes to its end")
    });
    assert!(!shared.pools().lends(route.home.id));
}

fn forcing(user: &str) -> Config {
    config(&format!(
        "[databases]\nshop = host=db user={user} min_pool_size=2\n[pgbouncer]\n"
    ))
}

#[test]
fn another_forced_user_leads_logins_to_its_pool_whoever_has_come_before() {
    let shared = shared(SHOP);
    for user in ["alice", "bob", "alice"] {
        let before = log_in(&shared, 0);
        shared.set_config(forcing(user));
        let after = log_in(&shared, 0);
        assert_eq!(&*after.home.name.user, user);
        assert!(before.is_left() && !after.is_left());
    }
}

#[test]
fn a_route_that_is_left_follows_the_configuration_still() {
    let shared = shared(SHOP);
    let route = log_in(&shared, 0);
    for user in ["alice", "bob"] {
        shared.set_config(forcing(user));
        assert!(Arc::ptr_eq(&route.rules().config, &shared.config()));
    }
    shared.set_config(config("[databases]\n[pgbouncer]\n"));
    assert!(route.is_left());
}

#[test]
fn no_servers_are_kept_for_a_user_who_is_forced_no_more() {
    let shared = shared("[databases]\nshop = host=db user=alice min_pool_size=2\n[pgbouncer]\n");
    let alice = log_in(&shared, 0);
    let min = |route: &Route| {
        let home = &route.home;
        home.rules().pool_limits(&home.name.user).min
    };
    assert_eq!(min(&alice), 2);
    shared.set_config(forcing("bob"));
    assert_eq!((min(&alice), min(&log_in(&shared, 0))), (0, 2));
}

const STAR: &str = "[databases]\n* = host=db\n[pgbouncer]\n";

/// A pool has a query, and is forgotten.
fn query_and_forget(shared: &Shared, database: &str, user: &str) {
    let route = shared.route(database, user).expect("there is a database");
    route.home.totals.add(&mut Tally {
        query_count: 1,
        ..Tally::default()
    });
    route.home.latencies.query(10);
    route.home.times.logins.record(LoginPhase::Auth, 10);
    shared.forget_home(route.home.id).expect("it was there");
    shared.end_sums();
}

#[test]
fn what_a_forgotten_pool_has_counted_stays_in_the_sums() {
    let shared = shared(SHOP);
    for queries in 1..4 {
        query_and_forget(&shared, "shop", &format!("user {queries}"));
        let totals = totals::now(&shared);
        assert_eq!(totals.by_name["shop"].query_count, queries);
        assert_eq!(totals.all.query_count, queries);
        let (homes, remainders) = shared.counted();
        assert!(homes.is_empty());
        let mut view = LatencyView::default();
        for (_, remainder) in remainders.databases() {
            view.add(&remainder.latencies, &remainder.totals);
        }
        assert_eq!(view.query.count(), queries);
    }
}

#[test]
fn a_series_that_pools_share_goes_on_without_them() {
    let shared = shared(STAR);
    // They have all the names that there are.
    let named = (0..100).map(|number| shared.route(&format!("d{number}"), "u"));
    let named: Vec<_> = named.map(|route| route.expect("leads there")).collect();
    for queries in 1..4 {
        query_and_forget(&shared, &format!("late {queries}"), "u");
        // As if nobody had used it for long.
        lock(&shared.autodbs).clear();
        shared.end_sums();
        let (homes, remainders) = shared.counted();
        assert_eq!(homes.len(), named.len());
        let (label, by_label) = remainders.labels().next().expect("there is one");
        let (series, of_series) = remainders.series().next().expect("there is one");
        assert_eq!((&**label, &*series.database), (OTHER, OTHER));
        for remainder in [by_label, of_series] {
            assert_eq!(remainder.totals.query_count, queries);
        }
        let times = of_series.times.as_ref().expect("they are shared");
        let logins = times
            .logins
            .view(LoginPhase::Auth)
            .expect("there were some");
        assert_eq!(logins.count(), queries);
        assert_eq!(totals::now(&shared).all.query_count, queries);
    }
}

#[test]
fn counters_of_invented_databases_are_bounded() {
    let shared = shared(STAR);
    for number in 0..300 {
        query_and_forget(&shared, &format!("d{number}"), "u");
    }
    let kept = |by_name: &BTreeMap<Arc<str>, _>| by_name.len() - 1;
    let totals = totals::now(&shared);
    assert_eq!((kept(&totals.by_name), totals.all.query_count), (100, 300));
    lock(&shared.autodbs).clear();
    shared.end_sums();
    let totals = totals::now(&shared);
    assert_eq!((kept(&totals.by_name), totals.all.query_count), (0, 300));
}
