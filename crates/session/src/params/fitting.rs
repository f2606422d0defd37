//! The commands that bring a server from one client's values to another's.

use std::fmt::Write as _;

use super::{RIGHTS, Tracked, Values, literal};
use crate::parameters::Parameters;

impl Values {
    /// What brings a server from `server` to these values; `None` if it is there. `defaults` are the
    /// values that its sessions do not begin with, but have when nobody requested another one.
    ///
    /// PgBouncer compares all tracked values without case. Here that is so only where case means nothing.
    pub fn fitting(
        &self,
        server: &Self,
        tracked: &Tracked,
        defaults: &Parameters,
    ) -> Option<Fitting> {
        let (wanted, there) = (self.requested(), server.requested());
        let mut sql = String::new();
        let mut undoing = 0;
        // Rights first: they may be needed to take back the rest.
        let rights = RIGHTS
            .into_iter()
            .rev()
            .filter(|name| there.contains(name) && !wanted.contains(name));
        let others = there.beyond(wanted).filter(|name| !RIGHTS.contains(name));
        for name in rights.chain(others) {
            match defaults.get(name) {
                Some(value) => set_config(&mut sql, [(name, value)]),
                None => {
                    // Writing into a String cannot fail.
                    let _ = write!(sql, "RESET \"{}\";", name.replace('.', "\".\""));
                }
            }
            undoing += 1;
        }
        for (index, name) in tracked.names().enumerate() {
            let Some(wanted) = self.get(index) else {
                continue;
            };
            let there = server.get(index);
            if there.is_some_and(|there| means_same(name, there, wanted)) {
                continue;
            }
            if is_any(&LISTS, name) {
                set_config(&mut sql, [(name, &**wanted)]);
            } else {
                let _ = write!(sql, "SET {name}={};", literal(wanted));
            }
        }
        // Rights last: with them the rest may not be allowed any more. To set the first is to lose the second.
        let differs = RIGHTS.iter().any(|name| {
            wanted.get(name) != there.get(name) || wanted.contains(name) != there.contains(name)
        });
        let rights = RIGHTS
            .into_iter()
            .filter_map(|name| Some((name, wanted.get(name).filter(|_| differs)?)));
        let others = wanted
            .differing(there)
            .filter(|(name, _)| !RIGHTS.contains(name));
        let settings: Vec<_> = others.chain(rights).collect();
        set_config(&mut sql, settings.iter().copied());
        let names = settings.into_iter().map(|(name, _)| name.into()).collect();
        (!sql.is_empty()).then_some(Fitting {
            sql,
            undoing,
            names,
        })
    }
}

/// Commands that bring a server to a client's values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fitting {
    /// The commands.
    pub sql: String,
    /// How many of them, the first, only take back what others had requested. If one of those fails,
    /// the client is not to blame.
    pub undoing: usize,
    /// The parameters whose values, as the server spells them, are the last row of the reply.
    pub names: Vec<Box<str>>,
}

/// Parameters whose values are lists of names, which the server tells with the quotes that they need.
const LISTS: [&str; 4] = [
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
];

/// Parameters of which two values that differ in case only mean the same.
const CASELESS: [&str; 5] = [
    "DateStyle",
    "client_encoding",
    "TimeZone",
    "standard_conforming_strings",
    "IntervalStyle",
];

fn is_any(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn means_same(name: &str, one: &str, other: &str) -> bool {
    one == other || is_any(&CASELESS, name) && one.eq_ignore_ascii_case(other)
}

/// Sets parameters with the very texts that a startup message has. SET would take a list (`a, b` of
/// search_path) for one word.
fn set_config<'a>(sql: &mut String, settings: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let begin = sql.len();
    for (name, value) in settings {
        sql.push_str(if sql.len() == begin { "SELECT " } else { "," });
        let (name, value) = (literal(name), literal(value));
        let _ = write!(sql, "pg_catalog.set_config({name},{value},false)");
    }
    if sql.len() > begin {
        sql.push(';');
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;
    use super::*;

    fn sql(client: &Values, server: &Values) -> Option<String> {
        let tracked = Tracked::new(["IntervalStyle"]);
        let fitting = client.fitting(server, &tracked, &Parameters::default());
        fitting.map(|fitting| fitting.sql)
    }

    #[test]
    fn a_list_is_set_as_the_server_has_told_it() {
        let tracked = Tracked::new(["search_path"]);
        let index = tracked.index("search_path").unwrap();
        let (mut client, mut server) = (Values::default(), Values::default());
        client.set(index, "\"Tenant\", public");
        server.set(index, "tenant, public");
        let fitting = client.fitting(&server, &tracked, &Parameters::default());
        assert_eq!(
            fitting.map(|fitting| fitting.sql).as_deref(),
            Some("SELECT pg_catalog.set_config('search_path','\"Tenant\", public',false);")
        );
    }

    #[test]
    fn case_counts_where_it_means_something() {
        let tracked = Tracked::new([]);
        let (mut client, mut server) = (Values::default(), Values::default());
        for (name, one, other) in [
            ("client_encoding", "utf8", "UTF8"),
            ("application_name", "app", "App"),
        ] {
            let index = tracked.index(name).unwrap();
            client.set(index, one);
            server.set(index, other);
        }
        let fitting = client.fitting(&server, &tracked, &Parameters::default());
        assert_eq!(
            fitting.map(|fitting| fitting.sql).as_deref(),
            Some("SET application_name='app';")
        );
    }

    #[test]
    fn only_what_differs_is_set() {
        let tracked = Tracked::new(["IntervalStyle"]);
        let server = values(
            &tracked,
            &[
                ("TimeZone", "UTC"),
                ("DateStyle", "ISO, MDY"),
                ("client_encoding", "UTF8"),
            ],
        );
        let client = values(
            &tracked,
            &[("timezone", "Europe/Paris"), ("client_encoding", "utf8")],
        );
        assert_eq!(
            sql(&client, &server).as_deref(),
            Some("SET TimeZone='Europe/Paris';")
        );
        assert_eq!(sql(&server, &server), None);
    }

    #[test]
    fn requests_are_set_and_taken_back() {
        let mut client = Values::default();
        client.request("search_path", "a, b");
        client.request("My_App.Tenant", "it's");
        let set = "SELECT pg_catalog.set_config('my_app.tenant','it''s',false),\
                   pg_catalog.set_config('search_path','a, b',false);";
        assert_eq!(sql(&client, &Values::default()).as_deref(), Some(set));
        assert_eq!(sql(&client, &client.clone()), None);
        let taken_back = Values::default()
            .fitting(&client, &Tracked::new([]), &Parameters::default())
            .unwrap();
        let undo = "RESET \"my_app\".\"tenant\";RESET \"search_path\";";
        assert_eq!((&*taken_back.sql, taken_back.undoing), (undo, 2));
    }

    #[test]
    fn a_request_is_taken_back_to_what_servers_of_the_pool_begin_with() {
        let mut server = Values::default();
        server.request("search_path", "a");
        let mut defaults = Parameters::default();
        defaults.set("search_path", "app");
        let undo = Values::default()
            .fitting(&server, &Tracked::new([]), &defaults)
            .unwrap();
        assert_eq!(
            undo.sql,
            "SELECT pg_catalog.set_config('search_path','app',false);"
        );
    }

    #[test]
    fn a_request_in_doubt_is_set_again() {
        let mut client = Values::default();
        client.request("jit", "off");
        let mut server = client.clone();
        server.doubt_requested();
        assert!(!client.same(&server));
        assert!(sql(&client, &server).unwrap().contains("'off'"));
        assert_eq!(
            sql(&Values::default(), &server).as_deref(),
            Some("RESET \"jit\";")
        );
    }
}
