//! What the services say to each other.

use sagabus::{Command, Event, Message, Outcome, Reply};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long the process waits. A transition has no settings, so the booking carries them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patience {
    /// For the bank's answer to a charge.
    pub(crate) answer: Duration,
    /// Between two questions about a charge whose outcome is unknown.
    pub(crate) question: Duration,
    /// So often is the bank asked; then it is a person's turn.
    pub(crate) questions_max: u32,
    /// For a new card.
    pub(crate) card: Duration,
    /// So many cards are tried.
    pub(crate) cards_max: u32,
}

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(from = "bookings")]
pub(crate) struct StayBooked {
    pub(crate) booking_id: Uuid,
    pub(crate) cents: i64,
    pub(crate) patience: Patience,
}

/// Takes what the customer has, up to the price.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "credits", outcome = CreditsOutcome)]
pub(crate) struct TakeCredits {
    pub(crate) booking_id: Uuid,
    pub(crate) cents_max: i64,
}

#[derive(Debug, Outcome)]
pub(crate) enum CreditsOutcome {
    Taken(CreditsTaken),
    None(NoCredits),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "credits")]
pub(crate) struct CreditsTaken {
    pub(crate) booking_id: Uuid,
    pub(crate) cents: i64,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "credits")]
pub(crate) struct NoCredits {
    pub(crate) booking_id: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "credits", outcome = ReturnOutcome)]
pub(crate) struct ReturnCredits {
    pub(crate) booking_id: Uuid,
}

#[derive(Debug, Outcome)]
pub(crate) enum ReturnOutcome {
    Returned(CreditsReturned),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "credits")]
pub(crate) struct CreditsReturned {
    pub(crate) booking_id: Uuid,
}

/// Charges a card. `(booking_id, attempt)` is the charge's id: by it the bank can be asked what became of it.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = ChargeOutcome)]
pub(crate) struct ChargeCard {
    pub(crate) booking_id: Uuid,
    pub(crate) attempt: u32,
    pub(crate) cents: i64,
}

#[derive(Debug, Outcome)]
pub(crate) enum ChargeOutcome {
    Charged(CardCharged),
    Declined(CardDeclined),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(crate) struct CardCharged {
    pub(crate) booking_id: Uuid,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(crate) struct CardDeclined {
    pub(crate) booking_id: Uuid,
    pub(crate) attempt: u32,
}

/// What became of a charge? A charge that the bank knows nothing of by then is void: it will not be made any more.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = ChargeState)]
pub(crate) struct AskForCharge {
    pub(crate) booking_id: Uuid,
    pub(crate) attempt: u32,
}

#[derive(Debug, Outcome)]
pub(crate) enum ChargeState {
    Found(ChargeFound),
    Void(ChargeVoid),
    Pending(ChargePending),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(crate) struct ChargeFound {
    pub(crate) booking_id: Uuid,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(crate) struct ChargeVoid {
    pub(crate) booking_id: Uuid,
    pub(crate) attempt: u32,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
pub(crate) struct ChargePending {
    pub(crate) booking_id: Uuid,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "bookings")]
pub(crate) struct NewCardNeeded {
    pub(crate) booking_id: Uuid,
    pub(crate) attempt: u32,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "customers")]
pub(crate) struct CardUpdated {
    pub(crate) booking_id: Uuid,
    /// Of the card that it replaces, as in `NewCardNeeded`.
    pub(crate) attempt: u32,
}

/// What a person has found out about a charge.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "office")]
pub(crate) struct ChargeClarified {
    pub(crate) booking_id: Uuid,
    pub(crate) charged: bool,
}

/// The bank has not answered.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "bookings.NoAnswer")]
pub(crate) struct NoAnswer {}

/// It is time to ask once more.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "bookings.AskAgain")]
pub(crate) struct AskAgain {}

/// No new card has come.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "bookings.NoCard")]
pub(crate) struct NoCard {}
