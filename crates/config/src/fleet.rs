//! Limits that several poolers with the same configuration have together: each takes an equal part, so that the sum
//! holds in PostgreSQL's count, whoever of them is there and whatever they know of each other.

use crate::Settings;

impl Settings {
    /// How many poolers share the limits: at least this one.
    pub fn poolers(&self) -> u32 {
        u32::from(self.fleet).max(1)
    }

    /// One pooler's part of a limit. At least one server: a pooler without any would serve nobody.
    pub fn part_of(&self, limit: Option<u32>) -> Option<u32> {
        limit.map(|limit| (limit / self.poolers()).max(1).min(limit))
    }

    /// One pooler's part of `max_host_connections`, given how many connections PostgreSQL has for ordinary users, if
    /// that is known.
    pub fn host_servers(&self, ordinary: Option<u32>) -> Option<u32> {
        self.part_of(self.max_host_connections.servers(ordinary))
    }
}

#[cfg(test)]
mod tests {
    use crate::HostLimit;
    use crate::Settings;

    #[test]
    fn parts_never_add_up_to_more_than_the_whole() {
        let mut settings = Settings::default();
        for fleet in 0..20_u16 {
            settings.fleet = fleet;
            for limit in 1..50 {
                let part = settings.part_of(Some(limit)).expect("a limit");
                let poolers = settings.poolers();
                assert!(part >= 1 && (part * poolers <= limit || part == 1));
            }
        }
        assert_eq!(settings.part_of(None), None);
    }

    #[test]
    fn a_part_of_what_is_not_known_is_not_known() {
        let settings = Settings {
            fleet: 4,
            max_host_connections: HostLimit::Auto,
            ..Settings::default()
        };
        assert_eq!(settings.host_servers(None), None);
        // 90 % of 97 is 87.
        assert_eq!(settings.host_servers(Some(97)), Some(21));
    }
}
