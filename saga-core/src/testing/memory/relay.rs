//! Leases of outbox rows.

use super::{
    records::OutboxRecord,
    state::{RowKey, State, us},
};
use crate::{LeaseRequest, LeaseUpdate, Leased};
use std::time::Duration;
use uuid::Uuid;

/// The most rows that one step changes.
pub(super) const STEP_ROWS_MAX: usize = 1000;

pub(super) fn lease(state: &mut State, request: &LeaseRequest<'_>, now: i64) -> Leased {
    state.end_idle();
    let oldest = now.saturating_sub(us(request.retention));
    let is_unknown = |row: &OutboxRecord| {
        row.lease_owner.as_deref() == Some(request.owner)
            && request.known.is_some_and(|known| known.binary_search(&row.id).is_err())
    };
    let free = |row: &&OutboxRecord| {
        row.endpoint == request.endpoint
            && row.due_at_us <= now
            && (!row.is_leased(now) || is_unknown(row))
            && !row.is_stranded(oldest)
            && !state.is_locked(&RowKey::Outbox(row.id))
    };
    let mut due: Vec<_> = state.tables.outbox.values().filter(free).map(|row| (row.due_at_us, row.id)).collect();
    due.sort_unstable();
    due.truncate(usize::try_from(request.rows_max).unwrap_or(0));
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for (_, id) in due {
        if bytes >= request.bytes_max {
            break;
        }
        let Some(row) = state.tables.outbox.get_mut(&id) else { continue };
        row.expired += u32::from(row.lease_until_us.is_some() && !row.is_leased(now));
        row.lease_until_us = Some(now.saturating_add(us(request.lease)));
        row.lease_owner = Some(request.owner.into());
        row.first_attempt_at_us.get_or_insert(now);
        bytes += i64::try_from(row.envelope.body.len()).unwrap_or(i64::MAX);
        rows.push(row.leased(now));
    }
    let ahead = now.saturating_add(us(request.ahead));
    let is_later = |row: &&OutboxRecord| row.due_at_us > now && row.due_at_us <= ahead;
    let later = state.tables.outbox.values().filter(|row| row.endpoint == request.endpoint).filter(is_later);
    let next_due = later.map(|row| row.due_at_us - now).min();
    Leased { rows, next_due: next_due.map(|us| Duration::from_micros(us.unsigned_abs())) }
}

pub(super) fn renew_and_fail(state: &mut State, update: &LeaseUpdate<'_>, now: i64) -> Vec<Uuid> {
    let rows = &mut state.tables.outbox;
    let is_ours = |row: &&mut OutboxRecord| row.lease_owner.as_deref() == Some(update.owner);
    for failed in update.failed {
        let Some(row) = rows.get_mut(&failed.id).filter(is_ours) else { continue };
        row.lease_until_us = None;
        row.lease_owner = None;
        row.attempts += u32::from(failed.tried);
        row.due_at_us = now.saturating_add(us(failed.delay));
        row.waits_for = failed.unroutable.then(|| row.destination.name().to_owned());
        row.last_error = Some(failed.error.clone());
    }
    let mut lost = Vec::new();
    for id in update.renew {
        match rows.get_mut(id).filter(is_ours) {
            Some(row) => row.lease_until_us = Some(now.saturating_add(us(update.lease))),
            None => lost.push(*id),
        }
    }
    lost
}

pub(super) fn reopen(state: &mut State, endpoint: &str, destination: &str, now: i64) -> u64 {
    state.end_idle();
    let waits = |row: &&OutboxRecord| {
        row.endpoint == endpoint
            && row.waits_for.as_deref() == Some(destination)
            && !row.is_leased(now)
            && !state.is_locked(&RowKey::Outbox(row.id))
    };
    let ids: Vec<Uuid> = state.tables.outbox.values().filter(waits).map(|row| row.id).take(STEP_ROWS_MAX).collect();
    for id in &ids {
        if let Some(row) = state.tables.outbox.get_mut(id) {
            row.waits_for = None;
            row.due_at_us = now;
            row.attempts = 0;
        }
    }
    ids.len() as u64
}
