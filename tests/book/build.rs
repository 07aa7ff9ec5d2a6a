//! Makes each Rust block of the book a program, so that it can be a doctest and is still shown without noise.
//!
//! - A comment `<!-- rust … -->` holds lines that every later block of its page begins with, until the next such
//!   comment. `<!-- and … -->` holds lines for the next block alone. `{root}` in them is the repository.
//! - A block of items without `fn main` gets one that calls its `#[test]` functions: a doctest would leave them out.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Where pages lie, and what their modules' names begin with. A macro's page is not a doctest of its own package: with
/// `sagabus` as a dependency of a package of macros, cargo would compile everything twice, once for the host.
const BOOKS: [(&str, &str); 2] = [("", "docs/book"), ("macro-", "saga-core/derive/src")];
/// It is a package of its own, step by step: `cargo xtask new-user` follows it.
const FOLLOWED: &str = "first-saga.md";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it lies two folders below");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let mut modules = String::new();
    for (prefix, page) in
        BOOKS.iter().flat_map(|(prefix, folder)| pages(&root.join(folder)).map(move |page| (prefix, page)))
    {
        let name = format!("{prefix}{}", page.file_name().and_then(|name| name.to_str()).expect("names are text"));
        if name == FOLLOWED {
            continue;
        }
        println!("cargo::rerun-if-changed={}", page.display());
        let programs = programs(&fs::read_to_string(page).expect("a page can be read"), &root.display().to_string());
        fs::write(format!("{out}/{name}"), programs).expect("the output can be written");
        let module = name.trim_end_matches(".md").replace('-', "_");
        modules.push_str(&format!("#[doc = include_str!(\"{out}/{name}\")]\npub mod {module} {{}}\n"));
    }
    fs::write(format!("{out}/pages.rs"), modules).expect("the output can be written");
}

/// The pages of a folder, in the order of their names.
fn pages(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let files = fs::read_dir(folder).expect("there are pages").map(|file| file.expect("it can be listed").path());
    let mut pages: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect();
    pages.sort();
    pages.into_iter()
}

/// The page with hidden lines in its Rust blocks.
fn programs(page: &str, root: &str) -> String {
    let (mut shared, mut own) = (Vec::<String>::new(), Vec::<String>::new());
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        // a block that takes in files of the repository needs its own `crate`, in which they find each other
        let takes_files = |line: &String| line.starts_with("#[path");
        if line.starts_with("```rust") && shared.iter().any(takes_files) {
            out.push_str(",standalone_crate");
        }
        out.push('\n');
        let hidden = lines.clone().take_while(|line| *line != "-->").map(|line| line.replace("{root}", root));
        match line {
            "<!-- rust" => (shared, own) = (hidden.collect(), Vec::new()),
            "<!-- and" => own = hidden.collect(),
            _ if line.starts_with("```rust") => {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                let own = std::mem::take(&mut own);
                for hidden in shared.iter().chain(&own) {
                    out.push_str(&format!("# {hidden}\n"));
                }
                block.iter().filter(|line| **line != "#[test]").for_each(|line| out.push_str(&format!("{line}\n")));
                // statements are put into a `main` by rustdoc, which would say of another one that it does not run
                let is_statements = block.iter().any(|line| line.starts_with("let "));
                if !is_statements && !block.iter().any(|line| line.contains("fn main()")) {
                    let tests = block.iter().zip(&block[1..]).filter(|(line, _)| **line == "#[test]");
                    let names = tests.filter_map(|(_, line)| line.strip_prefix("fn ")?.split('(').next());
                    let calls: String = names.map(|name| format!(" {name}();")).collect();
                    out.push_str(&format!("# fn main() {{{calls} }}\n"));
                }
                out.push_str("```\n");
            }
            _ => {}
        }
    }
    out
}
