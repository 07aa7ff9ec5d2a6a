//! What the stack does with its commands, and what it is stored as.

use super::*;
use crate::{
    Chart, Command, Either, Encoded, Event, Outcome, Reply, Saga, SendsAny, saga, send, states,
    testing::{Explore, Harness},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Wanted {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct TryAgain {
    id: u64,
}

macro_rules! step {
    ($to:literal, $go:ident $on:ident: $done:ident $failed:ident, $undo:ident $un:ident: $undone:ident $kept:ident) => {
        #[derive(Debug, Command, Serialize, Deserialize)]
        #[command(to = $to, outcome = $on)]
        struct $go {
            id: u64,
        }
        #[derive(Outcome)]
        enum $on {
            Done($done),
            Failed($failed),
        }
        #[derive(Reply, Serialize, Deserialize)]
        #[reply(from = $to)]
        struct $done {
            id: u64,
            place: u64,
        }
        #[derive(Reply, Serialize, Deserialize)]
        #[reply(from = $to)]
        struct $failed {
            id: u64,
        }
        #[derive(Debug, Command, Serialize, Deserialize)]
        #[command(to = $to, outcome = $un)]
        struct $undo {
            id: u64,
            place: u64,
        }
        #[derive(Outcome)]
        enum $un {
            Undone($undone),
            Kept($kept),
        }
        #[derive(Reply, Serialize, Deserialize)]
        #[reply(from = $to)]
        struct $undone {
            id: u64,
        }
        #[derive(Reply, Serialize, Deserialize)]
        #[reply(from = $to)]
        struct $kept {
            id: u64,
        }
    };
}
step!("hotel", ReserveRoom RoomOutcome: RoomReserved HotelFull, CancelRoom CancelRoomOutcome: RoomCancelled RoomKept);
step!("cars", ReserveCar CarOutcome: CarReserved NoCar, CancelCar CancelCarOutcome: CarCancelled CarKept);

type Undos = (CancelRoom, CancelCar);

#[derive(Serialize, Deserialize)]
struct Trip {
    undo: Undo<Undos>,
}

#[states(data = Trip)]
enum Booking {
    #[waits]
    Reserving { left: u32, failed: bool },
    #[waits]
    Undoing,
    #[waits]
    Stuck,
    #[done]
    Booked,
    #[done]
    NotBooked,
}

type Undoes = Either<(Undoing, SendsAny<Undos>), NotBooked>;
type Reserves = Either<Reserving, Either<Undoes, Booked>>;

#[saga(name = "booking", id = id: u64)]
impl Booking {
    /// Room and car side by side.
    fn wanted(it: Wanted) -> (Trip, Reserving, crate::Sends<ReserveRoom>, crate::Sends<ReserveCar>) {
        let (id, waiting) = (it.id, Reserving { left: 2, failed: false });
        (Trip { undo: Undo::new() }, waiting, send(ReserveRoom { id }), send(ReserveCar { id }))
    }
    fn room(it: Reserving, got: RoomReserved, trip: &mut Trip) -> Reserves {
        trip.undo.push(CancelRoom { id: got.id, place: got.place });
        trip.came(Reserving { left: it.left - 1, ..it })
    }
    fn full(it: Reserving, _: HotelFull, trip: &mut Trip) -> Reserves {
        trip.came(Reserving { left: it.left - 1, failed: true })
    }
    fn car(it: Reserving, got: CarReserved, trip: &mut Trip) -> Reserves {
        trip.undo.push(CancelCar { id: got.id, place: got.place });
        trip.came(Reserving { left: it.left - 1, ..it })
    }
    fn no_car(it: Reserving, _: NoCar, trip: &mut Trip) -> Reserves {
        trip.came(Reserving { left: it.left - 1, failed: true })
    }

    fn room_cancelled(it: Undoing, _: RoomCancelled, trip: &mut Trip) -> Either<Undoing, NotBooked> {
        if trip.undo.confirmed::<CancelRoom>() { Either::B(NotBooked) } else { Either::A(it) }
    }
    fn car_cancelled(it: Undoing, _: CarCancelled, trip: &mut Trip) -> Either<Undoing, NotBooked> {
        if trip.undo.confirmed::<CancelCar>() { Either::B(NotBooked) } else { Either::A(it) }
    }
    fn room_kept(_: Undoing, _: RoomKept, trip: &mut Trip) -> Stuck {
        trip.undo.failed::<CancelRoom>();
        Stuck
    }
    fn car_kept(_: Undoing, _: CarKept, trip: &mut Trip) -> Stuck {
        trip.undo.failed::<CancelCar>();
        Stuck
    }
    // what else was sent is answered there, too
    fn room_cancelled_meanwhile(it: Stuck, _: RoomCancelled, trip: &mut Trip) -> Stuck {
        trip.undo.confirmed::<CancelRoom>();
        it
    }
    fn car_cancelled_meanwhile(it: Stuck, _: CarCancelled, trip: &mut Trip) -> Stuck {
        trip.undo.confirmed::<CancelCar>();
        it
    }
    fn room_kept_too(it: Stuck, _: RoomKept, trip: &mut Trip) -> Stuck {
        trip.undo.failed::<CancelRoom>();
        it
    }
    fn car_kept_too(it: Stuck, _: CarKept, trip: &mut Trip) -> Stuck {
        trip.undo.failed::<CancelCar>();
        it
    }
    fn again(_: Stuck, _: TryAgain, trip: &mut Trip) -> Undoes {
        trip.give_up()
    }
}

impl Trip {
    fn came(&mut self, it: Reserving) -> Reserves {
        match it {
            Reserving { left: 0, failed: true } => Either::B(Either::A(self.give_up())),
            Reserving { left: 0, failed: false } => Either::B(Either::B(Booked)),
            more => Either::A(more),
        }
    }
    fn give_up(&mut self) -> Undoes {
        match self.undo.undo_all() {
            Either::A(undo) => Either::A((Undoing, undo)),
            Either::B(()) => Either::B(NotBooked),
        }
    }
}

fn begun() -> Harness<Booking> {
    Harness::begin(Wanted { id: 7 })
}

#[test]
fn undos_leave_in_reverse_and_their_state_waits_for_all() {
    let mut undo = Undo::<Undos>::new();
    undo.push(CancelRoom { id: 7, place: 1 });
    undo.push(CancelCar { id: 7, place: 2 });
    let Either::A(sends) = undo.undo_all() else { panic!("two are on the stack") };
    assert_eq!(sends.names(), ["cars.CancelCar", "hotel.CancelRoom"]);
    assert_eq!(undo.open(), ["cars.CancelCar", "hotel.CancelRoom"]);
    assert!(!undo.confirmed::<CancelRoom>() && !undo.confirmed::<CancelRoom>(), "the car is not confirmed");
    assert!(matches!(undo.undo_all(), Either::A(none) if none.names().is_empty()), "it still waits");
    assert!(undo.confirmed::<CancelCar>());
    assert_eq!(undo.undo_all(), Either::B(()));
}

#[test]
fn of_several_of_one_type_the_answer_says_which() {
    let mut undo = Undo::<Undos>::new();
    (1..=3).for_each(|place| undo.push(CancelRoom { id: 7, place }));
    undo.undo_all();
    undo.failed_where(|it: &CancelRoom| it.place == 1);
    assert!(!undo.confirmed_where(|it: &CancelRoom| it.place == 3));
    assert!(!undo.confirmed_where(|it: &CancelRoom| it.place == 3), "it is confirmed already");
    assert!(!undo.confirmed::<CancelRoom>(), "place 2 was the only one out; 1 is back on the stack");
    undo.undo_all();
    assert_eq!(undo.steps.kept[0].read::<CancelRoom>().map(|it| it.place), Some(1));
    assert!(undo.confirmed::<CancelRoom>());
}

#[test]
#[should_panic(expected = "different commands `hotel.CancelRoom` are out: say which")]
fn which_of_several_has_failed_is_not_guessed() {
    let mut undo = Undo::<Undos>::new();
    (1..=2).for_each(|place| undo.push(CancelRoom { id: 7, place }));
    undo.undo_all();
    undo.failed::<CancelRoom>();
}

#[test]
fn what_succeeds_late_waits_for_the_undo_that_is_on_its_way() {
    let mut undo = Undo::<Undos>::new();
    undo.push(CancelRoom { id: 7, place: 1 });
    undo.undo_last();
    undo.push(CancelCar { id: 7, place: 2 });
    assert!(matches!(undo.undo_last(), Either::A(none) if none.names().is_empty()));
    assert!(!undo.confirmed::<CancelRoom>());
    assert!(matches!(undo.undo_last(), Either::A(car) if car.names() == ["cars.CancelCar"]));
}

#[test]
fn one_at_a_time_the_last_step_is_undone_before_the_one_before_it() {
    let mut undo = Undo::<Undos>::new();
    undo.push(CancelRoom { id: 7, place: 1 });
    undo.push(CancelCar { id: 7, place: 2 });
    assert!(matches!(undo.undo_last(), Either::A(car) if car.names() == ["cars.CancelCar"]));
    undo.failed::<CancelCar>();
    assert!(matches!(undo.undo_last(), Either::A(car) if car.names() == ["cars.CancelCar"]), "it is sent again");
    assert!(!undo.confirmed::<CancelCar>(), "the room is left");
    assert!(matches!(undo.undo_last(), Either::A(room) if room.names() == ["hotel.CancelRoom"]));
    assert!(undo.confirmed::<CancelRoom>());
}

#[test]
fn undos_that_fail_keep_their_order() {
    let mut undo = Undo::<Undos>::new();
    undo.push(CancelRoom { id: 7, place: 1 });
    undo.push(CancelCar { id: 7, place: 2 });
    let both = |undo: &mut Undo<Undos>| match undo.undo_all() {
        Either::A(sends) => sends.names().join(" "),
        Either::B(()) => "nothing".into(),
    };
    assert_eq!(both(&mut undo), "cars.CancelCar hotel.CancelRoom");
    undo.failed::<CancelCar>();
    assert!(undo.is_waiting(), "the room has not answered");
    undo.failed::<CancelRoom>();
    assert!(!undo.is_waiting() && !undo.is_done());
    assert_eq!(both(&mut undo), "cars.CancelCar hotel.CancelRoom", "the last step's first, as before");
    undo.push(CancelRoom { id: 7, place: 3 });
    undo.failed::<CancelCar>();
    assert_eq!(both(&mut undo), "hotel.CancelRoom cars.CancelCar", "what succeeded meanwhile is the last step");
}

#[test]
fn what_is_stored_is_read_again_and_a_command_that_is_lost_from_the_list_is_missed() {
    let mut undo = Undo::<Undos>::new();
    undo.push(CancelRoom { id: 7, place: u64::MAX });
    undo.undo_all();
    undo.push(CancelCar { id: 7, place: 2 });
    let stored = serde_json::to_string(&undo).unwrap();
    assert_eq!(
        stored,
        concat!(
            r#"[{"command":"hotel.CancelRoom","body":{"id":7,"place":18446744073709551615},"sent":true},"#,
            r#"{"command":"cars.CancelCar","body":{"id":7,"place":2}}]"#
        )
    );
    assert_eq!(serde_json::from_str::<Undo<Undos>>(&stored).unwrap(), undo);
    let another_place = stored.replace(r#""place":2"#, r#""place":3"#);
    assert_ne!(serde_json::from_str::<Undo<Undos>>(&another_place).unwrap(), undo);
    let lost = serde_json::from_str::<Undo<(CancelRoom,)>>(&stored).unwrap_err().to_string();
    assert!(lost.contains("`cars.CancelCar` is kept, but not in the list"), "{lost}");
    let unreadable = stored.replace(r#""place":2"#, r#""place":"two""#);
    assert!(serde_json::from_str::<Undo<Undos>>(&unreadable).is_err());
}

#[test]
fn a_saga_undoes_what_has_succeeded() {
    let refused = begun().give(RoomReserved { id: 7, place: 1 }).give(NoCar { id: 7 });
    let undoing = refused.expect_state("Undoing").expect_sent::<CancelRoom>(1).expect_sent::<CancelCar>(0);
    undoing.give(RoomCancelled { id: 7 }).expect_state("NotBooked");
    begun().give(HotelFull { id: 7 }).give(NoCar { id: 7 }).expect_state("NotBooked").expect_sent::<CancelRoom>(0);
}

#[test]
fn an_undo_that_fails_is_the_state_stuck_and_is_sent_again_from_there() {
    let stuck = begun().give(RoomReserved { id: 7, place: 1 }).give(NoCar { id: 7 }).give(RoomKept { id: 7 });
    let again = stuck.expect_state("Stuck").give(TryAgain { id: 7 }).expect_state("Undoing");
    again.expect_sent::<CancelRoom>(2).give(RoomCancelled { id: 7 }).expect_state("NotBooked");
}

#[test]
fn the_undos_and_their_outcomes_are_on_the_chart() {
    let chart: Chart = Booking::chart();
    assert_eq!(chart.errors(), [] as [String; 0]);
    assert!(chart.is_answer("hotel.RoomCancelled") && chart.is_answer("cars.CarKept"));
    let drawn = "Stuck --> Undoing : TryAgain / send CancelRoom, send CancelCar";
    assert!(chart.to_mermaid().contains(drawn), "{}", chart.to_mermaid());
}

/// What an undo is given up with must be taken like an outcome, and is nobody else's.
#[test]
fn an_undo_that_is_given_up_answers_the_saga_too() {
    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "hotel", outcome = CancelRoomOutcome, gives_up = CancelFailed)]
    struct Cancel {
        id: u64,
    }
    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "hotel")]
    struct CancelFailed {
        id: u64,
    }
    impl crate::GiveUp<Cancel> for CancelFailed {
        fn give_up(command: Cancel, _: &str) -> Self {
            Self { id: command.id }
        }
    }
    let mut effects = Vec::new();
    <SendsAny<(Cancel,)> as crate::saga::Effect<()>>::describe(&mut effects);
    assert_eq!(effects[0].outcome, ["hotel.RoomCancelled", "hotel.RoomKept", "hotel.CancelFailed"]);
}

/// In every order of answers, where an undo does not fail: in `Stuck` it is a person's turn.
#[test]
fn nothing_is_left_reserved_in_any_story() {
    let explored = Explore::<Booking>::from(Wanted { id: 7 })
        .answers(|it: ReserveRoom| vec![RoomReserved { id: it.id, place: 1 }.into(), HotelFull { id: it.id }.into()])
        .answers(|it: ReserveCar| vec![CarReserved { id: it.id, place: 2 }.into(), NoCar { id: it.id }.into()])
        .answers(|it: CancelRoom| vec![RoomCancelled { id: it.id }.into()])
        .answers(|it: CancelCar| vec![CarCancelled { id: it.id }.into()])
        .at_most_once::<CancelRoom>()
        .in_the_end("who is booked has a room and a car, who is not has neither", |end| {
            let booked = usize::from(end.state == "Booked");
            end.came::<RoomReserved>() == end.came::<RoomCancelled>() + booked
                && end.came::<CarReserved>() == end.came::<CarCancelled>() + booked
        })
        .run();
    explored.expect_no_breach();
    assert_eq!(explored.states_reached(), ["Booked", "NotBooked", "Reserving", "Undoing"]);
}

/// A message as it leaves is what was pushed.
#[test]
fn what_leaves_is_what_was_pushed() {
    let told = begun().give(RoomReserved { id: 7, place: 41 }).give(NoCar { id: 7 });
    let Encoded { body, .. } = Encoded::of(&CancelRoom { id: 7, place: 41 });
    let sent = told.sent::<CancelRoom>();
    assert_eq!(serde_json::to_vec(&sent[0]).unwrap(), body);
}
