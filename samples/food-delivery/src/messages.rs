//! What the services say to each other.

use sagabus::{Command, Event, Message, Outcome, Reply};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long and how often the restaurant is asked. A transition has no settings, so the order carries them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patience {
    pub(crate) asks_max: u32,
    pub(crate) interval: Duration,
    pub(crate) in_all: Duration,
    /// How long the payment may take: a payment system that is down for two hours ends a pizza.
    pub(crate) payment: Duration,
}

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(from = "food")]
pub(crate) struct OrderPlaced {
    pub(crate) order_id: Uuid,
    pub(crate) dish: String,
    pub(crate) address: String,
    pub(crate) cents: i64,
    pub(crate) patience: Patience,
    /// The courier is to wait for the food, not the food for the courier. Version 1 does not know it.
    #[serde(default)]
    pub(crate) priority: bool,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "food")]
pub(crate) struct CancelRequested {
    pub(crate) order_id: Uuid,
}

/// Asked as often as the restaurant does not react; it answers with an event, when somebody there finds the time.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "restaurant")]
pub(crate) struct AskRestaurant {
    pub(crate) order_id: Uuid,
    pub(crate) dish: String,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "restaurant")]
pub(crate) struct RestaurantAgreed {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "restaurant")]
pub(crate) struct RestaurantDeclined {
    pub(crate) order_id: Uuid,
    pub(crate) reason: String,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "payment", outcome = PaymentOutcome)]
pub(crate) struct MakePayment {
    pub(crate) order_id: Uuid,
    pub(crate) cents: i64,
}

#[derive(Debug, Outcome)]
pub(crate) enum PaymentOutcome {
    Made(PaymentMade),
    Declined(PaymentDeclined),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentMade {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentDeclined {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "payment", outcome = RefundOutcome)]
pub(crate) struct RefundPayment {
    pub(crate) order_id: Uuid,
    pub(crate) payment_id: Uuid,
}

#[derive(Debug, Outcome)]
pub(crate) enum RefundOutcome {
    Refunded(PaymentRefunded),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "payment")]
pub(crate) struct PaymentRefunded {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "restaurant", outcome = PreparationOutcome)]
pub(crate) struct PrepareFood {
    pub(crate) order_id: Uuid,
    pub(crate) dish: String,
}

#[derive(Debug, Outcome)]
pub(crate) enum PreparationOutcome {
    Ready(FoodReady),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "restaurant")]
pub(crate) struct FoodReady {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "courier", outcome = CourierOutcome)]
pub(crate) struct FindCourier {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, Outcome)]
pub(crate) enum CourierOutcome {
    Assigned(CourierAssigned),
    NoneFree(NoCourierFree),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "courier")]
pub(crate) struct CourierAssigned {
    pub(crate) order_id: Uuid,
    pub(crate) courier: String,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "courier")]
pub(crate) struct NoCourierFree {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "courier")]
pub(crate) struct ReleaseCourier {
    pub(crate) order_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "courier", outcome = DeliveryOutcome)]
pub(crate) struct Deliver {
    pub(crate) order_id: Uuid,
    pub(crate) address: String,
}

#[derive(Debug, Outcome)]
pub(crate) enum DeliveryOutcome {
    Delivered(FoodDelivered),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "courier")]
pub(crate) struct FoodDelivered {
    pub(crate) order_id: Uuid,
}

/// It is time to ask the restaurant again.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "food.Again")]
pub(crate) struct Again {}

/// The restaurant was asked long enough.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "food.Silent")]
pub(crate) struct Silent {}

/// The payment takes too long.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "food.PaymentOverdue")]
pub(crate) struct PaymentOverdue {}
