//! The backlog of a handler that cannot take its messages now: it goes to the outbox, so that what waits,
//! unacknowledged, does not use up the prefetch of other handlers.

use super::{
    handler_unit::{ask, commit_alone, settling},
    judge::Verdict,
    ledger::Ledger,
    limit::{Turn, WAITS},
    router::{Content, Item},
    shared::{HandlerEntry, Shared},
};
use crate::{HeldReason, Store, StoreError, StoreErrorKind};
use std::{cmp::Reverse, time::Duration};
use tokio::time::Instant;

/// While the breaker is open this many messages of a lane wait in memory.
const BEHIND_FAILURES: usize = 20;
/// The rest comes again after twice the breaker's pause plus this, or after a quarter of the time for which messages
/// have failed: what waits for an hour must not go round and round through the database and the broker.
const FAILURES_DELAY: Duration = Duration::from_secs(5);
const FAILURES_SHARE: u32 = 4;
const FAILURES_DELAY_MAX: Duration = Duration::from_secs(300);
/// Why it is put off.
const FAILURES: &str = "behind messages of the same handler that fail";

/// What a message is put off behind.
#[derive(Clone, Copy)]
enum Behind {
    /// Messages that fail.
    Failures,
    /// The line of the limit: that of this key, or that of all.
    Limit(Option<i64>),
}

type Later = (Item, Verdict, Behind);

/// Puts off what cannot run soon. What stays is in the order in which it runs.
///
/// # Errors
/// When the database does not take what is put off: it stays, and nothing runs before it is tried again.
pub(super) async fn put_off<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    items: &mut Vec<Item>,
) -> Result<(), StoreError> {
    let entry = &shared.handlers[handler];
    if entry.breaker.is_open() && items.len() > BEHIND_FAILURES {
        let verdicts = ask(shared, entry, &items[BEHIND_FAILURES..]).await?;
        let backlog = items.drain(BEHIND_FAILURES..).zip(verdicts);
        let backlog = backlog.map(|(item, verdict)| (item, verdict, Behind::Failures)).collect();
        write(shared, entry, items, backlog).await?;
    }
    behind_limit(shared, entry, items).await
}

/// The handler has a limit: all but those that it allows soon go to the outbox until their turn comes. The inbox is
/// asked before, so that what was handled takes no turn, and what was put off before goes first.
async fn behind_limit<Db: Store>(
    shared: &Shared<Db>,
    entry: &HandlerEntry<Db>,
    items: &mut Vec<Item>,
) -> Result<(), StoreError> {
    let Some(limiter) = entry.limiter() else { return Ok(()) };
    if items.iter().all(|item| item.was_put_off.is_some()) {
        return Ok(()); // they stay
    }
    let verdicts = ask(shared, entry, items).await?;
    let (mut judged, mut backlog) = (Vec::new(), Vec::new());
    for (mut item, verdict) in items.drain(..).zip(verdicts) {
        let Verdict::Run(before) = verdict else {
            backlog.push((item, verdict, Behind::Limit(None))); // it is settled, and not put off
            continue;
        };
        let stays = item.was_put_off.is_some();
        item.was_put_off = Some(before.completes.is_some());
        judged.push((item, verdict, stays));
    }
    judged.sort_by_key(|(item, ..)| (item.turn.is_none(), item.turn, Reverse(item.was_put_off)));
    for (item, verdict, stays) in judged {
        let was = item.was_put_off == Some(true);
        let most = limiter.keeps(shared.settings.handler_lanes, was).map(|most| most.max(stays.into()));
        if item.turn.is_some() {
            items.push(item);
        } else if limiter.is_far(item.handler_key, was) {
            let behind = Behind::Limit(item.handler_key);
            backlog.push((item, verdict, behind));
        } else if most.is_some_and(|most| items.len() >= most) {
            backlog.push((item, verdict, Behind::Limit(None)));
        } else {
            items.push(item);
        }
    }
    write(shared, entry, items, backlog).await
}

/// No call comes soon: all go to the outbox until their turn.
pub(super) async fn put_all_off<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    items: &mut Vec<Item>,
) -> Result<(), StoreError> {
    let entry = &shared.handlers[handler];
    let verdicts = ask(shared, entry, items).await?;
    let backlog = items.drain(..).zip(verdicts);
    let backlog = backlog.map(|(item, verdict)| (item, verdict, Behind::Limit(None))).collect();
    write(shared, entry, items, backlog).await
}

/// A call may be made: takes the turns of keys until one may run at once, and puts those that have a turn in front.
/// Returns when the first may run; `None`: none of them soon.
///
/// A turn is taken here and not before, because one that is not used is lost.
pub(super) async fn take_turn<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    items: &mut [Item],
) -> Result<Option<Instant>, StoreError> {
    let limiter = shared.handlers[handler].limiter().filter(|limiter| limiter.has_keys());
    let Some(limiter) = limiter else { return Ok(Some(Instant::now())) };
    for item in &mut *items {
        if let (Some(key), None) = (item.handler_key, item.turn) {
            match limiter.turn(shared, key, item.was_put_off == Some(true)).await? {
                Turn::At(at) => item.turn = Some(at),
                Turn::In(_) => item.was_put_off = None, // it is looked at again, and put off
            }
        }
        if item.turn.is_some_and(|at| at <= Instant::now()) {
            break;
        }
    }
    items.sort_by_key(|item| (item.turn.is_none(), item.turn));
    Ok(items.first().and_then(|item| item.turn))
}

/// Writes a backlog to the outbox. What the database does not take stays.
async fn write<Db: Store>(
    shared: &Shared<Db>,
    entry: &HandlerEntry<Db>,
    items: &mut Vec<Item>,
    backlog: Vec<Later>,
) -> Result<(), StoreError> {
    if backlog.is_empty() {
        return Ok(());
    }
    let Err(error) = write_together(shared, entry, &backlog).await else { return Ok(()) };
    let again = |(mut item, ..): Later| {
        item.was_put_off = None; // it is judged again
        item
    };
    let mut rest = backlog.into_iter();
    if !matches!(error.kind(), StoreErrorKind::Rejected | StoreErrorKind::Conflict) {
        items.extend(rest.map(again));
        return Err(error);
    }
    tracing::debug!(endpoint = shared.name, %error, messages = rest.len(), "putting the backlog off one by one");
    let mut known = (rest.len() == 1).then_some(error);
    while let Some(later) = rest.next() {
        let one = [later];
        let done = match known.take() {
            Some(error) => Err(error),
            None => write_together(shared, entry, &one).await,
        };
        let Err(error) = done else { continue };
        let [later] = one;
        let mut item = again(later);
        match error.kind() {
            // the database refuses even this: it is held, with the refusal as its reason
            StoreErrorKind::Rejected => item.content = Content::Faulty(HeldReason::Failed, error.to_string()),
            StoreErrorKind::Conflict => {} // somebody else has settled it: the inbox is asked again
            _ => {
                items.push(item);
                items.extend(rest.map(again));
                return Err(error);
            }
        }
        items.push(item);
    }
    Ok(())
}

async fn write_together<Db: Store>(
    shared: &Shared<Db>,
    entry: &HandlerEntry<Db>,
    backlog: &[Later],
) -> Result<(), StoreError> {
    let mut ledger = Ledger::new(shared);
    let mut in_line = Vec::new();
    // the pause has chance in it: what goes together comes back together
    let so_far = (entry.breaker.lasts() / FAILURES_SHARE).min(FAILURES_DELAY_MAX);
    let after_failures = (entry.breaker.pause() * 2 + FAILURES_DELAY).max(so_far);
    for (item, verdict, behind) in backlog {
        let before = match verdict {
            Verdict::Duplicate => continue,
            Verdict::Reused(text) => {
                ledger.reused(entry.description.name, &item.envelope, text.clone());
                continue;
            }
            Verdict::Run(before) => *before,
        };
        let (delay, why) = match (behind, &entry.limit) {
            (Behind::Limit(key), Some(limiter)) => {
                in_line.push((limiter, *key));
                (limiter.put_off(*key), WAITS)
            }
            _ => (after_failures, FAILURES),
        };
        ledger.put_off(settling(entry, item, before), delay, why.into(), 0);
    }
    let done = commit_alone(shared, ledger).await;
    match &done {
        Ok(()) => backlog.iter().for_each(|(item, verdict, _)| {
            if *verdict == Verdict::Duplicate {
                shared.metrics.duplicate(&item.envelope);
            }
            item.done();
        }),
        Err(_) => in_line.into_iter().for_each(|(limiter, key)| limiter.stays(key)),
    }
    done
}
