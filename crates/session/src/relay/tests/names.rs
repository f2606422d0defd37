//! What clients call their statements, and what servers have.

use super::*;
use crate::reading::Reading;

fn deallocate(name: &str) -> Vec<u8> {
    query(&format!("DEALLOCATE {name}"))
}

fn refusal(code: &str, message: &str) -> Vec<u8> {
    frame(b'E', format!("SERROR\0C{code}\0M{message}\0\0").as_bytes())
}

/// The client has prepared `name`, and the server has it as PGBOUNCER_1.
fn prepared(name: &str) -> Story {
    let mut story = Story::new();
    story.answers_as_postgres = true;
    story.client(&[parse(name, "select 1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story
}

#[test]
fn an_unnamed_statement_is_parsed_again_on_the_next_server() {
    let mut story = Story::new();
    let batch = [parse("", "select $1"), describe(""), sync()];
    assert_eq!(story.client(&batch).0, batch.concat());
    story.server(&[frame(b'1', b""), frame(b'n', b""), ready(b'I')]);

    story.relay = Relay::new(Values::default());
    story.relay.begin_lease(1);
    let (to_server, _) = story.client(&[bind(""), execute(), sync()]);
    let expected = [parse("", "select $1"), bind(""), execute(), sync()];
    assert_eq!(to_server, expected.concat());
    let answers = [
        frame(b'1', b""),
        frame(b'2', b""),
        frame(b'C', b"SELECT 1\0"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answers), answers[1..].concat());
}

#[test]
fn an_unnamed_statement_that_was_parsed_in_this_lease_is_not_sent_again() {
    let mut story = Story::new();
    story.client(&[query("begin"), parse("", "select 1"), sync()]);
    story.server(&[
        complete("BEGIN"),
        ready(b'T'),
        frame(b'1', b""),
        ready(b'T'),
    ]);
    let batch = [bind(""), execute(), sync()];
    let twice = [batch.clone(), batch].concat();
    assert_eq!(story.client(&twice).0, twice.concat());
}

#[test]
fn nobody_gets_at_the_unnamed_statement_of_another_client() {
    let mut story = Story::new();
    story.relay.begin_lease(1);
    let (to_server, _) = story.client(&[bind(""), sync()]);
    assert_eq!(to_server, [close(""), bind(""), sync()].concat());
}

#[test]
fn nobody_gets_at_it_behind_a_batch_that_fails_either() {
    let mut story = Story::new();
    story.relay.begin_lease(1);
    let (skipped, next) = (
        [parse("x", "bad"), bind(""), sync()],
        [bind(""), execute(), sync()],
    );
    story.client(&skipped);
    let expected = [close(""), next.concat()].concat();
    assert_eq!(story.client(&next).0, expected, "the first may be skipped");

    let mut story = Story::new();
    story.relay.begin_lease(1);
    story.client(&[parse("x", "bad"), parse("", "select 1"), sync()]);
    let expected = [parse("", "select 1"), next.concat()].concat();
    assert_eq!(story.client(&next).0, expected);
}

#[test]
fn the_poolers_own_query_takes_the_unnamed_statement_away() {
    let mut story = Story::new();
    story.client(&[parse("", "select 1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.relay.ask("select 2", &mut BytesMut::new());
    story.server(&[frame(b'C', b"SELECT 1\0"), ready(b'I')]);
    let (to_server, _) = story.client(&[bind(""), sync()]);
    let expected = [parse("", "select 1"), bind(""), sync()];
    assert_eq!(to_server, expected.concat());
}

#[test]
fn after_an_error_the_unnamed_statement_is_sent_again() {
    let mut story = prepared("a");
    story.client(&[parse("", "select 1"), bind("x"), sync()]);
    story.server(&[frame(b'1', b""), refusal("22000", "no"), ready(b'I')]);
    let (to_server, _) = story.client(&[bind(""), sync()]);
    let expected = [parse("", "select 1"), bind(""), sync()];
    assert_eq!(to_server, expected.concat());
}

#[test]
fn a_deallocate_of_a_name_of_the_protocol_is_answered_by_the_pooler() {
    let mut story = prepared("a");
    let (to_server, to_client) = story.client(&[deallocate("A")]);
    assert_eq!(to_server, b"");
    let expected = [frame(b'C', b"DEALLOCATE\0"), ready(b'I')];
    assert_eq!(to_client, expected.concat());
    assert!(!story.client.statements.contains(b"a"));
    assert_eq!(
        story.relay.statement_count(),
        1,
        "for whoever wants it next"
    );
    assert!(story.relay.is_quiet());
    assert!(!story.relay.pipeline.may_have_set(), "nothing has run");
}

#[test]
fn a_deallocate_of_what_the_protocol_does_not_know_is_the_servers() {
    let mut story = prepared("a");
    for sql in ["DEALLOCATE b", "DEALLOCATE \"A\"", "DEALLOCATE a; select 1"] {
        assert_eq!(story.client(&[query(sql)]).0, query(sql), "{sql}");
        story.server(&[frame(b'C', b"DEALLOCATE\0"), ready(b'I')]);
    }
    assert!(story.client.statements.contains(b"a"));
}

#[test]
fn a_deallocate_by_the_extended_protocol_is_the_servers_under_its_own_name() {
    let mut story = prepared("a");
    let batch = [parse("", "DEALLOCATE a"), bind(""), execute(), sync()];
    let renamed = parse("", "DEALLOCATE \"PGBOUNCER_1\"");
    let expected = [renamed, bind(""), execute(), sync()];
    assert_eq!(story.client(&batch).0, expected.concat());
    let done = frame(b'C', b"DEALLOCATE\0");
    story.server(&[frame(b'1', b""), frame(b'2', b""), done, ready(b'I')]);
    assert!(!story.client.statements.contains(b"a"));
    assert_eq!(story.relay.statement_count(), 0);
}

#[test]
fn a_name_that_is_taken_is_refused_by_the_server_and_said_as_the_client_knows_it() {
    let mut story = prepared("a");
    let (to_server, _) = story.client(&[parse("a", "select 2"), sync()]);
    assert_eq!(
        to_server,
        [parse("PGBOUNCER_1", "select 1"), sync()].concat()
    );
    let said = |name: &str| {
        let message = format!("prepared statement \"{name}\" already exists");
        [refusal("42P05", &message), ready(b'I')]
    };
    assert_eq!(story.server(&said("PGBOUNCER_1")), said("a").concat());
    assert!(story.client.statements.contains(b"a"));
}

#[test]
fn a_name_that_stands_for_nothing_is_left_to_the_server() {
    let mut story = prepared("a");
    let batch = [bind("b"), execute(), sync()];
    assert_eq!(story.client(&batch).0, batch.concat());
    let answers = [
        refusal("26000", "prepared statement \"b\" does not exist"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answers), answers.concat());

    let violation = story.try_client(&bind("PGBOUNCER_1")).unwrap_err();
    let expected = Violation::StatementMissing("PGBOUNCER_1".into());
    assert_eq!(violation, expected, "another client's");
}

#[test]
fn a_statement_is_another_one_when_definitions_have_changed() {
    let mut story = prepared("a");
    story.table.note_altered();
    let (to_server, _) = story.client(&[parse("b", "select 1"), sync()]);
    assert_eq!(
        to_server,
        [parse("PGBOUNCER_2", "select 1"), sync()].concat()
    );
    story.server(&[frame(b'1', b""), ready(b'I')]);
    let (to_server, _) = story.client(&[bind("a"), bind("b"), sync()]);
    let expected = [bind("PGBOUNCER_1"), bind("PGBOUNCER_2"), sync()];
    assert_eq!(to_server, expected.concat());
}

#[test]
fn the_server_may_notice_that_a_definition_has_changed() {
    let mut story = prepared("a");
    story.client(&[bind("a"), execute(), sync()]);
    assert!(!story.relay.take_altered());
    let fields = b"SERROR\0C0A000\0Mcached plan\0RRevalidateCachedQuery\0\0";
    let mut bytes = frame(b'E', fields);
    bytes.extend_from_slice(&ready(b'I'));
    let rules = rules(&story.tracked, &story.table);
    let mut gather = Gather::default();
    let heard = story
        .relay
        .from_server(&bytes, &mut story.client, &rules, &mut gather);
    assert_eq!(heard, Ok(bytes.len()));
    assert!(story.relay.take_altered());
    assert!(!story.relay.take_altered(), "it is told once");
}

/// A statement without a name that the client has sent twice: the server has it as PGBOUNCER_1.
fn recurred(text: &str) -> Story {
    let mut story = Story::new();
    story.prepares_unnamed = true;
    let batch = [parse("", text), bind(""), execute(), sync()];
    let renamed = [
        parse("PGBOUNCER_1", text),
        bind("PGBOUNCER_1"),
        execute(),
        sync(),
    ];
    let twice = [batch.clone(), batch.clone()].concat();
    let expected = [batch, renamed].concat();
    assert_eq!(story.client(&twice).0, expected.concat());
    for _ in 0..2 {
        story.server(&replies(&[frame(b'1', b"")]));
    }
    story
}

/// Of a batch with one statement.
fn replies(first: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let others = [frame(b'2', b""), frame(b'C', b"SELECT 1\0"), ready(b'I')];
    [first, &others].concat()
}

#[test]
fn a_statement_without_a_name_that_recurs_is_parsed_once() {
    let mut story = recurred("select $1");
    let batch = [
        parse("", "select $1"),
        describe(""),
        bind(""),
        execute(),
        sync(),
    ];
    let (to_server, to_client) = story.client(&batch);
    let expected = [
        describe("PGBOUNCER_1"),
        bind("PGBOUNCER_1"),
        execute(),
        sync(),
    ];
    assert_eq!(to_server, expected.concat());
    assert_eq!(to_client, b"", "it is told with the rest");
    let answers = replies(&[frame(b'n', b"")]);
    let told = [frame(b'1', b""), answers.concat()].concat();
    assert_eq!(story.server(&answers), told);
    assert!(story.relay.is_quiet());
    assert_eq!(story.client.statements.len(), 0, "it has no name");
}

#[test]
fn a_recurring_statement_is_bound_on_another_server_too() {
    let mut story = recurred("select $1");
    story.relay = Relay::new(Values::default());
    story.relay.begin_lease(1);
    let (to_server, _) = story.client(&[bind(""), execute(), sync()]);
    let expected = [
        parse("PGBOUNCER_1", "select $1"),
        bind("PGBOUNCER_1"),
        execute(),
        sync(),
    ];
    assert_eq!(to_server, expected.concat());
    let answers = replies(&[frame(b'1', b"")]);
    assert_eq!(story.server(&answers), answers[1..].concat());
}

#[test]
fn another_statement_without_a_name_takes_the_place_of_one_that_recurs() {
    let mut story = recurred("select $1");
    let once = [parse("", "select 2"), bind(""), execute(), sync()];
    assert_eq!(story.client(&once).0, once.concat());
    story.server(&replies(&[frame(b'1', b"")]));
    let again = [bind(""), execute(), sync()];
    story.relay.begin_lease(1);
    let (to_server, _) = story.client(&again);
    assert_eq!(
        to_server,
        [parse("", "select 2"), again.concat()].concat(),
        "the last one is meant"
    );
}

#[test]
fn in_one_batch_each_bind_means_what_was_parsed_before_it() {
    let mut story = recurred("select $1");
    let batch = [
        parse("", "select $1"),
        bind(""),
        parse("", "select 2"),
        bind(""),
        parse("", "select $1"),
        bind(""),
        sync(),
    ];
    let expected = [
        bind("PGBOUNCER_1"),
        parse("", "select 2"),
        bind(""),
        bind("PGBOUNCER_1"),
        sync(),
    ];
    assert_eq!(story.client(&batch).0, expected.concat());
    let (parsed, bound) = (frame(b'1', b""), frame(b'2', b""));
    let answers = [bound.clone(), parsed.clone(), bound.clone(), bound.clone()];
    let shown = [&parsed, &bound, &parsed, &bound, &parsed, &bound];
    let shown = shown.map(|reply| reply.as_slice()).concat();
    assert_eq!(story.server(&answers), shown);
}

#[test]
fn a_close_of_no_name_ends_what_recurs() {
    let mut story = recurred("select $1");
    assert_eq!(
        story.client(&[close(""), sync()]).0,
        [close(""), sync()].concat()
    );
    story.server(&[frame(b'3', b""), ready(b'I')]);
    story.relay.begin_lease(1);
    let (to_server, _) = story.client(&[bind(""), sync()]);
    assert_eq!(to_server, [close(""), bind(""), sync()].concat());
}

#[test]
fn who_has_other_parameters_by_now_does_not_teach_others_what_they_mean() {
    let mut story = Story::new();
    let text = "select '1/2/2026'::date";
    let definition = format!("{text}\0\0\0");
    let reading = Reading::of(definition.as_bytes(), &Values::default(), &story.tracked);
    let statement = story.table.intern(definition.as_bytes(), reading);
    story.client.statements.insert((*b"s").into(), statement);
    let style = story.tracked.index("DateStyle").unwrap();
    story.relay.values.set(style, "ISO, DMY");
    let batch = [bind("s"), execute(), sync()];
    let expected = [
        parse("PGBOUNCER_2", text),
        bind("PGBOUNCER_2"),
        execute(),
        sync(),
    ];
    assert_eq!(story.client(&batch).0, expected.concat());
    let answers = replies(&[frame(b'1', b"")]);
    assert_eq!(story.server(&answers), answers[1..].concat());
    assert_eq!(story.client(&batch).0, expected[1..].concat());
    story.server(&replies(&[]));
    story.client = ClientSide::default();
    assert_eq!(
        story.client(&[parse("mine", text), sync()]).0,
        [parse("PGBOUNCER_3", text), sync()].concat(),
        "nobody else gets that"
    );
}

#[test]
fn who_has_other_parameters_by_now_executes_a_statement_that_the_server_was_taught() {
    let mut story = Story::new();
    let (needed, text) = ("select $1::date", "execute PGBOUNCER_1('1/2/2026')");
    let nul = |text: &str| format!("{text}\0\0\0").into_bytes();
    let needs = story.table.intern(&nul(needed), Reading::Fixed);
    let reading = Reading::of(&nul(text), &Values::default(), &story.tracked);
    let statement = (story.table).intern_needing(&nul(text), reading, Some(needs));
    story.client.statements.insert((*b"s").into(), statement);
    let style = story.tracked.index("DateStyle").unwrap();
    story.relay.values.set(style, "ISO, DMY");
    let expected = [
        parse("PGBOUNCER_1", needed),
        parse("PGBOUNCER_3", text),
        bind("PGBOUNCER_3"),
        sync(),
    ];
    assert_eq!(story.client(&[bind("s"), sync()]).0, expected.concat());
}

#[test]
fn what_is_the_clients_alone_is_read_again_when_it_is_parsed_again() {
    let mut story = Story::new();
    story.prepares_unnamed = true;
    let definition = "select '1/2/2026'::date\0\0\0".as_bytes();
    let own = story.table.intern(definition, Reading::Once);
    story.client.statements.insert(Box::default(), own);
    let (to_server, _) = story.client(&[parse("", "select '1/2/2026'::date"), sync()]);
    let expected = [parse("PGBOUNCER_2", "select '1/2/2026'::date"), sync()];
    assert_eq!(to_server, expected.concat());
}

#[test]
fn behind_what_may_set_a_parameter_a_literal_is_the_clients_alone() {
    let mut story = Story::new();
    let text = "select '1/2/2026'::date";
    let (to_server, _) = story.client(&[
        parse("shared", text),
        parse("alike", text),
        query("set datestyle = dmy"),
        parse("own", text),
        sync(),
        parse("own too", text),
        sync(),
    ]);
    let expected = [
        parse("PGBOUNCER_1", text),
        query("set datestyle = dmy"),
        parse("PGBOUNCER_2", text),
        sync(),
        parse("PGBOUNCER_3", text),
        sync(),
    ];
    assert_eq!(to_server, expected.concat());
}

#[test]
fn a_literal_is_shared_again_when_nothing_that_may_set_a_parameter_is_unanswered() {
    let mut story = Story::new();
    let text = "select '1/2/2026'::date";
    story.client(&[query("select 1"), query("set datestyle = dmy")]);
    story.server(&[frame(b'C', b"SELECT 1\0"), ready(b'I')]);
    let twice = [parse("a", text), parse("b", text), sync()];
    let (to_server, _) = story.client(&twice);
    let apart = [
        parse("PGBOUNCER_1", text),
        parse("PGBOUNCER_2", text),
        sync(),
    ];
    assert_eq!(to_server, apart.concat(), "SET is unanswered");
    story.server(&[frame(b'C', b"SET\0"), ready(b'I')]);
    story.server(&[frame(b'1', b""), frame(b'1', b""), ready(b'I')]);
    let twice = [parse("c", text), parse("d", text), sync()];
    let (to_server, _) = story.client(&twice);
    assert_eq!(to_server, [parse("PGBOUNCER_3", text), sync()].concat());
}

#[test]
fn a_list_of_statements_teaches_nobody_what_they_mean() {
    let mut story = Story::new();
    let definition = "select '1/2/2026'::date\0\0\0".as_bytes();
    let reading = Reading::of(definition, &Values::default(), &story.tracked);
    let statement = story.table.intern(definition, reading);
    story.client.statements.insert((*b"s").into(), statement);
    let style = story.tracked.index("DateStyle").unwrap();
    story.relay.values.set(style, "ISO, DMY");
    let mut out = BytesMut::new();
    let rules = rules(&story.tracked, &story.table);
    story.relay.teach_all(&story.client, &rules, &mut out);
    assert_eq!(out, "");
}

#[test]
fn what_does_not_mean_the_same_everywhere_is_never_shared() {
    let mut story = Story::new();
    story.prepares_unnamed = true;
    for text in ["select pg_cancel_backend(1)", "DEALLOCATE a", "EXECUTE a"] {
        let batch = [parse("", text), sync()];
        for _ in 0..3 {
            assert_eq!(story.client(&batch).0, batch.concat(), "{text}");
            story.server(&[frame(b'1', b""), ready(b'I')]);
        }
    }
}

#[test]
fn a_recurring_statement_that_fails_is_not_there() {
    let mut story = Story::new();
    story.prepares_unnamed = true;
    let text = "select nothing";
    let batch = [parse("", text), sync()].concat();
    let (to_server, _) = story.client(&[batch.clone(), batch.clone(), batch]);
    let expected = ["", "PGBOUNCER_1", "PGBOUNCER_1"].map(|name| parse(name, text));
    let expected = expected.map(|parse| [parse, sync()].concat()).concat();
    // Whether the second will have been there is not known when the third is sent.
    assert_eq!(without(&to_server, &close("PGBOUNCER_1")), expected);
    for _ in 0..2 {
        story.server(&[refusal("42703", "no such column"), ready(b'I')]);
    }
    let closed = [frame(b'3', b""), refusal("42703", "no such column")];
    story.server(&[closed.concat(), ready(b'I')]);
    assert_eq!(story.relay.statement_count(), 0);
}

fn without(bytes: &[u8], part: &[u8]) -> Vec<u8> {
    let at = bytes.windows(part.len()).position(|window| window == part);
    let at = at.expect("it is there");
    [&bytes[..at], &bytes[at + part.len()..]].concat()
}

#[test]
fn definitions_that_change_give_a_recurring_statement_another_name() {
    let mut story = recurred("select $1");
    story.table.note_altered();
    let (to_server, _) = story.client(&[parse("", "select $1"), sync()]);
    assert_eq!(
        to_server,
        [parse("PGBOUNCER_2", "select $1"), sync()].concat()
    );
}

#[test]
fn each_deallocate_of_a_pipeline_takes_its_own_name_away() {
    let mut story = prepared("a");
    story.client(&[parse("b", "select 2"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    let one = |name: &str| {
        let sql = format!("DEALLOCATE {name}");
        [parse("", &sql), bind(""), execute()].concat()
    };
    story.client(&[one("a"), one("b"), sync()]);
    let done = [frame(b'1', b""), frame(b'2', b""), complete("DEALLOCATE")].concat();
    story.server(&[done.clone(), done, ready(b'I')]);
    assert!(story.client.statements.is_empty());
    assert_eq!(story.relay.statement_count(), 0);
}

#[test]
fn a_deallocate_that_was_not_executed_takes_nothing_away_later() {
    let mut story = prepared("a");
    story.client(&[parse("", "DEALLOCATE a"), bind("a"), execute(), sync()]);
    story.server(&[frame(b'1', b""), error(), ready(b'I')]);
    story.client(&[query("PREPARE p AS SELECT 1; DEALLOCATE p")]);
    story.server(&[complete("PREPARE"), complete("DEALLOCATE"), ready(b'I')]);
    assert!(story.client.statements.contains(b"a"));
    assert_eq!(story.relay.statement_count(), 1);
}

#[test]
fn behind_a_deallocate_in_the_same_batch_the_statement_is_taught_again() {
    let mut story = prepared("a");
    story.client(&[
        parse("", "DEALLOCATE a"),
        bind(""),
        execute(),
        parse("a", "select 1"),
        sync(),
    ]);
    let done = [frame(b'1', b""), frame(b'2', b""), complete("DEALLOCATE")].concat();
    story.server(&[done, frame(b'1', b""), ready(b'I')]);
    assert!(story.client.statements.contains(b"a"));
    assert_eq!(story.relay.statement_count(), 1);
}

#[test]
fn behind_a_deallocate_all_by_the_extended_protocol_the_server_is_taught_again() {
    for sql in ["DEALLOCATE ALL", " discard all"] {
        let mut story = prepared("a");
        let (to_server, _) = story.client(&[
            parse("", sql),
            bind(""),
            execute(),
            parse("a", "select 1"),
            bind("a"),
            sync(),
        ]);
        let expected = [
            parse("", sql),
            bind(""),
            execute(),
            close("PGBOUNCER_1"),
            parse("PGBOUNCER_1", "select 1"),
            bind("PGBOUNCER_1"),
            sync(),
        ];
        assert_eq!(to_server, expected.concat(), "{sql}");
        let answers = [
            frame(b'1', b""),
            frame(b'2', b""),
            complete(&sql.trim().to_uppercase()),
            frame(b'3', b""),
            frame(b'1', b""),
            frame(b'2', b""),
            ready(b'I'),
        ];
        story.server(&answers);
        assert!(story.client.statements.contains(b"a"), "{sql}");
        assert_eq!(story.relay.statement_count(), 1, "{sql}");
    }
}

#[test]
fn what_a_function_has_deallocated_is_taught_again_after_the_error() {
    let mut story = prepared("a");
    story.client(&[bind("a"), execute(), sync()]);
    let missing = "SERROR\0C26000\0Mprepared statement \"PGBOUNCER_1\" does not exist\0";
    let raised = frame(b'E', format!("{missing}Rexec_stmt_raise\0\0").as_bytes());
    story.server(&[raised, ready(b'I')]);
    let again = [bind("PGBOUNCER_1"), execute(), sync()].concat();
    let (to_server, _) = story.client(&[bind("a"), execute(), sync()]);
    assert_eq!(to_server, again, "anybody can raise that");
    let said = frame(
        b'E',
        format!("{missing}RFetchPreparedStatement\0\0").as_bytes(),
    );
    story.server(&[said, ready(b'I')]);
    let (to_server, _) = story.client(&[bind("a"), execute(), sync()]);
    let expected = [parse("PGBOUNCER_1", "select 1"), again].concat();
    assert_eq!(to_server, expected);
}

#[test]
fn what_the_server_has_against_the_books_is_not_sent_again() {
    let mut story = prepared("a");
    let first = story.table.all()[0].id;
    story.relay.statements.remove(first);
    story.client(&[bind("a"), execute(), sync()]);
    let there = "prepared statement \"PGBOUNCER_1\" already exists";
    story.server(&[refusal("42P05", there), ready(b'I')]);
    let (to_server, _) = story.client(&[bind("a"), sync()]);
    assert_eq!(to_server, [bind("PGBOUNCER_1"), sync()].concat());
}

#[test]
fn what_a_statement_executes_is_taught_again_if_it_had_to_make_room() {
    let mut story = prepared("a");
    story.max_prepared = Some(2);
    story.client(&[parse("b", "EXECUTE a"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.client(&[parse("c", "select 3"), sync()]);
    story.server(&[frame(b'3', b""), frame(b'1', b""), ready(b'I')]);
    let (to_server, _) = story.client(&[bind("b"), execute(), sync()]);
    let expected = [
        close("PGBOUNCER_3"),
        parse("PGBOUNCER_1", "select 1"),
        bind("PGBOUNCER_2"),
        execute(),
        sync(),
    ];
    assert_eq!(to_server, expected.concat());
}
