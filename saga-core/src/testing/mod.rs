//! For tests of services and of the endpoint itself: one saga without I/O ([`Harness`], [`Explore`]), whole services in
//! virtual time (`in_virtual_time`, with the feature `simulation`), and a store in memory that fails when it is told to.

mod memory;
mod saga;
#[cfg(feature = "simulation")]
mod simulation;
mod snapshot;
#[cfg(feature = "simulation")]
mod virtual_time;

pub use memory::{
    HeldRecord, InboxRecord, InstanceRecord, MemoryError, MemoryStore, MemoryTx, MemoryUnit, Operation, OutboxRecord,
    ProcessRecord,
};
pub use saga::{Breach, Difference, Ending, Explore, Explored, Harness, Replayed, Sent, replay};
#[cfg(feature = "simulation")]
pub use simulation::{Failure, Faults, Simulated, Simulation, World};
pub use snapshot::snapshot;
#[cfg(feature = "simulation")]
pub use virtual_time::in_virtual_time;
