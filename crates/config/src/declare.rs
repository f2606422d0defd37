//! The macro that turns the table of keys (`keys.rs`) into code, and what a row of it is.
//!
//! One row gives a typed field of [`Settings`](crate::Settings), fields of the override structs of
//! the scopes the key may also stand in, and a [`Key`]: its name, documentation and how it is read,
//! shown and compared. Readers, SHOW CONFIG, RELOAD's comparison and the manual go through `Key`.

use std::fmt;

use crate::keys::Settings;
use crate::likeness::Likeness;
use crate::value::{Invalid, Kind};

/// One key in one scope.
pub struct Key<S: 'static> {
    /// The name, as files and the console write it.
    pub name: &'static str,
    /// The form of its value.
    pub kind: Kind,
    /// The default as SHOW CONFIG prints it. A key without one keeps its value over RELOAD.
    pub default: Option<&'static str>,
    /// For keys that PgBouncer does not have: the default in TOML.
    pub native: Option<&'static str>,
    /// When a new value counts.
    pub effect: Effect,
    /// For keys that are read and shown but change nothing: why.
    pub idle: Option<&'static str>,
    /// For keys that mean what PgBouncer's do, and more: what.
    pub better: Option<&'static str>,
    /// For keys that do not mean what PgBouncer's do: how.
    pub differs: Option<&'static str>,
    /// The other scopes it may stand in, and its name there.
    pub elsewhere: &'static [(Place, &'static str)],
    pub(crate) doc: &'static str,
    pub(crate) set: fn(&mut S, &str) -> Result<(), Invalid>,
    pub(crate) show: fn(&S) -> Option<String>,
    pub(crate) write: fn(&S) -> Option<String>,
    pub(crate) same: fn(&S, &S) -> bool,
    pub(crate) copy: fn(&S, &mut S),
}

impl<S> Key<S> {
    /// What the key does, in one line, with its unit.
    pub fn doc(&self) -> &'static str {
        self.doc.trim_ascii()
    }

    /// What the key means beside PgBouncer's key of the same name, also where it stands in an entry
    /// in place of the main section.
    pub fn likeness(&self) -> Likeness {
        let main = self
            .elsewhere
            .iter()
            .find(|(place, _)| *place == Place::Global);
        if let Some(key) = main.and_then(|(_, name)| Settings::key(name)) {
            return key.likeness();
        }
        match (self.idle, self.differs, self.better) {
            (Some(why), _, _) => Likeness::Idle(why),
            (None, Some(how), _) => Likeness::Differs(how),
            (None, None, Some(what)) => Likeness::Better(what),
            (None, None, None) => Likeness::Same,
        }
    }

    /// Whether a new value counts without a restart.
    pub fn is_changeable(&self) -> bool {
        self.effect != Effect::Restart
    }
}

impl<S> fmt::Debug for Key<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// When a new value of a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// From the next time anybody asks.
    AtOnce,
    /// For connections, logins and leases that begin later.
    NewLeases,
    /// After the next start; until then a new value is accepted and ignored.
    Restart,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "at once",
            Self::NewLeases => "new leases",
            Self::Restart => "restart",
        })
    }
}

/// Where a key may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The main section.
    Global,
    /// One database's entry.
    Database,
    /// One user's entry.
    User,
    /// One peer's entry.
    Peer,
}

impl Place {
    /// The section of an ini file for this place.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Global => "pgbouncer",
            Self::Database => "databases",
            Self::User => "users",
            Self::Peer => "peers",
        }
    }
}

/// A struct of keys: the main section, or the entry of a database, user or peer.
pub trait Scope: Default + 'static {
    /// Where the keys stand.
    const PLACE: Place;
    /// The keys, in the order of SHOW CONFIG.
    const KEYS: &'static [Key<Self>];
    /// Other names that are read but not shown: (alias, key).
    const ALIASES: &'static [(&'static str, &'static str)];

    /// The key called `name`, also by an alias.
    fn key(name: &str) -> Option<&'static Key<Self>> {
        let alias = Self::ALIASES.iter().find(|(alias, _)| *alias == name);
        let name = alias.map_or(name, |(_, key)| key);
        Self::KEYS.iter().find(|key| key.name == name)
    }
}

/// Declares every key once. A row of the first block reads
///
/// ```text
/// /// What it does, in one line.
/// name: Type = DEFAULT, Effect, [native "DEFAULT IN TOML",] [idle "WHY IT CHANGES NOTHING",]
///     [better "WHAT IS MORE THAN IN PGBOUNCER",] [differs "HOW",]
///     [database NAME [or ALIAS],] [user NAME,] [peer NAME];
/// ```
///
/// where DEFAULT is a text in quotes; `NULL` for a key that may have no value; or a text in
/// parentheses for one that starts with it but keeps its value over RELOAD, which SHOW CONFIG
/// prints as having no default. The names say under which name the key stands in other scopes.
/// Rows of the other blocks are keys that stand only in such a scope.
macro_rules! declare_keys {
    (
        settings { $(
            #[doc = $doc:literal]
            $name:ident: $ty:ty = $default:tt, $effect:ident
            $(, native $native:literal)?
            $(, idle $idle:literal)?
            $(, better $better:literal)?
            $(, differs $differs:literal)?
            $(, database $db:ident $(or $db_alias:ident)?)?
            $(, user $user:ident)?
            $(, peer $peer:ident)?
            ;
        )+ }
        database { $( #[doc = $db_doc:literal] $db_name:ident: $db_ty:ty; )+ }
        user { $( #[doc = $user_doc:literal] $user_name:ident: $user_ty:ty; )+ }
        peer { $( #[doc = $peer_doc:literal] $peer_name:ident: $peer_ty:ty; )+ }
    ) => {
        /// The values of the main section: what holds where no database or user says otherwise.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $( #[doc = $doc] pub $name: field_type!($default, $ty), )+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $( $name: initial_value!($default, $ty), )+ }
            }
        }

        impl Scope for Settings {
            const PLACE: Place = Place::Global;
            const KEYS: &'static [Key<Self>] = &[ $( Key {
                name: stringify!($name),
                kind: <$ty as Value>::KIND,
                default: printed_default!($default),
                native: literal_or_none!($($native)?),
                effect: Effect::$effect,
                idle: literal_or_none!($($idle)?),
                better: literal_or_none!($($better)?),
                differs: literal_or_none!($($differs)?),
                elsewhere: &[
                    $( (Place::Database, stringify!($db)), )?
                    $( (Place::User, stringify!($user)), )?
                    $( (Place::Peer, stringify!($peer)), )?
                ],
                doc: $doc,
                set: |settings, text| Ok(settings.$name = Value::parse(text)?),
                show: |settings| settings.$name.show(),
                write: |settings| settings.$name.write(),
                same: |left, right| left.$name == right.$name,
                copy: |from, to| to.$name.clone_from(&from.$name),
            }, )+ ];
            const ALIASES: &'static [(&'static str, &'static str)] = &[];
        }

        override_struct! {
            /// The keys that the entry of a database names.
            DatabaseOverrides at Database,
            aliases [ $( $( $( (stringify!($db_alias), stringify!($db)), )? )? )+ ],
            from_settings { $( $( $doc, $name, $db: $ty, $effect; )? )+ }
            own { $( $db_doc, $db_name: $db_ty; )+ }
        }

        override_struct! {
            /// The keys that the entry of a user names.
            UserOverrides at User,
            aliases [],
            from_settings { $( $( $doc, $name, $user: $ty, $effect; )? )+ }
            own { $( $user_doc, $user_name: $user_ty; )+ }
        }

        override_struct! {
            /// The keys that the entry of a peer names.
            PeerOverrides at Peer,
            aliases [],
            from_settings { $( $( $doc, $name, $peer: $ty, $effect; )? )+ }
            own { $( $peer_doc, $peer_name: $peer_ty; )+ }
        }
    };
}

/// A struct whose fields are all optional, with its table of keys.
macro_rules! override_struct {
    (
        $(#[$meta:meta])+
        $struct:ident at $place:ident,
        aliases [ $($aliases:tt)* ],
        from_settings { $( $doc:literal, $global:ident, $name:ident: $ty:ty, $effect:ident; )* }
        own { $( $own_doc:literal, $own:ident: $own_ty:ty; )* }
    ) => {
        $(#[$meta])+
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct $struct {
            $( #[doc = $own_doc] pub $own: Option<$own_ty>, )*
            $( #[doc = $doc] pub $name: Option<$ty>, )*
        }

        impl Scope for $struct {
            const PLACE: Place = Place::$place;
            const KEYS: &'static [Key<Self>] = &[
                $( Key {
                    name: stringify!($own),
                    kind: <$own_ty as Value>::KIND,
                    default: None,
                    native: None,
                    effect: Effect::NewLeases,
                    idle: None,
                    better: None,
                    differs: None,
                    elsewhere: &[],
                    doc: $own_doc,
                    set: |scope, text| Ok(scope.$own = Value::parse(text)?),
                    show: |scope| scope.$own.show(),
                    write: |scope| scope.$own.write(),
                    same: |left, right| left.$own == right.$own,
                    copy: |from, to| to.$own.clone_from(&from.$own),
                }, )*
                $( Key {
                    name: stringify!($name),
                    kind: <$ty as Value>::KIND,
                    default: None,
                    native: None,
                    effect: Effect::$effect,
                    idle: None,
                    better: None,
                    differs: None,
                    elsewhere: &[(Place::Global, stringify!($global))],
                    doc: $doc,
                    set: |scope, text| Ok(scope.$name = Value::parse(text)?),
                    show: |scope| scope.$name.show(),
                    write: |scope| scope.$name.write(),
                    same: |left, right| left.$name == right.$name,
                    copy: |from, to| to.$name.clone_from(&from.$name),
                }, )*
            ];
            const ALIASES: &'static [(&'static str, &'static str)] = &[ $($aliases)* ];
        }
    };
}

/// The type of a field: a key that may be NULL is optional.
macro_rules! field_type {
    (NULL, $ty:ty) => { Option<$ty> };
    ($default:tt, $ty:ty) => { $ty };
}

/// The value before any file is read.
macro_rules! initial_value {
    (NULL, $ty:ty) => {
        None
    };
    (($initial:literal), $ty:ty) => {
        initial_value!($initial, $ty)
    };
    ($initial:literal, $ty:ty) => {
        <$ty as Value>::parse($initial).expect("the table's defaults are values of their types")
    };
}

/// The default as SHOW CONFIG prints it.
macro_rules! printed_default {
    (NULL) => {
        None
    };
    (($initial:literal)) => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

/// An optional literal as a value.
macro_rules! literal_or_none {
    () => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}

pub(crate) use {
    declare_keys, field_type, initial_value, literal_or_none, override_struct, printed_default,
};
