//! For tests of services and of the endpoint itself: a store in memory that follows virtual time and fails when it is
//! told to.

mod memory;
mod saga;
mod snapshot;

pub use memory::{
    HeldRecord, InboxRecord, InstanceRecord, MemoryError, MemoryStore, MemoryTx, MemoryUnit, Operation, OutboxRecord,
    ProcessRecord,
};
pub use saga::{Breach, Ending, Explore, Explored, Harness, Sent};
pub use snapshot::snapshot;
