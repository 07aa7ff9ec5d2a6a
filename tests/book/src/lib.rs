//! The Rust blocks of `docs/book` and of the macros' pages, as doctests: `cargo test -p book`. `build.rs`
//! makes each block a program.
//!
//! The blocks of `first-saga.md` are files of a package of their own: `cargo xtask new-user` builds, runs and tests it.

#[cfg(doctest)]
mod pages {
    include!(concat!(env!("OUT_DIR"), "/pages.rs"));
}
