//! Acknowledgements: as few frames as possible, and never one that covers an open delivery.

use std::collections::BTreeMap;

/// The delivery tags of one channel. Tags count from 1; those below `next` are settled.
#[derive(Debug)]
pub(super) struct Acks {
    next: u64,
    /// Settled tags above `next`; `true` once the broker was told.
    above: BTreeMap<u64, bool>,
}

impl Default for Acks {
    fn default() -> Self {
        Self { next: 1, above: BTreeMap::new() }
    }
}

impl Acks {
    /// A delivery was handled.
    pub(super) fn handled(&mut self, tag: u64) {
        self.above.insert(tag, false);
    }

    /// A delivery was given back: the broker has been told.
    pub(super) fn given_back(&mut self, tag: u64) {
        self.above.insert(tag, true);
    }

    /// The tag whose frame settles everything up to it, if one is due. It must be one that the broker was not told of:
    /// a frame that names a tag which the broker knows no more closes the channel.
    pub(super) fn up_to(&mut self) -> Option<u64> {
        let mut due = None;
        while let Some(told) = self.above.remove(&self.next) {
            if !told {
                due = Some(self.next);
            }
            self.next += 1;
        }
        due
    }

    /// How many settled tags the broker was not told of, or was told of one by one behind an open one.
    pub(super) fn waiting(&self) -> usize {
        self.above.len()
    }

    /// The settled tags behind an open one, to be told one by one.
    pub(super) fn take_waiting(&mut self) -> Vec<u64> {
        let waiting = self.above.iter_mut().filter(|(_, told)| !**told);
        waiting
            .map(|(tag, told)| {
                *told = true;
                *tag
            })
            .collect()
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
        assert_eq!(acks.take_waiting(), [2, 3]);
        assert_eq!(acks.take_waiting(), [] as [u64; 0]);
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
    }
}
