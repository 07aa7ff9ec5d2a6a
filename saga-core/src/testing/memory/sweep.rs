//! Housekeeping: what expires, strands, is old, or can go on.

use super::{
    process,
    records::{HeldRecord, OutboxRecord},
    relay::STEP_ROWS_MAX,
    state::{RowKey, State, us},
    tables::MessageKey,
};
use crate::{
    Destination, Envelope, HeldReason, InboxResult, InstanceKey, MessageKind, OutboxKind, Process, ambient, port::Swept,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub(super) fn sweep(state: &mut State, endpoint: &str, retention: Duration, now: i64) -> Swept {
    state.end_idle();
    let oldest = now.saturating_sub(us(retention));
    let mut swept = expire(state, endpoint, now);
    swept.stranded = strand(state, endpoint, oldest, now) as u64;
    let old = delete_old_inbox(state, endpoint, oldest)
        + delete_old_instances(state, endpoint, oldest)
        + process::forget_old(state, endpoint, now)
        + forget_limits(state, endpoint, now);
    swept.rows += swept.stranded + old as u64;
    swept
}

/// A limit whose next call may be made already is as good as none.
fn forget_limits(state: &mut State, endpoint: &str, now: i64) -> usize {
    let before = state.limits.len();
    state.limits.retain(|(of, _), next| of != endpoint || *next >= now - us(Duration::from_secs(60)));
    before - state.limits.len()
}

/// Early messages whose instance did not start in time, and messages for which no newer process came, wait for a person
/// from now on; an event that is not an answer is given up instead. If the instance exists, time no longer matters.
fn expire(state: &mut State, endpoint: &str, now: i64) -> Swept {
    let expired = |key: &MessageKey, row: &HeldRecord| {
        let expires = matches!(row.reason, HeldReason::Early | HeldReason::Version);
        let passed = row.expires_at_us.is_some_and(|at| at < now);
        row.endpoint == endpoint && expires && passed && !is_locked(state, key)
    };
    let keys = state.tables.held.iter().filter(|(key, row)| expired(key, row));
    let keys: Vec<_> = keys.map(|(key, _)| key.clone()).take(STEP_ROWS_MAX).collect();
    let mut swept = Swept { rows: keys.len() as u64, ..Swept::default() };
    for key in &keys {
        let Some(mut row) = state.tables.held.remove(key) else { continue };
        row.expires_at_us = None;
        if row.reason == HeldReason::Version {
            swept.without_version += 1;
            row.reason = HeldReason::Undecodable;
            row.error = Some(
                "no process came in time that knows this type or version: deploy one, or discard the message".into(),
            );
        } else if row.key().is_some_and(|instance| state.tables.instances.contains_key(&instance)) {
            // it waits for a state that takes it
        } else if is_unasked_event(state, &row) {
            swept.discarded += 1;
            if let Some(row) = state.tables.inbox.get_mut(key).filter(|row| row.result == InboxResult::Held) {
                row.result = InboxResult::Discarded;
                row.note = Some("no instance came in time".into());
                row.handled_at_us = now;
            }
            continue;
        } else {
            swept.without_instance += 1;
            row.reason = HeldReason::Failed;
            row.error = Some("no instance came in time: start it and retry, or discard the message".into());
        }
        state.tables.held.insert(key.clone(), row);
    }
    swept
}

/// Whether an early message is an event, and not an answer to the saga that it waits for.
fn is_unasked_event(state: &State, row: &HeldRecord) -> bool {
    let charts = state.definitions.values().filter(|chart| chart.saga == row.receiver);
    let is_event = charts
        .flat_map(|chart| &chart.messages)
        .any(|message| message.type_name == row.envelope.type_name && message.kind == MessageKind::Event);
    let asked = row.envelope.saga.as_ref().is_some_and(|saga| saga.saga == row.receiver);
    is_event && !asked
}

/// Outbox rows whose first publish is older than the receivers' memory.
fn strand(state: &mut State, endpoint: &str, oldest: i64, now: i64) -> usize {
    let stranded = |row: &&OutboxRecord| {
        // what was tried and put off is looked at when it is due again
        let free = row.due_at_us <= now && !row.is_leased(now) && !state.is_locked(&RowKey::Outbox(row.id));
        row.endpoint == endpoint && row.is_stranded(oldest) && free
    };
    let rows = state.tables.outbox.values().filter(stranded).take(STEP_ROWS_MAX);
    let rows: Vec<OutboxRecord> = rows.cloned().collect();
    for row in &rows {
        state.tables.outbox.remove(&row.id);
        state.arrivals += 1;
        let receiver = format!("outbox {}", row.id); // a message may strand on its way to several destinations
        let held = HeldRecord {
            endpoint: endpoint.into(),
            receiver: receiver.clone(),
            envelope: row.envelope.clone(),
            arrival: state.arrivals,
            reason: HeldReason::Stranded,
            saga_id: None,
            alias: None,
            error: Some(format!("sent to {} long ago and never confirmed", row.destination.name())),
            attempts: row.attempts.into(),
            held_at_us: now,
            expires_at_us: None,
            stranded: Some((row.kind, row.destination.clone())),
        };
        state.tables.held.insert((row.envelope.message_id.clone(), receiver, endpoint.into()), held);
    }
    rows.len()
}

/// Settled rows that no held message refers to.
fn delete_old_inbox(state: &mut State, endpoint: &str, oldest: i64) -> usize {
    let held: BTreeSet<&String> = state.tables.held.keys().map(|(message_id, _, _)| message_id).collect();
    let old = state.tables.inbox.iter().filter(|(key, row)| {
        let settled = row.result.is_final() && row.handled_at_us < oldest;
        row.endpoint == endpoint
            && settled
            && !held.contains(&row.message_id)
            && !state.is_locked(&RowKey::Inbox((*key).clone()))
    });
    let old: Vec<MessageKey> = old.map(|(key, _)| key.clone()).take(STEP_ROWS_MAX).collect();
    old.iter().for_each(|key| drop(state.tables.inbox.remove(key)));
    old.len()
}

/// Done instances of the endpoint's sagas that no held message waits for.
fn delete_old_instances(state: &mut State, endpoint: &str, oldest: i64) -> usize {
    let ours: BTreeSet<&String> =
        state.definitions.keys().filter(|(_, _, of)| of == endpoint).map(|(saga, _, _)| saga).collect();
    let old = state.tables.instances.iter().filter(|(key, record)| {
        let done = record.completed_at_us.is_some_and(|at| at < oldest) && ours.contains(&key.saga);
        let wanted = || state.tables.held.values().any(|row| row.waits_for(key));
        done && !wanted() && !state.is_locked(&RowKey::Instance((*key).clone()))
    });
    let old: Vec<InstanceKey> = old.map(|(key, _)| key.clone()).take(STEP_ROWS_MAX).collect();
    old.iter().for_each(|key| drop(state.tables.instances.remove(key)));
    // they go with their instance
    state.tables.aliases.retain(|_, instance| !old.contains(instance));
    state.tables.fields.retain(|(instance, _), _| !old.contains(instance));
    old.len()
}

/// Offers what waits for a version that this process has: messages without a receiver are routed again, instances are
/// woken.
pub(super) fn release(state: &mut State, process: &Process, now: i64) -> u64 {
    state.end_idle();
    let mut rows: Vec<(&MessageKey, &HeldRecord)> = state.tables.held.iter().collect();
    rows.retain(|(key, row)| {
        row.endpoint == process.endpoint && row.reason == HeldReason::Version && !is_locked(state, key)
    });
    rows.sort_by_key(|(_, row)| row.arrival);
    let is_known = |row: &HeldRecord| {
        let addressee = row.envelope.receiver.as_ref();
        process.types.contains(&row.envelope.type_name)
            && addressee.is_none_or(|receiver| process.receivers.contains(receiver))
    };
    let unknown = rows.iter().filter(|(_, row)| row.receiver.is_empty() && is_known(row));
    let back: Vec<MessageKey> = unknown.map(|(key, _)| (*key).clone()).take(STEP_ROWS_MAX).collect();
    let ours = state.tables.outbox.values().filter(|row| row.endpoint == process.endpoint);
    // one that an older process has put off is another one: the databases tell them by the row's id
    let woken: BTreeSet<InstanceKey> = ours.filter(|row| row.envelope.attempt == 0).filter_map(wakes).collect();
    let instances: BTreeSet<InstanceKey> = rows.iter().filter_map(|(_, row)| row.key()).collect();
    let wake = instances.difference(&woken).filter(|instance| understands(state, process, instance));
    let wake: Vec<InstanceKey> = wake.take(STEP_ROWS_MAX).cloned().collect();
    let released = back.len() + wake.len();
    for key in back {
        let Some(row) = state.tables.held.remove(&key) else { continue };
        // its inbox row goes with it: to those that know it now, the message is new; but a retry stays its receiver's
        state.tables.inbox.remove(&key);
        let attempt = if row.envelope.receiver.is_some() { row.envelope.attempt } else { 0 };
        offer(state, &process.endpoint, Arc::new(Envelope { attempt, ..(*row.envelope).clone() }), now);
    }
    for instance in wake {
        offer(state, &process.endpoint, Arc::new(Envelope::wake(&instance)), now);
    }
    released as u64
}

/// Whether the process has the saga in the instance's version or a later one.
fn understands(state: &State, process: &Process, instance: &InstanceKey) -> bool {
    let version = state.tables.instances.get(instance).map_or(i64::MIN, |record| record.row.version.into());
    let mut charts = process.charts.iter().filter(|chart| chart.saga == instance.saga);
    charts.any(|chart| i64::from(chart.version) >= version)
}

/// The instance that an outbox row wakes.
fn wakes(row: &OutboxRecord) -> Option<InstanceKey> {
    let saga = row.envelope.saga.as_ref().filter(|_| row.envelope.type_name == Envelope::WAKE)?;
    Some(InstanceKey { saga: saga.saga.clone(), id: saga.id.clone() })
}

/// Puts a message for the endpoint itself into its outbox, for a relay.
fn offer(state: &mut State, endpoint: &str, envelope: Arc<Envelope>, now: i64) {
    let row = OutboxRecord {
        id: ambient::fresh_id(),
        endpoint: endpoint.into(),
        kind: OutboxKind::Retry,
        destination: Destination::Endpoint(endpoint.into()),
        envelope,
        created_at_us: now,
        due_at_us: now,
        lease_until_us: None,
        lease_owner: None,
        first_attempt_at_us: None,
        attempts: 0,
        expired: 0,
        waits_for: None,
        last_error: None,
    };
    state.tables.outbox.insert(row.id, row);
}

fn is_locked(state: &State, key: &MessageKey) -> bool {
    state.is_locked(&RowKey::Held(key.clone())) || state.is_locked(&RowKey::Inbox(key.clone()))
}
