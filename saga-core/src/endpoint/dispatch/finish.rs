//! The end of every unit of work.

use super::{Load, Shared};
use crate::{
    CrashPoint, Store, StoreError, StoreErrorKind, ambient,
    endpoint::ledger::Ledger,
    port::{Unit, Write},
};
use tokio::time::Instant;
use tracing::Instrument;

/// The end of every unit of work: writes, commits and hands the messages to the dispatcher, always in this order. The
/// caller acknowledges afterwards.
pub(in crate::endpoint) async fn finish<Db: Store>(
    shared: &Shared<Db>,
    unit: Db::Unit,
    ledger: Ledger<'_, Db>,
) -> Result<(), StoreError> {
    let Ledger { write, spans, .. } = ledger;
    let span = shared.trace.commit(&shared.name, &spans);
    commit(shared, unit, write).instrument(span).await
}

async fn commit<Db: Store>(shared: &Shared<Db>, mut unit: Db::Unit, mut write: Write) -> Result<(), StoreError> {
    let now = write.outbox.iter().filter(|row| row.delay.is_none());
    let mut reservation = shared.dispatcher.reserve(Load::of(now.map(|row| &row.envelope)));
    for row in &mut write.outbox {
        row.leased = reservation.leased && row.delay.is_none();
    }
    let written = unit.write(&write).await;
    shared.crashes.reach(CrashPoint::BeforeCommit);
    let began = Instant::now();
    match written {
        Ok(()) => {
            reservation.commits(&write.outbox);
            if let Err(error) = unit.commit().await {
                if !error.leaves_unsure() {
                    reservation.answered();
                }
                return Err(error);
            }
        }
        Err(error) if error.kind() == StoreErrorKind::Conflict => {
            unit.rollback().await?; // the connection is as good as before
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    shared.crashes.reach(CrashPoint::Commit);
    shared.metrics.committed(&write, began.elapsed(), ambient::now_us());
    shared.dispatcher.enqueue(reservation, write.outbox);
    shared.crashes.reach(CrashPoint::BeforeAck);
    Ok(())
}
