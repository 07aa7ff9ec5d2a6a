//! Acknowledgements: as few frames as possible, and never one that covers an open delivery.

use std::collections::{BTreeMap, BTreeSet};

/// The delivery tags of one channel. They count from 1, through all consumers that follow each other on it.
#[derive(Debug)]
pub(super) struct Acks {
    /// All tags below it are settled.
    next: u64,
    /// What is settled above an open delivery, as the first and last tag of each run. The number of runs exceeds the
    /// open deliveries by at most one, however many messages pass a slow one.
    runs: BTreeMap<u64, u64>,
    /// Settled tags that the broker does not know of yet.
    untold: BTreeSet<u64>,
    /// The last tag of the consumers before the one that runs.
    boundary: u64,
    /// Unacknowledged tags: of those earlier consumers, and of the running one.
    older: usize,
    current: usize,
}

impl Default for Acks {
    fn default() -> Self {
        let (runs, untold) = Default::default();
        Self { next: 1, runs, untold, boundary: 0, older: 0, current: 0 }
    }
}

impl Acks {
    /// Notes a new delivery.
    pub(super) fn came(&mut self) {
        self.current += 1;
    }

    /// Another consumer runs. Tags up to this one belong to earlier consumers.
    pub(super) fn consumer_changed(&mut self, boundary: u64) {
        self.boundary = boundary;
        self.older += std::mem::take(&mut self.current);
    }

    /// Unacknowledged deliveries of the running consumer.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Unacknowledged deliveries of earlier consumers.
    pub(super) fn older(&self) -> usize {
        self.older
    }

    /// A delivery was handled.
    pub(super) fn handled(&mut self, tag: u64) {
        self.untold.insert(tag);
        self.settled(tag);
    }

    /// A delivery was given back: the broker has been told.
    pub(super) fn given_back(&mut self, tag: u64) {
        self.told(tag);
        self.settled(tag);
    }

    fn told(&mut self, tag: u64) {
        let of_consumer = if tag <= self.boundary { &mut self.older } else { &mut self.current };
        *of_consumer = of_consumer.saturating_sub(1);
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

    /// How many settled tags the broker does not know of yet.
    pub(super) fn waiting(&self) -> usize {
        self.untold.len()
    }

    /// The frames that acknowledge settled tags, lowest first: all of earlier consumers, whom nothing more comes to,
    /// and at most `most` of the running one. Each is a tag, and whether it covers all below. A frame must name a tag
    /// that is still unacknowledged: the broker closes the channel over any other.
    pub(super) fn frames(&mut self, most: usize) -> Vec<(u64, bool)> {
        if let Some(last) = self.runs.remove(&self.next) {
            self.next = last + 1;
        }
        let (mut frames, mut together) = (Vec::new(), None);
        let mut left = most;
        while let Some(tag) = self.untold.first().copied() {
            if tag > self.boundary {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            self.untold.pop_first();
            self.told(tag);
            if tag < self.next {
                together = Some((tag, true));
            } else {
                frames.push((tag, false));
            }
        }
        together.into_iter().chain(frames).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(acks: &mut Acks) -> Vec<(u64, bool)> {
        acks.frames(usize::MAX)
    }

    #[test]
    fn t_017_no_frame_covers_an_open_delivery() {
        let mut acks = Acks::default();
        acks.handled(2);
        acks.handled(3);
        assert_eq!(acks.waiting(), 2);
        assert_eq!(all(&mut acks), [(2, false), (3, false)], "1 is open");
        assert_eq!(acks.waiting(), 0);
        acks.handled(1);
        assert_eq!(all(&mut acks), [(1, true)], "2 and 3 are no longer known to the broker");
        acks.handled(4);
        acks.handled(5);
        assert_eq!(all(&mut acks), [(5, true)], "one frame for two");
    }

    #[test]
    fn what_was_given_back_needs_no_frame() {
        let mut acks = Acks::default();
        acks.given_back(1);
        assert_eq!(all(&mut acks), []);
        acks.handled(2);
        assert_eq!(all(&mut acks), [(2, true)]);
        acks.handled(4);
        acks.given_back(3);
        acks.given_back(5);
        assert_eq!(all(&mut acks), [(4, true)], "5 is no longer known to the broker");
        assert_eq!(all(&mut acks), []);
    }

    #[test]
    fn some_can_wait() {
        let mut acks = Acks::default();
        for tag in [1, 2, 3, 5, 6] {
            acks.came();
            acks.handled(tag);
        }
        assert_eq!(acks.frames(2), [(2, true)]);
        assert_eq!(acks.frames(2), [(3, true), (5, false)]);
        assert_eq!(acks.frames(0), []);
        assert_eq!((acks.waiting(), acks.current()), (1, 1));
        acks.handled(4);
        assert_eq!(acks.frames(1), [(4, true)]);
        assert_eq!(acks.frames(1), [(6, true)]);
    }

    #[test]
    fn unacknowledged_deliveries_are_counted_by_consumer() {
        let mut acks = Acks::default();
        for _ in 1..=4 {
            acks.came();
        }
        acks.handled(1);
        assert_eq!((acks.older(), acks.current()), (0, 4), "the broker is not told yet");
        acks.consumer_changed(4);
        acks.came();
        acks.came();
        assert_eq!((acks.older(), acks.current()), (4, 2));
        acks.handled(6);
        acks.given_back(2);
        assert_eq!(all(&mut acks), [(1, true), (6, false)]);
        assert_eq!((acks.older(), acks.current()), (2, 1));
    }

    #[test]
    fn an_open_delivery_costs_neither_memory_nor_time_however_many_pass_it() {
        const MESSAGES: u64 = 600_000;
        let mut acks = Acks::default();
        let mut told = 0;
        for tag in 2..=MESSAGES {
            acks.handled(tag);
            if acks.waiting() == 250 {
                told += all(&mut acks).len() as u64;
            }
            assert!(acks.runs.len() <= 1 && acks.waiting() < 250, "told tags take no room");
        }
        told += all(&mut acks).len() as u64;
        assert_eq!(told, MESSAGES - 1, "each is told once");
        acks.handled(1);
        assert_eq!((all(&mut acks), acks.next, acks.runs.len()), (vec![(1, true)], MESSAGES + 1, 0));
    }

    #[test]
    fn any_order_of_settling_tells_each_tag_once() {
        // every seventh tag stays open to the end, the others are settled in a scattered order
        const TAGS: u64 = 7 * 143;
        let scattered = (1..=TAGS).map(|n| n * 385 % (TAGS + 1)).filter(|tag| *tag > 0);
        let order: Vec<u64> = scattered.filter(|tag| tag % 7 != 0).chain((7..=TAGS).step_by(7)).collect();
        assert_eq!(order.len() as u64, TAGS);
        let (mut acks, mut settled, mut told) = (Acks::default(), BTreeSet::new(), BTreeSet::new());
        for (n, tag) in order.into_iter().enumerate() {
            acks.handled(tag);
            settled.insert(tag);
            for (tag, multiple) in acks.frames(if n % 10 == 0 { n % 30 } else { 0 }) {
                assert!(told.insert(tag), "{tag} was told twice");
                if multiple {
                    assert_eq!(settled.range(..=tag).count() as u64, tag, "an open delivery is covered by {tag}");
                    told.extend(1..=tag);
                }
            }
        }
        let last = all(&mut acks);
        told.extend(last.iter().filter(|(_, multiple)| *multiple).flat_map(|(tag, _)| 1..=*tag));
        told.extend(last.into_iter().map(|(tag, _)| tag));
        assert_eq!((told.len() as u64, acks.waiting()), (TAGS, 0));
        assert!(acks.runs.is_empty());
    }
}
