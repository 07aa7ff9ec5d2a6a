//! What an operator orders about held messages.

use super::{ActionDone, HeldRef, Inspect, ORDER_ROWS_MAX};

/// What an operator orders: done in one transaction, which also records it in `operation`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeldOrder<'a> {
    /// What to do.
    pub action: HeldAction<'a>,
    /// With which messages: at most [`ORDER_ROWS_MAX`](super::ORDER_ROWS_MAX). Messages that are no longer held, or
    /// were held anew since they were listed, are left alone.
    pub rows: &'a [HeldRef],
    /// Who orders it.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

impl<'a> HeldOrder<'a> {
    /// An order by `who`, who gives the reason.
    pub fn new(action: HeldAction<'a>, rows: &'a [HeldRef], who: &'a str, why: &'a str) -> Self {
        Self { action, rows, who, why }
    }
}

/// What to do with held messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldAction<'a> {
    /// Have them handled again by the receiver that holds them. A stranded message, which never left, is sent to its
    /// destination.
    Retry,
    /// Give them up. Messages that wait behind one are offered again, in order.
    Discard,
    /// Give it this body and have it handled again. The inbox follows: from now on the message's id belongs to the new
    /// body, and a copy of the old one that still comes is held as another message.
    Edit {
        /// The new body, which is JSON.
        body: &'a str,
        /// The old body as the audit keeps it: as it was; after `hex:` as hexadecimal digits, if it was no text.
        old_body: &'a str,
    },
}

impl HeldAction<'_> {
    /// Its name in `operation.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "held retry",
            Self::Discard => "held discard",
            Self::Edit { .. } => "held edit",
        }
    }
}

/// Does something with any number of held messages, in orders that are bounded.
pub(super) async fn in_orders<I: Inspect + ?Sized>(
    store: &I,
    action: HeldAction<'_>,
    rows: &[HeldRef],
    who: &str,
    why: &str,
) -> ActionDone {
    let mut done = ActionDone::default();
    for rows in rows.chunks(ORDER_ROWS_MAX) {
        match store.order(&HeldOrder { action, rows, who, why }).await {
            Ok(items) => done.items.extend(items),
            Err(error) => {
                done.stopped = Some(error);
                break;
            }
        }
    }
    done
}
