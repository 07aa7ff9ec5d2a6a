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
/// [`failed`](Self::failed) goes back on the stack: its transition leads to a state in which a person is needed
/// (`Stuck`, say), and from there `undo_all` sends it again.
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
///     fn undone(it: Undoing, _: RoomCancelled, trip: &mut Trip) -> Either<Undoing, NotBooked> {
///         if trip.undo.confirmed::<CancelRoom>() { Either::B(NotBooked) } else { Either::A(it) }
///     }
///     fn not_undone(_: Undoing, _: CancelRefused, trip: &mut Trip) -> Stuck {
///         trip.undo.failed::<CancelRoom>();
///         Stuck
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
#[serde(bound = "")]
pub struct Undo<L: Commands> {
    /// The last step's is the last.
    stack: Queue<L>,
    /// Sent, and not confirmed.
    sent: Queue<L>,
}
by_fields!(Undo<L> { stack, sent });

impl<L: Commands> Default for Undo<L> {
    fn default() -> Self {
        Self { stack: Queue::default(), sent: Queue::default() }
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
        self.stack.kept.push(Kept::of(&undo));
    }

    /// Sends all that is on the stack at once, the last step's first. [`Either::B`]: nothing had to be sent, and
    /// everything sent before is confirmed.
    ///
    /// Undos that go to one endpoint arrive there in this order; those of different endpoints run side by side. For one
    /// after the other, see [`undo_last`](Self::undo_last).
    pub fn undo_all(&mut self) -> Either<SendsAny<L>, ()> {
        self.undo(self.stack.kept.len())
    }

    /// Sends the last step's alone, and nothing while one that was sent is not confirmed. [`Either::B`]: nothing is
    /// left, and everything sent before is confirmed.
    pub fn undo_last(&mut self) -> Either<SendsAny<L>, ()> {
        self.undo(usize::from(self.sent.kept.is_empty()))
    }

    fn undo(&mut self, number: usize) -> Either<SendsAny<L>, ()> {
        if self.is_done() {
            return Either::B(());
        }
        let rest = self.stack.kept.len().saturating_sub(number);
        let out: Vec<Kept> = self.stack.kept.drain(rest..).rev().collect();
        self.sent.kept.extend(out.iter().cloned());
        Either::A(SendsAny(Queue::new(out)))
    }

    /// The undo `C` that was sent is confirmed. Says whether that was the last: nothing is on the stack, and everything
    /// sent is confirmed.
    ///
    /// # Panics
    /// When different ones are out, so that nobody can tell which it was: use
    /// [`confirmed_where`](Self::confirmed_where). The transition fails then, and its message is held.
    pub fn confirmed<C: Command>(&mut self) -> bool {
        self.take_the_one::<C>();
        self.is_done()
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
        self.take_sent(is_it);
        self.is_done()
    }

    /// The undo `C` that was sent has failed: it goes back on the stack, where the next call of
    /// [`undo_all`](Self::undo_all) finds it.
    ///
    /// # Panics
    /// When different ones are out, as [`confirmed`](Self::confirmed) does: use [`failed_where`](Self::failed_where).
    pub fn failed<C: Command>(&mut self) {
        let failed = self.take_the_one::<C>();
        self.stack.kept.extend(failed);
    }

    /// The same where several commands `C` are out: the one for which `is_it` says yes.
    pub fn failed_where<C: Command>(&mut self, is_it: impl Fn(&C) -> bool) {
        let failed = self.take_sent(is_it);
        self.stack.kept.extend(failed);
    }

    fn take_the_one<C: Command>(&mut self) -> Option<Kept> {
        let mut out = self.sent.kept.iter().filter(|kept| kept.command == C::TYPE);
        let first = out.next();
        assert!(
            out.all(|other| Some(other) == first),
            "different commands `{}` are out: say which, by `confirmed_where` or `failed_where`",
            C::TYPE
        );
        self.take_sent(|_: &C| true)
    }

    fn take_sent<C: Command>(&mut self, is_it: impl Fn(&C) -> bool) -> Option<Kept> {
        const { assert!(names::<L, C>(), "this command is not among those of the stack: add it to the tuple") };
        let place = self.sent.kept.iter().position(|kept| kept.read().is_some_and(|sent| is_it(&sent)))?;
        Some(self.sent.kept.remove(place))
    }

    /// Whether nothing is on the stack and everything sent is confirmed.
    pub fn is_done(&self) -> bool {
        self.stack.kept.is_empty() && self.sent.kept.is_empty()
    }

    /// The point of no return: what was pushed so far stays done.
    pub fn clear(&mut self) {
        self.stack.kept.clear();
    }

    /// The logical names of the undos that are not confirmed: first those sent, then those on the stack. For people who
    /// look at an instance that is stuck.
    pub fn open(&self) -> Vec<&str> {
        self.sent.kept.iter().chain(&self.stack.kept).map(|kept| kept.command.as_str()).collect()
    }
}

#[cfg(test)]
mod tests;
