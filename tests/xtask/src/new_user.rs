//! `cargo xtask new-user`: follows the README's section `## Add it` to the letter, in an empty folder outside the
//! repository. The section holds fenced blocks:
//!
//! - `sh`: the line `cargo new …` is run literally (without one: `cargo new hello`); other lines are for people.
//! - `toml`: is added to the new `Cargo.toml`, whose last line is `[dependencies]`; a first line `[dependencies]` is
//!   that one. A dependency that names a `path` or `git` comes from the folder of the same name in this checkout.
//! - `rust`: is the file that its first line names (`// src/main.rs`); without such a line it is added to the block
//!   before it, or is the crate's root.
//! - `text`: is what the program prints. Its lines are expected in this order; other lines may stand between, and `…`
//!   stands for anything.
//!
//! The program must end by itself, and at least one of its tests must run. Then the tutorial, `first_saga.rs`, the
//! template, `template.rs`, and copies of the samples, `copies.rs`.

use crate::{cargo, copies, first_saga, summary::Summary, template};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

const SECTION: &str = "## Add it";
/// How long the program may take to end by itself.
const RUN: Duration = Duration::from_secs(120);

pub(crate) fn run(root: &Path) -> Result<()> {
    follow(root)?;
    first_saga::run(root)?;
    template::run(root)?;
    copies::run(root)
}

fn follow(root: &Path) -> Result<()> {
    let readme = fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    let guide = Guide::read(&readme)?;
    let folder = Folder::create(root)?;
    folder.cargo(&folder.0, &guide.new, root)?;
    let package = folder.0.join(guide.name()?);
    depend(&package, &guide.toml, root)?;
    for (file, text) in &guide.files {
        let file = package.join(file);
        fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
        fs::write(file, text)?;
    }
    folder.cargo(&package, &["build"], root)?;
    if guide.is_program() {
        let printed = folder.run(&package, root)?;
        guide.check(&printed)?;
    }
    let mut summary = Summary::default();
    folder.cargo(&package, &["test"], root)?.lines().for_each(|line| summary.read(line));
    ensure!(summary.any_ran(), "the README's example has no test");
    println!("the README's `Add it` works: {summary}");
    Ok(())
}

/// What the README says.
#[derive(Debug, Default, PartialEq)]
struct Guide {
    /// Arguments of cargo that create the package.
    new: Vec<String>,
    /// What goes into its `Cargo.toml`.
    toml: String,
    /// Its sources.
    files: BTreeMap<String, String>,
    /// What its program prints.
    output: Vec<String>,
}

impl Guide {
    fn read(readme: &str) -> Result<Self> {
        let section = readme.split_once(&format!("\n{SECTION}\n")).context("README.md has no section `## Add it`")?.1;
        let mut guide = Self { new: vec!["new".into(), "hello".into()], ..Self::default() };
        let mut last = None;
        for (language, block) in blocks(section) {
            match language {
                "sh" => {
                    if let Some(new) = block.lines().find_map(|line| line.strip_prefix("cargo new ")) {
                        let arguments = new.split('#').next().unwrap_or(new); // `#` begins a shell's comment
                        let arguments = arguments.split_whitespace().map(str::to_owned);
                        guide.new = std::iter::once("new".into()).chain(arguments).collect();
                    }
                }
                "toml" => guide.toml.push_str(block.strip_prefix("[dependencies]\n").unwrap_or(&block)),
                "rust" => {
                    let named = block.lines().next().and_then(|line| line.strip_prefix("// "));
                    let named = named.filter(|name| name.ends_with(".rs") && !name.contains(' ')).map(str::to_owned);
                    let file = named.or(last).unwrap_or_else(|| guide.root().into());
                    guide.files.entry(file.clone()).or_default().push_str(&block);
                    last = Some(file);
                }
                "text" => guide.output.extend(block.lines().map(str::to_owned)),
                _ => {}
            }
        }
        ensure!(!guide.toml.is_empty(), "the section `Add it` has no ```toml block with the dependencies");
        ensure!(!guide.files.is_empty(), "the section `Add it` has no ```rust block");
        Ok(guide)
    }

    fn is_program(&self) -> bool {
        !self.new.iter().any(|argument| argument == "--lib")
    }

    fn root(&self) -> &'static str {
        if self.is_program() { "src/main.rs" } else { "src/lib.rs" }
    }

    /// The new package's folder.
    fn name(&self) -> Result<&str> {
        let mut names = self.new.iter().skip(1).filter(|argument| !argument.starts_with('-'));
        names.next().map(String::as_str).context("`cargo new` in the README names no package")
    }

    /// Whether the program printed what the README shows.
    fn check(&self, printed: &str) -> Result<()> {
        check(self.output.iter().map(String::as_str), printed)
    }
}

/// Whether a program printed the lines that are shown, in this order.
pub(crate) fn check<'a>(shown: impl Iterator<Item = &'a str>, printed: &str) -> Result<()> {
    let mut lines = printed.lines();
    for expected in shown {
        if !lines.any(|line| matches(expected.trim(), line.trim())) {
            bail!("the line `{expected}` is shown; the program printed:\n{printed}");
        }
    }
    Ok(())
}

/// Adds the dependencies of a `toml` block to a new package.
pub(crate) fn depend(package: &Path, toml: &str, root: &Path) -> Result<()> {
    let manifest = package.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    ensure!(text.ends_with("[dependencies]\n"), "`cargo new` wrote another Cargo.toml than expected:\n{text}");
    let toml = toml.strip_prefix("[dependencies]\n").unwrap_or(toml);
    fs::write(&manifest, format!("{text}{}", at_checkout(toml, root)))?;
    // the versions that the repository was tested with; packages that are not needed are dropped by cargo
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?;
    Ok(())
}

/// The fenced blocks of a section, with their languages; it ends at the next heading of its level.
pub(crate) fn blocks(section: &str) -> Vec<(&str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut inside = false;
    for line in section.lines() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                let language = language.split([',', ' ']).next().unwrap_or(language);
                blocks.push((language, String::new()));
                inside = true;
            }
            None if inside => {
                if let Some((_, block)) = blocks.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            None if line.starts_with("## ") => break,
            None => {}
        }
    }
    blocks
}

/// The dependencies, with those that name a path or a repository taken from this checkout.
fn at_checkout(toml: &str, root: &Path) -> String {
    let here = |line: &str| {
        let (name, _) = line.split_once(" = ")?;
        let (before, value) = line.split_once("path = \"").or_else(|| line.split_once("git = \""))?;
        let (_, after) = value.split_once('"')?;
        Some(format!("{before}path = \"{}\"{after}", root.join(name.trim()).display()))
    };
    toml.lines().map(|line| here(line).unwrap_or_else(|| line.into()) + "\n").collect()
}

/// Whether a line is what was expected, where `…` stands for anything.
fn matches(expected: &str, line: &str) -> bool {
    let Some((first, expected)) = expected.split_once('…') else { return expected == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = expected.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// An empty folder outside the repository, gone at the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn create(root: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("sagabus-new-user-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let folder = Self(folder.canonicalize()?);
        ensure!(!folder.0.starts_with(root), "{} lies inside the repository: set TMPDIR", folder.0.display());
        Ok(folder)
    }

    fn command(&self, at: &Path, root: &Path) -> std::process::Command {
        let mut cargo = cargo();
        cargo.current_dir(at).env("CARGO_TARGET_DIR", root.join("target/new-user")).stdin(Stdio::null());
        cargo
    }

    /// Runs cargo to its end; returns what it printed, or says what went wrong.
    pub(crate) fn cargo(&self, at: &Path, arguments: &[impl AsRef<str>], root: &Path) -> Result<String> {
        let (succeeded, printed) = self.try_cargo(at, arguments, root)?;
        ensure!(succeeded, "cargo failed:\n{printed}");
        Ok(printed)
    }

    /// The same, and whether it succeeded.
    pub(crate) fn try_cargo(&self, at: &Path, arguments: &[impl AsRef<str>], root: &Path) -> Result<(bool, String)> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        println!("$ cargo {}", arguments.join(" "));
        let done = self.command(at, root).args(&arguments).stderr(Stdio::inherit()).output()?;
        Ok((done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned()))
    }

    /// Runs the program; it must end by itself in time.
    pub(crate) fn run(&self, at: &Path, root: &Path) -> Result<String> {
        println!("$ cargo run");
        let out = self.0.join("printed");
        let mut program = self.command(at, root).args(["run", "--quiet"]).stdout(fs::File::create(&out)?).spawn()?;
        let until = Instant::now() + RUN;
        let status = loop {
            match program.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > until => break None,
                None => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let printed = fs::read_to_string(&out)?;
        print!("{printed}");
        match status {
            Some(status) => ensure!(status.success(), "the program failed: {status}"),
            None => {
                program.kill()?;
                bail!("the program did not end within {RUN:?}");
            }
        }
        Ok(printed)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // it lies in the folder for temporary files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = r#"# Sagabus

## Add it

```sh
cargo new shop   # a package of yours
```

```toml
[dependencies]
sagabus = { git = "https://example.org/sagabus", features = ["sqlite"] }
serde = { version = "1", features = ["derive"] }
```

A saga:

```rust
// src/saga.rs
struct Saga;
```
```rust
#[test]
fn it_works() {}
```
```rust
// src/main.rs
mod saga;
```
```text
order … is shipped
```

## Two commands

```rust
not ours
```
"#;

    #[test]
    fn the_section_is_read_to_its_end_and_no_further() {
        let guide = Guide::read(README).unwrap();
        assert_eq!((guide.new.join(" ").as_str(), guide.name().unwrap()), ("new shop", "shop"));
        assert!(guide.toml.starts_with("sagabus = {") && guide.toml.ends_with("[\"derive\"] }\n"), "{}", guide.toml);
        let files: Vec<_> = guide.files.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        let saga = "// src/saga.rs\nstruct Saga;\n#[test]\nfn it_works() {}\n";
        assert_eq!(files, [("src/main.rs", "// src/main.rs\nmod saga;\n"), ("src/saga.rs", saga)]);
        assert!(guide.check("starting\norder 7 is shipped\n").is_ok());
        assert!(guide.check("starting\n").unwrap_err().to_string().contains("order … is shipped"));
    }

    #[test]
    fn what_the_section_lacks_is_said() {
        let lacks = |readme: &str| Guide::read(readme).unwrap_err().to_string();
        assert!(lacks("# Sagabus\n").contains("no section"));
        assert!(lacks("\n## Add it\n```rust\n```\n").contains("toml"));
        assert!(lacks("\n## Add it\n```toml\na = 1\n```\n\n## Next\n```rust\n```\n").contains("rust"));
    }

    #[test]
    fn without_further_words_it_is_a_program_in_one_file() {
        let guide = Guide::read("\n## Add it\n```toml\na = \"1\"\n```\n```rust\nfn main() {}\n```\n").unwrap();
        assert_eq!(guide.new, ["new", "hello"]);
        assert_eq!(guide.files["src/main.rs"], "fn main() {}\n");
        let lib = "\n## Add it\n```sh\ncargo new --lib it\n```\n```toml\na = \"1\"\n```\n```rust\nfn f() {}\n```\n";
        let guide = Guide::read(lib).unwrap();
        assert_eq!((guide.name().unwrap(), guide.files.contains_key("src/lib.rs")), ("it", true));
    }

    #[test]
    fn dependencies_on_this_repository_are_taken_from_the_checkout() {
        let toml = "sagabus = { path = \"../sagabus/sagabus\", features = [\"sqlite\"] }\nserde = \"1\"\n";
        let here = "sagabus = { path = \"/repo/sagabus\", features = [\"sqlite\"] }\nserde = \"1\"\n";
        assert_eq!(at_checkout(toml, Path::new("/repo")), here);
        assert_eq!(
            at_checkout(&toml.replace("path = \"../sagabus/sagabus", "git = \"https://x"), Path::new("/repo")),
            here
        );
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        for (expected, line, same) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a…", "abc", true),
            ("…c", "abc", true),
            ("…b", "abc", false),
            ("…b", "abab", true),
            ("a…c", "abc", true),
            ("a…b…d", "a-b-c", false),
            ("…", "", true),
        ] {
            assert_eq!(matches(expected, line), same, "{expected} and {line}");
        }
    }
}
