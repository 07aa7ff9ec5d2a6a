//! What the services say to each other.

use sagabus::{Command, GiveUp, Message, Outcome, Reply};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// A passenger checks in. The answer may take hours.
#[derive(Debug, Clone, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "check-in", outcome = CheckInOutcome)]
pub(crate) struct CheckIn {
    pub(crate) booking: Uuid,
    pub(crate) passenger: String,
    /// How long the barcode may take: until the counter opens. A transition has no settings, so the command carries it.
    pub(crate) patience: Duration,
}

#[derive(Debug, Outcome)]
pub(crate) enum CheckInOutcome {
    Pass(BoardingPass),
    Refused(CheckInRefused),
}

#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
#[reply(from = "check-in")]
pub(crate) struct BoardingPass {
    pub(crate) booking: Uuid,
    pub(crate) seat: String,
    pub(crate) barcode: String,
}

#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
#[reply(from = "check-in")]
pub(crate) struct CheckInRefused {
    pub(crate) booking: Uuid,
    pub(crate) reason: String,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "airline", outcome = SeatOutcome)]
pub(crate) struct ReserveSeat {
    pub(crate) booking: Uuid,
}

#[derive(Debug, Outcome)]
pub(crate) enum SeatOutcome {
    Reserved(SeatReserved),
    Full(FlightFull),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "airline")]
pub(crate) struct SeatReserved {
    pub(crate) booking: Uuid,
    pub(crate) seat: String,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "airline")]
pub(crate) struct FlightFull {
    pub(crate) booking: Uuid,
}

#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "airline")]
pub(crate) struct ReleaseSeat {
    pub(crate) booking: Uuid,
}

/// Asks the airline's barcode service, which is down now and then, for hours; in the end it is given up.
#[derive(Debug, PartialEq, Command, Serialize, Deserialize)]
#[command(to = "barcodes", outcome = BarcodeOutcome, gives_up = BarcodeFailed)]
pub(crate) struct MakeBarcode {
    pub(crate) booking: Uuid,
    pub(crate) seat: String,
}

#[derive(Debug, Outcome)]
pub(crate) enum BarcodeOutcome {
    Made(BarcodeMade),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "barcodes")]
pub(crate) struct BarcodeMade {
    pub(crate) booking: Uuid,
    pub(crate) barcode: String,
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "barcodes")]
pub(crate) struct BarcodeFailed {
    pub(crate) booking: Uuid,
    pub(crate) why: String,
}

impl GiveUp<MakeBarcode> for BarcodeFailed {
    fn give_up(command: MakeBarcode, failure: &str) -> Self {
        Self { booking: command.booking, why: failure.into() }
    }
}

/// The counter opens.
#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(name = "check-in.CounterOpens")]
pub(crate) struct CounterOpens {}
