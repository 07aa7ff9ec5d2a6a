//! What waits for a handler whose breaker is open.

use super::{Item, Ledger, Shared, Store, Verdict, ask, commit_alone, settling};
use std::time::Duration;

/// While the breaker is open this many messages of a lane wait in memory; the rest goes to the outbox, so that the
/// prefetch is free for other handlers.
const BACKLOG: usize = 20;
/// The rest comes again after twice the breaker's pause plus this.
const BACKLOG_DELAY: Duration = Duration::from_secs(5);

/// The breaker is open: all but the first items go back to the outbox until about the time when the handler may work
/// again. Returns those that stay.
pub(in crate::endpoint) async fn put_off_backlog<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    mut items: Vec<Item>,
) -> Vec<Item> {
    if items.len() <= BACKLOG {
        return items;
    }
    let entry = &shared.handlers[handler];
    let backlog = items.split_off(BACKLOG);
    let delay = entry.breaker.pause() * 2 + BACKLOG_DELAY;
    let put_off = async {
        let mut ledger = Ledger::new(shared);
        for (item, verdict) in backlog.iter().zip(ask(shared, entry, &backlog).await?) {
            match verdict {
                Verdict::Duplicate => {}
                Verdict::Reused(text) => ledger.reused(entry.description.name, &item.envelope, text),
                Verdict::Run(before) => {
                    let why = "behind messages of the same handler that fail".into();
                    ledger.put_off(settling(entry, item, before), delay, why, 0);
                }
            }
        }
        commit_alone(shared, ledger).await
    };
    match put_off.await {
        Ok(()) => backlog.iter().for_each(Item::done),
        Err(error) => {
            tracing::debug!(endpoint = shared.name, %error, "the backlog stays in memory");
            items.extend(backlog);
        }
    }
    items
}
