//! Which queues get bundles. An endpoint that takes them binds its queue to one exchange, by the queue's name. Nobody
//! asks: a bundle is sent there, and if it comes back, its messages go to the queue itself, one by one. A queue whose
//! bundles came back gets single messages for a while. The first bundle is a probe: nothing else is published until it
//! is answered, because an event that was sent after it may go to the same queue, and would be there first.

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
/// How long no bundle is sent after the broker forbade it; longer each time.
const FORBIDDEN_MIN: Duration = Duration::from_secs(600);
const FORBIDDEN_MAX: Duration = Duration::from_secs(6 * 3600);
/// The most queues that are remembered: reply queues of other programs come and go. Any further one gets single
/// messages.
const QUEUES_MAX: usize = 1000;

pub(super) struct Bundling {
    endpoint: String,
    exchange: ShortString,
    /// Whether the exchange exists, as far as this connection knows.
    exists: bool,
    /// Until when none is sent, because the broker refused one, and how often it did since it took one.
    forbidden_until: Option<Instant>,
    forbidden: u32,
    queues: HashMap<String, Queue>,
}

struct Queue {
    takes: Takes,
    /// How often bundles came back, and until when none is sent.
    returned: u32,
    single_until: Instant,
}

/// Whether a queue takes bundles, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    No,
    /// The first one is on its way.
    Probed,
    /// Until one comes back.
    Yes,
}

impl Bundling {
    pub(super) fn new(endpoint: &str, exchange: &str) -> Self {
        let exchange = short(exchange).unwrap_or_default();
        let (exists, forbidden_until, forbidden, queues) = Default::default();
        Self { endpoint: endpoint.to_owned(), exchange, exists, forbidden_until, forbidden, queues }
    }

    /// On a new connection: makes sure that the exchange exists. Without it, all messages go singly.
    pub(super) async fn begin(&mut self, admin: &mut Admin<'_>, passive: bool) {
        let exists = match passive {
            true => admin.has_exchange(self.exchange.as_str()).await,
            false => admin.declare_bundles().await.map(|()| true),
        };
        self.exists = exists.unwrap_or(false);
        // nobody knows what became of a probe on the connection before
        self.queues.values_mut().filter(|queue| queue.takes == Takes::Probed).for_each(|queue| queue.takes = Takes::No);
    }

    /// The address for a bundle to this queue, unless it gets single messages.
    pub(super) fn of_bundle(&mut self, queue: &str) -> Option<Address> {
        if !self.queues.contains_key(queue) {
            if self.queues.len() >= QUEUES_MAX {
                self.queues.retain(|_, queue| queue.takes != Takes::No || Instant::now() < queue.single_until);
            }
            if self.queues.len() < QUEUES_MAX {
                let unknown = Queue { takes: Takes::No, returned: 0, single_until: Instant::now() };
                self.queues.insert(queue.to_owned(), unknown);
            }
        }
        let known = self.queues.get(queue)?;
        if known.takes == Takes::No && Instant::now() < known.single_until {
            return None;
        }
        self.address(queue)
    }

    /// A bundle goes to this queue. Returns whether it is a probe.
    pub(super) fn sends(&mut self, queue: &str) -> bool {
        let Some(known) = self.queues.get_mut(queue).filter(|known| known.takes != Takes::Yes) else { return false };
        known.takes = Takes::Probed;
        true
    }

    /// The probe did not come back.
    pub(super) fn arrived(&mut self, queue: &str) {
        if let Some(known) = self.queues.get_mut(queue) {
            known.takes = Takes::Yes;
        }
        if std::mem::take(&mut self.forbidden) > 0 {
            tracing::info!(endpoint = self.endpoint, "the broker takes bundles again");
        }
    }

    /// The address for a single message to a queue that gets bundles: they go the same way, and stay in order.
    pub(super) fn of_single(&self, queue: &str) -> Option<Address> {
        self.queues.get(queue).filter(|queue| queue.takes == Takes::Yes)?;
        self.address(queue)
    }

    fn address(&self, queue: &str) -> Option<Address> {
        let goes = self.exists && self.forbidden_until.is_none_or(|until| until <= Instant::now());
        let routing_key = short(queue).ok().filter(|_| goes)?;
        Some(Address { exchange: self.exchange.clone(), routing_key, mandatory: true, to_bundles: true })
    }

    /// Bundles to this queue came back.
    pub(super) fn returned(&mut self, queue: &str) {
        let Some(queue) = self.queues.get_mut(queue).filter(|queue| queue.takes != Takes::No) else { return };
        queue.takes = Takes::No;
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
        if code == 403 {
            if self.forbidden == 0 {
                tracing::info!(endpoint = self.endpoint, words, "the broker takes no bundles; messages go one by one");
            }
            let lasts = Backoff::after(FORBIDDEN_MIN, FORBIDDEN_MAX, self.forbidden);
            self.forbidden_until = Some(Instant::now() + lasts);
            self.forbidden = self.forbidden.saturating_add(1);
            // the next one is a probe again: if it is refused too, it takes little with it
            self.queues.values_mut().for_each(|queue| queue.takes = Takes::No);
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
            assert!(bundling.of_single("q").is_none(), "it fit into no bundle");
            assert!(bundling.sends("q"), "it may come back: nothing else goes before it is answered");
            bundling.arrived("q");
            assert!(bundling.of_bundle("q").is_some() && !bundling.sends("q"), "many may be on their way");
            assert!(bundling.of_single("q").is_some(), "single messages must not overtake bundles");
            bundling.returned("q");
            bundling.returned("q"); // of the same flight
            assert!(bundling.of_bundle("q").is_none() && bundling.of_single("q").is_none());
            tokio::time::advance(SINGLE_MAX).await;
        }
        assert_eq!(bundling.queues["q"].returned, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_exchange_is_forbidden_one_bundle_asks_now_and_then() {
        let mut bundling = bundling();
        assert!(bundling.of_bundle("q").is_some() && bundling.sends("q"));
        bundling.arrived("q");
        assert!(!bundling.refused(404, "NOT_FOUND - no exchange 'test.Happened' in vhost '/'"));
        assert!(bundling.refused(404, "NOT_FOUND - no exchange 'sagabus.bundles.v1' in vhost '/'"));
        assert!(bundling.of_bundle("q").is_none(), "it is gone");
        bundling.exists = true; // declared again
        assert!(bundling.of_bundle("q").is_some());
        for times in 0..20 {
            assert!(bundling.refused(403, "ACCESS_REFUSED - access to exchange 'sagabus.bundles.v1' refused"));
            bundling.exists = true;
            let least = Backoff::after(FORBIDDEN_MIN, FORBIDDEN_MAX, times) / 2;
            tokio::time::advance(least).await;
            assert!(bundling.of_bundle("q").is_none() && bundling.of_single("q").is_none(), "after {least:?}");
            tokio::time::advance(FORBIDDEN_MAX).await;
            assert!(bundling.of_bundle("q").is_some() && bundling.sends("q"), "a probe asks");
        }
        bundling.arrived("q");
        assert!(bundling.of_single("q").is_some() && bundling.forbidden == 0);
    }

    /// Its probe was lost with a connection: single messages would go the way of bundles, and could come back.
    #[test]
    fn a_probe_without_an_answer_proves_nothing() {
        let mut bundling = bundling();
        assert!(bundling.of_bundle("q").is_some() && bundling.sends("q"));
        assert!(bundling.of_single("q").is_none() && bundling.sends("q"), "the next one is a probe as well");
    }

    #[test]
    fn the_queues_that_are_remembered_are_bounded() {
        let mut bundling = bundling();
        let bundles = (0..2 * QUEUES_MAX)
            .map(|n| format!("q{n}"))
            .filter(|queue| bundling.of_bundle(queue).is_some() && bundling.sends(queue))
            .count();
        assert_eq!((bundles, bundling.queues.len()), (QUEUES_MAX, QUEUES_MAX));
        assert!(bundling.of_bundle("q7").is_some());
    }
}
