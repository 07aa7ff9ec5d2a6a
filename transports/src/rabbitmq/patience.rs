//! What it means that an answer does not come in time: a queue is ill, or the broker is, or both are only busy.
//!
//! A broker that is busy answers other messages meanwhile: of the same place those that were published before, and of
//! other places any. Its answers for one place come in the order of publishing.

use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// The most places whose answers are remembered: the reply queues of other programs come and go.
const PLACES_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Patience {
    /// How long an answer may take.
    confirm: Duration,
    /// When anything was taken.
    last: Instant,
    places: HashMap<String, Answered>,
}

/// What one place has taken.
#[derive(Debug)]
struct Answered {
    /// The newest message.
    number: u64,
    at: Instant,
}

/// Who does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silent {
    /// The place where the message went: the broker answers what was published later.
    Place,
    Broker,
}

impl Patience {
    pub(super) fn new(confirm: Duration) -> Self {
        Self { confirm, last: Instant::now(), places: HashMap::new() }
    }

    /// When anything was taken.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// A message was taken, at this place; `None`: nobody waits for its answer any more.
    pub(super) fn answered(&mut self, number: u64, place: Option<&str>) {
        let at = Instant::now();
        self.last = at;
        let Some(place) = place else { return };
        if let Some(known) = self.places.get_mut(place) {
            *known = Answered { number: known.number.max(number), at };
            return;
        }
        if self.places.len() >= PLACES_MAX {
            let confirm = self.confirm;
            self.places.retain(|_, known| known.at + confirm > at);
        }
        // beyond that a place may count as ill while it is busy: its messages go again
        if self.places.len() < PLACES_MAX {
            self.places.insert(place.to_owned(), Answered { number, at });
        }
    }

    /// Who does not answer a message whose time is up, or `None`: it is busy. `is_passed`: what was published later was
    /// answered.
    pub(super) fn judge(&self, number: u64, place: &str, is_passed: bool) -> Option<Silent> {
        let now = Instant::now();
        let is_recent = |at: Instant| now < at + self.confirm;
        // one that its own place has passed gets no answer any more
        let is_busy = |known: &Answered| is_recent(known.at) && known.number < number;
        if self.places.get(place).is_some_and(is_busy) {
            return None;
        }
        match is_passed {
            true => Some(Silent::Place),
            false => (!is_recent(self.last)).then_some(Silent::Broker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(10);

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    /// Large bodies on a slow path: the last one has not even left this host when its time is up.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_answers_is_busy_and_not_silent() {
        let mut patience = Patience::new(CONFIRM);
        for number in 1..20 {
            pass(2).await;
            patience.answered(number, Some("a"));
            assert_eq!(patience.judge(20, "a", false), None, "after {number} answers");
            assert_eq!(patience.judge(21, "b", false), None, "it is behind those for `a`");
        }
        pass(10).await;
        assert_eq!(patience.judge(20, "a", false), Some(Silent::Broker));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_answers_nothing_while_others_are_answered_is_ill() {
        let mut patience = Patience::new(CONFIRM);
        pass(11).await;
        patience.answered(2, Some("well"));
        assert_eq!(patience.judge(1, "ill", true), Some(Silent::Place));
        assert_eq!(patience.judge(3, "well", true), None, "it answered just now");
        pass(10).await;
        assert_eq!(patience.judge(3, "well", true), Some(Silent::Place));
    }

    /// It had another queue then: an event whose subscriber is gone, say. It would keep its place in the window.
    #[tokio::test(start_paused = true)]
    async fn a_message_that_its_own_place_has_passed_waits_no_longer() {
        let mut patience = Patience::new(CONFIRM);
        patience.answered(2, Some("event"));
        assert_eq!(patience.judge(1, "event", true), Some(Silent::Place));
        assert_eq!(patience.judge(3, "event", false), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_places_that_are_remembered_are_bounded() {
        let mut patience = Patience::new(CONFIRM);
        let fill = |patience: &mut Patience| {
            (0..2 * PLACES_MAX as u64).for_each(|n| patience.answered(n, Some(&format!("reply-{n}"))));
            patience.places.len()
        };
        assert_eq!(fill(&mut patience), PLACES_MAX);
        pass(10).await;
        patience.answered(9999, Some("later"));
        assert_eq!(patience.places.len(), 1, "the others are too old to matter");
        fill(&mut patience);
        assert!(patience.places.contains_key("later"));
    }
}
