//! What the manual says of the console, taken from what answers.

use crate::command::Show;
use crate::table::{ColumnType, Table};
use crate::tables;

/// One table of SHOW, without its rows.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The word after SHOW.
    pub show: Show,
    /// Names and types of the columns, in their order.
    pub columns: Vec<(&'static str, ColumnType)>,
}

/// Every table of SHOW.
pub fn outlines() -> Vec<Outline> {
    let outline = |&show| Outline {
        show,
        columns: columns_of(show),
    };
    Show::ALL.iter().map(outline).collect()
}

fn columns_of(show: Show) -> Vec<(&'static str, ColumnType)> {
    match show {
        Show::Config => columns(&tables::CONFIG),
        Show::Databases => columns(&tables::DATABASES),
        Show::Pools => columns(&tables::POOLS),
        Show::Clients => columns(&tables::CLIENTS),
        Show::Servers => columns(&tables::SERVERS),
        Show::Users => columns(&tables::USERS),
        Show::Peers => columns(&tables::PEERS),
        Show::PeerPools => columns(&tables::PEER_POOLS),
        Show::Fds => columns(&tables::FDS),
        Show::Sockets => columns(&tables::SOCKETS),
        Show::ActiveSockets => columns(&tables::ACTIVE_SOCKETS),
        Show::Lists => columns(&tables::LISTS),
        Show::Mem => columns(&tables::MEM),
        Show::State => columns(&tables::STATE),
        Show::DnsHosts => columns(&tables::DNS_HOSTS),
        Show::DnsZones => columns(&tables::DNS_ZONES),
        Show::Stats => columns(&tables::STATS),
        Show::StatsTotals => columns(&tables::STATS_TOTALS),
        Show::StatsAverages => columns(&tables::STATS_AVERAGES),
        Show::Totals => columns(&tables::TOTALS),
        Show::Backends => columns(&tables::BACKENDS),
        Show::Budget => columns(&tables::BUDGET),
        Show::StatsHist => columns(&tables::STATS_HIST),
        Show::Consumers => columns(&tables::CONSUMERS),
        Show::Apps => columns(&tables::APPS),
        Show::Holders => columns(&tables::HOLDERS),
        Show::Leaks => columns(&tables::LEAKS),
        Show::Findings => columns(&tables::FINDINGS),
        Show::Listeners => columns(&tables::LISTENERS),
        Show::Maintenance => columns(&tables::MAINTENANCE),
        Show::Overrides => columns(&tables::OVERRIDES),
        Show::Pins => columns(&tables::PINS),
        Show::Quarantine => columns(&tables::QUARANTINE),
        Show::Samples => columns(&tables::SAMPLES),
        Show::Events => columns(&tables::EVENTS),
        Show::Statements => columns(&tables::STATEMENTS),
    }
}

fn columns<R>(table: &Table<R>) -> Vec<(&'static str, ColumnType)> {
    let columns = table.columns.iter();
    columns.map(|column| (column.name, column.kind)).collect()
}

/// A command that is no SHOW.
#[derive(Clone, Copy, Debug)]
pub struct CommandForm {
    /// How it is written, as SHOW HELP has it.
    pub form: &'static str,
    /// What it does, in one sentence.
    pub effect: &'static str,
}

/// Every command of PgBouncer that is no SHOW.
pub const COMMANDS: &[CommandForm] = &[
    CommandForm {
        form: "SET key = arg",
        effect: "Changes a key of the configuration until the next RELOAD or start. Keys that need a restart keep their value.",
    },
    CommandForm {
        form: "RELOAD",
        effect: "Reads the configuration files again, as SIGHUP does.",
    },
    CommandForm {
        form: "PAUSE [<db>]",
        effect: "Lends no more servers, of one database or of all; answers when all have come back and are closed.",
    },
    CommandForm {
        form: "RESUME [<db>]",
        effect: "Ends a PAUSE, KILL or SUSPEND.",
    },
    CommandForm {
        form: "DISABLE <db>",
        effect: "Refuses new clients of a database.",
    },
    CommandForm {
        form: "ENABLE <db>",
        effect: "Ends a DISABLE.",
    },
    CommandForm {
        form: "RECONNECT [<db>]",
        effect: "Closes every server when its client gives it back; new ones are opened as they are needed.",
    },
    CommandForm {
        form: "KILL [<db>]",
        effect: "Drops all clients and servers, of one database or of all, and leaves it paused.",
    },
    CommandForm {
        form: "KILL_CLIENT <client_id>",
        effect: "Disconnects one client, named as in the column `id` of SHOW CLIENTS.",
    },
    CommandForm {
        form: "SUSPEND",
        effect: "Stops reading from everybody; answers when all that was read has been passed on.",
    },
    CommandForm {
        form: "SHUTDOWN",
        effect: "Ends the process at once, without an answer.",
    },
    CommandForm {
        form: "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
        effect: "Ends the process when all servers have been given back, or when all clients have left.",
    },
    CommandForm {
        form: "WAIT_CLOSE [<db>]",
        effect: "Answers when all servers are closed that a RECONNECT or RELOAD has replaced.",
    },
];

/// Every order that PgBouncer does not have. A `time` is a text like `'90s'` or `'2h'`.
pub const ORDERS: &[CommandForm] = &[
    CommandForm {
        form: "KILL CLIENTS WHERE conditions [DRY RUN]",
        effect: "Ends clients at once, or lists them: `app = 'report' AND age > '5min'`, for example.",
    },
    CommandForm {
        form: "MAINTENANCE ON <db> [MODE hold|reject] [MESSAGE text] [TTL time]",
        effect: "Lets no new transactions begin: clients wait, or are refused with the message. A hold ends after 15 minutes if nothing else is said.",
    },
    CommandForm {
        form: "MAINTENANCE OFF <db>",
        effect: "Ends a MAINTENANCE.",
    },
    CommandForm {
        form: "DRAIN <db> [WITHIN time]",
        effect: "Ends all clients between their transactions, and those that are left after the time (30 seconds) in the middle.",
    },
    CommandForm {
        form: "SET key = value [FOR DATABASE <db>|FOR USER <user>] TTL time",
        effect: "Changes a key for a while: in the main section, or in an entry.",
    },
    CommandForm {
        form: "RESIZE <db> = servers TTL time",
        effect: "The same for `pool_size` of a database.",
    },
    CommandForm {
        form: "RELEASE <id>",
        effect: "Counts a server of SHOW QUARANTINE no more.",
    },
    CommandForm {
        form: "DIAGNOSE <db> [USER <user>]",
        effect: "Opens a connection to PostgreSQL as a pool would, and lists its steps with their times: how far it comes, and what PostgreSQL says then. It counts in every limit but `pool_size`.",
    },
    CommandForm {
        form: "ROTATE <db> [USER <user>]",
        effect: "Reads the secrets of a user again, opens a connection to PostgreSQL with them, and says which one it takes.",
    },
    CommandForm {
        form: "WHY <db>",
        effect: "Says what clients of a database wait for, and whom servers wait for in PostgreSQL: which client, what it does, and its last statement.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::help::HELP;

    #[test]
    fn the_manual_has_the_commands_of_show_help() {
        let lines = HELP.lines().map(str::trim);
        let helped: Vec<&str> = lines
            .filter(|line| !line.is_empty() && !line.starts_with("SHOW "))
            .collect();
        let known: Vec<&str> = COMMANDS.iter().map(|command| command.form).collect();
        assert_eq!(known, helped);
        assert!(COMMANDS.iter().all(|c| c.effect.ends_with('.')));
    }

    #[test]
    fn the_manual_has_the_orders_that_are_understood() {
        let examples = [
            "kill clients where database = 'shop' and app = 'cron' dry run",
            "maintenance on shop mode reject message 'back soon' ttl '90s'",
            "maintenance off shop",
            "drain shop within '2h'",
            "set pool_size = 4 for database shop ttl '2h'",
            "resize shop = 4 ttl '2h'",
            "release 7",
            "diagnose shop user ann",
            "rotate shop user ann",
            "why shop",
        ];
        assert_eq!(ORDERS.len(), examples.len());
        for (order, example) in ORDERS.iter().zip(examples) {
            let word = order.form.split(' ').next().unwrap_or_default();
            assert!(example.to_uppercase().starts_with(word), "{example}");
            let understood = crate::order::parse(example).is_some_and(|order| order.is_ok());
            assert!(understood, "{example}");
            assert!(order.effect.ends_with('.'), "{word}");
        }
    }

    #[test]
    fn every_table_has_columns_and_a_meaning() {
        for outline in outlines() {
            assert!(!outline.columns.is_empty(), "{:?}", outline.show);
            assert!(outline.show.doc().ends_with('.'), "{:?}", outline.show);
        }
    }
}
