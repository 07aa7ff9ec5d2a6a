//! What both databases share.

use crate::error::unknown_word;
use bytes::Bytes;
use saga_core::{
    Chart, Counts, Envelope, HeldReason, InboxResult, InboxRow, InstanceCount, LeasedRow, OutboxKind, SagaRef,
    StoreError, StoreErrorKind,
};
use std::{borrow::Cow, sync::Arc, time::Duration};
use uuid::Uuid;

/// The longest time that is added to a clock: it stays within every database's calendar.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);
/// The most rows that one step of housekeeping touches.
pub(crate) const STEP_ROWS_MAX: i64 = 1000;
/// A process without a heartbeat for this long counts as dead; it should write one every 30 seconds.
pub(crate) const ALIVE: Duration = Duration::from_secs(90);
/// Rows of processes that did not sign off are deleted after this time.
pub(crate) const PROCESS_KEPT: Duration = Duration::from_secs(86_400);
/// What operators did is forgotten after this time: auditors ask for a year (PCI DSS 4.0, 10.5.1).
pub(crate) const OPERATION_KEPT: Duration = Duration::from_secs(400 * 86_400);
/// A row that cannot be read is tried again after this time: a newer binary may read it.
pub(crate) const UNREADABLE_DELAY: Duration = Duration::from_secs(300);

/// The text in the journal and in `held.error` when an early message waited in vain.
pub(crate) const NO_INSTANCE_NOTE: &str = "no instance came in time";
pub(crate) const NO_INSTANCE: &str = "no instance came in time; start it and retry, or leave it";
/// The text in `held.error` when a message waited in vain for a process that knows it.
pub(crate) const NO_VERSION: &str =
    "no process came in time that knows this type, or the version of its instance; deploy one, then retry";

/// A duration in microseconds, as the tables count time: a thousand years at most.
pub(crate) fn us(duration: Duration) -> i64 {
    duration.min(LONGEST).as_micros() as i64
}

/// How long until the next call of a limit, of which no time was taken because it was not `within`.
pub(crate) fn later_than(within: Duration, wait_us: Option<i64>) -> Duration {
    let wait = Duration::from_micros(wait_us.unwrap_or_default().max(0).unsigned_abs());
    wait.max(within + Duration::from_micros(1)) // meanwhile it may have come nearer
}

/// An envelope as its column holds it: everything but the body.
pub(crate) fn to_json(envelope: &Envelope) -> Result<String, StoreError> {
    serde_json::to_string(envelope).map_err(|error| {
        let text = format!("message {} cannot be written: {error}", envelope.message_id);
        StoreError::new(StoreErrorKind::Rejected, text).with_source(error)
    })
}

/// An envelope from its column and its body.
pub(crate) fn from_json(json: &str, body: impl Into<Bytes>) -> Result<Envelope, String> {
    let mut envelope: Envelope =
        serde_json::from_str(json).map_err(|error| format!("the column `envelope` cannot be read: {error}"))?;
    envelope.body = body.into();
    Ok(envelope)
}

pub(crate) fn result_of(word: &str) -> Result<InboxResult, StoreError> {
    InboxResult::parse(word).ok_or_else(|| unknown_word("inbox.result", word))
}

pub(crate) fn reason_of(word: &str) -> Result<HeldReason, StoreError> {
    HeldReason::parse(word).ok_or_else(|| unknown_word("held.reason", word))
}

/// Charts from their column.
pub(crate) fn charts_of(columns: &[String]) -> Result<Vec<Chart>, StoreError> {
    let read = columns.iter().map(|json| serde_json::from_str(json));
    read.collect::<Result<_, _>>().map_err(|error| {
        let text = format!("the column `definition.chart` holds what this program cannot read: {error}");
        StoreError::new(StoreErrorKind::Schema, text).with_source(error)
    })
}

/// An outbox row as a relay leases it, before it is read.
pub(crate) struct Stored<'a> {
    pub(crate) kind: &'a str,
    pub(crate) destination: String,
    pub(crate) envelope: &'a str,
    pub(crate) body: Vec<u8>,
    pub(crate) attempts: i64,
    pub(crate) expired: i64,
    /// Microseconds since it was due.
    pub(crate) late_us: i64,
    /// It failed before, and waits for no destination.
    pub(crate) wanted: bool,
}

impl Stored<'_> {
    /// Reads it, or says why it cannot be read.
    pub(crate) fn read(self, id: Uuid) -> Result<LeasedRow, String> {
        let kind = OutboxKind::parse(self.kind).ok_or_else(|| unknown_word("outbox.kind", self.kind).to_string())?;
        let envelope = Arc::new(from_json(self.envelope, self.body)?);
        let mut row = LeasedRow::new(id, kind.destination(self.destination), envelope);
        row.attempts = self.attempts.clamp(0, i64::from(u32::MAX)) as u32;
        row.expired = self.expired.clamp(0, i64::from(u32::MAX)) as u32;
        row.wanted = self.wanted;
        let is_first = kind == OutboxKind::Timer && row.attempts == 0 && row.expired == 0;
        row.late = is_first.then(|| Duration::from_micros(self.late_us.max(0).unsigned_abs()));
        Ok(row)
    }
}

/// A row of a statement that counts.
pub(crate) struct Counted {
    pub(crate) what: String,
    /// A reason or a saga.
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) count: i64,
    /// Of the outbox: microseconds since the oldest row was due; of instances: how many are paused.
    pub(crate) more: Option<i64>,
}

/// What the rows say, where instances were counted in a share of all.
pub(crate) fn counts_of(rows: Vec<Counted>, share: f64) -> Counts {
    let of_all = |count: i64| (count as f64 / share).round() as i64;
    let mut counts = Counts::default();
    for Counted { what, name, state, count, more } in rows {
        match what.as_str() {
            "outbox" => {
                counts.outbox = count;
                counts.outbox_oldest = more.map(|us| Duration::from_micros(us.max(0).unsigned_abs()));
            }
            "unroutable" => counts.unroutable = count,
            "held" => counts.held.extend(HeldReason::parse(&name).map(|reason| (reason, count))),
            _ => {
                let mut instances = InstanceCount::new(name, state, of_all(count));
                instances.paused = of_all(more.unwrap_or_default());
                counts.instances.push(instances);
            }
        }
    }
    counts.instances.sort_unstable_by(|a, b| (&a.saga, &a.state).cmp(&(&b.saga, &b.state)));
    counts
}

/// A text for people, without U+0000: PostgreSQL's texts cannot hold it, and an error of user code may contain it.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// The instance that a message comes from.
pub(crate) fn sender(envelope: &Envelope) -> Option<&SagaRef> {
    envelope.saga.as_ref()
}

/// What an inbox row's message caused, as the journal names it.
pub(crate) fn effects(row: &InboxRow) -> Option<String> {
    row.effects.as_ref().and_then(|effects| serde_json::to_string(effects).ok())
}

/// Inbox rows in the order of (message id, receiver), so that two processes cannot wait for each other.
pub(crate) fn in_order<T>(rows: &[T], inbox: impl Fn(&T) -> &InboxRow) -> Vec<&T> {
    let mut rows: Vec<&T> = rows.iter().collect();
    rows.sort_unstable_by(|a, b| {
        let (a, b) = (inbox(a), inbox(b));
        (&a.envelope.message_id, &a.receiver).cmp(&(&b.envelope.message_id, &b.receiver))
    });
    rows
}

/// A message that waited without a receiver goes back. To those that know it now it is new; but a retry stays the retry
/// of its receiver, whose inbox row tells it from the original by its attempts.
pub(crate) fn back(envelope: &mut Envelope) {
    if envelope.receiver.is_none() {
        envelope.attempt = 0;
    }
}

/// The key of an instance's wake-up in the outbox: the same each time, so that at most one waits.
pub(crate) fn wake_id(endpoint: &str, saga: &str, id: &str) -> Uuid {
    let parts = [endpoint, saga, id].map(str::as_bytes);
    let high = saga_core::hash_of(parts) as u64;
    Uuid::from_u64_pair(high, saga_core::hash_of([Envelope::WAKE.as_bytes(), &high.to_be_bytes()]) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m8_for_ever_is_a_thousand_years() {
        assert_eq!(us(Duration::MAX), us(LONGEST));
        assert_eq!(us(Duration::from_millis(1)), 1000);
    }

    #[test]
    fn b08_an_envelope_that_cannot_be_read_says_so() {
        let error = from_json("[1, 2]", Vec::new()).unwrap_err();
        assert!(error.contains("`envelope` cannot be read"), "{error}");
        let row = |kind| Stored {
            late_us: 0,
            kind,
            destination: "e".into(),
            envelope: r#"{"message_id":"m","type":"t","conversation_id":"m"}"#,
            body: Vec::new(),
            attempts: -1,
            expired: 2,
            wanted: false,
        };
        let read = row("event").read(Uuid::nil()).unwrap();
        assert_eq!((read.attempts, read.expired), (0, 2));
        let error = row("broadcast").read(Uuid::nil()).unwrap_err();
        assert!(error.contains("`broadcast`") && error.contains("deploy one that does"), "{error}");
    }

    #[test]
    fn an_instance_has_one_wake_up() {
        assert_eq!(wake_id("e", "s", "7"), wake_id("e", "s", "7"));
        assert_ne!(wake_id("e", "s", "7"), wake_id("e", "s", "8"));
    }

    #[test]
    fn fuzz_envelope_column() {
        let mut full = Envelope::new("m", "ordering.OrderPlaced", "{}");
        full.causation_id = Some("before".into());
        full.saga = Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3), timer: Some(9) });
        full.attempt = 4;
        full.sent_at_us = Some(1_795_000_000_123_456);
        full.headers.insert("list".into(), serde_json::json!([true, null, 1.5, "é", {"a": 1}]));
        let samples = [to_json(&full).unwrap(), to_json(&Envelope::new("n", "t", "")).unwrap()];
        fuzz::each_text(&samples.each_ref().map(|sample| &**sample), |input| {
            let stored = |kind| Stored {
                kind,
                destination: "there".into(),
                envelope: input,
                body: Vec::new(),
                attempts: i64::MIN,
                expired: i64::MAX,
                late_us: i64::MIN,
                wanted: true,
            };
            assert!(stored("parcel").read(Uuid::nil()).is_err(), "there is no such kind of row");
            let Ok(row) = stored("command").read(Uuid::nil()) else { return };
            let written = to_json(&row.envelope).expect("what was read can be written");
            assert_eq!(from_json(&written, "").as_ref(), Ok(&*row.envelope));
        });
    }
}
