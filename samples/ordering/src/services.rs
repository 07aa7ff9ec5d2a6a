//! The three services: what each handles, on any database that keeps the ledger.

use crate::{
    ledger::{Charge, Ledger},
    messages::*,
    saga::OrderFulfilment,
};
use clap::Args;
use sagabus::{endpoint::EndpointBuilder, port::Transport, prelude::*};
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The most that an order may cost: small enough that sums of many orders cannot overflow.
pub(crate) const CENTS_MAX: i64 = 100_000_000_000;

/// How the world behaves. An order's fate depends on its id alone, so that every process decides alike.
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

/// Something that may happen to an order.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    Silent = 1,
    Declined,
    NoStock,
}

impl Mishap {
    /// Throws a die for the order: a hash of its id, so that the result is the same each time.
    fn strikes(self, order_id: Uuid, percent: u8) -> bool {
        xxh3_64_with_seed(order_id.as_bytes(), self as u64) % 100 < u64::from(percent)
    }
}

impl World {
    /// Whether the bank does not answer for the order in time.
    pub(crate) fn is_silent(self, order_id: Uuid) -> bool {
        Mishap::Silent.strikes(order_id, self.silent)
    }

    /// Whether the bank declines the order's payment.
    pub(crate) fn declines(self, order_id: Uuid) -> bool {
        Mishap::Declined.strikes(order_id, self.decline)
    }

    /// Whether the warehouse cannot fulfil the order.
    pub(crate) fn lacks_stock(self, order_id: Uuid) -> bool {
        Mishap::NoStock.strikes(order_id, self.no_stock)
    }
}

/// Called from the projection with every order that reached an end state, just before its commit.
pub(crate) type Ended = mpsc::UnboundedSender<Uuid>;

/// Ordering: runs the saga and keeps the list of orders.
pub(crate) fn ordering<Db: Ledger>(transport: impl Transport, store: Db, ended: Option<Ended>) -> EndpointBuilder<Db> {
    Endpoint::builder("ordering", transport, store).saga::<OrderFulfilment>().project(OrderList { ended })
}

/// Payment: charges and refunds.
pub(crate) fn payment<Db: Ledger>(
    transport: impl Transport,
    store: Db,
    world: World,
    timeout: Duration,
) -> EndpointBuilder<Db> {
    let payments = Payments { world, silence: timeout + timeout / 2 };
    Endpoint::builder("payment", transport, store).handlers(payments).retries(Retries::default())
}

/// Warehouse: prints shipping labels.
pub(crate) fn warehouse<Db: Ledger>(transport: impl Transport, store: Db, world: World) -> EndpointBuilder<Db> {
    Endpoint::builder("warehouse", transport, store).handlers(Warehouse { world })
}

/// The result of placing an order.
#[derive(Debug, PartialEq)]
pub(crate) enum Placing {
    New,
    /// The same order exists already.
    Again,
    /// Another order exists under this id: this field differs.
    Taken(&'static str),
}

/// Stores an order and publishes it, in one transaction. The same order again changes nothing.
pub(crate) async fn place<Db: Ledger>(mut session: Session<Db>, order: OrderPlaced) -> Result<Placing, HandlerError> {
    let placing = if Db::place(session.tx(), &order).await? {
        session.publish(order);
        Placing::New
    } else {
        let known = Db::placed(session.tx(), order.order_id).await?;
        known.and_then(|known| known.differs_from(&order)).map_or(Placing::Again, Placing::Taken)
    };
    session.commit().await?;
    Ok(placing)
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

/// A state's name in the API.
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

/// Why an amount is declined. Ordering's API refuses such amounts, but other programs can send a payment too.
pub(crate) fn cannot_be_paid(amount_cents: i64) -> Option<String> {
    let reason = || format!("an amount of 1 to {CENTS_MAX} cents can be paid, not {amount_cents}");
    (!(1..=CENTS_MAX).contains(&amount_cents)).then(reason)
}

#[handlers]
impl Payments {
    async fn pay<Db: Ledger>(
        &self,
        command: MakePayment,
        cx: &mut Context<'_, Db>,
    ) -> Result<PaymentOutcome, HandlerError> {
        let MakePayment { order_id, amount_cents } = command;
        if let Some(reason) = cannot_be_paid(amount_cents) {
            return Ok(PaymentDeclined { order_id, reason }.into());
        }
        if cx.runs_before() == 0 && self.world.is_silent(order_id) {
            return Err(HandlerError::retry_after("the bank does not answer", self.silence));
        }
        if self.world.declines(order_id) {
            return Ok(PaymentDeclined { order_id, reason: "the bank declined the payment".into() }.into());
        }
        let by = cx.message_id().to_owned();
        let charge = Charge { payment_id: Uuid::now_v7(), amount_cents };
        let Charge { payment_id, amount_cents } = Db::charge(cx.tx().await?, &by, order_id, &charge).await?;
        Ok(PaymentCompleted { order_id, payment_id, amount_cents }.into())
    }

    async fn refund<Db: Ledger>(
        &self,
        command: RefundPayment,
        cx: &mut Context<'_, Db>,
    ) -> Result<RefundOutcome, HandlerError> {
        let RefundPayment { order_id, payment_id, amount_cents } = command;
        let by = cx.message_id().to_owned();
        Db::refund(cx.tx().await?, &by, order_id, &Charge { payment_id, amount_cents }).await?;
        Ok(PaymentRefunded { order_id, payment_id }.into())
    }
}

struct Warehouse {
    world: World,
}

#[handlers]
impl Warehouse {
    async fn label<Db: Ledger>(
        &self,
        command: CreateShippingLabel,
        cx: &mut Context<'_, Db>,
    ) -> Result<ShippingOutcome, HandlerError> {
        let CreateShippingLabel { order_id, address } = command;
        if self.world.lacks_stock(order_id) {
            return Ok(ShipmentRejected { order_id, reason: "out of stock".into() }.into());
        }
        let by = cx.message_id().to_owned();
        let label_id = Db::label(cx.tx().await?, &by, order_id, Uuid::now_v7(), &address).await?;
        Ok(ShippingLabelCreated { order_id, label_id }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// The orders come from ordering's API, in a session.
    #[tokio::test]
    async fn everything_that_is_sent_is_taken_and_the_other_way_round() {
        let store = Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let (bus, world) = (InProcess::new(), World { decline: 0, no_stock: 0, silent: 0 });
        let ordering = ordering(bus.clone(), store.clone(), None).wiring().sends::<OrderPlaced>();
        let payment = payment(bus.clone(), store.clone(), world, Duration::ZERO).wiring();
        let warehouse = warehouse(bus, store, world).wiring();
        assert_eq!(Wiring::verify([&ordering, &payment, &warehouse]), [] as [String; 0]);
    }

    #[test]
    fn amounts_that_are_none_are_declined_with_the_reason() {
        for amount in [i64::MIN, -5, 0, CENTS_MAX + 1] {
            assert!(cannot_be_paid(amount).is_some_and(|reason| reason.contains(&amount.to_string())), "{amount}");
        }
        assert_eq!([1, CENTS_MAX].map(cannot_be_paid), [None, None]);
    }

    #[test]
    fn shares_are_as_ordered_and_each_mishap_has_its_own_die() {
        let world = World { decline: 10, no_stock: 10, silent: 100 };
        let ids: Vec<Uuid> = (0..10_000).map(Uuid::from_u128).collect();
        let declined = ids.iter().filter(|id| world.declines(**id)).count();
        assert!((800..1200).contains(&declined), "about 1000 were expected, {declined} found");
        let both = ids.iter().filter(|id| world.declines(**id) && world.lacks_stock(**id)).count();
        assert!((50..150).contains(&both), "about 100 were expected, {both} found");
        assert!(ids.iter().all(|id| world.is_silent(*id)));
        let never = World { silent: 0, ..world };
        assert!(!ids.iter().any(|id| never.is_silent(*id)));
    }
}
