//! Fault points: the places at which a process may die, so that tests can let it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A numbered step on the way of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// 1: a delivery was received.
    Receive,
    /// 2: the batch's locks are held.
    Lock,
    /// 3: everything is written, nothing committed.
    BeforeCommit,
    /// 4: committed, nothing published.
    Commit,
    /// 5: handed to the dispatcher, not acknowledged.
    BeforeAck,
    /// 6: published, the confirm is not known.
    BeforeConfirm,
    /// 7: confirmed, the outbox row is still there.
    BeforeDelete,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Receive,
        Self::Lock,
        Self::BeforeCommit,
        Self::Commit,
        Self::BeforeAck,
        Self::BeforeConfirm,
        Self::BeforeDelete,
    ];
}

impl std::str::FromStr for Step {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|step| format!("{step:?}").eq_ignore_ascii_case(&text.replace('-', "")));
        named.ok_or_else(|| format!("`{text}` is no step; there are {:?}", Self::ALL))
    }
}

/// Where the process is to die. The default: nowhere.
#[derive(Debug, Default)]
pub struct Faults {
    crash: Option<(Step, AtomicU64)>,
}

impl Faults {
    /// Aborts the process (as `kill -9` would) when `step` is reached for the `n`th time, counted from 1.
    pub fn crash_at(step: Step, n: u64) -> Self {
        Self { crash: Some((step, AtomicU64::new(n))) }
    }

    pub(crate) fn reach(&self, step: Step) {
        if let Some((at, left)) = &self.crash
            && *at == step
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            tracing::error!(?step, "the process crashes here, as ordered");
            std::process::abort();
        }
    }
}
