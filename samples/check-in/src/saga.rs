//! The process of a check-in: a seat, then a barcode, however long that takes. Who began it gets the answer.

use crate::messages::*;
use sagabus::prelude::*;
use uuid::Uuid;

/// Every state knows what was asked. Whoever calls says a name or a seat: operators find the check-in by these.
#[rustfmt::skip] // a state a line
#[states(data = CheckIn, fields(passenger))]
pub(crate) enum CheckingIn {
    #[waits] ReservingSeat,
    MakingBarcode { #[field] seat: String },
    #[done] CheckedIn { #[field] seat: String, barcode: String },
    #[done] #[ignores(BarcodeMade, BarcodeFailed)] ToTheCounter { reason: String },
}

type MakesBarcode = (MakingBarcode, Sends<MakeBarcode>, After<CounterOpens>);
type Refuses = (ToTheCounter, Replies<CheckInRefused>);
type GivesBack = (ToTheCounter, Replies<CheckInRefused>, Sends<ReleaseSeat>);
type TakesBack = (ToTheCounter, Replies<CheckInRefused>, Sends<ReleaseSeat>, Cancels<MakeBarcode>);

#[saga(name = "check-in", id = booking: Uuid)]
impl CheckingIn {
    #[starts(return)] // who asks again is told again
    fn begins(it: CheckIn) -> (CheckIn, ReservingSeat, Sends<ReserveSeat>) {
        let booking = it.booking;
        (it, ReservingSeat, send(ReserveSeat { booking }))
    }
    fn full(_: ReservingSeat, it: FlightFull) -> Refuses {
        to_the_counter(it.booking, "the flight is overbooked")
    }
    fn seated(_: ReservingSeat, it: SeatReserved, asked: &CheckIn) -> MakesBarcode {
        let SeatReserved { booking, seat } = it;
        let make = send(MakeBarcode { booking, seat: seat.clone() });
        (MakingBarcode { seat }, make, after(asked.patience, CounterOpens {}))
    }

    fn made(making: MakingBarcode, it: BarcodeMade) -> (CheckedIn, Replies<BoardingPass>) {
        let (seat, BarcodeMade { booking, barcode }) = (making.seat, it);
        let pass = BoardingPass { booking, seat: seat.clone(), barcode: barcode.clone() };
        (CheckedIn { seat, barcode }, reply(pass))
    }
    fn failed(_: MakingBarcode, it: BarcodeFailed) -> GivesBack {
        give_back(it.booking, &it.why)
    }
    fn too_late(_: MakingBarcode, _: CounterOpens, asked: &CheckIn) -> TakesBack {
        let (counter, refused, release) = give_back(asked.booking, "there is no barcode, and the counter has opened");
        (counter, refused, release, cancel()) // nobody needs it any more
    }
}

fn give_back(booking: Uuid, reason: &str) -> GivesBack {
    let (counter, refused) = to_the_counter(booking, reason);
    (counter, refused, send(ReleaseSeat { booking }))
}
fn to_the_counter(booking: Uuid, reason: &str) -> Refuses {
    (ToTheCounter { reason: reason.into() }, reply(CheckInRefused { booking, reason: reason.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::testing::{Explore, Harness};

    const ID: Uuid = Uuid::from_u128(7);

    fn check_in() -> CheckIn {
        CheckIn { booking: ID, passenger: "Ann".into(), patience: hours(6) }
    }

    #[test]
    fn a_barcode_may_take_hours_and_not_for_ever() {
        let seated = Harness::<CheckingIn>::begin(check_in()).give(SeatReserved { booking: ID, seat: "12A".into() });
        let made = BarcodeMade { booking: ID, barcode: "|||".into() };
        seated.clone().advance(hours(5)).give(made).expect_state("CheckedIn").expect_timers(0);
        seated.advance(hours(6)).expect_state("ToTheCounter").expect_sent::<ReleaseSeat>(1);
    }

    #[test]
    fn a_seat_is_kept_for_a_pass_alone_in_any_story() {
        let explored = Explore::<CheckingIn>::from(check_in())
            .answers(|it: ReserveSeat| {
                let reserved = SeatReserved { booking: it.booking, seat: "12A".into() };
                vec![reserved.into(), FlightFull { booking: it.booking }.into()]
            })
            .answers(|it: MakeBarcode| vec![BarcodeMade { booking: it.booking, barcode: "|||".into() }.into()])
            .event(BarcodeFailed { booking: ID, why: "no ink".into() })
            .at_most_once::<ReleaseSeat>()
            .in_the_end("a seat is kept for a pass alone", |end| {
                end.came::<SeatReserved>() == end.sent::<BoardingPass>() + end.sent::<ReleaseSeat>()
            })
            .in_the_end("the passenger has one answer", |end| {
                end.sent::<BoardingPass>() + end.sent::<CheckInRefused>() == 1
            })
            .duplicates()
            .run();
        explored.expect_no_breach();
    }

    #[test]
    fn the_chart_is_as_agreed() {
        let chart = CheckingIn::chart();
        assert_eq!(chart.verify(), [] as [String; 0]);
        let shown = chart.to_mermaid();
        assert!(include_str!("../README.md").contains(&shown), "README.md is to show:\n{shown}");
    }
}
