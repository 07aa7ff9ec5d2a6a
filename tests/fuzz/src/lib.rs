//! Inputs that nobody meant: valid ones with a few changes, which a seed chooses. `cargo xtask fuzz` runs as many as
//! one wants; `cargo test` runs a few thousand for each reader.

use fastrand::Rng;
use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Which seeds are run: `FROM..TO`.
const SEEDS: &str = "SAGABUS_FUZZ";
/// How many seeds are run unless somebody says otherwise.
const SOME: u64 = 2_500;
/// The most changes of one input.
const CHANGES_MAX: usize = 6;
/// Inputs do not grow beyond this: it is about form, and other tests are about size.
const BYTES_MAX: usize = 64 * 1024;

/// What readers stumble over.
const WORDS: [&[u8]; 28] = [
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\"",
    b"{",
    b"}",
    b"[",
    b",",
    b":",
    b"-1",
    b"1e400",
    b"-0.0",
    b"NaN",
    b"9223372036854775807",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1.5",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x80",
    "é".as_bytes(),
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
];

/// Runs a check on inputs that are made of samples. It fails when one panics, and says which seed makes that input.
///
/// # Panics
/// When a check does, and when there are no samples.
pub fn each(samples: &[&[u8]], check: impl Fn(&[u8])) {
    for seed in seeds() {
        let input = made(samples, seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            let shown = String::from_utf8_lossy(&input);
            eprintln!("seed {seed}, again with `{SEEDS}={seed}..{}`: {} bytes, {shown:?}", seed + 1, input.len());
            resume_unwind(panic);
        }
    }
}

/// The same for readers of text.
///
/// # Panics
/// When a check does, and when there are no samples.
pub fn each_text(samples: &[&str], check: impl Fn(&str)) {
    let samples: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
    each(&samples, |input| check(&String::from_utf8_lossy(input)));
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else { return 0..SOME };
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("{SEEDS}={text}: seeds are FROM..TO"))
}

/// The input of a seed.
fn made(samples: &[&[u8]], seed: u64) -> Vec<u8> {
    let mut dice = Rng::with_seed(seed);
    let mut input = samples[dice.usize(..samples.len())].to_vec();
    for _ in 0..dice.usize(1..=CHANGES_MAX) {
        change(&mut input, samples, &mut dice);
        input.truncate(BYTES_MAX);
    }
    input
}

fn change(input: &mut Vec<u8>, samples: &[&[u8]], dice: &mut Rng) {
    let at = dice.usize(..=input.len());
    match dice.u8(..9) {
        0 => input.truncate(at),
        1 | 2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.u8(..8);
            }
        }
        3 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = dice.u8(..);
            }
        }
        4 => drop(input.drain(part(input.len(), at, dice))),
        5 => {
            let again = input[part(input.len(), at, dice)].to_vec();
            input.splice(at..at, again);
        }
        6 => {
            let other = samples[dice.usize(..samples.len())];
            let from = dice.usize(..=other.len());
            input.splice(at..at, other[part(other.len(), from, dice)].to_vec());
        }
        7 => {
            // deep, as only a stranger nests
            let open: &[u8] = if dice.bool() { b"[" } else { b"{\"a\":" };
            input.splice(at..at, open.repeat(dice.usize(1..2000)));
        }
        _ => {
            let word = WORDS[dice.usize(..WORDS.len())];
            let over = part(input.len(), at, dice);
            let over = if dice.bool() { over } else { at..at };
            input.splice(over, word.iter().copied());
        }
    }
}

/// A short part of so many bytes, from a place on.
fn part(bytes: usize, from: usize, dice: &mut Rng) -> Range<usize> {
    from..(from + dice.usize(..=16)).min(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_an_input_and_another_seed_mostly_another() {
        let samples: [&[u8]; 2] = [b"{\"a\": 1}", b"[1, 2, 3]"];
        let inputs: Vec<_> = (0..100).map(|seed| made(&samples, seed)).collect();
        assert_eq!(inputs[7], made(&samples, 7));
        let mut different = inputs.clone();
        different.sort();
        different.dedup();
        assert!(different.len() > 80, "{} of 100", different.len());
    }

    #[test]
    #[should_panic(expected = "found it")]
    fn what_panics_fails() {
        each_text(&["{\"n\": 1}"], |text| assert!(!text.contains("1e400"), "found it"));
    }
}
