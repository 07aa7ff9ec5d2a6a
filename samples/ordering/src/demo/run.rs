//! Placing the demo's orders, and waiting for the end of each.

use super::Demo;
use crate::{
    ledger::Ledger,
    messages::OrderPlaced,
    services::{self, World},
};
use anyhow::{Context, Result, anyhow, bail};
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use sagabus::Endpoint;
use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    io::IsTerminal,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The demo gives up when no order has reached its end for this long.
const STALLED: Duration = Duration::from_secs(120);
/// How often the database is asked for orders that have ended. This process does not hear of each end: other
/// processes of ordering on the same broker handle their share of the messages.
const LOOK: Duration = Duration::from_millis(500);

/// What happened.
pub(super) struct Run {
    pub(super) elapsed: Duration,
    /// The orders, in the order in which they ended.
    pub(super) ended: Vec<Ended>,
}

/// An order that has reached its end.
pub(super) struct Ended {
    pub(super) order_id: Uuid,
    /// From placed to ended.
    pub(super) took: Duration,
    /// Since the first order was placed.
    pub(super) at: Duration,
    /// The simulated bank did not answer in time.
    pub(super) silent: bool,
}

/// The tasks that wait for the end of an order.
#[derive(Default)]
struct Waiting(Mutex<HashMap<Uuid, oneshot::Sender<()>>>);

impl Waiting {
    fn orders(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An order has ended. It may reach an end twice (cancelled, refunded, cancelled): the first one counts.
    fn end(&self, order_id: Uuid) {
        if let Some(waiter) = self.orders().remove(&order_id) {
            let _ = waiter.send(()); // the demo has given up
        }
    }
}

impl Demo {
    /// Places the orders, up to `in_flight` under way at a time, and waits until each has reached its end.
    pub(super) async fn place<Db: Ledger>(
        &self,
        ordering: &Endpoint<Db>,
        mut end: mpsc::UnboundedReceiver<Uuid>,
        timeout: Duration,
    ) -> Result<Run> {
        let progress = self.progress();
        let waiting = Waiting::default();
        let began = Instant::now();
        let last_end = Cell::new(began);
        // these run side by side: an order that is being placed holds a connection, which `look` may be waiting for
        let place = async {
            let one = |_| one(ordering, &waiting, self.world, timeout, began);
            let mut orders = stream::iter(0..self.orders).map(one).buffer_unordered(self.in_flight as usize);
            let mut ended = Vec::with_capacity(self.orders);
            while let Some(order) = orders.next().await {
                ended.push(order?);
                last_end.set(Instant::now());
                progress.inc(1);
            }
            anyhow::Ok(ended)
        };
        let hear = async {
            while let Some(order_id) = end.recv().await {
                waiting.end(order_id);
            }
        };
        let look = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let under_way: Vec<Uuid> = waiting.orders().keys().copied().collect();
                if last_end.get().elapsed() > STALLED {
                    bail!("no order reached its end for {STALLED:?}: {} are under way", under_way.len());
                }
                if under_way.iter().all(|id| self.world.is_silent(*id)) {
                    progress.set_message(", waiting for the silent bank");
                }
                // an error is not a reason to give up: ask the database again
                let ended = ordering.store().ended(&under_way).await.unwrap_or_default();
                ended.into_iter().for_each(|order_id| waiting.end(order_id));
            }
        };
        let ended = tokio::select! {
            ended = place => ended?,
            stalled = look => stalled?,
            () = async { hear.await; std::future::pending().await } => Vec::new(),
        };
        progress.finish_and_clear();
        Ok(Run { elapsed: began.elapsed(), ended })
    }

    fn progress(&self) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = write!(text, "{:.0}/s", state.per_sec()); // a terminal that is gone
        };
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} orders, {rate}, {elapsed}{msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate);
        ProgressBar::new(self.orders as u64).with_style(style)
    }
}

/// Places one order and waits for its end.
async fn one<Db: Ledger>(
    ordering: &Endpoint<Db>,
    waiting: &Waiting,
    world: World,
    timeout: Duration,
    began: Instant,
) -> Result<Ended> {
    let order = order(timeout);
    let order_id = order.order_id;
    let (waiter, end) = oneshot::channel();
    waiting.orders().insert(order_id, waiter);
    let placed_at = Instant::now();
    let placed = async { services::place(ordering.session().await?, order).await };
    placed.await.map_err(|error| anyhow!("an order could not be placed: {error}"))?;
    end.await.context("no task waits for the order any more")?;
    Ok(Ended { order_id, took: placed_at.elapsed(), at: began.elapsed(), silent: world.is_silent(order_id) })
}

/// A new order.
fn order(timeout: Duration) -> OrderPlaced {
    let order_id = Uuid::now_v7();
    let dice = order_id.as_bytes()[15];
    OrderPlaced {
        order_id,
        customer: format!("customer {dice}"),
        address: format!("{dice} Main Street"),
        amount_cents: 1000 + i64::from(dice) * 10,
        payment_timeout_ms: timeout.as_millis() as u64,
    }
}
