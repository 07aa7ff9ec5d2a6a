//! Acknowledgements: as few frames as possible, and never one that covers an open delivery.

use std::collections::{BTreeMap, BTreeSet};

/// The delivery tags of one channel. Tags count from 1; those below `next` are settled.
#[derive(Debug)]
pub(super) struct Acks {
    next: u64,
    /// What is settled above an open delivery, as first and last tag of each run. There is at most one run more than
    /// there are open deliveries, however many messages pass one that takes long.
    runs: BTreeMap<u64, u64>,
    /// Settled tags that the broker was not told of.
    untold: BTreeSet<u64>,
}

impl Default for Acks {
    fn default() -> Self {
        Self { next: 1, runs: BTreeMap::new(), untold: BTreeSet::new() }
    }
}

impl Acks {
    /// A delivery was handled.
    pub(super) fn handled(&mut self, tag: u64) {
        self.untold.insert(tag);
        self.settled(tag);
    }

    /// A delivery was given back: the broker has been told.
    pub(super) fn given_back(&mut self, tag: u64) {
        self.settled(tag);
    }

    fn settled(&mut self, tag: u64) {
        let (mut first, mut last) = (tag, tag);
        if let Some((&before, &until)) = self.runs.range(..tag).next_back()
            && until + 1 == tag
        {
            self.runs.remove(&before);
            first = before;
        }
        if let Some(until) = self.runs.remove(&(tag + 1)) {
            last = until;
        }
        self.runs.insert(first, last);
    }

    /// The tag whose frame settles everything up to it, if one is due. It must be one that the broker was not told of:
    /// a frame that names a tag which the broker knows no more closes the channel.
    pub(super) fn up_to(&mut self) -> Option<u64> {
        self.next = self.runs.remove(&self.next)? + 1;
        let behind = self.untold.split_off(&self.next);
        std::mem::replace(&mut self.untold, behind).pop_last()
    }

    /// How many settled tags the broker was not told of.
    pub(super) fn waiting(&self) -> usize {
        self.untold.len()
    }

    /// The settled tags behind an open one, to be told one by one.
    pub(super) fn take_waiting(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_017_no_frame_covers_an_open_delivery() {
        let mut acks = Acks::default();
        acks.handled(2);
        acks.handled(3);
        assert_eq!(acks.up_to(), None, "1 is open");
        assert_eq!(acks.waiting(), 2);
        assert!(acks.take_waiting().into_iter().eq([2, 3]));
        assert_eq!(acks.waiting(), 0);
        acks.handled(1);
        assert_eq!(acks.up_to(), Some(1), "2 and 3 are no longer known to the broker");
        acks.handled(4);
        acks.handled(5);
        assert_eq!(acks.up_to(), Some(5), "one frame for two");
    }

    #[test]
    fn what_was_given_back_needs_no_frame() {
        let mut acks = Acks::default();
        acks.given_back(1);
        assert_eq!(acks.up_to(), None);
        acks.handled(2);
        assert_eq!(acks.up_to(), Some(2));
        acks.handled(4);
        acks.given_back(3);
        acks.given_back(5);
        assert_eq!(acks.up_to(), Some(4), "5 is no longer known to the broker");
        assert_eq!(acks.up_to(), None);
    }

    #[test]
    fn an_open_delivery_costs_neither_memory_nor_time_however_many_pass_it() {
        const MESSAGES: u64 = 600_000;
        let mut acks = Acks::default();
        let mut told = 0;
        for tag in 2..=MESSAGES {
            acks.handled(tag);
            assert_eq!(acks.up_to(), None, "1 is open");
            if acks.waiting() == 250 {
                told += acks.take_waiting().len() as u64;
            }
            assert!(acks.runs.len() <= 1 && acks.waiting() < 250, "told tags take no room");
        }
        told += acks.take_waiting().len() as u64;
        assert_eq!(told, MESSAGES - 1, "each is told once");
        acks.handled(1);
        assert_eq!((acks.up_to(), acks.next, acks.runs.len()), (Some(1), MESSAGES + 1, 0));
    }

    #[test]
    fn any_order_of_settling_tells_each_tag_once() {
        // every seventh tag stays open to the end, the others are settled in a scattered order
        const TAGS: u64 = 7 * 143;
        let scattered = (1..=TAGS).map(|n| n * 385 % (TAGS + 1)).filter(|tag| *tag > 0);
        let order: Vec<u64> = scattered.clone().filter(|tag| tag % 7 != 0).chain((7..=TAGS).step_by(7)).collect();
        let mut acks = Acks::default();
        let mut told = BTreeSet::new();
        for (n, tag) in order.into_iter().enumerate() {
            acks.handled(tag);
            if n % 10 == 0 {
                let before: Vec<u64> = acks.untold.iter().copied().collect();
                if let Some(tag) = acks.up_to() {
                    assert!(acks.next > tag && told.insert(tag));
                    told.extend(before.into_iter().filter(|before| *before < tag));
                }
                for tag in acks.take_waiting() {
                    assert!(told.insert(tag), "{tag} was told twice");
                }
            }
        }
        if let Some(tag) = acks.up_to() {
            told.extend(1..=tag);
        }
        assert_eq!((told.len() as u64, acks.waiting()), (TAGS, 0));
        assert!(acks.runs.is_empty());
    }
}
