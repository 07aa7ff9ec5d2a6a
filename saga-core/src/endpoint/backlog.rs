//! The backlog of a handler that cannot take its messages now: it goes to the outbox, so that what waits,
//! unacknowledged, does not use up the prefetch of other handlers.

use super::{
    handler_unit::{ask, commit_alone, settling},
    judge::Verdict,
    ledger::Ledger,
    limit::{Limiter, Turn, WAITS},
    router::Item,
    shared::Shared,
};
use crate::{Store, StoreError};
use std::{collections::VecDeque, time::Duration};

/// While the breaker is open this many messages of a lane wait in memory.
const BEHIND_FAILURES: usize = 20;
/// The rest comes again after twice the breaker's pause plus this.
const FAILURES_DELAY: Duration = Duration::from_secs(5);

/// The breaker is open: all but the first items go back to the outbox until about the time when the handler may work
/// again. Returns those that stay.
pub(super) async fn behind_failures<Db: Store>(shared: &Shared<Db>, handler: usize, items: Vec<Item>) -> Vec<Item> {
    let delay = shared.handlers[handler].breaker.pause() * 2 + FAILURES_DELAY;
    put_off(shared, handler, items, BEHIND_FAILURES, || delay, "behind messages of the same handler that fail").await
}

/// The handler has a limit: all but those that it allows soon go back to the outbox until their turn comes. Returns
/// those that stay.
pub(super) async fn behind_limit<Db: Store>(shared: &Shared<Db>, handler: usize, items: Vec<Item>) -> Vec<Item> {
    let Some(limiter) = &shared.handlers[handler].limit else { return items };
    let items = behind_keys(shared, handler, limiter, items).await;
    let Some(keep) = limiter.keeps(shared.settings.handler_lanes) else { return items };
    put_off(shared, handler, items, keep, || limiter.put_off(), WAITS).await
}

/// Takes the turns of keys. Those that do not come soon go back to the outbox: others of the lane have other keys.
async fn behind_keys<Db: Store>(shared: &Shared<Db>, handler: usize, limiter: &Limiter, items: Vec<Item>) -> Vec<Item> {
    let (mut soon, mut later, mut delays) = (Vec::new(), Vec::new(), VecDeque::new());
    let mut is_away = false;
    for mut item in items {
        if let (Some(key), None, false) = (item.handler_key, item.turn, is_away) {
            match limiter.turn(shared, key).await {
                Ok(Turn::At(at)) => item.turn = Some(at),
                Ok(Turn::In(delay)) => {
                    delays.push_back(delay);
                    later.push(item);
                    continue;
                }
                Err(_) => is_away = true, // the unit asks again, and waits for the database
            }
        }
        soon.push(item);
    }
    if !is_away {
        soon.sort_by_key(|item| item.turn);
    }
    let keep = soon.len();
    soon.extend(later);
    put_off(shared, handler, soon, keep, || delays.pop_front().unwrap_or_default(), WAITS).await
}

async fn put_off<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    mut items: Vec<Item>,
    keep: usize,
    mut delay: impl FnMut() -> Duration,
    why: &str,
) -> Vec<Item> {
    if items.len() <= keep {
        return items;
    }
    let entry = &shared.handlers[handler];
    let backlog = items.split_off(keep);
    let put_off = async {
        let mut ledger = Ledger::new(shared);
        for (item, verdict) in backlog.iter().zip(ask(shared, entry, &backlog).await?) {
            match verdict {
                Verdict::Duplicate => {}
                Verdict::Reused(text) => ledger.reused(entry.description.name, &item.envelope, text),
                Verdict::Run(before) => ledger.put_off(settling(entry, item, before), delay(), why.into(), 0),
            }
        }
        commit_alone(shared, ledger).await
    };
    let done: Result<(), StoreError> = put_off.await;
    match done {
        Ok(()) => backlog.iter().for_each(Item::done),
        Err(error) => {
            tracing::debug!(endpoint = shared.name, %error, "the backlog stays in memory");
            items.extend(backlog);
        }
    }
    items
}
