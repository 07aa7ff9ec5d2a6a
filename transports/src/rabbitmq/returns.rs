//! Returned messages. lapin attaches a return to whichever confirm completes next, and completes the tags of a multiple
//! ack in no particular order. So a return is matched by its message id and its address, and a confirmed message counts
//! as delivered only when every message published before its confirm was seen has been answered. By then any return of
//! it has shown up. Where one queue does not confirm, others would wait for it: lapin completes the tags of one ack in
//! one go, so a return has shown up too when the answers were collected many times since.
//!
//! Two messages may have one id and one address: two receivers of an endpoint put the same event off. A return of one
//! counts for both, if both were published before it showed up: a message that goes twice is a duplicate, one that
//! counts as delivered and was not is lost.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// How often the answers are collected before a confirm counts although an earlier message is not answered: each time 5
/// ms have passed for this task, and with them half a second for lapin's.
const COLLECTED: u64 = 100;

/// Messages published on one channel and not yet reported.
#[derive(Debug, Default)]
pub(super) struct Window {
    next: u64,
    /// The last message that was answered.
    last_answered: u64,
    /// How often the answers were collected.
    collected: u64,
    open: BTreeSet<u64>,
    returned: HashMap<Sent, Returned>,
    confirmed: VecDeque<Confirmed>,
}

/// What a return says of its message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) message_id: String,
    pub(super) exchange: String,
    pub(super) routing_key: String,
}

impl Sent {
    /// The queue, whichever way the message went there; the exchange of an event.
    pub(super) fn place(&self) -> &str {
        if self.routing_key.is_empty() { &self.exchange } else { &self.routing_key }
    }
}

#[derive(Debug)]
struct Returned {
    /// The newest message that it may concern.
    newest: u64,
    text: String,
}

#[derive(Debug)]
struct Confirmed {
    /// Everything below must be answered first, or the answers collected so often.
    barrier: u64,
    collected: u64,
    number: u64,
    sent: Sent,
}

/// A message's number with its fate: `None` for delivered, `Some` for returned, with the broker's text.
pub(super) type Settled = (u64, Option<String>);

impl Window {
    /// A message is being published. Returns its number.
    pub(super) fn publish(&mut self) -> u64 {
        self.next += 1;
        self.open.insert(self.next);
        self.next
    }

    /// Messages that are not answered.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// A return has shown up, on any confirm.
    pub(super) fn returned(&mut self, sent: Sent, text: String) {
        self.returned.insert(sent, Returned { newest: self.next, text });
    }

    /// The broker confirmed a message.
    pub(super) fn confirmed(&mut self, number: u64, sent: Sent) {
        self.answered(number);
        let (barrier, collected) = (self.next + 1, self.collected + COLLECTED);
        self.confirmed.push_back(Confirmed { barrier, collected, number, sent });
    }

    /// A message was answered, and a return of it would not matter.
    pub(super) fn answered(&mut self, number: u64) {
        self.open.remove(&number);
        self.last_answered = self.last_answered.max(number);
    }

    /// Whether a message is not answered.
    pub(super) fn awaits(&self, number: u64) -> bool {
        self.open.contains(&number)
    }

    /// Whether the broker has answered a message that was published later.
    pub(super) fn is_passed(&self, number: u64) -> bool {
        number < self.last_answered
    }

    /// A message's answer is no longer waited for.
    pub(super) fn given_up(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// All answers that have arrived are collected.
    pub(super) fn collected(&mut self) {
        self.collected += 1;
    }

    /// Confirmed messages whose returns are known.
    pub(super) fn settled(&mut self, settled: &mut Vec<Settled>) {
        let first_open = self.open.first().copied().unwrap_or(self.next + 1);
        let is_known = |it: &Confirmed| it.barrier <= first_open || it.collected <= self.collected;
        while self.confirmed.front().is_some_and(is_known) {
            let Some(Confirmed { number, sent, .. }) = self.confirmed.pop_front() else { return };
            let returned = self.returned.get(&sent).filter(|returned| number <= returned.newest);
            settled.push((number, returned.map(|returned| returned.text.clone())));
        }
        if !self.returned.is_empty() {
            let unsettled = self.confirmed.iter().map(|confirmed| confirmed.number).min();
            let oldest = unsettled.unwrap_or(first_open).min(first_open);
            self.returned.retain(|_, returned| returned.newest >= oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(message_id: &str) -> Sent {
        Sent { message_id: message_id.into(), ..Sent::default() }
    }

    #[test]
    fn t_009_a_return_that_rides_on_a_neighbours_confirm_finds_its_message() {
        let mut window = Window::default();
        let (first, second) = (window.publish(), window.publish());
        let mut settled = Vec::new();
        // `a` was returned; a multiple ack first completes `a` without the return, then `b` with the return of `a`
        window.confirmed(first, sent("a"));
        window.settled(&mut settled);
        assert!(settled.is_empty(), "the return of `a` may still show itself on `b`");
        window.returned(sent("a"), "NO_ROUTE".into());
        window.confirmed(second, sent("b"));
        window.settled(&mut settled);
        assert_eq!(settled, [(first, Some("NO_ROUTE".into())), (second, None)]);
        assert_eq!(window.open(), 0);
    }

    #[test]
    fn later_publishes_do_not_hold_a_confirm_back() {
        let mut window = Window::default();
        let first = window.publish();
        window.confirmed(first, sent("a"));
        let later = window.publish();
        let mut settled = Vec::new();
        window.settled(&mut settled);
        assert_eq!(settled, [(first, None)]);
        window.confirmed(later, sent("b"));
        settled.clear();
        window.settled(&mut settled);
        assert_eq!(settled, [(later, None)]);
    }

    #[test]
    fn a_message_that_gets_no_answer_keeps_the_others_no_longer_than_a_return_may_take() {
        let mut window = Window::default();
        let (silent, returned, arrived) = (window.publish(), window.publish(), window.publish());
        let mut settled = Vec::new();
        window.confirmed(returned, sent("a"));
        window.returned(sent("a"), "NO_ROUTE".into());
        window.confirmed(arrived, sent("b"));
        for _ in 1..COLLECTED {
            window.collected();
            window.settled(&mut settled);
        }
        assert!(settled.is_empty(), "a return may still show itself");
        window.collected();
        window.settled(&mut settled);
        assert_eq!(settled, [(returned, Some("NO_ROUTE".into())), (arrived, None)]);
        assert!(window.is_passed(silent) && !window.is_passed(arrived));
        window.given_up(silent);
        let next = window.publish();
        window.confirmed(next, sent("c"));
        settled.clear();
        window.settled(&mut settled);
        assert_eq!(settled, [(next, None)], "nothing is waited for any more");
    }

    #[test]
    fn a_return_does_not_concern_what_was_published_after_it() {
        let mut window = Window::default();
        let first = window.publish();
        window.returned(sent("a"), "NO_ROUTE".into());
        let later = window.publish();
        window.confirmed(first, sent("a"));
        window.confirmed(later, sent("a"));
        let mut settled = Vec::new();
        window.settled(&mut settled);
        assert_eq!(settled, [(first, Some("NO_ROUTE".into())), (later, None)]);
    }

    #[test]
    fn two_messages_with_one_id_that_both_come_back_are_both_returned() {
        let mut window = Window::default();
        let (first, second, third) = (window.publish(), window.publish(), window.publish());
        let mut settled = Vec::new();
        window.returned(sent("a"), "NO_ROUTE".into());
        window.confirmed(first, sent("a"));
        window.returned(sent("a"), "NO_ROUTE".into());
        window.confirmed(second, sent("a"));
        // the same message to another queue, which is there
        window.confirmed(third, Sent { routing_key: "there".into(), ..sent("a") });
        window.settled(&mut settled);
        let returned = Some("NO_ROUTE".to_owned());
        assert_eq!(settled, [(first, returned.clone()), (second, returned), (third, None)]);
        settled.clear();
        let later = window.publish();
        window.confirmed(later, sent("a"));
        window.settled(&mut settled);
        assert_eq!(settled, [(later, None)], "it was published after the returns");
        assert!(window.returned.is_empty());
    }
}
