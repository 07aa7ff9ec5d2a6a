//! What a unit reads.

use super::tables::{Changes, Tables, all, get};
use crate::{
    AliasesFound, Counts, FieldRow, Found, HeldReason, HeldRow, HeldWanted, InstanceCount, InstanceKey, InstanceRow,
    Keys, Waiting,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(super) fn found(tables: &Tables, own: &Changes, keys: &Keys, now: i64, locked_elsewhere: Vec<i64>) -> Found {
    let ids: BTreeSet<&String> = keys.message_ids.iter().collect();
    let inbox =
        all(&tables.inbox, &own.inbox).filter(|((id, _, endpoint), _)| ids.contains(id) && *endpoint == keys.endpoint);
    let instances: BTreeSet<&InstanceKey> = keys.instances.iter().collect();
    let rows = instances.iter().filter_map(|key| get(&tables.instances, &own.instances, key));
    let mut counts: BTreeMap<(InstanceKey, String, &'static str), Waiting> = BTreeMap::new();
    for (_, row) in all(&tables.held, &own.held).filter(|(_, row)| row.endpoint == keys.endpoint) {
        let Some(key) = row.key().filter(|key| instances.contains(key)) else { continue };
        let type_name = row.envelope.type_name.clone();
        let waiting = Waiting { key: key.clone(), type_name: type_name.clone(), reason: row.reason, count: 0 };
        counts.entry((key, type_name, row.reason.as_str())).or_insert(waiting).count += 1;
    }
    Found {
        now_us: now,
        locked_elsewhere,
        inbox: inbox.map(|(_, row)| row.found()).collect(),
        instances: rows.map(|record| record.row.clone()).collect(),
        waiting: counts.into_values().collect(),
    }
}

pub(super) fn aliases(tables: &Tables, own: &Changes, endpoint: &str, aliases: &[InstanceKey]) -> AliasesFound {
    let rows = aliases.iter().filter_map(|alias| {
        let instance = get(&tables.aliases, &own.aliases, alias)?;
        Some(FieldRow::alias(alias.clone(), instance.clone()))
    });
    let awaited = |alias: &&InstanceKey| {
        let mut held = all(&tables.held, &own.held).map(|(_, row)| row);
        held.any(|row| row.endpoint == endpoint && row.reason == HeldReason::Early && row.waits_for(alias))
    };
    AliasesFound::new(rows.collect(), aliases.iter().filter(awaited).cloned().collect())
}

/// Committed instances in the order of (id, saga), as the databases' keys have it.
pub(super) fn page(tables: &Tables, sagas: &[String], after: &InstanceKey, rows_max: i64) -> Vec<InstanceRow> {
    let after = (&after.id, &after.saga);
    let wanted = tables.instances.values().map(|record| &record.row).filter(|row| sagas.contains(&row.key.saga));
    let mut rows: Vec<&InstanceRow> = wanted.filter(|row| (&row.key.id, &row.key.saga) > after).collect();
    rows.sort_unstable_by_key(|row| (&row.key.id, &row.key.saga));
    rows.into_iter().take(usize::try_from(rows_max).unwrap_or_default()).cloned().collect()
}

pub(super) fn counts(tables: &Tables, endpoint: &str, sagas: &[String], rows_max: i64, now: i64) -> Counts {
    let most = |count: usize| i64::try_from(count).unwrap_or(i64::MAX).min(rows_max);
    let outbox = || tables.outbox.values().filter(|row| row.endpoint == endpoint);
    let open = || outbox().filter(|row| row.first_attempt_at_us.is_some() || row.due_at_us <= now);
    let oldest = open().map(|row| row.first_attempt_at_us.unwrap_or(row.due_at_us)).min();
    let held = |reason| tables.held.values().filter(|row| row.endpoint == endpoint && row.reason == reason).count();
    let mut instances: BTreeMap<(&str, &str), InstanceCount> = BTreeMap::new();
    for row in tables.instances.values().map(|record| &record.row).filter(|row| sagas.contains(&row.key.saga)) {
        let none = || InstanceCount::new(&row.key.saga, &row.state, 0);
        let instances = instances.entry((&row.key.saga, &row.state)).or_insert_with(none);
        instances.count += 1;
        instances.paused += i64::from(row.paused_by.is_some());
    }
    Counts {
        outbox: most(open().count()),
        outbox_oldest: oldest.map(|oldest| Duration::from_micros(now.saturating_sub(oldest).max(0).unsigned_abs())),
        unroutable: most(outbox().filter(|row| row.waits_for.is_some()).count()),
        held: HeldReason::ALL.iter().map(|reason| (*reason, most(held(*reason)))).collect(),
        instances: instances.into_values().collect(),
    }
}

/// The first rows of each instance, at most so many, and no more once the bodies of those before have so many bytes:
/// the first row of every instance counts before the second ones.
pub(super) fn held(
    tables: &Tables,
    own: &Changes,
    endpoint: &str,
    wanted: &[HeldWanted],
    (rows_max, bytes_max): (i64, i64),
) -> Vec<HeldRow> {
    let mut rows: Vec<_> = all(&tables.held, &own.held).map(|(_, row)| row).collect();
    rows.sort_by_key(|row| row.arrival);
    let mut counts: BTreeMap<&InstanceKey, i64> = BTreeMap::new();
    let first = rows.into_iter().filter_map(|row| {
        let wants = |wanted: &&HeldWanted| {
            row.waits_for(&wanted.key) && row.envelope.type_name == wanted.type_name && row.reason == wanted.reason
        };
        let wanted = wanted.iter().find(wants).filter(|_| row.endpoint == endpoint)?;
        let count = counts.entry(&wanted.key).or_default();
        *count += 1;
        (*count <= rows_max).then_some((*count, row))
    });
    let mut first: Vec<_> = first.collect();
    first.sort_by_key(|(nth, row)| (*nth, row.arrival));
    let mut bytes = 0;
    let mut rows: Vec<_> = first.into_iter().map(|(_, row)| row).collect();
    rows.retain(|row| {
        let fits = bytes < bytes_max;
        bytes += i64::try_from(row.envelope.body.len()).unwrap_or(i64::MAX);
        fits
    });
    rows.sort_by_key(|row| row.arrival);
    rows.into_iter().map(super::records::HeldRecord::found).collect()
}
