//! Lanes: each takes all waiting items, runs them as units of work, and never gives up on them. Here are the lanes of
//! sagas, and what those of handlers (`handler_lane.rs`) have in common with them.
//!
//! A saga lane runs up to two units beside each other, of different instances (`queue.rs`). A message that names its
//! instance by an alias is in the lane of the alias first (`finding.rs`), and goes from there to the lane of the
//! instance.

use super::{
    finding, hold_unit,
    inlet::Inlet,
    policy::{Next, UserFailure},
    queue::{Left, Queue},
    router::{Content, Item, Lanes, Work},
    saga_unit::{self, Failed},
    shared::Shared,
    waiting::{PAUSE_MAX, PAUSE_MIN, Waiting},
};
use crate::{
    Envelope, HeldReason, InboxResult, Store, StoreError, StoreErrorKind, crash, panics,
    port::{Backoff, InboxRow},
    saga::logic::Overrule,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// A message that cannot even be held is set aside after this many tries.
const HOLD_TRIES: u32 = 6;
/// A message that killed the process this often while running alone is held.
pub(super) const CRASHES_MAX: i64 = 3;
/// A projection that fails while its breaker is open puts messages off for this long instead of holding them.
const BREAKER_DELAY: Duration = Duration::from_secs(60);

/// Runs a lane of sagas until the endpoint stops. Items that wait then are dropped, which gives them back to the
/// broker.
pub(super) async fn run<Db: Store>(
    shared: Arc<Shared<Db>>,
    mut inlet: Inlet,
    lanes: Weak<Lanes>,
    stop: CancellationToken,
) {
    let batch_max = shared.settings.batch_messages_max;
    let mut came: Vec<Item> = Vec::new();
    let mut queue = Queue::new(batch_max);
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open && !stop.is_cancelled() {
        // What is there runs, and waits for no more: a message that comes alone runs at once, and the next batch
        // gathers while one runs.
        while let Some(batch) = queue.next() {
            let (items, keys) = batch.part();
            running.push(async { (keys, run_batch(&shared, items, &lanes, &stop).await) });
        }
        tokio::select! {
            biased;
            Some((keys, left)) = running.next(), if !running.is_empty() => {
                queue.ended(&keys, left);
                queue.say_how_long(&shared.name);
            }
            () = stop.cancelled() => {}
            more = inlet.take_beside(&mut came, if queue.has_room() { batch_max } else { 0 }) => {
                open = more;
                if came.is_empty() {
                    queue.drop_what_comes_again();
                }
                queue.push(&mut came);
            }
            () = queue.due(), if running.is_empty() => {}
        }
    }
    while running.next().await.is_some() {}
}

/// Runs the items until they are settled, or left because of their instance.
async fn run_batch<Db: Store>(
    shared: &Shared<Db>,
    mut batch: Vec<Item>,
    lanes: &Weak<Lanes>,
    stop: &CancellationToken,
) -> Left {
    let mut left = Left::default();
    if !count_crash(shared, &mut batch, stop).await {
        return left;
    }
    let to_find: Vec<Item> = batch.extract_if(.., |item| item.work() == Work::Find).collect();
    let to_hold: Vec<Item> = batch.extract_if(.., |item| item.runs_nothing()).collect();
    let (found, locked) = finding::find(shared, to_find, stop).await;
    locked.into_iter().for_each(|item| left.locked(item));
    if let Some(lanes) = lanes.upgrade() {
        found.into_iter().for_each(|item| lanes.send(item));
    } // else the endpoint stops, and the dropped items give their deliveries back
    run_saga_items(shared, batch, &mut left, stop).await;
    hold(shared, to_hold, stop).await;
    left
}

/// How many of the first items run together: a suspect runs alone, and nothing overtakes it.
pub(super) fn messages_apart(items: &[Item]) -> usize {
    items.iter().position(|item| item.suspect).map_or(items.len(), |place| place.max(1))
}

/// The batch split into parts, in order.
pub(super) fn apart(batch: Vec<Item>) -> Vec<Vec<Item>> {
    let mut parts: Vec<Vec<Item>> = Vec::new();
    let mut rest = batch;
    while !rest.is_empty() {
        let after = rest.split_off(messages_apart(&rest));
        parts.push(std::mem::replace(&mut rest, after));
    }
    parts
}

/// Runs the items until they are settled, or left because of their instance. Waits for the database as long as it
/// takes, starts over when another process was faster, and falls back to one item at a time when one makes the whole
/// batch fail.
async fn run_saga_items<Db: Store>(shared: &Shared<Db>, items: Vec<Item>, left: &mut Left, stop: &CancellationToken) {
    let mut items = left.keep_back(items);
    let mut waiting = Waiting::new(shared, stop);
    let mut overrule = None;
    let mut runs = 0;
    while !items.is_empty() {
        let again = waiting.tries() > 0 || runs > 0;
        let unit = saga_unit::run(shared, &mut items, again, waiting.tries(), overrule.clone());
        let failed = match guarded(unit).await {
            Ok(Ok(ran)) => {
                waiting.over();
                for (place, mut item) in items.into_iter().enumerate() {
                    if ran.locked.contains(&place) {
                        left.locked(item);
                    } else if ran.unfinished.contains(&place) {
                        (item.first, item.is_back) = (false, true);
                        left.unfinished(item);
                    }
                }
                return;
            }
            Ok(Err(failed)) => failed,
            Err(panic) => Failed::Store(StoreError::new(StoreErrorKind::Rejected, panic)),
        };
        if let Some(error) = failed.waits() {
            if waiting.pause(error).await {
                return;
            }
            continue;
        }
        waiting.over(); // the database has answered
        if items.len() > 1 {
            tracing::debug!(endpoint = shared.name, messages = items.len(), "running the batch one by one");
            for item in items {
                Box::pin(run_saga_items(shared, vec![item], left, stop)).await;
            }
            return;
        }
        runs += 1;
        let item = &mut items[0];
        match failed {
            Failed::Projection { saga, failure, before } => {
                overrule = refused(shared, saga, &failure, item, before, runs);
                if overrule.is_none() {
                    tokio::task::yield_now().await; // another immediate run
                }
            }
            Failed::Store(error) if matches!(item.content, Content::Faulty(..)) => {
                if !cannot_hold(shared, item, &error, runs).await {
                    return;
                }
            }
            Failed::Store(error) => item.content = Content::Faulty(HeldReason::Failed, error.to_string()),
        }
    }
}

/// What a projection's error means for the message, and how many runs it counts; `None`: its transition runs again at
/// once.
fn refused<Db: Store>(
    shared: &Shared<Db>,
    saga: usize,
    failure: &UserFailure,
    item: &Item,
    before: super::judge::Before,
    runs: u32,
) -> Option<(Overrule, i64)> {
    let entry = &shared.sagas[saga];
    let text = format!("the projection of saga `{}` failed: {}", entry.logic.name(), failure.text);
    let next = failure.next(&shared.retries, &item.envelope, before, runs);
    if next != Next::Again && failure.concerns_breaker() {
        entry.breaker.failed(&shared.name, entry.logic.name(), &text);
    }
    let overrule = match next {
        Next::Again => return None,
        Next::PutOff(delay) => Overrule::PutOff(delay, text),
        Next::Hold if failure.concerns_breaker() && entry.breaker.is_open() => Overrule::PutOff(BREAKER_DELAY, text),
        Next::Hold => Overrule::Hold(text),
        Next::Discard => Overrule::Discard(text),
    };
    Some((overrule, failure.counts(runs)))
}

/// Settles what runs nothing: holds messages that nobody can handle, and takes commands back.
pub(super) async fn hold<Db: Store>(shared: &Shared<Db>, items: Vec<Item>, stop: &CancellationToken) {
    let mut waiting = Waiting::new(shared, stop);
    let mut tries = 0;
    while !items.is_empty() {
        let error = match hold_unit::run(shared, &items).await {
            Ok(()) => return waiting.over(),
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
            for item in items {
                Box::pin(hold(shared, vec![item], stop)).await;
            }
            return;
        }
        tries += 1;
        if !cannot_hold(shared, &items[0], &error, tries).await {
            return;
        }
    }
}

/// Handles a message that the database refuses even to hold. Returns whether to try again. In the end the message stays
/// unacknowledged: it blocks nothing, and the next process gets it.
pub(super) async fn cannot_hold<Db: Store>(shared: &Shared<Db>, item: &Item, error: &StoreError, tries: u32) -> bool {
    let message_id = &item.envelope.message_id;
    tracing::error!(endpoint = shared.name, message_id, tries, %error, "cannot hold the message");
    if tries >= HOLD_TRIES {
        tracing::error!(endpoint = shared.name, message_id, "set aside until this endpoint stops");
        item.set_aside(&shared.set_aside);
        return false;
    }
    tokio::time::sleep(Backoff::after(PAUSE_MIN, PAUSE_MAX, tries)).await;
    true
}

/// A panic in a store, a transport or a projection must not end the lane: its messages would wait for ever.
pub(super) async fn guarded<T>(unit: impl Future<Output = T>) -> Result<T, String> {
    let run = AssertUnwindSafe(unit).catch_unwind().await;
    run.map_err(|panic| format!("panicked: {}", panics::text(&*crash::survived(panic))))
}

/// Why a message is held that ran alone so often.
pub(super) fn killed_too_often() -> String {
    format!("the process died {CRASHES_MAX} times while it handled this message alone")
}

/// Counts a run of a message that was redelivered after crashes; such a message runs alone. Returns whether it may run:
/// not when the endpoint stops.
pub(super) async fn count_crash<Db: Store>(shared: &Shared<Db>, batch: &mut [Item], stop: &CancellationToken) -> bool {
    let [item] = batch else { return true };
    if !item.suspect || item.counted {
        return true;
    }
    if item.envelope.type_name == Envelope::WAKE {
        item.counted = true; // it has no run of its own, and what runs by it is counted there
        return true;
    }
    let receiver = shared.receiver_name(item.receiver);
    let row = InboxRow {
        saga_id: item.key.as_ref().map(|key| key.id.clone()),
        ..InboxRow::new(receiver, item.envelope.clone(), InboxResult::Suspect)
    };
    let mut waiting = Waiting::new(shared, stop);
    let crashes = loop {
        match shared.store.count_crash(&shared.name, shared.owner(), &row).await {
            Ok(crashes) => break crashes,
            // a message that cannot be counted must not run: hold it, or set it aside if even that fails
            Err(error) if error.kind() == StoreErrorKind::Rejected => {
                item.content = Content::Faulty(HeldReason::Crashes, format!("its runs cannot be counted: {error}"));
                break None;
            }
            Err(error) => {
                if waiting.pause(&error).await {
                    return false;
                }
            }
        }
    };
    waiting.over();
    (item.first, item.counted) = (false, true);
    if crashes.is_some_and(|crashes| crashes > CRASHES_MAX) {
        item.content = Content::Faulty(HeldReason::Crashes, killed_too_often());
    }
    true
}
