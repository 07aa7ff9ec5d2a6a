//! Rows to write, and how; the rules are tested in the modules.

mod faults;
mod leases;
mod processes;
mod sweeps;
mod units;

use super::*;
use crate::{
    Destination, Envelope, HeldIn, HeldReason, InboxResult, InstanceKey, InstanceRow, InstanceWrite, OutboxKind,
    OutboxRow, SagaRef, Unit, Write,
};

const LIMIT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(30);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn envelope(id: &str) -> Arc<Envelope> {
    Arc::new(Envelope::new(id, "test.Message", "{}"))
}

fn inbox(id: &str, result: InboxResult, attempts: i64) -> InboxRow {
    InboxRow { attempts, ..InboxRow::new("r", envelope(id), result) }
}

fn handled(id: &str) -> InboxRow {
    inbox(id, InboxResult::Handled, 1)
}

fn outbox(id: &str) -> OutboxRow {
    OutboxRow {
        id: Uuid::now_v7(),
        kind: OutboxKind::Command,
        destination: Destination::Endpoint("there".into()),
        envelope: envelope(id),
        delay: None,
        leased: false,
        last_error: None,
    }
}

fn timer(number: i64) -> OutboxRow {
    let mut envelope = Envelope::new("timer", "test.Timer", "{}");
    envelope.saga = Some(SagaRef { saga: "saga".into(), id: "7".into(), entered: None, timer: Some(number) });
    OutboxRow { kind: OutboxKind::Timer, envelope: Arc::new(envelope), delay: Some(WEEK), ..outbox("timer") }
}

/// Held for instance 7 of `saga`.
fn held(id: &str, reason: HeldReason) -> HeldIn {
    HeldIn {
        receiver: "saga".into(),
        envelope: envelope(id),
        reason,
        saga_id: Some("7".into()),
        error: None,
        attempts: 0,
        expires: None,
        alias: None,
    }
}

fn key() -> InstanceKey {
    InstanceKey { saga: "saga".into(), id: "7".into() }
}

fn instance(seq: i64, base_seq: i64) -> InstanceWrite {
    let row = InstanceRow {
        key: key(),
        state: "S".into(),
        data: "{}".into(),
        seq,
        entered: seq,
        version: 1,
        progress: None,
        originator: Some(format!("written at {seq}")),
        paused_by: None,
        done: false,
    };
    InstanceWrite { row, base_seq }
}

fn writes() -> Write {
    Write { endpoint: "e".into(), owner: "me".into(), lease: LEASE, ..Write::default() }
}

fn keys(ids: &[&str]) -> Keys {
    let message_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    Keys { endpoint: "e".into(), message_ids, instances: vec![key()] }
}

fn chart(saga: &str, version: u32) -> Chart {
    Chart {
        saga: saga.into(),
        version,
        id: String::new(),
        has_data: false,
        states: Vec::new(),
        messages: Vec::new(),
        edges: Vec::new(),
    }
}

async fn begin(store: &MemoryStore) -> MemoryUnit {
    store.begin(&[], LIMIT).await.expect("a unit opens")
}

async fn write(store: &MemoryStore, write: Write) -> Result<(), StoreError> {
    let mut unit = begin(store).await;
    unit.write(&write).await?;
    unit.commit().await
}

async fn lease(store: &MemoryStore, owner: &str) -> Leased {
    let request = LeaseRequest::new("e", owner, 100, LEASE, WEEK);
    store.lease(&request).await.expect("rows are leased")
}

fn kind<T>(done: Result<T, StoreError>) -> Option<StoreErrorKind> {
    done.err().map(|error| error.kind())
}

const CONFLICT: Option<StoreErrorKind> = Some(StoreErrorKind::Conflict);
const REJECTED: Option<StoreErrorKind> = Some(StoreErrorKind::Rejected);
const UNAVAILABLE: Option<StoreErrorKind> = Some(StoreErrorKind::Unavailable);
