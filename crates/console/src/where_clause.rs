//! `WHERE app = 'report' AND age > '5min'`: which clients an order is for.
//!
//! ```text
//! where     = condition { "AND" condition }
//! condition = ( "app" | "user" | "database" ) ( "=" | "!=" ) value
//!           | "address" ( "=" | "!=" ) ( address | network | "unix" )
//!           | "state" ( "=" | "!=" ) ( "active" | "idle" | "idle in transaction" | "waiting" )
//!           | ( "age" | "idle" | "held" ) ( ">" | "<" ) time
//! ```

use std::net::IpAddr;
use std::time::Duration;

use crate::reply::CommandError;
use crate::tokens::Tokens;

/// What a client does, in words of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// A server works for it.
    Active,
    /// It has asked nothing.
    Idle,
    /// A server waits for it in the middle of a transaction.
    IdleInTransaction,
    /// It waits for a server.
    Waiting,
}

impl ClientState {
    /// Every state with its word.
    const WORDS: [(&'static str, Self); 4] = [
        ("active", Self::Active),
        ("idle", Self::Idle),
        ("idle in transaction", Self::IdleInTransaction),
        ("waiting", Self::Waiting),
    ];

    /// As it is written and shown.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle in transaction",
            Self::Waiting => "waiting",
        }
    }
}

/// What can be asked of a client.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its application_name.
    pub app: &'a str,
    /// As whom it logged in.
    pub user: &'a str,
    /// The database that it named.
    pub database: &'a str,
    /// Where it is; `None` is a Unix socket.
    pub address: Option<IpAddr>,
    /// What it does.
    pub state: ClientState,
    /// How long it has been connected.
    pub age: Duration,
    /// How long ago it last asked for something.
    pub idle: Duration,
    /// How long it has held its server, if it holds one.
    pub held: Option<Duration>,
}

/// Conditions that all have to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Where(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    /// Whether the test has to fail.
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    App(String),
    User(String),
    Database(String),
    Address(Place),
    State(ClientState),
    Longer(Clock, Duration),
    Shorter(Clock, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    App,
    User,
    Database,
    Address,
    State,
    Time(Clock),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Age,
    Idle,
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unix,
    /// An address and how many of its first bits count.
    Network(IpAddr, u32),
}

const FIELDS: [(&str, Field); 8] = [
    ("app", Field::App),
    ("user", Field::User),
    ("database", Field::Database),
    ("address", Field::Address),
    ("state", Field::State),
    ("age", Field::Time(Clock::Age)),
    ("idle", Field::Time(Clock::Idle)),
    ("held", Field::Time(Clock::Held)),
];

impl Where {
    /// Reads conditions as long as there are some.
    pub(crate) fn read(tokens: &mut Tokens) -> Result<Self, CommandError> {
        let mut conditions = vec![Condition::read(tokens)?];
        while tokens.keyword("AND") {
            conditions.push(Condition::read(tokens)?);
        }
        Ok(Self(conditions))
    }

    /// Whether all conditions hold for this client.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let mut conditions = self.0.iter();
        conditions.all(|condition| condition.test.holds(subject) != condition.negated)
    }
}

impl Condition {
    fn read(tokens: &mut Tokens) -> Result<Self, CommandError> {
        let field = tokens.choice("a condition", &FIELDS)?;
        if let Field::Time(clock) = field {
            return Self::read_time(tokens, clock);
        }
        let negated = tokens.sign("!=");
        if !negated && !tokens.sign("=") {
            return Err(tokens.error("= or != is expected"));
        }
        let before = tokens.clone();
        let value = tokens.value("a value")?;
        let test = match field {
            Field::App => Test::App(value),
            Field::User => Test::User(value),
            Field::Database => Test::Database(value),
            Field::Address => Test::Address(place(&value).ok_or_else(|| {
                before.error("an address, a network like '10.0.0.0/8' or 'unix' is expected")
            })?),
            Field::State => Test::State(state(&value).ok_or_else(|| {
                let words = ClientState::WORDS.map(|(word, _)| format!("'{word}'"));
                before.error(&format!("a state is expected: {}", words.join(", ")))
            })?),
            Field::Time(_) => return Err(before.error("a time is compared by > or <")),
        };
        Ok(Self { negated, test })
    }

    fn read_time(tokens: &mut Tokens, clock: Clock) -> Result<Self, CommandError> {
        let longer = tokens.sign(">");
        if !longer && !tokens.sign("<") {
            return Err(tokens.error("> or < is expected"));
        }
        let time = tokens.time()?;
        Ok(Self {
            negated: false,
            test: match longer {
                true => Test::Longer(clock, time),
                false => Test::Shorter(clock, time),
            },
        })
    }
}

impl Test {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::App(app) => subject.app == app,
            Self::User(user) => subject.user == user,
            Self::Database(database) => subject.database == database,
            Self::Address(place) => place.contains(subject.address),
            Self::State(state) => subject.state == *state,
            // Who holds no server has held it neither long nor briefly.
            Self::Longer(clock, time) => clock.of(subject).is_some_and(|passed| passed > *time),
            Self::Shorter(clock, time) => clock.of(subject).is_some_and(|passed| passed < *time),
        }
    }
}

impl Clock {
    fn of(self, subject: &Subject<'_>) -> Option<Duration> {
        match self {
            Self::Age => Some(subject.age),
            Self::Idle => Some(subject.idle),
            Self::Held => subject.held,
        }
    }
}

impl Place {
    fn contains(self, address: Option<IpAddr>) -> bool {
        match (self, address.map(|ip| ip.to_canonical())) {
            (Self::Unix, address) => address.is_none(),
            (Self::Network(..), None) => false,
            (Self::Network(IpAddr::V4(network), bits), Some(IpAddr::V4(ip))) => {
                let differing = network.to_bits() ^ ip.to_bits();
                differing.checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (Self::Network(IpAddr::V6(network), bits), Some(IpAddr::V6(ip))) => {
                let differing = network.to_bits() ^ ip.to_bits();
                differing.checked_shr(128 - bits).unwrap_or(0) == 0
            }
            (Self::Network(..), Some(_)) => false,
        }
    }
}

fn state(text: &str) -> Option<ClientState> {
    let mut words = ClientState::WORDS.into_iter();
    words
        .find(|(word, _)| word.eq_ignore_ascii_case(text))
        .map(|(_, state)| state)
}

fn place(text: &str) -> Option<Place> {
    if text.eq_ignore_ascii_case("unix") {
        return Some(Place::Unix);
    }
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let all = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some(Place::Network(ip, bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn client() -> Subject<'static> {
        Subject {
            app: "report",
            user: "alice",
            database: "shop",
            address: Some(IpAddr::from([10, 1, 2, 3])),
            state: ClientState::IdleInTransaction,
            age: 10 * MINUTE,
            idle: 2 * MINUTE,
            held: Some(3 * MINUTE),
        }
    }

    fn read(text: &str) -> Result<Where, CommandError> {
        let mut tokens = Tokens::new(text);
        let clause = Where::read(&mut tokens)?;
        tokens.end().map(|()| clause)
    }

    fn matches(text: &str, client: &Subject<'_>) -> bool {
        read(text).expect(text).matches(client)
    }

    #[test]
    fn each_condition_asks_for_one_thing() {
        let holds = [
            "app = 'report'",
            "APP = report",
            "user = alice",
            "database = \"shop\"",
            "state = 'idle in transaction'",
            "state != active",
            "app != 'web'",
            "age > '5min'",
            "age < 1h",
            "idle > 119",
            "held > '2min'",
            "held < '4min'",
            "app = report and state = 'Idle In Transaction' and age > '5min'",
        ];
        for text in holds {
            assert!(matches(text, &client()), "{text}");
        }
        let fails = [
            "app = 'Report'",
            "user != alice",
            "database = shopping",
            "state = idle",
            "age > '10min'",
            "age < '10min'",
            "idle < '2min'",
            "app = report and age > '1h'",
        ];
        for text in fails {
            assert!(!matches(text, &client()), "{text}");
        }
    }

    #[test]
    fn who_holds_nothing_has_no_time_of_holding() {
        let client = Subject {
            held: None,
            ..client()
        };
        assert!(!matches("held > 0s", &client) && !matches("held < 1d", &client));
    }

    #[test]
    fn addresses_and_networks() {
        let at = |address: Option<&str>| Subject {
            address: address.map(|text| text.parse().expect(text)),
            ..client()
        };
        let table = [
            ("10.1.2.3", Some("10.1.2.3"), true),
            ("10.1.2.3", Some("10.1.2.4"), false),
            ("10.0.0.0/8", Some("10.200.0.1"), true),
            ("10.0.0.0/8", Some("11.0.0.0"), false),
            ("10.1.2.2/31", Some("10.1.2.3"), true),
            ("0.0.0.0/0", Some("192.0.2.1"), true),
            ("0.0.0.0/0", Some("::1"), false),
            ("0.0.0.0/0", None, false),
            ("10.0.0.0/8", Some("::ffff:10.0.0.1"), true),
            ("fd00::/8", Some("fd12::1"), true),
            ("::/0", Some("2001:db8::1"), true),
            ("2001:db8::1", Some("2001:db8::2"), false),
            ("unix", None, true),
            ("unix", Some("10.1.2.3"), false),
        ];
        for (place, address, is_in) in table {
            assert_eq!(
                matches(&format!("address = '{place}'"), &at(address)),
                is_in,
                "{place} {address:?}"
            );
            assert_eq!(
                matches(&format!("address != {place}"), &at(address)),
                !is_in
            );
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let table = [
            (
                "",
                "at the end: a condition is expected: app, user, database, address, state, age, idle, held",
            ),
            (
                "name = x",
                "at \"name\": a condition is expected: app, user, database, address, state, age, idle, held",
            ),
            ("app > 'x'", "at \">\": = or != is expected"),
            ("age = '5min'", "at \"=\": > or < is expected"),
            (
                "age > 5m",
                "at \"5m\": a time like '90s', '5min' or '1h' is expected",
            ),
            (
                "state = idel",
                "at \"idel\": a state is expected: 'active', 'idle', 'idle in transaction', 'waiting'",
            ),
            (
                "state = idle in transaction",
                "at \"in\": nothing more is expected",
            ),
            (
                "address = 10.0.0.0/33",
                "at \"10.0.0.0/33\": an address, a network like '10.0.0.0/8' or 'unix' is expected",
            ),
            ("app = x or app = y", "at \"or\": nothing more is expected"),
        ];
        for (text, error) in table {
            let found = read(text).expect_err(text).to_string();
            assert_eq!(found, format!("syntax error {error}"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_condition_or_its_opposite_holds(ip: u32, network: u32, bits in 0..=32u32) {
            let client = Subject { address: Some(IpAddr::from(ip.to_be_bytes())), ..client() };
            let place = format!("{}/{bits}", IpAddr::from(network.to_be_bytes()));
            let equal = matches(&format!("address = {place}"), &client);
            prop_assert_ne!(equal, matches(&format!("address != {place}"), &client));
        }
    }
}
