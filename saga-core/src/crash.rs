//! Crash points: places at which a test can make the process die.

use std::sync::atomic::{AtomicU64, Ordering};

/// A numbered step on the way of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashPoint {
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

impl CrashPoint {
    /// All, in order.
    pub const ALL: &'static [Self] = &[
        Self::Receive,
        Self::Lock,
        Self::BeforeCommit,
        Self::Commit,
        Self::BeforeAck,
        Self::BeforeConfirm,
        Self::BeforeDelete,
    ];
}

impl std::str::FromStr for CrashPoint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.replace('-', "");
        let named = Self::ALL.iter().find(|point| format!("{point:?}").eq_ignore_ascii_case(&plain));
        named.copied().ok_or_else(|| format!("`{text}` is not a step; there are {:?}", Self::ALL))
    }
}

/// Where the process is to die. The default: nowhere.
#[derive(Debug, Default)]
pub struct Crashes {
    crash: Option<(CrashPoint, AtomicU64)>,
}

impl Crashes {
    /// Aborts the process (as `kill -9` would) when `point` is reached for the `n`th time, counted from 1.
    pub fn at(point: CrashPoint, n: u64) -> Self {
        Self { crash: Some((point, AtomicU64::new(n))) }
    }

    pub(crate) fn reach(&self, point: CrashPoint) {
        if let Some((at, left)) = &self.crash
            && *at == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            tracing::error!(?point, "the process crashes here, as ordered");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_by_its_name_in_any_case() {
        for point in CrashPoint::ALL {
            let name = format!("{point:?}");
            assert_eq!(name.parse(), Ok(*point));
            assert_eq!(name.to_lowercase().parse(), Ok(*point));
        }
        assert_eq!("before-commit".parse(), Ok(CrashPoint::BeforeCommit));
        let error = "nowhere".parse::<CrashPoint>().unwrap_err();
        assert!(error.contains("`nowhere` is not a step") && error.contains("BeforeAck"), "{error}");
    }
}
