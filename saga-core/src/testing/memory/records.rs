//! Rows as they are stored and as tests see them. Times are microseconds since 1970 by the store's clock.

use crate::{
    Caused, Destination, Envelope, HeldReason, HeldRow, InboxFound, InboxResult, InstanceKey, InstanceRow, LeasedRow,
    OutboxKind,
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// An inbox row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InboxRecord {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub message_id: String,
    /// What it was.
    pub type_name: String,
    /// Hash of type and body.
    pub body_hash: i64,
    /// What became of it.
    pub result: InboxResult,
    /// The instance, when the receiver is a saga.
    pub saga_id: Option<String>,
    /// The instance's transitions, this one included.
    pub seq: Option<i64>,
    /// The state before.
    pub from_state: Option<String>,
    /// The state after.
    pub to_state: Option<String>,
    /// What was sent.
    pub effects: Option<Vec<Caused>>,
    /// Runs so far.
    pub attempts: i64,
    /// Delayed retries so far.
    pub round: u32,
    /// Runs that began after a crash.
    pub crashes: i64,
    /// A remark.
    pub note: Option<String>,
    /// The message itself, where the endpoint keeps it.
    pub message: Option<String>,
    /// Since when it is tried.
    pub claimed_at_us: i64,
    /// When its result was written.
    pub handled_at_us: i64,
    /// The process that wrote it.
    pub handled_by: String,
}

impl InboxRecord {
    pub(super) fn found(&self) -> InboxFound {
        InboxFound {
            receiver: self.receiver.clone(),
            message_id: self.message_id.clone(),
            type_name: self.type_name.clone(),
            body_hash: self.body_hash,
            result: self.result,
            attempts: self.attempts,
            round: self.round,
            since_us: self.claimed_at_us,
        }
    }
}

/// An outbox row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OutboxRecord {
    /// Its key.
    pub id: Uuid,
    /// The endpoint that sends it.
    pub endpoint: String,
    /// Why it is there.
    pub kind: OutboxKind,
    /// Where it goes.
    pub destination: Destination,
    /// What goes.
    pub envelope: Arc<Envelope>,
    /// When it was written.
    pub created_at_us: i64,
    /// When it is to be sent.
    pub due_at_us: i64,
    /// When the lease on it ends.
    pub lease_until_us: Option<i64>,
    /// The process that holds the lease.
    pub lease_owner: Option<String>,
    /// When a process first took it to publish it.
    pub first_attempt_at_us: Option<i64>,
    /// Tries without success.
    pub attempts: u32,
    /// Leases that ran out.
    pub expired: u32,
    /// The destination, while it has no queue.
    pub waits_for: Option<String>,
    /// Why it was put off.
    pub last_error: Option<String>,
}

impl OutboxRecord {
    pub(super) fn is_leased(&self, now: i64) -> bool {
        self.lease_until_us.is_some_and(|until| until >= now)
    }

    /// Whether its first publish is older than the receivers' memory.
    pub(super) fn is_stranded(&self, oldest: i64) -> bool {
        self.first_attempt_at_us.is_some_and(|first| first < oldest)
    }

    pub(super) fn leased(&self, now: i64) -> LeasedRow {
        let is_first = self.kind == OutboxKind::Timer && self.attempts == 0 && self.expired == 0;
        let late = Duration::from_micros(now.saturating_sub(self.due_at_us).max(0).unsigned_abs());
        LeasedRow {
            id: self.id,
            destination: self.destination.clone(),
            envelope: self.envelope.clone(),
            attempts: self.attempts,
            expired: self.expired,
            late: is_first.then_some(late),
            wanted: self.last_error.is_some() && self.waits_for.is_none(),
        }
    }
}

/// A held message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HeldRecord {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler; empty when none could be found.
    pub receiver: String,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Order of arrival.
    pub arrival: i64,
    /// Why it waits.
    pub reason: HeldReason,
    /// The instance that it waits for.
    pub saga_id: Option<String>,
    /// The alias that it waits for instead; then `saga_id` is its value.
    pub alias: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Runs so far.
    pub attempts: i64,
    /// Since when it is held.
    pub held_at_us: i64,
    /// When it begins to wait for a person.
    pub expires_at_us: Option<i64>,
    /// Of a stranded outbox row, its kind and destination.
    pub stranded: Option<(OutboxKind, Destination)>,
}

impl HeldRecord {
    /// Whether it waits for this instance, or for this alias.
    pub(super) fn waits_for(&self, key: &InstanceKey) -> bool {
        self.saga_id.as_deref() == Some(&key.id) && self.alias.as_ref().unwrap_or(&self.receiver) == &key.saga
    }

    /// What it waits for.
    pub(super) fn key(&self) -> Option<InstanceKey> {
        let saga = self.alias.as_ref().unwrap_or(&self.receiver).clone();
        Some(InstanceKey { saga, id: self.saga_id.clone()? })
    }

    pub(super) fn found(&self) -> HeldRow {
        HeldRow {
            receiver: self.receiver.clone(),
            envelope: self.envelope.clone(),
            arrival: self.arrival,
            reason: self.reason,
            saga_id: self.saga_id.clone(),
            attempts: self.attempts,
        }
    }
}

/// A saga instance.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InstanceRecord {
    /// The instance as units read it.
    pub row: InstanceRow,
    /// When it began.
    pub created_at_us: i64,
    /// When it changed last.
    pub updated_at_us: i64,
    /// When it was done.
    pub completed_at_us: Option<i64>,
}
