//! A linear script with undo.

use super::{
    Either, Undo,
    commands::{Commands, Kept, Names, Queue, SendsAny, by_fields},
};
use crate::{Command, ReadOutcome};
use serde::{Deserialize, Serialize};

/// Steps, one after the other, and the way back: commands of the types in the tuple `S`, undone by commands of the
/// types in the tuple `U`, the last first, one at a time.
///
/// The saga's data or a state holds it. [`onwards`](Self::onwards) sends the next step. The success of a step says by
/// [`done`](Self::done) how it is undone; one that does not is irreversible, and the way back passes it by. After a
/// failure [`back`](Self::back) sends the last undo, and after each that is [`undone`](Self::undone) the one before it.
/// An undo that [`failed`](Self::failed) stays the next one: its transition leads to a state in which a person is
/// needed.
///
/// Nothing but the list of steps knows their order, so one state is enough for the way there, and one for the way back.
/// For a script without a saga, whose steps travel with the message, see [`Slip`](crate::Slip).
///
/// ```
/// use sagabus::{prelude::*, saga::{Itinerary, SendsAny}, testing::Harness};
/// use serde::{Deserialize, Serialize};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(from = "shop")]
/// # struct TripWanted { trip: u64, with_car: bool }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "hotel", outcome = RoomOutcome)]
/// # struct ReserveRoom { trip: u64 }
/// # #[derive(Outcome)]
/// # enum RoomOutcome { Reserved(RoomReserved) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct RoomReserved { trip: u64, room: u32 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "hotel", outcome = CancelOutcome)]
/// # struct CancelRoom { room: u32 }
/// # #[derive(Outcome)]
/// # enum CancelOutcome { Cancelled(RoomCancelled) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct RoomCancelled { trip: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "cars", outcome = CarOutcome)]
/// # struct ReserveCar { trip: u64 }
/// # #[derive(Outcome)]
/// # enum CarOutcome { Reserved(CarReserved), NoCar(NoCar) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct CarReserved { trip: u64 }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct NoCar { trip: u64 }
/// type Steps = (ReserveRoom, ReserveCar);
/// type Undos = (CancelRoom,);
///
/// #[derive(Serialize, Deserialize)]
/// struct Trip { plan: Itinerary<Steps, Undos> }
///
/// #[states(data = Trip)]
/// enum Booking {
///     #[waits]
///     Underway,
///     #[waits]
///     Returning,
///     #[done]
///     Booked,
///     #[done]
///     NotBooked,
/// }
///
/// type Onwards = Either<(Underway, SendsAny<Steps>), Booked>;
/// type Back = Either<(Returning, SendsAny<Undos>), NotBooked>;
///
/// #[saga(name = "booking", id = trip: u64)]
/// impl Booking {
///     fn wanted(it: TripWanted) -> Either<(Trip, Underway, SendsAny<Steps>), (Trip, Booked)> {
///         let TripWanted { trip, with_car } = it;
///         let mut plan = Itinerary::new().then(ReserveRoom { trip });
///         if with_car {
///             plan = plan.then(ReserveCar { trip });
///         }
///         match plan.onwards() {
///             Either::A(step) => Either::A((Trip { plan }, Underway, step)),
///             Either::B(()) => Either::B((Trip { plan }, Booked)), // a plan without steps
///         }
///     }
///     fn room(_: Underway, it: RoomReserved, trip: &mut Trip) -> Onwards {
///         trip.plan.done(CancelRoom { room: it.room });
///         trip.onwards()
///     }
///     fn car(_: Underway, _: CarReserved, trip: &mut Trip) -> Onwards { trip.onwards() } // irreversible
///     fn no_car(_: Underway, _: NoCar, trip: &mut Trip) -> Back { trip.back() }
///     fn room_cancelled(_: Returning, _: RoomCancelled, trip: &mut Trip) -> Back {
///         trip.plan.undone::<CancelRoom>();
///         trip.back()
///     }
/// }
///
/// impl Trip {
///     fn onwards(&mut self) -> Onwards {
///         match self.plan.onwards() {
///             Either::A(step) => Either::A((Underway, step)),
///             Either::B(()) => Either::B(Booked),
///         }
///     }
///     fn back(&mut self) -> Back {
///         match self.plan.back() {
///             Either::A(undo) => Either::A((Returning, undo)),
///             Either::B(()) => Either::B(NotBooked),
///         }
///     }
/// }
///
/// # fn main() {
/// let asked = Harness::<Booking>::begin(TripWanted { trip: 7, with_car: true });
/// let room = asked.expect_sent::<ReserveCar>(0).give(RoomReserved { trip: 7, room: 12 });
/// room.clone().give(CarReserved { trip: 7 }).expect_state("Booked");
/// let returning = room.give(NoCar { trip: 7 }).expect_sent::<CancelRoom>(1).expect_state("Returning");
/// returning.give(RoomCancelled { trip: 7 }).expect_state("NotBooked");
/// # }
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Itinerary<S: Commands, U: Commands> {
    /// The next step is the first.
    ahead: Queue<S>,
    undo: Undo<U>,
}
by_fields!(Itinerary<S, U> { ahead, undo });

impl<S: Commands, U: Commands> Default for Itinerary<S, U> {
    fn default() -> Self {
        Self { ahead: Queue::default(), undo: Undo::default() }
    }
}

impl<S: Commands, U: Commands> Itinerary<S, U> {
    /// A script without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one step more, after the others. It has an outcome, which says how the script goes on.
    pub fn then<C: Command<Outcome: ReadOutcome>, Place>(mut self, step: C) -> Self
    where
        S: Names<C, Place>,
    {
        self.ahead.kept.push(Kept::of(&step));
        self
    }

    /// Sends the next step. [`Either::B`]: there is none, so the script is complete.
    pub fn onwards(&mut self) -> Either<SendsAny<S>, ()> {
        if self.ahead.kept.is_empty() {
            return Either::B(());
        }
        Either::A(SendsAny(Queue::new(vec![self.ahead.kept.remove(0)])))
    }

    /// The step has succeeded; this command undoes it.
    pub fn done<C: Command<Outcome: ReadOutcome>, Place>(&mut self, undo: C)
    where
        U: Names<C, Place>,
    {
        self.undo.push(undo);
    }

    /// Gives up: no further step goes out, and the last undo that is left is sent, or nothing while one is on its way.
    /// [`Either::B`]: none is left, and the
    /// last one sent is confirmed.
    pub fn back(&mut self) -> Either<SendsAny<U>, ()> {
        self.ahead.kept.clear();
        self.undo.undo_last()
    }

    /// The undo `C` is confirmed.
    pub fn undone<C: Command>(&mut self) {
        self.undo.confirmed::<C>();
    }

    /// The undo `C` has failed: the next call of [`back`](Self::back) sends it again.
    pub fn failed<C: Command>(&mut self) {
        self.undo.failed::<C>();
    }

    /// How many steps lie ahead.
    pub fn ahead(&self) -> usize {
        self.ahead.kept.len()
    }

    /// The logical names of the undos that are not confirmed: the one sent, then the others, the next one last.
    pub fn open(&self) -> Vec<&str> {
        self.undo.open()
    }
}
