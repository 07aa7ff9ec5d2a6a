//! Lanes: each takes what is there, runs it as one unit of work, and does not give up on it.

use super::{breaker::Breaker, core::Core, handler_unit, item::Item, saga_unit, saga_unit::inbox_row};
use crate::{
    HeldReason, InboxResult, Store, StoreError, endpoint::core::Target, retry::backoff, saga::run::panic_text,
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The longest pause between two tries while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A message that cannot even be held is set aside after so many tries.
const HOLD_TRIES: u32 = 6;
/// A message that killed the process so often while it ran alone is held.
const CRASHES_MAX: i64 = 3;

/// Runs until the endpoint stops. The channel is bounded by the transport's prefetch.
pub(crate) async fn run<Db: Store>(
    core: Arc<Core<Db>>,
    mut items: mpsc::UnboundedReceiver<Item>,
    stop: CancellationToken,
) {
    let batch_max = core.settings.batch_messages_max;
    let mut batch: Vec<Item> = Vec::new();
    loop {
        // what is there and nothing more: a message that comes alone is run at once, and while a batch runs the next one gathers.
        // When the endpoint stops, what waits here is dropped and so goes back to the broker
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => 0,
            received = items.recv_many(&mut batch, batch_max) => received,
        };
        if received == 0 {
            return;
        }
        // in the order in which they came: a suspect is not overtaken by what follows it
        let mut rest = batch.as_mut_slice();
        while !rest.is_empty() {
            let (together, more) = rest.split_at_mut(rest.iter().position(|item| item.suspect).unwrap_or(rest.len()));
            run_together(&core, together).await;
            let Some((alone, more)) = more.split_first_mut() else { break };
            suspect(&core, alone).await;
            rest = more;
        }
        batch.clear();
    }
}

/// Runs what is not suspected; handlers whose breaker is open one message at a time.
async fn run_together<Db: Store>(core: &Core<Db>, mut items: &mut [Item]) {
    while !items.is_empty() {
        let slowed = |item: &Item| breaker(core, item).is_some_and(Breaker::is_open);
        let (full_speed, more) = items.split_at_mut(items.iter().position(slowed).unwrap_or(items.len()));
        patiently(core, full_speed).await;
        let Some((one, more)) = more.split_first_mut() else { return };
        if let Some(breaker) = breaker(core, one) {
            let _turn = breaker.turn().await;
            patiently(core, std::slice::from_mut(one)).await;
        }
        items = more;
    }
}

fn breaker<'a, Db: Store>(core: &'a Core<Db>, item: &Item) -> Option<&'a Breaker> {
    match item.target {
        Target::Handler(handler) => Some(&core.handlers[handler].breaker),
        Target::Saga(_) | Target::Nobody => None,
    }
}

/// Runs the items until they are settled: waits for the database as long as it takes, starts over when another process was
/// faster, and parts the items when one of them spoils it for all.
async fn patiently<Db: Store>(core: &Core<Db>, mut items: &mut [Item]) {
    let mut tries = 0;
    while !items.is_empty() {
        match once(core, items, tries > 0).await {
            Ok(n) => {
                items = &mut items[n..];
                tries = 0;
            }
            Err(StoreError::Conflict) => {
                tries += 1;
                tracing::debug!(endpoint = core.name, tries, "another process was faster: running the batch again");
                if tries > 2 {
                    tokio::time::sleep(backoff(tries - 2, PAUSE_MAX)).await;
                }
            }
            // wrong credentials or tables are nobody's message's fault either
            Err(error @ (StoreError::Unavailable(_) | StoreError::Invalid(_) | StoreError::Schema(_))) => {
                tries += 1;
                tracing::warn!(endpoint = core.name, tries, %error, "waiting for the database");
                tokio::time::sleep(backoff(tries, PAUSE_MAX)).await;
            }
            Err(error) if items.len() > 1 => {
                tracing::info!(endpoint = core.name, messages = items.len(), %error, "running the batch one by one");
                for item in items {
                    Box::pin(patiently(core, std::slice::from_mut(item))).await;
                }
                return;
            }
            Err(error) => {
                let item = &mut items[0];
                if item.fault.is_some() {
                    tries += 1;
                    let message = &item.envelope.message_id;
                    tracing::error!(endpoint = core.name, message, tries, %error, "cannot hold the message");
                    if tries == HOLD_TRIES {
                        // neither lost nor in the way: unacknowledged, it is the next process's
                        tracing::error!(endpoint = core.name, message, "set aside until this process ends");
                        std::mem::forget(item.guard.clone());
                        return;
                    }
                    tokio::time::sleep(backoff(tries, PAUSE_MAX)).await;
                }
                item.fault = Some((HeldReason::Failed, refusal(&error)));
            }
        }
    }
}

/// Tells what to do about the commonest reason.
fn refusal(error: &StoreError) -> String {
    let text = error.to_string();
    if text.contains("current transaction is aborted") {
        return format!(
            "{text}: the handler caught an error of the database inside its transaction; wrap a statement that may fail in a \
             nested transaction (`sqlx::Connection::begin(cx.tx().await?)`)"
        );
    }
    text
}

/// A panic in a store or a projection must not end the lane: its messages would wait for ever.
async fn once<Db: Store>(core: &Core<Db>, items: &mut [Item], again: bool) -> Result<usize, StoreError> {
    let run = AssertUnwindSafe(unit(core, items, again)).catch_unwind().await;
    run.unwrap_or_else(|panic| Err(StoreError::Rejected(format!("panicked: {}", panic_text(&*panic)))))
}

async fn unit<Db: Store>(core: &Core<Db>, items: &mut [Item], again: bool) -> Result<usize, StoreError> {
    if matches!(items[0].target, Target::Handler(_)) && items[0].fault.is_none() {
        return handler_unit::run(core, items).await;
    }
    saga_unit::run(core, items, again).await?;
    Ok(items.len())
}

/// A message that was redelivered after crashes runs alone, and every such run is counted before it begins.
async fn suspect<Db: Store>(core: &Core<Db>, item: &mut Item) {
    let claim =
        inbox_row(core, core.receiver(item.target), &item.envelope, InboxResult::Suspect, 0, Default::default());
    let mut tries = 0;
    let crashes = loop {
        match core.store.suspect(&claim).await {
            Ok(crashes) => break crashes,
            Err(error) => {
                tries += 1;
                tracing::warn!(endpoint = core.name, tries, %error, "waiting for the database");
                tokio::time::sleep(backoff(tries, PAUSE_MAX)).await;
            }
        }
    };
    if crashes.is_some_and(|crashes| crashes > CRASHES_MAX) {
        let text = format!("the process died {CRASHES_MAX} times while it handled this message alone");
        item.fault = Some((HeldReason::Crashes, text));
    }
    patiently(core, std::slice::from_mut(item)).await;
}
