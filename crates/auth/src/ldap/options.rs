//! What the configuration says about an LDAP server: `ldapserver=... ldapbasedn="..."`.
//!
//! PostgreSQL's words, as PgBouncer reads them: pairs divided by blanks or commas, names and values
//! possibly in double quotes, in which `""` is a quote. Where a word stands twice the last counts.

use thiserror::Error;

use super::filter::Filter;
use super::url::Url;
use super::{BadFilter, BadUrl, Scope};
use crate::secret::{BadPassword, Password};

const LDAP_PORT: u16 = 389;
const LDAPS_PORT: u16 = 636;
const DEFAULT_ATTRIBUTE: &str = "uid";

/// Which servers are asked about a password, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapOptions {
    /// Names or addresses, to be tried one after the other. None: those that the DNS names for the
    /// domain in the base DN.
    pub hosts: Vec<String>,
    /// The port of all of them.
    pub port: u16,
    /// How the connection is encrypted.
    pub security: Security,
    /// Who the user is to the server.
    pub user_dn: UserDn,
}

/// How the connection to a server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// After a request: `ldaptls=1`.
    StartTls,
    /// From the first byte: `ldaps`.
    Ldaps,
}

/// How the DN of a user is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserDn {
    /// It is known: prefix, user, suffix.
    Pattern {
        /// What stands before the name.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
    /// It is looked for.
    Search(Search),
}

/// How the entry of a user is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Where the search begins.
    pub base: String,
    /// How far it goes.
    pub scope: Scope,
    /// Who searches; empty is nobody in particular.
    pub bind_dn: String,
    /// The password of that one.
    pub bind_password: Password,
    pub(crate) filter: Filter,
}

/// Options that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadOptions {
    /// Not of the form `name=value`.
    #[error("expected name=value, found {0:?}")]
    Pair(String),
    /// A quote is not closed.
    #[error("a double quote is not closed")]
    OpenQuote,
    /// A word that we do not know.
    #[error("invalid LDAP option: {0:?}")]
    Name(String),
    /// A value that the option cannot have.
    #[error("{name}={value} is not possible (expected {expected})")]
    Value {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// `ldapurl` cannot be read.
    #[error("could not parse LDAP URL {url:?}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: BadUrl,
    },
    /// `ldapsearchfilter` cannot be read.
    #[error("could not parse LDAP filter {filter:?}: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: BadFilter,
    },
    /// The password is none.
    #[error("ldapbindpasswd: {0}")]
    Password(#[from] BadPassword),
    /// Options of both modes.
    #[error("cannot mix options for simple bind and search+bind modes")]
    Mixed,
    /// Options of neither mode.
    #[error(
        "authentication method \"ldap\" requires argument \"ldapbasedn\", \"ldapprefix\", or \
         \"ldapsuffix\" to be set"
    )]
    NoMode,
    /// Two ways to say what is looked for.
    #[error("cannot use ldapsearchattribute together with ldapsearchfilter")]
    TwoFilters,
    /// Nobody to ask.
    #[error("no LDAP server: set ldapserver, or a ldapbasedn whose domain has SRV records")]
    NoServer,
    /// TLS inside TLS.
    #[error("ldaptls=1 cannot be used together with ldaps")]
    TwiceTls,
}

/// A name that cannot stand in a filter, and hardly is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid character in user name for LDAP authentication")]
pub struct BadUser;

impl BadUser {
    /// PostgreSQL's list.
    pub(crate) fn check(user: &str) -> Result<(), Self> {
        match user.contains(['*', '(', ')', '\\', '/']) {
            true => Err(Self),
            false => Ok(()),
        }
    }
}

impl LdapOptions {
    /// Reads the rest of an HBA line behind `ldap`, or the value of `auth_ldap_options`.
    ///
    /// # Errors
    /// The options cannot be read, or make no sense together.
    pub fn parse(text: &str) -> Result<Self, BadOptions> {
        let mut words = Words::default();
        let mut pairs = Pairs { rest: text };
        while let Some((name, value)) = pairs.take()? {
            words.set(&name, value)?;
        }
        words.finish()
    }

    /// The domain of the base DN, whose servers the DNS can name: `dc=example,dc=org` is
    /// `example.org`.
    pub fn domain(&self) -> Option<String> {
        match &self.user_dn {
            UserDn::Pattern { .. } => None,
            UserDn::Search(search) => domain_of(&search.base),
        }
    }
}

/// The words as they stand there.
#[derive(Debug, Default)]
struct Words {
    tls: bool,
    ldaps: bool,
    port: Option<u16>,
    server: Option<String>,
    bind_dn: Option<String>,
    bind_password: Option<Password>,
    attribute: Option<String>,
    filter: Option<String>,
    base: Option<String>,
    scope: Option<Scope>,
    prefix: Option<String>,
    suffix: Option<String>,
}

impl Words {
    fn set(&mut self, name: &str, value: String) -> Result<(), BadOptions> {
        let refused = |name, value, expected| {
            Err(BadOptions::Value {
                name,
                value,
                expected,
            })
        };
        match name {
            "ldaptls" => match value.as_str() {
                "1" => self.tls = true,
                "0" => self.tls = false,
                _ => return refused("ldaptls", value, "0 or 1"),
            },
            "ldapscheme" => match value.as_str() {
                "ldap" => self.ldaps = false,
                "ldaps" => self.ldaps = true,
                _ => return refused("ldapscheme", value, "ldap or ldaps"),
            },
            "ldapport" => match value.parse() {
                Ok(port) if port > 0 => self.port = Some(port),
                _ => return refused("ldapport", value, "1 to 65535"),
            },
            "ldapserver" => self.server = Some(value),
            "ldapbinddn" => self.bind_dn = Some(value),
            "ldapbindpasswd" => self.bind_password = Some(Password::new(value)?),
            "ldapsearchattribute" => self.attribute = Some(value),
            "ldapsearchfilter" => self.filter = Some(value),
            "ldapbasedn" => self.base = Some(value),
            "ldapprefix" => self.prefix = Some(value),
            "ldapsuffix" => self.suffix = Some(value),
            "ldapurl" => self.set_url(value)?,
            _ => return Err(BadOptions::Name(name.to_owned())),
        }
        Ok(())
    }

    fn set_url(&mut self, url: String) -> Result<(), BadOptions> {
        let said = Url::parse(&url).map_err(|reason| BadOptions::Url { url, reason })?;
        self.ldaps = said.tls;
        self.port = said.port;
        self.scope = Some(said.scope);
        if !said.host.is_empty() {
            self.server = Some(said.host);
        }
        for (word, value) in [
            (&mut self.base, said.base),
            (&mut self.attribute, said.attribute),
            (&mut self.filter, said.filter),
        ] {
            if value.is_some() {
                *word = value;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<LdapOptions, BadOptions> {
        let security = match (self.tls, self.ldaps) {
            (true, true) => return Err(BadOptions::TwiceTls),
            (true, false) => Security::StartTls,
            (false, true) => Security::Ldaps,
            (false, false) => Security::None,
        };
        let default_port = if self.ldaps { LDAPS_PORT } else { LDAP_PORT };
        let port = self.port.unwrap_or(default_port);
        let hosts = self.server.as_deref().unwrap_or_default();
        let hosts: Vec<_> = hosts.split_whitespace().map(str::to_owned).collect();
        let user_dn = self.user_dn()?;
        let options = LdapOptions {
            hosts,
            port,
            security,
            user_dn,
        };
        if options.hosts.is_empty() && options.domain().is_none() {
            return Err(BadOptions::NoServer);
        }
        Ok(options)
    }

    fn user_dn(self) -> Result<UserDn, BadOptions> {
        if self.prefix.is_some() || self.suffix.is_some() {
            let searches = self.base.is_some()
                || self.bind_dn.is_some()
                || self.bind_password.is_some()
                || self.attribute.is_some()
                || self.filter.is_some();
            return match searches {
                true => Err(BadOptions::Mixed),
                false => Ok(UserDn::Pattern {
                    prefix: self.prefix.unwrap_or_default(),
                    suffix: self.suffix.unwrap_or_default(),
                }),
            };
        }
        let base = self.base.ok_or(BadOptions::NoMode)?;
        let filter = match (self.attribute, self.filter) {
            (Some(_), Some(_)) => return Err(BadOptions::TwoFilters),
            (attribute, None) => {
                Filter::equality(attribute.as_deref().unwrap_or(DEFAULT_ATTRIBUTE))
            }
            (None, Some(filter)) => {
                Filter::parse(&filter).map_err(|reason| BadOptions::Filter { filter, reason })?
            }
        };
        let nothing = || Password::new("").expect("nothing is short enough");
        Ok(UserDn::Search(Search {
            base,
            scope: self.scope.unwrap_or(Scope::Sub),
            bind_dn: self.bind_dn.unwrap_or_default(),
            bind_password: self.bind_password.unwrap_or_else(nothing),
            filter,
        }))
    }
}

fn domain_of(dn: &str) -> Option<String> {
    let labels = dn.split(',').filter_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_label = name.trim().eq_ignore_ascii_case("dc");
        is_label
            .then(|| value.trim())
            .filter(|value| !value.is_empty())
    });
    let labels: Vec<_> = labels.collect();
    (!labels.is_empty()).then(|| labels.join("."))
}

/// What has not been read yet.
struct Pairs<'a> {
    rest: &'a str,
}

impl Pairs<'_> {
    /// The next pair. A `#` where a name could begin is a comment, as anywhere in an HBA file.
    fn take(&mut self) -> Result<Option<(String, String)>, BadOptions> {
        let is_divider = |c: char| c.is_ascii_whitespace() || c == ',';
        self.rest = self.rest.trim_start_matches(is_divider);
        if self.rest.is_empty() || self.rest.starts_with('#') {
            return Ok(None);
        }
        let whole = self.rest;
        let name = self.word(|c| c == '=' || is_divider(c))?;
        let Some(after) = self.rest.strip_prefix('=') else {
            return Err(BadOptions::Pair(whole.to_owned()));
        };
        self.rest = after;
        let value = self.word(is_divider)?;
        if name.is_empty() || value.is_empty() {
            return Err(BadOptions::Pair(whole.to_owned()));
        }
        Ok(Some((name, value)))
    }

    fn word(&mut self, is_end: impl Fn(char) -> bool) -> Result<String, BadOptions> {
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let (word, rest) = crate::tokens::unquote(quoted).map_err(|_| BadOptions::OpenQuote)?;
            self.rest = rest;
            return Ok(word);
        }
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }
}
