//! One story of one instance, in virtual time.

use super::{
    instance::{Instance, Sent, id_of, us},
    story,
};
use crate::{Command, Encoded, Event, HeldReason, Message, Saga, message::decode};
use std::time::Duration;

/// An instance of a saga in a test: messages are given to it, time passes, and what it does is looked at. There is no
/// store, no broker and no waiting.
///
/// What the rules of the saga say happens as at an endpoint: messages that come early wait and are offered again, a
/// panic pauses the instance, timers come when time passes.
///
/// ```
/// use sagabus::{prelude::*, testing::Harness};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct Placed { order_id: u64 }
/// #[derive(Command, Serialize, Deserialize)]
/// #[command(to = "bank", outcome = PaymentOutcome)]
/// struct Pay { order_id: u64 }
/// #[derive(Outcome)]
/// enum PaymentOutcome { Paid(Paid) }
/// #[derive(Reply, Serialize, Deserialize)]
/// struct Paid { order_id: u64 }
/// #[derive(Message, Serialize, Deserialize)]
/// struct Overdue {}
///
/// #[states]
/// enum Order {
///     Waiting { asked: u32, order_id: u64 },
///     #[done]
///     Done,
///     #[done]
///     #[rejects(Paid)] // money for nothing: a person decides
///     Cancelled,
/// }
///
/// #[saga(name = "order", id = order_id: u64)]
/// impl Order {
///     fn placed(placed: Placed) -> (Waiting, Sends<Pay>, After<Overdue>) { ask(1, placed.order_id) }
///     fn paid(_: Waiting, _: Paid) -> Done { Done }
///     fn overdue(it: Waiting, _: Overdue) -> Either<(Waiting, Sends<Pay>, After<Overdue>), Cancelled> {
///         if it.asked < 3 { Either::A(ask(it.asked + 1, it.order_id)) } else { Either::B(Cancelled) }
///     }
/// }
///
/// fn ask(asked: u32, order_id: u64) -> (Waiting, Sends<Pay>, After<Overdue>) {
///     (Waiting { asked, order_id }, send(Pay { order_id }), after(minutes(1), Overdue {}))
/// }
///
/// # fn main() {
/// Harness::<Order>::begin(Placed { order_id: 7 })
///     .advance(minutes(2))
///     .expect_sent::<Pay>(3)
///     .give(Paid { order_id: 7 })
///     .expect_state("Done");
///
/// Harness::<Order>::begin(Placed { order_id: 7 }).advance(hours(1)).expect_sent::<Pay>(3).expect_state("Cancelled");
/// # }
/// ```
pub struct Harness<S>(Instance<S>);

impl<S> Clone for Harness<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Saga> std::fmt::Debug for Harness<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness").field("row", &self.0.row).field("journal", &self.journal()).finish()
    }
}

impl<S: Saga> Harness<S> {
    /// The instance that this message begins.
    ///
    /// # Panics
    /// When no function of the saga begins with it.
    #[track_caller]
    pub fn begin<M: Message>(message: M) -> Self {
        let message = Encoded::of(&message);
        let mut new = Self(Instance::new(&id_of::<S>(&message)));
        new.0.give(&message, None);
        assert!(new.0.row.is_some(), "`{}` does not begin an instance; {}", M::TYPE, new.0.told());
        new
    }

    /// An instance that does not exist yet: for messages that come before the one that begins it.
    pub fn before_it_begins(id: &S::Id) -> Self {
        Self(Instance::new(id))
    }

    /// Gives it a message; an outcome answers what the present entry of its state has sent.
    pub fn give<M: Message>(mut self, message: M) -> Self {
        let message = Encoded::of(&message);
        let entered = self.0.row.as_ref().map(|row| row.entered);
        match entered.and_then(|entered| Some((self.0.asked(&message, entered)?, entered))) {
            Some((sent, entered)) => self.0.answer(&message, sent, entered),
            None => self.0.give(&message, entered),
        }
        self
    }

    /// Lets time pass: timers come when they are due, in order, and those that they set as well.
    pub fn advance(mut self, time: Duration) -> Self {
        let end = self.0.now_us.saturating_add(us(time));
        while let Some(next) = self.0.timers.iter().filter(|timer| timer.due_us <= end).min_by_key(|timer| timer.due_us)
        {
            self.0.now_us = next.due_us.max(self.0.now_us);
            self.0.fire(next.number);
        }
        self.0.now_us = end;
        self
    }

    /// The state's name; `None` before the instance exists.
    pub fn state(&self) -> Option<&str> {
        self.0.state()
    }

    /// The state and what every state knows.
    ///
    /// # Panics
    /// When the instance does not exist.
    #[track_caller]
    pub fn stored(&self) -> (S, S::Data) {
        let row = self.0.row.as_ref().expect("the instance has not begun");
        S::__load(&row.state, row.version.unsigned_abs(), &row.data).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Every message of this type that it has sent, in order.
    pub fn sent<M: Message>(&self) -> Vec<M> {
        let of_type = self.0.sent.iter().filter(|sent| sent.type_name == M::TYPE);
        of_type.filter_map(|sent| decode(sent.body.to_string().as_bytes()).ok()).collect()
    }

    /// Everything that it has sent, in order; timers are not among it.
    pub fn all_sent(&self) -> &[Sent] {
        &self.0.sent
    }

    /// What became of each message that it was offered, one line each.
    pub fn journal(&self) -> Vec<String> {
        story::lines(&self.0.story)
    }

    /// It is in this state.
    ///
    /// # Panics
    /// When it is not, with the story so far.
    #[track_caller]
    pub fn expect_state(self, name: &str) -> Self {
        assert_eq!(self.state(), Some(name), "another state was expected; {}", self.0.told());
        self
    }

    /// It has sent so many messages of this type.
    ///
    /// # Panics
    /// When it has sent more or fewer, with the story so far.
    #[track_caller]
    pub fn expect_sent<M: Message>(self, times: usize) -> Self {
        let sent = self.0.sent.iter().filter(|sent| sent.type_name == M::TYPE).count();
        assert_eq!(sent, times, "`{}` was sent another number of times; {}", M::TYPE, self.0.told());
        self
    }

    /// It has taken back so many commands of this type, which had no answer: each may have been handled or not, so its
    /// outcome may still be [given](Self::give).
    ///
    /// # Panics
    /// When it has taken back more or fewer, with the story so far.
    #[track_caller]
    pub fn expect_taken_back<C: Command>(self, times: usize) -> Self {
        let back = self.0.sent.iter().filter(|sent| sent.type_name == C::TYPE && sent.taken_back).count();
        assert_eq!(back, times, "`{}` was taken back another number of times; {}", C::TYPE, self.0.told());
        self
    }

    /// It has published this event, with this content.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn expect_published<E: Event>(self, event: &E) -> Self {
        let body: serde_json::Value = serde_json::from_slice(&Encoded::of(event).body).unwrap_or_default();
        let is_it = |sent: &Sent| sent.type_name == E::TYPE && sent.body == body;
        assert!(self.0.sent.iter().any(is_it), "`{}` {body} was not published; {}", E::TYPE, self.0.told());
        self
    }

    /// So many messages are held for this reason.
    ///
    /// # Panics
    /// When there are more or fewer.
    #[track_caller]
    pub fn expect_held(self, reason: HeldReason, messages: usize) -> Self {
        let held = self.0.held.iter().filter(|(_, why, _)| *why == reason).count();
        assert_eq!(held, messages, "another number is held as {}; {}", reason.as_str(), self.0.told());
        self
    }

    /// Nothing is held, and nothing failed.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn expect_nothing_held(self) -> Self {
        assert!(self.0.held.is_empty(), "nothing held was expected; {}", self.0.told());
        self
    }

    /// So many timers are alive.
    ///
    /// # Panics
    /// When there are more or fewer.
    #[track_caller]
    pub fn expect_timers(self, alive: usize) -> Self {
        assert_eq!(self.0.timers.len(), alive, "another number of timers is alive; {}", self.0.told());
        self
    }
}
