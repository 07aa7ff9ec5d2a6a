//! Messages that were in flight when the last channel broke: they go first on the next one, because later messages must
//! not overtake them.
//!
//! A broker that refuses a message closes the channel (or the connection), and nobody is told which message it was. So
//! the messages in flight go one at a time, each confirmed before the next. A message that breaks the channel alone is
//! the culprit and is reported; all others are published, each at most once more.

use saga_core::{Fate, Outgoing};
use std::collections::{HashSet, VecDeque};
use uuid::Uuid;

/// How often a connection may break without a reason over the same message before that message is given back. The
/// endpoint sends it again later, alone, while others go on.
const BREAKS_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Unsent {
    messages: VecDeque<Outgoing>,
    /// The number of messages, from the front, that are under suspicion.
    suspects: usize,
    /// How often a connection broke without a reason since something was confirmed.
    breaks: u32,
    /// How often the broker did not answer since it took something.
    silences: u32,
    /// The last place that was given up for it.
    silent: Option<String>,
    /// Messages that were in flight on a connection that went: they may have arrived.
    doubtful: HashSet<Uuid>,
}

/// Why a channel broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The broker refused something: its code and words.
    Refused(u16, String),
    /// Something else.
    Otherwise(String),
    /// The broker does not answer: least of all what went to this place.
    Silent { place: String, why: String },
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether messages go one at a time.
    pub(super) fn is_careful(&self) -> bool {
        self.suspects > 0
    }

    /// The next to publish.
    pub(super) fn front(&self) -> Option<&Outgoing> {
        self.messages.front()
    }

    /// Takes the next message out.
    pub(super) fn take(&mut self) -> Option<Outgoing> {
        self.messages.pop_front()
    }

    /// Puts a message back that was not published after all.
    pub(super) fn put_back(&mut self, message: Outgoing) {
        self.messages.push_front(message);
    }

    /// Adds new messages.
    pub(super) fn extend(&mut self, messages: impl IntoIterator<Item = Outgoing>) {
        self.messages.extend(messages);
    }

    /// Takes out all that goes there.
    pub(super) fn give_up(&mut self, goes_there: impl Fn(&Outgoing) -> bool) -> Vec<Outgoing> {
        let suspects = self.messages.iter().take(self.suspects).filter(|message| !goes_there(message)).count();
        self.suspects = suspects;
        let (given_up, left): (VecDeque<_>, _) = std::mem::take(&mut self.messages).into_iter().partition(goes_there);
        self.messages = left;
        Vec::from(given_up)
    }

    /// A message is reported.
    pub(super) fn reported(&mut self, fate: &Fate) {
        self.suspects = self.suspects.saturating_sub(1);
        // others say nothing about the broker: it need not even have been asked
        if matches!(fate, Fate::Confirmed | Fate::Unroutable(_)) {
            (self.breaks, self.silences) = (0, 0);
        }
    }

    /// What is to be said of a message with this fate: what became of its last publish says nothing about an earlier
    /// one that was not answered.
    pub(super) fn in_doubt(&mut self, message: &Outgoing, fate: Fate) -> Fate {
        if self.doubtful.is_empty() || !self.doubtful.remove(&message.row) {
            return fate; // hardly ever anything else
        }
        match fate {
            Fate::Unroutable(why) | Fate::Refused(why) | Fate::QueueRefused(why) => {
                Fate::Unknown(format!("it may have arrived before a connection broke, and was sent again: {why}"))
            }
            fate => fate,
        }
    }

    /// Whether nothing more is sent to this place for now, after whose messages the broker was silent: if it is silent
    /// on a second connection too, perhaps to another host, it is not the connection. A place of which that is known is
    /// not tried twice again: a queue without a majority keeps the whole channel for each message that asks.
    pub(super) fn is_given_up(&mut self, place: &str) -> bool {
        let is_known = self.silent.as_deref() == Some(place);
        if self.silences > 1 && !is_known {
            self.silent = Some(place.to_owned());
        }
        is_known || self.silences > 1
    }

    /// The channel broke while these were in flight (in order). Gives the message that is at fault, if that is known.
    pub(super) fn broke(&mut self, in_flight: Vec<Outgoing>, why: &Broken) -> Option<(Outgoing, Fate)> {
        let count = in_flight.len();
        let was_careful = self.is_careful();
        // a broker that refuses one takes none behind it, and what it took before is confirmed as a rule
        if !matches!(why, Broken::Refused(..)) {
            self.doubtful.extend(in_flight.iter().map(|message| message.row));
        }
        for message in in_flight.into_iter().rev() {
            self.messages.push_front(message);
        }
        match why {
            _ if count == 0 => None,
            // an exchange that was known may be gone: check it once more
            Broken::Refused(404, _) if !was_careful => {
                self.suspects = count;
                None
            }
            Broken::Refused(_, text) if count == 1 => {
                self.suspects = self.suspects.saturating_sub(1);
                Some((self.messages.pop_front()?, Fate::Refused(text.clone())))
            }
            Broken::Refused(..) => {
                self.suspects = self.suspects.max(count);
                None
            }
            Broken::Silent { .. } => {
                self.silences += 1;
                None
            }
            Broken::Otherwise(text) => {
                self.breaks += 1;
                if self.breaks < BREAKS_MAX {
                    return None;
                }
                if count > 1 {
                    self.suspects = self.suspects.max(count);
                    return None;
                }
                self.suspects = self.suspects.saturating_sub(1);
                self.breaks = 0;
                let text = format!("the connection broke {BREAKS_MAX} times over this message: {text}");
                Some((self.messages.pop_front()?, Fate::Unknown(text)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{Destination, Envelope};
    use std::sync::Arc;
    use uuid::Uuid;

    fn messages(numbers: impl IntoIterator<Item = u128>) -> Vec<Outgoing> {
        let envelope = Arc::new(Envelope::new("m", "t", "{}"));
        let message = |n| Outgoing::new(Uuid::from_u128(n), Destination::Event("e".into()), envelope.clone());
        numbers.into_iter().map(message).collect()
    }

    /// Publishes all messages to a broker that refuses some. Returns how often each was published, which were confirmed
    /// (in order), which were refused, and how many channels it took.
    fn publish(count: u128, bad: &[u128], window: usize, code: u16) -> (Vec<u32>, Vec<u128>, Vec<u128>, usize) {
        let mut unsent = Unsent::default();
        unsent.extend(messages(0..count));
        let (mut published, mut confirmed, mut refused) = (vec![0; count as usize], Vec::new(), Vec::new());
        let mut channels = 1;
        while !unsent.is_empty() {
            let size = if unsent.is_careful() { 1 } else { window };
            let flight: Vec<Outgoing> = std::iter::from_fn(|| unsent.take()).take(size).collect();
            let numbers: Vec<u128> = flight.iter().map(|message| message.row.as_u128()).collect();
            numbers.iter().for_each(|n| published[*n as usize] += 1);
            // the broker took those before the bad one, but its confirms are lost
            if numbers.iter().any(|n| bad.contains(n)) {
                channels += 1;
                if let Some((culprit, fate)) = unsent.broke(flight, &Broken::Refused(code, "no".into())) {
                    assert_eq!(fate, Fate::Refused("no".into()));
                    refused.push(culprit.row.as_u128());
                }
            } else {
                numbers.iter().for_each(|_| unsent.reported(&Fate::Confirmed));
                confirmed.extend(numbers);
            }
        }
        (published, confirmed, refused, channels)
    }

    #[test]
    fn the_culprit_is_found_and_everything_else_is_published_once_more_at_most() {
        for code in [403, 404, 406, 501] {
            for window in [1, 7, 100] {
                let bad = [3, 40, 41, 60, 99];
                let (published, confirmed, refused, channels) = publish(100, &bad, window, code);
                assert_eq!(refused, bad, "window of {window}");
                assert!(confirmed.iter().copied().eq((0..100).filter(|n| !bad.contains(n))), "in order: {confirmed:?}");
                assert!(published.iter().all(|times| *times <= 2), "{published:?}");
                assert!(channels <= 1 + 2 * bad.len(), "{channels} channels");
            }
        }
    }

    #[test]
    fn a_broker_that_restarts_accuses_nobody() {
        let mut unsent = Unsent::default();
        let restart = Broken::Otherwise("CONNECTION_FORCED".into());
        assert!(unsent.broke(messages(0..10), &restart).is_none());
        assert!(!unsent.is_careful(), "they go together again");
        assert!(unsent.messages.iter().map(|message| message.row.as_u128()).eq(0..10));
    }

    #[test]
    fn where_the_broker_is_silent_one_place_is_given_up_and_the_others_go_again() {
        let mut unsent = Unsent::default();
        assert!(unsent.broke(messages(0..10), &Broken::Refused(403, "no".into())).is_none());
        assert!(unsent.is_careful(), "all ten are under suspicion");
        let silent = Broken::Silent { place: "q".into(), why: "no confirm".into() };
        let first = unsent.take().into_iter().collect();
        assert!(unsent.broke(first, &silent).is_none() && !unsent.is_given_up("q"));
        // a queue without a majority refuses now and then, and all behind it waits
        unsent.reported(&Fate::QueueRefused("nack".into()));
        let first = unsent.take().into_iter().collect();
        assert!(unsent.broke(first, &silent).is_none() && unsent.is_given_up("q"));
        unsent.reported(&Fate::Confirmed);
        assert!(unsent.is_given_up("q"), "it is known by now");
        assert!(!unsent.is_given_up("other"));
        unsent.extend(messages(10..13));
        let given_up = unsent.give_up(|message| message.row.as_u128() % 3 == 0);
        assert!(given_up.iter().map(|message| message.row.as_u128()).eq([0, 3, 6, 9, 12]));
        assert_eq!((unsent.suspects, unsent.messages.len()), (5, 8), "those that are left are under suspicion");
    }

    #[test]
    fn a_message_that_breaks_connections_without_a_word_is_given_back() {
        let mut unsent = Unsent::default();
        let cut = Broken::Otherwise("connection reset".into());
        let mut flights = Vec::new();
        unsent.extend(messages(0..3));
        for _ in 0..20 {
            let size = if unsent.is_careful() { 1 } else { 3 };
            let flight: Vec<Outgoing> = std::iter::from_fn(|| unsent.take()).take(size).collect();
            flights.push(flight.len());
            if flight[0].row.as_u128() == 0
                && let Some((message, Fate::Unknown(why))) = unsent.broke(flight, &cut)
            {
                assert_eq!(message.row.as_u128(), 0);
                assert!(why.contains("connection reset"), "{why}");
                assert_eq!(flights, [3, 3, 3, 1], "together, then alone");
                return;
            }
        }
        panic!("it was never given back: {flights:?}");
    }

    /// Who reads that it did not arrive may send it again by another name.
    #[test]
    fn what_was_in_flight_when_a_connection_broke_is_never_said_not_to_have_arrived() {
        let mut unsent = Unsent::default();
        let all = messages(0..5);
        unsent.broke(all.clone(), &Broken::Otherwise("connection reset".into()));
        let fates =
            [Fate::Unroutable("no queue".into()), Fate::Refused("no".into()), Fate::QueueRefused("nack".into())];
        for (message, fate) in all.iter().zip(fates) {
            let said = unsent.in_doubt(message, fate.clone());
            assert!(matches!(said, Fate::Unknown(_)), "{fate:?}: {said:?}");
            assert_eq!(unsent.in_doubt(message, fate.clone()), fate, "when it is sent once more, only that counts");
        }
        assert_eq!(unsent.in_doubt(&all[3], Fate::Confirmed), Fate::Confirmed);
        assert_eq!(unsent.in_doubt(&all[4], Fate::Unanswered("q".into())), Fate::Unanswered("q".into()));
        assert!(unsent.doubtful.is_empty());
        unsent.broke(messages(0..5), &Broken::Refused(403, "no".into()));
        assert!(unsent.doubtful.is_empty(), "the one at fault is refused");
    }
}
