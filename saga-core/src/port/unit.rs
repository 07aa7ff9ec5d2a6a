//! What a unit of work reads: keys in, rows out.

use super::{HeldReason, InboxResult};
use crate::{Envelope, hash_of};
use std::sync::Arc;

/// What a batch asks about.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Keys {
    /// The endpoint.
    pub endpoint: String,
    /// Message ids whose inbox rows are wanted, those of every receiver.
    pub message_ids: Vec<String>,
    /// Instances that are wanted, with counts of what is held for them.
    pub instances: Vec<InstanceKey>,
}

impl Keys {
    /// No keys of this endpoint yet.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..Self::default() }
    }
}

/// A saga instance. Exhaustive: its two fields are the key of the tables, on which every lock and every lookup rests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey {
    /// The saga's logical name.
    pub saga: String,
    /// The instance.
    pub id: String,
}

impl InstanceKey {
    /// The number of the lock under which units of work, and operators, change the instance; or of an alias, by which
    /// it is found.
    pub fn lock(&self) -> i64 {
        hash_of([self.saga.as_bytes(), self.id.as_bytes()])
    }
}

/// The longest value of a field that is no alias, in bytes.
pub const FIELD_BYTES_MAX: usize = 128;

/// A field and the instance that has it: operators find the instance by it, and by an alias messages do too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct FieldRow {
    /// The key of the field: `saga by name` in place of a saga, and the value in place of an id.
    pub field: InstanceKey,
    /// The instance.
    pub instance: InstanceKey,
    /// Whether it is an alias: then one instance has the value, and no other.
    pub is_alias: bool,
}

impl FieldRow {
    /// This field of this instance, which is no alias.
    pub fn new(field: InstanceKey, instance: InstanceKey) -> Self {
        Self { field, instance, is_alias: false }
    }

    /// This alias of this instance.
    pub fn alias(field: InstanceKey, instance: InstanceKey) -> Self {
        Self { is_alias: true, ..Self::new(field, instance) }
    }
}

/// What is known of aliases.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct AliasesFound {
    /// Those that instances have.
    pub rows: Vec<FieldRow>,
    /// Those for which early messages wait.
    pub awaited: Vec<InstanceKey>,
}

impl AliasesFound {
    /// These instances have aliases, and messages wait for those.
    pub fn new(rows: Vec<FieldRow>, awaited: Vec<InstanceKey>) -> Self {
        Self { rows, awaited }
    }
}

/// What is known about a batch's keys.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Found {
    /// The database's clock: microseconds since 1970.
    pub now_us: i64,
    /// The locks that [`Store::begin`](super::Store::begin) asked for and another transaction holds: this unit must not
    /// decide anything that depends on them.
    pub locked_elsewhere: Vec<i64>,
    /// Inbox rows of the endpoint.
    pub inbox: Vec<InboxFound>,
    /// Instances.
    pub instances: Vec<InstanceRow>,
    /// What is held for the instances, counted by type and reason. [`Unit::held`](super::Unit::held) reads the bodies,
    /// and only of those that fit.
    pub waiting: Vec<Waiting>,
}

impl Found {
    /// Nothing found, at this time by the database's clock (microseconds since 1970).
    pub fn new(now_us: i64) -> Self {
        Self { now_us, ..Self::default() }
    }
}

/// Messages of one type that are held for one instance for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The instance.
    pub key: InstanceKey,
    /// Their logical name.
    pub type_name: String,
    /// Why they wait.
    pub reason: HeldReason,
    /// How many.
    pub count: i64,
}

impl Waiting {
    /// A count of messages.
    pub fn new(key: InstanceKey, type_name: impl Into<String>, reason: HeldReason, count: i64) -> Self {
        Self { key, type_name: type_name.into(), reason, count }
    }
}

/// Held messages to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldWanted {
    /// The instance that they wait for.
    pub key: InstanceKey,
    /// Their logical name.
    pub type_name: String,
    /// Why they wait.
    pub reason: HeldReason,
}

impl HeldWanted {
    /// The messages of one type that wait for one reason.
    pub fn new(key: InstanceKey, type_name: impl Into<String>, reason: HeldReason) -> Self {
        Self { key, type_name: type_name.into(), reason }
    }
}

/// What the inbox says about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Delayed retries so far.
    pub round: u32,
    /// Since when it is tried, for retries that give up after a time: microseconds since 1970 by the database's clock.
    pub since_us: i64,
}

impl InboxFound {
    /// A row without runs; `since_us` is 0.
    pub fn new(
        receiver: impl Into<String>,
        message_id: impl Into<String>,
        type_name: impl Into<String>,
        body_hash: i64,
        result: InboxResult,
    ) -> Self {
        Self {
            receiver: receiver.into(),
            message_id: message_id.into(),
            type_name: type_name.into(),
            body_hash,
            result,
            attempts: 0,
            round: 0,
            since_us: 0,
        }
    }
}

/// A saga instance as stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InstanceRow {
    /// Which.
    pub key: InstanceKey,
    /// The state's name.
    pub state: String,
    /// The state, and the data that all states share, JSON.
    pub data: String,
    /// Transitions so far.
    pub seq: i64,
    /// State entries so far.
    pub entered: i64,
    /// The version of the definition that wrote it.
    pub version: i32,
    /// Its living timers, the states it has been in, its commands that may be taken back, JSON; none while there are
    /// none.
    pub progress: Option<String>,
    /// Who started it, JSON.
    pub originator: Option<String>,
    /// The failed message that later ones wait behind.
    pub paused_by: Option<String>,
    /// The process is over.
    pub done: bool,
}

impl InstanceRow {
    /// The state of an instance that an operator has ended. No state of a saga is called this, and none reads its data,
    /// which stay those of the state before.
    pub const CANCELLED: &'static str = "sagabus.Cancelled";
    /// The type, in the journal, of the line that ends such an instance.
    pub const CANCEL: &'static str = "sagabus.Cancel";
    /// The type, in the journal, of the line from which on an instance stands again where an earlier step left it.
    pub const FORK: &'static str = "sagabus.Fork";

    /// An instance without transitions, in this state with this data (JSON).
    pub fn new(key: InstanceKey, state: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            key,
            state: state.into(),
            data: data.into(),
            seq: 0,
            entered: 0,
            version: 0,
            progress: None,
            originator: None,
            paused_by: None,
            done: false,
        }
    }
}

/// A held message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeldRow {
    /// The saga or handler; empty when none could be found.
    pub receiver: String,
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Order of arrival, given by the database.
    pub arrival: i64,
    /// Why it waits.
    pub reason: HeldReason,
    /// The instance that it waits for, when the receiver is a saga.
    pub saga_id: Option<String>,
    /// Runs so far.
    pub attempts: i64,
}

impl HeldRow {
    /// A message without an instance that has not run.
    pub fn new(receiver: impl Into<String>, envelope: Arc<Envelope>, arrival: i64, reason: HeldReason) -> Self {
        Self { receiver: receiver.into(), envelope, arrival, reason, saga_id: None, attempts: 0 }
    }
}
