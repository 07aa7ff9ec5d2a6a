//! What a unit writes.

use super::{
    records::{HeldRecord, InboxRecord, InstanceRecord, OutboxRecord},
    state::{RowKey, State, us},
    tables::{Changes, MessageKey, Tables, all, get, held_key, inbox_key},
};
use crate::{
    FieldRow, HeldIn, HeldKey, HeldReason, InboxResult, InboxRow, InstanceWrite, OutboxKind, OutboxRow, StoreError,
    StoreErrorKind, TakenBack, TimerOut, Write,
};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The rows that a write is about to change, if it names them.
pub(super) fn rows(write: &Write) -> BTreeSet<RowKey> {
    let endpoint = &*write.endpoint;
    let claims = write.claims.iter().map(|row| RowKey::Inbox(inbox_key(endpoint, row)));
    let completes = write.completes.iter().map(|(row, _)| RowKey::Inbox(inbox_key(endpoint, row)));
    let instances = write.instances.iter().map(|instance| RowKey::Instance(instance.row.key.clone()));
    let held_in = write.held_in.iter().map(|row| RowKey::Held(held_key(endpoint, &key_of(row))));
    let held_out = write.held_out.iter().map(|key| RowKey::Held(held_key(endpoint, key)));
    let aliases = write.fields_in.iter().chain(&write.fields_out).filter(|row| row.is_alias);
    let aliases = aliases.map(|row| RowKey::Alias(row.field.clone()));
    claims.chain(completes).chain(instances).chain(held_in).chain(held_out).chain(aliases).collect()
}

/// Changes the unit's view. After an error the unit is aborted, which also undoes the changes made before it.
pub(super) fn apply(
    tables: &Tables,
    own: &mut Changes,
    arrivals: &mut i64,
    write: &Write,
    now: i64,
) -> Result<(), StoreError> {
    let (endpoint, owner) = (&*write.endpoint, &*write.owner);
    for row in &write.claims {
        let key = inbox_key(endpoint, row);
        if get(&tables.inbox, &own.inbox, &key).is_some() {
            return Err(StoreError::conflict());
        }
        own.inbox.insert(key, Some(claim(endpoint, owner, row, now)));
    }
    for (row, attempts) in &write.completes {
        let key = inbox_key(endpoint, row);
        let known = get(&tables.inbox, &own.inbox, &key);
        let known = known.filter(|known| !known.result.is_final() && known.attempts == *attempts);
        let known = known.ok_or_else(StoreError::conflict)?;
        // time in the line of a limit is not time that it is tried
        let is_first_run = *attempts == 0 && row.attempts > 0;
        let completed = InboxRecord {
            claimed_at_us: if is_first_run { now } else { known.claimed_at_us },
            crashes: known.crashes,
            saga_id: row.saga_id.clone().or_else(|| known.saga_id.clone()),
            ..claim(endpoint, owner, row, now)
        };
        own.inbox.insert(key, Some(completed));
    }
    for write in &write.instances {
        put_instance(tables, own, write, now)?;
    }
    for out in &write.timers_out {
        take_timer(tables, own, out);
    }
    for row in &write.outbox {
        if get(&tables.outbox, &own.outbox, &row.id).is_some() {
            return Err(StoreError::new(StoreErrorKind::Rejected, format!("the outbox has a row {} already", row.id)));
        }
        own.outbox.insert(row.id, Some(outbox(write, row, now)));
    }
    let mut held_in = BTreeSet::new();
    for row in &write.held_in {
        if !held_in.insert((&*row.receiver, &*row.envelope.message_id)) {
            // as PostgreSQL does: ON CONFLICT DO UPDATE cannot affect a row a second time
            let text = format!("the write holds {} twice", row.envelope.message_id);
            return Err(StoreError::new(StoreErrorKind::Rejected, text));
        }
        hold(tables, own, arrivals, endpoint, row, now);
    }
    for key in &write.held_out {
        own.held.insert(held_key(endpoint, key), None);
    }
    write_fields(tables, own, write)
}

fn write_fields(tables: &Tables, own: &mut Changes, write: &Write) -> Result<(), StoreError> {
    for FieldRow { field, instance, is_alias } in &write.fields_out {
        if !is_alias {
            own.fields.insert((instance.clone(), field.saga.clone()), None);
        } else if get(&tables.aliases, &own.aliases, field) == Some(instance) {
            own.aliases.insert(field.clone(), None);
        }
    }
    for FieldRow { field, instance, is_alias } in &write.fields_in {
        if !is_alias {
            own.fields.insert((instance.clone(), field.saga.clone()), Some(field.id.clone()));
        } else if get(&tables.aliases, &own.aliases, field).is_some() {
            return Err(StoreError::conflict());
        } else {
            own.aliases.insert(field.clone(), Some(instance.clone()));
        }
    }
    for FieldRow { field: alias, instance, .. } in &write.aliases_met {
        let held = all(&tables.held, &own.held).filter(|(_, row)| {
            row.endpoint == write.endpoint && row.reason == HeldReason::Early && row.waits_for(alias)
        });
        let met = held.map(|(key, row)| {
            let met = HeldRecord { saga_id: Some(instance.id.clone()), alias: None, ..row.clone() };
            (key.clone(), Some(met))
        });
        let met: Vec<_> = met.collect();
        own.held.extend(met);
    }
    Ok(())
}

fn key_of(row: &HeldIn) -> HeldKey {
    HeldKey { receiver: row.receiver.clone(), message_id: row.envelope.message_id.clone() }
}

fn claim(endpoint: &str, owner: &str, row: &InboxRow, now: i64) -> InboxRecord {
    InboxRecord {
        endpoint: endpoint.into(),
        receiver: row.receiver.clone(),
        message_id: row.envelope.message_id.clone(),
        type_name: row.envelope.type_name.clone(),
        body_hash: row.body_hash,
        result: row.result,
        saga_id: row.saga_id.clone(),
        seq: row.seq,
        from_state: row.from_state.clone(),
        to_state: row.to_state.clone(),
        effects: row.effects.clone(),
        attempts: row.attempts,
        round: row.round,
        crashes: 0,
        note: row.note.clone(),
        message: row.message.clone(),
        claimed_at_us: now,
        handled_at_us: now,
        handled_by: owner.into(),
    }
}

/// Who started an instance never changes.
fn put_instance(tables: &Tables, own: &mut Changes, write: &InstanceWrite, now: i64) -> Result<(), StoreError> {
    let key = &write.row.key;
    let known = get(&tables.instances, &own.instances, key);
    if known.map_or(0, |known| known.row.seq) != write.base_seq || known.is_some() != (write.base_seq != 0) {
        return Err(StoreError::conflict());
    }
    let mut row = write.row.clone();
    row.originator = known.map_or(row.originator, |known| known.row.originator.clone());
    let completed = || known.and_then(|known| known.completed_at_us).unwrap_or(now);
    let record = InstanceRecord {
        created_at_us: known.map_or(now, |known| known.created_at_us),
        updated_at_us: now,
        completed_at_us: row.done.then(completed),
        row,
    };
    own.instances.insert(key.clone(), Some(record));
    Ok(())
}

fn take_timer(tables: &Tables, own: &mut Changes, out: &TimerOut) {
    let goes = |row: &OutboxRecord| {
        let Some(saga) = row.envelope.saga.as_ref().filter(|_| row.kind == OutboxKind::Timer) else { return false };
        saga.saga == out.key.saga && saga.id == out.key.id && saga.timer == Some(out.number)
    };
    let gone: Vec<_> = all(&tables.outbox, &own.outbox).filter(|(_, row)| goes(row)).map(|(id, _)| *id).collect();
    own.outbox.extend(gone.into_iter().map(|id| (id, None)));
}

/// Deletes rows that no process is publishing. A row that another unit has changed is left alone.
pub(super) fn take_back(state: &State, own: &mut Changes, rows: &[Uuid], now: i64) -> Vec<TakenBack> {
    let free = |row: &&Uuid| own.outbox.contains_key(*row) || !state.is_locked(&RowKey::Outbox(**row));
    let known = rows.iter().filter(free).filter_map(|row| get(&state.tables.outbox, &own.outbox, row));
    let known = known.filter(|row| !row.is_leased(now));
    let gone: Vec<_> = known.map(|row| TakenBack::new(row.id, row.first_attempt_at_us.is_some())).collect();
    own.outbox.extend(gone.iter().map(|gone| (gone.row, None)));
    gone
}

fn outbox(write: &Write, row: &OutboxRow, now: i64) -> OutboxRecord {
    let lease = row.leased.then(|| now.saturating_add(us(write.lease)));
    OutboxRecord {
        id: row.id,
        endpoint: write.endpoint.clone(),
        kind: row.kind,
        destination: row.destination.clone(),
        envelope: row.envelope.clone(),
        created_at_us: now,
        due_at_us: now.saturating_add(us(row.delay.unwrap_or_default())),
        lease_until_us: lease,
        lease_owner: lease.map(|_| write.owner.clone()),
        first_attempt_at_us: lease.map(|_| now),
        attempts: 0,
        expired: 0,
        waits_for: None,
        last_error: row.last_error.clone(),
    }
}

fn hold(tables: &Tables, own: &mut Changes, arrivals: &mut i64, endpoint: &str, row: &HeldIn, now: i64) {
    let key = held_key(endpoint, &key_of(row));
    let known = get(&tables.held, &own.held, &key).cloned();
    let record = known.unwrap_or_else(|| {
        *arrivals += 1;
        HeldRecord {
            endpoint: endpoint.into(),
            receiver: row.receiver.clone(),
            envelope: row.envelope.clone(),
            arrival: *arrivals,
            reason: row.reason,
            saga_id: row.saga_id.clone(),
            alias: row.alias.clone(),
            error: None,
            attempts: 0,
            held_at_us: now,
            expires_at_us: None,
            stranded: None,
        }
    });
    let record = HeldRecord {
        reason: row.reason,
        alias: if row.saga_id.is_some() { row.alias.clone() } else { record.alias },
        saga_id: row.saga_id.clone().or(record.saga_id),
        error: row.error.clone(),
        attempts: row.attempts,
        expires_at_us: row.expires.map(|expires| now.saturating_add(us(expires))),
        ..record
    };
    own.held.insert(key, Some(record));
}

/// Counts a run after a crash, of a message that is new, was counted before, waits for its retry, or is
/// held, if the row says so.
pub(super) fn count_crash(state: &mut State, key: MessageKey, owner: &str, row: &InboxRow, now: i64) -> Option<i64> {
    let endpoint = key.2.clone();
    let suspect = InboxRow { result: InboxResult::Suspect, attempts: 0, ..row.clone() };
    let record = state.tables.inbox.entry(key).or_insert_with(|| claim(&endpoint, owner, &suspect, now));
    let is_held = record.result == InboxResult::Held && row.result == InboxResult::Held;
    let counts = is_held || matches!(record.result, InboxResult::Suspect | InboxResult::Retrying);
    counts.then(|| {
        record.crashes += 1;
        record.saga_id = row.saga_id.clone().or(record.saga_id.take());
        record.crashes
    })
}
