//! Tests that own their servers, and mostly wait for them: `cargo xtask test` runs them beside the others, which it
//! tells to leave out this module.

mod own_servers;
