//! Laws of parameters: what a client requested is in force whenever a server serves it, and nothing
//! that another client requested is.

use std::collections::BTreeMap;

use bytes::BytesMut;
use pgweir_wire::HEADER_LEN;
use proptest::prelude::*;

use super::*;
use crate::gather::Gather;
use crate::params::Tracked;
use crate::prepared::StatementTable;
use crate::testing::frame;

/// As much of a PostgreSQL session as parameters need: what is set in it. It runs what the relay
/// sends.
#[derive(Default)]
struct Session {
    set: BTreeMap<String, String>,
}

/// A value that no parameter takes.
const BAD: &str = "bad";

impl Session {
    fn value(&self, name: &str) -> &str {
        self.set.get(name).map_or("", String::as_str)
    }

    /// Runs a query in one transaction; its reply.
    fn run(&mut self, query: &[u8]) -> Vec<u8> {
        let sql = String::from_utf8(query[HEADER_LEN..query.len() - 1].to_vec()).expect("UTF-8");
        let before = self.set.clone();
        let mut reply = Vec::new();
        for command in commands(&sql) {
            match self.execute(&command) {
                Some(tag) => message(&mut reply, b'C', &format!("{tag}\0")),
                None => {
                    self.set = before;
                    message(&mut reply, b'E', "SERROR\0C22023\0Minvalid value\0\0");
                    break;
                }
            }
        }
        message(&mut reply, b'Z', "I");
        reply
    }

    fn execute(&mut self, command: &[String]) -> Option<&'static str> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["DISCARD" | "RESET", "ALL"] => {
                self.set.clear();
                Some(if words[0] == "RESET" {
                    "RESET"
                } else {
                    "DISCARD ALL"
                })
            }
            ["RESET", name] => {
                self.set.remove(*name);
                Some("RESET")
            }
            ["SET", name, value] => {
                self.set.insert((*name).to_owned(), (*value).to_owned());
                Some("SET")
            }
            ["SELECT", settings @ ..] => {
                for setting in settings.chunks(2) {
                    if setting[1] == BAD {
                        return None;
                    }
                    self.set
                        .insert(setting[0].to_owned(), setting[1].to_owned());
                }
                Some("SELECT 1")
            }
            other => panic!("not understood: {other:?}"),
        }
    }
}

/// The commands of a query as words, names and values without quotes; what is only syntax is left
/// out.
fn commands(sql: &str) -> Vec<Vec<String>> {
    let (mut commands, mut command, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut characters = sql.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                let escapes = word == "E";
                end_word(&mut word, &mut command);
                let mut text = String::new();
                while let Some(next) = characters.next() {
                    match next {
                        '\\' if escapes => text.extend(characters.next()),
                        _ if next == character && characters.peek() == Some(&character) => {
                            text.extend(characters.next());
                        }
                        _ if next == character => break,
                        _ => text.push(next),
                    }
                }
                command.push(text);
            }
            ';' => {
                end_word(&mut word, &mut command);
                commands.push(std::mem::take(&mut command));
            }
            ' ' | ',' | '(' | ')' | '=' => end_word(&mut word, &mut command),
            _ => word.push(character),
        }
    }
    end_word(&mut word, &mut command);
    if !command.is_empty() {
        commands.push(command);
    }
    commands
}

fn end_word(word: &mut String, command: &mut Vec<String>) {
    let word = std::mem::take(word);
    if !matches!(word.as_str(), "" | "pg_catalog.set_config" | "false" | "E") {
        command.push(word);
    }
}

fn message(out: &mut Vec<u8>, tag: u8, body: &str) {
    out.extend(frame(tag, body.as_bytes()));
}

/// One server, and clients that have it in turns.
struct Scene {
    relay: Relay,
    session: Session,
    /// What the sessions of the pool begin with (`connect_query`).
    begins_with: BTreeMap<String, String>,
    clients: Vec<ClientSide>,
    tracked: Tracked,
    table: StatementTable,
}

const NAMES: [&str; 3] = ["search_path", "jit", "app"];

impl Scene {
    fn new(requests: &[Vec<(usize, String)>], begins_with: &[(usize, String)]) -> Self {
        let mut scene = Self {
            relay: Relay::new(Values::default()),
            session: Session::default(),
            begins_with: BTreeMap::new(),
            clients: requests.iter().map(|_| ClientSide::default()).collect(),
            tracked: Tracked::new([]),
            table: StatementTable::default(),
        };
        let mut defaults = Parameters::default();
        for (name, value) in begins_with {
            let name = NAMES[*name];
            scene.begins_with.insert(name.to_owned(), value.clone());
            defaults.set(name, value);
        }
        scene.session.set.clone_from(&scene.begins_with);
        scene.relay.set_defaults(defaults);
        for (client, requests) in scene.clients.iter_mut().zip(requests) {
            for (name, value) in requests {
                client.values.request(NAMES[*name], value);
            }
        }
        scene
    }

    /// Fits the server to a client. `false`: it would not have that.
    fn fit(&mut self, client: usize) -> bool {
        let mut out = BytesMut::new();
        let side = &mut self.clients[client];
        if !self.relay.fit(side, &self.tracked, &mut out) {
            assert!(out.is_empty());
            return true;
        }
        let reply = self.session.run(&out);
        self.hear(client, &reply);
        assert!(self.relay.may_release());
        self.relay.take_refused().is_none()
    }

    /// The client runs a query.
    fn query(&mut self, client: usize, sql: &str) {
        let mut query = Vec::new();
        message(&mut query, b'Q', &format!("{sql}\0"));
        let rules = Rules::plain(&self.tracked, &self.table);
        let (mut out, mut fakes) = (Gather::default(), BytesMut::new());
        let side = &mut self.clients[client];
        let sent = self
            .relay
            .from_client(&query, side, &rules, &mut out, &mut fakes);
        sent.expect("a query is no violation");
        let reply = self.session.run(&query);
        self.hear(client, &reply);
    }

    fn hear(&mut self, client: usize, reply: &[u8]) {
        let rules = Rules::plain(&self.tracked, &self.table);
        let mut out = Gather::default();
        let side = &mut self.clients[client];
        let heard = self.relay.from_server(reply, side, &rules, &mut out);
        assert_eq!(heard, Ok(reply.len()));
    }

    fn assert_fits(&self, client: usize) {
        for name in NAMES {
            let requested = self.clients[client].values.requested().get(name);
            let default = self.begins_with.get(name).map_or("", String::as_str);
            assert_eq!(
                self.session.value(name),
                requested.unwrap_or(default),
                "{name}"
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Deed {
    /// Another client gets the server.
    Lend(usize),
    /// The client sets a parameter that it has requested.
    Set(usize, String),
    Reset(usize),
    ResetAll,
    DiscardAll,
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-z'\\\\\";, ]{1,4}", 1 => Just(BAD.to_owned())]
}

fn requests() -> impl Strategy<Value = Vec<(usize, String)>> {
    proptest::collection::vec((0..NAMES.len(), values()), 0..3)
}

/// What the pool's sessions begin with, and what happens. A client that resets takes the first away
/// from whoever comes next, as it does without a pooler's help.
fn lives() -> impl Strategy<Value = (Vec<(usize, String)>, Vec<Deed>)> {
    let begins_with = proptest::collection::vec((0..NAMES.len(), "[a-z]{1,2}"), 0..3);
    let lends = proptest::collection::vec((0..3usize).prop_map(Deed::Lend), 0..12);
    prop_oneof![(begins_with, lends), (Just(Vec::new()), deeds())]
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (0..3usize).prop_map(Deed::Lend),
        1 => (0..NAMES.len(), "[a-z]{1,2}").prop_map(|(name, value)| Deed::Set(name, value)),
        1 => (0..NAMES.len()).prop_map(Deed::Reset),
        1 => Just(Deed::ResetAll),
        1 => Just(Deed::DiscardAll),
    ];
    proptest::collection::vec(deed, 0..12)
}

proptest! {
    #[test]
    fn a_client_has_what_it_requested_and_nothing_of_others(
        clients in proptest::collection::vec(requests(), 3),
        (begins_with, deeds) in lives(),
    ) {
        let mut scene = Scene::new(&clients, &begins_with);
        let mut now = None;
        for deed in deeds {
            let sql = match (deed, now) {
                (Deed::Lend(client), _) => {
                    let before = scene.session.set.clone();
                    now = scene.fit(client).then_some(client);
                    match now {
                        Some(client) => scene.assert_fits(client),
                        None => prop_assert_eq!(&scene.session.set, &before),
                    }
                    continue;
                }
                (_, None) => continue,
                (Deed::Set(name, value), Some(client)) => {
                    // What it has not requested nobody keeps apart; that is another promise.
                    if scene.clients[client].values.requested().get(NAMES[name]).is_none() {
                        continue;
                    }
                    format!("SET {} = '{value}'", NAMES[name])
                }
                (Deed::Reset(name), Some(_)) => format!("RESET {}", NAMES[name]),
                (Deed::ResetAll, Some(_)) => "RESET ALL".to_owned(),
                (Deed::DiscardAll, Some(_)) => "DISCARD ALL".to_owned(),
            };
            let client = now.expect("a client has the server");
            scene.query(client, &sql);
            if scene.relay.was_reset() {
                prop_assert!(scene.fit(client));
                scene.assert_fits(client);
            }
        }
    }
}

#[test]
fn who_requests_nothing_costs_nothing() {
    let mut scene = Scene::new(&[vec![], vec![]], &[]);
    for client in [0, 1, 0] {
        let mut out = BytesMut::new();
        assert!(
            !scene
                .relay
                .fit(&mut scene.clients[client], &scene.tracked, &mut out)
        );
        scene.query(client, "RESET ALL");
        assert!(!scene.relay.was_reset());
    }
}

#[test]
fn a_client_that_leaves_while_it_is_fitted_is_not_forgotten() {
    let mut scene = Scene::new(&[vec![(1, "off".to_owned())], vec![]], &[]);
    let mut out = BytesMut::new();
    let requester = &mut scene.clients[0];
    assert!(scene.relay.fit(requester, &scene.tracked, &mut out));
    let reply = scene.session.run(&out);
    // Whoever cleans up hears the reply.
    scene.clients[0] = ClientSide::default();
    scene.hear(0, &reply);
    assert!(scene.fit(1));
    scene.assert_fits(1);
}

#[test]
fn what_the_server_reports_is_kept_but_not_over_a_reset() {
    let mut scene = Scene::new(&[vec![(1, "off".to_owned())]], &[]);
    assert!(scene.fit(0));
    let mut report = Vec::new();
    message(&mut report, b'S', "jit\0on\0");
    scene.hear(0, &report);
    assert_eq!(scene.clients[0].values.requested().get("jit"), Some("on"));
    scene.query(0, "RESET ALL");
    report[HEADER_LEN..].copy_from_slice(b"jit\0no\0");
    scene.hear(0, &report);
    assert_eq!(scene.clients[0].values.requested().get("jit"), Some("on"));
}

#[test]
fn a_server_that_keeps_what_others_requested_is_not_lent() {
    let mut scene = Scene::new(&[vec![(1, "off".to_owned())], vec![]], &[]);
    assert!(scene.fit(0));
    let mut out = BytesMut::new();
    let other = &mut scene.clients[1];
    assert!(scene.relay.fit(other, &scene.tracked, &mut out));
    let mut refusal = Vec::new();
    message(&mut refusal, b'E', "SERROR\0C42501\0Mno\0\0");
    let rules = Rules::plain(&scene.tracked, &scene.table);
    let heard = scene
        .relay
        .from_server(&refusal, other, &rules, &mut Gather::default());
    assert_eq!(heard, Err(Violation::UndoFailed("no".to_owned())));
}

#[test]
fn the_sessions_of_these_laws_read_what_the_relay_writes() {
    let sql = "RESET \"a\".\"b\";SELECT pg_catalog.set_config('x',E'it''s \\\\ ; ',false);";
    let read = commands(sql);
    // Names with a dot are one name to PostgreSQL and two words here; the laws have none.
    assert_eq!(
        read,
        [
            vec!["RESET", "a", ".", "b"],
            vec!["SELECT", "x", "it's \\ ; "]
        ]
    );
}
