//! `cargo xtask conformance`: runs the tests that bear a number of docs/conformance.md, and says which numbers hold.

use crate::{cargo, root, services::Services};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

/// The tests of each number that ran, and whether they passed.
type Results = BTreeMap<String, Vec<(String, bool)>>;

/// `areas` are first letters of numbers, `S` for sagas; all if there are none.
pub(crate) fn run(areas: &[String]) -> Result<()> {
    let page = fs::read_to_string(root()?.join("docs/conformance.md")).context("docs/conformance.md")?;
    let wanted = |number: &String| areas.is_empty() || areas.iter().any(|area| number.starts_with(area.as_str()));
    let numbers: Vec<String> = numbers_of(&page).into_iter().filter(wanted).collect();
    if numbers.is_empty() {
        bail!("docs/conformance.md has no such number: name areas by their first letter, `cargo xtask conformance S`");
    }
    let services = Services::start()?;
    let mut child = cargo()
        .args(["test", "--workspace", "--no-fail-fast", "--"])
        .args(numbers.iter().map(|number| in_names(number)))
        .envs(services.environment())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut results = Results::new();
    for line in BufReader::new(child.stdout.take().context("the output is piped")?).lines() {
        read(&line?, &mut results);
    }
    child.wait()?;
    let (mut passed, mut failed, mut missing) = (0, 0, 0);
    for number in &numbers {
        let tests = results.get(number).map(Vec::as_slice).unwrap_or_default();
        let (word, test) = match tests.iter().find(|(_, passed)| !passed).or_else(|| tests.first()) {
            None => ("missing", ""),
            Some((name, true)) => ("passed", name.as_str()),
            Some((name, false)) => ("failed", name.as_str()),
        };
        println!("{number} {word:7} {test}");
        match word {
            "passed" => passed += 1,
            "failed" => failed += 1,
            _ => missing += 1,
        }
    }
    println!("{passed} passed, {failed} failed, {missing} missing, of {}", numbers.len());
    if failed + missing > 0 {
        bail!("not everything holds");
    }
    Ok(())
}

/// The numbers in the first column of the page's tables, sorted.
fn numbers_of(page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    let cells = rows.flat_map(|(cell, _)| cell.split(", "));
    let mut numbers: Vec<String> = cells.filter(|cell| is_number(cell)).map(str::to_owned).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// `S-001`.
fn is_number(text: &str) -> bool {
    let Some((area, number)) = text.split_once('-') else { return false };
    area.len() == 1
        && area.chars().all(|c| c.is_ascii_uppercase())
        && number.len() == 3
        && number.parse::<u16>().is_ok()
}

/// `S-001` as it stands in the name of a test, `s_001_`.
fn in_names(number: &str) -> String {
    format!("{}_", number.to_lowercase().replace('-', "_"))
}

/// Takes a line such as `test sagas::s_001_s_024_a_start_creates ... ok`.
fn read(line: &str, results: &mut Results) {
    let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else { return };
    let passed = match result.trim_end() {
        "ok" => true,
        "FAILED" => false,
        _ => return,
    };
    let parts: Vec<&str> = name.rsplit("::").next().unwrap_or(name).split('_').collect();
    for pair in parts.windows(2) {
        let number = format!("{}-{}", pair[0].to_uppercase(), pair[1]);
        if is_number(&number) {
            results.entry(number).or_default().push((name.to_owned(), passed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_first_column() {
        let page =
            "# S-009\n| number | what holds |\n|---|---|\n| S-002, S-006 | a |\n| S-001 | see S-007 |\n| B9 | x |";
        assert_eq!(numbers_of(page), ["S-001", "S-002", "S-006"]);
    }

    #[test]
    fn each_number_in_a_tests_name_gets_its_result() {
        let mut results = Results::new();
        for line in [
            "test a::s_001_s_024_a_start ... ok",
            "test b::s_001_on_postgres ... FAILED",
            "test c::o_001_other ... ignored",
            "running 3 tests",
        ] {
            read(line, &mut results);
        }
        let of =
            |number: &str| results.get(number).map(|tests| tests.iter().map(|(_, passed)| *passed).collect::<Vec<_>>());
        assert_eq!((of("S-001"), of("S-024"), of("O-001")), (Some(vec![true, false]), Some(vec![true]), None));
        assert_eq!(in_names("S-001"), "s_001_");
    }
}
