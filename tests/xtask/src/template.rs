//! The third part of `cargo xtask new-user`: the package of `template/`, its placeholders filled in as `cargo generate
//! --path template` does, builds offline, does what its README says, and passes its tests.

use crate::{new_user::Folder, summary::Summary};
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path};

/// The name of the new package.
const NAME: &str = "my-service";

pub(crate) fn run(root: &Path) -> Result<()> {
    let folder = Folder::create(root)?;
    let package = folder.0.join(NAME);
    let sagabus = root.join("sagabus");
    let values = [("{{project-name}}", NAME), ("{{sagabus_path}}", sagabus.to_str().context("the path is no text")?)];
    expand(&root.join("template"), &package, &values)?;
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?; // the versions that are here
    folder.cargo(&package, &["build", "--offline"], root)?;
    let printed = folder.run(&package, root)?;
    for end in [": paid", ": too expensive"] {
        ensure!(printed.lines().any(|line| line.ends_with(end)), "an order that ends with `{end}` was expected");
    }
    let mut summary = Summary::default();
    folder.cargo(&package, &["test", "--offline"], root)?.lines().for_each(|line| summary.read(line));
    ensure!(summary.any_ran(), "the template has no test");
    println!("template/ works: {summary}");
    Ok(())
}

/// Copies the template, with values in the place of the placeholders.
fn expand(from: &Path, to: &Path, values: &[(&str, &str)]) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            expand(&path, &to.join(name), values)?;
        } else if name != "cargo-generate.toml" {
            let text = fs::read_to_string(&path)?;
            let text = values.iter().fold(text, |text, (placeholder, value)| text.replace(placeholder, value));
            // it is a template language: what looks like its syntax would be taken for it
            ensure!(!text.contains("{{") && !text.contains("{%"), "{} has an unknown placeholder", path.display());
            fs::write(to.join(name), text)?;
        }
    }
    Ok(())
}
