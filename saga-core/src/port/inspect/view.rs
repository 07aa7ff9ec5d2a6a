//! What an operator sees of a row. The names of the fields are those in the tool's JSON, and do not change.

use super::{FormCount, GroupName};
use crate::Chart;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, btree_map::Entry};

/// An outbox row. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// When it was first published.
    pub first_attempt_at_us: Option<i64>,
    /// When the lease on it ends.
    pub lease_until_us: Option<i64>,
    /// The process that holds the lease.
    pub lease_owner: Option<String>,
    /// Tries without success.
    pub attempts: i64,
    /// Leases that ran out.
    pub expired: i64,
    /// The destination, while it has no queue.
    pub waits_for: Option<String>,
    /// Why the last try failed; of a retry, why the message was put off.
    pub last_error: Option<String>,
    /// Everything about the message but its body. A retry has the runs so far as `attempt`.
    pub envelope: Value,
}

/// A saga instance. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceView {
    /// The saga.
    pub saga: String,
    /// The instance.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The state's data.
    pub data: Value,
    /// The values by which messages find it that do not know its id, by the alias's field.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// The other fields by which operators find it, each with its value.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
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

/// A saga as a running endpoint registered it. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DefinitionView {
    /// The endpoint that runs it.
    pub endpoint: String,
    /// The saga.
    pub saga: String,
    /// The version of the definition.
    pub version: u32,
    /// Its chart.
    pub chart: Chart,
    /// When a process of this version last started.
    pub registered_at_us: i64,
}

/// A line of the journal. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// The message itself, where the endpoint keeps messages of sagas: its `envelope`, and its `body` as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
    /// The instance as this step left it, there likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JournalAfter>,
}

/// An instance as a step left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournalAfter {
    /// The state's data, as in [`InstanceView::data`].
    pub data: Value,
    /// The version that wrote it.
    pub version: i32,
    /// Whether it was over.
    pub done: bool,
}

impl JournalView {
    /// What is kept with the message stands beside it. The rest of that is for whoever lets the instance stand there
    /// again, and nobody masks it.
    pub(super) fn part(&mut self) {
        let Some(Value::Object(kept)) = &mut self.message else { return };
        kept.remove("timers");
        self.after = kept.remove("after").and_then(|after| serde_json::from_value(after).ok());
        if kept.is_empty() {
            self.message = None; // a fork has no message
        }
    }
}

/// An instance with its journal: a line of `sagabus export`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportedInstance {
    /// The saga.
    pub saga: String,
    /// The instance.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The version that wrote it.
    pub version: i32,
    /// What it handled, in order.
    pub journal: Vec<JournalView>,
}

impl ExportedInstance {
    /// The instance with its journal.
    pub fn new(instance: InstanceView, journal: Vec<JournalView>) -> Self {
        let InstanceView { saga, id, state, version, .. } = instance;
        // a replay makes its own instance of the messages
        let journal = journal.into_iter().map(|line| JournalView { after: None, ..line }).collect();
        Self { saga, id, state, version, journal }
    }
}

/// Adds up the counts of a form: instances that are done are counted apart.
pub(super) fn together(counts: Vec<FormCount>) -> Vec<FormCount> {
    let mut all: BTreeMap<(String, String, i32), FormCount> = BTreeMap::new();
    for one in counts {
        match all.entry((one.saga.clone(), one.state.clone(), one.version)) {
            Entry::Occupied(mut it) => {
                it.get_mut().count += one.count;
                it.get_mut().done += one.done;
            }
            Entry::Vacant(it) => {
                it.insert(one);
            }
        }
    }
    all.into_values().collect()
}

/// Puts lines that are newest first into order: transitions by their number, and between them, by time, the lines
/// without one. Times alone would not do: two transitions of one batch may have the same.
pub(super) fn in_order(mut lines: Vec<JournalView>) -> Vec<JournalView> {
    lines.reverse();
    let (mut moved, mut others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.seq.is_some());
    moved.sort_by_key(|line| line.seq);
    others.sort_by_key(|line| line.handled_at_us);
    let (mut moved, mut others) = (moved.into_iter().peekable(), others.into_iter().peekable());
    let mut ordered = Vec::new();
    loop {
        let other_is_next = match (moved.peek(), others.peek()) {
            (Some(line), Some(other)) => other.handled_at_us < line.handled_at_us,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let Some(line) = (if other_is_next { others.next() } else { moved.next() }) else { return ordered };
        ordered.push(line);
    }
}

/// A held message. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldView {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler; empty when none was found.
    pub receiver: String,
    /// The message.
    pub message_id: String,
    /// The logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Order of arrival.
    pub arrival: i64,
    /// Why it waits: a [`HeldReason`](crate::HeldReason), or one of a newer binary.
    pub reason: String,
    /// The saga, when it is for an instance.
    pub saga: Option<String>,
    /// The instance.
    pub saga_id: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Runs so far.
    pub attempts: i64,
    /// Since when.
    pub held_at_us: i64,
    /// When it begins to wait for a person.
    pub expires_at_us: Option<i64>,
    /// Of a stranded message, why it was in the outbox.
    pub kind: Option<String>,
    /// Of a stranded message, its destination.
    pub destination: Option<String>,
    /// Everything about the message but its body.
    pub envelope: Value,
}

impl HeldView {
    /// The name of exactly this row.
    pub fn row(&self) -> HeldRef {
        HeldRef {
            endpoint: self.endpoint.clone(),
            receiver: self.receiver.clone(),
            message_id: self.message_id.clone(),
            arrival: self.arrival,
        }
    }

    /// Whether it goes on without a person.
    pub fn waits_by_itself(&self) -> bool {
        super::filter::waits_by_itself(self)
    }
}

/// Names a held row. A message that is held anew gets another arrival, so an action never touches more than what was
/// listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRef {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub message_id: String,
    /// Order of arrival.
    pub arrival: i64,
}

impl HeldRef {
    /// The line of the audit that says what became of it.
    pub fn done(&self, result: &str, saga: Option<String>, saga_id: Option<String>) -> OperationItem {
        OperationItem {
            endpoint: self.endpoint.clone(),
            receiver: self.receiver.clone(),
            message_id: self.message_id.clone(),
            saga,
            saga_id,
            result: result.into(),
            error: None,
            old_body: None,
            was: None,
            group: None,
        }
    }
}

/// What an operator did, in one transaction. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationView {
    /// Its key.
    pub id: String,
    /// When.
    pub at_us: i64,
    /// Who.
    pub who: String,
    /// What: `held retry`, `held discard`, `held edit`, `saga resume`, `saga cancel`, `saga send`, `saga fork`,
    /// `outbox send-now`, `outbox discard`, `outbox reroute`, `timer fire`, `timer move`, `timer cancel`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// With what.
    pub items: Vec<OperationItem>,
}

/// A message in an operation. Of an order about an instance: the message that paused it, or the line of its journal
/// that ends it, or from which on it stands where an earlier step left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationItem {
    /// The endpoint.
    pub endpoint: String,
    /// The saga or handler.
    pub receiver: String,
    /// The message.
    pub message_id: String,
    /// The saga, when it was for an instance.
    #[serde(default)]
    pub saga: Option<String>,
    /// The instance.
    #[serde(default)]
    pub saga_id: Option<String>,
    /// The result: `retried`, `discarded`, `edited`, `resumed`, `cancelled` or `forked`; `gone` when it was no longer
    /// held, or was held anew; `waits` when it waits behind another message and a retry would only have cost it its
    /// place. Of outbox rows see [`OutboxAction`](super::OutboxAction).
    pub result: String,
    /// Why the message was held until then: the first of these is why it failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of an edit, the body that the message had; after `hex:` as hexadecimal digits, if it was no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_body: Option<String>,
    /// Of an outbox row that was rerouted, where it was to go; of a timer that was moved, when it was due:
    /// microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Of a note, the held messages that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message_id: &str, seq: Option<i64>, handled_at_us: i64) -> JournalView {
        JournalView {
            message_id: message_id.into(),
            type_name: "t".into(),
            result: "handled".into(),
            seq,
            from_state: None,
            to_state: None,
            effects: Value::Null,
            causation_id: None,
            handled_at_us,
            handled_by: "p".into(),
            attempts: 1,
            note: None,
            message: None,
            after: None,
        }
    }

    #[test]
    fn what_is_kept_beside_a_message_is_parted_from_it_and_what_nobody_masks_is_left_out() {
        let after = serde_json::json!({ "data": { "a": 1 }, "progress": { "fields": { "card": "4111" } }, "entered": 2,
            "version": 3, "done": true });
        let mut step = line("m", Some(1), 0);
        step.message = Some(serde_json::json!({ "envelope": {}, "body": "{}", "after": after, "timers": [] }));
        step.part();
        let parted = serde_json::to_value(&step).unwrap();
        assert_eq!(parted["message"], serde_json::json!({ "envelope": {}, "body": "{}" }));
        assert_eq!(parted["after"], serde_json::json!({ "data": { "a": 1 }, "version": 3, "done": true }));
        let mut fork = line("f", Some(2), 0);
        fork.message = Some(serde_json::json!({ "after": after }));
        fork.part();
        assert!(fork.message.is_none() && fork.after.is_some(), "{fork:?}");
    }

    #[test]
    fn a_timeline_goes_by_transitions_whatever_their_times_say() {
        let lines = vec![
            line("ignored", None, 25),
            line("two", Some(2), 20),
            line("three", Some(3), 30),
            line("one", Some(1), 21),
        ];
        let ordered = in_order(lines);
        let ids: Vec<&str> = ordered.iter().map(|line| line.message_id.as_str()).collect();
        assert_eq!(ids, ["one", "two", "ignored", "three"]);
    }
}
