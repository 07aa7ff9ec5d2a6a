//! What came of all runs of a simulation.

use std::{env, fmt, ops::Range, time::Duration};

/// What came of all runs of a [`Simulation`](super::Simulation).
#[derive(Debug)]
#[must_use = "call `expect_no_failure`"]
pub struct Simulated {
    pub(super) runs: u64,
    pub(super) failures: Vec<Failure>,
    pub(super) took: Duration,
}

impl Simulated {
    /// How many seeds were run.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How long they took, in real time.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Runs that ended wrong, the smallest seed first. One is enough to stop.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Fails the test when a run failed: prints the seed, what is wrong, a sequence diagram of the run, and the command
    /// that runs it again.
    ///
    /// # Panics
    /// When a run failed.
    #[track_caller]
    pub fn expect_no_failure(&self) {
        if let Some(failure) = self.failures.first() {
            panic!("run {} of a simulation:\n{failure}", self.runs);
        }
    }
}

/// A run that ended wrong.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What is wrong.
    pub wrong: Vec<String>,
    /// What happened: a line for each message and each event, with its time.
    pub trace: String,
    /// The same as a sequence diagram, for Mermaid.
    pub diagram: String,
}

impl Failure {
    /// The command that runs it again.
    pub fn again(&self) -> String {
        let thread = std::thread::current();
        let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
        format!("SAGABUS_SEED={} cargo test {test}", self.seed).trim_end().into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for wrong in &self.wrong {
            writeln!(f, "seed {}: {wrong}", self.seed)?;
        }
        writeln!(f, "\n```mermaid\n{}```\n\nagain: {}", self.diagram, self.again())
    }
}

/// The seeds that the environment asks for.
pub(super) fn seeds_asked_for() -> Option<Range<u64>> {
    let of = |name: &str| env::var(name).ok().map(|text| (format!("{name}={text}"), text));
    if let Some((set, text)) = of("SAGABUS_SEED") {
        let seed = text.trim().parse().unwrap_or_else(|_| panic!("{set}: give one number"));
        return Some(seed..seed + 1);
    }
    let (set, text) = of("SAGABUS_SEEDS")?;
    let seeds = parse(&text);
    Some(
        seeds.unwrap_or_else(|| {
            panic!("{set}: give a number of seeds, or a first one and the one after the last: 5..9")
        }),
    )
}

fn parse(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..").unwrap_or(("0", text));
    let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (from < to).then_some(from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_range() {
        assert_eq!(parse("100"), Some(0..100));
        assert_eq!(parse(" 5..9 "), Some(5..9));
        for wrong in ["", "0", "9..5", "x", "1..", "-1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
