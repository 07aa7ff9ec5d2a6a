//! The same process without a saga: each service hears events and reacts, and nobody knows the whole. What that costs
//! is told in `docs/book/choreography.md`.
//!
//! ```text
//! OrderPlaced ─► payment ─► OrderPaid ─► warehouse ─► OrderShipped ─────────────► ordering: shipped
//!                   │                        └─► OrderOutOfStock ─► payment
//!                   │                                                  └─► OrderRefunded ─► ordering: cancelled
//!                   └─► OrderNotPaid ───────────────────────────────────────────────────► ordering: cancelled
//! ```

use crate::{
    ledger::{Charge, Ledger},
    messages::OrderPlaced,
    services::{Ended, World, cannot_be_paid},
};
use sagabus::{endpoint::EndpointBuilder, port::Transport, prelude::*};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "payment")]
struct OrderPaid {
    order_id: Uuid,
    payment_id: Uuid,
    amount_cents: i64,
    /// Payment has no use for it. It passes it on because the warehouse hears of payment, not of ordering.
    address: String,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "payment")]
struct OrderNotPaid {
    order_id: Uuid,
    reason: String,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "warehouse")]
struct OrderShipped {
    order_id: Uuid,
    label_id: Uuid,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "warehouse")]
struct OrderOutOfStock {
    order_id: Uuid,
    /// The warehouse has no use for these: they are what payment must pay back.
    payment_id: Uuid,
    amount_cents: i64,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "payment")]
struct OrderRefunded {
    order_id: Uuid,
}

/// Ordering: keeps the list of orders. It hears of ends only: of what happens between, it knows nothing.
pub(crate) fn ordering<Db: Ledger>(transport: impl Transport, store: Db, ended: Option<Ended>) -> EndpointBuilder<Db> {
    Endpoint::builder("ordering", transport, store).handlers(OrderList { ended })
}

/// Payment: charges what is ordered, and pays back what is not shipped.
pub(crate) fn payment<Db: Ledger>(
    transport: impl Transport,
    store: Db,
    world: World,
    timeout: Duration,
) -> EndpointBuilder<Db> {
    let payments = Payments { world, silence: timeout + timeout / 2 };
    Endpoint::builder("payment", transport, store).handlers(payments).retries(Retries::default())
}

/// Warehouse: prints a label for what is paid.
pub(crate) fn warehouse<Db: Ledger>(transport: impl Transport, store: Db, world: World) -> EndpointBuilder<Db> {
    Endpoint::builder("warehouse", transport, store).handlers(Warehouse { world })
}

struct OrderList {
    ended: Option<Ended>,
}

impl OrderList {
    async fn end<Db: Ledger>(&self, id: Uuid, how: &str, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        Db::set_statuses(cx.tx().await?, &[(id.to_string().as_str(), how)]).await?;
        if let Some(ended) = &self.ended {
            let _ = ended.send(id); // nobody listens any more
        }
        Ok(())
    }
}

#[handlers]
impl OrderList {
    async fn shipped<Db: Ledger>(&self, it: OrderShipped, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.end(it.order_id, "shipped", cx).await
    }
    async fn not_paid<Db: Ledger>(&self, it: OrderNotPaid, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.end(it.order_id, "cancelled", cx).await
    }
    async fn refunded<Db: Ledger>(&self, it: OrderRefunded, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.end(it.order_id, "cancelled", cx).await
    }
}

struct Payments {
    world: World,
    /// How long a silent bank takes.
    silence: Duration,
}

impl Payments {
    /// Why an order is not paid. How long a payment may take is a rule of the process; it has moved in here, because
    /// nobody else could take a late payment back without asking the warehouse.
    fn refuses(&self, order: &OrderPlaced) -> Option<String> {
        let declined = || self.world.declines(order.order_id).then(|| "the bank declined the payment".into());
        let late = self.world.is_silent(order.order_id).then(|| "the payment took too long".into());
        cannot_be_paid(order.amount_cents).or(late).or_else(declined)
    }
}

#[handlers]
impl Payments {
    async fn pay<Db: Ledger>(&self, order: OrderPlaced, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        if cx.runs_before() == 0 && self.world.is_silent(order.order_id) {
            return Err(HandlerError::retry_after("the bank does not answer", self.silence));
        }
        let OrderPlaced { order_id, amount_cents, .. } = order;
        if let Some(reason) = self.refuses(&order) {
            cx.publish(OrderNotPaid { order_id, reason });
            return Ok(());
        }
        let by = cx.message_id().to_owned();
        let charge = Charge { payment_id: Uuid::now_v7(), amount_cents };
        let Charge { payment_id, amount_cents } = Db::charge(cx.tx().await?, &by, order_id, &charge).await?;
        cx.publish(OrderPaid { order_id, payment_id, amount_cents, address: order.address });
        Ok(())
    }

    async fn pay_back<Db: Ledger>(&self, it: OrderOutOfStock, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let OrderOutOfStock { order_id, payment_id, amount_cents } = it;
        let by = cx.message_id().to_owned();
        Db::refund(cx.tx().await?, &by, order_id, &Charge { payment_id, amount_cents }).await?;
        cx.publish(OrderRefunded { order_id });
        Ok(())
    }
}

struct Warehouse {
    world: World,
}

#[handlers]
impl Warehouse {
    async fn label<Db: Ledger>(&self, paid: OrderPaid, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let OrderPaid { order_id, payment_id, amount_cents, address } = paid;
        if self.world.lacks_stock(order_id) {
            cx.publish(OrderOutOfStock { order_id, payment_id, amount_cents });
            return Ok(());
        }
        let by = cx.message_id().to_owned();
        let label_id = Db::label(cx.tx().await?, &by, order_id, Uuid::now_v7(), &address).await?;
        cx.publish(OrderShipped { order_id, label_id });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// What handlers publish no type tells: that is the price of choreography, here as well.
    #[tokio::test]
    async fn everything_that_is_published_is_heard_and_the_other_way_round() {
        let store = Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let (bus, world) = (InProcess::new(), World { decline: 0, no_stock: 0, silent: 0 });
        let ordering = ordering(bus.clone(), store.clone(), None).wiring().sends::<OrderPlaced>();
        let payment = payment(bus.clone(), store.clone(), world, Duration::ZERO).wiring();
        let payment = payment.sends::<OrderPaid>().sends::<OrderNotPaid>().sends::<OrderRefunded>();
        let warehouse = warehouse(bus, store, world).wiring().sends::<OrderShipped>().sends::<OrderOutOfStock>();
        assert_eq!(Wiring::verify([&ordering, &payment, &warehouse]), [] as [String; 0]);
    }
}
