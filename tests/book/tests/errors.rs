//! The page of error codes: it says what the code says, and the source uses each.

use sagabus::port::ErrorCode;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// With `SAGABUS_BLESS=1` the page is written: its paragraphs are the documentation of the codes.
#[test]
fn the_page_has_the_paragraph_of_each_code() {
    let file = root().join("docs/book/errors.md");
    let page = fs::read_to_string(&file).unwrap();
    let (preface, _) = page.split_once("\n## SB").expect("codes follow the preface");
    let paragraph = |code: &ErrorCode| format!("\n## {code} {}\n\n{}\n", code.name(), wrapped(&code.paragraph()));
    let expected = format!("{preface}{}", ErrorCode::ALL.iter().map(paragraph).collect::<String>());
    if std::env::var_os("SAGABUS_BLESS").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap();
    assert_eq!(kept, expected, "docs/book/errors.md differs from the codes: SAGABUS_BLESS=1 writes it anew");
}

#[test]
fn the_source_uses_each_code() {
    let mut sources = Vec::new();
    for folder in ["saga-core/src", "transports/src", "outbox/src", "operator/src"] {
        read(&root().join(folder), &mut sources);
    }
    let unused: Vec<String> = ErrorCode::ALL
        .iter()
        .filter(|code| !sources.iter().any(|text| uses(text, &format!("Code::{code:?}"))))
        .map(|code| format!("{code} {code:?}"))
        .collect();
    assert!(unused.is_empty(), "no source says these codes: {unused:#?}");
}

/// Whether the text has the word, and not only as the beginning of a longer one.
fn uses(text: &str, word: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
    text.match_indices(word).any(|(at, _)| ends(&text[at + word.len()..]))
}

/// All sources but the list of codes itself.
fn read(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            read(&path, texts);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("error_code.rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Lines as wide as those of the other pages.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 120;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.into());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}
