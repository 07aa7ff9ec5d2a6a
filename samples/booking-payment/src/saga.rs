//! The payment of a booking: credits, then the card for the rest. A card that is declined may be replaced for some
//! time. A charge whose outcome is unknown is asked for, and nothing is undone before it is known.

use crate::messages::*;
use sagabus::{
    prelude::*,
    saga::{SendsAny, Undo},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What every state knows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Booking {
    pub(crate) stay: StayBooked,
    /// What the card is to pay.
    cents: i64,
    /// The number of the card that is tried.
    attempt: u32,
    undo: Undo<Undos>,
}

type Undos = (ReturnCredits,);

#[rustfmt::skip] // a state a line
#[states(data = Booking)]
pub(crate) enum Payment {
    #[waits] TakingCredits, // the credits always answer
    #[ignores(ChargeVoid, ChargePending)] Charging, // they are of an earlier card, here and in `AwaitingCard`
    Asking { questions: u32 },
    #[waits] #[ignores(CardDeclined, ChargeVoid, ChargePending)] Unclear, // a person finds out
    #[ignores(ChargeVoid, ChargePending)] AwaitingCard,
    // the bank has promised that a void charge is not made: if it is, a person sees it
    #[waits] #[rejects(CardCharged, ChargeFound)] #[ignores(CardDeclined, ChargeVoid, ChargePending)]
    Undoing { reason: String },
    #[done] #[ignores(CardCharged, CardDeclined, ChargeFound, ChargeVoid, ChargePending)] Paid,
    #[done] #[rejects(CardCharged, ChargeFound)] #[ignores(CardDeclined, ChargeVoid, ChargePending)]
    Cancelled { reason: String },
}

type Charges = (Charging, Sends<ChargeCard>, After<NoAnswer>);
type Asks = (Asking, Sends<AskForCharge>, After<AskAgain>);

#[derive(Then)]
pub(crate) enum GivesUp {
    ReturnsCredits((Undoing, SendsAny<Undos>)),
    NothingTaken(Cancelled),
}
#[derive(Then)]
pub(crate) enum Declined {
    OfAnEarlierCard(Stay<Payment>),
    MayTryAnother((AwaitingCard, Publishes<NewCardNeeded>, After<NoCard>)),
    WasTheLast(GivesUp),
}
#[derive(Then)]
pub(crate) enum Void {
    OfAnEarlierCard(Asking),
    OfThisCard(GivesUp),
}

#[saga(name = "booking-payment", id = booking_id: Uuid)]
impl Payment {
    fn booked(stay: StayBooked) -> (Booking, TakingCredits, Sends<TakeCredits>) {
        let take = send(TakeCredits { booking_id: stay.booking_id, cents_max: stay.cents });
        (Booking { cents: stay.cents, stay, attempt: 1, undo: Undo::new() }, TakingCredits, take)
    }
    fn credits_taken(_: TakingCredits, it: CreditsTaken, booking: &mut Booking) -> Charges {
        booking.undo.push(ReturnCredits { booking_id: it.booking_id });
        booking.cents -= it.cents;
        booking.charge()
    }
    fn no_credits(_: TakingCredits, _: NoCredits, booking: &mut Booking) -> Charges {
        booking.charge()
    }

    // late is not too late; and whichever card was charged, the money is there
    #[when(Charging, Asking, Unclear)]
    fn charged(self, _: CardCharged) -> Paid {
        Paid
    }
    #[when(Charging, Asking)]
    fn declined(self, declined: CardDeclined, booking: &mut Booking) -> Declined {
        let (booking_id, attempt, patience) = (booking.stay.booking_id, booking.attempt, booking.stay.patience);
        if declined.attempt != attempt {
            return Declined::OfAnEarlierCard(Stay(self)); // said again, it must not count against the next card
        }
        if attempt == patience.cards_max {
            return Declined::WasTheLast(booking.give_up("no card could be charged"));
        }
        let needed = publish(NewCardNeeded { booking_id, attempt });
        Declined::MayTryAnother((AwaitingCard, needed, after(patience.card, NoCard {})))
    }
    fn no_answer(_: Charging, _: NoAnswer, booking: &Booking) -> Asks {
        booking.ask(1)
    }

    fn ask_again(it: Asking, _: AskAgain, booking: &Booking) -> Either<Asks, Unclear> {
        match it.questions {
            asked if asked < booking.stay.patience.questions_max => Either::A(booking.ask(asked + 1)),
            _ => Either::B(Unclear),
        }
    }
    fn pending(it: Asking, _: ChargePending) -> Asking {
        it // until the timer asks again
    }
    #[when(Asking, Unclear)]
    fn found(self, _: ChargeFound) -> Paid {
        Paid
    }
    fn void(it: Asking, void: ChargeVoid, booking: &mut Booking) -> Void {
        if void.attempt != booking.attempt {
            return Void::OfAnEarlierCard(it); // its decline was faster than this answer
        }
        Void::OfThisCard(booking.give_up("the bank could not be reached"))
    }
    fn clarified(_: Unclear, it: ChargeClarified, booking: &mut Booking) -> Either<Paid, GivesUp> {
        match it.charged {
            true => Either::A(Paid),
            false => Either::B(booking.give_up("the bank could not be reached")),
        }
    }

    fn new_card(it: AwaitingCard, card: CardUpdated, booking: &mut Booking) -> Either<AwaitingCard, Charges> {
        if card.attempt != booking.attempt {
            return Either::A(it); // a click that comes late: the card that it entered was declined, too
        }
        booking.attempt += 1;
        Either::B(booking.charge())
    }
    fn no_card(_: AwaitingCard, _: NoCard, booking: &mut Booking) -> GivesUp {
        booking.give_up("no new card came in time")
    }

    fn undone(it: Undoing, _: CreditsReturned, booking: &mut Booking) -> Either<Undoing, Cancelled> {
        match booking.undo.confirmed::<ReturnCredits>() {
            true => Either::B(Cancelled { reason: it.reason }),
            false => Either::A(it),
        }
    }
}

impl Booking {
    fn charge(&self) -> Charges {
        let (booking_id, attempt, cents) = (self.stay.booking_id, self.attempt, self.cents);
        let charge = send(ChargeCard { booking_id, attempt, cents });
        (Charging, charge, after(self.stay.patience.answer, NoAnswer {}))
    }
    fn ask(&self, questions: u32) -> Asks {
        let ask = send(AskForCharge { booking_id: self.stay.booking_id, attempt: self.attempt });
        (Asking { questions }, ask, after(self.stay.patience.question, AskAgain {}))
    }
    fn give_up(&mut self, reason: &str) -> GivesUp {
        let reason = reason.to_owned();
        match self.undo.undo_all() {
            Either::A(undo) => GivesUp::ReturnsCredits((Undoing { reason }, undo)),
            Either::B(()) => GivesUp::NothingTaken(Cancelled { reason }),
        }
    }
}

#[cfg(test)]
mod tests;
