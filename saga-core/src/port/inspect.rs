//! What operators read, and the few things they do, through the store.

use super::StoreError;
use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

/// The operator's side of a store: reads for listings, and actions. Object-safe, so that one tool serves every database.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// Counts per endpoint and saga.
    async fn status(&self) -> Result<Status, StoreError>;
    /// Rows of the outbox, oldest due first.
    async fn outbox(&self, limit: i64) -> Result<Vec<OutboxView>, StoreError>;
    /// One row, with its body.
    async fn outbox_row(&self, id: &str) -> Result<Option<OutboxView>, StoreError>;
    /// Instances, last changed first.
    async fn instances(&self, filter: &InstanceFilter, limit: i64) -> Result<Vec<InstanceView>, StoreError>;
    /// One instance.
    async fn instance(&self, saga: &str, id: &str) -> Result<Option<InstanceView>, StoreError>;
    /// The timers of one instance, next due first.
    async fn timers(&self, saga: &str, id: &str) -> Result<Vec<OutboxView>, StoreError>;
    /// What one instance handled, in order.
    async fn journal(&self, saga: &str, id: &str) -> Result<Vec<JournalView>, StoreError>;
    /// Held messages, in order of arrival.
    async fn held(&self, limit: i64) -> Result<Vec<HeldView>, StoreError>;
    /// Held messages under one message id (one for each receiver).
    async fn held_messages(&self, message_id: &str) -> Result<Vec<HeldView>, StoreError>;
    /// Orders that the held messages under one id be handled again. Returns how many there were.
    async fn held_retry(&self, message_id: &str, who: &str, why: &str) -> Result<u64, StoreError>;
}

/// Which instances to list.
#[derive(Debug, Default)]
pub struct InstanceFilter {
    /// Of this saga.
    pub saga: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// Only paused ones.
    pub paused: bool,
    /// Only those that are not done.
    pub open: bool,
}

/// Counts.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    /// Per endpoint.
    pub endpoints: Vec<EndpointStatus>,
    /// Per saga and state.
    pub instances: Vec<StateCount>,
}

/// One endpoint's counts.
#[derive(Debug, Default, Clone, Serialize)]
pub struct EndpointStatus {
    /// Its name.
    pub endpoint: String,
    /// Rows due now or being published.
    pub outbox: i64,
    /// The age of the oldest due row.
    pub oldest_ms: Option<i64>,
    /// Timers and delayed messages that are not due yet.
    pub scheduled: i64,
    /// Held messages by reason.
    pub held: Vec<ReasonCount>,
    /// Messages settled within the last minute.
    pub handled_last_minute: i64,
}

/// Held messages for one reason.
#[derive(Debug, Clone, Serialize)]
pub struct ReasonCount {
    /// Why they wait.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// Instances in one state.
#[derive(Debug, Clone, Serialize)]
pub struct StateCount {
    /// The saga.
    pub saga: String,
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
    /// How many of them are paused.
    pub paused: i64,
    /// Whether the process is over in this state.
    pub done: bool,
}

/// An outbox row. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct OutboxView {
    /// Its key.
    pub id: String,
    /// The endpoint it belongs to.
    pub endpoint: String,
    /// The message.
    pub message_id: String,
    /// command, event, reply, timer or retry.
    pub kind: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Where it goes.
    pub destination: String,
    /// The saga of the instance that sent it.
    pub saga: Option<String>,
    /// The instance that sent it.
    pub saga_id: Option<String>,
    /// When it was written.
    pub created_at_us: i64,
    /// When it is to be sent.
    pub due_at_us: i64,
    /// When the lease on it ends.
    pub lease_until_us: Option<i64>,
    /// The process that holds the lease.
    pub lease_owner: Option<String>,
    /// How often it was tried.
    pub attempts: i64,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// Headers.
    pub headers: Value,
    /// The body: JSON, or a text that says what it is.
    pub body: Value,
}

/// A saga instance. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceView {
    /// The saga.
    pub saga: String,
    /// The instance.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The state's data.
    pub data: Value,
    /// Transitions so far.
    pub seq: i64,
    /// The version that wrote it.
    pub version: i32,
    /// The failed message that later ones wait behind.
    pub paused_by: Option<String>,
    /// When it started.
    pub created_at_us: i64,
    /// When it last changed.
    pub updated_at_us: i64,
    /// When it was done.
    pub completed_at_us: Option<i64>,
}

/// A line of the journal. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct JournalView {
    /// The message.
    pub message_id: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// What became of it.
    pub result: String,
    /// Transitions, this one included.
    pub seq: Option<i64>,
    /// The state before.
    pub from_state: Option<String>,
    /// The state after.
    pub to_state: Option<String>,
    /// What was sent.
    pub effects: Value,
    /// The message that caused it.
    pub causation_id: Option<String>,
    /// When it was handled.
    pub handled_at_us: i64,
    /// The process that handled it.
    pub handled_by: String,
    /// Runs.
    pub attempts: i64,
    /// A remark.
    pub note: Option<String>,
}

/// A held message. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct HeldView {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub message_id: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Order of arrival.
    pub arrival: i64,
    /// Why it waits.
    pub reason: String,
    /// The instance.
    pub saga_id: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Runs so far.
    pub attempts: i64,
    /// Since when.
    pub held_at_us: i64,
    /// When it stops waiting for its instance.
    pub expires_at_us: Option<i64>,
    /// Headers.
    pub headers: Value,
    /// The body: JSON, or a text that says what it is.
    pub body: Value,
}
