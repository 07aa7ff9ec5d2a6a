//! What goes between the endpoint and its store: keys, rows, and everything a batch came to.

use crate::{Destination, Envelope, SagaRef};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// What a batch asks about.
#[derive(Debug, Default)]
pub struct Keys {
    /// The endpoint.
    pub endpoint: String,
    /// Message ids whose inbox rows are wanted, those of every receiver.
    pub message_ids: Vec<String>,
    /// Instances that are wanted, with the messages held for them.
    pub instances: Vec<InstanceKey>,
    /// At most so many held messages.
    pub held_rows_max: i64,
}

/// A saga instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey {
    /// The saga's logical name.
    pub saga: String,
    /// The instance.
    pub id: String,
}

/// What is known of a batch's keys.
#[derive(Debug, Default)]
pub struct Found {
    /// The database's clock: microseconds since 1970.
    pub now_us: i64,
    /// Inbox rows of the endpoint.
    pub inbox: Vec<InboxFound>,
    /// Instances.
    pub instances: Vec<InstanceRow>,
    /// Messages held for the instances, in order of arrival.
    pub held: Vec<HeldRow>,
}

/// What the inbox says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxFound {
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
    /// Runs so far.
    pub attempts: i64,
}

/// What became of a message at one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxResult {
    /// Handled.
    Handled,
    /// Nothing to do with it in this state.
    Ignored,
    /// A timer of a state that was left.
    Stale,
    /// Given up by policy or by an operator.
    Discarded,
    /// Waits in `held`.
    Held,
    /// Waits for its delayed retry.
    Retrying,
    /// Was redelivered after a crash and is being run alone.
    Suspect,
}

impl InboxResult {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Handled, "handled"),
        (Self::Ignored, "ignored"),
        (Self::Stale, "stale"),
        (Self::Discarded, "discarded"),
        (Self::Held, "held"),
        (Self::Retrying, "retrying"),
        (Self::Suspect, "suspect"),
    ];

    /// Its name in the table.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(result, _)| *result == self).map_or("handled", |(_, name)| name)
    }

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(result, _)| *result)
    }

    /// Whether the message is settled for good.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Held | Self::Retrying | Self::Suspect)
    }
}

/// A saga instance as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRow {
    /// Which.
    pub key: InstanceKey,
    /// The state's name.
    pub state: String,
    /// The state's data, JSON.
    pub data: String,
    /// Transitions so far.
    pub seq: i64,
    /// State entries so far.
    pub entered: i64,
    /// The version of the definition that wrote it.
    pub version: i32,
    /// Who started it, JSON.
    pub originator: Option<String>,
    /// The failed message that later ones wait behind.
    pub paused_by: Option<String>,
    /// The process is over.
    pub done: bool,
}

/// An inbox row to write: the mark that a message was settled, and its line in the journal.
#[derive(Debug, Clone)]
pub struct InboxRow {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub envelope: Arc<Envelope>,
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
    /// What was sent; `None` when nothing was run.
    pub effects: Option<Vec<Caused>>,
    /// The process that handled it.
    pub handled_by: String,
    /// Runs so far.
    pub attempts: i64,
    /// Why it was discarded, or another remark.
    pub note: Option<String>,
}

/// A message that another one caused, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caused {
    /// Its id; none when it was not sent.
    pub id: Option<Uuid>,
    /// What it is.
    #[serde(rename = "type")]
    pub type_name: &'static str,
    /// The endpoint, queue or event that it went to.
    pub to: Option<String>,
    /// Why it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// An outbox row to write.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Its key.
    pub id: Uuid,
    /// The endpoint it belongs to.
    pub endpoint: String,
    /// Why it is there.
    pub kind: OutboxKind,
    /// Where it goes.
    pub destination: Destination,
    /// What goes.
    pub envelope: Arc<Envelope>,
    /// How long it waits first; `None`: it goes now.
    pub delay: Option<Duration>,
    /// The process that publishes it from memory holds a lease on it; without, a relay picks it up.
    pub leased: bool,
}

/// Why a row is in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxKind {
    /// A command.
    Command,
    /// An event.
    Event,
    /// An answer.
    Reply,
    /// A timer of a saga.
    Timer,
    /// A message put off to be handled again.
    Retry,
}

impl OutboxKind {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Command, "command"),
        (Self::Event, "event"),
        (Self::Reply, "reply"),
        (Self::Timer, "timer"),
        (Self::Retry, "retry"),
    ];

    /// Its name in the table.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("command", |(_, name)| name)
    }

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// The destination that a row of this kind names.
    pub fn destination(self, name: String) -> Destination {
        match self {
            Self::Event => Destination::Event(name),
            Self::Reply => Destination::ReplyTo(name),
            Self::Command | Self::Timer | Self::Retry => Destination::Endpoint(name),
        }
    }
}

/// A message that waits.
#[derive(Debug, Clone)]
pub struct HeldRow {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler; empty when none could be found.
    pub receiver: String,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Order of arrival; given by the database, 0 before.
    pub arrival: i64,
    /// Why it waits.
    pub reason: HeldReason,
    /// The instance, when the receiver is a saga.
    pub saga_id: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Runs so far.
    pub attempts: i64,
    /// When it stops waiting for its instance.
    pub expires: Option<Duration>,
}

/// Why a message waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldReason {
    /// For a state that takes it, or for its instance to start.
    Early,
    /// For another state, as the definition says.
    Deferred,
    /// Behind a failed message of the same instance.
    Paused,
    /// For a process that knows the version which wrote the state.
    Version,
    /// For a person: it failed.
    Failed,
    /// For a person: the definition rejects it.
    Rejected,
    /// For a person: it killed the process.
    Crashes,
    /// For a person: it cannot be read.
    Undecodable,
    /// For a person: its first publish is so old that its receivers may have forgotten it.
    Stranded,
}

impl HeldReason {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Early, "early"),
        (Self::Deferred, "deferred"),
        (Self::Paused, "paused"),
        (Self::Version, "version"),
        (Self::Failed, "failed"),
        (Self::Rejected, "rejected"),
        (Self::Crashes, "crashes"),
        (Self::Undecodable, "undecodable"),
        (Self::Stranded, "stranded"),
    ];

    /// Its name in the table.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("failed", |(_, name)| name)
    }

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }

    /// Whether it goes on by itself, without a person.
    pub fn releases_itself(self) -> bool {
        matches!(self, Self::Early | Self::Deferred | Self::Paused)
    }
}

/// An instance to write.
#[derive(Debug, Clone)]
pub struct InstanceWrite {
    /// The row as it will be.
    pub row: InstanceRow,
    /// The `seq` it was read with; 0 for a new one. Another in the table is a conflict.
    pub base_seq: i64,
}

/// Timers of an instance that go because their state was left.
#[derive(Debug, Clone)]
pub struct TimersOut {
    /// Whose.
    pub key: InstanceKey,
    /// Timers of this entry stay; deadlines stay too. `None`: all go, deadlines included.
    pub keep_entered: Option<i64>,
}

/// A held row, by its key.
#[derive(Debug, Clone)]
pub struct HeldKey {
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub message_id: String,
}

/// Everything a batch came to.
#[derive(Debug, Default)]
pub struct Write {
    /// The endpoint.
    pub endpoint: String,
    /// This process: the owner of the leases.
    pub owner: String,
    /// How long a lease runs.
    pub lease: Duration,
    /// Inbox rows that must not exist yet.
    pub claims: Vec<InboxRow>,
    /// Inbox rows that must exist unsettled, with the `attempts` they were read with.
    pub settles: Vec<(InboxRow, i64)>,
    /// Instances.
    pub instances: Vec<InstanceWrite>,
    /// Messages to send.
    pub outbox: Vec<OutboxRow>,
    /// Messages to hold; one that is held already gets the new reason and keeps its arrival.
    pub held_in: Vec<HeldRow>,
    /// Messages no longer held.
    pub held_out: Vec<HeldKey>,
    /// Timers of states that were left.
    pub timers_out: Vec<TimersOut>,
}

impl Write {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
            && self.settles.is_empty()
            && self.instances.is_empty()
            && self.outbox.is_empty()
            && self.held_in.is_empty()
            && self.held_out.is_empty()
            && self.timers_out.is_empty()
    }
}

/// What a relay asks for.
#[derive(Debug)]
pub struct Claim<'a> {
    /// The endpoint whose rows it sends.
    pub endpoint: &'a str,
    /// This process.
    pub owner: &'a str,
    /// At most so many rows.
    pub rows_max: i64,
    /// How long the lease runs.
    pub lease: Duration,
    /// Rows whose first publish is older than this are left alone: [`Store::sweep`](crate::Store::sweep) holds them for a person.
    pub retention: Duration,
}

/// What a relay got.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Rows to publish, oldest due first.
    pub rows: Vec<OutboxClaimed>,
    /// How long until the next row is due; `None`: none waits.
    pub next_due: Option<Duration>,
}

/// A leased outbox row.
#[derive(Debug, Clone)]
pub struct OutboxClaimed {
    /// The row.
    pub id: Uuid,
    /// Where it goes.
    pub destination: Destination,
    /// What goes.
    pub envelope: Arc<Envelope>,
    /// How often it was tried before.
    pub attempts: u32,
}

/// What a dispatcher says of the rows in its window.
#[derive(Debug)]
pub struct Leases<'a> {
    /// This process.
    pub owner: &'a str,
    /// How long the lease runs from now.
    pub lease: Duration,
    /// Rows still being published.
    pub renew: &'a [Uuid],
    /// Rows that could not be published.
    pub failed: &'a [PublishFailed],
}

/// An outbox row that could not be published.
#[derive(Debug, Clone)]
pub struct PublishFailed {
    /// The row.
    pub id: Uuid,
    /// Why.
    pub error: String,
    /// How long until it is tried again.
    pub delay: Duration,
}

/// The envelope of a stored row.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct StoredEnvelope {
    pub message_id: String,
    pub type_name: String,
    pub conversation_id: String,
    pub causation_id: Option<String>,
    pub saga: Option<String>,
    pub saga_id: Option<String>,
    pub entered: Option<i64>,
    pub receiver: Option<String>,
    pub sent_at_us: Option<i64>,
    pub headers: String,
    pub body: Vec<u8>,
}

impl StoredEnvelope {
    /// Puts the envelope together again.
    pub fn restore(self, endpoint: &str) -> Envelope {
        let saga = match (self.saga, self.saga_id) {
            (Some(saga), Some(id)) => Some(SagaRef { saga, id, entered: self.entered }),
            _ => None,
        };
        let mut envelope = Envelope {
            message_id: self.message_id,
            type_name: self.type_name,
            conversation_id: self.conversation_id,
            causation_id: self.causation_id,
            saga,
            receiver: self.receiver.filter(|receiver| !receiver.is_empty()),
            attempt: 0,
            round: 0,
            reply_to: None,
            sender: None,
            sent_at_us: self.sent_at_us,
            content_type: None,
            headers: Default::default(),
            body: self.body.into(),
        };
        envelope.restore_headers(endpoint, serde_json::from_str(&self.headers).unwrap_or_default());
        envelope
    }
}
