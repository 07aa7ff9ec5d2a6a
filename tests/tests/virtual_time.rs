//! Whole services in virtual time: several endpoints, sagas and handlers, on the in-process transport.

use sagabus::{
    InProcess, endpoint::EndpointBuilder, handler::Retries, prelude::*, testing::MemoryStore, testing::in_virtual_time,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

#[derive(Event, Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "payment", outcome = PaymentOutcome)]
struct MakePayment {
    order_id: u64,
}

#[derive(Outcome)]
enum PaymentOutcome {
    Completed(PaymentCompleted),
}

#[derive(Reply, Serialize, Deserialize)]
struct PaymentCompleted {
    order_id: u64,
}

#[derive(Event, Serialize, Deserialize)]
struct OrderPaid {
    order_id: u64,
}

#[derive(Message, Serialize, Deserialize)]
struct PaymentOverdue {}

#[states]
enum Order {
    AwaitingPayment,
    #[done]
    Paid,
    #[done]
    Cancelled,
}

#[saga(name = "order", id = order_id: u64)]
impl Order {
    fn placed(placed: OrderPlaced) -> (AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>) {
        (AwaitingPayment, send(MakePayment { order_id: placed.order_id }), after(hours(48), PaymentOverdue {}))
    }
    fn paid(_: AwaitingPayment, paid: PaymentCompleted) -> (Paid, Publishes<OrderPaid>) {
        (Paid, publish(OrderPaid { order_id: paid.order_id }))
    }
    fn overdue(_: AwaitingPayment, _: PaymentOverdue) -> Cancelled {
        Cancelled
    }
}

/// Even orders are paid at once, odd ones after a day, every seventh never.
struct Payments;

#[handlers]
impl Payments {
    async fn pay(
        &self,
        command: MakePayment,
        cx: &mut Context<'_, MemoryStore>,
    ) -> Result<PaymentOutcome, HandlerError> {
        let order_id = command.order_id;
        if order_id.is_multiple_of(7) || (cx.runs_before() == 0 && order_id % 2 == 1) {
            return Err(HandlerError::retry_after("the bank is closed", hours(24)));
        }
        cx.tx().await?.insert("charges", order_id)?;
        Ok(PaymentCompleted { order_id }.into())
    }
}

struct Warehouse;

#[handlers]
impl Warehouse {
    async fn ship(&self, paid: OrderPaid, cx: &mut Context<'_, MemoryStore>) -> Result<(), HandlerError> {
        cx.tx().await?.insert("parcels", paid.order_id)?;
        Ok(())
    }
}

const ORDERS: u64 = 40;

/// Three services for four days. Everything that they stored, as text.
async fn four_days() -> String {
    let bus = InProcess::of(&["ordering", "payment", "warehouse"]);
    let stores = [(); 3].map(|()| MemoryStore::new());
    let [orders, payments, parcels] = &stores;
    let start = |name: &str, store: &MemoryStore, build: fn(Builder) -> Builder| {
        build(Endpoint::builder(name, bus.clone(), store.clone())).start()
    };
    type Builder = EndpointBuilder<MemoryStore>;
    let days = |builder: Builder| builder.retries(Retries::none().delayed([hours(24); 9]));
    let ordering = start("ordering", orders, |it| it.saga::<Order>()).await.expect("ordering starts");
    let bank = days(Endpoint::builder("payment", bus.clone(), payments.clone()).handlers(Payments));
    let bank = bank.start().await.expect("payment starts");
    let warehouse = start("warehouse", parcels, |it| it.handlers(Warehouse)).await.expect("warehouse starts");
    for order_id in 0..ORDERS {
        let mut session = ordering.session().await.expect("there is a store");
        session.publish(OrderPlaced { order_id });
        session.commit().await.expect("it commits");
    }
    tokio::time::sleep(hours(47)).await;
    assert_eq!(parcels.rows("parcels").len() as u64, ORDERS - ORDERS.div_ceil(7), "all but the sevenths are shipped");
    let in_state = |state: &str| orders.instances().iter().filter(|it| it.row.state == state).count() as u64;
    assert_eq!(in_state("AwaitingPayment"), ORDERS.div_ceil(7));
    tokio::time::sleep(hours(49)).await;
    assert_eq!((in_state("Cancelled"), in_state("Paid")), (ORDERS.div_ceil(7), ORDERS - ORDERS.div_ceil(7)));
    let all = stores.iter().map(|store| format!("{:#?}\n{:#?}\n", store.inbox(), store.outbox())).collect();
    for endpoint in [ordering, bank, warehouse] {
        endpoint.stop().await.expect("it stops in time");
    }
    all
}

#[test]
fn four_days_of_three_services_pass_in_seconds_and_every_run_is_the_same() {
    let began = Instant::now();
    let first = in_virtual_time(four_days());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "four days took {took:?}");
    assert!(first.contains("handled_by: \"warehouse-"), "the warehouse's inbox was expected in {first}");
    let second = in_virtual_time(four_days());
    let differs = first.lines().zip(second.lines()).find(|(one, other)| one != other);
    assert_eq!(differs, None);
    assert_eq!(first.len(), second.len());
}
