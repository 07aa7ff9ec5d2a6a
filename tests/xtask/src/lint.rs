//! What no compiler checks in the sources: long lines (rustfmt leaves comments and texts alone), long files, and chance
//! that no seed decides in what simulations run.

use anyhow::{Result, bail};
use std::{fs, path::Path};

/// The longest line, in characters.
const COLUMNS_MAX: usize = 120;
/// The longest source file, in lines.
const LINES_MAX: usize = 450;

/// Code that runs in simulations, where a seed decides everything.
const SEEDED: [&str; 2] = ["saga-core/src/", "transports/src/in_process.rs"];
/// The one place that may ask clock and chance.
const AMBIENT: &str = "saga-core/src/ambient.rs";
/// What takes time or chance from the machine, and what to write instead.
const FROM_OUTSIDE: [(&str, &str); 5] = [
    ("Uuid::now_v7()", "ask `ambient::fresh_id`"),
    ("Uuid::new_v4()", "ask `ambient`"),
    ("SystemTime::now()", "ask `ambient::now_us`"),
    ("available_parallelism()", "ask `ambient::cores`"),
    ("process::id()", "ask `ambient::process_name`"),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let files = look(root, root, &mut wrong)?;
    for offender in &wrong {
        println!("{offender}");
    }
    match (files, wrong.len()) {
        (0, _) => bail!("no source file found below {}", root.display()),
        (_, 0) => Ok(()),
        (_, offenders) => bail!("{offenders} in {files} source files: see above"),
    }
}

/// Checks every `.rs` file below a folder, except build output and hidden folders. Returns the number of files.
fn look(root: &Path, folder: &Path, wrong: &mut Vec<String>) -> Result<usize> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut files = 0;
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            files += look(root, &path, wrong)?;
        } else if kind.is_file() && name.ends_with(".rs") {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            wrong.extend(offences(&shown, &fs::read_to_string(&path)?));
            files += 1;
        }
    }
    Ok(files)
}

fn offences(file: &str, text: &str) -> Vec<String> {
    let columns = text.lines().map(|line| line.chars().count());
    let long = columns.zip(1..).filter(|(columns, _)| *columns > COLUMNS_MAX);
    let mut wrong: Vec<String> =
        long.map(|(columns, line)| format!("{file}:{line}: {columns} columns; {COLUMNS_MAX} are allowed")).collect();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{file}: {lines} lines; {LINES_MAX} are allowed"));
    }
    if SEEDED.iter().any(|of| file.starts_with(of)) && !file.contains("/tests") && file != AMBIENT {
        wrong.extend(unseeded(file, text));
    }
    wrong
}

/// Time and chance that no seed decides.
fn unseeded(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with("//")).peekable();
    while let Some((line, number)) = lines.next() {
        if line.contains("mod tests") {
            break;
        }
        let outside = FROM_OUTSIDE.iter().filter(|(call, _)| line.contains(call));
        wrong.extend(outside.map(|(call, instead)| format!("{file}:{number}: `{call}`: {instead}")));
        let biased = lines.peek().is_some_and(|(next, _)| next.trim() == "biased;");
        if line.trim_end().ends_with("select! {") && !biased {
            wrong.push(format!("{file}:{number}: `select!` without `biased;` throws a die"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_long_line_and_every_long_file_is_named() {
        assert_eq!(offences("a.rs", &format!("{}\n", "é".repeat(120))), [""; 0], "columns are characters, not bytes");
        let long = format!("fine\n{}\nfine\n{}\n", "x".repeat(121), "y".repeat(130));
        let expected = ["a.rs:2: 121 columns; 120 are allowed", "a.rs:4: 130 columns; 120 are allowed"];
        assert_eq!(offences("a.rs", &long), expected);
        assert_eq!(offences("a.rs", &"x\n".repeat(450)), [""; 0]);
        assert_eq!(offences("a.rs", &"x\n".repeat(451)), ["a.rs: 451 lines; 450 are allowed"]);
    }

    #[test]
    fn chance_that_no_seed_decides_is_named() {
        let text = "let id = Uuid::now_v7();\ntokio::select! {\n    a => {}\n}\ntokio::select! {\n    biased;\n}\n";
        let file = "saga-core/src/endpoint/relay.rs";
        let expected = ["1: `Uuid::now_v7()`: ask `ambient::fresh_id`", "2: `select!` without `biased;` throws a die"];
        assert_eq!(offences(file, text), expected.map(|wrong| format!("{file}:{wrong}")));
        assert_eq!(offences("samples/ordering/src/api.rs", text), [""; 0], "no simulation runs it");
        assert_eq!(offences(file, &format!("mod tests {{\n{text}}}\n")), [""; 0], "tests may throw dice");
    }
}
