//! Which queues get bundles. An endpoint that takes them binds its queue to one exchange, by the queue's name. Nobody
//! asks: a bundle is sent there, and if it comes back, its messages go to the queue itself, one by one. A queue whose
//! bundles came back gets single messages for a while.

use super::{
    addresses::Address,
    topology::{Admin, short},
};
use lapin::types::ShortString;
use saga_core::Backoff;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// The exchange for bundles in this format: programs that know another one are not bound to it.
pub(super) const EXCHANGE: &str = "sagabus.bundles.v1";
/// How long a queue gets single messages after a bundle came back; longer each time.
const SINGLE_MIN: Duration = Duration::from_secs(30);
const SINGLE_MAX: Duration = Duration::from_secs(600);
/// The most queues that are remembered: reply queues of other programs come and go. Any further one gets single
/// messages.
const QUEUES_MAX: usize = 1000;

pub(super) struct Bundling {
    endpoint: String,
    exchange: ShortString,
    /// Whether the exchange exists, as far as this connection knows.
    exists: bool,
    /// Whether the broker refuses messages to it: then none is sent any more.
    is_forbidden: bool,
    queues: HashMap<String, Queue>,
}

struct Queue {
    /// Since a bundle was sent, and until one comes back.
    takes_bundles: bool,
    /// How often bundles came back, and until when none is sent.
    returned: u32,
    single_until: Instant,
}

impl Bundling {
    pub(super) fn new(endpoint: &str, exchange: &str) -> Self {
        let exchange = short(exchange).unwrap_or_default();
        let (exists, is_forbidden, queues) = Default::default();
        Self { endpoint: endpoint.to_owned(), exchange, exists, is_forbidden, queues }
    }

    /// On a new connection: makes sure that the exchange exists. Without it, all messages go singly.
    pub(super) async fn begin(&mut self, admin: &mut Admin<'_>, passive: bool) {
        let exists = match passive {
            true => admin.has_exchange(self.exchange.as_str()).await,
            false => admin.declare_bundles().await.map(|()| true),
        };
        self.exists = exists.unwrap_or(false);
    }

    /// The address for a bundle to this queue, unless it gets single messages.
    pub(super) fn of_bundle(&mut self, queue: &str) -> Option<Address> {
        if !self.queues.contains_key(queue) {
            if self.queues.len() >= QUEUES_MAX {
                self.queues.retain(|_, queue| queue.takes_bundles || Instant::now() < queue.single_until);
            }
            if self.queues.len() < QUEUES_MAX {
                let unknown = Queue { takes_bundles: false, returned: 0, single_until: Instant::now() };
                self.queues.insert(queue.to_owned(), unknown);
            }
        }
        let known = self.queues.get_mut(queue)?;
        known.takes_bundles |= Instant::now() >= known.single_until;
        self.of_single(queue)
    }

    /// The address for a single message to a queue that gets bundles: they go the same way, and stay in order.
    pub(super) fn of_single(&self, queue: &str) -> Option<Address> {
        let goes = self.exists && !self.is_forbidden && self.queues.get(queue).is_some_and(|queue| queue.takes_bundles);
        let routing_key = short(queue).ok().filter(|_| goes)?;
        Some(Address { exchange: self.exchange.clone(), routing_key, mandatory: true, to_bundles: true })
    }

    /// Bundles to this queue came back.
    pub(super) fn returned(&mut self, queue: &str) {
        let Some(queue) = self.queues.get_mut(queue).filter(|queue| queue.takes_bundles) else { return };
        queue.takes_bundles = false;
        queue.returned += 1;
        queue.single_until = Instant::now() + Backoff::after(SINGLE_MIN, SINGLE_MAX, queue.returned);
    }

    /// The broker refused something with these words. Returns whether it was the exchange for bundles; then nothing is
    /// wrong with any message.
    pub(super) fn refused(&mut self, code: u16, words: &str) -> bool {
        if !words.contains(&format!("'{}'", self.exchange)) {
            return false;
        }
        self.exists = false; // a new connection declares it again
        if code == 403 && !std::mem::replace(&mut self.is_forbidden, true) {
            tracing::info!(endpoint = self.endpoint, words, "the broker takes no bundles; messages go one by one");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundling() -> Bundling {
        let mut bundling = Bundling::new("e", EXCHANGE);
        bundling.exists = true;
        bundling
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_whose_bundles_came_back_gets_single_messages_for_longer_each_time() {
        let mut bundling = bundling();
        assert!(bundling.of_single("q").is_none(), "no bundle was sent yet: single messages go to the queue");
        for _ in 0..10 {
            assert!(bundling.of_bundle("q").is_some_and(|address| address.to_bundles));
            assert!(bundling.of_single("q").is_some(), "single messages must not overtake bundles");
            bundling.returned("q");
            bundling.returned("q"); // of the same flight
            assert!(bundling.of_bundle("q").is_none() && bundling.of_single("q").is_none());
            tokio::time::advance(SINGLE_MAX).await;
        }
        assert_eq!(bundling.queues["q"].returned, 10);
    }

    #[test]
    fn where_the_exchange_is_forbidden_no_bundle_is_sent_any_more() {
        let mut bundling = bundling();
        assert!(bundling.of_bundle("q").is_some());
        assert!(!bundling.refused(404, "NOT_FOUND - no exchange 'test.Happened' in vhost '/'"));
        assert!(bundling.refused(404, "NOT_FOUND - no exchange 'sagabus.bundles.v1' in vhost '/'"));
        assert!(bundling.of_bundle("q").is_none(), "it is gone");
        bundling.exists = true; // declared again
        assert!(bundling.of_bundle("q").is_some());
        assert!(bundling.refused(403, "ACCESS_REFUSED - access to exchange 'sagabus.bundles.v1' refused"));
        bundling.exists = true;
        assert!(bundling.of_bundle("q").is_none());
    }

    #[test]
    fn the_queues_that_are_remembered_are_bounded() {
        let mut bundling = bundling();
        let bundles = (0..2 * QUEUES_MAX).filter(|n| bundling.of_bundle(&format!("q{n}")).is_some()).count();
        assert_eq!((bundles, bundling.queues.len()), (QUEUES_MAX, QUEUES_MAX));
        assert!(bundling.of_bundle("q7").is_some());
    }
}
