//! Zones of the names that were looked up: when the serial of one grows, something in it has
//! changed, and its names are asked again before their time.
//!
//! As in PgBouncer the zone of a name is what follows its first dot.

use std::collections::BTreeMap;

/// One row of the zones, for the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRow {
    /// The zone.
    pub name: String,
    /// Its serial; 0 until it is known.
    pub serial: u32,
    /// How many names in it were looked up.
    pub names: usize,
}

/// A zone whose serial has grown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneChange {
    /// The zone.
    pub name: String,
    /// What was known before; 0 is nothing.
    pub before: u32,
    /// Its serial now.
    pub serial: u32,
}

/// Serials by zone, in lower case.
#[derive(Debug, Default)]
pub(super) struct Zones {
    serials: BTreeMap<String, u32>,
}

/// The zone of a name. A name without dots, or with one at its end only, has none.
pub(super) fn zone_of(name: &str) -> Option<String> {
    let (_, zone) = name.split_once('.')?;
    (!zone.is_empty()).then(|| zone.to_ascii_lowercase())
}

impl Zones {
    pub(super) fn register(&mut self, name: &str) {
        if let Some(zone) = zone_of(name) {
            self.serials.entry(zone).or_default();
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.serials.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.serials.len()
    }

    /// Takes a serial; says so if it is newer. Serials wrap around: newer is what lies within half
    /// of all numbers ahead (RFC 1982).
    pub(super) fn learn(&mut self, zone: &str, serial: u32) -> Option<ZoneChange> {
        let known = self.serials.get_mut(zone)?;
        let before = *known;
        let ahead = serial.wrapping_sub(before);
        let is_newer = before == 0 || (ahead != 0 && ahead <= u32::MAX / 2);
        if !is_newer || serial == before {
            return None;
        }
        *known = serial;
        Some(ZoneChange {
            name: zone.to_owned(),
            before,
            serial,
        })
    }

    pub(super) fn rows<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<ZoneRow> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for zone in names.filter_map(zone_of) {
            *counts.entry(zone).or_default() += 1;
        }
        let row = |(name, &serial): (&String, &u32)| ZoneRow {
            names: counts.get(name).copied().unwrap_or(0),
            name: name.clone(),
            serial,
        };
        self.serials.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_what_follows_the_first_dot() {
        let mut zones = Zones::default();
        let names = [
            "db.Example.org",
            "db2.example.org",
            "local",
            "dot.",
            "a.b.c",
        ];
        names.iter().for_each(|name| zones.register(name));
        let row = |name: &str, names| ZoneRow {
            name: name.to_owned(),
            serial: 0,
            names,
        };
        assert_eq!(
            zones.rows(names.into_iter()),
            [row("b.c", 1), row("example.org", 2)]
        );
    }

    #[test]
    fn a_serial_that_grows_is_a_change_also_where_it_wraps() {
        let mut zones = Zones::default();
        zones.register("db.example.org");
        let mut learn = |serial| {
            let change = zones.learn("example.org", serial);
            change.map(|change| (change.before, change.serial))
        };
        assert_eq!(learn(4_000_000_000), Some((0, 4_000_000_000)), "the first");
        assert_eq!(learn(4_000_000_000), None);
        assert_eq!(
            learn(3_999_999_999),
            None,
            "an older one, from a slow secondary"
        );
        assert_eq!(learn(5), Some((4_000_000_000, 5)));
        assert_eq!(learn(6), Some((5, 6)));
        assert_eq!(zones.learn("elsewhere", 1), None);
    }
}
