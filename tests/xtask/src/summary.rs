//! Adds up what `cargo test` prints: one `test result:` line for each test program.

use std::{collections::BTreeMap, fmt};

/// The results of all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    programs: usize,
    passed: usize,
    failed: Vec<String>,
    failures: usize,
    ignored: usize,
    /// How many tests returned early, by what they lacked.
    skipped: BTreeMap<String, usize>,
}

impl Summary {
    /// Takes one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.into());
        }
        // test result: ok. 39 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out; finished in 0.01s
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        self.programs += 1;
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let number: usize = number.parse().unwrap_or_default();
            match what {
                "passed" => self.passed += number,
                "failed" => self.failures += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Takes what tests noted when they lacked something: `NAME: WHY`, each on a line. libtest counts those as passed.
    pub(crate) fn read_skips(&mut self, notes: &str) {
        for why in notes.lines().filter_map(|line| Some(line.split_once(": ")?.1)) {
            *self.skipped.entry(why.into()).or_default() += 1;
            self.passed = self.passed.saturating_sub(1);
        }
    }

    /// Whether any test was run to its end.
    pub(crate) fn any_ran(&self) -> bool {
        self.passed + self.failures > 0
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped: usize = self.skipped.values().sum();
        for name in &self.failed {
            writeln!(f, "failed: {name}")?;
        }
        for (why, tests) in &self.skipped {
            writeln!(f, "skipped: {tests} {}: {why}", plural(*tests, "test"))?;
        }
        let Self { programs, passed, failures, ignored, .. } = self;
        let of = plural(*programs, "test program");
        write!(f, "{passed} passed, {failures} failed, {skipped} skipped, {ignored} ignored, in {programs} {of}")
    }
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { one.into() } else { format!("{one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str, skips: &str) -> Summary {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.read(line));
        summary.read_skips(skips);
        summary
    }

    #[test]
    fn results_of_all_programs_are_added() {
        let output = "running 3 tests
test a::b ... ok
test a::c ... FAILED
test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 8 filtered out; finished in 0.01s
test result: ok. 39 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out; finished in 0.01s";
        let summary = summary(output, "");
        assert!(summary.any_ran());
        let expected = "failed: a::c\n41 passed, 1 failed, 0 skipped, 4 ignored, in 2 test programs";
        assert_eq!(summary.to_string(), expected);
    }

    #[test]
    fn tests_that_lack_something_count_as_skipped_with_the_way_to_get_it() {
        let output = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let summary = summary(output, "pgbouncer::a: not installed\npgbouncer::b: not installed\n");
        let expected = "skipped: 2 tests: not installed\n1 passed, 0 failed, 2 skipped, 0 ignored, in 1 test program";
        assert_eq!(summary.to_string(), expected);
    }

    #[test]
    fn nothing_ran_when_a_filter_matched_nothing() {
        let output = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out; finished in 0.00s";
        assert!(!summary(output, "").any_ran());
        assert!(!summary("", "").any_ran());
    }
}
