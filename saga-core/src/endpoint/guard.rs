//! The acknowledgement of a delivery that has several receivers.

use crate::{Ack, port::Channel};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Acknowledges a delivery when the last of its items is done. If an item is dropped before, the delivery goes back to
/// the broker.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(super) channel: Channel,
    open: AtomicUsize,
    ack: Mutex<Option<Ack>>,
}

impl Guard {
    pub(crate) fn new(ack: Ack, items: usize) -> Arc<Self> {
        debug_assert!(items > 0, "a delivery without items would never be acknowledged");
        let channel = ack.channel().clone();
        Arc::new(Self { channel, open: AtomicUsize::new(items), ack: Mutex::new(Some(ack)) })
    }

    /// One item is done.
    pub(super) fn item_done(&self) {
        let open = self.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(open > 0, "an item was done twice");
        if open == 1
            && let Some(ack) = self.ack.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            ack.ack();
        }
    }
}

/// Deliveries that stay unacknowledged for as long as the endpoint runs. There are no more of them than the prefetch
/// allows: what a lost channel brought comes again.
#[derive(Debug, Default)]
pub(crate) struct SetAside(Mutex<Vec<Arc<Guard>>>);

impl SetAside {
    pub(super) fn keep(&self, guard: Arc<Guard>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|guard| !guard.channel.is_gone());
        kept.push(guard);
    }

    /// The endpoint stops: they go back to the broker, which waits for them as the transport does.
    pub(super) fn give_back(&self) {
        let kept = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_acked_when_its_last_item_is_done() {
        let acked = Arc::new(Mutex::new(None));
        let seen = acked.clone();
        let guard = Guard::new(Ack::new(move |ack| *seen.lock().unwrap() = Some(ack)), 2);
        guard.item_done();
        assert_eq!(*acked.lock().unwrap(), None);
        guard.item_done();
        assert_eq!(*acked.lock().unwrap(), Some(true));
    }
}
