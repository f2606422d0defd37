//! The list of prepared statements as a client would see it on a connection of its own: under its own
//! names, without those of other clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{HEADER_LEN, Header, put_frame};

use crate::prepared::{SERVER_NAME, Statement};
use crate::residue::scan::STATEMENTS_VIEW;
use crate::residue::tokens::{Token, Tokens};

/// Words that follow a name in FROM which has no other name there.
const FOLLOWS: [&[u8]; 24] = [
    b"cross",
    b"except",
    b"fetch",
    b"for",
    b"full",
    b"group",
    b"having",
    b"inner",
    b"intersect",
    b"join",
    b"left",
    b"limit",
    b"natural",
    b"offset",
    b"on",
    b"order",
    b"returning",
    b"right",
    b"set",
    b"tablesample",
    b"union",
    b"using",
    b"where",
    b"window",
];

/// Messages of which the first is a Query or Parse that reads the list, with the client's own in its
/// place. `None` if it does not.
pub fn own_list(messages: &[u8], names: &BTreeMap<Box<[u8]>, Arc<Statement>>) -> Option<Vec<u8>> {
    let header = Header::peek(messages, u32::MAX).ok().flatten()?;
    let (frame, others) = messages.split_at_checked(header.frame_len())?;
    let body = &frame[HEADER_LEN..];
    let start = match header.tag {
        tag::QUERY => 0,
        tag::PARSE => body.iter().position(|&byte| byte == 0)? + 1,
        _ => return None,
    };
    let text = &body[start..];
    let mentions = mentions(text);
    if mentions.is_empty() {
        return None;
    }
    let list = list(names);
    let (mut out, mut at) = (body[..start].to_vec(), 0);
    for mention in mentions {
        out.extend_from_slice(&text[at..mention.start]);
        out.extend_from_slice(&list);
        if !mention.is_named {
            out.extend_from_slice(b" AS ");
            out.extend_from_slice(STATEMENTS_VIEW);
        }
        at = mention.end;
    }
    out.extend_from_slice(&text[at..]);
    let mut own = Vec::new();
    put_frame(&mut own, header.tag, &[&out]).ok()?;
    own.extend_from_slice(others);
    Some(own)
}

struct Mention {
    start: usize,
    end: usize,
    /// Whether it has another name in the query.
    is_named: bool,
}

/// Where the list stands in a FROM; empty where the text can be read in two ways.
fn mentions(text: &[u8]) -> Vec<Mention> {
    let is = |token: &Option<Token<'_>>, word: &[u8]| matches!(token, Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
    let mut found = Vec::new();
    let mut tokens = Tokens::new(text);
    let (mut before, mut schema_at) = ([None, None, None], 0);
    while let Some(token) = tokens.next() {
        let token = Some(token);
        let end = text.len() - tokens.rest().len();
        if is(&token, b"pg_catalog") {
            schema_at = end - b"pg_catalog".len();
        }
        if is(&token, STATEMENTS_VIEW) {
            let [third, second, first] = &before;
            let is_qualified = *first == Some(Token::Symbol(b'.')) && is(second, b"pg_catalog");
            let (start, place) = match is_qualified {
                true => (schema_at, third),
                false => (end - STATEMENTS_VIEW.len(), first),
            };
            let is_from =
                is(place, b"from") || is(place, b"join") || *place == Some(Token::Symbol(b','));
            let next = tokens.peek();
            if is_from && next != Some(Token::Symbol(b'.')) {
                let is_named = match next {
                    Some(Token::Word(next)) => {
                        !FOLLOWS.iter().any(|word| next.eq_ignore_ascii_case(word))
                    }
                    Some(Token::Quoted(_)) => true,
                    _ => false,
                };
                found.push(Mention {
                    start,
                    end,
                    is_named,
                });
            }
        }
        before.rotate_left(1);
        before[2] = token;
    }
    if tokens.unreadable {
        found.clear();
    }
    found
}

/// The rows of the client's statements, and of those that SQL has prepared.
fn list(statements: &BTreeMap<Box<[u8]>, Arc<Statement>>) -> Vec<u8> {
    let mut names = Vec::new();
    for (name, statement) in statements {
        // With standard_conforming_strings = off a backslash would mean something else.
        if name.contains(&b'\\') {
            continue;
        }
        names.extend_from_slice(if names.is_empty() { b"('" } else { b",('" });
        for &byte in &**name {
            names.push(byte);
            if byte == b'\'' {
                names.push(byte);
            }
        }
        names.extend_from_slice(format!("','{}')", statement.server_name).as_bytes());
    }
    if names.is_empty() {
        names.extend_from_slice(b"(NULL,NULL)");
    }
    let head: &[u8] = b"(SELECT (pg_catalog.json_populate_record(s, \
        pg_catalog.json_build_object('name', n.own))).* \
        FROM pg_catalog.pg_prepared_statements s JOIN (VALUES ";
    let tail = format!(
        ") n(own, name) ON s.name OPERATOR(pg_catalog.=) n.name::pg_catalog.text \
         UNION ALL SELECT s.* FROM pg_catalog.pg_prepared_statements s \
         WHERE NOT pg_catalog.starts_with(s.name, '{SERVER_NAME}'))"
    );
    [head, &names, tail.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared::StatementTable;
    use crate::reading::Reading;
    use crate::testing::frame;

    /// The text with `LIST` for the list.
    fn changed(sql: &str) -> Option<String> {
        let table = StatementTable::default();
        let statement = table.intern(b"select 1\0\0\0", Reading::Fixed);
        let statements = BTreeMap::from([((*b"it's").into(), statement)]);
        let own = own_list(&frame(tag::QUERY, sql.as_bytes()), &statements)?;
        let list = String::from_utf8_lossy(&list(&statements)).into_owned();
        assert!(list.contains("('it''s','PGBOUNCER_1')"), "{list}");
        let text = String::from_utf8_lossy(&own[HEADER_LEN..]).into_owned();
        Some(text.replace(&list, "LIST"))
    }

    #[test]
    fn the_list_is_the_clients_own() {
        for (sql, expected) in [
            (
                "select * from pg_prepared_statements",
                "select * from LIST AS pg_prepared_statements",
            ),
            (
                "select name FROM pg_catalog.PG_prepared_statements WHERE true\0",
                "select name FROM LIST AS pg_prepared_statements WHERE true\0",
            ),
            (
                "select p.name from a join pg_prepared_statements p on true",
                "select p.name from a join LIST p on true",
            ),
            (
                "select pg_prepared_statements.name from pg_prepared_statements, b",
                "select pg_prepared_statements.name from LIST AS pg_prepared_statements, b",
            ),
        ] {
            assert_eq!(changed(sql).as_deref(), Some(expected));
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for sql in [
            "select 'from pg_prepared_statements'",
            "select * from mine.pg_prepared_statements",
            "grant select on pg_prepared_statements to a",
            "select \"from\" /* from pg_prepared_statements */",
            "select '\\' from pg_prepared_statements",
        ] {
            assert_eq!(changed(sql), None, "{sql}");
        }
    }
}
