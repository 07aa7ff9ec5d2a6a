//! Tests of a saga without I/O: one story ([`Harness`]), or every story ([`Explore`]).

mod explore;
mod explored;
mod harness;
mod instance;
mod replay;
mod story;

pub use explore::{Ending, Explore};
pub use explored::{Breach, Explored};
pub use harness::Harness;
pub use instance::Sent;
pub use replay::{Difference, Replayed, replay};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod ways;
