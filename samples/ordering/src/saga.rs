//! The process of an order: payment, then shipping. The money goes back when shipping is not possible, or when the
//! payment is too late.

use crate::messages::*;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

#[derive(Saga)]
#[saga(name = "order-fulfilment", id = order_id: Uuid)]
#[starts(OrderPlaced)]
pub(crate) enum OrderFulfilment {
    #[on(PaymentCompleted, PaymentDeclined)]
    #[timer(PaymentOverdue)]
    AwaitingPayment(AwaitingPayment),
    #[on(ShippingLabelCreated, ShipmentRejected)]
    AwaitingShipment(AwaitingShipment),
    #[on(PaymentRefunded)]
    Refunding(Refunding),
    #[done]
    Shipped(Shipped),
    #[done]
    #[on(PaymentCompleted)] // late money goes back
    Cancelled(Cancelled),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AwaitingPayment {
    pub(crate) order_id: Uuid,
    pub(crate) address: String,
    pub(crate) amount_cents: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AwaitingShipment {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
    pub(crate) amount_cents: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refunding {
    pub(crate) reason: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shipped {
    pub(crate) label_id: Uuid,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cancelled {
    pub(crate) reason: String,
    /// The refunded payment: a second message about it must not refund it again.
    pub(crate) refunded: Option<Uuid>,
}

impl Starts<OrderPlaced> for OrderFulfilment {
    type Then = (AwaitingPayment, Sends<MakePayment>, After<PaymentOverdue>);

    fn start(order: OrderPlaced, _: &Moment) -> Self::Then {
        let OrderPlaced { order_id, address, amount_cents, payment_timeout_ms, .. } = order;
        (
            AwaitingPayment { order_id, address, amount_cents },
            send(MakePayment { order_id, amount_cents }),
            after(Duration::from_millis(payment_timeout_ms), PaymentOverdue {}),
        )
    }
}

impl On<PaymentCompleted> for AwaitingPayment {
    type Then = (AwaitingShipment, Sends<CreateShippingLabel>);

    fn on(self, paid: PaymentCompleted, _: &Moment) -> Self::Then {
        let Self { order_id, address, amount_cents } = self;
        (
            AwaitingShipment { order_id, payment_id: paid.payment_id, amount_cents },
            send(CreateShippingLabel { order_id, address }),
        )
    }
}

impl On<PaymentDeclined> for AwaitingPayment {
    type Then = Cancelled;

    fn on(self, declined: PaymentDeclined, _: &Moment) -> Cancelled {
        Cancelled { reason: declined.reason, refunded: None }
    }
}

impl On<PaymentOverdue> for AwaitingPayment {
    type Then = Cancelled;

    fn on(self, _: PaymentOverdue, _: &Moment) -> Cancelled {
        Cancelled { reason: "the payment took too long".into(), refunded: None }
    }
}

impl On<ShippingLabelCreated> for AwaitingShipment {
    type Then = Shipped;

    fn on(self, label: ShippingLabelCreated, _: &Moment) -> Shipped {
        Shipped { label_id: label.label_id }
    }
}

impl On<ShipmentRejected> for AwaitingShipment {
    type Then = (Refunding, Sends<RefundPayment>);

    fn on(self, rejected: ShipmentRejected, _: &Moment) -> Self::Then {
        let Self { order_id, payment_id, amount_cents } = self;
        (Refunding { reason: rejected.reason }, send(RefundPayment { order_id, payment_id, amount_cents }))
    }
}

impl On<PaymentRefunded> for Refunding {
    type Then = Cancelled;

    fn on(self, refunded: PaymentRefunded, _: &Moment) -> Cancelled {
        Cancelled { reason: self.reason, refunded: Some(refunded.payment_id) }
    }
}

impl On<PaymentCompleted> for Cancelled {
    type Then = Either<Cancelled, (Refunding, Sends<RefundPayment>)>;

    fn on(self, late: PaymentCompleted, _: &Moment) -> Self::Then {
        if self.refunded == Some(late.payment_id) {
            return Either::A(self);
        }
        let PaymentCompleted { order_id, payment_id, amount_cents } = late;
        Either::B((Refunding { reason: self.reason }, send(RefundPayment { order_id, payment_id, amount_cents })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn now() -> Moment {
        Moment::at(SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_payment_leads_to_a_label() {
        let order_id = Uuid::from_u128(7);
        let waiting = AwaitingPayment { order_id, address: "here".into(), amount_cents: 100 };
        let (next, label) =
            waiting.on(PaymentCompleted { order_id, payment_id: Uuid::from_u128(1), amount_cents: 100 }, &now());
        assert_eq!(next, AwaitingShipment { order_id, payment_id: Uuid::from_u128(1), amount_cents: 100 });
        assert_eq!(label, send(CreateShippingLabel { order_id, address: "here".into() }));
    }

    #[test]
    fn money_that_comes_after_the_cancellation_goes_back_once() {
        let late =
            || PaymentCompleted { order_id: Uuid::from_u128(7), payment_id: Uuid::from_u128(1), amount_cents: 100 };
        let cancelled = Cancelled { reason: "late".into(), refunded: None };
        let Either::B((refunding, _)) = cancelled.on(late(), &now()) else { panic!("the charge was not sent back") };
        let refunded = PaymentRefunded { order_id: Uuid::from_u128(7), payment_id: Uuid::from_u128(1) };
        let cancelled = refunding.on(refunded, &now());
        assert!(matches!(cancelled.on(late(), &now()), Either::A(_)), "the same charge was sent back twice");
    }

    #[test]
    fn the_chart_is_as_agreed() {
        let chart = OrderFulfilment::chart();
        assert_eq!(chart.verify(), [] as [String; 0]);
        assert_eq!(chart.to_mermaid(), include_str!("../order-fulfilment.mmd"));
    }
}
