//! The airline's seats and its barcode service, simulated. What happens to a booking depends on its number, so that
//! every run is alike.

use crate::{books::Books, messages::*, saga::CheckingIn};
use sagabus::{endpoint::EndpointBuilder, port::Transport, prelude::*};
use std::time::Duration;

/// All endpoints.
pub(crate) const ALL: [&str; 4] = ["web", "check-in", "airline", "barcodes"];

/// How often the barcode service is asked again before the barcode is given up.
const TRIES: usize = 24;

fn endpoint<Db: Books>(name: &str, transport: &(impl Transport + Clone), store: &Db) -> EndpointBuilder<Db> {
    let endpoint = Endpoint::builder(name, transport.clone(), store.clone());
    // how long messages of a process that was killed wait for the next one
    endpoint.settings(|settings| settings.lease = Duration::from_secs(3))
}

/// Where requests come from: it handles nothing.
pub(crate) fn web<Db: Books>(transport: &(impl Transport + Clone), store: &Db) -> EndpointBuilder<Db> {
    endpoint("web", transport, store)
}

/// The process and those who work for it. The barcode service is asked again every `pause`: a message that waits for
/// its retry is a row, and survives a restart.
pub(crate) fn others<Db: Books>(
    transport: &(impl Transport + Clone),
    store: &Db,
    pause: Duration,
) -> [EndpointBuilder<Db>; 3] {
    let retries = Retries::none().delayed([pause; TRIES]);
    [
        endpoint("check-in", transport, store).saga::<CheckingIn>(),
        endpoint("airline", transport, store).handlers(Airline),
        endpoint("barcodes", transport, store).handlers(Barcodes).retries(retries),
    ]
}

struct Airline;

#[handlers]
impl Airline {
    async fn reserve<Db: Books>(&self, it: ReserveSeat, cx: &mut Context<'_, Db>) -> Result<SeatOutcome, HandlerError> {
        let booking = it.booking;
        let n = booking.as_u128();
        if n % 11 == 10 {
            return Ok(FlightFull { booking }.into());
        }
        let seat = format!("{}{}", n / 6 + 1, ['A', 'B', 'C', 'D', 'E', 'F'][(n % 6) as usize]);
        let keep = "INSERT INTO seat (booking, seat, kept) VALUES ($1, $2, 'yes')";
        Db::run(cx.tx().await?, keep, &[&booking.to_string(), &seat]).await?;
        Ok(SeatReserved { booking, seat }.into())
    }

    async fn release<Db: Books>(&self, it: ReleaseSeat, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let release = "UPDATE seat SET kept = 'no' WHERE booking = $1";
        Db::run(cx.tx().await?, release, &[&it.booking.to_string()]).await?;
        Ok(())
    }
}

struct Barcodes;

#[handlers]
impl Barcodes {
    async fn make<Db: Books>(&self, it: MakeBarcode, cx: &mut Context<'_, Db>) -> Result<BarcodeOutcome, HandlerError> {
        let MakeBarcode { booking, seat } = it;
        match booking.as_u128() % 8 {
            3 | 7 if cx.runs_before() < 3 => return Err(HandlerError::transient("the barcode service is down")),
            5 => return Err(HandlerError::permanent("the barcode service does not know this airline")),
            _ => {}
        }
        let barcode = format!("M1{}{seat}", booking.simple());
        let made = "INSERT INTO barcode (booking, barcode) VALUES ($1, $2)";
        Db::run(cx.tx().await?, made, &[&booking.to_string(), &barcode]).await?;
        Ok(BarcodeMade { booking, barcode }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// The web server asks for check-ins.
    #[tokio::test]
    async fn everything_that_is_sent_is_taken_and_the_other_way_round() {
        let store = Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let bus = InProcess::new();
        let web = web(&bus, &store).wiring().sends::<CheckIn>();
        let [check_in, airline, barcodes] = others(&bus, &store, Duration::ZERO).map(|endpoint| endpoint.wiring());
        assert_eq!(Wiring::verify([&web, &check_in, &airline, &barcodes]), [] as [String; 0]);
    }
}
