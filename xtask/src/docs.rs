//! `cargo xtask docs`: the reference manual and the list of metrics, written from the declarations that the program itself
//! goes by; the lists of what is ours, in the page about differences; and Prometheus' rules for Kubernetes, from the rules.

mod differences;
mod metrics;
mod rules;

use std::fmt::Write as _;
use std::fs;

use pgweir_config::reference_markdown;
use pgweir_console::{COMMANDS, CommandForm, ORDERS, outlines};
use pgweir_stats::{COUNTERS, Origin, Unit};

use crate::step::{Failure, file};

/// A page, and what writes it.
type Page = (&'static str, fn() -> String);

const PAGES: [Page; 4] = [
    ("docs/reference.md", manual),
    ("docs/metrics.md", metrics::page),
    ("docs/differences.md", differences::page),
    (
        "deploy/kubernetes/monitoring/prometheusrule.yaml",
        rules::page,
    ),
];

/// Writes the pages.
pub(crate) fn run() -> Result<(), Failure> {
    for (name, write) in PAGES {
        let file = file(name)?;
        fs::write(&file, write())?;
        println!("Wrote {}.", file.display());
    }
    Ok(())
}

/// Fails if a page is not what [`run`] would write.
pub(crate) fn check() -> Result<(), Failure> {
    for (name, write) in PAGES {
        let file = file(name)?;
        if fs::read_to_string(&file).unwrap_or_default() != write() {
            return Err(Failure::new(format!(
                "{} is not what the declarations say: run cargo xtask docs",
                file.display()
            )));
        }
    }
    Ok(())
}

fn manual() -> String {
    let mut page = String::from(
        "<!-- Written by `cargo xtask docs`: change the declarations, not this file. -->\n\n\
         # Reference\n\n\
         [Command line](#command-line), [configuration keys](#configuration-keys), [console](#console), \
         [counters](#counters).\n\n## Command line\n",
    );
    for help in [
        include_str!("../../crates/pgweir/src/process/help/pgweir.txt"),
        include_str!("../../crates/pgweir/src/process/help/check.txt"),
        include_str!("../../crates/pgweir/src/process/help/convert.txt"),
    ] {
        let _ = write!(page, "\n```text\n{help}```\n");
    }
    for help in pgweir_tool::COMMANDS
        .iter()
        .filter_map(|name| pgweir_tool::help(name))
    {
        let help = help.trim_end();
        let _ = write!(page, "\n```text\n{help}\n```\n");
    }
    page.push('\n');
    // One heading deeper, because it is a part of a page here.
    page.push_str(
        &reference_markdown()
            .replace("\n## ", "\n### ")
            .replacen("# ", "## ", 1),
    );
    console(&mut page);
    counters(&mut page);
    page
}

fn console(page: &mut String) {
    page.push_str(
        "\n## Console\n\n\
         The database `pgbouncer` (and `pgweir`, unless one is configured). `admin_users` may do everything, \
         `stats_users` may SHOW everything but FDS. Commands and words are read in any case; one statement per query.\n\n\
         ### Commands\n\n| command | what it does |\n|---|---|\n",
    );
    let row = |page: &mut String, command: &CommandForm| {
        let form = command.form.replace('|', "\\|");
        let _ = writeln!(page, "| `{form}` | {} |", command.effect);
    };
    COMMANDS.iter().for_each(|command| row(page, command));
    page.push_str(
        "\nNot in PgBouncer; a `time` is a text like `'90s'` or `'2h'`:\n\n| command | what it does |\n|---|---|\n",
    );
    ORDERS.iter().for_each(|command| row(page, command));
    page.push_str(
        "\n### Tables\n\n\
         `SHOW HELP` and `SHOW VERSION` beside these. Columns stand in this order; monitoring may read them by \
         position.\n",
    );
    for outline in outlines() {
        let ours = if outline.show.is_native() {
            " Not in PgBouncer."
        } else {
            ""
        };
        let word = outline.show.word().to_uppercase();
        let _ = writeln!(page, "\n#### SHOW {word}\n\n{}{ours}\n", outline.show.doc());
        let columns = outline.columns.iter();
        let columns: Vec<String> = columns
            .map(|(name, kind)| format!("`{name}` {kind}"))
            .collect();
        let _ = writeln!(page, "{}", columns.join(", "));
    }
}

fn counters(page: &mut String) {
    page.push_str(
        "\n## Counters\n\n\
         For each database, over all its pools. Those of PgBouncer are columns of SHOW STATS: `total_NAME` since the \
         start, and `avg_NAME`, per second or per event, over the last `stats_period`. All are in the metrics, by pool \
         ([metrics.md](metrics.md)).\n\n\
         | counter | unit | meaning |\n|---|---|---|\n",
    );
    for counter in COUNTERS {
        let unit = match counter.unit {
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Microseconds => "microseconds",
        };
        let ours = match counter.origin {
            Origin::PgBouncer => "",
            Origin::Native => " Not in PgBouncer.",
        };
        let (name, help) = (counter.name, counter.help);
        let _ = writeln!(page, "| `{name}` | {unit} | {help}{ours} |");
    }
}
