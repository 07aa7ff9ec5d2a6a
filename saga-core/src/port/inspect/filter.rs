//! Which rows: the same filters for a listing and for an action.

use super::{HeldView, OperationItem};
use crate::{HeldReason, OutboxKind};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How old, by the database's clock; a bound that is not given matches all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgeFilter {
    /// At least so old.
    pub older_than: Option<Duration>,
    /// Younger than that.
    pub newer_than: Option<Duration>,
}

/// Which held messages; a field that is not given matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldFilter {
    /// Its message id begins with this.
    pub message_id: Option<String>,
    /// At this endpoint.
    pub endpoint: Option<String>,
    /// For this reason.
    pub reason: Option<HeldReason>,
    /// For this saga or handler.
    pub receiver: Option<String>,
    /// For an instance of this saga.
    pub saga: Option<String>,
    /// For the instance of this id.
    pub saga_id: Option<String>,
    /// Of this type, by logical name.
    pub type_name: Option<String>,
    /// Its error contains this text.
    pub error: Option<String>,
    /// It waits for a person, not for its turn or its instance.
    pub needs_person: bool,
    /// Held for this long.
    pub age: AgeFilter,
}

impl HeldFilter {
    /// Whether the filter matches every held message.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a held message goes on without a person.
pub(super) fn waits_by_itself(held: &HeldView) -> bool {
    HeldReason::parse(&held.reason).is_some_and(HeldReason::releases_itself)
}

/// Which rows of the outbox; a field that is not given matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxFilter {
    /// Its id, or its message's, begins with this.
    pub id: Option<String>,
    /// Of this endpoint.
    pub endpoint: Option<String>,
    /// From an instance of this saga; with `saga_id` also what is put off for the instance, but not what other
    /// receivers of the same message put off.
    pub saga: Option<String>,
    /// The instance's id. Use it with `saga`.
    pub saga_id: Option<String>,
    /// It could not be published at its last try, or no queue takes it. A retry whose run failed is neither.
    pub failing: bool,
    /// Of this kind.
    pub kind: Option<OutboxKind>,
    /// Of any kind but a timer.
    pub no_timers: bool,
    /// Of this type, by logical name.
    pub type_name: Option<String>,
    /// To this endpoint, queue or event.
    pub destination: Option<String>,
    /// Its error contains this text.
    pub error: Option<String>,
    /// Due.
    pub due: bool,
    /// Written this long ago.
    pub age: AgeFilter,
}

/// Which instances; a field that is not given matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Of this saga.
    pub saga: Option<String>,
    /// Its id begins with this.
    pub id: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// Only paused ones.
    pub paused: bool,
    /// Only those that are not done.
    pub open: bool,
    /// Only those that have not changed for this long.
    pub unchanged_for: Option<Duration>,
    /// Only those with all of these fields or aliases.
    pub fields: Vec<FieldIs>,
}

/// A field of an instance, or an alias, has this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldIs {
    /// The field, as the saga names it: `customer`.
    pub name: String,
    /// Its value, as text.
    pub value: String,
}

/// A field by which instances of a saga are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FieldName {
    /// The saga.
    pub saga: String,
    /// The field, as the saga names it.
    pub name: String,
}

/// How many operations are looked at, the newest, for those with a message or an instance: no index has their items.
pub const OPERATIONS_LOOKED_AT: i64 = 2000;

/// Which operations; a field that is not given matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// On this message.
    pub message_id: Option<String>,
    /// On a message for an instance of this saga.
    pub saga: Option<String>,
    /// On a message for the instance of this id.
    pub saga_id: Option<String>,
    /// By its name, as in `operation.action`.
    pub action: Option<String>,
}

impl OperationFilter {
    /// Whether an item of an operation is one of those.
    pub fn matches(&self, item: &OperationItem) -> bool {
        let is = |wanted: &Option<String>, has: Option<&String>| wanted.is_none() || wanted.as_ref() == has;
        is(&self.message_id, Some(&item.message_id))
            && is(&self.saga, item.saga.as_ref())
            && is(&self.saga_id, item.saga_id.as_ref())
    }
}
