//! The end of every unit of work: one write, the commit, and what follows it in this order and no other.

use super::core::Core;
use crate::{OutboxRow, Step, Store, StoreError, Write, port::Unit};

impl<Db: Store> Core<Db> {
    pub(crate) fn new_write(&self) -> Write {
        Write { endpoint: self.name.clone(), owner: self.owner.clone(), lease: self.settings.lease, ..Write::default() }
    }
}

/// Writes and commits; then dispatches. The caller acknowledges after it.
pub(super) async fn commit<Db: Store>(
    core: &Core<Db>,
    mut unit: Db::Unit,
    mut write: Write,
    mut outbox: Vec<OutboxRow>,
) -> Result<(), StoreError> {
    let now = outbox.iter().filter(|row| row.delay.is_none()).count();
    let room = core.dispatcher.reserve(now);
    for row in &mut outbox {
        row.leased = room.leased && row.delay.is_none();
    }
    write.outbox = outbox;
    let written = if write.is_empty() { Ok(()) } else { unit.write(&write).await };
    core.faults.reach(Step::BeforeCommit);
    match written {
        Ok(()) => unit.commit().await?,
        Err(StoreError::Conflict) => {
            unit.rollback().await?; // the connection is as good as before
            return Err(StoreError::Conflict);
        }
        Err(error) => return Err(error),
    }
    core.faults.reach(Step::Commit);
    core.dispatcher.enqueue(room, write.outbox);
    core.faults.reach(Step::BeforeAck);
    Ok(())
}
