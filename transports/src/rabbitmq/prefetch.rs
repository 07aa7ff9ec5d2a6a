//! How many deliveries may be unsettled: a limit in messages, and one in bytes. A delivery may be a bundle of many
//! messages, and quorum queues have no limit in bytes. So the consumer begins with as many deliveries as fit if all
//! have the maximum size, and is replaced by one with a larger prefetch when they prove to be small, and the endpoint
//! to be quick: what waits here cannot be taken by another process of the service. When deliveries prove to be large,
//! acknowledgements wait: each would let another one come. So many may wait then that the prefetch shrinks again.
//!
//! A larger prefetch needs room beside the running consumer's, whose deliveries are all unacknowledged when it is
//! replaced. One of more than two fifths of what is wanted has no room for much more beside it. When it proves to be
//! too small, a small one follows it, a bridge, and the large one when the deliveries before the bridge are settled.
//!
//! The broker sends everything at once that a consumer may have. When deliveries suddenly become larger, one whole
//! prefetch of them is under way: by that much the limits can be exceeded here (what the endpoint has in hand never
//! exceeds the limit in messages: `group.rs`).

use super::bundle;
use saga_core::LinkLimits;
use std::time::Duration;
use tokio::time::Instant;

/// The weight of a delivery besides its body.
const ENVELOPE_BYTES: usize = 512;
/// A prefetch grows at most by this factor: a few messages say little about the next thousand.
const GROWTH_MAX: usize = 8;
/// The consumer is replaced by one with a smaller prefetch when that one is no more than this part of it.
const SHRINKS_TO: usize = 4;
/// The moving average covers about this many messages: the newest has a weight of one in this number.
const AVERAGE_OF: usize = 32;
/// The prefetch grows beyond what runs at the same time only while a full one takes the endpoint no longer than this.
const WORK: Duration = Duration::from_millis(500);
/// A bridge lasts until the earlier consumers' unacknowledged deliveries are this part of what is wanted.
const REMAINDER: usize = 16;
/// This many deliveries may be unsettled whatever their weight: one that is never settled must not stop the others.
const FEW: usize = 4;

#[derive(Debug)]
pub(super) struct Prefetch {
    messages_max: usize,
    bytes_max: usize,
    /// How many messages the endpoint handles at the same time.
    parallel: usize,
    /// The prefetch of the running consumer.
    current: usize,
    /// Deliveries since the consumer began, or since a replacement was last considered.
    came: usize,
    /// Unsettled deliveries; and their messages and bytes.
    unsettled: usize,
    messages: Amount,
    bytes: Amount,
    pace: Pace,
    bridge: Option<Bridge>,
}

/// The running consumer is one: it is there to make room.
#[derive(Debug)]
struct Bridge {
    /// What the endpoint could do soon, measured before: behind a bridge it has too little to do to be measured.
    useful: usize,
    /// Unacknowledged deliveries of earlier consumers when they were last looked at.
    older: usize,
}

/// How long a full prefetch takes the endpoint: from the delivery that completes it until that one is settled. It is
/// measured anew for each consumer: behind a smaller prefetch, deliveries wait less.
#[derive(Debug, Default)]
struct Pace {
    /// The tag that is being timed.
    timed: Option<(u64, Instant)>,
    takes: Option<Duration>,
}

/// Messages or bytes.
#[derive(Debug, Default)]
struct Amount {
    unsettled: usize,
    /// Of a delivery: a moving average.
    average: f64,
}

impl Amount {
    fn came(&mut self, amount: usize) {
        self.unsettled += amount;
        let weight = if self.average == 0.0 { 1.0 } else { 1.0 / AVERAGE_OF as f64 };
        self.average += weight * (amount as f64 - self.average);
    }

    fn settled(&mut self, amount: usize) {
        self.unsettled = self.unsettled.saturating_sub(amount);
    }

    /// How many deliveries have this much together, if they are like those before or like the unsettled ones.
    fn deliveries(&self, amount: usize, unsettled: usize) -> usize {
        let average = self.average.max(self.unsettled as f64 / unsettled.max(1) as f64).max(1.0);
        (amount as f64 / average) as usize
    }
}

impl Prefetch {
    pub(super) fn new(limits: &LinkLimits) -> Self {
        let messages_max = usize::from(limits.prefetch.max(1));
        let bytes_max = limits.prefetch_bytes.max(1);
        let largest = limits.body_bytes_max.max(bundle::BYTES_MAX).saturating_add(ENVELOPE_BYTES);
        let current = (bytes_max / largest).clamp(1, messages_max);
        let parallel = limits.parallel;
        let (came, unsettled, messages, bytes, pace, bridge) = Default::default();
        Self { messages_max, bytes_max, parallel, current, came, unsettled, messages, bytes, pace, bridge }
    }

    /// The prefetch of the running consumer.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// The most messages that the endpoint has at a time.
    pub(super) fn messages_max(&self) -> usize {
        self.messages_max
    }

    /// Notes a delivery with this many messages, and a body of this size.
    pub(super) fn came(&mut self, tag: u64, messages: usize, body_bytes: usize) {
        self.came += 1;
        if self.came >= self.current {
            self.pace.timed.get_or_insert_with(|| (tag, Instant::now()));
        }
        self.unsettled += 1;
        self.messages.came(messages);
        self.bytes.came(body_bytes + ENVELOPE_BYTES);
    }

    /// A message was settled.
    pub(super) fn message_settled(&mut self) {
        self.messages.settled(1);
    }

    /// The last message of a delivery was settled. A later delivery than the timed one counts too, so that a single
    /// slow lane does not hide the others.
    pub(super) fn settled(&mut self, tag: u64, body_bytes: usize) {
        if let Some((_, since)) = self.pace.timed.take_if(|(timed, _)| tag >= *timed) {
            self.pace.takes = Some(since.elapsed());
        }
        self.unsettled = self.unsettled.saturating_sub(1);
        self.bytes.settled(body_bytes + ENVELOPE_BYTES);
    }

    /// How many deliveries have this many messages and bytes.
    fn deliveries(&self, messages: usize, bytes: usize) -> usize {
        let unsettled = self.unsettled;
        self.messages.deliveries(messages, unsettled).min(self.bytes.deliveries(bytes, unsettled))
    }

    /// How many deliveries the endpoint can do soon, as far as the running consumer has told.
    fn useful(&self) -> usize {
        let takes = self.pace.takes.map(|takes| takes.as_secs_f64().max(1e-6));
        let quick = takes.map_or(0.0, |takes| WORK.as_secs_f64() / takes * self.current as f64);
        (quick as usize).max(self.parallel.saturating_mul(2))
    }

    /// The prefetch of the next consumer, if the change is worth it. `older` deliveries of earlier consumers are
    /// unacknowledged.
    pub(super) fn next(&mut self, older: usize) -> Option<usize> {
        if self.came < self.current {
            return None;
        }
        let wanted = self.deliveries(self.messages_max, self.bytes_max).clamp(1, self.messages_max);
        if wanted <= self.current / SHRINKS_TO {
            return (self.unsettled <= wanted).then_some(wanted);
        }
        if let Some(bridge) = &mut self.bridge
            && older > wanted / REMAINDER
            && older < bridge.older
        {
            bridge.older = older;
            self.came = 0;
            return None;
        }
        let useful = self.bridge.as_ref().map_or_else(|| self.useful(), |bridge| bridge.useful);
        // the change is made when the running consumer has its full prefetch unacknowledged
        let room = wanted.saturating_sub(self.current + older);
        let next = room.min(self.current.saturating_mul(GROWTH_MAX)).min(useful);
        let worth_it = self.current + self.current.div_ceil(2);
        if next >= worth_it {
            return Some(next);
        }
        self.bridge = None;
        let bridge = wanted / GROWTH_MAX;
        let behind_it = useful.min(wanted - bridge);
        let is_stuck = wanted < self.current + worth_it && older <= wanted / REMAINDER;
        (is_stuck && bridge >= FEW && behind_it >= self.current + self.current.div_ceil(3)).then_some(bridge)
    }

    /// A consumer with this prefetch runs now.
    pub(super) fn runs(&mut self, current: usize) {
        self.bridge = (current < self.current).then(|| Bridge { useful: self.useful(), older: usize::MAX });
        self.current = current;
        self.suffices();
    }

    /// Do not replace the consumer now: messages come so slowly that its prefetch is enough.
    pub(super) fn suffices(&mut self) {
        self.came = 0;
        self.pace = Pace::default();
    }

    /// How many settled deliveries may be acknowledged. `free` more messages may come in any case.
    pub(super) fn acknowledgeable(&self, free: usize) -> usize {
        if self.unsettled == 0 {
            return usize::MAX; // what is held back would come again when the connection breaks
        }
        let messages = self.messages_max.saturating_sub(self.messages.unsettled);
        let room = self.deliveries(messages, self.bytes_max.saturating_sub(self.bytes.unsettled));
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
        /// Deliveries so far, and those that are settled: in order, so these are tags.
        came: u64,
        settled: u64,
        /// Unsettled deliveries: messages, bytes, and whether the running consumer brought it.
        unsettled: VecDeque<(usize, usize, bool)>,
        /// Settled but unacknowledged deliveries: whether the running consumer brought it.
        untold: VecDeque<bool>,
        /// Deliveries that are never settled.
        stuck: usize,
        /// Messages in a delivery.
        messages: usize,
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
            let credit = prefetch.current();
            let (came, settled, unsettled, untold, stuck, most_bytes, most, changes) = Default::default();
            let messages = 1;
            Self { prefetch, credit, came, settled, unsettled, untold, stuck, messages, most_bytes, most, changes }
        }

        /// Sends messages with bodies of this size. The endpoint settles one as soon as nothing more comes.
        fn send(&mut self, messages: usize, bytes: usize) {
            for _ in 0..messages {
                while self.credit == 0 {
                    self.settle();
                }
                self.credit -= 1;
                self.came += 1;
                self.prefetch.came(self.came, self.messages, bytes);
                self.unsettled.push_back((self.messages, bytes, true));
                self.most = self.most.max(self.unsettled.len() + self.untold.len());
                self.most_bytes = self.most_bytes.max(self.unsettled.iter().map(|(_, bytes, _)| bytes).sum());
                self.change();
            }
        }

        fn settle(&mut self) {
            let (messages, bytes, is_current) =
                self.unsettled.pop_front().expect("nothing more comes, so something is unsettled");
            (0..messages).for_each(|_| self.prefetch.message_settled());
            self.settled += 1;
            self.prefetch.settled(self.settled, bytes);
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
                self.unsettled.iter_mut().for_each(|(.., is_current)| *is_current = false);
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
    fn bundles_count_as_what_is_in_them() {
        let mut line = Line::new(1000, 64 << 20);
        line.messages = 50;
        line.send(300, 20_000);
        assert!((15..=20).contains(&line.most), "{} bundles of 50 at a time", line.most);
        line.messages = 1;
        line.send(3000, 300);
        assert!(line.prefetch.current() >= 700, "{:?}", line.prefetch);
        line.messages = 50;
        line.send(1500, 20_000);
        line.most_bytes = 0;
        line.send(100, 20_000);
        assert!(line.most_bytes <= 20 * 20_000, "acknowledgements wait: {} bytes", line.most_bytes);
    }

    /// Of an endpoint that handles few messages at the same time.
    fn of_few_at_a_time() -> Prefetch {
        Prefetch { parallel: 2, ..Prefetch::new(&LinkLimits::default()) }
    }

    /// What is wanted when a full prefetch, of the deliveries behind this tag, took the endpoint so long.
    async fn next_after(prefetch: &mut Prefetch, tag: u64, millis: u64) -> Option<usize> {
        let tags = tag + 1..=tag + prefetch.current() as u64;
        tags.clone().for_each(|tag| prefetch.came(tag, 1, 300));
        assert_eq!(prefetch.next(0), None, "it is not settled yet");
        tokio::time::advance(Duration::from_millis(millis)).await;
        for tag in tags {
            prefetch.message_settled();
            prefetch.settled(tag, 300);
        }
        prefetch.next(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_takes_no_more_than_it_can_do_soon() {
        let first = of_few_at_a_time().current();
        for (millis, next) in [(2000, None), (250, Some(2 * first)), (1, Some(GROWTH_MAX * first))] {
            assert_eq!(next_after(&mut of_few_at_a_time(), 0, millis).await, next, "{millis} ms");
        }
        let mut carriers = Prefetch { parallel: 50, ..of_few_at_a_time() };
        (0..first as u64).for_each(|tag| carriers.came(tag, 1, 300));
        assert_eq!(carriers.next(0), Some(100), "50 handlers wait for a carrier");
    }

    /// Else it would grow again and again by the pace of the first few.
    #[tokio::test(start_paused = true)]
    async fn a_larger_prefetch_is_measured_anew() {
        let mut prefetch = of_few_at_a_time();
        let first = prefetch.current();
        let next = next_after(&mut prefetch, 0, 200).await.expect("it grows");
        prefetch.runs(next);
        assert_eq!(next_after(&mut prefetch, first as u64, 450).await, None);
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

    /// The bridge is crossed although some of what came before it is never settled; and there is no second one.
    #[test]
    fn a_prefetch_with_no_room_beside_it_grows_over_a_bridge() {
        for stuck in [0, 40, 300] {
            let mut line = Line::new(1000, 64 << 20);
            line.prefetch.runs(600);
            line.credit = 600;
            line.send(600, 300);
            line.unsettled.drain(..stuck).for_each(drop);
            line.stuck = stuck;
            line.send(20_000, 300);
            let (most, least) = (1000 - stuck, if stuck < 200 { 700 } else { 500 });
            assert!((least..=most).contains(&line.prefetch.current()), "{stuck} stuck: {:?}", line.prefetch);
            assert!(line.changes == 2 && line.most <= 1000, "{stuck} stuck: {} changes", line.changes);
        }
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
