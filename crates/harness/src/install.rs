//! Installing PostgreSQL where there is none, with the package manager that is there.
//!
//! Every step is printed before it is done, because it changes the user's machine.

use std::{
    env, fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    account::Account,
    postgres::{NotFound, Postgres, find, own_folder},
};

/// Why PostgreSQL could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// None of the known ways is open here.
    #[error(
        "PostgreSQL cannot be installed automatically here ({why}). Install it by hand and run this again:\n  \
         Debian, Ubuntu: sudo apt-get install postgresql\n  \
         Fedora:         sudo dnf install postgresql-server postgresql-contrib\n  \
         Arch:           sudo pacman -S postgresql\n  \
         Alpine:         sudo apk add postgresql postgresql-contrib"
    )]
    NoWay {
        /// What is missing.
        why: String,
    },
    /// A step failed; its own output has been shown.
    #[error("this command failed, please run it by hand and see why:\n  {command}")]
    Step {
        /// As one would type it.
        command: String,
    },
    /// Everything went well, and still there is no server.
    #[error("PostgreSQL was installed, but: {0}")]
    StillNotFound(#[from] NotFound),
}

/// Installs PostgreSQL: apt-get (root or sudo), else the npm package of the bare server.
pub fn install() -> Result<Postgres, InstallError> {
    let way = Way::choose()?;
    println!(
        "No PostgreSQL server here; the tests and the demo need one. Installing it with {way:?}."
    );
    match way {
        Way::Apt(rights) => apt(rights)?,
        Way::Npm => npm()?,
    }
    let postgres = find()?;
    println!("Installed {postgres}.");
    if let Some(missing) = postgres.missing() {
        println!("This package has no {missing}; what needs it will be skipped.");
    }
    Ok(postgres)
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Apt(Rights),
    Npm,
}

/// How a command gets to run as root.
#[derive(Debug, Clone, Copy)]
enum Rights {
    Root,
    Sudo,
}

impl Way {
    fn choose() -> Result<Self, InstallError> {
        let mut why = Vec::new();
        if !has("apt-get") {
            why.push("no apt-get");
        } else if rustix::process::geteuid().is_root() {
            return Ok(Self::Apt(Rights::Root));
        } else if may_sudo() {
            return Ok(Self::Apt(Rights::Sudo));
        } else {
            why.push("apt-get needs root, and sudo would ask for a password nobody can type");
        }
        if has("npm") && npm_package().is_some() {
            return Ok(Self::Npm);
        }
        why.push("no npm");
        Err(InstallError::NoWay {
            why: why.join("; "),
        })
    }
}

impl Rights {
    fn command(self, program: &str) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg(program);
                command
            }
        }
    }
}

fn apt(rights: Rights) -> Result<(), InstallError> {
    // `env` passes the variable through sudo, which would drop it.
    let apt_get = || {
        let mut command = rights.command("env");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q"]);
        command
    };
    // Stale lists still name packages that can be fetched, so a failure here may be survived.
    if let Err(error) = step(apt_get().arg("update")) {
        println!("{error}\nGoing on with the package lists that are there.");
    }
    step(apt_get().args(["install", "--no-install-recommends", "postgresql-common"]))?;
    let quiet = NoDefaultCluster::set(rights)?;
    let result = step(apt_get().args(["install", "--no-install-recommends", "postgresql"]));
    quiet.unset()?;
    result
}

/// Keeps Debian from making and starting a cluster on port 5432, which nobody asked for, while the server is
/// installed. The user's own settings come back afterwards.
struct NoDefaultCluster {
    rights: Rights,
}

impl NoDefaultCluster {
    const FILE: &str = "/etc/postgresql-common/createcluster.d/pgweir.conf";

    fn set(rights: Rights) -> Result<Self, InstallError> {
        let script = format!(
            "mkdir -p /etc/postgresql-common/createcluster.d && echo 'create_main_cluster = false' > {}",
            Self::FILE
        );
        step(rights.command("sh").args(["-c", &script]))?;
        Ok(Self { rights })
    }

    fn unset(self) -> Result<(), InstallError> {
        step(self.rights.command("rm").args(["-f", Self::FILE]))
    }
}

fn npm() -> Result<(), InstallError> {
    let package = npm_package().ok_or_else(|| InstallError::NoWay {
        why: "no package".to_owned(),
    })?;
    let prefix = npm_folder();
    println!("It goes to {}.", prefix.display());
    let mut command = Command::new("npm");
    command
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--prefix",
        ])
        .arg(prefix);
    step(command.arg(package))
}

/// The project's own target folder, or for root a folder that its unprivileged servers can enter.
fn npm_folder() -> PathBuf {
    let own = own_folder();
    let reached = fs::create_dir_all(&own)
        .and_then(|()| fs::canonicalize(&own))
        .is_ok_and(|path| Account::choose().is_ok_and(|account| account.reaches(&path.join("x"))));
    if reached {
        own
    } else {
        PathBuf::from("/var/lib/pgweir/postgres")
    }
}

fn npm_package() -> Option<String> {
    let processor = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        _ => return None,
    };
    Some(format!("@embedded-postgres/linux-{processor}"))
}

fn may_sudo() -> bool {
    let quiet = || Command::new("sudo").args(["-n", "true"]).output();
    has("sudo") && (std::io::stdin().is_terminal() || quiet().is_ok_and(|out| out.status.success()))
}

fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir: PathBuf| Path::is_file(&dir.join(program)))
}

/// Runs one command in the user's sight.
fn step(command: &mut Command) -> Result<(), InstallError> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = words.join(" ");
    println!("+ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err(InstallError::Step { command: line }),
    }
}
