//! What is said.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "{{project-name}}")]
pub struct OrderPlaced {
    pub order_id: Uuid,
    pub cents: i64,
}

#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "{{project-name}}", outcome = PaymentOutcome)]
pub struct MakePayment {
    pub order_id: Uuid,
    pub cents: i64,
}

/// What can come back: the saga must take each of them.
#[derive(Debug, Outcome)]
pub enum PaymentOutcome {
    Made(PaymentMade),
    Declined(PaymentDeclined),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "{{project-name}}")]
pub struct PaymentMade {
    pub order_id: Uuid,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "{{project-name}}")]
pub struct PaymentDeclined {
    pub order_id: Uuid,
    pub reason: String,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "{{project-name}}")]
pub struct OrderEnded {
    pub order_id: Uuid,
    pub how: String,
}

/// The payment takes too long.
#[derive(Debug, Message, Serialize, Deserialize)]
#[message(name = "{{project-name}}.PaymentOverdue")]
pub struct PaymentOverdue {}
