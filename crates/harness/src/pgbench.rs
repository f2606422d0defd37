//! What pgbench reported.

/// The result of one pgbench run that ended without an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Pgbench {
    /// Transactions that were carried out.
    pub transactions: u64,
    /// Transactions that failed. Versions before 15 end with an error instead and say nothing here.
    pub failed: u64,
    /// Transactions a second, without the time to connect.
    pub tps: f64,
    /// The average time of one transaction, in milliseconds.
    pub latency_ms: f64,
    /// All that it printed.
    pub output: String,
}

impl Pgbench {
    pub(crate) fn parse(output: &str) -> Self {
        let value = |label: &str| {
            let rest = output.lines().find_map(|line| line.strip_prefix(label))?;
            // "8000/8000", "0 (0.000%)", "12.5 ms", "17000.1 (without initial connection time)"
            rest.trim()
                .split(|c: char| !(c.is_ascii_digit() || c == '.'))
                .next()?
                .parse::<f64>()
                .ok()
        };
        let count = |label: &str| value(label).unwrap_or(0.0) as u64;
        Self {
            transactions: count("number of transactions actually processed:"),
            failed: count("number of failed transactions:"),
            tps: value("tps =").unwrap_or(0.0),
            latency_ms: value("latency average =").unwrap_or(0.0),
            output: output.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_counts_rates_and_times() {
        let run = Pgbench::parse(
            "transaction type: <builtin: select only>\n\
             number of transactions actually processed: 8000/8000\n\
             number of failed transactions: 3 (0.038%)\n\
             latency average = 0.225 ms\n\
             initial connection time = 5.0 ms\n\
             tps = 17751.5 (without initial connection time)\n",
        );
        assert_eq!((run.transactions, run.failed), (8000, 3));
        assert_eq!((run.tps, run.latency_ms), (17751.5, 0.225));
    }
}
