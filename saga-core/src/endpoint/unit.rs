//! The end of every unit of work: one write, the commit, and what follows it in this order and no other.

use super::core::Core;
use crate::{OutboxRow, Step, Store, StoreError, Write, port::Unit};

impl<Db: Store> Core<Db> {
    pub(crate) fn new_write(&self) -> Write {
        Write { endpoint: self.name.clone(), owner: self.owner.clone(), lease: self.settings.lease, ..Write::default() }
    }
}

/// Whether the deletion of sent rows rides on a write. Not on a session's, whose caller may drop it at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Ride,
    Stay,
}

/// Writes and commits; then dispatches. The caller acknowledges after it.
///
/// The list of sent rows that ride on the write is given back unless the commit is known: a row that was deleted already
/// is deleted again without harm, one that was not must not be forgotten.
pub(super) async fn commit<Db: Store>(
    core: &Core<Db>,
    mut unit: Db::Unit,
    mut write: Write,
    mut outbox: Vec<OutboxRow>,
    sent: Sent,
) -> Result<(), StoreError> {
    let now = outbox.iter().filter(|row| row.delay.is_none()).count();
    let room = core.dispatcher.reserve(now);
    for row in &mut outbox {
        row.leased = room.leased && row.delay.is_none();
    }
    write.outbox = outbox;
    if sent == Sent::Ride {
        write.sent = core.dispatcher.take_sent();
    }
    let written = if write.is_empty() { Ok(()) } else { unit.write(&write).await };
    core.faults.reach(Step::BeforeCommit);
    let committed = match written {
        Ok(()) => unit.commit().await,
        Err(error) => Err(error),
    };
    if let Err(error) = committed {
        core.dispatcher.give_back_sent(write.sent);
        return Err(error);
    }
    core.faults.reach(Step::Commit);
    core.dispatcher.enqueue(room, write.outbox);
    core.faults.reach(Step::BeforeAck);
    Ok(())
}
