//! The book as a whole: every page is listed, every link leads somewhere, every test that is named exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file below a folder with this ending, with its text.
fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    found
}

/// The targets of the links in a page, without those to other sites and within the page.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn every_link_leads_to_a_file() {
    let docs = root().join("docs");
    let mut pages = files(&docs, ".md");
    pages.extend(files(&docs, "llms.txt"));
    let mut checked = 0;
    for (path, text) in &pages {
        // in Rust code `](` can be anything
        let prose: String = text.split("```").step_by(2).collect();
        for link in links(&prose) {
            assert!(path.parent().unwrap().join(link).exists(), "{}: {link} does not exist", path.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn every_page_is_listed() {
    let docs = root().join("docs");
    let [summary, llms] = ["book/SUMMARY.md", "llms.txt"].map(|name| fs::read_to_string(docs.join(name)).unwrap());
    for (path, _) in files(&docs.join("book"), ".md").iter().filter(|(path, _)| !path.ends_with("SUMMARY.md")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(summary.contains(&format!("({name})")), "SUMMARY.md lacks {name}");
        assert!(llms.contains(&format!("(book/{name})")), "llms.txt lacks {name}");
    }
}

#[test]
fn every_test_that_a_guarantee_names_exists() {
    let root = root();
    let sources = files(&root, ".rs");
    let page = fs::read_to_string(root.join("docs/book/guarantees.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let mut checked = 0;
    for row in rows {
        let tests = row.rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            let exists = match name.rsplit_once("--test ") {
                Some((_, file)) => root.join(format!("tests/tests/{file}.rs")).exists(),
                None => sources.iter().any(|(_, text)| text.lines().any(|line| names(line, name))),
            };
            assert!(exists, "no test is named `{name}`");
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} names were found");
}

/// Whether a line begins a function whose name contains this.
fn names(line: &str, name: &str) -> bool {
    let function = line.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
    function.is_some_and(|function| function.contains(name))
}
