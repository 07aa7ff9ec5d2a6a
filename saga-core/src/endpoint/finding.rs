//! Finds the instances of messages that name them by an alias. A message whose alias no instance has is held as early:
//! the transaction that takes the alias offers it to the instance.

use super::{
    dispatch::finish,
    judge::{Verdict, judge},
    lane::cannot_hold,
    ledger::{Ledger, Origin, Settling},
    router::Item,
    saga_unit::locks,
    shared::Shared,
    waiting::Waiting,
};
use crate::{
    InstanceKey, Store, StoreError, StoreErrorKind,
    port::{FieldRow, Keys, Unit},
};
use std::collections::{BTreeSet, HashMap};
use tokio_util::sync::CancellationToken;

/// Returns the items whose instance was found, and those whose alias another transaction works on. The others are held.
pub(super) async fn find<Db: Store>(
    shared: &Shared<Db>,
    items: Vec<Item>,
    stop: &CancellationToken,
) -> (Vec<Item>, Vec<Item>) {
    let (mut found, mut locked) = (Vec::new(), Vec::new());
    if items.is_empty() {
        return (found, locked);
    }
    let mut waiting = Waiting::new(shared, stop);
    // nearly all are found at once, without a transaction: an alias that is there needs no lock
    let rows = loop {
        match shared.store.aliases(&aliases(&items)).await {
            Ok(rows) => break by_alias(rows),
            Err(error) if waiting.pause(&error).await => return (found, locked),
            Err(_) => {}
        }
    };
    waiting.over();
    let mut unknown = Vec::new();
    for mut item in items {
        item.key = item.alias.as_ref().and_then(|alias| rows.get(alias).cloned());
        if item.key.is_some() { found.push(item) } else { unknown.push(item) }
    }
    hold(shared, unknown, stop, &mut found, &mut locked).await;
    (found, locked)
}

/// Holds the items, unless their instance is there after all.
async fn hold<Db: Store>(
    shared: &Shared<Db>,
    mut items: Vec<Item>,
    stop: &CancellationToken,
    found: &mut Vec<Item>,
    locked: &mut Vec<Item>,
) {
    let mut waiting = Waiting::new(shared, stop);
    let mut tries = 0;
    while !items.is_empty() {
        let error = match unit(shared, &items).await {
            Ok(all) => {
                for (mut item, what) in items.into_iter().zip(all) {
                    match what {
                        What::Held => item.done(),
                        What::Locked => locked.push(item),
                        What::Found(key) => {
                            item.key = Some(key);
                            found.push(item);
                        }
                    }
                }
                return waiting.over();
            }
            Err(error) => error,
        };
        if error.kind() != StoreErrorKind::Rejected {
            if waiting.pause(&error).await {
                return;
            }
            continue;
        }
        waiting.over(); // the database has answered
        if items.len() > 1 {
            for item in std::mem::take(&mut items) {
                Box::pin(hold(shared, vec![item], stop, found, locked)).await;
            }
            return;
        }
        tries += 1;
        if !cannot_hold(shared, &items[0], &error, tries).await {
            return;
        }
    }
}

/// What became of an item.
enum What {
    Found(InstanceKey),
    /// Another transaction works on its alias.
    Locked,
    /// It is held, or is known already.
    Held,
}

async fn unit<Db: Store>(shared: &Shared<Db>, items: &[Item]) -> Result<Vec<What>, StoreError> {
    let asked = aliases(items);
    let mut unit = shared.store.begin(&locks(&asked), shared.settings.lease).await?;
    let message_ids = items.iter().map(|item| item.envelope.message_id.clone()).collect();
    let keys = Keys { endpoint: shared.name.clone(), message_ids, ..Keys::default() };
    let inbox = unit.read(&keys).await?;
    let rows = by_alias(unit.aliases(&shared.name, &asked).await?.rows);
    let mut ledger = Ledger::new(shared);
    let mut duplicates = Vec::new();
    let (mut all, mut to_hold) = (Vec::new(), Vec::new());
    for item in items {
        let Some(alias) = &item.alias else { continue };
        all.push(match rows.get(alias) {
            _ if inbox.locked_elsewhere.contains(&alias.lock()) => What::Locked,
            Some(key) => What::Found(key.clone()),
            None => {
                ledger.spans.push(item.span.clone());
                to_hold.push((shared.receiver_name(item.receiver), &item.envelope, alias));
                What::Held
            }
        });
    }
    let verdicts = judge(to_hold.iter().map(|(name, envelope, _)| (*name, &***envelope)), &inbox.inbox, inbox.now_us);
    for ((receiver, envelope, alias), verdict) in to_hold.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Duplicate => duplicates.push(envelope),
            Verdict::Reused(text) => ledger.reused(receiver, envelope, text),
            Verdict::Run(before) => {
                let settling = Settling { receiver, envelope, saga_id: None, origin: Origin::Broker(before) };
                ledger.await_alias(settling, alias);
            }
        }
    }
    finish(shared, unit, ledger).await?;
    duplicates.into_iter().for_each(|envelope| shared.metrics.duplicate(envelope));
    Ok(all)
}

/// The aliases that items name, each once and in order.
fn aliases(items: &[Item]) -> Vec<InstanceKey> {
    let aliases: BTreeSet<&InstanceKey> = items.iter().filter_map(|item| item.alias.as_ref()).collect();
    aliases.into_iter().cloned().collect()
}

fn by_alias(rows: Vec<FieldRow>) -> HashMap<InstanceKey, InstanceKey> {
    rows.into_iter().map(|row| (row.field, row.instance)).collect()
}
