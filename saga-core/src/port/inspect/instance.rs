//! What an operator orders about one instance.

use super::InstanceView;
use crate::port::InstanceKey;
use serde::{Deserialize, Serialize};

/// Where an instance was when somebody looked at it. An order that rests on the look leaves an instance alone that has
/// moved on since, or waits behind another message: nobody ends, or frees from another failure, what was not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Transitions so far.
    pub seq: i64,
    /// The failed message that later ones waited behind.
    pub paused_by: Option<String>,
}

impl InstanceView {
    /// The instance's name.
    pub fn key(&self) -> InstanceKey {
        InstanceKey { saga: self.saga.clone(), id: self.id.clone() }
    }

    /// Where it is.
    pub fn seen(&self) -> InstanceSeen {
        InstanceSeen { seq: self.seq, paused_by: self.paused_by.clone() }
    }
}

/// What an operator orders about one instance: done in one transaction, which also records it in `operation`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InstanceOrder<'a> {
    /// What to do.
    pub action: InstanceAction<'a>,
    /// With which instance.
    pub key: &'a InstanceKey,
    /// Where it must still be. `None`: wherever it is, as for a message, of which the saga judges itself.
    pub seen: Option<&'a InstanceSeen>,
    /// Who orders it.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

impl<'a> InstanceOrder<'a> {
    /// An order by `who`, who gives the reason.
    pub fn new(
        action: InstanceAction<'a>,
        key: &'a InstanceKey,
        seen: Option<&'a InstanceSeen>,
        who: &'a str,
        why: &'a str,
    ) -> Self {
        Self { action, key, seen, who, why }
    }
}

/// What to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceAction<'a> {
    /// Let a paused instance go on without the message that failed: what waits behind it is handled, in order. The
    /// message stays held, to be retried or discarded later.
    Resume,
    /// End the instance where it is, whatever its saga says: its state becomes
    /// [`InstanceRow::CANCELLED`](crate::port::InstanceRow::CANCELLED), its timers go, and what is held for it is
    /// journaled as discarded. Nothing is sent and nobody is told, a projection neither; what it sent before stays
    /// sent, and what comes for it later is journaled as ignored. This cannot be undone. A saga that has a message to
    /// cancel it is better sent that.
    Cancel,
    /// Give it a message, as if that had come from the broker. It goes through the outbox of the instance's endpoint to
    /// that endpoint alone, and only the instance's saga takes it. A message whose body has the saga's id goes to the
    /// instance of that id.
    Send {
        /// Its type, by logical name.
        type_name: &'a str,
        /// Its body, which is JSON.
        body: &'a str,
    },
    /// Let it stand again where a step left it, under its own id: its state, its data, its timers, aliases and fields
    /// are those of that step, whether it is done as well, and it is not paused. Only a step whose instance the journal
    /// [keeps](crate::Settings::keep_messages) will do. Timers of then that have gone off or were taken back since are
    /// set again, due when they were due, or now. Nothing is sent and nobody is told, a projection neither; what it
    /// sent after the step stays sent, and what was handled is not handled again: give it the messages that it needs.
    /// What is held for it is offered to it.
    Fork {
        /// The step, by its number in the journal: transitions, that one included.
        at: i64,
        /// Only say what would be done.
        dry_run: bool,
    },
}

impl InstanceAction<'_> {
    /// Its name in `operation.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "saga resume",
            Self::Cancel => "saga cancel",
            Self::Send { .. } => "saga send",
            Self::Fork { .. } => "saga fork",
        }
    }
}

/// What became of an order about an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InstanceDone {
    /// `resumed`, `cancelled`, `sent` or `forked`. Else nothing was done: `would be forked` if that was all that was
    /// asked; `gone` when there is no such instance, `not paused`, `done` when it is over already, or `moved` when it
    /// is no longer where it was seen.
    pub result: String,
    /// The message that it was paused by.
    pub paused_by: Option<String>,
    /// How many held messages were discarded.
    pub discarded: u64,
    /// The id of the message that it was given.
    pub message_id: Option<String>,
    /// Where it stands again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
}

/// Where an instance stands again after a fork.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Forked {
    /// The step that left it there.
    pub at: i64,
    /// The number of the step that the fork itself is.
    pub seq: i64,
    /// Its state.
    pub state: String,
    /// Whether it is over.
    pub over: bool,
    /// Timers that are as they were.
    pub timers_kept: u64,
    /// Timers that are set again.
    pub timers_set: u64,
    /// Timers that are deleted.
    pub timers_deleted: u64,
    /// Messages that it sent after the step. They stay sent.
    pub stays_sent: u64,
    /// Held messages that it is offered.
    pub offered: u64,
}

impl InstanceDone {
    /// With this result, and nothing else to tell.
    pub fn new(result: &str) -> Self {
        Self { result: result.into(), paused_by: None, discarded: 0, message_id: None, forked: None }
    }

    /// Whether the order was carried out, or would be.
    pub fn is_done(&self) -> bool {
        matches!(self.result.as_str(), "resumed" | "cancelled" | "sent" | "forked" | "would be forked")
    }
}

/// Instances that are stored in one form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FormCount {
    /// The saga.
    pub saga: String,
    /// The state, as stored.
    pub state: String,
    /// The version that wrote it.
    pub version: i32,
    /// How many.
    pub count: i64,
    /// How many of them are done.
    pub done: i64,
}
