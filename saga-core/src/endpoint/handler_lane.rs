//! Lanes of handlers: each takes all waiting items of one handler, and runs them as units of work, in order.
//!
//! Before a unit runs, the lane waits: for the breaker while messages fail, and for a call if the handler has a limit.
//! What comes meanwhile is looked at as it comes. What runs nothing is settled, because a command that is taken back
//! must not run first; what cannot run soon is put off, because it would use up the prefetch of other handlers.

use super::{
    backlog, handler_unit,
    inlet::Inlet,
    lane::{apart, count_crash, guarded, hold, messages_apart},
    pass::Pass,
    policy::Lost,
    progress::{Halted, Progress},
    router::{Content, Item},
    shared::Shared,
    waiting::Waiting,
};
use crate::{
    Envelope, HeldReason, InboxResult, OutboxKind, Store, StoreError, StoreErrorKind, ambient,
    port::{Destination, HeldIn, InboxRow, OutboxRow, Unit, Write},
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Runs a lane of one handler until the endpoint stops.
pub(super) async fn run<Db: Store>(shared: Arc<Shared<Db>>, handler: usize, mut inlet: Inlet, stop: CancellationToken) {
    let mut lane = Lane { shared: &shared, handler, stop: &stop, waiting: Waiting::new(&shared, &stop) };
    let mut items: Vec<Item> = Vec::new();
    while !stop.is_cancelled() && lane.once(&mut inlet, &mut items).await.is_some() {}
}

struct Lane<'a, Db: Store> {
    shared: &'a Shared<Db>,
    handler: usize,
    stop: &'a CancellationToken,
    /// For the database. Meanwhile the lane keeps the items that it has and takes no others: their copies would gather.
    waiting: Waiting<'a, Db>,
}

impl<'a, Db: Store> Lane<'a, Db> {
    /// Runs a unit with the first items, or puts some off. `None`: the endpoint stops.
    async fn once(&mut self, inlet: &mut Inlet, items: &mut Vec<Item>) -> Option<()> {
        let batch_max = self.shared.settings.batch_messages_max;
        if items.is_empty() {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                more = inlet.take(items, batch_max) => more.then_some(())?,
            }
        } else if self.waiting.tries() == 0 {
            inlet.take_now(items, batch_max.saturating_sub(items.len()));
        }
        let passed = self.pass(inlet, items).await?;
        let worked = inlet.beside(async {
            match passed {
                Ok(Passed::Runs(pass)) => return self.run_items(items, pass).await,
                Ok(Passed::NoCallSoon) => backlog::put_all_off(self.shared, self.handler, items).await,
                Ok(Passed::NothingThere) => Ok(()),
                Err(error) => Err(error),
            }
        });
        match worked.await {
            Ok(()) => {
                if self.waiting.tries() > 0 {
                    self.waiting.over();
                }
                Some(())
            }
            Err(error) => (!inlet.beside(self.waiting.pause(&error)).await).then_some(()),
        }
    }

    /// Waits until the first items may run. `None`: the endpoint stops.
    async fn pass(&mut self, inlet: &mut Inlet, items: &mut Vec<Item>) -> Option<Result<Passed<'a>, StoreError>> {
        let batch_max = self.shared.settings.batch_messages_max;
        let mut pass = pin!(Pass::wait(self.shared, self.handler));
        let passed =
            |pass: Result<Option<Pass<'a>>, StoreError>| pass.map(|pass| pass.map_or(Passed::NoCallSoon, Passed::Runs));
        let (mut asked, mut got) = (false, None);
        loop {
            let settled = {
                let mut settle = pin!(inlet.beside(self.settle(items)));
                // who has begun to ask goes on: it may have the connection that settling waits for
                tokio::select! {
                    biased;
                    pass = &mut pass, if asked => {
                        got = Some(pass);
                        settle.as_mut().await
                    }
                    settled = &mut settle => settled,
                }
            };
            if let Err(error) = settled {
                return Some(Err(error));
            }
            if items.is_empty() {
                return Some(Ok(Passed::NothingThere));
            }
            if let Some(pass) = got {
                return Some(passed(pass));
            }
            asked = true;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                pass = &mut pass => return Some(passed(pass)),
                more = inlet.take_beside(items, batch_max), if self.waiting.tries() == 0 => more.then_some(())?,
            }
        }
    }

    /// Settles what has nothing to wait for, and puts off what would wait too long.
    async fn settle(&self, items: &mut Vec<Item>) -> Result<(), StoreError> {
        if self.waiting.tries() == 0 {
            items.retain(|item| !item.comes_again());
        }
        for mut part in apart(items.extract_if(.., |item| item.runs_nothing()).collect()) {
            if count_crash(self.shared, &mut part, self.stop).await {
                hold(self.shared, part, self.stop).await;
            }
        }
        backlog::put_off(self.shared, self.handler, items).await
    }

    /// Runs the first items.
    async fn run_items(&mut self, items: &mut Vec<Item>, pass: Pass<'a>) -> Result<(), StoreError> {
        if items.first().is_some_and(|first| first.lost.to_refused_writes()) {
            prove_that_writes_work(self.shared).await?;
        }
        let Some(at) = backlog::take_turn(self.shared, self.handler, items).await? else { return Ok(()) };
        let entry = &self.shared.handlers[self.handler];
        let pass = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(()),
            pass = pass.until(entry, at) => pass,
        };
        let one = pass.is_slowed() || entry.limiter().is_some() && !entry.description.takes_batches;
        let most = if one { 1 } else { self.shared.settings.batch_messages_max };
        let messages = messages_apart(items).min(most);
        let mut batch: Vec<Item> = items.drain(..messages).collect();
        let ran = self.run_batch(&mut batch, pass).await;
        items.splice(..0, batch);
        ran
    }

    /// Runs items until the unit ends. Those that are not settled are left.
    async fn run_batch(&mut self, items: &mut Vec<Item>, pass: Pass<'a>) -> Result<(), StoreError> {
        if !count_crash(self.shared, items, self.stop).await {
            return Ok(());
        }
        // one that has killed the process too often
        let to_hold: Vec<Item> = items.extract_if(.., |item| item.runs_nothing()).collect();
        hold(self.shared, to_hold, self.stop).await;
        if items.is_empty() {
            return Ok(());
        }
        let unit = handler_unit::run(self.shared, self.handler, items, pass, self.stop);
        let Progress { done, error } = match guarded(unit).await {
            Ok(progress) => progress,
            Err(panic) => Progress::failed(StoreError::new(StoreErrorKind::Rejected, panic)),
        };
        items.drain(..done);
        if done > 0 {
            self.waiting.over();
        }
        let (Some(Halted { error, ran }), Some(first)) = (error, items.first_mut()) else { return Ok(()) };
        if error.kind() != StoreErrorKind::Rejected {
            first.lost = if ran { first.lost.again(error.kind()) } else { Lost::default() };
            return Err(error);
        }
        // the database refuses even the error text: the message is held with the refusal as its reason
        first.content = Content::Faulty(HeldReason::Failed, error.to_string());
        Ok(())
    }
}

/// A handler has effects that no rollback undoes, so it does not run again only to find that the database still refuses
/// what is written about it: the tables that every unit writes to are tried first, and a commit.
async fn prove_that_writes_work<Db: Store>(shared: &Shared<Db>) -> Result<(), StoreError> {
    const PROBE: &str = "sagabus.Probe";
    let envelope = Arc::new(Envelope::new(ambient::fresh_id().to_string(), PROBE, "{}"));
    let to = Destination::Endpoint(shared.name.clone());
    let mut write = Write::new(shared.name.clone(), shared.owner(), shared.settings.lease);
    write.claims = vec![InboxRow::new(PROBE, envelope.clone(), InboxResult::Handled)];
    write.held_in = vec![HeldIn::new(PROBE, envelope.clone(), HeldReason::Failed)];
    write.outbox = vec![OutboxRow::new(ambient::fresh_id(), OutboxKind::Retry, to, envelope)];
    let mut unit = shared.store.begin(&[], shared.settings.lease).await?;
    match unit.write(&write).await {
        Err(error) if error.kind() != StoreErrorKind::Rejected => return Err(error),
        _ => unit.rollback().await?,
    }
    // a disk may be found full by a commit alone; this one leaves a row that the next sweep deletes
    shared.store.reserve_calls(&shared.name, PROBE, 0, Duration::ZERO, Duration::ZERO).await.map(drop)
}

/// What a lane that waited may do.
enum Passed<'a> {
    /// The first items run.
    Runs(Pass<'a>),
    /// All are put off: it has no call soon.
    NoCallSoon,
    /// What waited was settled or put off.
    NothingThere,
}
