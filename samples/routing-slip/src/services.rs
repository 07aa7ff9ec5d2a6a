//! The agency, which makes the slips and hears how they end; hotel, cars and airline, simulated: what they do depends
//! on the trip's id, so that every run is alike. None of them knows which step comes before or after its own.

use crate::{
    messages::*,
    tables::{CAR, ROOM, TICKET, Tables},
};
use sagabus::{
    endpoint::EndpointBuilder,
    handler::{Slip, SlipEnd},
    port::Transport,
    prelude::*,
};
use std::time::Duration;
use uuid::Uuid;

/// A die for each trip and question, from 0 to 99.
fn die(trip_id: Uuid, question: u8) -> u8 {
    let sum = trip_id.as_bytes().iter().fold(u64::from(question), |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    (sum % 100) as u8
}

/// Every third trip does without a car.
pub(crate) fn wants_car(trip_id: Uuid) -> bool {
    die(trip_id, 0) >= 33
}

/// The whole process: made for each trip when it is wanted, and then on its own.
pub(crate) fn slip(trip_id: Uuid) -> Slip<ReserveRoom> {
    let mut slip = Slip::begin(ReserveRoom { trip_id });
    if wants_car(trip_id) {
        slip = slip.then(ReserveCar { trip_id });
    }
    let slip = slip.then(IssueTicket { trip_id });
    slip.completed(TripBooked { trip_id }).failed(TripCancelled { trip_id })
}

/// After a crash the next process goes on after five seconds.
fn endpoint<Db: Store>(name: &str, transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    Endpoint::builder(name, transport, store).settings(|settings| settings.lease = Duration::from_secs(5))
}

pub(crate) fn agency<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("agency", transport, store).handlers(Agency)
}

struct Agency;

#[handlers]
impl Agency {
    async fn booked<Db: Tables>(&self, it: TripBooked, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let end = SlipEnd::of(cx.envelope());
        let room = end.variables.get("room").and_then(|room| room.as_i64());
        let room = room.ok_or_else(|| HandlerError::permanent("the hotel has not said which room"))?;
        Ok(Db::booked(cx.tx().await?, it.trip_id, room).await?)
    }

    async fn cancelled<Db: Tables>(&self, it: TripCancelled, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let end = SlipEnd::of(cx.envelope());
        let failure = end.failure.ok_or_else(|| HandlerError::permanent("nobody has said why"))?;
        tracing::info!(trip_id = %it.trip_id, at = failure.at, reason = failure.reason, "not booked");
        Ok(Db::cancelled(cx.tx().await?, it.trip_id).await?)
    }
}

pub(crate) fn hotel<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("hotel", transport, store).activity::<ReserveRoom>(Hotel)
}

struct Hotel;

#[handlers]
impl Hotel {
    async fn reserve<Db: Tables>(
        &self,
        it: ReserveRoom,
        cx: &mut Context<'_, Db>,
    ) -> Result<RoomOutcome, HandlerError> {
        let trip_id = it.trip_id;
        if die(trip_id, 1) < 10 {
            return Ok(HotelFull {}.into());
        }
        Db::reserve(cx.tx().await?, trip_id, ROOM).await?;
        cx.variables().insert("room".into(), (100 + die(trip_id, 4)).into());
        Ok(RoomReserved { trip_id }.into())
    }

    async fn cancel<Db: Tables>(&self, it: CancelRoom, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        Ok(Db::give_back(cx.tx().await?, it.trip_id, ROOM).await?)
    }
}

pub(crate) fn cars<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("cars", transport, store).activity::<ReserveCar>(Cars)
}

struct Cars;

#[handlers]
impl Cars {
    async fn reserve<Db: Tables>(&self, it: ReserveCar, cx: &mut Context<'_, Db>) -> Result<CarOutcome, HandlerError> {
        let trip_id = it.trip_id;
        if die(trip_id, 2) < 15 {
            return Ok(NoCarLeft {}.into());
        }
        Db::reserve(cx.tx().await?, trip_id, CAR).await?;
        Ok(CarReserved { trip_id }.into())
    }

    async fn cancel<Db: Tables>(&self, it: CancelCar, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        Ok(Db::give_back(cx.tx().await?, it.trip_id, CAR).await?)
    }
}

pub(crate) fn airline<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("airline", transport, store).irreversible_activity::<IssueTicket>(Airline)
}

struct Airline;

#[handlers]
impl Airline {
    async fn issue<Db: Tables>(
        &self,
        it: IssueTicket,
        cx: &mut Context<'_, Db>,
    ) -> Result<TicketOutcome, HandlerError> {
        if die(it.trip_id, 3) < 20 {
            return Ok(SoldOut {}.into());
        }
        Db::reserve(cx.tx().await?, it.trip_id, TICKET).await?;
        Ok(TicketIssued {}.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// The agency makes the slips, in a session. Where a slip ends, its events are published: forward at the airline,
    /// backward at the hotel or where the first step failed.
    #[tokio::test]
    async fn everything_that_is_sent_is_taken_and_the_other_way_round() {
        let store = || Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let bus = InProcess::new;
        let agency = agency(bus(), store()).wiring().sends::<Slip<ReserveRoom>>();
        let hotel = hotel(bus(), store()).wiring().sends::<Slip<ReserveCar>>().sends::<TripCancelled>();
        let cars = cars(bus(), store()).wiring().sends::<Slip<IssueTicket>>();
        let airline = airline(bus(), store()).wiring().sends::<TripBooked>();
        assert_eq!(Wiring::verify([&agency, &hotel, &cars, &airline]), [] as [String; 0]);
    }
}
