//! The unit of work of handlers. A plain handler's message has a transaction of its own; a `HandleBatch` handler's
//! messages share one, and so do those of a handler that shares transactions.

use super::{
    dispatch::finish,
    emission::{of_giving_up, of_outcome, of_posted},
    judge::{Before, Verdict, judge},
    ledger::{Journal, Ledger, Origin, Settling},
    limit::Call,
    pass::{Again, Pass},
    policy::{Next, UserFailure, passes},
    progress::Progress,
    router::{Content, Item},
    shared::{HandlerEntry, Shared},
    trace,
};
use crate::{
    CrashPoint, Encoded, HeldReason, InboxResult, Retries, Store, StoreError, StoreErrorKind, ambient, crash,
    handler::{Cause, transaction::LazyTransaction},
    panics,
    port::Keys,
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::atomic::Ordering, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

/// How long an answer of the inbox about a batch is trusted. Handlers may have effects that no rollback undoes, so a
/// message that another process has handled meanwhile should not run here.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// After this time no further message joins a shared transaction.
const JOIN_FOR: Duration = Duration::from_millis(50);
/// After a message failed in a shared transaction, this many units give each message its own: where failures are
/// frequent, running everything twice costs more.
const SINGLE_UNITS: u32 = 20;
/// A unit counts as failed when its transaction was lost this often in a row after its handler ran: the database
/// answers, so the handler is to blame.
const LOST_MAX: u32 = 5;

/// Runs the first items, in one unit of work or several, as far as the pass goes.
///
/// Nothing may be done without an error: the endpoint stops, or the pass was for messages together, and one failed.
pub(super) async fn run<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    items: &mut [Item],
    mut pass: Pass<'_>,
    stop: &CancellationToken,
) -> Progress {
    debug_assert!(!items.is_empty(), "a unit without messages");
    let entry = &shared.handlers[handler];
    let asked = Instant::now();
    let verdicts = match ask(shared, entry, items).await {
        Ok(verdicts) => verdicts,
        Err(error) => return Progress::failed(error),
    };
    let unit = HandlerUnit { shared, entry, stop };
    if let Some(progress) = unit.share(items, &verdicts, &mut pass).await {
        return progress;
    }
    for (place, verdict) in verdicts.into_iter().enumerate() {
        if place > 0 && (asked.elapsed() > KNOWN_FOR || entry.breaker.is_open()) {
            return Progress { done: place, error: None };
        }
        let item = &mut items[place];
        let ran = match verdict {
            Verdict::Duplicate => {
                shared.metrics.duplicate(&item.envelope);
                Ok(true)
            }
            Verdict::Run(before) => match pass.call() {
                Some(call) => unit.alone(item, before, call).await,
                None => Ok(false),
            },
            Verdict::Reused(text) => {
                let mut ledger = Ledger::new(shared);
                ledger.reused(entry.description.name, &item.envelope, text);
                commit_alone(shared, ledger).await.map(|()| true)
            }
        };
        match ran {
            Ok(true) => {}
            Ok(false) => return Progress { done: place, error: None },
            Err(error) => return Progress::lost(place, error),
        }
        item.done();
    }
    Progress { done: items.len(), error: None }
}

/// What the inbox says about messages of a handler.
pub(super) async fn ask<Db: Store>(
    shared: &Shared<Db>,
    entry: &HandlerEntry<Db>,
    items: &[Item],
) -> Result<Vec<Verdict>, StoreError> {
    let message_ids = items.iter().map(|item| item.envelope.message_id.clone()).collect();
    let keys = Keys { endpoint: shared.name.clone(), message_ids, ..Keys::default() };
    let found = shared.store.read(&keys).await?;
    let messages = items.iter().map(|item| (entry.description.name, &*item.envelope));
    Ok(judge(messages, &found.inbox, found.now_us))
}

/// Commits what is not the handler's.
pub(super) async fn commit_alone<Db: Store>(shared: &Shared<Db>, ledger: Ledger<'_, Db>) -> Result<(), StoreError> {
    shared.dispatcher.may_begin().await;
    let unit = shared.store.begin(&[], shared.settings.lease).await?;
    finish(shared, unit, ledger).await
}

pub(super) fn settling<'a, Db: Store>(entry: &'a HandlerEntry<Db>, item: &'a Item, before: Before) -> Settling<'a> {
    let origin = Origin::Broker(before);
    Settling { receiver: entry.description.name, envelope: &item.envelope, saga_id: None, origin }
}

/// Whether the connection of the message's unit is lost again and again, although the database answers.
fn is_lost_for_ever(item: &Item) -> bool {
    item.lost.times(StoreErrorKind::Unavailable) >= LOST_MAX
}

struct HandlerUnit<'a, Db: Store> {
    shared: &'a Shared<Db>,
    entry: &'a HandlerEntry<Db>,
    stop: &'a CancellationToken,
}

/// Why a run did not succeed.
enum Failed {
    /// The handler failed, and its writes are undone.
    User(UserFailure),
    /// The unit runs again, and no run is counted.
    Store(StoreError),
}

impl Failed {
    fn user(text: String) -> Self {
        Self::User(UserFailure::transient(text))
    }
}

/// A run that succeeded: the transaction, and what each message sends.
struct Success<Db: Store> {
    transaction: LazyTransaction<Db>,
    causes: Vec<(Cause, Option<Encoded>)>,
    /// Of the run.
    span: Span,
}

impl<Db: Store> HandlerUnit<'_, Db> {
    /// Runs several messages in one transaction, if the handler allows it; `None`: each must run alone.
    async fn share(&self, items: &mut [Item], verdicts: &[Verdict], pass: &mut Pass<'_>) -> Option<Progress> {
        let mut to_run = Vec::new();
        for (place, verdict) in verdicts.iter().enumerate() {
            match verdict {
                Verdict::Run(before) => to_run.push((place, *before)),
                Verdict::Duplicate => {}
                Verdict::Reused(_) => return None,
            }
        }
        // a message whose units are lost again and again is only found by running it alone
        if to_run.len() < 2 || is_lost_for_ever(&items[0]) || !self.may_share() {
            return None;
        }
        let call = pass.call();
        let together = self.together(items, &to_run).await;
        drop(call);
        match together {
            Ok(Some(ran)) => {
                let done = to_run.get(ran).map_or(items.len(), |(place, _)| *place);
                for (item, verdict) in items.iter().zip(verdicts).take(done) {
                    if *verdict == Verdict::Duplicate {
                        self.shared.metrics.duplicate(&item.envelope);
                    }
                    item.done();
                }
                Some(Progress { done, error: None })
            }
            Ok(None) => {
                self.entry.single_units.store(SINGLE_UNITS, Ordering::Relaxed);
                None
            }
            Err(error) => {
                // together they may deadlock with other units again and again; alone, most cannot
                if error.kind() == StoreErrorKind::Conflict {
                    self.entry.single_units.store(SINGLE_UNITS, Ordering::Relaxed);
                }
                Some(Progress::lost(0, error))
            }
        }
    }

    /// Whether the next unit may have several messages; if not, counts down.
    fn may_share(&self) -> bool {
        if !self.entry.works_together() {
            return false;
        }
        let left = &self.entry.single_units;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// Runs messages in one transaction. Returns how many joined it, or `None` when one failed and the transaction was
    /// rolled back.
    async fn together(&self, items: &mut [Item], to_run: &[(usize, Before)]) -> Result<Option<usize>, StoreError> {
        self.shared.dispatcher.may_begin().await;
        let mut ledger = Ledger::new(self.shared);
        let mut transaction = self.transaction();
        let began = Instant::now();
        let mut ran = 0;
        while ran < to_run.len() && (ran == 0 || began.elapsed() < JOIN_FOR) {
            let n = if self.entry.description.takes_batches { to_run.len() - ran } else { 1 };
            let now = &to_run[ran..ran + n];
            let mut success = match self.once(items, now, transaction, 0).await {
                Ok(success) => success,
                Err(Failed::User(failure)) => {
                    let (endpoint, receiver) = (&self.shared.name, self.entry.description.name);
                    tracing::debug!(endpoint, receiver, error = failure.text, "running the batch one by one");
                    return Ok(None);
                }
                Err(Failed::Store(error)) => return Err(error),
            };
            for ((place, before), (cause, outcome)) in now.iter().zip(success.causes.drain(..)) {
                let entered = || self.handled(&mut ledger, &items[*place], *before, 1, &cause, outcome);
                if success.span.in_scope(entered).is_err() {
                    return Ok(None); // alone, it fails with the reason
                }
            }
            transaction = success.transaction;
            ran += n;
        }
        match self.end(transaction, ledger).await {
            Err(error) if error.kind() == StoreErrorKind::Rejected => Ok(None),
            Err(error) => Err(error),
            Ok(()) => {
                self.entry.breaker.handled(&self.shared.name, self.entry.description.name);
                Ok(Some(ran))
            }
        }
    }

    /// Runs one message in a transaction of its own until it succeeds or its policy says otherwise. Returns whether it
    /// is settled: not when the endpoint stops.
    async fn alone(&self, item: &mut Item, before: Before, mut call: Call<'_>) -> Result<bool, StoreError> {
        let retries = self.entry.retries.as_ref().unwrap_or(&self.shared.retries);
        let receiver = self.entry.description.name;
        let mut runs: u32 = 0;
        item.turn = None; // it is used
        loop {
            runs += 1;
            let failure = match self.one_run(item, before, runs).await? {
                None => {
                    self.entry.breaker.handled(&self.shared.name, receiver);
                    return Ok(true);
                }
                Some(failure) => failure,
            };
            drop(call);
            let mut next = failure.next(retries, &item.envelope, before, runs);
            if next == Next::Again {
                // a handler that fails before its first await must not keep `stop` waiting
                tokio::task::yield_now().await;
                match Again::wait(self.shared, self.entry, item, self.stop).await? {
                    Again::Runs(again) => {
                        call = again;
                        continue;
                    }
                    Again::Stops => return Ok(false),
                    // the policy goes on as if there were no more retries at once
                    Again::Later(turn) => {
                        next = match failure.next(retries, &item.envelope, before, Retries::IMMEDIATE_MAX + 1) {
                            Next::PutOff(delay) => Next::PutOff(delay.max(turn)),
                            other => other,
                        };
                    }
                }
            }
            if failure.concerns_breaker() {
                self.entry.breaker.failed(&self.shared.name, receiver, &failure.text);
            }
            let mut ledger = Ledger::new(self.shared);
            ledger.spans.push(item.span.clone());
            let settling = settling(self.entry, item, before);
            let counted = failure.counts(runs);
            let (endpoint, message_id) = (&self.shared.name, &item.envelope.message_id);
            if let Next::PutOff(delay) = next {
                // the breaker says once a minute that messages fail
                tracing::debug!(endpoint, receiver, message_id, runs, ?delay, error = failure.text, "put off");
                ledger.put_off(settling, delay, failure.text, counted);
            } else if let Some(answer) = of_giving_up(self.shared, self.entry, &item.envelope, &failure.text) {
                if let Some(unsaid) = self.shared.held_log.held(receiver, HeldReason::Failed) {
                    tracing::warn!(endpoint, receiver, message_id, runs, error = failure.text, unsaid, "given up");
                }
                let effects = Some(item.span.in_scope(|| ledger.emit([answer])));
                let journal = Journal { effects, note: Some(failure.text), ..Journal::default() };
                ledger.settle(settling, InboxResult::Discarded, counted, journal);
            } else if next == Next::Hold {
                ledger.hold(settling, HeldReason::Failed, Some(failure.text), counted);
            } else {
                let journal = Journal { note: Some(failure.text), ..Journal::default() };
                ledger.settle(settling, InboxResult::Discarded, counted, journal);
            }
            return commit_alone(self.shared, ledger).await.map(|()| true);
        }
    }

    /// One run with its commit. Returns how the handler failed, if it did.
    async fn one_run(&self, item: &mut Item, before: Before, runs: u32) -> Result<Option<UserFailure>, StoreError> {
        self.shared.dispatcher.may_begin().await;
        let done = async {
            let items = std::slice::from_mut(item);
            let mut success = self.once(items, &[(0, before)], self.transaction(), runs - 1).await?;
            let mut ledger = Ledger::new(self.shared);
            for (cause, outcome) in success.causes.drain(..) {
                let entered = || self.handled(&mut ledger, &items[0], before, runs, &cause, outcome);
                let handled = success.span.in_scope(entered);
                handled.map_err(|refused| Failed::User(UserFailure::permanent(refused)))?;
            }
            self.end(success.transaction, ledger).await.map_err(Failed::Store)
        };
        match done.await {
            Ok(()) => Ok(None),
            Err(Failed::User(failure)) => Ok(Some(failure)),
            // the database refuses at the end: a deferred constraint, or a transaction that the handler ended itself
            Err(Failed::Store(error)) if error.kind() == StoreErrorKind::Rejected => {
                Ok(Some(UserFailure::transient(error.to_string())))
            }
            Err(Failed::Store(error)) if error.kind() == StoreErrorKind::Unavailable && is_lost_for_ever(item) => {
                Ok(Some(UserFailure::transient(error.to_string())))
            }
            Err(Failed::Store(error)) => Err(error),
        }
    }

    fn transaction(&self) -> LazyTransaction<Db> {
        // between two statements a handler may wait for other services, up to its own time limit
        LazyTransaction::new(self.shared.store.clone(), self.shared.settings.handler_time * 2)
    }

    /// Runs the handler. When it fails, its writes are rolled back.
    async fn once(
        &self,
        items: &mut [Item],
        to_run: &[(usize, Before)],
        mut transaction: LazyTransaction<Db>,
        runs: u32,
    ) -> Result<Success<Db>, Failed> {
        let messages = to_run.iter().map(|(place, _)| &items[*place].span);
        let span = self.shared.trace.handle(self.entry.description.name, messages);
        let lost = items[0].lost;
        let mut messages = Vec::with_capacity(to_run.len());
        let mut causes = Vec::with_capacity(to_run.len());
        for (place, before) in to_run {
            let item = &mut items[*place];
            let decoded = match &mut item.content {
                Content::Message(decoded) => decoded.take(),
                Content::Faulty(..) | Content::Wake | Content::TakeBack(_) => None,
            };
            let message = decoded.map_or_else(|| (self.entry.description.decode)(&item.envelope.body), Ok);
            messages.push(message.map_err(|text| Failed::User(UserFailure::permanent(text)))?);
            let runs_before = before.attempts() + i64::from(runs);
            let (envelope, posted, variables) = (item.envelope.clone(), Vec::new(), serde_json::Map::new());
            causes.push(Cause { envelope, posted, runs_before, variables });
        }
        let limit = self.shared.settings.handler_time;
        let run = AssertUnwindSafe(self.entry.logic.run(messages, &mut transaction, &mut causes)).catch_unwind();
        let run = run.map(|ran| ran.map_err(crash::survived)).instrument(span.clone());
        let ended = tokio::time::timeout(limit, run).await;
        if let Some(error) = transaction.take_failure() {
            return Err(Failed::Store(error));
        }
        let failed = match ended {
            Ok(Ok(Ok(outcomes))) => {
                let causes = causes.into_iter().zip(outcomes).collect();
                return Ok(Success { transaction, causes, span });
            }
            Ok(Ok(Err(error))) => {
                // without a transaction of ours it is an error of another database, and the handler's failure
                let ours = |kind: &_| *kind == StoreErrorKind::Schema || transaction.is_open();
                let means = self.shared.recognise(error.source()).filter(ours);
                let before = to_run.first().map(|(_, before)| *before).unwrap_or_default();
                let passes = means.and_then(|kind| passes(&error, kind, lost.times(kind), before));
                passes.map_or_else(|| Failed::User(UserFailure::returned(&error, means)), Failed::Store)
            }
            Ok(Err(panic)) => Failed::user(format!("the handler panicked: {}", panics::text(&*panic))),
            Err(_) => {
                // its statement may still be running, and a rollback would wait behind it
                transaction.abandon();
                Failed::user(format!("the handler ran longer than {limit:?}"))
            }
        };
        if let Failed::User(failure) = &failed {
            trace::failed(&span, &failure.text);
        }
        // When even the rollback fails, the connection is gone and the handler is not to blame. A connection that the
        // server cut because of the handler (an idle transaction) shows by the number of tries.
        match transaction.rollback().await {
            Err(error) if lost.times(error.kind()) < LOST_MAX => Err(Failed::Store(error)),
            _ => Err(failed),
        }
    }

    /// Enters a handled message into the ledger; or says why a message that it sends must not leave.
    fn handled(
        &self,
        ledger: &mut Ledger<'_, Db>,
        item: &Item,
        before: Before,
        runs: u32,
        cause: &Cause,
        outcome: Option<Encoded>,
    ) -> Result<(), String> {
        let command = Some(&*cause.envelope);
        let posted = cause.posted.iter().map(|posted| of_posted(self.shared, command, posted));
        let mut emissions = posted.collect::<Result<Vec<_>, String>>()?;
        if let Some(outcome) = outcome {
            emissions.push(of_outcome(self.shared, &cause.envelope, &outcome, ambient::fresh_id())?);
        }
        ledger.spans.push(item.span.clone());
        let effects = Some(ledger.emit(emissions));
        let journal = Journal { effects, ..Journal::default() };
        ledger.settle(settling(self.entry, item, before), InboxResult::Handled, i64::from(runs), journal);
        Ok(())
    }

    async fn end(&self, transaction: LazyTransaction<Db>, ledger: Ledger<'_, Db>) -> Result<(), StoreError> {
        let unit = transaction.into_unit().await?;
        self.shared.crashes.reach(CrashPoint::Lock);
        finish(self.shared, unit, ledger).await
    }
}
