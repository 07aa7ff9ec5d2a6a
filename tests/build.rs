//! Looks for PgBouncer: tests that need it are ignored, and counted so, where it is not installed.

use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-env=PGBOUNCER="); // until it is found
    println!("cargo::rustc-check-cfg=cfg(pgbouncer)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    let path = std::env::var_os("PATH").unwrap_or_default();
    // it is a daemon, so it may be in a folder that is only in root's PATH
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    for folder in folders.filter(|folder| folder.is_dir()) {
        let program = folder.join("pgbouncer");
        if program.is_file() {
            println!("cargo::rustc-cfg=pgbouncer");
            println!("cargo::rustc-env=PGBOUNCER={}", program.display());
            println!("cargo::rerun-if-changed={}", program.display());
            return;
        }
        if folder.ends_with("sbin") {
            println!("cargo::rerun-if-changed={}", folder.display()); // it may be installed later
        }
    }
}
