//! The end of every unit of work: write, commit, dispatch, always in this order.

use super::shared::Shared;
use crate::{
    CrashPoint, Store, StoreError, StoreErrorKind,
    port::{Unit, Write},
};

/// Writes, commits and hands the messages to the dispatcher. The caller acknowledges afterwards.
pub(super) async fn finish<Db: Store>(
    shared: &Shared<Db>,
    mut unit: Db::Unit,
    mut write: Write,
) -> Result<(), StoreError> {
    let now = write.outbox.iter().filter(|row| row.delay.is_none()).count();
    let reservation = shared.dispatcher.reserve(now);
    for row in &mut write.outbox {
        row.leased = reservation.leased && row.delay.is_none();
    }
    let written = unit.write(&write).await;
    shared.crashes.reach(CrashPoint::BeforeCommit);
    match written {
        Ok(()) => unit.commit().await?,
        Err(error) if error.kind() == StoreErrorKind::Conflict => {
            unit.rollback().await?; // the connection is as good as before
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    shared.crashes.reach(CrashPoint::Commit);
    shared.dispatcher.enqueue(reservation, write.outbox);
    shared.crashes.reach(CrashPoint::BeforeAck);
    Ok(())
}
