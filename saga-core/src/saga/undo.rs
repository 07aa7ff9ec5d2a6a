//! Undoing as a stack: each step that succeeds says how it is undone, in one place.

use super::{
    Either,
    commands::{Commands, Kept, Names, Queue, SendsAny, by_fields, names},
};
use crate::{Command, ReadOutcome};
use serde::{Deserialize, Serialize};

/// What undoes the steps that have succeeded: a stack of commands, of the types in the tuple `L`.
///
/// The saga's data holds it. A transition that learns of a success pushes the command that undoes it; whoever gives up,
/// at whatever point, calls [`undo_all`](Self::undo_all). So a new step needs its undo in one place, and not at every
/// way out.
///
/// The state that undoes waits until every undo is [`confirmed`](Self::confirmed), and what succeeds late is pushed and
/// undone there as well. The compiler demands its transitions for every outcome of the commands in `L`. An undo that
/// [`failed`](Self::failed) is on the stack again. When nothing is out any more ([`is_waiting`](Self::is_waiting)), its
/// transition leads to a state in which a person is needed (`Stuck`, say), and from there `undo_all` sends it again.
/// Before, the answers of the others would find an instance that has left.
///
/// ```
/// use sagabus::{prelude::*, saga::{SendsAny, Undo}, testing::Harness};
/// use serde::{Deserialize, Serialize};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(from = "shop")]
/// # struct TripWanted { trip: u64 }
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(from = "shop")]
/// # struct TryAgain { trip: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "hotel", outcome = RoomOutcome)]
/// # struct ReserveRoom { trip: u64 }
/// # #[derive(Outcome)]
/// # enum RoomOutcome { Reserved(RoomReserved), Full(HotelFull) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct RoomReserved { trip: u64, room: u32 }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct HotelFull { trip: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "hotel", outcome = CancelOutcome)]
/// # struct CancelRoom { room: u32 }
/// # #[derive(Outcome)]
/// # enum CancelOutcome { Cancelled(RoomCancelled), Refused(CancelRefused) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct RoomCancelled { trip: u64 }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct CancelRefused { trip: u64 }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "airline", outcome = SeatOutcome)]
/// # struct ReserveSeat { trip: u64 }
/// # #[derive(Outcome)]
/// # enum SeatOutcome { Reserved(SeatReserved), NoSeat(NoSeat) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct SeatReserved { trip: u64 }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct NoSeat { trip: u64 }
/// #[derive(Serialize, Deserialize)]
/// struct Trip { trip: u64, undo: Undo<(CancelRoom,)> }
///
/// #[states(data = Trip)]
/// enum Booking {
///     #[waits]
///     ReservingRoom,
///     #[waits]
///     ReservingSeat,
///     #[waits]
///     Undoing,
///     #[waits] // for a person
///     Stuck,
///     #[done]
///     Booked,
///     #[done]
///     NotBooked,
/// }
///
/// type Undoes = Either<(Undoing, SendsAny<(CancelRoom,)>), NotBooked>;
///
/// #[derive(Then)]
/// enum Answered { Waits(Undoing), Fails(Stuck), Ends(NotBooked) }
///
/// #[saga(name = "booking", id = trip: u64)]
/// impl Booking {
///     fn wanted(it: TripWanted) -> (Trip, ReservingRoom, Sends<ReserveRoom>) {
///         (Trip { trip: it.trip, undo: Undo::new() }, ReservingRoom, send(ReserveRoom { trip: it.trip }))
///     }
///     fn room(_: ReservingRoom, it: RoomReserved, trip: &mut Trip) -> (ReservingSeat, Sends<ReserveSeat>) {
///         trip.undo.push(CancelRoom { room: it.room });
///         (ReservingSeat, send(ReserveSeat { trip: it.trip }))
///     }
///     fn full(_: ReservingRoom, _: HotelFull, trip: &mut Trip) -> Undoes { trip.give_up() }
///     fn seat(_: ReservingSeat, _: SeatReserved) -> Booked { Booked }
///     fn no_seat(_: ReservingSeat, _: NoSeat, trip: &mut Trip) -> Undoes { trip.give_up() }
///
///     fn undone(it: Undoing, _: RoomCancelled, trip: &mut Trip) -> Answered {
///         trip.undo.confirmed::<CancelRoom>();
///         trip.answered(it)
///     }
///     fn not_undone(it: Undoing, _: CancelRefused, trip: &mut Trip) -> Answered {
///         trip.undo.failed::<CancelRoom>();
///         trip.answered(it)
///     }
///     fn again(_: Stuck, _: TryAgain, trip: &mut Trip) -> Undoes { trip.give_up() }
/// }
///
/// impl Trip {
///     fn give_up(&mut self) -> Undoes {
///         match self.undo.undo_all() {
///             Either::A(undo) => Either::A((Undoing, undo)),
///             Either::B(()) => Either::B(NotBooked), // nothing had succeeded
///         }
///     }
///     fn answered(&self, it: Undoing) -> Answered {
///         match () {
///             () if self.undo.is_waiting() => Answered::Waits(it), // the others' answers come first
///             () if self.undo.is_done() => Answered::Ends(NotBooked),
///             () => Answered::Fails(Stuck),
///         }
///     }
/// }
///
/// # fn main() {
/// let room = RoomReserved { trip: 7, room: 12 };
/// let refused = Harness::<Booking>::begin(TripWanted { trip: 7 }).give(room).give(NoSeat { trip: 7 });
/// refused.expect_state("Undoing").give(RoomCancelled { trip: 7 }).expect_state("NotBooked");
/// Harness::<Booking>::begin(TripWanted { trip: 7 }).give(HotelFull { trip: 7 }).expect_state("NotBooked");
/// # }
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "", transparent)]
pub struct Undo<L: Commands> {
    /// What is not confirmed, the last step's last. One that was sent keeps its place, and so does one that has failed.
    steps: Queue<L>,
}
by_fields!(Undo<L> { steps });

impl<L: Commands> Default for Undo<L> {
    fn default() -> Self {
        Self { steps: Queue::default() }
    }
}

impl<L: Commands> Undo<L> {
    /// Nothing has succeeded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A step has succeeded; this command undoes it. It has an outcome: the saga waits until it is confirmed.
    pub fn push<C: Command<Outcome: ReadOutcome>, Place>(&mut self, undo: C)
    where
        L: Names<C, Place>,
    {
        self.steps.kept.push(Kept::of(&undo));
    }

    /// Sends all that is on the stack at once, the last step's first. [`Either::B`]: nothing had to be sent, and
    /// everything sent before is confirmed.
    ///
    /// Undos that go to one endpoint arrive there in this order; those of different endpoints run side by side. For one
    /// after the other, see [`undo_last`](Self::undo_last).
    pub fn undo_all(&mut self) -> Either<SendsAny<L>, ()> {
        self.undo(usize::MAX)
    }

    /// Sends the last step's alone, and nothing while one that was sent is not confirmed. [`Either::B`]: nothing is
    /// left, and everything sent before is confirmed.
    pub fn undo_last(&mut self) -> Either<SendsAny<L>, ()> {
        self.undo(usize::from(!self.is_waiting()))
    }

    fn undo(&mut self, number: usize) -> Either<SendsAny<L>, ()> {
        if self.is_done() {
            return Either::B(());
        }
        let out = self.steps.kept.iter_mut().rev().filter(|kept| !kept.sent).take(number).map(|kept| {
            let out = kept.clone();
            kept.sent = true;
            out
        });
        Either::A(SendsAny(Queue::new(out.collect())))
    }

    /// The undo `C` that was sent is confirmed. Says whether that was the last: nothing is on the stack, and everything
    /// sent is confirmed.
    ///
    /// # Panics
    /// When different ones are out, so that nobody can tell which it was: use
    /// [`confirmed_where`](Self::confirmed_where). The transition fails then, and its message is held.
    pub fn confirmed<C: Command>(&mut self) -> bool {
        self.confirm(self.the_one::<C>())
    }

    /// The same where several commands `C` are out: the one for which `is_it` says yes.
    ///
    /// ```
    /// # use sagabus::{prelude::*, saga::Undo};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Command, Serialize, Deserialize)]
    /// # #[command(to = "hotel", outcome = CancelOutcome)]
    /// # struct CancelRoom { room: u32 }
    /// # #[derive(Outcome)]
    /// # enum CancelOutcome { Cancelled(RoomCancelled) }
    /// # #[derive(Reply, Serialize, Deserialize)]
    /// # struct RoomCancelled { room: u32 }
    /// let mut undo = Undo::<(CancelRoom,)>::new();
    /// undo.push(CancelRoom { room: 1 });
    /// undo.push(CancelRoom { room: 2 });
    /// undo.undo_all();
    /// let answer = RoomCancelled { room: 1 };
    /// assert!(!undo.confirmed_where(|it: &CancelRoom| it.room == answer.room));
    /// undo.failed_where(|it: &CancelRoom| it.room == 2);
    /// assert_eq!(undo.open().len(), 1);
    /// ```
    pub fn confirmed_where<C: Command>(&mut self, is_it: impl Fn(&C) -> bool) -> bool {
        self.confirm(self.sent(is_it))
    }

    fn confirm(&mut self, place: Option<usize>) -> bool {
        if let Some(place) = place {
            self.steps.kept.remove(place);
        }
        self.is_done()
    }

    /// The undo `C` that was sent has failed: it is on the stack again, in its old place, where the next call of
    /// [`undo_all`](Self::undo_all) finds it.
    ///
    /// # Panics
    /// When different ones are out, as [`confirmed`](Self::confirmed) does: use [`failed_where`](Self::failed_where).
    pub fn failed<C: Command>(&mut self) {
        if let Some(place) = self.the_one::<C>() {
            self.steps.kept[place].sent = false;
        }
    }

    /// The same where several commands `C` are out: the one for which `is_it` says yes.
    pub fn failed_where<C: Command>(&mut self, is_it: impl Fn(&C) -> bool) {
        if let Some(place) = self.sent(is_it) {
            self.steps.kept[place].sent = false;
        }
    }

    fn the_one<C: Command>(&self) -> Option<usize> {
        let mut out = self.steps.kept.iter().filter(|kept| kept.sent && kept.command == C::TYPE);
        let first = out.next();
        assert!(
            out.all(|other| Some(other) == first),
            "different commands `{}` are out: say which, by `confirmed_where` or `failed_where`",
            C::TYPE
        );
        self.sent(|_: &C| true)
    }

    fn sent<C: Command>(&self, is_it: impl Fn(&C) -> bool) -> Option<usize> {
        const { assert!(names::<L, C>(), "this command is not among those of the stack: add it to the tuple") };
        let is_it = |kept: &Kept| kept.sent && kept.read().is_some_and(|sent| is_it(&sent));
        self.steps.kept.iter().rposition(is_it)
    }

    /// Whether an undo that was sent is neither confirmed nor failed.
    ///
    /// A transition that learns of a failure while others are out stays where their answers are taken, and leaves for
    /// the state in which a person is needed with the last of them.
    pub fn is_waiting(&self) -> bool {
        self.steps.kept.iter().any(|kept| kept.sent)
    }

    /// Whether nothing is on the stack and everything sent is confirmed.
    pub fn is_done(&self) -> bool {
        self.steps.kept.is_empty()
    }

    /// The point of no return: what was pushed so far stays done.
    pub fn clear(&mut self) {
        self.steps.kept.retain(|kept| kept.sent);
    }

    /// The logical names of the undos that are not confirmed: first those sent, then those on the stack. For people who
    /// look at an instance that is stuck.
    pub fn open(&self) -> Vec<&str> {
        let (sent, rest): (Vec<&Kept>, _) = self.steps.kept.iter().partition(|kept| kept.sent);
        sent.into_iter().rev().chain(rest).map(|kept| kept.command.as_str()).collect()
    }
}

#[cfg(test)]
mod tests;
