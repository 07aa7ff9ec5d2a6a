//! How many deliveries may be unsettled: a limit in messages, and one in bytes. Quorum queues have no limit in bytes.
//! So the consumer begins with as many messages as fit if all have the maximum size, and is replaced by one with a
//! larger prefetch when bodies prove to be small. When they prove to be large, acknowledgements wait: each would let
//! another message come.
//!
//! The broker sends everything at once that a consumer may have. When bodies suddenly become larger, one whole prefetch
//! of them is under way: by that much the limit in bytes can be exceeded.

use saga_core::LinkLimits;

/// The weight of a message besides its body.
const ENVELOPE_BYTES: usize = 512;
/// A prefetch grows at most by this factor: a few messages say little about the next thousand.
const GROWTH_MAX: usize = 8;
/// The moving average covers about this many messages: the newest has a weight of one in this number.
const AVERAGE_OF: usize = 32;
/// This many messages may be unsettled whatever their weight: one that is never settled must not stop the others.
const FEW: usize = 4;

#[derive(Debug)]
pub(super) struct Prefetch {
    messages_max: usize,
    bytes_max: usize,
    /// The prefetch of the running consumer.
    current: usize,
    /// Deliveries since the consumer began, or since a replacement was last considered.
    came: usize,
    unsettled: usize,
    unsettled_bytes: usize,
    average: usize,
}

impl Prefetch {
    pub(super) fn new(limits: &LinkLimits) -> Self {
        let messages_max = usize::from(limits.prefetch.max(1));
        let bytes_max = limits.prefetch_bytes.max(1);
        let largest = limits.body_bytes_max.saturating_add(ENVELOPE_BYTES);
        let current = (bytes_max / largest).clamp(1, messages_max);
        Self { messages_max, bytes_max, current, came: 0, unsettled: 0, unsettled_bytes: 0, average: 0 }
    }

    /// The prefetch of the running consumer.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Notes a delivery with a body of this size.
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

    /// A delivery with a body of this size was settled.
    pub(super) fn settled(&mut self, body_bytes: usize) {
        self.unsettled = self.unsettled.saturating_sub(1);
        self.unsettled_bytes = self.unsettled_bytes.saturating_sub(body_bytes + ENVELOPE_BYTES);
    }

    fn average(&self) -> usize {
        self.average.max(self.unsettled_bytes / self.unsettled.max(1)).max(1)
    }

    /// The prefetch of the next consumer, if the change is worth it. `older` deliveries of earlier consumers are
    /// unacknowledged.
    pub(super) fn next(&self, older: usize) -> Option<usize> {
        if self.came < self.current || self.current >= self.messages_max {
            return None;
        }
        let wanted = (self.bytes_max / self.average()).clamp(1, self.messages_max);
        // the change is made when the running consumer has its full prefetch unacknowledged
        let next = wanted.saturating_sub(self.current + older).min(self.current.saturating_mul(GROWTH_MAX));
        (next >= self.current + self.current.div_ceil(2)).then_some(next)
    }

    /// A consumer with this prefetch runs now.
    pub(super) fn runs(&mut self, current: usize) {
        self.current = current;
        self.came = 0;
    }

    /// Do not replace the consumer now: messages come so slowly that its prefetch is enough.
    pub(super) fn suffices(&mut self) {
        self.came = 0;
    }

    /// How many settled deliveries may be acknowledged. `free` more messages may come in any case.
    pub(super) fn acknowledgeable(&self, free: usize) -> usize {
        let room = self.bytes_max.saturating_sub(self.unsettled_bytes) / self.average();
        room.max(FEW.saturating_sub(self.unsettled)).saturating_sub(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A broker that sends all it may, and an endpoint that settles in order.
    struct Line {
        prefetch: Prefetch,
        /// What the broker may still send to the running consumer.
        credit: usize,
        /// Unsettled deliveries: bytes, and whether the running consumer brought it.
        unsettled: VecDeque<(usize, bool)>,
        /// Settled but unacknowledged deliveries: whether the running consumer brought it.
        untold: VecDeque<bool>,
        /// Deliveries that are never settled.
        stuck: usize,
        most_bytes: usize,
        most: usize,
        changes: usize,
    }

    impl Line {
        fn new(prefetch: u16, prefetch_bytes: usize) -> Self {
            let mut limits = LinkLimits::default();
            limits.prefetch = prefetch;
            limits.prefetch_bytes = prefetch_bytes;
            let prefetch = Prefetch::new(&limits);
            let (credit, unsettled, untold) = (prefetch.current(), VecDeque::new(), VecDeque::new());
            Self { prefetch, credit, unsettled, untold, stuck: 0, most_bytes: 0, most: 0, changes: 0 }
        }

        /// Sends messages with bodies of this size. The endpoint settles one as soon as nothing more comes.
        fn send(&mut self, messages: usize, bytes: usize) {
            for _ in 0..messages {
                while self.credit == 0 {
                    self.settle();
                }
                self.credit -= 1;
                self.prefetch.came(bytes);
                self.unsettled.push_back((bytes, true));
                self.most = self.most.max(self.unsettled.len() + self.untold.len());
                self.most_bytes = self.most_bytes.max(self.unsettled.iter().map(|(bytes, _)| bytes).sum());
                self.change();
            }
        }

        fn settle(&mut self) {
            let (bytes, is_current) =
                self.unsettled.pop_front().expect("nothing more comes, so something is unsettled");
            self.prefetch.settled(bytes);
            self.untold.push_back(is_current);
            self.change();
            for _ in 0..self.prefetch.acknowledgeable(self.credit) {
                let Some(is_current) = self.untold.pop_front() else { break };
                self.credit += usize::from(is_current);
            }
        }

        fn change(&mut self) {
            let unacknowledged = self.stuck + self.unsettled.len() + self.untold.len();
            let older = unacknowledged - (self.prefetch.current() - self.credit);
            if self.credit == 0
                && let Some(next) = self.prefetch.next(older)
            {
                self.changes += 1;
                self.prefetch.runs(next);
                self.credit = next;
                self.unsettled.iter_mut().for_each(|(_, is_current)| *is_current = false);
                self.untold.iter_mut().for_each(|is_current| *is_current = false);
            }
        }
    }

    #[test]
    fn small_messages_soon_have_nearly_all_of_the_prefetch() {
        let mut line = Line::new(1000, 64 << 20);
        line.send(300, 300);
        assert!(line.prefetch.current() >= 800, "{:?}", line.prefetch);
        line.send(20_000, 300);
        assert!(line.most <= 1000 && line.changes == 2, "{} unacknowledged, {} changes", line.most, line.changes);
    }

    #[test]
    fn a_small_prefetch_is_never_changed() {
        let mut line = Line::new(10, 64 << 20);
        line.send(1000, 300);
        assert_eq!((line.most, line.changes), (10, 0));
    }

    #[test]
    fn large_bodies_stay_within_the_bytes() {
        for size in [100_000, 1_000_000, 3 << 20] {
            let mut line = Line::new(1000, 16 << 20);
            line.send(500, size);
            assert!(line.most_bytes <= 16 << 20, "{} bytes", line.most_bytes);
            assert!(line.most >= (10 << 20) / size && line.changes < 5, "{} of {size} bytes", line.most);
        }
    }

    #[test]
    fn bodies_that_become_larger_make_acknowledgements_wait() {
        let mut line = Line::new(1000, 16 << 20);
        line.send(2000, 300);
        line.send(1200, 1_000_000);
        line.most_bytes = 0;
        line.send(200, 1_000_000);
        assert!(line.most_bytes <= 16 << 20, "{} bytes", line.most_bytes);
        line.send(3000, 300);
        assert!(line.prefetch.current() >= 700 && line.unsettled.len() >= 700, "{:?}", line.prefetch);
    }

    #[test]
    fn bodies_above_all_limits_come_a_few_at_a_time() {
        let mut line = Line::new(1000, 1 << 20);
        line.send(20, 8 << 20);
        assert!(line.most <= FEW, "{} at a time", line.most);
    }

    #[test]
    fn deliveries_that_are_never_settled_stop_nothing() {
        let mut line = Line::new(1000, 16 << 20);
        line.send(2, 100 << 20);
        line.unsettled.clear();
        line.stuck = 2;
        line.send(1000, 300);
        assert!(line.unsettled.len() <= 1, "one comes after the other");
    }
}
