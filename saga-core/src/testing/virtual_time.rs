//! Whole services in one thread and in virtual time.

use crate::ambient::scripted::Laid;
use std::future::Future;

/// Runs a test of whole services: endpoints, with their sagas and handlers, in a runtime of one thread whose clock
/// stands still while there is something to do, and jumps to the next timer when there is not. Hours pass at once.
///
/// Give the endpoints [`InProcess`](https://docs.rs/sagabus/latest/sagabus/struct.InProcess.html) and a
/// [`MemoryStore`](super::MemoryStore). Every run is the same run: what an endpoint leaves to chance elsewhere (ids,
/// the pauses between tries, which of two tasks goes first) is fixed. What your own code takes from the real world
/// stays real: give handlers their clock, ids and dice. There is no network here, on purpose.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use sagabus::{InProcess, prelude::*, testing::{MemoryStore, in_virtual_time}};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct OrderPlaced { order_id: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "payment", outcome = PaymentOutcome)]
/// # struct MakePayment { order_id: u64 }
/// # #[derive(Outcome)]
/// # enum PaymentOutcome { Completed(PaymentCompleted) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct PaymentCompleted { order_id: u64 }
/// # #[derive(Message, Serialize, Deserialize)]
/// # struct PaymentOverdue {}
/// # #[states]
/// # enum OrderFulfilment { AwaitingPayment, #[done] Paid, #[done] Cancelled }
/// # #[saga(name = "order", id = order_id: u64)]
/// # impl OrderFulfilment {
/// #     fn placed(placed: OrderPlaced) -> (AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>) {
/// #         let pay = send(MakePayment { order_id: placed.order_id });
/// #         (AwaitingPayment, pay, after(hours(2), PaymentOverdue {}))
/// #     }
/// #     fn paid(_: AwaitingPayment, _: PaymentCompleted) -> Paid { Paid }
/// #     fn overdue(_: AwaitingPayment, _: PaymentOverdue) -> Cancelled { Cancelled }
/// # }
/// # struct Payments;
/// # #[handlers]
/// # impl Payments {
/// #     async fn pay<Db: sagabus::port::Store>(
/// #         &self,
/// #         command: MakePayment,
/// #         cx: &mut Context<'_, Db>,
/// #     ) -> Result<PaymentOutcome, HandlerError> {
/// #         if cx.runs_before() == 0 {
/// #             return Err(HandlerError::retry_after("the bank is closed", hours(1)));
/// #         }
/// #         Ok(PaymentCompleted { order_id: command.order_id }.into())
/// #     }
/// # }
/// # fn main() {
/// in_virtual_time(async {
///     let (bus, orders, payments) = (InProcess::new(), MemoryStore::new(), MemoryStore::new());
///     let payment = Endpoint::builder("payment", bus.clone(), payments.clone()).handlers(Payments);
///     let _payment = payment.start().await.unwrap();
///     let ordering = Endpoint::builder("ordering", bus, orders.clone()).saga::<OrderFulfilment>();
///     let ordering = ordering.start().await.unwrap();
///
///     let mut session = ordering.session().await.unwrap();
///     session.publish(OrderPlaced { order_id: 7 });
///     session.commit().await.unwrap();
///
///     tokio::time::sleep(minutes(59)).await;
///     assert_eq!(orders.instances()[0].row.state, "AwaitingPayment"); // the bank is closed for an hour
///     tokio::time::sleep(minutes(2)).await;
///     assert_eq!(orders.instances()[0].row.state, "Paid");
/// });
/// # }
/// ```
///
/// # Panics
/// When the test does, or when it runs inside another runtime.
pub fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    seeded(0, test)
}

/// The same, with everything that is left to chance decided by a seed.
pub(super) fn seeded<T>(seed: u64, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of one thread without I/O needs nothing of the machine");
    let laid = {
        let _inside = runtime.enter(); // the script reads this runtime's clock
        Laid::down(seed)
    };
    let result = runtime.block_on(test);
    drop(runtime); // its tasks end while the script is there
    drop(laid);
    result
}
