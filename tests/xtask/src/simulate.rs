//! `cargo xtask simulate` and `cargo xtask fuzz`: tests that run as many seeds as one likes.

use crate::{cargo, root};
use anyhow::{Context, Result, bail, ensure};

/// Tests that run as many seeds as the environment asks for.
pub(crate) struct Seeded {
    name: &'static str,
    seeds: u64,
    /// What `cargo test` is told, and how many seeds of the first come to one of it.
    tests: &'static [(&'static [&'static str], u64)],
    /// The variable that says which seeds.
    variable: &'static str,
}

pub(crate) const SIMULATE: Seeded = Seeded {
    name: "simulate",
    seeds: 10_000,
    tests: &[
        (&["--test", "simulation", "--", "--exact", "no_seed_loses_an_order_or_does_anything_twice"], 1),
        (
            &[
                "--test",
                "simulation",
                "--",
                "--exact",
                "no_seed_handles_what_was_taken_back_or_loses_a_payment_that_knows_an_alias",
            ],
            5,
        ),
    ],
    variable: "SAGABUS_SEEDS",
};
pub(crate) const FUZZ: Seeded =
    Seeded { name: "fuzz", seeds: 1_000_000, tests: &[(&["--lib", "--", "fuzz_"], 1)], variable: "SAGABUS_FUZZ" };

/// From so many seeds on it pays to compile with all optimisations first.
const RELEASE_FROM: u64 = 50_000;

pub(crate) fn run(it: &Seeded, arguments: &[String]) -> Result<()> {
    let (seeds, from) = parse(it, arguments)?;
    for (tests, share) in it.tests {
        let to = from.checked_add(seeds.div_ceil(*share)).context("there are no such large seeds")?;
        let mut test = cargo();
        test.args(["test", "--quiet", "--workspace"]);
        if seeds >= RELEASE_FROM {
            test.arg("--release");
        }
        test.args(*tests).arg("--nocapture").env(it.variable, format!("{from}..{to}"));
        let status = test.current_dir(root()?).status().context("cargo cannot be run")?;
        ensure!(status.success(), "a seed failed, or the tests do not compile: see above");
    }
    Ok(())
}

/// How many seeds, and the first.
fn parse(it: &Seeded, arguments: &[String]) -> Result<(u64, u64)> {
    let (mut seeds, mut from) = (it.seeds, 0);
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let place = match option.as_str() {
            "--seeds" => &mut seeds,
            "--from" => &mut from,
            other => bail!("`{other}`: `cargo xtask {} --seeds N [--from S]`", it.name),
        };
        let number = rest.next().with_context(|| format!("{option}: a number is missing"))?;
        *place = number.parse().with_context(|| format!("{option} {number}: not a number"))?;
    }
    ensure!(seeds > 0, "--seeds 0: nothing to run");
    Ok((seeds, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_the_first_are_read() {
        let of = |text: &str| parse(&SIMULATE, &text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("").unwrap(), (10_000, 0));
        assert_eq!(of("--seeds 7 --from 5").unwrap(), (7, 5));
        for (wrong, text) in [("--seeds", "a number is missing"), ("--from x", "not a number"), ("7", "`7`")] {
            let error = of(wrong).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
