//! What is logged of held messages: the first of a kind at once, then their number once a minute, and when no more
//! come. Strangers may send thousands that cannot be read, and each is in the table `held` anyway.

use super::trouble::{AGAIN, Spell};
use crate::HeldReason;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, PoisonError},
};
use tokio::time::Instant;

/// One entry for each receiver and reason: few.
#[derive(Debug, Default)]
pub(crate) struct HeldLog {
    kinds: Mutex<HashMap<(String, HeldReason), Kind>>,
}

#[derive(Debug)]
struct Kind {
    spell: Spell,
    /// When one was held last: a minute after it they are over.
    last: Instant,
}

impl HeldLog {
    /// A message is held. Returns how many were not logged before it, if it is to be logged.
    pub(crate) fn held(&self, receiver: &str, reason: HeldReason) -> Option<u64> {
        let last = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.entry((receiver.to_owned(), reason)) {
            Entry::Vacant(kind) => {
                kind.insert(Kind { spell: Spell::begin(), last });
                Some(0)
            }
            Entry::Occupied(kind) => {
                let kind = kind.into_mut();
                kind.last = last;
                kind.spell.again().map(|said| said.unsaid)
            }
        }
    }

    /// Forgets kinds of which none has come for a minute, and logs how many were not.
    pub(crate) fn over(&self, endpoint: &str) {
        for ((receiver, reason), unsaid) in self.ended() {
            let reason = reason.as_str();
            tracing::info!(endpoint, receiver, reason, unsaid, "no further messages are held for this reason");
        }
    }

    fn ended(&self) -> Vec<((String, HeldReason), u64)> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let over = kinds.extract_if(|_, kind| kind.last.elapsed() >= AGAIN);
        over.map(|(key, kind)| (key, kind.spell.unsaid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HeldReason::{Failed, Undecodable};

    #[tokio::test(start_paused = true)]
    async fn r_021_held_messages_are_logged_at_once_then_once_a_minute_and_when_it_is_over() {
        let log = HeldLog::default();
        let lines: Vec<Option<u64>> = (0..5000).map(|_| log.held("order", Undecodable)).collect();
        assert_eq!(lines.iter().flatten().collect::<Vec<_>>(), [&0], "one line for 5,000 messages");
        assert_eq!(log.held("order", Failed), Some(0), "another kind is news");
        assert_eq!(log.held("charge", Undecodable), Some(0), "and so is another receiver");
        tokio::time::advance(AGAIN).await;
        assert_eq!(log.held("order", Undecodable), Some(4999));
        let mut over = log.ended();
        over.sort_by(|one, other| one.0.0.cmp(&other.0.0));
        let kind = |receiver: &str, reason| ((receiver.to_owned(), reason), 0);
        assert_eq!(over, [kind("charge", Undecodable), kind("order", Failed)]);
        assert_eq!(log.held("order", Undecodable), None);
        tokio::time::advance(AGAIN).await;
        assert_eq!(log.ended(), [(("order".to_owned(), Undecodable), 1)]);
        assert_eq!(log.held("order", Undecodable), Some(0), "it began anew");
    }
}
