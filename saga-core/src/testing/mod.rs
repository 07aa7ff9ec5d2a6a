//! For tests of services and of the endpoint itself: one saga without I/O ([`Harness`], [`Explore`]), journals of real
//! instances ([`replay()`]), whole services in virtual time and under faults (`in_virtual_time`, `Simulation`, with the
//! feature `simulation`), a store in memory that fails when it is told to, and a chart kept as a file ([`snapshot()`]).

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
