//! The unit of work of messages that nobody can handle: they are held, with the reason.

use super::{
    dispatch::finish,
    judge::{Verdict, judge},
    ledger::{Ledger, Origin, Settling},
    router::Item,
    shared::Shared,
};
use crate::{
    HeldReason, Store, StoreError,
    port::{Keys, Unit},
};

/// Holds the items in one transaction. After an error the same items can be held again: nothing is written or, when the
/// commit's outcome is unknown, the inbox knows.
pub(super) async fn run<Db: Store>(shared: &Shared<Db>, items: &[Item]) -> Result<(), StoreError> {
    let mut unit = shared.store.begin(&[], shared.settings.lease).await?;
    let message_ids = items.iter().map(|item| item.envelope.message_id.clone()).collect();
    let keys = Keys { endpoint: shared.name.clone(), message_ids, ..Keys::default() };
    let found = unit.read(&keys).await?;
    let name = |item: &Item| shared.receiver_name(item.receiver);
    let verdicts = judge(items.iter().map(|item| (name(item), &*item.envelope)), &found.inbox, found.now_us);
    let mut ledger = Ledger::new(shared);
    for (item, verdict) in items.iter().zip(verdicts) {
        let receiver = name(item);
        match verdict {
            Verdict::Duplicate => {}
            Verdict::Reused(text) => ledger.reused(receiver, &item.envelope, text),
            Verdict::Run(before) => {
                let unknown = || (HeldReason::Version, "no receiver here handles it".to_owned());
                let (reason, error) = item.fault().unwrap_or_else(unknown);
                let settling =
                    Settling { receiver, envelope: &item.envelope, saga_id: None, origin: Origin::Broker(before) };
                let runs = i64::from(reason.had_a_run());
                ledger.hold(settling, reason, Some(error), runs);
            }
        }
    }
    finish(shared, unit, ledger.write).await?;
    items.iter().for_each(Item::done);
    Ok(())
}
