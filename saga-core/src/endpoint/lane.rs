//! Lanes: each takes all waiting items, runs them as units of work, and never gives up on them.

use super::{
    handler_unit::{self, Halted, Progress},
    hold_unit,
    item::{Content, Item, Work},
    parked::Parked,
    policy::{Next, UserFailure},
    saga_unit::{self, Failed},
    shared::Shared,
};
use crate::{
    HeldReason, InboxResult, Store, StoreError, StoreErrorKind, panics,
    port::{Backoff, InboxRow},
    saga::logic::Overrule,
};
use futures_util::FutureExt;
use std::{future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A message that cannot even be held is set aside after this many tries.
const HOLD_TRIES: u32 = 6;
/// A message that killed the process this often while running alone is held.
const CRASHES_MAX: i64 = 3;
/// A projection that fails while its breaker is open puts messages off for this long instead of holding them.
const BREAKER_DELAY: Duration = Duration::from_secs(60);

/// Runs a lane of sagas until the endpoint stops. The channel is bounded by the transport's prefetch.
pub(crate) async fn run_sagas<Db: Store>(
    shared: Arc<Shared<Db>>,
    mut items: mpsc::UnboundedReceiver<Item>,
    stop: CancellationToken,
) {
    let batch_max = shared.settings.batch_messages_max;
    let mut came: Vec<Item> = Vec::new();
    let mut parked = Parked::default();
    loop {
        // Takes what is there and waits for no more: a message that comes alone runs at once, and the next batch
        // gathers while one runs. When the endpoint stops, waiting items are dropped, which gives them back to the
        // broker.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // an instance with endless work is always due: take what has come along with it
            () = parked.due() => came.extend(std::iter::from_fn(|| items.try_recv().ok()).take(batch_max)),
            received = items.recv_many(&mut came, batch_max) => if received == 0 { return },
        }
        for mut batch in apart(parked.next_batch(&mut came)) {
            if !count_crash(&shared, &mut batch, &stop).await {
                return;
            }
            let (to_hold, for_sagas): (Vec<Item>, Vec<Item>) =
                batch.into_iter().partition(|item| item.work() == Work::Hold);
            run_saga_items(&shared, for_sagas, &mut parked, &stop).await;
            hold(&shared, to_hold, &stop).await;
        }
        parked.say_how_long(&shared.name);
    }
}

/// Runs a lane of one handler until the endpoint stops.
pub(crate) async fn run_handler<Db: Store>(
    shared: Arc<Shared<Db>>,
    handler: usize,
    mut items: mpsc::UnboundedReceiver<Item>,
    stop: CancellationToken,
) {
    let batch_max = shared.settings.batch_messages_max;
    let breaker = &shared.handlers[handler].breaker;
    let mut waiting: Vec<Item> = Vec::new();
    while !stop.is_cancelled() {
        if waiting.is_empty() {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                received = items.recv_many(&mut waiting, batch_max) => received,
            };
            if received == 0 {
                return;
            }
        }
        let mut turn = None;
        if breaker.is_open() {
            let mut mine = pin!(breaker.turn());
            while turn.is_none() {
                // put off what comes as well: unacknowledged, it would use up the prefetch of other handlers
                waiting = handler_unit::put_off_backlog(&shared, handler, waiting).await;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    mine = &mut mine => turn = Some(mine),
                    received = items.recv_many(&mut waiting, batch_max) => if received == 0 { return },
                }
            }
        }
        let messages = if turn.is_some() { 1 } else { messages_apart(&waiting) };
        let mut batch: Vec<Item> = waiting.drain(..messages).collect();
        if !count_crash(&shared, &mut batch, &stop).await {
            return;
        }
        let to_hold = batch.extract_if(.., |item| item.work() == Work::Hold).collect();
        hold(&shared, to_hold, &stop).await;
        let rest = run_handler_items(&shared, handler, batch, &stop).await;
        drop(turn);
        waiting.splice(..0, rest);
    }
}

/// How many of the first items run together: a suspect runs alone, and nothing overtakes it.
fn messages_apart(items: &[Item]) -> usize {
    items.iter().position(|item| item.suspect).map_or(items.len(), |place| place.max(1))
}

/// The batch split into parts, in order.
fn apart(batch: Vec<Item>) -> Vec<Vec<Item>> {
    let mut parts: Vec<Vec<Item>> = Vec::new();
    let mut rest = batch;
    while !rest.is_empty() {
        let after = rest.split_off(messages_apart(&rest));
        parts.push(std::mem::replace(&mut rest, after));
    }
    parts
}

/// Runs the items until they are settled, or parked because of their instance. Waits for the database as long as it
/// takes, starts over when another process was faster, and falls back to one item at a time when one makes the whole
/// batch fail.
async fn run_saga_items<Db: Store>(
    shared: &Shared<Db>,
    items: Vec<Item>,
    parked: &mut Parked,
    stop: &CancellationToken,
) {
    let mut items = parked.keep_back(items);
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
                        parked.locked(item);
                    } else if ran.unfinished.contains(&place) {
                        item.first = false;
                        parked.unfinished(item);
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
        if items.len() > 1 {
            tracing::debug!(endpoint = shared.name, messages = items.len(), "running the batch one by one");
            for item in items {
                Box::pin(run_saga_items(shared, vec![item], parked, stop)).await;
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

/// Runs the items until they are settled, or until the breaker opens or the endpoint stops. Returns the rest.
async fn run_handler_items<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    mut items: Vec<Item>,
    stop: &CancellationToken,
) -> Vec<Item> {
    let mut waiting = Waiting::new(shared, stop);
    let mut lost = 0;
    while !items.is_empty() {
        let Progress { done, error } = match guarded(handler_unit::run(shared, handler, &mut items, lost)).await {
            Ok(progress) => progress,
            Err(panic) => Progress::failed(StoreError::new(StoreErrorKind::Rejected, panic)),
        };
        items.drain(..done);
        if done > 0 {
            waiting.over();
            lost = 0;
        }
        match error {
            None => {
                debug_assert!(done > 0, "a unit that does nothing would be run for ever");
                if shared.handlers[handler].breaker.is_open() || stop.is_cancelled() {
                    break;
                }
            }
            Some(Halted { error, ran }) if error.kind() != StoreErrorKind::Rejected => {
                lost = if ran { lost + 1 } else { 0 };
                if waiting.pause(&error).await {
                    break;
                }
            }
            Some(Halted { error, .. }) => {
                // the database refuses even the error text: hold the message with the refusal as its reason
                let mut first: Vec<Item> = items.drain(..1).collect();
                first[0].content = Content::Faulty(HeldReason::Failed, error.to_string());
                hold(shared, first, stop).await;
            }
        }
    }
    items
}

/// Holds messages that nobody can handle.
async fn hold<Db: Store>(shared: &Shared<Db>, items: Vec<Item>, stop: &CancellationToken) {
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
        } else if items.len() > 1 {
            for item in items {
                Box::pin(hold(shared, vec![item], stop)).await;
            }
            return;
        } else {
            tries += 1;
            if !cannot_hold(shared, &items[0], &error, tries).await {
                return;
            }
        }
    }
}

/// Handles a message that the database refuses even to hold. Returns whether to try again. In the end the message stays
/// unacknowledged: it blocks nothing, and the next process gets it.
async fn cannot_hold<Db: Store>(shared: &Shared<Db>, item: &Item, error: &StoreError, tries: u32) -> bool {
    let message_id = &item.envelope.message_id;
    tracing::error!(endpoint = shared.name, message_id, tries, %error, "cannot hold the message");
    if tries >= HOLD_TRIES {
        tracing::error!(endpoint = shared.name, message_id, "set aside until this process ends");
        item.set_aside();
        return false;
    }
    tokio::time::sleep(Backoff::after(PAUSE_MIN, PAUSE_MAX, tries)).await;
    true
}

/// A panic in a store, a transport or a projection must not end the lane: its messages would wait for ever.
async fn guarded<T>(unit: impl Future<Output = T>) -> Result<T, String> {
    let run = AssertUnwindSafe(unit).catch_unwind().await;
    run.map_err(|panic| format!("panicked: {}", panics::text(&*panic)))
}

/// Counts a run of a message that was redelivered after crashes; such a message runs alone. Returns whether it may run:
/// not when the endpoint stops.
async fn count_crash<Db: Store>(shared: &Shared<Db>, batch: &mut [Item], stop: &CancellationToken) -> bool {
    let [item] = batch else { return true };
    if !item.suspect || item.counted {
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
        let text = format!("the process died {CRASHES_MAX} times while it handled this message alone");
        item.content = Content::Faulty(HeldReason::Crashes, text);
    }
    true
}

/// Waiting for the database, or for another process.
struct Waiting<'a, Db: Store> {
    shared: &'a Shared<Db>,
    stop: &'a CancellationToken,
    backoff: Backoff,
    tries: u32,
}

impl<'a, Db: Store> Waiting<'a, Db> {
    fn new(shared: &'a Shared<Db>, stop: &'a CancellationToken) -> Self {
        Self { shared, stop, backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX), tries: 0 }
    }

    /// Tries that failed in a row.
    fn tries(&self) -> u32 {
        self.tries
    }

    /// Waits until the next try. Returns true when there is none because the endpoint stops. Uncommitted items then go
    /// back to the broker; where a commit's outcome is unknown, the inbox knows it.
    #[must_use]
    async fn pause(&mut self, error: &StoreError) -> bool {
        self.tries += 1;
        let endpoint = &self.shared.name;
        match error.kind() {
            StoreErrorKind::Conflict | StoreErrorKind::StalePlan => {
                tracing::debug!(endpoint, tries = self.tries, %error, "running the unit again");
                if self.tries <= 2 {
                    return false;
                }
            }
            _ => {
                if let Some(said) = self.shared.database.begins() {
                    let (unsaid, since) = (said.unsaid, said.since);
                    tracing::warn!(endpoint, %error, unsaid, ?since, "waiting for the database");
                }
            }
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = self.backoff.pause() => false,
        }
    }

    /// The database did what was asked.
    fn over(&mut self) {
        self.tries = 0;
        self.backoff.reset();
        if let Some(lasted) = self.shared.database.ends() {
            tracing::info!(endpoint = self.shared.name, ?lasted, "the database is back");
        }
    }
}
