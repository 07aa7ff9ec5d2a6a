//! The unit of work of handlers: several messages in one transaction, parted by savepoints.

use super::{
    core::{Core, HandlerEntry, Target},
    emission::{Emission, of_outcome, of_posted, of_retry},
    item::{Item, Known, known},
    saga_unit::{Journal, held_row, inbox_row, reused},
    unit::{Sent, commit},
};
use crate::{
    Context, Decision, Encoded, Failure, HeldReason, InboxResult, Keys, OutboxRow, Step, Store, StoreError, Write,
    handler::TxSlot, hash_of, port::Unit, saga::run::panic_text,
};
use futures_util::FutureExt;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    time::Duration,
};
use tokio::time::Instant;

/// Handlers in one transaction at most: PostgreSQL caches 64 subtransactions per backend and looks the rest up on disk.
pub(crate) const HANDLERS_MAX: usize = 50;
/// After this time no further handler joins the transaction: those that ran are committed, the rest follows in the next.
const JOIN_FOR: Duration = Duration::from_millis(50);

/// Runs the first of the items, as many as fit, in one transaction; returns how many. After an error nothing has happened (or
/// the inbox knows), and the same items can be run again.
pub(crate) async fn run<Db: Store>(core: &Core<Db>, items: &mut [Item]) -> Result<usize, StoreError> {
    let message_ids = items.iter().map(|item| item.envelope.message_id.clone()).collect();
    let found = core.store.read(&Keys { endpoint: core.name.clone(), message_ids, ..Keys::default() }).await?;
    let inbox: HashMap<_, _> =
        found.inbox.iter().map(|row| ((row.receiver.as_str(), row.message_id.as_str()), row)).collect();
    let mut locks: Vec<i64> = items.iter().map(|item| lock(core, item)).collect();
    locks.sort_unstable();
    locks.dedup();

    let mut work = Work {
        core,
        alone: items.len() == 1,
        slot: TxSlot { store: core.store.clone(), locks, unit: None, unavailable: None },
        write: core.new_write(),
        outbox: Vec::new(),
    };
    let began = Instant::now();
    let mut seen = HashSet::new();
    let mut ran = 0;
    for (n, item) in items.iter_mut().enumerate() {
        if n > 0 && began.elapsed() > JOIN_FOR {
            break;
        }
        ran = n + 1;
        let receiver = core.receiver(item.target);
        if !seen.insert((receiver, item.envelope.message_id.clone())) {
            continue;
        }
        match known(inbox.get(&(receiver, item.envelope.message_id.as_str())).copied(), &item.envelope) {
            Known::Duplicate => {}
            Known::Fresh => work.handle(item, None).await?,
            Known::Continues { attempts } | Known::Suspect { attempts } => work.handle(item, Some(attempts)).await?,
            Known::Reused(text) => {
                work.write.held_in.push(reused(core, receiver, &item.envelope, text));
            }
        }
    }
    let Work { mut slot, write, outbox, .. } = work;
    if slot.unit.is_some() || !write.is_empty() {
        slot.open().await?;
        core.faults.reach(Step::Lock);
        let unit = slot.unit.take().expect("it was opened just now");
        commit(core, unit, write, outbox, Sent::Ride).await?;
    }
    items[..ran].iter().for_each(|item| item.guard.settled());
    Ok(ran)
}

/// Two processes do not run the same message at a time; should they all the same, the inbox row decides.
fn lock<Db: Store>(core: &Core<Db>, item: &Item) -> i64 {
    let parts = [core.name.as_str(), core.receiver(item.target), &item.envelope.message_id];
    hash_of(parts.map(str::as_bytes))
}

struct Work<'a, Db: Store> {
    core: &'a Core<Db>,
    alone: bool,
    slot: TxSlot<Db>,
    write: Write,
    outbox: Vec<OutboxRow>,
}

/// What a failed run leads to.
enum Next {
    Again,
    PutOff(Duration),
    Hold,
    Discard,
}

impl<Db: Store> Work<'_, Db> {
    /// Runs one message until it succeeds or its policy says otherwise.
    async fn handle(&mut self, item: &mut Item, completes: Option<i64>) -> Result<(), StoreError> {
        let Target::Handler(handler) = item.target else { return Ok(()) };
        let entry = &self.core.handlers[handler];
        let receiver = entry.logic.name();
        let before = completes.unwrap_or(0).max(item.envelope.attempt);
        let mut runs: u32 = 0;
        let (result, journal) = loop {
            runs += 1;
            let savepoint = !self.alone && self.slot.unit.is_some();
            if let Some(unit) = self.slot.unit.as_mut().filter(|_| savepoint) {
                unit.savepoint().await?;
            }
            let (error, failure) = match self.once(entry, item, before + i64::from(runs) - 1).await? {
                Ok(effects) => {
                    entry.breaker.succeeded(receiver);
                    break (InboxResult::Handled, Journal { effects, ..Journal::default() });
                }
                Err(failed) => failed,
            };
            self.undo(savepoint).await?;
            let attempts = before + i64::from(runs);
            let next = next(self.core, entry, item, &error, &failure, runs);
            if !matches!(next, Next::Again) && !failure.permanent && failure.retry_after.is_none() {
                entry.breaker.failed(receiver);
            }
            match next {
                Next::Again => {}
                Next::PutOff(delay) => {
                    tracing::info!(
                        endpoint = self.core.name,
                        receiver,
                        message = item.envelope.message_id,
                        attempts,
                        ?delay,
                        error,
                        "put off"
                    );
                    self.outbox.push(of_retry(self.core, &item.envelope, receiver, attempts, delay));
                    break (InboxResult::Retrying, Journal { note: Some(error), ..Journal::default() });
                }
                Next::Hold => {
                    tracing::warn!(
                        endpoint = self.core.name,
                        receiver,
                        message = item.envelope.message_id,
                        attempts,
                        error,
                        "message held"
                    );
                    let held =
                        held_row(self.core, receiver, &item.envelope, HeldReason::Failed, Some(error), attempts, None);
                    self.write.held_in.push(held);
                    break (InboxResult::Held, Journal::default());
                }
                Next::Discard => break (InboxResult::Discarded, Journal { note: Some(error), ..Journal::default() }),
            }
        };
        let row = inbox_row(self.core, receiver, &item.envelope, result, before + i64::from(runs), journal);
        match completes {
            Some(known) => self.write.settles.push((row, known)),
            None => self.write.claims.push(row),
        }
        Ok(())
    }

    /// One run. The outer error is the database's: the whole unit runs again and no attempt is counted.
    async fn once(
        &mut self,
        entry: &HandlerEntry<Db>,
        item: &mut Item,
        runs_before: i64,
    ) -> Result<Result<Value, (String, Failed)>, StoreError> {
        let message = match item.decoded.take().map_or_else(|| entry.logic.read(&item.envelope.body), Ok) {
            Ok(message) => message,
            Err(error) => return Ok(Err((error, Failed { permanent: true, retry_after: None }))),
        };
        let mut cx = Context { envelope: item.envelope.clone(), slot: &mut self.slot, posted: Vec::new(), runs_before };
        let limit = self.core.settings.handler_time;
        let run = tokio::time::timeout(limit, AssertUnwindSafe(entry.logic.run(message, &mut cx)).catch_unwind()).await;
        let posted = std::mem::take(&mut cx.posted);
        if let Some(error) = self.slot.unavailable.take() {
            return Err(StoreError::Unavailable(error));
        }
        let (error, failed) = match run {
            Ok(Ok(Ok(outcome))) => {
                let Some(refused) = posted.iter().find_map(|posted| posted.refused.clone()) else {
                    return Ok(Ok(self.emit(entry, item, &posted, outcome)));
                };
                (refused, Failed { permanent: true, retry_after: None })
            }
            Ok(Ok(Err(error))) => {
                // an error of another database that the handler uses is the handler's own
                let ours = self.slot.unit.is_some();
                if let Some(known) = self.core.store_error(error.source()).filter(|_| ours) {
                    return Err(known);
                }
                (error.to_string(), Failed { permanent: !error.is_transient(), retry_after: error.delay() })
            }
            Ok(Err(panic)) => (format!("the handler panicked: {}", panic_text(&*panic)), Failed::default()),
            Err(_) => {
                let error = format!("the handler ran longer than {limit:?}");
                // its statement may still run: a rollback would wait behind it, so the connection is dropped
                self.slot.unit = None;
                if !self.alone {
                    return Err(StoreError::Rejected(error));
                }
                (error, Failed::default())
            }
        };
        Ok(Err((error, failed)))
    }

    fn emit(
        &mut self,
        entry: &HandlerEntry<Db>,
        item: &Item,
        posted: &[crate::Posted],
        outcome: Option<Encoded>,
    ) -> Value {
        let cause = &item.envelope;
        let posted = posted.iter().map(|posted| of_posted(self.core, Some(cause), posted));
        let outcome = outcome.map(|outcome| of_outcome(self.core, cause, outcome, entry.logic.outcome_is_reply_only()));
        let mut effects = Vec::new();
        for Emission { row, effect } in posted.chain(outcome) {
            effects.push(effect);
            self.outbox.extend(row);
        }
        Value::Array(effects)
    }

    /// Undoes what a failed run wrote, and only that.
    async fn undo(&mut self, savepoint: bool) -> Result<(), StoreError> {
        if savepoint {
            let unit = self.slot.unit.as_mut().expect("a savepoint was set in it");
            return unit.rollback_to_savepoint().await;
        }
        match self.slot.unit.take() {
            Some(unit) => unit.rollback().await,
            None => Ok(()),
        }
    }
}

/// How a run failed.
#[derive(Default)]
struct Failed {
    permanent: bool,
    retry_after: Option<Duration>,
}

fn next<Db: Store>(
    core: &Core<Db>,
    entry: &HandlerEntry<Db>,
    item: &Item,
    error: &str,
    failed: &Failed,
    runs: u32,
) -> Next {
    let failure = Failure {
        envelope: &item.envelope,
        error,
        permanent: failed.permanent,
        retry_after: failed.retry_after,
        runs_in_round: runs,
        round: item.envelope.round,
    };
    match entry.retries.as_ref().unwrap_or(&core.retries).decide(&failure) {
        Decision::RetryNow => Next::Again,
        Decision::RetryAfter(delay) => Next::PutOff(delay),
        Decision::Hold => Next::Hold,
        Decision::Discard => Next::Discard,
    }
}
