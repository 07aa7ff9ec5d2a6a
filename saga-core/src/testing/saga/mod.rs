//! Tests of a saga without I/O: one story ([`Harness`]), or every story ([`Explore`]).

mod explore;
mod harness;
mod instance;

pub use explore::{Breach, Ending, Explore, Explored};
pub use harness::Harness;
pub use instance::Sent;

#[cfg(test)]
mod tests;
