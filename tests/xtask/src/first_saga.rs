//! The second half of `cargo xtask new-user`: follows the steps of docs/book/first-saga.md, block by block.
//!
//! - `rust` is the whole of the file that its first line names (`// src/main.rs`), or an end of it (`// add to
//!   src/main.rs`), or goes behind an item of it (`// insert into src/main.rs after "impl Board {"`).
//! - `diff` names its file in the first line (`--- src/main.rs`); each run of `-` lines is replaced by the `+` lines
//!   after it.
//! - `sh`: each `cargo` line is run; one with the comment `# fails` must fail.
//! - `toml`: the dependencies. `text`: what the command before printed, as in the README.

use crate::{
    new_user::{Folder, blocks, check, depend},
    summary::Summary,
};
use anyhow::{Context, Result, bail, ensure};
use std::{fs, path::Path};

const PAGE: &str = "docs/book/first-saga.md";

pub(crate) fn run(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let folder = Folder::create(root)?;
    let (mut package, mut printed, mut summary) = (folder.0.clone(), String::new(), Summary::default());
    for (step, section) in page.split("\n## Step ").enumerate().skip(1) {
        println!("step {step}");
        for (language, block) in blocks(section) {
            let done = match language {
                "toml" => depend(&package, &block, root),
                "rust" | "diff" => edit(&package, &block),
                "text" => check(block.lines(), &printed),
                "sh" => block.lines().filter_map(|line| line.strip_prefix("cargo ")).try_for_each(|line| {
                    let (line, comment) = line.split_once('#').unwrap_or((line, ""));
                    let arguments: Vec<&str> = line.split_whitespace().collect();
                    printed = match arguments[..] {
                        ["run"] => folder.run(&package, root)?,
                        _ => {
                            let (succeeded, printed) = folder.try_cargo(&package, &arguments, root)?;
                            let expected = comment.trim() != "fails";
                            ensure!(succeeded == expected, "`cargo {line}` did not do what is shown:\n{printed}");
                            printed
                        }
                    };
                    match arguments[..] {
                        ["new", name] => package.push(name),
                        ["test"] => printed.lines().for_each(|line| summary.read(line)),
                        _ => {}
                    }
                    Ok(())
                }),
                _ => Ok(()),
            };
            done.with_context(|| format!("step {step} of {PAGE}"))?;
        }
    }
    ensure!(summary.any_ran(), "{PAGE} has no test");
    println!("{PAGE} works");
    Ok(())
}

/// Changes a file of the package as a block says.
fn edit(package: &Path, block: &str) -> Result<()> {
    let (first, rest) = block.split_once('\n').unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let name = words.iter().find(|word| word.ends_with(".rs")).context("a block's first line names its file")?;
    let path = package.join(name);
    let old = || fs::read_to_string(&path).with_context(|| format!("{name} does not exist yet"));
    let new = match words[..] {
        ["//", _] => block.into(),
        ["//", "add", ..] => format!("{}\n{rest}", old()?),
        ["//", "insert", ..] => {
            let after = first.split('"').nth(1).context("`after` is followed by a text in quotes")?;
            behind(&old()?, after, rest)?
        }
        ["---", _] => changed(&old()?, rest)?,
        _ => bail!("what to do is not clear: {first}"),
    };
    Ok(fs::write(&path, new)?)
}

/// The file with a text behind the item that begins on the line with `after`.
fn behind(file: &str, after: &str, text: &str) -> Result<String> {
    let at = file.find(after).with_context(|| format!("no line has `{after}`"))?;
    let indent = file[..at].rsplit('\n').next().unwrap_or_default();
    let end = format!("\n{indent}}}\n");
    let at = at + file[at..].find(&end).with_context(|| format!("`{after}` has no end"))? + end.len();
    Ok(format!("{}\n{text}{}", &file[..at], &file[at..]))
}

/// The file after a diff without context.
fn changed(file: &str, diff: &str) -> Result<String> {
    let mut file = file.to_owned();
    let (mut old, mut new) = (String::new(), String::new());
    let mut lines = diff.lines().peekable();
    while let Some(line) = lines.next() {
        let (side, text) = if let Some(text) = line.strip_prefix('-') {
            (&mut old, text)
        } else {
            (&mut new, line.strip_prefix('+').with_context(|| format!("neither `-` nor `+`: {line}"))?)
        };
        *side += &format!("{text}\n");
        if !new.is_empty() && lines.peek().is_none_or(|next| next.starts_with('-')) {
            ensure!(file.matches(&old).count() == 1, "these lines are not there once:\n{old}");
            file = file.replace(&old, &new);
            (old, new) = (String::new(), String::new());
        }
    }
    ensure!(old.is_empty(), "nothing takes the place of:\n{old}");
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_goes_behind_an_item() {
        let file = "impl A {\n    fn f() {\n    }\n    fn g() {}\n}\n";
        let inner = behind(file, "fn f(", "    fn new() {}\n").unwrap();
        assert_eq!(inner, "impl A {\n    fn f() {\n    }\n\n    fn new() {}\n    fn g() {}\n}\n");
        assert!(behind(file, "impl A {", "struct B;\n").unwrap().ends_with("}\n\nstruct B;\n"));
        assert!(behind(file, "impl B", "").is_err());
    }

    #[test]
    fn lines_are_replaced_once() {
        assert_eq!(changed("a\nb\nc\n", "-a\n+x\n+y\n-c\n+z\n").unwrap(), "x\ny\nb\nz\n");
        for (file, diff) in [("a\na\n", "-a\n+x\n"), ("a\n", "-b\n+x\n"), ("a\n", "-a\n"), ("a\n", "?\n")] {
            assert!(changed(file, diff).is_err(), "{diff}");
        }
    }
}
