//! What the service of the rolling deployment and its test say to each other; the service is `src/bin/rolling.rs`.

use saga_core::{Command, Event, Outcome, Reply};
use serde::{Deserialize, Serialize};

/// Begins a ticket.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "desk")]
pub struct TicketOrdered {
    /// Which.
    pub ticket: u64,
    /// Its price.
    pub cents: i64,
}

/// Takes the money.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "till", outcome = ChargeOutcome)]
pub struct Charge {
    /// Which.
    pub ticket: u64,
    /// Its price.
    pub cents: i64,
}

/// What becomes of a [`Charge`].
#[derive(Outcome)]
pub enum ChargeOutcome {
    /// The only one.
    Charged(Charged),
}

/// The money was taken.
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "till")]
pub struct Charged {
    /// Which.
    pub ticket: u64,
}

/// A seat was chosen: version 2 alone knows that.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "desk")]
pub struct SeatChosen {
    /// Which.
    pub ticket: u64,
    /// The seat.
    pub seat: String,
}

/// Somebody takes the ticket away.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "desk")]
pub struct TicketCollected {
    /// Which.
    pub ticket: u64,
}

/// Enters it in the books.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "till")]
pub struct Deliver {
    /// Which.
    pub ticket: u64,
    /// What was paid.
    pub cents: i64,
}
