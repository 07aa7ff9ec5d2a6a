//! The command line.

use crate::rows::Row;
use anyhow::{Context, Result, bail, ensure};

/// How much is run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) json: bool,
    pub(crate) seed: u64,
    /// Parts of the names of the faults that are wanted; none: all.
    names: Vec<String>,
    /// For each fault.
    pub(crate) injections: usize,
    /// For each fault, at least.
    pub(crate) orders: usize,
    /// Orders placed in a second.
    pub(crate) per_second: u32,
    /// Lines of each log that are shown after a failure.
    pub(crate) log_lines: usize,
}

impl Options {
    /// Reads them.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        // 48 faults: more than 2,000 injections and 200,000 orders in a full run
        let (injections, orders, per_second) = (45, 4_500, 120);
        let mut options = Self {
            quick: false,
            json: false,
            seed: 20_261_126,
            names: Vec::new(),
            injections,
            orders,
            per_second,
            log_lines: 15,
        };
        let mut rest = arguments.into_iter();
        while let Some(option) = rest.next() {
            let mut number = || -> Result<u64> {
                let text = rest.next().with_context(|| format!("{option}: a number is missing"))?;
                text.parse().with_context(|| format!("{option} {text}: not a number"))
            };
            match option.as_str() {
                "--quick" => {
                    (options.quick, options.injections, options.orders, options.per_second) = (true, 2, 100, 40);
                }
                "--json" => options.json = true,
                "--seed" => options.seed = number()?,
                "--injections" => options.injections = number()? as usize,
                "--orders" => options.orders = number()? as usize,
                "--per-second" => options.per_second = u32::try_from(number()?)?,
                "--log-lines" => options.log_lines = number()? as usize,
                option if option.starts_with('-') => bail!("`{option}` is not known"),
                name => options.names.push(name.to_owned()),
            }
        }
        ensure!(options.injections > 0 && options.orders > 0 && options.per_second > 0, "0: nothing to run");
        Ok(options)
    }

    /// Whether a fault is part of the run. Those that are named are, also in a quick run.
    pub(crate) fn wants(&self, row: &Row) -> bool {
        match self.names.as_slice() {
            [] => row.quick || !self.quick,
            names => names.iter().any(|name| row.name.contains(name.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;
    use std::collections::BTreeSet;

    fn read(text: &str) -> Result<Options> {
        Options::read(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_what_is_wrong_is_named() {
        let options = read("--quick --seed 7 --json killed").unwrap();
        assert!(options.quick && options.json && options.seed == 7);
        assert!(ROWS.iter().any(|row| options.wants(row)));
        for (wrong, says) in [("--seed", "a number is missing"), ("--seed x", "not a number"), ("--fast", "`--fast`")] {
            assert!(read(wrong).unwrap_err().to_string().contains(says), "{wrong}");
        }
    }

    #[test]
    fn a_full_run_is_as_large_as_the_page_says() {
        let options = read("").unwrap();
        let rows = ROWS.iter().filter(|row| options.wants(row)).count();
        assert!(rows >= 30 && rows * options.injections >= 2_000 && rows * options.orders >= 200_000, "{rows} rows");
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len(), "each fault has a name of its own");
    }
}
