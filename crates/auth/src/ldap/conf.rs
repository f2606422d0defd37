//! `ldap.conf`: what a machine's administrator says about TLS to LDAP servers.
//!
//! libldap reads it in every program that uses it, PgBouncer among them, and PgBouncer has no keys
//! of its own for these things. Only the options about certificates mean something here.

/// How much a server's certificate must be worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requirement {
    /// `never` and `allow`: any certificate will do.
    Nothing,
    /// `try`, `demand` and `hard`: an authority vouches for it, and it is for this host.
    #[default]
    Valid,
}

/// The options that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LdapConf {
    /// `TLS_REQCERT`.
    pub requirement: Requirement,
    /// `TLS_CACERT`: the file with the authorities; without it the system's.
    pub ca_file: Option<String>,
}

impl LdapConf {
    /// Adds what a file says. Later files win.
    pub fn read(&mut self, text: &str) {
        for line in text.lines().map(str::trim_end) {
            if let Some((option, value)) = line.split_once([' ', '\t']) {
                self.set(option, value.trim());
            }
        }
    }

    /// Sets one option, such as `TLS_REQCERT`; in the environment it is `LDAPTLS_REQCERT`. Other
    /// options and values that mean nothing are passed over, as libldap does.
    pub fn set(&mut self, option: &str, value: &str) {
        match option.to_ascii_uppercase().as_str() {
            "TLS_CACERT" => self.ca_file = Some(value.to_owned()),
            "TLS_REQCERT" => match value.to_ascii_lowercase().as_str() {
                "never" | "allow" => self.requirement = Requirement::Nothing,
                "try" | "demand" | "hard" => self.requirement = Requirement::Valid,
                _ => {}
            },
            _ => {}
        }
    }
}
