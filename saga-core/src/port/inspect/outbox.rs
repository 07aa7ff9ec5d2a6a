//! What an operator orders about rows of the outbox, timers among them.

use super::OperationItem;
use std::time::Duration;

/// What an operator orders about outbox rows: done in one transaction, which also records it in `operation`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboxOrder<'a> {
    /// What to do.
    pub action: OutboxAction<'a>,
    /// With which rows, by their ids: at most [`ORDER_ROWS_MAX`](super::ORDER_ROWS_MAX).
    pub rows: &'a [String],
    /// Who orders it.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

impl<'a> OutboxOrder<'a> {
    /// An order by `who`, who gives the reason.
    pub fn new(action: OutboxAction<'a>, rows: &'a [String], who: &'a str, why: &'a str) -> Self {
        Self { action, rows, who, why }
    }
}

/// What to do with outbox rows. In `operation` a row's result is `done`. Else it was left alone: `gone` when it has
/// been sent meanwhile, `being sent` when a process has leased it, `not a timer`, or `not possible`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxAction<'a> {
    /// Send it now: a delayed message, a retry, or one whose publishing is put off.
    SendNow,
    /// Give it up: it is deleted and never sent. A message that was to be handled again is journaled as discarded.
    Discard,
    /// Send a command or an answer to another endpoint or queue, now. Not possible for events, which go to whoever
    /// subscribes, nor for timers and retries, which come back to their own endpoint.
    Reroute {
        /// The endpoint or queue.
        to: &'a str,
    },
    /// Let a timer go off now.
    FireTimer,
    /// Let a timer go off at another time.
    MoveTimer {
        /// When.
        to: DueAt,
    },
    /// Delete a timer: it never goes off. The instance waits on, for a message or a person.
    CancelTimer,
}

/// When a row is due, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DueAt {
    /// At this time: microseconds since 1970.
    Time(i64),
    /// So long after the database carries it out. The clock of whoever orders it does not matter.
    After(Duration),
}

impl OutboxAction<'_> {
    /// The result of a row with which it was done.
    pub const DONE: &'static str = "done";

    /// Its name in `operation.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendNow => "outbox send-now",
            Self::Discard => "outbox discard",
            Self::Reroute { .. } => "outbox reroute",
            Self::FireTimer => "timer fire",
            Self::MoveTimer { .. } => "timer move",
            Self::CancelTimer => "timer cancel",
        }
    }

    /// Whether it is for timers alone.
    pub fn wants_timers(self) -> bool {
        matches!(self, Self::FireTimer | Self::MoveTimer { .. } | Self::CancelTimer)
    }
}

impl OperationItem {
    /// The line of the audit about a row of the outbox that could not be found.
    pub fn gone(row_id: &str) -> Self {
        Self {
            endpoint: String::new(),
            receiver: String::new(),
            message_id: row_id.into(),
            saga: None,
            saga_id: None,
            result: "gone".into(),
            error: None,
            old_body: None,
            was: None,
            group: None,
        }
    }
}
