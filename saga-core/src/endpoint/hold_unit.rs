//! The unit of work of messages that run nothing: those that nobody can handle are held, with the reason, and commands
//! are taken back.

use super::{
    dispatch::finish,
    judge::{Verdict, judge},
    ledger::{Ledger, Origin, Settling},
    router::{Content, Item, Receiver},
    shared::Shared,
    take_back::Chance,
};
use crate::{
    Envelope, HeldReason, Store, StoreError,
    port::{Keys, Unit},
};
use std::collections::HashSet;

/// Why a message waits for another process.
const NOBODY: &str = "no receiver here handles it";

/// Settles the items in one transaction. After an error the same items can be settled again: nothing is written or, if
/// the commit's outcome is unknown, the inbox knows.
pub(super) async fn run<Db: Store>(shared: &Shared<Db>, items: &[Item]) -> Result<(), StoreError> {
    let mut unit = shared.store.begin(&[], shared.settings.lease).await?;
    let commands = items.iter().filter_map(|item| match &item.content {
        Content::TakeBack(command) => Some(command.id.clone()),
        _ => None,
    });
    let message_ids = items.iter().map(|item| item.envelope.message_id.clone()).chain(commands).collect();
    let keys = Keys { endpoint: shared.name.clone(), message_ids, ..Keys::default() };
    let found = unit.read(&keys).await?;
    let name = |item: &Item| shared.receiver_name(item.receiver);
    let verdicts = judge(items.iter().map(|item| (name(item), &*item.envelope)), &found.inbox, found.now_us);
    let mut ledger = Ledger::new(shared);
    ledger.spans.extend(items.iter().map(|item| item.span.clone()));
    let mut duplicates = Vec::new();
    // no row is written twice, whatever the ids say
    let mut rows: HashSet<(&str, &str)> = items.iter().map(|item| (name(item), &*item.envelope.message_id)).collect();
    for (item, verdict) in items.iter().zip(verdicts) {
        let receiver = name(item);
        match verdict {
            Verdict::Duplicate => duplicates.push(&item.envelope),
            Verdict::Reused(text) => ledger.reused(receiver, &item.envelope, text),
            Verdict::Run(before) => {
                let settling =
                    Settling { receiver, envelope: &item.envelope, saga_id: None, origin: Origin::Broker(before) };
                if let Content::TakeBack(command) = &item.content {
                    let is_saga = matches!(item.receiver, Receiver::Saga(_));
                    let is_held_here = |chance: &Chance<'_>| matches!(chance, Chance::WhileItWaits(_));
                    let chance = match item.receiver {
                        // the command has no receiver here either: it may be held, or on its way to a newer process
                        Receiver::Nobody => match command.chance(&found.inbox, receiver, false) {
                            chance if is_held_here(&chance) && rows.insert((receiver, &command.id)) => chance,
                            _ if ledger.comes_again(&item.envelope, NOBODY) => continue,
                            _ => Chance::None(NOBODY),
                        },
                        _ if !rows.insert((receiver, &command.id)) => Chance::None("it is being settled"),
                        _ => command.chance(&found.inbox, receiver, is_saga),
                    };
                    ledger.take_back(settling, command, chance);
                    continue;
                }
                if item.receiver == Receiver::Nobody && is_wake_of_a_newer(item) {
                    ledger.comes_again(&item.envelope, "no process of a version that has the saga took it");
                    continue;
                }
                let unknown = || (HeldReason::Version, NOBODY.to_owned());
                let (reason, error) = item.fault().unwrap_or_else(unknown);
                let runs = i64::from(reason.had_a_run());
                ledger.hold(settling, reason, Some(error), runs);
            }
        }
    }
    finish(shared, unit, ledger).await?;
    duplicates.into_iter().for_each(|envelope| shared.metrics.duplicate(envelope));
    items.iter().for_each(Item::done);
    Ok(())
}

/// A wake-up for a saga that is not here: only a process that has it can offer what waits there.
fn is_wake_of_a_newer(item: &Item) -> bool {
    item.envelope.type_name == Envelope::WAKE && item.fault().is_some_and(|(reason, _)| reason == HeldReason::Version)
}
