//! How many deliveries may be unsettled: the endpoint's limit in messages, and one in bytes. A quorum queue knows neither a
//! limit in bytes nor one that changes while a consumer lives, so the limit in bytes becomes one in messages, by what bodies
//! weigh lately, and a consumer that has the wrong one is replaced (on the same channel: what is unsettled stays valid).
//!
//! The broker sends what a consumer may have at once. When bodies suddenly become larger, one prefetch of them is on its way:
//! that is how far the limit can be exceeded.

use saga_core::LinkLimits;

/// What a message weighs besides its body.
const ENVELOPE_BYTES: usize = 512;
/// A prefetch grows by this factor at most: a few messages say little about the next thousand.
const GROWTH_MAX: usize = 8;
/// Weight of the newest message in the average: one of so many.
const AVERAGE_OF: usize = 32;

#[derive(Debug)]
pub(super) struct Prefetch {
    messages_max: usize,
    bytes_max: usize,
    /// The prefetch of the consumer that runs.
    current: usize,
    /// Deliveries since it began.
    came: usize,
    /// Tags up to here are of consumers before it.
    boundary: u64,
    /// Their unsettled deliveries.
    older: usize,
    unsettled: usize,
    unsettled_bytes: usize,
    average: usize,
}

impl Prefetch {
    pub(super) fn new(limits: &LinkLimits) -> Self {
        let messages_max = usize::from(limits.prefetch.max(1));
        let bytes_max = limits.prefetch_bytes.max(1);
        // nothing is known yet, so the first bodies may be as large as they are allowed to be
        let largest = limits.body_bytes_max.saturating_add(ENVELOPE_BYTES);
        let current = (bytes_max / largest).clamp(1, messages_max);
        Self {
            messages_max,
            bytes_max,
            current,
            came: 0,
            boundary: 0,
            older: 0,
            unsettled: 0,
            unsettled_bytes: 0,
            average: 0,
        }
    }

    /// The prefetch of the consumer that runs.
    pub(super) fn current(&self) -> u16 {
        self.current.try_into().unwrap_or(u16::MAX)
    }

    /// A delivery with a body of so many bytes came.
    pub(super) fn came(&mut self, body_bytes: usize) {
        let bytes = body_bytes + ENVELOPE_BYTES;
        self.came += 1;
        self.unsettled += 1;
        self.unsettled_bytes += bytes;
        self.average = match self.average {
            0 => bytes,
            average => (average * (AVERAGE_OF - 1)).saturating_add(bytes) / AVERAGE_OF,
        };
    }

    /// It was settled.
    pub(super) fn settled(&mut self, tag: u64, body_bytes: usize) {
        self.unsettled = self.unsettled.saturating_sub(1);
        self.unsettled_bytes = self.unsettled_bytes.saturating_sub(body_bytes + ENVELOPE_BYTES);
        if tag <= self.boundary {
            self.older = self.older.saturating_sub(1);
        }
    }

    /// The prefetch of the consumer that is to replace the one that runs, if that has the wrong one. `last` is the tag
    /// that came last.
    pub(super) fn next(&mut self, last: u64) -> Option<u16> {
        let average = self.average.max(self.unsettled_bytes / self.unsettled.max(1)).max(1);
        let wanted = (self.bytes_max / average).clamp(1, self.messages_max);
        // what is unsettled now is so beside what the next consumer brings
        let room = wanted.saturating_sub(self.unsettled).max(1);
        let next = if self.unsettled_bytes > self.bytes_max || wanted.saturating_add(self.older) <= self.current / 2 {
            room.min(self.current)
        } else if self.came >= self.current {
            // one that is a little better is not worth the change. If the endpoint never catches up, what is unsettled leaves
            // no room for more than 2/5 of what is wanted, which is enough to keep it busy
            let next = room.min(self.current.saturating_mul(GROWTH_MAX));
            let is_better = next >= self.current + self.current.div_ceil(2);
            if is_better || next == self.messages_max { next.max(self.current) } else { self.current }
        } else {
            self.current
        };
        if next == self.current {
            return None;
        }
        self.current = next;
        self.came = 0;
        self.boundary = last;
        self.older = self.unsettled;
        Some(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, time::Duration};

    /// A broker that sends what it may, and an endpoint that settles in order.
    struct Line {
        prefetch: Prefetch,
        last: u64,
        credit: usize,
        /// Unsettled: tag, bytes, and whether the consumer that runs brought it.
        unsettled: VecDeque<(u64, usize, bool)>,
        most_bytes: usize,
        most: usize,
        changes: usize,
    }

    impl Line {
        fn new(prefetch: u16, prefetch_bytes: usize) -> Self {
            let limits = LinkLimits {
                prefetch,
                prefetch_bytes,
                body_bytes_max: 4 << 20,
                window: 1,
                confirm: Duration::ZERO,
                connect: Duration::ZERO,
            };
            let prefetch = Prefetch::new(&limits);
            let credit = prefetch.current.max(1);
            Self { prefetch, last: 0, credit, unsettled: VecDeque::new(), most_bytes: 0, most: 0, changes: 0 }
        }

        /// Sends messages with bodies of so many bytes, of which the endpoint settles one as soon as nothing more comes.
        fn send(&mut self, messages: usize, bytes: usize) {
            for _ in 0..messages {
                while self.credit == 0 {
                    self.settle();
                }
                self.credit -= 1;
                self.last += 1;
                self.prefetch.came(bytes);
                self.unsettled.push_back((self.last, bytes, true));
                self.most = self.most.max(self.unsettled.len());
                self.most_bytes = self.most_bytes.max(self.unsettled.iter().map(|(_, bytes, _)| bytes).sum());
                self.look();
            }
        }

        fn settle(&mut self) {
            let (tag, bytes, is_current) = self.unsettled.pop_front().expect("something is unsettled");
            self.prefetch.settled(tag, bytes);
            self.credit += usize::from(is_current);
            self.look();
        }

        fn look(&mut self) {
            if let Some(next) = self.prefetch.next(self.last) {
                self.changes += 1;
                self.credit = next.into();
                self.unsettled.iter_mut().for_each(|(_, _, is_current)| *is_current = false);
            }
        }
    }

    #[test]
    fn small_messages_soon_have_nearly_all_of_the_prefetch() {
        let mut line = Line::new(1000, 64 << 20);
        line.send(300, 300);
        assert!(line.prefetch.current >= 800, "{:?}", line.prefetch);
        line.send(20_000, 300);
        assert!(line.most <= 1000 && line.changes <= 5, "{} unsettled, {} changes", line.most, line.changes);
        while !line.unsettled.is_empty() {
            line.settle();
        }
        line.send(10, 300);
        assert_eq!(line.prefetch.current, 1000, "all of it, once nothing else is unsettled");
    }

    #[test]
    fn a_small_prefetch_is_never_changed() {
        let mut line = Line::new(10, 64 << 20);
        line.send(1000, 300);
        assert_eq!((line.most, line.changes), (10, 0));
    }

    #[test]
    fn large_bodies_stay_within_the_bytes() {
        let mut line = Line::new(1000, 16 << 20);
        line.send(500, 1_000_000);
        assert!(line.most_bytes <= 17 << 20, "{} bytes", line.most_bytes);
        assert!(line.most >= 12 && line.changes < 10, "{} unsettled, {} changes", line.most, line.changes);
    }

    #[test]
    fn bodies_that_become_larger_or_smaller_change_the_prefetch() {
        let mut line = Line::new(1000, 16 << 20);
        line.send(2000, 300);
        line.most_bytes = 0;
        line.send(1200, 1_000_000);
        assert!(line.prefetch.current <= 20, "{:?}", line.prefetch);
        line.most_bytes = 0;
        line.send(200, 1_000_000);
        assert!(line.most_bytes <= 17 << 20, "{} bytes", line.most_bytes);
        line.send(3000, 300);
        assert!(line.prefetch.current >= 400, "{:?}", line.prefetch);
        assert!(line.changes < 60, "{} changes", line.changes);
    }

    #[test]
    fn a_body_above_all_limits_comes_alone() {
        let mut line = Line::new(1000, 1 << 20);
        line.send(20, 8 << 20);
        assert!(line.most <= 2, "{} at a time", line.most);
    }

    #[test]
    fn a_delivery_that_is_never_settled_stops_nothing() {
        let mut line = Line::new(1000, 16 << 20);
        line.send(1, 100 << 20);
        let _never = line.unsettled.pop_front();
        line.send(100, 300);
        assert_eq!(line.last, 101);
    }
}
