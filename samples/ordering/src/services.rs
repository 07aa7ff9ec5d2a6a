//! The three services: what each handles, on any database that keeps the ledger.

use crate::{ledger::Ledger, messages::*, saga::OrderFulfilment};
use async_trait::async_trait;
use clap::Args;
use saga_core::{
    Change, Context, Endpoint, EndpointBuilder, Handle, HandlerError, Project, Retries, Saga, Session, Transport,
};
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How the world behaves: the same order always fares the same, whoever handles it.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct World {
    /// Payments that are declined, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) decline: u8,
    /// Orders that the warehouse cannot fulfil, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) no_stock: u8,
    /// Payments that are answered only after the payment timeout, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) silent: u8,
}

impl World {
    /// Whether the order is among `percent` of a hundred, by a part of its id that nothing else looks at.
    fn strikes(order_id: Uuid, what: usize, percent: u8) -> bool {
        let dice = saga_core::hash_of([order_id.as_bytes().as_slice(), &[what as u8]]);
        dice.unsigned_abs() % 100 < u64::from(percent)
    }
}

/// Called from the projection with every order that reached an end state, just before its commit.
pub(crate) type Ended = mpsc::UnboundedSender<Uuid>;

/// Ordering: runs the saga and keeps the list of orders.
pub(crate) fn ordering<Db: Ledger>(transport: impl Transport, store: Db, ended: Option<Ended>) -> EndpointBuilder<Db> {
    Endpoint::named("ordering").transport(transport).store(store).saga::<OrderFulfilment>().project(OrderList { ended })
}

/// Payment: charges and refunds.
pub(crate) fn payment<Db: Ledger>(
    transport: impl Transport,
    store: Db,
    world: World,
    timeout: Duration,
) -> EndpointBuilder<Db> {
    let payments = Payments { world, silence: timeout + timeout / 2 };
    Endpoint::named("payment")
        .transport(transport)
        .store(store)
        .handle::<MakePayment>(payments)
        .handle::<RefundPayment>(payments)
        .retries(Retries::default())
}

/// Warehouse: prints shipping labels.
pub(crate) fn warehouse<Db: Ledger>(transport: impl Transport, store: Db, world: World) -> EndpointBuilder<Db> {
    Endpoint::named("warehouse").transport(transport).store(store).handle::<CreateShippingLabel>(Warehouse { world })
}

/// Stores an order and publishes it, in one transaction. The same id again is the same order: `false`.
pub(crate) async fn place<Db: Ledger>(mut session: Session<Db>, order: OrderPlaced) -> Result<bool, HandlerError> {
    let new = Db::place(session.tx(), &order).await?;
    if new {
        session.publish(order);
    }
    session.commit().await?;
    Ok(new)
}

struct OrderList {
    ended: Option<Ended>,
}

#[async_trait]
impl<Db: Ledger> Project<OrderFulfilment, Db> for OrderList {
    async fn project(&self, changes: &[Change<OrderFulfilment>], tx: &mut Db::Tx) -> Result<(), HandlerError> {
        let statuses: Vec<(&str, &str)> =
            changes.iter().map(|change| (change.id.as_str(), status(&change.after))).collect();
        Db::set_statuses(tx, &statuses).await?;
        if let Some(ended) = &self.ended {
            let at_end = statuses.iter().filter(|(_, status)| matches!(*status, "shipped" | "cancelled"));
            for order_id in at_end.filter_map(|(id, _)| id.parse().ok()) {
                let _ = ended.send(order_id); // nobody listens any more
            }
        }
        Ok(())
    }
}

fn status(order: &OrderFulfilment) -> &'static str {
    status_of(order.state_name())
}

/// A state's name as the API gives it.
pub(crate) fn status_of(state: &str) -> &'static str {
    match state {
        "AwaitingPayment" => "awaiting_payment",
        "AwaitingShipment" => "awaiting_shipment",
        "Refunding" => "refunding",
        "Shipped" => "shipped",
        "Cancelled" => "cancelled",
        _ => "placed",
    }
}

#[derive(Clone, Copy)]
struct Payments {
    world: World,
    /// How long a silent bank takes.
    silence: Duration,
}

#[async_trait]
impl<Db: Ledger> Handle<MakePayment, Db> for Payments {
    async fn handle(&self, command: MakePayment, cx: &mut Context<'_, Db>) -> Result<PaymentOutcome, HandlerError> {
        let MakePayment { order_id, amount_cents } = command;
        if cx.runs_before() == 0 && World::strikes(order_id, 0, self.world.silent) {
            return Err(HandlerError::retry_after("the bank does not answer", self.silence));
        }
        if World::strikes(order_id, 1, self.world.decline) {
            return Ok(PaymentDeclined { order_id, reason: "the bank declined the payment".into() }.into());
        }
        let payment_id = Uuid::now_v7();
        Db::charge(cx.tx().await?, order_id, payment_id, amount_cents).await?;
        Ok(PaymentCompleted { order_id, payment_id, amount_cents }.into())
    }
}

#[async_trait]
impl<Db: Ledger> Handle<RefundPayment, Db> for Payments {
    async fn handle(&self, command: RefundPayment, cx: &mut Context<'_, Db>) -> Result<RefundOutcome, HandlerError> {
        let RefundPayment { order_id, payment_id, amount_cents } = command;
        Db::refund(cx.tx().await?, order_id, payment_id, amount_cents).await?;
        Ok(PaymentRefunded { order_id, payment_id }.into())
    }
}

struct Warehouse {
    world: World,
}

#[async_trait]
impl<Db: Ledger> Handle<CreateShippingLabel, Db> for Warehouse {
    async fn handle(
        &self,
        command: CreateShippingLabel,
        cx: &mut Context<'_, Db>,
    ) -> Result<ShippingOutcome, HandlerError> {
        let CreateShippingLabel { order_id, address } = command;
        if World::strikes(order_id, 2, self.world.no_stock) {
            return Ok(ShipmentRejected { order_id, reason: "out of stock".into() }.into());
        }
        let label_id = Uuid::now_v7();
        Db::label(cx.tx().await?, order_id, label_id, &address).await?;
        Ok(ShippingLabelCreated { order_id, label_id }.into())
    }
}
