//! The process of samples/ordering, its saga and messages as they are there, with payment and warehouse on tables of
//! the store in memory.

use crate::{messages::*, saga::OrderFulfilment};
use sagabus::{
    prelude::*,
    testing::{MemoryStore, Simulation, World},
};
use std::{cell::RefCell, collections::BTreeSet, time::Duration};
use uuid::Uuid;

const ORDERS: u64 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);

/// What an order meets: its amount and its address say it.
const DECLINED: i64 = 1;
const SILENT: i64 = 2;
const NO_STOCK: &str = "where nothing is in stock";

/// How payment is built.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Bank {
    /// Charges in its transaction.
    Sound,
    /// Planted: charges at a bank outside its transaction, without a key that makes a second charge none.
    Outside,
}

thread_local! {
    /// The bank outside: a run stays on its thread.
    static CHARGED: RefCell<Vec<Uuid>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy)]
struct Payments(Bank);

#[handlers]
impl Payments {
    async fn pay(
        &self,
        command: MakePayment,
        cx: &mut Context<'_, MemoryStore>,
    ) -> Result<PaymentOutcome, HandlerError> {
        let MakePayment { order_id, amount_cents } = command;
        if amount_cents == DECLINED {
            return Ok(PaymentDeclined { order_id, reason: "no money".into() }.into());
        }
        if amount_cents == SILENT && cx.runs_before() == 0 {
            return Err(HandlerError::retry_after("the bank does not answer", TIMEOUT * 3 / 2));
        }
        if self.0 == Bank::Outside {
            CHARGED.with_borrow_mut(|charged| charged.push(order_id));
        }
        cx.tx().await?.insert("charges", order_id)?;
        Ok(PaymentCompleted { order_id, payment_id: order_id, amount_cents }.into())
    }

    async fn refund(
        &self,
        command: RefundPayment,
        cx: &mut Context<'_, MemoryStore>,
    ) -> Result<RefundOutcome, HandlerError> {
        let RefundPayment { order_id, payment_id, .. } = command;
        cx.tx().await?.insert("refunds", order_id)?;
        Ok(PaymentRefunded { order_id, payment_id }.into())
    }
}

struct Warehouse;

#[handlers]
impl Warehouse {
    async fn label(
        &self,
        command: CreateShippingLabel,
        cx: &mut Context<'_, MemoryStore>,
    ) -> Result<ShippingOutcome, HandlerError> {
        let CreateShippingLabel { order_id, address } = command;
        if address == NO_STOCK {
            return Ok(ShipmentRejected { order_id, reason: "out of stock".into() }.into());
        }
        cx.tx().await?.insert("labels", order_id)?;
        Ok(ShippingLabelCreated { order_id, label_id: order_id }.into())
    }
}

async fn clients(world: World) {
    CHARGED.take();
    for n in 0..ORDERS {
        let amount_cents = [100, 100, 100, DECLINED, SILENT][world.random(5) as usize];
        let address = ["here", "here", "here", NO_STOCK][world.random(4) as usize];
        let placed = OrderPlaced {
            order_id: Uuid::from_u128(n.into()),
            customer: "Ann".into(),
            address: address.into(),
            amount_cents,
            payment_timeout_ms: TIMEOUT.as_millis() as u64,
        };
        world.publish(placed).await;
        tokio::time::sleep(Duration::from_millis(world.random(300))).await;
    }
}

/// The books of payment and warehouse: the orders in a table, which must be there once each.
fn once(world: &World, endpoint: &str, table: &str) -> Option<BTreeSet<Uuid>> {
    let rows = world.rows::<Uuid>(endpoint, table);
    let number = rows.len();
    Some(BTreeSet::from_iter(rows)).filter(|different| different.len() == number)
}

fn in_state(world: &World, state: &str) -> usize {
    world.instances("order-fulfilment").iter().filter(|order| order.row.state == state).count()
}

/// Orders, payments and parcels, while everything goes wrong.
pub(crate) fn simulation(bank: Bank) -> Simulation {
    Simulation::of("ordering", |it| it.saga::<OrderFulfilment>())
        .and("payment", move |it| it.handlers(Payments(bank)))
        .and("warehouse", |it| it.handlers(Warehouse))
        .story(clients)
        .in_the_end("no order is lost: each is shipped or cancelled", |world| {
            in_state(world, "Shipped") + in_state(world, "Cancelled") == ORDERS as usize
        })
        .in_the_end("nothing is done twice", |world| {
            let tables = [("payment", "charges"), ("payment", "refunds"), ("warehouse", "labels")];
            tables.iter().all(|(endpoint, table)| once(world, endpoint, table).is_some())
        })
        .in_the_end("money is kept for shipped orders alone", |world| {
            let [charges, refunds] = ["charges", "refunds"].map(|table| world.rows::<Uuid>("payment", table).len());
            let labels = world.rows::<Uuid>("warehouse", "labels").len();
            charges == refunds + labels && labels == in_state(world, "Shipped")
        })
        .in_the_end("the bank outside charges nobody twice", |_| {
            CHARGED.with_borrow(|charged| BTreeSet::from_iter(charged).len() == charged.len())
        })
}
