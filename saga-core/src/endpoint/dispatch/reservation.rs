//! The room that a unit has in the window, and what is known of its rows while the database commits them.

use super::{Dispatcher, Load};
use crate::port::OutboxRow;

/// Room for the rows of one unit of work; given back when dropped without `enqueue`.
pub(super) struct Reservation<'a> {
    dispatcher: &'a Dispatcher,
    load: Load,
    /// The rows fit: they carry our lease and are sent from memory.
    pub(super) leased: bool,
    /// The database was asked to commit them, and has not answered: the unit's number.
    committing: Option<u64>,
}

impl<'a> Reservation<'a> {
    /// So much fits, or nothing and the unit's rows are left to the relay.
    pub(super) fn new(dispatcher: &'a Dispatcher, load: Option<Load>) -> Self {
        Self { dispatcher, load: load.unwrap_or_default(), leased: load.is_some(), committing: None }
    }

    /// The database is asked to commit these rows.
    pub(super) fn commits(&mut self, rows: &[OutboxRow]) {
        let leased: Vec<_> = rows.iter().filter(|row| row.leased).map(|row| row.id).collect();
        if !leased.is_empty() {
            let mut state = self.dispatcher.lock();
            state.units += 1;
            let unit = state.units;
            state.committing.insert(unit, leased);
            self.committing = Some(unit);
        }
    }

    /// The database has answered.
    pub(super) fn answered(&mut self) {
        if let Some(unit) = self.committing.take() {
            self.dispatcher.lock().committing.remove(&unit);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.dispatcher.lock();
        debug_assert!(state.reserved.messages >= self.load.messages, "room was given back twice");
        state.reserved.messages -= self.load.messages;
        state.reserved.bytes -= self.load.bytes;
        if self.committing.is_some_and(|unit| state.committing.remove(&unit).is_some()) {
            state.lose_sight();
            self.dispatcher.relay.notify_one();
        }
        if !self.leased {
            debug_assert!(state.overflowing > 0, "a unit overflowed once and ended twice");
            state.overflowing -= 1;
            state.left = true;
            self.dispatcher.relay.notify_one();
            self.dispatcher.overflowed.notify_waiters();
        }
    }
}
