//! What the services say to each other, and which step is undone by what.

use sagabus::{
    Command, Event, Outcome, Reply,
    handler::{Activity, Irreversible, Stamp},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Command, Serialize, Deserialize)]
#[command(to = "hotel", outcome = RoomOutcome)]
pub(crate) struct ReserveRoom {
    pub(crate) trip_id: Uuid,
}

#[derive(Outcome)]
pub(crate) enum RoomOutcome {
    Reserved(RoomReserved),
    Full(HotelFull),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "hotel")]
pub(crate) struct RoomReserved {
    pub(crate) trip_id: Uuid,
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "hotel")]
pub(crate) struct HotelFull {}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "hotel")]
pub(crate) struct CancelRoom {
    pub(crate) trip_id: Uuid,
}

impl Activity for ReserveRoom {
    type Undo = CancelRoom;
    fn stamp(outcome: &RoomOutcome) -> Stamp<CancelRoom> {
        match outcome {
            RoomOutcome::Reserved(room) => Stamp::Done(CancelRoom { trip_id: room.trip_id }),
            RoomOutcome::Full(_) => Stamp::Failed("the hotel is full".into()),
        }
    }
    fn undone(_: &()) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "cars", outcome = CarOutcome)]
pub(crate) struct ReserveCar {
    pub(crate) trip_id: Uuid,
}

#[derive(Outcome)]
pub(crate) enum CarOutcome {
    Reserved(CarReserved),
    NoneLeft(NoCarLeft),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "cars")]
pub(crate) struct CarReserved {
    pub(crate) trip_id: Uuid,
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "cars")]
pub(crate) struct NoCarLeft {}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "cars")]
pub(crate) struct CancelCar {
    pub(crate) trip_id: Uuid,
}

impl Activity for ReserveCar {
    type Undo = CancelCar;
    fn stamp(outcome: &CarOutcome) -> Stamp<CancelCar> {
        match outcome {
            CarOutcome::Reserved(car) => Stamp::Done(CancelCar { trip_id: car.trip_id }),
            CarOutcome::NoneLeft(_) => Stamp::Failed("no car is left".into()),
        }
    }
    fn undone(_: &()) -> Result<(), String> {
        Ok(())
    }
}

/// A ticket is final.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "airline", outcome = TicketOutcome)]
pub(crate) struct IssueTicket {
    pub(crate) trip_id: Uuid,
}

#[derive(Outcome)]
pub(crate) enum TicketOutcome {
    Issued(TicketIssued),
    SoldOut(SoldOut),
}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "airline")]
pub(crate) struct TicketIssued {}

#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "airline")]
pub(crate) struct SoldOut {}

impl Activity for IssueTicket {
    type Undo = Irreversible;
    fn stamp(outcome: &TicketOutcome) -> Stamp<Irreversible> {
        match outcome {
            TicketOutcome::Issued(_) => Stamp::Final,
            TicketOutcome::SoldOut(_) => Stamp::Failed("the flight is sold out".into()),
        }
    }
    fn undone(_: &()) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "agency")]
pub(crate) struct TripBooked {
    pub(crate) trip_id: Uuid,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "agency")]
pub(crate) struct TripCancelled {
    pub(crate) trip_id: Uuid,
}
