//! Committed rows, and the rows that one unit has changed.

use super::records::{HeldRecord, InboxRecord, InstanceRecord, OutboxRecord};
use crate::{HeldKey, InboxRow, InstanceKey};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Message id, receiver, endpoint: the order in which rows are claimed.
pub(super) type MessageKey = (String, String, String);

pub(super) fn inbox_key(endpoint: &str, row: &InboxRow) -> MessageKey {
    (row.envelope.message_id.clone(), row.receiver.clone(), endpoint.into())
}

pub(super) fn held_key(endpoint: &str, key: &HeldKey) -> MessageKey {
    (key.message_id.clone(), key.receiver.clone(), endpoint.into())
}

/// What was committed.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) inbox: BTreeMap<MessageKey, InboxRecord>,
    pub(super) instances: BTreeMap<InstanceKey, InstanceRecord>,
    pub(super) outbox: BTreeMap<Uuid, OutboxRecord>,
    pub(super) held: BTreeMap<MessageKey, HeldRecord>,
    /// The instance that has an alias, by the key of the alias.
    pub(super) aliases: BTreeMap<InstanceKey, InstanceKey>,
    /// The value of an instance's field that is no alias, by the instance and `saga by name`.
    pub(super) fields: BTreeMap<(InstanceKey, String), String>,
    pub(super) user: BTreeMap<String, Vec<Value>>,
}

/// Rows that a unit has changed; `None`: deleted.
type Changed<K, V> = BTreeMap<K, Option<V>>;

/// What a unit will commit.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) inbox: Changed<MessageKey, InboxRecord>,
    pub(super) instances: Changed<InstanceKey, InstanceRecord>,
    pub(super) outbox: Changed<Uuid, OutboxRecord>,
    pub(super) held: Changed<MessageKey, HeldRecord>,
    pub(super) aliases: Changed<InstanceKey, InstanceKey>,
    pub(super) fields: Changed<(InstanceKey, String), String>,
}

impl Tables {
    pub(super) fn commit(&mut self, changes: Changes) {
        merge(&mut self.inbox, changes.inbox);
        merge(&mut self.instances, changes.instances);
        merge(&mut self.outbox, changes.outbox);
        merge(&mut self.held, changes.held);
        merge(&mut self.aliases, changes.aliases);
        merge(&mut self.fields, changes.fields);
    }
}

fn merge<K: Ord, V>(rows: &mut BTreeMap<K, V>, changed: Changed<K, V>) {
    for (key, row) in changed {
        match row {
            Some(row) => drop(rows.insert(key, row)),
            None => drop(rows.remove(&key)),
        }
    }
}

/// A row as the unit sees it.
pub(super) fn get<'a, K: Ord, V>(rows: &'a BTreeMap<K, V>, own: &'a Changed<K, V>, key: &K) -> Option<&'a V> {
    own.get(key).map_or_else(|| rows.get(key), Option::as_ref)
}

/// All rows as the unit sees them.
pub(super) fn all<'a, K: Ord, V>(
    rows: &'a BTreeMap<K, V>,
    own: &'a Changed<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let committed = rows.iter().filter(|(key, _)| !own.contains_key(key));
    committed.chain(own.iter().filter_map(|(key, row)| Some((key, row.as_ref()?))))
}
