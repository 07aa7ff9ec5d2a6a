//! What the three services say to each other. Answers are replies: they go to the requester, and nobody else needs
//! them.

use sagabus::{Command, Event, Message, Outcome, Reply};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A client placed an order.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
#[event(from = "ordering")]
pub(crate) struct OrderPlaced {
    pub(crate) order_id: Uuid,
    pub(crate) customer: String,
    pub(crate) address: String,
    pub(crate) amount_cents: i64,
    /// How long the payment may take: a transition has no settings, so the order carries it.
    pub(crate) payment_timeout_ms: u64,
}

#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "payment", outcome = PaymentOutcome)]
pub(crate) struct MakePayment {
    pub(crate) order_id: Uuid,
    pub(crate) amount_cents: i64,
}

#[derive(Debug, Outcome)]
pub(crate) enum PaymentOutcome {
    Completed(PaymentCompleted),
    Declined(PaymentDeclined),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentCompleted {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
    pub(crate) amount_cents: i64,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentDeclined {
    pub(crate) order_id: Uuid,
    pub(crate) reason: String,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "payment", outcome = RefundOutcome)]
pub(crate) struct RefundPayment {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
    pub(crate) amount_cents: i64,
}

#[derive(Debug, Outcome)]
pub(crate) enum RefundOutcome {
    Refunded(PaymentRefunded),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentRefunded {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "warehouse", outcome = ShippingOutcome)]
pub(crate) struct CreateShippingLabel {
    pub(crate) order_id: Uuid,
    pub(crate) address: String,
}

#[derive(Debug, Outcome)]
pub(crate) enum ShippingOutcome {
    Created(ShippingLabelCreated),
    Rejected(ShipmentRejected),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "warehouse")]
pub(crate) struct ShippingLabelCreated {
    pub(crate) order_id: Uuid,
    pub(crate) label_id: Uuid,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "warehouse")]
pub(crate) struct ShipmentRejected {
    pub(crate) order_id: Uuid,
    pub(crate) reason: String,
}

/// The payment did not answer in time.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "ordering.PaymentOverdue")]
pub(crate) struct PaymentOverdue {}
