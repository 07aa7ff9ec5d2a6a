//! Returned messages. lapin attaches a return to whichever confirm completes next, and completes the tags of a multiple
//! ack in no particular order. So a return is matched by its message id, and a confirmed message counts as delivered
//! only when every message published before its confirm was seen has been answered. By then any return of it has shown
//! up.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Messages published on one channel and not yet reported.
#[derive(Debug, Default)]
pub(super) struct Window {
    next: u64,
    open: BTreeSet<u64>,
    returned: HashMap<String, String>,
    confirmed: VecDeque<Confirmed>,
}

#[derive(Debug)]
struct Confirmed {
    /// Everything below must be answered first.
    barrier: u64,
    number: u64,
    message_id: String,
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
    pub(super) fn returned(&mut self, message_id: String, text: String) {
        self.returned.insert(message_id, text);
    }

    /// The broker confirmed a message.
    pub(super) fn confirmed(&mut self, number: u64, message_id: String) {
        self.open.remove(&number);
        self.confirmed.push_back(Confirmed { barrier: self.next + 1, number, message_id });
    }

    /// A message was answered, and a return of it would not matter.
    pub(super) fn answered(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Confirmed messages whose returns are known.
    pub(super) fn settled(&mut self, settled: &mut Vec<Settled>) {
        let first_open = self.open.first().copied().unwrap_or(self.next + 1);
        while self.confirmed.front().is_some_and(|confirmed| confirmed.barrier <= first_open) {
            let Some(confirmed) = self.confirmed.pop_front() else { return };
            settled.push((confirmed.number, self.returned.remove(&confirmed.message_id)));
        }
        if self.open.is_empty() && self.confirmed.is_empty() {
            self.returned.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_009_a_return_that_rides_on_a_neighbours_confirm_finds_its_message() {
        let mut window = Window::default();
        let (first, second) = (window.publish(), window.publish());
        let mut settled = Vec::new();
        // `a` was returned; a multiple ack first completes `a` without the return, then `b` with the return of `a`
        window.confirmed(first, "a".into());
        window.settled(&mut settled);
        assert!(settled.is_empty(), "the return of `a` may still show itself on `b`");
        window.returned("a".into(), "NO_ROUTE".into());
        window.confirmed(second, "b".into());
        window.settled(&mut settled);
        assert_eq!(settled, [(first, Some("NO_ROUTE".into())), (second, None)]);
        assert_eq!(window.open(), 0);
    }

    #[test]
    fn later_publishes_do_not_hold_a_confirm_back() {
        let mut window = Window::default();
        let first = window.publish();
        window.confirmed(first, "a".into());
        let later = window.publish();
        let mut settled = Vec::new();
        window.settled(&mut settled);
        assert_eq!(settled, [(first, None)]);
        window.confirmed(later, "b".into());
        settled.clear();
        window.settled(&mut settled);
        assert_eq!(settled, [(later, None)]);
    }
}
