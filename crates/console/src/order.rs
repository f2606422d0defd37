//! The orders that PgBouncer does not have, and their grammar.
//!
//! ```text
//! KILL CLIENTS WHERE conditions [DRY RUN]                     (conditions: see where_clause.rs)
//! MAINTENANCE ON database [MODE hold | reject] [MESSAGE text] [TTL time]
//! MAINTENANCE OFF database
//! DRAIN database [WITHIN time]
//! SET key = value [FOR DATABASE name | FOR USER name] TTL time
//! RESIZE database = servers TTL time                          (SET pool_size FOR DATABASE)
//! RELEASE id
//! DIAGNOSE database [USER name]
//! ROTATE database [USER name]
//! WHY database
//! ```
//! What PgBouncer understands is PgBouncer's: these are tried on what it would call invalid.

use std::time::Duration;

use crate::reply::CommandError;
use crate::tokens::Tokens;
use crate::where_clause::Where;

/// How long a hold lasts if nobody says otherwise: clients that are kept waiting must not be
/// forgotten.
const HOLD_TTL: Duration = Duration::from_secs(15 * 60);

/// How long a drain waits for safe points if nobody says otherwise.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// An order to the pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End clients at once.
    KillClients {
        /// Which.
        which: Where,
        /// Only list them.
        dry_run: bool,
    },
    /// Let no new transactions of a database begin.
    MaintenanceOn {
        /// Which database.
        database: String,
        /// What becomes of clients meanwhile.
        mode: MaintenanceMode,
        /// What clients that are refused are told.
        message: Option<String>,
        /// After which time it ends by itself.
        ttl: Option<Duration>,
    },
    /// Let them begin again.
    MaintenanceOff(String),
    /// End all clients of a database between their transactions.
    Drain {
        /// Which database.
        database: String,
        /// After which time the rest is ended in the middle.
        within: Duration,
    },
    /// Change a key for a while.
    Override {
        /// Where the key stands.
        target: Target,
        /// The key, not yet known to exist.
        key: String,
        /// The value, not yet parsed.
        value: String,
        /// For how long.
        ttl: Duration,
    },
    /// Count a quarantined server no more.
    Release(u64),
    /// Open a connection to where a database leads, and say how far that goes.
    Diagnose {
        /// Which database.
        database: String,
        /// As whom; without it, whoever has used it, or may.
        user: Option<String>,
    },
    /// Read the secrets of a user again, and try them.
    Rotate {
        /// Where.
        database: String,
        /// Whose; without it, as for a diagnosis.
        user: Option<String>,
    },
    /// Say what the clients and servers of a database wait for.
    Why(String),
}

/// What becomes of clients during maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintenanceMode {
    /// They wait.
    Hold,
    /// They are refused.
    Reject,
}

impl MaintenanceMode {
    /// As it is written and shown.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Reject => "reject",
        }
    }
}

/// Where a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In the main section.
    Main,
    /// In the entry of a database.
    Database(String),
    /// In the entry of a user.
    User(String),
}

impl Order {
    /// The tag of CommandComplete, for orders that do not count anything.
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::KillClients { .. } => "KILL",
            Self::MaintenanceOn { .. } | Self::MaintenanceOff(_) => "MAINTENANCE",
            Self::Drain { .. } => "DRAIN",
            Self::Override { .. } => "SET",
            Self::Release(_) => "RELEASE",
            Self::Diagnose { .. } => "DIAGNOSE",
            Self::Rotate { .. } => "ROTATE",
            Self::Why(_) => "WHY",
        }
    }
}

/// Reads an order; `None` if it is not one of ours.
pub(crate) fn parse(text: &str) -> Option<Result<Order, CommandError>> {
    let mut tokens = Tokens::new(text);
    if tokens.keyword("KILL") {
        let is_ours = tokens.keyword("CLIENTS") && tokens.keyword("WHERE");
        return is_ours.then(|| kill_clients(tokens));
    }
    if tokens.keyword("SET") {
        return set(tokens);
    }
    if tokens.keyword("MAINTENANCE") {
        return Some(maintenance(tokens));
    }
    if tokens.keyword("DRAIN") {
        return Some(drain(tokens));
    }
    if tokens.keyword("RESIZE") {
        return Some(resize(tokens));
    }
    if tokens.keyword("DIAGNOSE") {
        return Some(diagnose(tokens));
    }
    if tokens.keyword("ROTATE") {
        return Some(rotate(tokens));
    }
    if tokens.keyword("WHY") {
        return Some(why(tokens));
    }
    tokens.keyword("RELEASE").then(|| release(tokens))
}

fn diagnose(tokens: Tokens) -> Result<Order, CommandError> {
    let (database, user) = database_and_user(tokens)?;
    Ok(Order::Diagnose { database, user })
}

fn rotate(tokens: Tokens) -> Result<Order, CommandError> {
    let (database, user) = database_and_user(tokens)?;
    Ok(Order::Rotate { database, user })
}

fn database_and_user(mut tokens: Tokens) -> Result<(String, Option<String>), CommandError> {
    let database = tokens.name("a database")?;
    let user = tokens
        .keyword("USER")
        .then(|| tokens.name("a user"))
        .transpose()?;
    tokens.end()?;
    Ok((database, user))
}

fn why(mut tokens: Tokens) -> Result<Order, CommandError> {
    let database = tokens.name("a database")?;
    tokens.end().map(|()| Order::Why(database))
}

fn kill_clients(mut tokens: Tokens) -> Result<Order, CommandError> {
    let which = Where::read(&mut tokens)?;
    let dry_run = tokens.keyword("DRY");
    if dry_run {
        tokens.expect("RUN")?;
    }
    tokens.end()?;
    Ok(Order::KillClients { which, dry_run })
}

fn maintenance(mut tokens: Tokens) -> Result<Order, CommandError> {
    let on = tokens.choice("ON or OFF", &[("on", true), ("off", false)])?;
    let database = tokens.name("a database")?;
    if !on {
        tokens.end()?;
        return Ok(Order::MaintenanceOff(database));
    }
    let mut mode = MaintenanceMode::Hold;
    if tokens.keyword("MODE") {
        let modes = [
            ("hold", MaintenanceMode::Hold),
            ("reject", MaintenanceMode::Reject),
        ];
        mode = tokens.choice("a mode", &modes)?;
    }
    let message = tokens
        .keyword("MESSAGE")
        .then(|| tokens.name("a message"))
        .transpose()?;
    let ttl = ttl(&mut tokens)?;
    tokens.end()?;
    Ok(Order::MaintenanceOn {
        database,
        mode,
        message,
        ttl: ttl.or((mode == MaintenanceMode::Hold).then_some(HOLD_TTL)),
    })
}

fn drain(mut tokens: Tokens) -> Result<Order, CommandError> {
    let database = tokens.name("a database")?;
    let within = match tokens.keyword("WITHIN") {
        true => tokens.time()?,
        false => DRAIN_WITHIN,
    };
    tokens.end()?;
    Ok(Order::Drain { database, within })
}

/// `SET key = value` alone is PgBouncer's.
fn set(mut tokens: Tokens) -> Option<Result<Order, CommandError>> {
    let key = tokens.name("a key").ok()?;
    if !tokens.sign("=") && !tokens.keyword("TO") {
        return None;
    }
    let value = tokens.value("a value").ok()?;
    let is_ours = ["FOR", "TTL"]
        .iter()
        .any(|word| tokens.clone().keyword(word));
    is_ours.then(|| set_for_a_while(key, value, tokens))
}

fn set_for_a_while(key: String, value: String, mut tokens: Tokens) -> Result<Order, CommandError> {
    let mut target = Target::Main;
    if tokens.keyword("FOR") {
        let is_database = [("DATABASE", true), ("USER", false)];
        target = match tokens.choice("whose key it is", &is_database)? {
            true => Target::Database(tokens.name("a database")?),
            false => Target::User(tokens.name("a user")?),
        };
    }
    let ttl = needed_ttl(&mut tokens)?;
    Ok(Order::Override {
        target,
        key: key.to_ascii_lowercase(),
        value,
        ttl,
    })
}

fn resize(mut tokens: Tokens) -> Result<Order, CommandError> {
    let database = tokens.name("a database")?;
    if !tokens.sign("=") && !tokens.keyword("TO") {
        return Err(tokens.error("= is expected"));
    }
    let value = tokens.value("a number of servers")?;
    let ttl = needed_ttl(&mut tokens)?;
    Ok(Order::Override {
        target: Target::Database(database),
        key: "pool_size".to_owned(),
        value,
        ttl,
    })
}

fn release(mut tokens: Tokens) -> Result<Order, CommandError> {
    let before = tokens.clone();
    let id = tokens.value("an id of SHOW QUARANTINE")?;
    let id = id
        .parse()
        .map_err(|_| before.error("an id of SHOW QUARANTINE is expected"))?;
    tokens.end()?;
    Ok(Order::Release(id))
}

fn ttl(tokens: &mut Tokens) -> Result<Option<Duration>, CommandError> {
    if !tokens.keyword("TTL") {
        return Ok(None);
    }
    let before = tokens.clone();
    let ttl = tokens.time()?;
    match ttl.is_zero() {
        true => Err(before.error("a time longer than nothing is expected")),
        false => Ok(Some(ttl)),
    }
}

fn needed_ttl(tokens: &mut Tokens) -> Result<Duration, CommandError> {
    let ttl = ttl(tokens)?.ok_or_else(|| tokens.error("TTL and a time like '1h' are expected"))?;
    tokens.end().map(|()| ttl)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Access, Command, Statement};

    fn order(text: &str) -> Order {
        match crate::parse(text) {
            Ok(Statement::Run(Command::Order(order))) => order,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn error(text: &str) -> String {
        crate::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn clients_are_killed_by_conditions() {
        let parsed = order("KILL CLIENTS WHERE app = 'report' AND age > '5min' DRY RUN;");
        assert!(matches!(parsed, Order::KillClients { dry_run: true, .. }));
        let parsed = order("kill clients where user=alice");
        assert!(matches!(parsed, Order::KillClients { dry_run: false, .. }));
        assert_eq!(
            error("kill clients where user=alice dry"),
            "syntax error at the end: RUN is expected"
        );
    }

    #[test]
    fn what_pgbouncer_understands_stays_pgbouncers() {
        let run = |command| Ok(Statement::Run(command));
        let kill = Command::Kill(Some("clients".to_owned()));
        assert_eq!(crate::parse("kill clients"), run(kill));
        let set = Command::Set {
            key: "verbose".to_owned(),
            value: "1".to_owned(),
        };
        assert_eq!(crate::parse("set verbose = '1'"), run(set));
        for text in [
            "kill clients now",
            "set verbose = 1 2",
            "drains db",
            "set ttl",
        ] {
            assert_eq!(
                error(text),
                format!("invalid command '{text}', use SHOW HELP;")
            );
        }
    }

    #[test]
    fn maintenance_holds_for_a_while_or_rejects() {
        let on = |mode, message: Option<&str>, ttl: Option<u64>| Order::MaintenanceOn {
            database: "shop".to_owned(),
            mode,
            message: message.map(str::to_owned),
            ttl: ttl.map(Duration::from_secs),
        };
        let (hold, reject) = (MaintenanceMode::Hold, MaintenanceMode::Reject);
        assert_eq!(order("maintenance on shop"), on(hold, None, Some(900)));
        assert_eq!(
            order("maintenance on shop mode reject"),
            on(reject, None, None)
        );
        assert_eq!(
            order("MAINTENANCE ON shop MODE hold MESSAGE 'back at noon' TTL '2min'"),
            on(hold, Some("back at noon"), Some(120))
        );
        assert_eq!(
            order("maintenance off \"a shop\""),
            Order::MaintenanceOff("a shop".to_owned())
        );
        assert_eq!(
            error("maintenance shop"),
            "syntax error at \"shop\": ON or OFF is expected: on, off"
        );
        assert_eq!(
            error("maintenance on shop mode stop"),
            "syntax error at \"stop\": a mode is expected: hold, reject"
        );
        assert_eq!(
            error("maintenance on shop ttl 0"),
            "syntax error at \"0\": a time longer than nothing is expected"
        );
    }

    #[test]
    fn a_drain_has_a_deadline() {
        let drain = |seconds| Order::Drain {
            database: "shop".to_owned(),
            within: Duration::from_secs(seconds),
        };
        assert_eq!(order("drain shop"), drain(30));
        assert_eq!(order("DRAIN shop WITHIN '5s';"), drain(5));
        assert_eq!(order("drain shop within 0"), drain(0));
        assert_eq!(
            error("drain"),
            "syntax error at the end: a database is expected"
        );
    }

    #[test]
    fn a_key_is_set_for_a_while() {
        let set = |target, key: &str, value: &str| Order::Override {
            target,
            key: key.to_owned(),
            value: value.to_owned(),
            ttl: Duration::from_secs(3600),
        };
        let shop = || Target::Database("shop".to_owned());
        assert_eq!(
            order("SET query_timeout = '5' TTL '1h'"),
            set(Target::Main, "query_timeout", "5")
        );
        assert_eq!(
            order("set pool_size to 40 for database shop ttl 1h"),
            set(shop(), "pool_size", "40")
        );
        assert_eq!(
            order("set pool_mode = session for user bob ttl 60min"),
            set(Target::User("bob".to_owned()), "pool_mode", "session")
        );
        assert_eq!(
            order("resize shop = 40 ttl 1h"),
            set(shop(), "pool_size", "40")
        );
        assert_eq!(
            error("set pool_size = 40 for database shop"),
            "syntax error at the end: TTL and a time like '1h' are expected"
        );
        assert_eq!(
            error("set pool_size = 40 for shop ttl 1h"),
            "syntax error at \"shop\": whose key it is is expected: DATABASE, USER"
        );
    }

    #[test]
    fn a_slot_is_released_by_its_number() {
        assert_eq!(order("release 7"), Order::Release(7));
        assert_eq!(
            error("release x"),
            "syntax error at \"x\": an id of SHOW QUARANTINE is expected"
        );
    }

    #[test]
    fn questions_name_a_database() {
        let diagnose = |user: Option<&str>| Order::Diagnose {
            database: "shop".to_owned(),
            user: user.map(str::to_owned),
        };
        assert_eq!(order("diagnose shop"), diagnose(None));
        assert_eq!(order("DIAGNOSE \"shop\" USER ann;"), diagnose(Some("ann")));
        let rotate = Order::Rotate {
            database: "shop".to_owned(),
            user: Some("ann".to_owned()),
        };
        assert_eq!(order("rotate shop user ann"), rotate);
        assert_eq!(order("why shop"), Order::Why("shop".to_owned()));
        assert_eq!(
            error("diagnose"),
            "syntax error at the end: a database is expected"
        );
        assert_eq!(
            error("why shop now"),
            "syntax error at \"now\": nothing more is expected"
        );
    }

    #[test]
    fn orders_are_for_admins() {
        for text in [
            "drain shop",
            "release 1",
            "maintenance off shop",
            "why shop",
            "rotate shop",
        ] {
            let refused = Access::Stats.admit(crate::parse(text));
            assert_eq!(refused, Err(CommandError::AdminAccessNeeded), "{text}");
        }
    }
}
