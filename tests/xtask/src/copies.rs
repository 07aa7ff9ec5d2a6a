//! The last part of `cargo xtask new-user`: a copy of each sample, outside the repository, builds once the one path in
//! its manifest is right. That is what the samples' READMEs promise.

use crate::new_user::Folder;
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path};

/// Where the repository lies, in a sample's manifest.
const REPOSITORY: &str = "../..";

pub(crate) fn run(root: &Path) -> Result<()> {
    let folder = Folder::create(root)?;
    let mut copies = 0;
    for entry in fs::read_dir(root.join("samples"))? {
        let sample = entry?;
        if sample.path().join("Cargo.toml").is_file() {
            copy(&sample.path(), &folder.0.join(sample.file_name()))?;
            correct(&folder.0.join(sample.file_name()).join("Cargo.toml"), root)?;
            copies += 1;
        }
    }
    ensure!(copies > 0, "samples/ holds no package");
    // the copies are built together, so what they depend on is compiled once, and without what only a debugger needs
    let manifest = "[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n\n[profile.dev]\ndebug = false\n";
    fs::write(folder.0.join("Cargo.toml"), manifest)?;
    fs::copy(root.join("Cargo.lock"), folder.0.join("Cargo.lock"))?; // the versions that are here
    folder.cargo(&folder.0, &["build", "--offline", "--workspace"], root)?;
    println!("copies of {copies} samples build outside the repository");
    Ok(())
}

/// Puts the path of the repository into a manifest.
fn correct(manifest: &Path, root: &Path) -> Result<()> {
    let text = fs::read_to_string(manifest)?;
    ensure!(text.contains(REPOSITORY), "{} names no path to correct", manifest.display());
    let root = root.to_str().context("the repository's path is no text")?;
    Ok(fs::write(manifest, text.replace(REPOSITORY, root))?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
