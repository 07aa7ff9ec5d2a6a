//! The process of an order: payment, then shipping. The money goes back when shipping is not possible, or when the
//! payment is too late.

use crate::messages::*;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// What every state knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: Uuid,
    pub(crate) address: String,
    pub(crate) amount_cents: i64,
}

#[states(data = Order)]
pub(crate) enum OrderFulfilment {
    AwaitingPayment,
    #[waits] // the warehouse always answers
    AwaitingShipment {
        payment_id: Uuid,
    },
    #[waits]
    Refunding {
        reason: String,
    },
    #[done]
    Shipped {
        label_id: Uuid,
    },
    #[done]
    #[ignores(PaymentDeclined)] // after it took too long
    Cancelled {
        reason: String,
        /// The refunded payment: a second message about it must not refund it again.
        refunded: Option<Uuid>,
    },
}

#[saga(name = "order-fulfilment", id = order_id: Uuid)]
impl OrderFulfilment {
    fn placed(placed: OrderPlaced) -> (Order, AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>) {
        let OrderPlaced { order_id, address, amount_cents, payment_timeout_ms, .. } = placed;
        (
            Order { order_id, address, amount_cents },
            AwaitingPayment,
            send(MakePayment { order_id, amount_cents }),
            after(Duration::from_millis(payment_timeout_ms), PaymentOverdue {}),
        )
    }

    fn paid(
        _: AwaitingPayment,
        paid: PaymentCompleted,
        order: &Order,
    ) -> (AwaitingShipment, Sends<CreateShippingLabel>) {
        let (order_id, address) = (order.order_id, order.address.clone());
        (AwaitingShipment { payment_id: paid.payment_id }, send(CreateShippingLabel { order_id, address }))
    }

    fn declined(_: AwaitingPayment, declined: PaymentDeclined) -> Cancelled {
        Cancelled { reason: declined.reason, refunded: None }
    }

    fn overdue(_: AwaitingPayment, _: PaymentOverdue) -> Cancelled {
        Cancelled { reason: "the payment took too long".into(), refunded: None }
    }

    fn shipped(_: AwaitingShipment, label: ShippingLabelCreated) -> Shipped {
        Shipped { label_id: label.label_id }
    }

    fn not_shipped(
        awaiting: AwaitingShipment,
        rejected: ShipmentRejected,
        order: &Order,
    ) -> (Refunding, Sends<RefundPayment>) {
        refund(rejected.reason, awaiting.payment_id, order)
    }

    fn refunded(refunding: Refunding, refunded: PaymentRefunded) -> Cancelled {
        Cancelled { reason: refunding.reason, refunded: Some(refunded.payment_id) }
    }

    fn paid_too_late(
        cancelled: Cancelled,
        late: PaymentCompleted,
        order: &Order,
    ) -> Either<Cancelled, (Refunding, Sends<RefundPayment>)> {
        if cancelled.refunded == Some(late.payment_id) {
            return Either::A(cancelled);
        }
        Either::B(refund(cancelled.reason, late.payment_id, order))
    }
}

fn refund(reason: String, payment_id: Uuid, order: &Order) -> (Refunding, Sends<RefundPayment>) {
    let Order { order_id, amount_cents, .. } = *order;
    (Refunding { reason }, send(RefundPayment { order_id, payment_id, amount_cents }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::testing::Explore;

    fn order() -> Order {
        Order { order_id: Uuid::from_u128(7), address: "here".into(), amount_cents: 100 }
    }

    fn paid() -> PaymentCompleted {
        PaymentCompleted { order_id: Uuid::from_u128(7), payment_id: Uuid::from_u128(1), amount_cents: 100 }
    }

    #[test]
    fn a_payment_leads_to_a_label() {
        let label = send(CreateShippingLabel { order_id: Uuid::from_u128(7), address: "here".into() });
        let next = AwaitingShipment { payment_id: Uuid::from_u128(1) };
        assert_eq!(OrderFulfilment::paid(AwaitingPayment, paid(), &order()), (next, label));
    }

    #[test]
    fn money_that_comes_after_the_cancellation_goes_back_once() {
        let cancelled = Cancelled { reason: "late".into(), refunded: None };
        let Either::B((refunding, _)) = OrderFulfilment::paid_too_late(cancelled, paid(), &order()) else {
            panic!("the charge was not sent back")
        };
        let refunded = PaymentRefunded { order_id: Uuid::from_u128(7), payment_id: Uuid::from_u128(1) };
        let cancelled = OrderFulfilment::refunded(refunding, refunded);
        let again = OrderFulfilment::paid_too_late(cancelled, paid(), &order());
        assert!(matches!(again, Either::A(_)), "the same charge was sent back twice");
    }

    /// Every order of answers and timers, each answer once or twice.
    #[test]
    fn money_is_kept_for_a_shipped_order_alone_in_any_story() {
        let placed = OrderPlaced {
            order_id: Uuid::from_u128(7),
            customer: "Ann".into(),
            address: "here".into(),
            amount_cents: 100,
            payment_timeout_ms: 1000,
        };
        let explored = Explore::<OrderFulfilment>::from(placed)
            .answers(|pay: MakePayment| {
                let MakePayment { order_id, amount_cents } = pay;
                let paid = PaymentCompleted { order_id, payment_id: Uuid::from_u128(1), amount_cents };
                vec![paid.into(), PaymentDeclined { order_id, reason: "no money".into() }.into()]
            })
            .answers(|label: CreateShippingLabel| {
                let order_id = label.order_id;
                let created = ShippingLabelCreated { order_id, label_id: Uuid::from_u128(2) };
                vec![created.into(), ShipmentRejected { order_id, reason: "out of stock".into() }.into()]
            })
            .answers(|refund: RefundPayment| {
                let RefundPayment { order_id, payment_id, .. } = refund;
                vec![PaymentRefunded { order_id, payment_id }.into()]
            })
            .at_most_once::<RefundPayment>()
            .at_most_once::<CreateShippingLabel>()
            .in_the_end("money is kept for a shipped order alone", |end| {
                end.came::<PaymentCompleted>() == end.sent::<RefundPayment>() + usize::from(end.state == "Shipped")
            })
            .duplicates()
            .run();
        explored.expect_no_breach();
        assert_eq!(
            explored.states_reached(),
            ["AwaitingPayment", "AwaitingShipment", "Cancelled", "Refunding", "Shipped"]
        );
    }

    /// The files are for readers, and show in the diff of a change what it means.
    #[test]
    fn s_077_the_chart_is_as_agreed_in_every_form() {
        let chart = OrderFulfilment::chart();
        assert_eq!(chart.verify(), [] as [String; 0]);
        for extension in ["json", "mmd", "dot", "svg"] {
            sagabus::testing::snapshot(&chart, format!("order-fulfilment.{extension}"));
        }
    }
}
