//! Looks for PgBouncer: tests that need it are ignored, and counted so, where it is not installed. Compiles the clock
//! that is wrong, where there is a C compiler. Takes the saga of samples/ordering for the simulation, without its own
//! tests, which look for files beside it.

use std::{path::PathBuf, process::Command};

/// Below the folder of this package.
const SAGA: &str = "../samples/ordering/src/saga.rs";

fn main() {
    take_saga();
    look_for_pgbouncer();
    make_clock();
}

/// Rust links with `cc`, so it is nearly always there. Elsewhere than on Linux, libraries are preloaded otherwise.
fn make_clock() {
    const CLOCK: &str = "src/clock.c";
    println!("cargo::rustc-env=CLOCK="); // until it is made
    println!("cargo::rustc-check-cfg=cfg(clock)");
    println!("cargo::rerun-if-changed={CLOCK}");
    if std::env::var_os("CARGO_CFG_TARGET_OS").is_none_or(|os| os != "linux") {
        return;
    }
    let library = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("libclock.so");
    let made = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(CLOCK).status();
    if made.is_ok_and(|status| status.success()) {
        println!("cargo::rustc-cfg=clock");
        println!("cargo::rustc-env=CLOCK={}", library.display());
    } else {
        println!("cargo::warning=there is no C compiler: tests of wrong clocks are left out");
    }
}

fn take_saga() {
    println!("cargo::rerun-if-changed={SAGA}");
    let text = std::fs::read_to_string(SAGA).expect("the sample has a saga");
    let (saga, _) = text.split_once("#[cfg(test)]").expect("its tests come last");
    let code = saga.lines().filter(|line| !line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("ordering_saga.rs");
    std::fs::write(out, code).expect("the output can be written");
}

fn look_for_pgbouncer() {
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
