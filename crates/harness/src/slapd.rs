//! A throwaway LDAP server: OpenLDAP's slapd, where it is installed.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    account::Account,
    cluster::Tls,
    daemon::Daemon,
    error::{Error, must},
    process::{free_port, run_ok},
    skip::skip,
};

/// Where systems keep the server.
const PROGRAMS: [&str; 3] = [
    "/usr/sbin/slapd",
    "/usr/local/libexec/slapd",
    "/usr/libexec/slapd",
];

/// And what it knows about people.
const SCHEMAS: [&str; 3] = [
    "/etc/ldap/schema",
    "/etc/openldap/schema",
    "/usr/local/etc/openldap/schema",
];

const LOAD_MAX: Duration = Duration::from_secs(30);

/// A running LDAP server for `dc=example,dc=net`. Dropping it ends it and removes its directory.
#[derive(Debug)]
pub struct Slapd {
    /// Its plain port on 127.0.0.1, where StartTLS works too.
    pub port: u16,
    /// Its port for `ldaps`.
    pub tls_port: u16,
    daemon: Daemon,
}

/// How often ports are chosen.
const TRIES_MAX: u32 = 3;

impl Slapd {
    /// The DN of who may see everything, with the password `secret`.
    pub const MANAGER: &str = "cn=manager,dc=example,dc=net";

    /// A server with this certificate and these entries below `dc=example,dc=net`, or nothing after saying
    /// why the test is skipped.
    ///
    /// # Panics
    /// If it is installed and does not start.
    #[track_caller]
    pub fn start_or_skip(tls: &Tls, ldif: &str) -> Option<Self> {
        let found = |places: [&str; 3]| places.iter().map(PathBuf::from).find(|path| path.exists());
        let (Some(program), Some(schemas)) = (found(PROGRAMS), found(SCHEMAS)) else {
            skip("no slapd on this machine (Debian, Ubuntu: sudo apt-get install slapd)");
            return None;
        };
        Some(must(Self::start(&program, &schemas, tls, ldif)))
    }

    fn start(program: &Path, schemas: &Path, tls: &Tls, ldif: &str) -> Result<Self, Error> {
        let account = Account::choose()?;
        let mut daemon = Daemon::new("slapd", account)?;
        let dir = daemon.dir().to_owned();
        daemon.write("server.crt", &tls.cert)?;
        daemon.write("server.key", &tls.key)?;
        let conf = daemon.write("slapd.conf", &conf(&dir, schemas))?;
        let base = "dn: dc=example,dc=net\nobjectClass: dcObject\nobjectClass: organization\n\
                    dc: example\no: Example\n";
        let entries = daemon.write("entries.ldif", &format!("{base}\n{ldif}\n"))?;

        // The one program has many names; `-T add` is slapadd.
        let mut load = account.command(program, &dir);
        load.args(["-T", "add", "-f"])
            .arg(&conf)
            .arg("-l")
            .arg(&entries);
        run_ok(&mut load, LOAD_MAX)?;

        let mut tries = 0;
        loop {
            let (port, tls_port) = (free_port(), free_port());
            let urls = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
            let mut serve = account.command(program, &dir);
            // With a debug level it stays in the foreground.
            serve.args(["-d", "none", "-h", &urls, "-f"]).arg(&conf);
            daemon.spawn(&mut serve)?;
            let accepts = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
            tries += 1;
            match daemon.wait_until("accept connections", || accepts(port) && accepts(tls_port)) {
                // Somebody else has taken a port meanwhile.
                Err(Error::Exited { tail, .. })
                    if tries < TRIES_MAX && tail.contains("Address already in use") => {}
                started => {
                    return started.map(|()| Self {
                        port,
                        tls_port,
                        daemon,
                    });
                }
            }
        }
    }

    /// Writes a file beside the server's own, and says where it is.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        must(self.daemon.write(name, text))
    }
}

fn conf(dir: &Path, schemas: &Path) -> String {
    let (dir, schemas) = (dir.display(), schemas.display());
    let manager = Slapd::MANAGER;
    // `ldif` keeps entries as files and is part of every slapd, others may be modules.
    format!(
        "include {schemas}/core.schema\n\
         include {schemas}/cosine.schema\n\
         include {schemas}/nis.schema\n\
         include {schemas}/inetorgperson.schema\n\
         pidfile {dir}/slapd.pid\n\
         TLSCertificateFile {dir}/server.crt\n\
         TLSCertificateKeyFile {dir}/server.key\n\
         database ldif\n\
         directory {dir}\n\
         suffix \"dc=example,dc=net\"\n\
         rootdn \"{manager}\"\n\
         rootpw secret\n\
         access to attrs=userPassword by anonymous auth\n\
         access to dn.subtree=\"ou=hidden,dc=example,dc=net\" by dn=\"{manager}\" read by anonymous auth\n\
         access to * by * read\n"
    )
}
