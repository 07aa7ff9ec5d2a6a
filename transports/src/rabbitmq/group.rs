//! Deliveries that are passed on together. One by one, each would wake the tasks behind it and cost a unit of work.

use saga_core::Delivery;
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// After a group of at least this size, the first delivery of the next group waits for others: more are on their way. A
/// message that comes alone does not wait.
const BUSY: usize = 4;
/// How long a busy group says something about the next.
const BUSY_FOR: Duration = Duration::from_millis(100);
/// The longest wait. A group waits half as long as recent groups took to be settled, which adds little to a message's
/// time, on fast and slow machines alike. Slow handlers do not make it longer than this.
const GATHER_MAX: Duration = Duration::from_millis(10);

pub(super) struct Group {
    came: VecDeque<Delivery>,
    /// Messages that the endpoint has, and the most that it may have: a bundle may have more of them than fit.
    in_hand: usize,
    most: usize,
    /// When the group is passed on, if not at once.
    until: Option<Instant>,
    /// When the previous group was passed on, if it was a busy one.
    busy: Option<Instant>,
    /// The tag that came last.
    last: u64,
    /// The last tag of the group that is being timed, and when that group was passed on.
    timed: Option<(u64, Instant)>,
    /// How long recent groups took, from here until they were settled.
    took: Option<Duration>,
}

impl Group {
    /// Of at most this many messages, together with those that the endpoint has.
    pub(super) fn new(most: usize) -> Self {
        let (came, in_hand, until, busy, last, timed, took) = Default::default();
        Self { came, in_hand, most, until, busy, last, timed, took }
    }

    /// The messages of a delivery.
    pub(super) fn take(&mut self, tag: u64, messages: impl IntoIterator<Item = Delivery>) {
        self.last = tag;
        self.came.extend(messages);
    }

    /// Whether messages wait until the endpoint has settled others.
    pub(super) fn is_full(&self) -> bool {
        !self.came.is_empty() && self.until.is_none()
    }

    /// The tag that came last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// When to pass the group on. Asked after the first delivery of a group, which begins its wait. A bundle has
    /// gathered already, at its publisher: it does not wait.
    pub(super) fn gathers_until(&mut self) -> Option<Instant> {
        if self.until.is_none() && (1..BUSY).contains(&self.came.len()) {
            self.until = self.wait().map(|wait| Instant::now() + wait);
        }
        self.until
    }

    /// The wait of the next group, if it waits.
    fn wait(&self) -> Option<Duration> {
        let is_busy = self.busy.is_some_and(|busy| busy.elapsed() < BUSY_FOR);
        is_busy.then(|| (self.took.unwrap_or_default() / 2).min(GATHER_MAX))
    }

    /// A message is settled.
    pub(super) fn message_settled(&mut self) {
        self.in_hand = self.in_hand.saturating_sub(1);
    }

    /// A delivery is settled. A later one than those of the timed group counts too, so that a single slow lane does not
    /// hide the others.
    pub(super) fn settled(&mut self, tag: u64) {
        if let Some((last, since)) = self.timed
            && tag >= last
        {
            let now = since.elapsed();
            self.took = Some(self.took.map_or(now, |took| (3 * took + now) / 4));
            self.timed = None;
        }
    }

    /// Passes the group on, or as much of it as the endpoint may have.
    pub(super) fn hand_on(&mut self, deliveries: &mpsc::UnboundedSender<Delivery>) {
        self.until = None;
        self.busy = (self.came.len() >= BUSY).then(Instant::now);
        self.timed.get_or_insert_with(|| (self.last, Instant::now()));
        let passed = self.came.len().min(self.most.saturating_sub(self.in_hand));
        self.in_hand += passed;
        for delivery in self.came.drain(..passed) {
            let _ = deliveries.send(delivery); // the endpoint is gone: it goes back to the broker
        }
    }

    /// Gives back what was not passed on.
    pub(super) fn give_back(&mut self) {
        self.came.clear();
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{Ack, Envelope};
    use std::sync::Arc;

    /// A consumer's groups, and where they are passed on.
    struct Line {
        group: Group,
        deliveries: mpsc::UnboundedSender<Delivery>,
        came: mpsc::UnboundedReceiver<Delivery>,
    }

    impl Line {
        fn new() -> Self {
            let (deliveries, came) = mpsc::unbounded_channel();
            Self { group: Group::new(1000), deliveries, came }
        }

        /// Passes on a group, which is settled after this time.
        async fn pass(&mut self, messages: u64, took: Duration) {
            for _ in 0..messages {
                let envelope = Arc::new(Envelope::new("m", "t", "{}"));
                let delivery = Delivery::new(envelope, Ack::new(|_| {}));
                self.group.take(self.group.last + 1, [delivery]);
            }
            self.group.hand_on(&self.deliveries);
            let handed_on = std::iter::from_fn(|| self.came.try_recv().ok()).count();
            assert_eq!(handed_on as u64, messages, "all are handed on");
            (0..messages).for_each(|_| self.group.message_settled());
            tokio::time::advance(took).await;
            self.group.settled(self.group.last);
        }
    }

    #[test]
    fn the_endpoint_has_no_more_than_it_may_have() {
        let mut line = Line::new();
        line.group = Group::new(3);
        let delivery = || Delivery::new(Arc::new(Envelope::new("m", "t", "{}")), Ack::new(|_| {}));
        line.group.take(1, std::iter::repeat_with(delivery).take(5));
        let mut handed_on = || {
            line.group.hand_on(&line.deliveries);
            std::iter::from_fn(|| line.came.try_recv().ok()).count()
        };
        assert_eq!((handed_on(), handed_on()), (3, 0));
        assert!(line.group.is_full());
        line.group.message_settled();
        line.group.hand_on(&line.deliveries);
        assert_eq!(std::iter::from_fn(|| line.came.try_recv().ok()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_after_a_big_group_does_the_next_one_gather() {
        let mut line = Line::new();
        let unit = Duration::from_millis(1);
        assert_eq!(line.group.wait(), None, "the first message of all waits for nobody");
        line.pass(BUSY as u64 - 1, unit).await;
        assert_eq!(line.group.wait(), None, "a few messages say nothing about the next");
        line.pass(BUSY as u64, unit).await;
        assert!(line.group.wait().is_some(), "more are on their way");
        tokio::time::advance(BUSY_FOR).await;
        assert_eq!(line.group.wait(), None, "it was quiet: a message comes alone again");
        line.pass(BUSY as u64, unit).await;
        let bundle =
            std::iter::repeat_with(|| Delivery::new(Arc::new(Envelope::new("m", "t", "{}")), Ack::new(|_| {})));
        line.group.take(line.group.last + 1, bundle.take(BUSY));
        assert_eq!(line.group.gathers_until(), None, "a bundle waits for nobody");
        line.group.give_back();
        line.pass(1, unit).await;
        assert_eq!(line.group.wait(), None, "a message came alone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_gathers_for_half_of_what_groups_take() {
        let mut line = Line::new();
        for _ in 0..40 {
            line.pass(BUSY as u64, Duration::from_millis(6)).await;
        }
        let wait = line.group.wait().expect("it gathers");
        assert!((2.9..3.1).contains(&(wait.as_secs_f64() * 1e3)), "half of 6 ms was expected, not {wait:?}");
        for _ in 0..40 {
            line.pass(BUSY as u64, Duration::from_millis(90)).await;
        }
        assert_eq!(line.group.wait(), Some(GATHER_MAX), "slow handlers do not make it longer");
    }
}
