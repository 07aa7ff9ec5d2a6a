//! The unit of work of handlers: several messages in one transaction.
//!
//! They are not parted by savepoints, which would be a round trip for each, unless a handler failed lately after it had written.

use super::{
    core::{Core, HandlerEntry, Target},
    emission::{Emission, of_outcome, of_posted, of_retry},
    item::{Item, Known, known},
    saga_unit::{Journal, held_row, inbox_row, reused},
    unit::commit,
};
use crate::{
    Cause, Caused, Decision, Encoded, Envelope, Failure, HeldReason, InboxResult, Keys, OutboxRow, Posted, Step, Store,
    StoreError, Write,
    handler::{Mark, TxSlot},
    port::Unit,
    saga::run::panic_text,
};
use futures_util::FutureExt;
use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::atomic::Ordering,
    time::Duration,
};
use tokio::time::Instant;

/// Savepoints in one transaction at most: PostgreSQL caches 64 subtransactions per backend and looks the rest up on disk.
const SAVEPOINTS_MAX: usize = 50;
/// After this time no further handler joins the transaction: those that ran are committed, the rest follows in the next.
const JOIN_FOR: Duration = Duration::from_millis(50);
/// A handler that failed after it had written is parted from others by savepoints for so many units: where failures are
/// frequent, running everything twice costs more.
const CAREFUL_UNITS: u32 = 20;

/// Runs the first of the items, as many as fit, in one transaction; returns how many. After an error nothing has happened (or
/// the inbox knows), and the same items can be run again.
pub(crate) async fn run<Db: Store>(core: &Core<Db>, items: &mut [Item]) -> Result<usize, StoreError> {
    let careful = items.iter().any(|item| takes_care(core, item));
    match attempt(core, items, careful).await {
        Err(Halt::Mixed) => attempt(core, items, true).await,
        done => done,
    }
    .map_err(|halt| match halt {
        Halt::Store(error) => error,
        Halt::Mixed => StoreError::Rejected("a handler failed among others".into()), // one by one, then
    })
}

/// Why a unit ends without a commit.
enum Halt {
    Store(StoreError),
    /// A handler failed, and what it wrote cannot be told from what others wrote.
    Mixed,
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Whether the unit is to be parted by savepoints because of this item; counts it.
fn takes_care<Db: Store>(core: &Core<Db>, item: &Item) -> bool {
    let Target::Handler(handler) = item.target else { return false };
    let units = &core.handlers[handler].careful_units;
    units.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |units| units.checked_sub(1)).is_ok()
}

async fn attempt<Db: Store>(core: &Core<Db>, items: &mut [Item], careful: bool) -> Result<usize, Halt> {
    let message_ids = items.iter().map(|item| item.envelope.message_id.clone()).collect();
    let found = core.store.read(&Keys { endpoint: core.name.clone(), message_ids, ..Keys::default() }).await?;
    let inbox: HashMap<_, _> =
        found.inbox.iter().map(|row| ((row.receiver.as_str(), row.message_id.as_str()), row)).collect();
    let mark = Mark::Untouched { careful };
    let mut work = Work {
        core,
        alone: items.len() == 1,
        careful,
        slot: TxSlot { store: core.store.clone(), unit: None, mark, savepoints: 0, failed: None },
        write: core.new_write(),
        outbox: Vec::new(),
    };
    let began = Instant::now();
    let mut seen = HashSet::new();
    let mut ran = 0;
    while ran < items.len() {
        if ran > 0 && (began.elapsed() > JOIN_FOR || work.slot.savepoints >= SAVEPOINTS_MAX) {
            break;
        }
        let target = items[ran].target;
        let Target::Handler(handler) = target else {
            ran += 1;
            continue;
        };
        let entry = &core.handlers[handler];
        // its messages that follow each other, in one call
        let together = items[ran..].iter().take_while(|item| item.target == target).count();
        let together = if entry.about.takes_batches { together } else { 1 };
        let mut came = Vec::with_capacity(together);
        for item in &mut items[ran..ran + together] {
            let receiver = entry.about.name;
            if !seen.insert((receiver, item.envelope.message_id.clone())) {
                continue;
            }
            match known(inbox.get(&(receiver, item.envelope.message_id.as_str())).copied(), &item.envelope) {
                Known::Duplicate => {}
                Known::Fresh => came.push(Came { item, completes: None }),
                Known::Continues { attempts } | Known::Suspect { attempts } => {
                    came.push(Came { item, completes: Some(attempts) });
                }
                Known::Reused(text) => work.write.held_in.push(reused(core, receiver, &item.envelope, text)),
            }
        }
        match came.as_mut_slice() {
            [] => {}
            [one] => work.handle(entry, one).await?,
            many => work.handle_together(entry, many).await?,
        }
        ran += together;
    }
    let Work { mut slot, mut write, outbox, .. } = work;
    // no locks: of two processes with the same message the one that claims it first wins. In one order, so that they cannot wait
    // for each other
    write.claims.sort_unstable_by(|a, b| a.envelope.message_id.cmp(&b.envelope.message_id));
    if slot.unit.is_some() || !write.is_empty() {
        slot.open().await?;
        core.faults.reach(Step::Lock);
        let unit = slot.unit.take().expect("it was opened just now");
        commit(core, unit, write, outbox).await?;
    }
    items[..ran].iter().for_each(|item| item.guard.settled());
    Ok(ran)
}

/// A message to handle, and the attempts of the inbox row that it completes, if there is one.
struct Came<'a> {
    item: &'a mut Item,
    completes: Option<i64>,
}

impl Came<'_> {
    /// Runs that were counted before.
    fn runs_before(&self) -> i64 {
        self.completes.unwrap_or(0).max(self.item.envelope.attempt)
    }
}

struct Work<'a, Db: Store> {
    core: &'a Core<Db>,
    alone: bool,
    careful: bool,
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
    async fn handle(&mut self, entry: &HandlerEntry<Db>, came: &mut Came<'_>) -> Result<(), Halt> {
        let receiver = entry.about.name;
        let before = came.runs_before();
        let mut runs: u32 = 0;
        let (result, journal) = loop {
            runs += 1;
            let run = self.once(entry, std::slice::from_mut(came), i64::from(runs) - 1).await?;
            let envelope = came.item.envelope.clone();
            let (error, failure) = match run {
                Ok(mut effects) => {
                    entry.breaker.succeeded(receiver);
                    let effects = effects.pop();
                    break (InboxResult::Handled, Journal { effects, ..Journal::default() });
                }
                Err(failed) => failed,
            };
            self.undo(entry).await?;
            let attempts = before + i64::from(runs);
            let next = next(self.core, entry, &envelope, &error, &failure, runs);
            if !matches!(next, Next::Again) && !failure.permanent && failure.retry_after.is_none() {
                entry.breaker.failed(receiver);
            }
            match next {
                Next::Again => {}
                Next::PutOff(delay) => {
                    tracing::info!(
                        endpoint = self.core.name,
                        receiver,
                        message = envelope.message_id,
                        attempts,
                        ?delay,
                        error,
                        "put off"
                    );
                    self.outbox.push(of_retry(self.core, &envelope, receiver, attempts, delay));
                    break (InboxResult::Retrying, Journal { note: Some(error), ..Journal::default() });
                }
                Next::Hold => {
                    tracing::warn!(
                        endpoint = self.core.name,
                        receiver,
                        message = envelope.message_id,
                        attempts,
                        error,
                        "message held"
                    );
                    let held =
                        held_row(self.core, receiver, &envelope, HeldReason::Failed, Some(error), attempts, None);
                    self.write.held_in.push(held);
                    break (InboxResult::Held, Journal::default());
                }
                Next::Discard => break (InboxResult::Discarded, Journal { note: Some(error), ..Journal::default() }),
            }
        };
        self.settle(entry, came, result, before + i64::from(runs), journal);
        Ok(())
    }

    /// Runs several messages in one call. When that fails, they run one by one, and only then their policy is asked.
    async fn handle_together(&mut self, entry: &HandlerEntry<Db>, came: &mut [Came<'_>]) -> Result<(), Halt> {
        match self.once(entry, came, 0).await? {
            Ok(effects) => {
                entry.breaker.succeeded(entry.about.name);
                for (came, effects) in came.iter().zip(effects) {
                    let journal = Journal { effects: Some(effects), ..Journal::default() };
                    self.settle(entry, came, InboxResult::Handled, came.runs_before() + 1, journal);
                }
                Ok(())
            }
            Err((error, _)) => Err(Halt::Store(StoreError::Rejected(error))),
        }
    }

    fn settle(&mut self, entry: &HandlerEntry<Db>, came: &Came<'_>, result: InboxResult, runs: i64, journal: Journal) {
        let row = inbox_row(self.core, entry.about.name, &came.item.envelope, result, runs, journal);
        match came.completes {
            Some(known) => self.write.settles.push((row, known)),
            None => self.write.claims.push(row),
        }
    }

    /// One run; what each message caused. The outer error is the database's: the whole unit runs again and no attempt is counted.
    async fn once(
        &mut self,
        entry: &HandlerEntry<Db>,
        came: &mut [Came<'_>],
        runs: i64,
    ) -> Result<Result<Vec<Vec<Caused>>, (String, Failed)>, StoreError> {
        self.slot.mark = Mark::Untouched { careful: self.careful };
        let permanent = |error| Ok(Err((error, Failed { permanent: true, retry_after: None })));
        let mut messages = Vec::with_capacity(came.len());
        let mut causes = Vec::with_capacity(came.len());
        for came in &mut *came {
            let decoded = came.item.decoded.take();
            match decoded.map_or_else(|| (entry.about.read)(&came.item.envelope.body), Ok) {
                Ok(message) => messages.push(message),
                Err(error) => return permanent(error),
            }
            let runs_before = came.runs_before() + runs;
            causes.push(Cause { envelope: came.item.envelope.clone(), posted: Vec::new(), runs_before });
        }
        let limit = self.core.settings.handler_time;
        let run = AssertUnwindSafe(entry.logic.run(messages, &mut self.slot, &mut causes)).catch_unwind();
        let run = tokio::time::timeout(limit, run).await;
        if let Some(error) = self.slot.failed.take() {
            return Err(error);
        }
        let (error, failed) = match run {
            Ok(Ok(Ok(outcomes))) => {
                let posted = causes.iter().flat_map(|cause| &cause.posted);
                if let Some(refused) = posted.filter_map(|posted| posted.refused.clone()).next() {
                    return permanent(refused);
                }
                let effects = causes.iter().zip(outcomes);
                return Ok(Ok(effects
                    .map(|(cause, outcome)| self.emit(entry, &cause.envelope, &cause.posted, outcome))
                    .collect()));
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
                self.slot.mark = Mark::Untouched { careful: self.careful };
                (error, Failed::default())
            }
        };
        Ok(Err((error, failed)))
    }

    fn emit(
        &mut self,
        entry: &HandlerEntry<Db>,
        cause: &Envelope,
        posted: &[Posted],
        outcome: Option<Encoded>,
    ) -> Vec<Caused> {
        let posted = posted.iter().map(|posted| of_posted(self.core, Some(cause), posted));
        let outcome = outcome.map(|outcome| of_outcome(self.core, cause, outcome, entry.about.outcome_is_reply_only));
        let mut effects = Vec::new();
        for Emission { row, effect } in posted.chain(outcome) {
            effects.push(effect);
            self.outbox.extend(row);
        }
        effects
    }

    /// Undoes what a failed run wrote, and only that.
    async fn undo(&mut self, entry: &HandlerEntry<Db>) -> Result<(), Halt> {
        match (self.slot.mark, self.slot.unit.take()) {
            (Mark::First, Some(unit)) => Ok(unit.rollback().await?),
            (Mark::Mixed, Some(unit)) => {
                entry.careful_units.store(CAREFUL_UNITS, Ordering::Relaxed);
                unit.rollback().await?;
                Err(Halt::Mixed)
            }
            (Mark::Savepoint, Some(mut unit)) => {
                unit.rollback_to_savepoint().await?;
                self.slot.unit = Some(unit);
                Ok(())
            }
            (_, unit) => {
                self.slot.unit = unit;
                Ok(())
            }
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
    envelope: &Envelope,
    error: &str,
    failed: &Failed,
    runs: u32,
) -> Next {
    let failure = Failure {
        envelope,
        error,
        permanent: failed.permanent,
        retry_after: failed.retry_after,
        runs_in_round: runs,
        round: envelope.round,
    };
    match entry.retries.as_ref().unwrap_or(&core.retries).decide(&failure) {
        Decision::RetryNow => Next::Again,
        Decision::RetryAfter(delay) => Next::PutOff(delay),
        Decision::Hold => Next::Hold,
        Decision::Discard => Next::Discard,
    }
}
