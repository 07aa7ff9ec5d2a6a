//! What a unit of work writes: everything that a batch decided, in one value.

use super::{Destination, FieldRow, HeldReason, InboxResult, InstanceKey, InstanceRow, OutboxKind};
use crate::Envelope;
use serde::Serialize;
use std::{borrow::Cow, sync::Arc, time::Duration};
use uuid::Uuid;

/// Everything a batch writes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Write {
    /// The endpoint.
    pub endpoint: String,
    /// This process: the owner of the leases, and who handled the messages.
    pub owner: String,
    /// How long a lease runs.
    pub lease: Duration,
    /// Inbox rows that must not exist yet. The store inserts them in the order of (message id, receiver), so that two
    /// processes cannot wait for each other.
    pub claims: Vec<InboxRow>,
    /// Inbox rows that must exist unsettled, with the `attempts` they were read with.
    pub completes: Vec<(InboxRow, i64)>,
    /// Instances.
    pub instances: Vec<InstanceWrite>,
    /// Messages to send.
    pub outbox: Vec<OutboxRow>,
    /// Messages to hold. One that is held already gets the new reason and keeps its arrival.
    pub held_in: Vec<HeldIn>,
    /// Messages no longer held.
    pub held_out: Vec<HeldKey>,
    /// Timers to delete.
    pub timers_out: Vec<TimerOut>,
    /// Fields and aliases that instances have from now on. An alias that is there already is a conflict.
    pub fields_in: Vec<FieldRow>,
    /// Those to delete, before `fields_in` are written. An alias goes if the instance has it with this value, any other
    /// field whatever its value is.
    pub fields_out: Vec<FieldRow>,
    /// Early messages that wait for one of these aliases wait for its instance from now on.
    pub aliases_met: Vec<FieldRow>,
}

impl Write {
    /// Nothing to write yet, for a process whose leases run this long.
    pub fn new(endpoint: impl Into<String>, owner: impl Into<String>, lease: Duration) -> Self {
        Self { endpoint: endpoint.into(), owner: owner.into(), lease, ..Self::default() }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
            && self.completes.is_empty()
            && self.instances.is_empty()
            && self.outbox.is_empty()
            && self.held_in.is_empty()
            && self.held_out.is_empty()
            && self.timers_out.is_empty()
            && self.fields_in.is_empty()
            && self.fields_out.is_empty()
            && self.aliases_met.is_empty()
    }
}

/// An inbox row to write: the mark that a message was settled, and its line in the journal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InboxRow {
    /// The saga or handler; empty when nobody here knows the message.
    pub receiver: String,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Hash of type and body: [`Envelope::body_hash`], but of a command that is taken back before it came, which is
    /// known by its hash alone.
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
    /// What was sent; `None` when nothing ran.
    pub effects: Option<Vec<Caused>>,
    /// Runs so far.
    pub attempts: i64,
    /// Delayed retries so far.
    pub round: u32,
    /// Why it was discarded or put off, or another remark.
    pub note: Option<String>,
    /// The message itself, as JSON, where the endpoint keeps messages of sagas.
    pub message: Option<String>,
}

impl InboxRow {
    /// The inbox row of a message that did not run.
    pub fn new(receiver: impl Into<String>, envelope: Arc<Envelope>, result: InboxResult) -> Self {
        Self {
            receiver: receiver.into(),
            body_hash: envelope.body_hash(),
            envelope,
            result,
            saga_id: None,
            seq: None,
            from_state: None,
            to_state: None,
            effects: None,
            attempts: 0,
            round: 0,
            note: None,
            message: None,
        }
    }
}

/// A message that another one caused, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Caused {
    /// Its id; none when it was not sent.
    pub id: Option<Uuid>,
    /// What it is.
    #[serde(rename = "type")]
    pub type_name: Cow<'static, str>,
    /// The endpoint, queue or event that it went to.
    pub to: Option<String>,
    /// Why it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

impl Caused {
    /// A message that was not sent.
    pub fn new(type_name: impl Into<Cow<'static, str>>) -> Self {
        Self { id: None, type_name: type_name.into(), to: None, note: None }
    }
}

/// An outbox row to write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboxRow {
    /// Its key.
    pub id: Uuid,
    /// Why it is there.
    pub kind: OutboxKind,
    /// Where it goes.
    pub destination: Destination,
    /// What goes.
    pub envelope: Arc<Envelope>,
    /// How long it waits before it is sent; `None`: it is sent now.
    pub delay: Option<Duration>,
    /// The process that holds the lease and publishes the row from memory; `None`: a relay picks it up.
    pub leased: bool,
    /// Why a retry was put off.
    pub last_error: Option<String>,
}

impl OutboxRow {
    /// A row that is sent now, by a relay.
    pub fn new(id: Uuid, kind: OutboxKind, destination: Destination, envelope: Arc<Envelope>) -> Self {
        Self { id, kind, destination, envelope, delay: None, leased: false, last_error: None }
    }
}

/// A message to hold.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeldIn {
    /// The saga or handler; empty when none could be found.
    pub receiver: String,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Why it waits.
    pub reason: HeldReason,
    /// The instance that it waits for, when the receiver is a saga.
    pub saga_id: Option<String>,
    /// It waits for an instance with this alias instead (`saga by name`), and `saga_id` is the alias's value.
    pub alias: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Runs so far.
    pub attempts: i64,
    /// After this time it waits for a person instead. Given for an early message whose instance does not exist, and for
    /// one that waits for a version.
    pub expires: Option<Duration>,
}

impl HeldIn {
    /// A message without an instance that has not run.
    pub fn new(receiver: impl Into<String>, envelope: Arc<Envelope>, reason: HeldReason) -> Self {
        Self {
            receiver: receiver.into(),
            envelope,
            reason,
            saga_id: None,
            alias: None,
            error: None,
            attempts: 0,
            expires: None,
        }
    }
}

/// An instance to write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InstanceWrite {
    /// The row as it will be.
    pub row: InstanceRow,
    /// The `seq` it was read with; 0 for a new instance. A different one in the table is a conflict.
    pub base_seq: i64,
}

impl InstanceWrite {
    /// A row in place of the one that was read with `base_seq`.
    pub fn new(row: InstanceRow, base_seq: i64) -> Self {
        Self { row, base_seq }
    }
}

/// A timer to delete: its state was left, another one took its place, or it was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimerOut {
    /// Whose.
    pub key: InstanceKey,
    /// Which of the instance's timers, as in [`SagaRef::timer`](crate::SagaRef::timer).
    pub number: i64,
}

impl TimerOut {
    /// Timer `number` of an instance.
    pub fn new(key: InstanceKey, number: i64) -> Self {
        Self { key, number }
    }
}

/// A held row, by its key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeldKey {
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub message_id: String,
}

impl HeldKey {
    /// The key of a held row.
    pub fn new(receiver: impl Into<String>, message_id: impl Into<String>) -> Self {
        Self { receiver: receiver.into(), message_id: message_id.into() }
    }
}
