//! One message for one receiver, on its way through the endpoint.

use super::shared::Receiver;
use crate::{Ack, Envelope, HeldReason, InstanceKey, hash_of};
use std::{
    any::Any,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Acknowledges a delivery when the last of its items is done. If an item is dropped before, the delivery goes back to
/// the broker.
#[derive(Debug)]
pub(crate) struct Guard {
    open: AtomicUsize,
    ack: Mutex<Option<Ack>>,
}

impl Guard {
    pub(crate) fn new(ack: Ack, items: usize) -> Arc<Self> {
        debug_assert!(items > 0, "a delivery without items would never be acknowledged");
        Arc::new(Self { open: AtomicUsize::new(items), ack: Mutex::new(Some(ack)) })
    }

    /// One item is done.
    fn item_done(&self) {
        let open = self.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(open > 0, "an item was done twice");
        if open == 1
            && let Some(ack) = self.ack.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            ack.ack();
        }
    }
}

/// One message for one receiver.
#[derive(Debug)]
pub(crate) struct Item {
    guard: Arc<Guard>,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) receiver: Receiver,
    /// The instance, when the receiver is a saga and the message names one.
    pub(crate) key: Option<InstanceKey>,
    pub(crate) content: Content,
    /// Nothing suggests that it came before.
    pub(crate) first: bool,
    /// It was redelivered repeatedly: it may have killed the process, so it runs alone.
    pub(crate) suspect: bool,
    /// A suspect's delivery is counted once, however often the lane comes back to it.
    pub(crate) counted: bool,
}

/// What is in a message.
pub(crate) enum Content {
    /// A message.
    Message(DecodedOnce),
    /// A message that cannot be handled, and why.
    Faulty(HeldReason, String),
    /// A wake-up: the instance looks at what is held for it.
    Wake,
}

/// A message that was decoded when it came; gone after the first run. The mutex only makes it `Sync`.
pub(crate) struct DecodedOnce(Mutex<Option<Box<dyn Any + Send>>>);

impl DecodedOnce {
    pub(crate) fn new(message: Option<Box<dyn Any + Send>>) -> Self {
        Self(Mutex::new(message))
    }

    pub(crate) fn take(&mut self) -> Option<Box<dyn Any + Send>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(_) => f.write_str("Message"),
            Self::Faulty(reason, text) => write!(f, "Faulty({reason:?}, {text})"),
            Self::Wake => f.write_str("Wake"),
        }
    }
}

/// The unit of work that an item belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// An instance of a saga decides about it.
    Saga,
    /// A handler runs.
    Handler(usize),
    /// Nobody can handle it, and no instance needs to wait for it: it is held.
    Hold,
}

impl Item {
    pub(crate) fn new(
        guard: Arc<Guard>,
        envelope: Arc<Envelope>,
        receiver: Receiver,
        key: Option<InstanceKey>,
        content: Content,
    ) -> Self {
        Self { guard, envelope, receiver, key, content, first: false, suspect: false, counted: false }
    }

    /// The one rule that says who works on an item: the router's choice of a lane and the lane's choice of a unit
    /// follow it.
    pub(crate) fn work(&self) -> Work {
        match (self.receiver, &self.content, &self.key) {
            (Receiver::Handler(handler), Content::Message(_), _) => Work::Handler(handler),
            (Receiver::Saga(_), _, Some(_)) => Work::Saga,
            _ => Work::Hold,
        }
    }

    /// Messages with the same number are handled one after the other, in the order in which they came: those of the
    /// receiving instance; for a handler those of the sending instance.
    pub(crate) fn order_key(&self) -> i64 {
        match (&self.key, &self.envelope.saga) {
            (Some(key), _) => instance_lock(key),
            (None, Some(saga)) => hash_of([saga.saga.as_bytes(), saga.id.as_bytes()]),
            (None, None) => hash_of([self.envelope.message_id.as_bytes()]),
        }
    }

    pub(crate) fn fault(&self) -> Option<(HeldReason, String)> {
        match &self.content {
            Content::Faulty(reason, text) => Some((*reason, text.clone())),
            Content::Message(_) | Content::Wake => None,
        }
    }

    /// The item is settled, and that is committed.
    pub(crate) fn done(&self) {
        self.guard.item_done();
    }

    /// Keeps the delivery unacknowledged until this process ends; the next process gets it.
    pub(crate) fn set_aside(&self) {
        std::mem::forget(self.guard.clone());
    }
}

/// The lock of an instance.
pub(crate) fn instance_lock(key: &InstanceKey) -> i64 {
    hash_of([key.saga.as_bytes(), key.id.as_bytes()])
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
