//! How far a lane of a handler got.

use crate::StoreError;

/// How far a lane got with its items.
pub(super) struct Progress {
    /// Items that are done, counted from the first.
    pub(super) done: usize,
    /// Why the next item is not done: its unit had no effect (or the inbox knows its effect), so it can be run again.
    pub(super) error: Option<Halted>,
}

/// An error that halts a lane.
pub(super) struct Halted {
    pub(super) error: StoreError,
    /// The database had answered just before, so the handler may be the reason that the connection was lost.
    pub(super) ran: bool,
}

impl Progress {
    /// Nothing was done.
    pub(super) fn failed(error: StoreError) -> Self {
        Self { done: 0, error: Some(Halted { error, ran: false }) }
    }

    pub(super) fn lost(done: usize, error: StoreError) -> Self {
        Self { done, error: Some(Halted { error, ran: true }) }
    }
}
