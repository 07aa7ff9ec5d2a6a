//! `cargo xtask faults`: the ordering sample under every fault that is listed, and an audit of its books after each.

use crate::{cargo, root};
use anyhow::{Context, Result, ensure};
use servers::Programs;
use std::process::Command;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if Programs::find().is_none() && servers::can_install() {
        Programs::install()?; // it kills its servers, so it wants programs of its own; without them it says so
    }
    // a quick run takes the programs that `cargo xtask test` has built; a full one has a hundred times as many orders
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (profile, build): (_, &[&str]) = if quick { ("debug", &[]) } else { ("release", &["--release"]) };
    let built = cargo().args(["build", "--quiet", "--workspace", "--bins"]).args(build).current_dir(root()?).status();
    ensure!(built.context("cannot run cargo")?.success(), "`cargo build` failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), Into::into);
    let program = target.join(profile).join("faults");
    let status = Command::new(&program).args(arguments).current_dir(root()?).status();
    ensure!(
        status.with_context(|| format!("cannot run {}", program.display()))?.success(),
        "something was lost, doubled or late, or could not be run: see above"
    );
    Ok(())
}
