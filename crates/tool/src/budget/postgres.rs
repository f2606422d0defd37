//! Asks PostgreSQL itself for its limits, as somebody whose password the configuration has.

use pgweir_config::{Config, HostDemand};

use crate::budget::plan::Limits;
use crate::console::{self, Place};
use crate::reach;

const QUESTION: &str = "SELECT current_setting('max_connections') AS max, \
    current_setting('superuser_reserved_connections')::int \
    + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved";

/// A login that the configuration knows.
#[derive(Debug, Eq, PartialEq)]
struct Login {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: Option<String>,
}

/// What a PostgreSQL says of its limits; nothing if it cannot be asked.
pub(super) async fn ask(config: &Config, demand: &HostDemand) -> Option<Limits> {
    let login = login(config, demand)?;
    let Login {
        host,
        port,
        database,
        user,
        password,
    } = &login;
    let place = Place {
        host,
        port: *port,
        ca: None,
    };
    let client = console::connect(&place, database, user, password.as_deref()).await;
    let answer = client.ok()?.simple_query(QUESTION).await.ok()?;
    let table = console::table(answer);
    let row = table.rows().next()?;
    Some(Limits {
        max_connections: u32::try_from(row.number("max")?).ok()?,
        reserved: u32::try_from(row.number("reserved")?).ok()?,
        source: "as PostgreSQL says".to_owned(),
    })
}

/// The first entry with a user whose password is known, or who may need none.
fn login(config: &Config, demand: &HostDemand) -> Option<Login> {
    let users = reach::users_of(config);
    let mut listed: Vec<&str> = users.iter().map(|(name, _)| name).collect();
    listed.sort_unstable();
    let listed = listed
        .into_iter()
        .find(|name| reach::password_of(&users, name).is_some());
    let listed = listed.map(str::to_owned);
    let logins = demand.databases.iter().filter_map(|part| {
        let entry = config.databases.get(&part.database)?;
        let forced = entry.keys.user.clone();
        let own_password = entry.keys.password.as_ref();
        let own_password = own_password.map(|password| password.expose().to_owned());
        let looks_up = || config.resolve_database(&part.database)?.auth_user;
        let user = forced.or_else(looks_up).or_else(|| listed.clone())?;
        let password = own_password.or_else(|| reach::password_of(&users, &user));
        // The name of a host is what stands before its port.
        let (host, port) = demand.host.rsplit_once(':')?;
        Some(Login {
            host: host.to_owned(),
            port: port.parse().ok()?,
            database: entry.dbname().to_owned(),
            user,
            password,
        })
    });
    let mut logins: Vec<Login> = logins.collect();
    logins.sort_by_key(|login| login.password.is_none());
    logins.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgweir_config::Phase;

    #[test]
    fn an_entry_with_a_password_is_asked_first() {
        let text = "[databases]\na = host=db user=x\nb = host=db port=5432 user=y password=z dbname=c\n\
                    [pgbouncer]\n";
        let mut config = Config::new("a.ini");
        let read = config.load(Phase::Start, &mut |_| Ok(text.to_owned()));
        read.expect("a configuration");
        let demand = config.demand();
        let login = login(&config, &demand[0]).expect("somebody");
        assert_eq!((&*login.user, &*login.database), ("y", "c"));
        assert_eq!((&*login.host, login.port), ("db", 5432));
        assert_eq!(login.password.as_deref(), Some("z"));
    }
}
