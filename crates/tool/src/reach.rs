//! Where the console is, and whom it may let in: from options, the environment and the pooler's own
//! configuration.

use std::fs;
use std::path::{Path, PathBuf};

use pgweir_auth::Secret;
use pgweir_auth::userlist::UserList;
use pgweir_config::{Config, Phase};

use crate::cli::Common;
use crate::dial;
use crate::trouble::Trouble;

/// The user whom the console lets in without a password if the system user is the pooler's own.
const OWN_USER: &str = "pgbouncer";

/// Where a pooler is if nobody says otherwise.
const USUAL_PORT: u16 = 6432;
const USUAL_SOCKET_DIRS: [&str; 4] = ["/run/pgweir", "/run/pgbouncer", "/run/postgresql", "/tmp"];

/// A place to ask, and who may ask there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Door {
    /// A host, an address, or the directory of a Unix socket.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Users to try one after the other, with their passwords where they are known.
    pub(crate) users: Vec<(String, Option<String>)>,
    /// Who has to have signed the pooler's certificate.
    pub(crate) ca: Option<PathBuf>,
}

/// The environment, as far as it matters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let of = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            host: of("PGHOST"),
            port: of("PGPORT"),
            user: of("PGUSER"),
            password: of("PGPASSWORD"),
        }
    }
}

/// Reads the pooler's configuration.
pub(crate) fn load(file: &Path) -> Result<Config, Trouble> {
    let name = file.display().to_string();
    let mut config = Config::new(&name);
    // As the pooler reads it: a byte that is no UTF-8, perhaps in a comment, is no reason to refuse it.
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let loaded = config.load(Phase::Start, &mut |path| fs::read(path).map(text));
    match loaded {
        Ok(_) => Ok(config),
        Err(error) => Err(Trouble::Usage(format!(
            "{name} cannot be used (pgweir check {name} says more):\n{error}"
        ))),
    }
}

/// Users of the `auth_file`.
pub(crate) fn users_of(config: &Config) -> UserList {
    let file = config.global.auth_file.as_deref();
    let text = file.and_then(|file| fs::read(file).ok());
    text.map_or_else(UserList::default, |text| UserList::parse(&text).0)
}

/// The password of a user, if the file has it in plain text.
pub(crate) fn password_of(users: &UserList, user: &str) -> Option<String> {
    match users.secret(user)? {
        Secret::Plain(password) => String::from_utf8(password.expose().to_vec()).ok(),
        Secret::Md5(_) | Secret::Scram(_) => None,
    }
}

/// Where to ask, and as whom.
pub(crate) fn door(
    common: &Common,
    environment: &Environment,
    config: Option<&Config>,
    exists: impl Fn(&str) -> bool,
) -> Result<Door, Trouble> {
    let port = match (common.port, config, &environment.port) {
        (Some(port), _, _) => port,
        (None, Some(config), _) => config.global.listen_port,
        (None, None, Some(port)) => port
            .parse()
            .map_err(|_| Trouble::Usage(format!("PGPORT is no port: {port}")))?,
        (None, None, None) => USUAL_PORT,
    };
    let socket_in = |dir: &str| exists(&format!("{dir}/.s.PGSQL.{port}"));
    let host = match (&common.host, config, &environment.host) {
        (Some(host), _, _) => host.clone(),
        (None, Some(config), _) => host_of(config, socket_in),
        (None, None, Some(host)) => host.clone(),
        (None, None, None) => {
            let found = USUAL_SOCKET_DIRS.into_iter().find(|dir| socket_in(dir));
            found.unwrap_or("127.0.0.1").to_owned()
        }
    };
    let is_unix = dial::is_unix(&host);
    let named = common.user.as_ref().or(environment.user.as_ref());
    let names: Vec<String> = match (named, config) {
        (Some(user), _) => vec![user.clone()],
        (None, Some(config)) => {
            let own = is_unix.then_some(OWN_USER);
            let admins = config.global.admin_users.iter();
            own.into_iter().chain(admins).map(str::to_owned).collect()
        }
        (None, None) => vec![OWN_USER.to_owned()],
    };
    let users = config.map(users_of).unwrap_or_default();
    let with_password = |name: String| {
        let password = environment.password.clone();
        let password = password.or_else(|| password_of(&users, &name));
        (name, password)
    };
    Ok(Door {
        host,
        port,
        users: names.into_iter().map(with_password).collect(),
        ca: common.tls_ca.clone(),
    })
}

/// The nearest place where a configuration listens: its Unix socket, if that is there.
fn host_of(config: &Config, socket_in: impl Fn(&str) -> bool) -> String {
    let dir = &config.global.unix_socket_dir;
    if !dir.is_empty() && socket_in(dir) {
        return dir.clone();
    }
    match config.global.listen_addr.iter().next() {
        None if !dir.is_empty() => dir.clone(),
        None | Some("*" | "0.0.0.0") => "127.0.0.1".to_owned(),
        Some("::") => "::1".to_owned(),
        Some(address) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config::new("a.ini");
        let read = config.load(Phase::Start, &mut |_| Ok(text.to_owned()));
        read.expect("a configuration");
        config
    }

    fn common() -> Common {
        Common::default()
    }

    #[test]
    fn the_unix_socket_of_the_configuration_comes_first() {
        let config = config(
            "[databases]\n[pgbouncer]\nlisten_addr = *\nlisten_port = 7000\nadmin_users = root, ops\n\
             unix_socket_dir = /run/x\n",
        );
        let nothing = Environment::default();
        let found = door(&common(), &nothing, Some(&config), |path| {
            path == "/run/x/.s.PGSQL.7000"
        });
        let found = found.expect("a door");
        assert_eq!((&*found.host, found.port), ("/run/x", 7000));
        let names: Vec<_> = found.users.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["pgbouncer", "root", "ops"]);
        let found = door(&common(), &nothing, Some(&config), |_| false).expect("a door");
        assert_eq!(found.host, "127.0.0.1");
        assert_eq!(found.users.len(), 2);
    }

    #[test]
    fn options_go_before_everything_and_the_environment_goes_last() {
        let environment = Environment {
            host: Some("far".to_owned()),
            port: Some("1".to_owned()),
            user: Some("ann".to_owned()),
            password: Some("x".to_owned()),
        };
        let given = Common {
            host: Some("near".to_owned()),
            port: Some(9),
            user: Some("bob".to_owned()),
            ..common()
        };
        let found = door(&given, &environment, None, |_| false).expect("a door");
        let bob = ("bob".to_owned(), Some("x".to_owned()));
        assert_eq!(
            (found.host, found.port, found.users),
            ("near".to_owned(), 9, vec![bob])
        );
        let found = door(&common(), &environment, None, |_| false).expect("a door");
        assert_eq!(
            (&*found.host, found.port, &*found.users[0].0),
            ("far", 1, "ann")
        );
        let found = door(&common(), &Environment::default(), None, |path| {
            path == "/tmp/.s.PGSQL.6432"
        });
        assert_eq!(found.expect("a door").host, "/tmp");
    }
}
