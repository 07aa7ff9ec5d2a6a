//! Lanes of handlers: each takes all waiting items of one handler, and runs them as units of work, in order.

use super::{
    backlog, handler_unit,
    inlet::Inlet,
    lane::{count_crash, guarded, hold, messages_apart},
    policy::Lost,
    progress::{Halted, Progress},
    router::{Content, Item},
    shared::Shared,
    waiting::Waiting,
};
use crate::{HeldReason, Store, StoreError, StoreErrorKind};
use std::{pin::pin, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Runs a lane of one handler until the endpoint stops.
pub(super) async fn run<Db: Store>(shared: Arc<Shared<Db>>, handler: usize, mut inlet: Inlet, stop: CancellationToken) {
    let batch_max = shared.settings.batch_messages_max;
    let breaker = &*shared.handlers[handler].breaker;
    let mut waiting: Vec<Item> = Vec::new();
    while !stop.is_cancelled() {
        if waiting.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                more = inlet.take(&mut waiting, batch_max) => if !more { return },
            }
        }
        let mut turn = None;
        if breaker.is_open() {
            let mut mine = pin!(breaker.turn());
            while turn.is_none() {
                // put off what comes as well: unacknowledged, it would use up the prefetch of other handlers
                waiting.retain(|item| !item.comes_again());
                waiting = backlog::behind_failures(&shared, handler, waiting).await;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    mine = &mut mine => turn = Some(mine),
                    more = inlet.take(&mut waiting, batch_max) => if !more { return },
                }
            }
        }
        waiting.retain(|item| !item.comes_again());
        waiting = backlog::behind_limit(&shared, handler, waiting).await;
        let messages = if turn.is_some() { waiting.len().min(1) } else { messages_apart(&waiting) };
        let mut batch: Vec<Item> = waiting.drain(..messages).collect();
        let work = async {
            if !count_crash(&shared, &mut batch, &stop).await {
                return None;
            }
            // what is taken back is so before the rest of the batch runs
            let to_hold = batch.extract_if(.., |item| item.runs_nothing()).collect();
            hold(&shared, to_hold, &stop).await;
            Some(run_items(&shared, handler, batch, &stop).await)
        };
        let Some(rest) = inlet.beside(work).await else { return };
        drop(turn);
        waiting.splice(..0, rest);
    }
}

/// Runs the items until they are settled, or until the breaker opens or the endpoint stops. Returns the rest.
async fn run_items<Db: Store>(
    shared: &Shared<Db>,
    handler: usize,
    mut items: Vec<Item>,
    stop: &CancellationToken,
) -> Vec<Item> {
    let mut waiting = Waiting::new(shared, stop);
    let mut lost = Lost::default();
    loop {
        if waiting.tries() == 0 {
            items.retain(|item| !item.comes_again());
        }
        if items.is_empty() {
            return items;
        }
        let Progress { done, error } = match guarded(handler_unit::run(shared, handler, &mut items, lost, stop)).await {
            Ok(progress) => progress,
            Err(panic) => Progress::failed(StoreError::new(StoreErrorKind::Rejected, panic)),
        };
        items.drain(..done);
        if done > 0 {
            waiting.over();
            lost = Lost::default();
        }
        match error {
            None => {
                debug_assert!(done > 0 || stop.is_cancelled(), "a unit that does nothing would be run for ever");
                if shared.handlers[handler].breaker.is_open() || stop.is_cancelled() {
                    break;
                }
            }
            Some(Halted { error, ran }) if error.kind() != StoreErrorKind::Rejected => {
                lost = if ran { lost.again(error.kind()) } else { Lost::default() };
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
