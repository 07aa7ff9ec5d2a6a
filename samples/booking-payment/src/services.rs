//! Credits, bank and customers, simulated: what they do depends on the booking's id, so that every run is alike.

use crate::{messages::*, saga::Payment, tables::Tables};
use sagabus::{endpoint::EndpointBuilder, port::Transport, prelude::*};
use std::time::Duration;
use uuid::Uuid;

/// A die for each booking and question, from 0 to 99.
fn die(booking_id: Uuid, question: u32) -> u8 {
    let bytes = booking_id.as_bytes().iter();
    let sum = bytes.fold(u64::from(question), |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    (sum % 100) as u8
}

/// After a crash the next process goes on after five seconds.
fn endpoint<Db: Store>(name: &str, transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    Endpoint::builder(name, transport, store).settings(|settings| settings.lease = Duration::from_secs(5))
}

/// Bookings: the saga, and the list of those that have ended.
pub(crate) fn bookings<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("bookings", transport, store).saga::<Payment>().project(Ended)
}

struct Ended;

#[async_trait]
impl<Db: Tables> Project<Payment, Db> for Ended {
    async fn project(&self, changes: &[Change<Payment>], tx: &mut Db::Tx) -> Result<(), HandlerError> {
        for change in changes {
            let id = change.data.stay.booking_id;
            match &change.after {
                Payment::Paid(_) => Db::ended(tx, id, 1).await?,
                Payment::Cancelled(_) => Db::ended(tx, id, 2).await?,
                _ => {}
            }
        }
        Ok(())
    }
}

pub(crate) fn credits<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("credits", transport, store).handlers(Credits)
}

struct Credits;

#[handlers]
impl Credits {
    /// Every third customer has none.
    async fn take<Db: Tables>(
        &self,
        take: TakeCredits,
        cx: &mut Context<'_, Db>,
    ) -> Result<CreditsOutcome, HandlerError> {
        let booking_id = take.booking_id;
        if die(booking_id, 1) < 33 {
            return Ok(NoCredits { booking_id }.into());
        }
        let cents = take.cents_max / 5;
        Db::take_credits(cx.tx().await?, booking_id, cents).await?;
        Ok(CreditsTaken { booking_id, cents }.into())
    }

    async fn give_back<Db: Tables>(
        &self,
        back: ReturnCredits,
        cx: &mut Context<'_, Db>,
    ) -> Result<ReturnOutcome, HandlerError> {
        Db::return_credits(cx.tx().await?, back.booking_id).await?;
        Ok(CreditsReturned { booking_id: back.booking_id }.into())
    }
}

pub(crate) fn bank<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("bank", transport, store).handlers(Bank)
}

struct Bank;

#[handlers]
impl Bank {
    /// Some cards are declined; some charges are made without a word; some get lost.
    async fn charge<Db: Tables>(
        &self,
        charge: ChargeCard,
        cx: &mut Context<'_, Db>,
    ) -> Result<Either<ChargeOutcome, Later>, HandlerError> {
        let ChargeCard { booking_id, attempt, cents } = charge;
        let silent = cx.later();
        match die(booking_id, 1 + attempt) {
            0..30 => return Ok(Either::A(CardDeclined { booking_id, attempt }.into())),
            30..40 => return Ok(Either::B(silent)),
            _ => {}
        }
        let tx = cx.tx().await?;
        Db::charge(tx, booking_id, attempt, cents).await?;
        if Db::charged(tx, booking_id, attempt).await? == 0 {
            return Ok(Either::A(CardDeclined { booking_id, attempt }.into())); // void: somebody has asked for it before
        }
        match die(booking_id, 1 + attempt) {
            40..50 => Ok(Either::B(silent)),
            _ => Ok(Either::A(CardCharged { booking_id }.into())),
        }
    }

    /// The first question may come before the bank knows. A charge that it does not know then is void.
    async fn ask<Db: Tables>(&self, ask: AskForCharge, cx: &mut Context<'_, Db>) -> Result<ChargeState, HandlerError> {
        let AskForCharge { booking_id, attempt } = ask;
        let tx = cx.tx().await?;
        if Db::asked(tx, booking_id).await? < 2 && die(booking_id, 9) < 50 {
            return Ok(ChargePending { booking_id }.into());
        }
        Db::charge(tx, booking_id, attempt, 0).await?;
        match Db::charged(tx, booking_id, attempt).await? {
            0 => Ok(ChargeVoid { booking_id, attempt }.into()),
            _ => Ok(ChargeFound { booking_id }.into()),
        }
    }
}

pub(crate) fn customers<Db: Tables>(transport: impl Transport, store: Db) -> EndpointBuilder<Db> {
    endpoint("customers", transport, store).handlers(Customers)
}

struct Customers;

#[handlers]
impl Customers {
    /// Some never enter another card; some click twice.
    async fn asked<Db: Tables>(&self, it: NewCardNeeded, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let NewCardNeeded { booking_id, attempt } = it;
        let clicks = match die(booking_id, 20 + attempt) {
            0..20 => 0,
            20..40 => 2,
            _ => 1,
        };
        for _ in 0..clicks {
            cx.publish(CardUpdated { booking_id, attempt });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// Stays are booked in a session; customers enter cards in a handler; people find out what became of a charge.
    #[tokio::test]
    async fn everything_that_is_sent_is_taken_and_the_other_way_round() {
        let store = || Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let bus = InProcess::new;
        let bookings = bookings(bus(), store()).wiring().sends::<StayBooked>();
        let (credits, bank) = (credits(bus(), store()).wiring(), bank(bus(), store()).wiring());
        let customers = customers(bus(), store()).wiring().sends::<CardUpdated>();
        let office = Wiring::stranger("office").sends::<ChargeClarified>();
        assert_eq!(Wiring::verify([&bookings, &credits, &bank, &customers, &office]), [] as [String; 0]);
    }
}
