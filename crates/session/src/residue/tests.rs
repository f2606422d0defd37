//! Laws of what is noted, asked and remembered.

use super::*;

fn noted(residue: &mut Residue, sql: &str) {
    let is_heard_of = |name: &str| name == "timezone";
    residue.note(&scan(sql.as_bytes()), Kinds::NONE, is_heard_of);
}

fn trusting() -> Memory {
    let mut memory = Memory::default();
    memory.kept = Duration::from_secs(60);
    memory
}

#[test]
fn what_can_call_nothing_is_not_asked_about() {
    let (memory, now) = (Memory::default(), Instant::now());
    for sql in [
        "",
        ";",
        "begin",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; select 1; Commit",
        "select $1, 'a', -2, null",
        "rollback to savepoint a",
        "set local work_mem = '1MB'",
        "set transaction read only",
        "set constraints all deferred",
        "show work_mem",
        "fetch 10 from c",
        "set timezone to 'UTC'",
        "prepare transaction 'x'",
        "-- set x\nselect 1",
    ] {
        let mut residue = Residue::default();
        noted(&mut residue, sql);
        assert_eq!(residue.question(&memory, now), None, "{sql}");
    }
}

#[test]
fn what_may_leave_something_is_asked_about() {
    let (memory, now) = (trusting(), Instant::now());
    for sql in [
        "select f()",
        "select 1 where 'a' = 'b'",
        "select * from t",
        "insert into t values (1)",
        "set work_mem = '1MB'",
        "set session search_path to a, b",
        "begin; set local a = 1; set b = 1",
        "set role x",
        "set session authorization x",
        "set session characteristics as transaction read only",
        "reset all",
        "discard all",
        "select pg_advisory_lock(1)",
        "select \"pg_try_advisory_lock\"(1)",
        "listen a",
        "prepare p as select 1",
        "execute p",
        "do $$ begin end $$",
        "call p()",
        "select set_config('a.b', 'c', false)",
        "create temp table t (x int)",
        "select 1 into temporary t",
        "declare c cursor with hold for select 1",
        "(select f())",
        r"select '\' , set_config('a','b',false) --'",
    ] {
        let mut residue = Residue::default();
        noted(&mut residue, sql);
        assert!(residue.question(&memory, now).is_some(), "{sql}");
    }
}

#[test]
fn texts_say_what_they_leave() {
    for (sql, kinds) in [
        ("listen a", Kinds::LISTEN),
        ("SET ROLE a", Kinds::ROLE),
        ("set session authorization default", Kinds::NONE),
        ("select set_config('role', 'a', false)", Kinds::ROLE),
        ("select pg_advisory_lock_shared(1, 2)", Kinds::LOCKS),
        ("select pg_try_advisory_lock(1)", Kinds::LOCKS),
        ("select pg_advisory_xact_lock(1)", Kinds::NONE),
        ("select pg_advisory_unlock(1)", Kinds::NONE),
        ("create temporary view v as select 1", Kinds::TEMPORARY),
        (
            "create function pg_temp.f() returns int language sql as ''",
            Kinds::TEMPORARY,
        ),
        ("select 1 into temp t", Kinds::TEMPORARY),
        ("select temp, hold from t", Kinds::NONE),
        (
            "declare c binary cursor with hold for select 1",
            Kinds::CURSORS,
        ),
        ("declare c cursor without hold for select 1", Kinds::CURSORS),
        ("prepare p as select 1", Kinds::PREPARED),
        ("select 'listen a', \"listen\" from set_config", Kinds::NONE),
    ] {
        assert_eq!(scan(sql.as_bytes()).suspects, kinds, "{sql}");
    }
}

#[test]
fn parameters_are_known_by_their_names() {
    let named = |sql: &str| -> Vec<(String, bool)> {
        let named = scan(sql.as_bytes()).named.into_iter();
        named
            .map(|named| (named.name.into(), named.is_reset))
            .collect()
    };
    let set = |name: &str| vec![(name.to_owned(), false)];
    assert_eq!(named("set Work_Mem to '1MB'"), set("work_mem"));
    assert_eq!(named("set session \"work_mem\" = 1"), set("work_mem"));
    assert_eq!(named("set app.tenant = 'x'"), set("app.tenant"));
    assert_eq!(named("set time zone 'UTC'"), set("timezone"));
    assert_eq!(named("select set_config('a.b', $1, false)"), set("a.b"));
    assert_eq!(
        named("select set_config('a.b', lower($1), true)"),
        set("a.b")
    );
    assert_eq!(named("select pg_catalog.set_config('a.b', $1, true)"), []);
    assert_eq!(named("reset work_mem"), [("work_mem".to_owned(), true)]);
    assert!(scan(b"select set_config($1, $2, false)").unreadable);
    assert!(scan(b"set work_mem").unreadable || !named("set work_mem").is_empty());
}

#[test]
fn literals_do_not_make_another_statement() {
    let print = |sql: &str| scan(sql.as_bytes()).print;
    let one = print("insert into t values (1, 'a', null)");
    assert_eq!(
        one,
        print("insert into t values (2, E'\\'b', $1), (3, $$c$$, default)")
    );
    assert_ne!(one, print("insert into u values (1, 'a', null)"));
    assert_ne!(print("select f()"), print("select g()"));
    assert_ne!(print("do 'f()'"), print("do 'g()'"));
    assert_ne!(print("select f()"), 0);
    assert_eq!(print("select 1"), 0);
}

#[test]
fn sequences_matter_to_who_may_draw_and_who_reads() {
    for sql in [
        "insert into t values (1)",
        "select nextval('s')",
        "select f(1)",
        "call p()",
    ] {
        assert!(scan(sql.as_bytes()).draws, "{sql}");
    }
    for sql in ["select count(*) from t where a in (1)", "select 1", "begin"] {
        assert!(!scan(sql.as_bytes()).draws, "{sql}");
    }
    assert!(scan(b"select lastval()").reads_drawn);
    assert!(scan(b"select CURRVAL('s')").reads_drawn);
}

#[test]
fn a_statement_that_left_nothing_is_trusted_for_a_while() {
    let (mut memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    noted(&mut residue, "select f()");
    assert!(residue.question(&memory, now).is_some());
    residue.teach(Kinds::NONE, Kinds::NONE, &mut memory, now);
    residue.settle(Kinds::NONE, now);
    noted(&mut residue, "select f()");
    assert_eq!(residue.question(&memory, now), None);
    assert!(residue.question(&memory, now + memory.kept).is_some());
}

#[test]
fn of_what_is_said_of_a_parameter_the_last_word_is_kept() {
    let mut residue = Residue::default();
    for sql in ["set a.b = 1", "set c.d = 1", "reset a.b"] {
        noted(&mut residue, sql);
    }
    let named = |name: &str, is_reset| Named {
        name: name.into(),
        is_reset,
    };
    assert_eq!(residue.named(), [named("a.b", true), named("c.d", false)]);
    for n in 0..2 * NAMED_MAX {
        noted(&mut residue, &format!("set a.x{n} = 1"));
    }
    assert_eq!(residue.named().len(), NAMED_MAX);
}

#[test]
fn nothing_is_trusted_that_was_learned_before_a_change_of_definitions() {
    let (mut memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    memory.learn_catalog(&probe::Catalog::default(), now);
    noted(&mut residue, "select f()");
    residue.teach(Kinds::NONE, Kinds::NONE, &mut memory, now);
    assert_eq!(residue.question(&memory, now), None);
    memory.forget();
    assert!(residue.question(&memory, now).is_some());
    assert!(memory.needs_catalog(now));
}

#[test]
fn of_what_was_undone_nothing_is_learned() {
    let (mut memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    noted(&mut residue, "select f()");
    residue.note_undone();
    residue.teach(Kinds::NONE, Kinds::NONE, &mut memory, now);
    assert!(memory.is_empty());
}

#[test]
fn a_statement_that_left_something_is_asked_about_every_time() {
    let (mut memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    noted(&mut residue, "select f()");
    residue.teach(Kinds::LOCKS, Kinds::LOCKS, &mut memory, now);
    residue.settle(Kinds::NONE, now);
    noted(&mut residue, "select f()");
    let asked = residue.question(&memory, now);
    assert_eq!(asked, Some(Probe::of(Kinds::LOCKS, &memory, &[])));
}

#[test]
fn what_binds_is_looked_for_when_it_may_have_ended() {
    let (memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    residue.settle(Kinds::LOCKS, now);
    noted(&mut residue, "select g()");
    assert_eq!(residue.question(&memory, now), None);
    assert!(residue.question(&memory, now + BOUND_AGAIN).is_some());
    noted(&mut residue, "select pg_advisory_unlock(1)");
    assert!(residue.question(&memory, now).is_some());
}

#[test]
fn only_what_is_known_is_taken_back_alone() {
    let (now, mut residue) = (Instant::now(), Residue::default());
    residue.settle(Kinds::LOCKS.union(Kinds::LISTEN), now);
    let undo = "SELECT pg_catalog.pg_advisory_unlock_all();UNLISTEN *;";
    assert_eq!(residue.undo().as_deref(), Some(undo));
    noted(&mut residue, "select f()");
    assert_eq!(residue.undo(), None);
}

#[test]
fn functions_are_known_by_what_stands_in_their_source() {
    let (mut memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    let catalog = probe::Catalog {
        functions: vec![("tries".into(), Kinds::LOCKS)],
        ..probe::Catalog::default()
    };
    memory.learn_catalog(&catalog, now);
    for sql in ["select app.tries(1)", "select other(1)"] {
        noted(&mut residue, sql);
        residue.teach(Kinds::NONE, Kinds::NONE, &mut memory, now);
        residue.settle(Kinds::NONE, now);
    }
    noted(&mut residue, "select other(1)");
    assert_eq!(residue.question(&memory, now), None);
    noted(&mut residue, "select app.Tries(2)");
    noted(&mut residue, "select app.tries(1)");
    assert!(
        residue.question(&memory, now).is_some(),
        "it may lock the next time"
    );
}

#[test]
fn the_body_of_do_is_read() {
    let body = scan(b"do $$ begin perform pg_try_advisory_lock(7); set a.b = 1; end $$");
    assert_eq!(body.suspects, Kinds::LOCKS);
    let named = |sql: &str| {
        let named = scan(sql.as_bytes()).named.into_iter();
        named
            .map(|named| named.name.into())
            .collect::<Vec<String>>()
    };
    let sets = "do $$ begin set App.tenant = 'a'; set session a.b to 1; set work_mem = 1; end $$";
    assert_eq!(named(sets), ["app.tenant", "a.b"]);
    for ends in [
        "do $$ begin set local a.b = 1; end $$",
        "do $$ begin update t set a = 1; end $$",
        "update t set a.b = 1",
    ] {
        assert!(named(ends).is_empty(), "{ends}");
    }
    let function = scan(b"create function f() returns int language sql as 'listen a'");
    assert_eq!(function.suspects, Kinds::NONE);
}

#[test]
fn a_set_that_no_text_has_said_is_a_surprise() {
    let (memory, now, mut residue) = (trusting(), Instant::now(), Residue::default());
    noted(&mut residue, "set local a = 1");
    residue.note_set();
    assert_eq!(residue.question(&memory, now), None);
    residue.pass();
    residue.note_set();
    assert!(residue.question(&memory, now).is_some());
}

proptest::proptest! {
    /// Whatever stands around it: a text that names what it leaves is not taken for a clean one.
    #[test]
    fn no_comment_or_literal_hides_a_statement(
        before in "[a-z ,()=1]{0,20}",
        quoted in "[a-z '\"]{0,10}",
        which in 0..4_usize,
    ) {
        let left = ["set a.b = 1", "listen a", "select pg_advisory_lock(1)", "execute p"][which];
        let quoted = quoted.replace('\'', "''");
        let sql = format!("select {before} /* {} */ , '{quoted}' ;\n-- x\n {left}", quoted.replace('*', ""));
        let mut residue = Residue::default();
        noted(&mut residue, &sql);
        proptest::prop_assert!(!residue.is_plain(), "{sql}");
    }

    #[test]
    fn every_text_can_be_scanned(sql in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        let _ = scan(&sql);
    }
}

#[test]
fn texts_say_whether_they_are_about_channels() {
    for sql in [
        "unlisten a",
        "begin; UNLISTEN *; commit",
        "discard all",
        "select pg_listening_channels()",
        "select * from pg_catalog.pg_listening_channels() c",
        "do $$ begin unlisten a; end $$",
    ] {
        assert!(scan(sql.as_bytes()).about_channels, "{sql}");
    }
    for sql in [
        "listen a",
        "select 'unlisten a'",
        "select unlisten from discard",
    ] {
        assert!(!scan(sql.as_bytes()).about_channels, "{sql}");
    }
}

#[test]
fn channels_are_told_by_the_bytes_of_their_names() {
    let probe = Probe::of(Kinds::LISTEN, &trusting(), &[]);
    let row = |hex: &str| vec![Some("l".into()), Some(hex.into()), None];
    let facts = probe.read(&[row("6e657773"), row("c3bc")]);
    let channels: Vec<_> = facts
        .channels
        .iter()
        .flatten()
        .map(|name| &**name)
        .collect();
    assert_eq!((channels, facts.bound), (vec!["news", "ü"], Kinds::LISTEN));
    let none = probe.read(&[]);
    assert_eq!(
        (none.channels.map(|c| c.len()), none.bound),
        (Some(0), Kinds::NONE)
    );
    let latin = probe.read(&[row("fc"), row("6e")]);
    assert_eq!((latin.channels, latin.bound), (None, Kinds::LISTEN));
    assert!(!latin.is_strange, "it is known that it listens");
    assert_eq!(
        Probe::of(Kinds::LOCKS, &trusting(), &[]).read(&[]).channels,
        None
    );
}

#[test]
fn the_functions_are_looked_through_without_the_clients_time_limit_and_its_parameters_before_that()
{
    let sql = Probe::everything(&Memory::default(), &[], Instant::now()).sql("joe");
    let (session, catalog) = sql
        .split_once("; SET LOCAL statement_timeout = 0; ")
        .expect("two queries");
    assert!(session.contains("pg_settings") && !session.contains("pg_proc"));
    assert!(catalog.starts_with("SELECT 'c'") && catalog.contains("pg_proc"));
}

#[test]
fn nothing_in_a_look_means_what_the_clients_search_path_says() {
    let mut sql = Probe::everything(&Memory::default(), &[], Instant::now()).sql("joe");
    for operator in ["=", "<>", "!~", "~*"] {
        sql = sql.replace(&format!("OPERATOR(pg_catalog.{operator})"), "");
    }
    sql = sql.replace("SET LOCAL statement_timeout = 0", "");
    let operators = tokens::Tokens::new(sql.as_bytes()).filter(|token| {
        matches!(
            token,
            tokens::Token::Symbol(b'=' | b'<' | b'>' | b'~' | b'!' | b'|')
        )
    });
    assert_eq!(operators.count(), 0, "{sql}");
    let types = sql.matches("::").count();
    assert_eq!(sql.matches("::pg_catalog.").count(), types, "{sql}");
}
