//! Who hears what, while channels move to one connection.

use super::*;

fn names(names: &[&str]) -> Channels {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn board() -> Board<&'static str> {
    Board::new("marks".into())
}

fn hears(board: &mut Board<&'static str>, channel: &str) -> Vec<&'static str> {
    match board.heard(channel.as_bytes(), b"") {
        Heard::For(whom) => whom,
        Heard::Nobody => Vec::new(),
    }
}

#[test]
fn names_are_quoted_as_the_server_spells_them() {
    assert_eq!(
        listen(&names(&["a\"b", "É"])),
        "LISTEN \"a\"\"b\";LISTEN \"É\";"
    );
}

#[test]
fn a_client_hears_what_comes_after_its_mark() {
    let mut board = board();
    board.join(7, 1, "ann", names(&["a"]));
    assert_eq!(board.command().as_deref(), Some("LISTEN \"a\";"));
    assert_eq!(board.command(), None, "one answer is owed");
    assert!(board.ready().is_empty(), "it is not listened to yet");
    board.answered();
    assert_eq!(board.ready(), [(7, "ann")]);
    assert!(board.ready().is_empty(), "it is told once");
    assert!(hears(&mut board, "a").is_empty(), "its server tells it");
    assert!(hears(&mut board, "marks").is_empty());
    board.heard(b"marks", b"8");
    assert!(hears(&mut board, "a").is_empty(), "the mark was another's");
    board.heard(b"marks", b"7");
    assert_eq!(hears(&mut board, "a"), ["ann"]);
    assert!(hears(&mut board, "A").is_empty());
}

#[test]
fn the_connection_listens_for_as_long_as_somebody_wants_it() {
    let mut board = board();
    for (token, client, who) in [(1, 1, "ann"), (2, 2, "bob")] {
        board.join(token, client, who, names(&["a"]));
    }
    assert_eq!(board.command().as_deref(), Some("LISTEN \"a\";"));
    board.answered();
    assert_eq!(board.ready().len(), 2);
    board.heard(b"marks", b"1");
    board.leave(1, &names(&["a"]));
    assert_eq!(board.command(), None, "bob is on the way");
    board.heard(b"marks", b"2");
    assert_eq!(hears(&mut board, "a"), ["bob"]);
    board.forget(2);
    assert!(board.is_empty());
    assert_eq!(board.command().as_deref(), Some("UNLISTEN \"a\";"));
    assert_eq!(board.command(), None);
}

#[test]
fn who_leaves_before_its_mark_has_come_has_left() {
    let mut board = board();
    board.join(1, 1, "ann", names(&["a", "b"]));
    board.command();
    board.answered();
    assert_eq!(board.ready(), [(1, "ann")]);
    board.leave(1, &names(&["a"]));
    board.heard(b"marks", b"1");
    assert!(hears(&mut board, "a").is_empty());
    assert_eq!(hears(&mut board, "b"), ["ann"]);
    assert_eq!(board.command().as_deref(), Some("UNLISTEN \"a\";"));
}

#[test]
fn who_joins_while_a_channel_is_given_up_waits_for_it_again() {
    let mut board = board();
    board.join(1, 1, "ann", names(&["a", "b"]));
    board.command();
    board.answered();
    board.give_up(1);
    assert_eq!(
        board.command().as_deref(),
        Some("UNLISTEN \"a\";UNLISTEN \"b\";")
    );
    board.join(2, 2, "bob", names(&["b"]));
    assert!(board.ready().is_empty());
    board.answered();
    assert!(board.ready().is_empty());
    assert_eq!(board.command().as_deref(), Some("LISTEN \"b\";"));
    board.answered();
    assert_eq!(board.ready(), [(2, "bob")]);
}

#[test]
fn when_the_connection_is_lost_it_matters_who_depends_on_it() {
    let mut board = board();
    for (token, client, who) in [(1, 1, "ann"), (2, 2, "bob")] {
        board.join(token, client, who, names(&["a"]));
    }
    board.command();
    board.answered();
    board.ready();
    board.heard(b"marks", b"1");
    board.join(3, 3, "eve", names(&["b"]));
    assert_eq!(board.everybody(), (vec!["ann", "bob"], vec!["eve"]));
    assert_eq!(board.client_count(), 1);
    assert_eq!(board.channels().count(), 1);
}
