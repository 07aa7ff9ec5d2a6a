//! One message for one receiver, and what the inbox says of it.

use super::core::Target;
use crate::{Ack, Envelope, HeldReason, InboxFound, InboxResult, InstanceKey};
use std::{
    any::Any,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A delivery that is acknowledged when the last of its items is settled; lost on the way, it goes back to the broker.
#[derive(Debug)]
pub(crate) struct Guard {
    left: AtomicUsize,
    ack: Mutex<Option<Ack>>,
}

impl Guard {
    pub(crate) fn new(ack: Ack, items: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(items), ack: Mutex::new(Some(ack)) })
    }

    /// One item is settled.
    pub(crate) fn settled(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(ack) = self.ack.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            ack.ack();
        }
    }
}

/// One message for one receiver.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) guard: Arc<Guard>,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) target: Target,
    /// The instance, when the receiver is a saga and the message names one.
    pub(crate) key: Option<InstanceKey>,
    /// Decoded once, when it came; gone after the first run.
    pub(crate) decoded: Option<Box<dyn Any + Send>>,
    /// Why it cannot be handled.
    pub(crate) fault: Option<(HeldReason, String)>,
    /// Nothing says that it came before.
    pub(crate) first: bool,
    /// It came again and again: it may have killed the process.
    pub(crate) suspect: bool,
}

/// What the inbox says of a message that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it is new.
    Fresh,
    /// It is settled, or waits elsewhere.
    Duplicate,
    /// It was put off, and this is the time: the row to complete has so many attempts.
    Continues { attempts: i64 },
    /// It was run alone after a crash; the row to complete has so many attempts.
    Suspect { attempts: i64 },
    /// The id belongs to another message.
    Reused(String),
}

/// Judges a message by its inbox row.
pub(crate) fn known(found: Option<&InboxFound>, envelope: &Envelope) -> Known {
    let Some(row) = found else { return Known::Fresh };
    if envelope.attempt == 0 && (row.body_hash != envelope.body_hash() || row.type_name != envelope.type_name) {
        return Known::Reused(format!(
            "message id {} was used before for another message of type {}: a producer must give each message its own id",
            envelope.message_id, row.type_name
        ));
    }
    match row.result {
        InboxResult::Retrying if envelope.attempt == row.attempts => Known::Continues { attempts: row.attempts },
        InboxResult::Suspect => Known::Suspect { attempts: row.attempts },
        InboxResult::Handled
        | InboxResult::Ignored
        | InboxResult::Stale
        | InboxResult::Discarded
        | InboxResult::Held
        | InboxResult::Retrying => Known::Duplicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::StoredEnvelope;

    fn envelope() -> Envelope {
        StoredEnvelope { message_id: "m".into(), type_name: "t".into(), body: b"{}".to_vec(), ..Default::default() }
            .restore("e")
    }

    fn row(result: InboxResult, attempts: i64) -> InboxFound {
        InboxFound {
            receiver: "r".into(),
            message_id: "m".into(),
            type_name: "t".into(),
            body_hash: envelope().body_hash(),
            result,
            attempts,
        }
    }

    #[test]
    fn a_settled_or_held_message_is_a_duplicate() {
        for result in
            [InboxResult::Handled, InboxResult::Ignored, InboxResult::Stale, InboxResult::Discarded, InboxResult::Held]
        {
            assert_eq!(known(Some(&row(result, 1)), &envelope()), Known::Duplicate, "{result:?}");
        }
        assert_eq!(known(None, &envelope()), Known::Fresh);
    }

    #[test]
    fn only_the_retry_itself_continues_a_message_that_was_put_off() {
        let put_off = row(InboxResult::Retrying, 4);
        assert_eq!(known(Some(&put_off), &envelope()), Known::Duplicate);
        let retry = |attempt| Envelope { attempt, ..envelope() };
        assert_eq!(known(Some(&put_off), &retry(4)), Known::Continues { attempts: 4 });
        assert_eq!(known(Some(&put_off), &retry(3)), Known::Duplicate);
    }

    #[test]
    fn o_010_the_same_id_with_another_body_is_no_duplicate() {
        let other = Envelope { body: "{ }".into(), ..envelope() };
        assert!(matches!(known(Some(&row(InboxResult::Handled, 1)), &other), Known::Reused(_)));
    }

    #[test]
    fn a_delivery_is_acked_when_its_last_item_is_settled() {
        let acked = Arc::new(Mutex::new(None));
        let seen = acked.clone();
        let guard = Guard::new(Ack::new(move |ack| *seen.lock().unwrap() = Some(ack)), 2);
        guard.settled();
        assert_eq!(*acked.lock().unwrap(), None);
        guard.settled();
        assert_eq!(*acked.lock().unwrap(), Some(true));
    }
}
