//! Held messages by reason, type and error, with what operators noted about them.

use super::{HeldView, OperationItem, OperationView};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

/// Held messages that a note is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupName {
    /// Why they wait.
    pub reason: String,
    /// Their type, by logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// A text that their error contains, whatever its case.
    #[serde(default)]
    pub error: Option<String>,
}

/// What an operator noted about held messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupNote {
    /// When: microseconds since 1970.
    pub at_us: i64,
    /// Who.
    pub who: String,
    /// What.
    pub text: String,
}

/// Held messages with one reason, type and error. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldGroup {
    /// Why they wait.
    pub reason: String,
    /// Their type, by logical name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The first 200 characters of their error.
    pub error: Option<String>,
    /// How many, of those that were looked at: the first and the last of each endpoint, reason and type.
    pub count: i64,
    /// There were messages between those that were not looked at: there may be more.
    #[serde(default, deserialize_with = "any")]
    pub more: bool,
    /// Since when the first is held.
    pub first_us: i64,
    /// Since when the last is held.
    pub last_us: i64,
    /// What operators noted, last first.
    #[serde(default)]
    pub notes: Vec<GroupNote>,
}

/// The most groups of held messages that are told.
pub const HELD_GROUPS_MAX: usize = 200;

/// A number of places where there is more; or whether there are any.
fn any<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(value)?;
    Ok(value.as_bool().unwrap_or_else(|| value.as_i64().is_some_and(|places| places > 0)))
}

impl HeldGroup {
    /// The name of a note in `operation.action`.
    pub const NOTE: &'static str = "held note";

    /// A group of one.
    pub(super) fn like(held: &HeldView) -> Self {
        Self {
            reason: held.reason.clone(),
            type_name: held.type_name.clone(),
            error: held.error.clone(),
            count: 1,
            more: false,
            first_us: held.held_at_us,
            last_us: held.held_at_us,
            notes: Vec::new(),
        }
    }

    /// What several places say of each group, put together; the largest first.
    pub fn together(groups: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut all: BTreeMap<(String, String, Option<String>), Self> = BTreeMap::new();
        for group in groups {
            match all.entry((group.reason.clone(), group.type_name.clone(), group.error.clone())) {
                Entry::Vacant(it) => {
                    it.insert(group);
                }
                Entry::Occupied(mut it) => {
                    let known = it.get_mut();
                    known.count += group.count;
                    known.more |= group.more;
                    known.first_us = known.first_us.min(group.first_us);
                    known.last_us = known.last_us.max(group.last_us);
                    known.notes.extend(group.notes);
                }
            }
        }
        let mut all: Vec<Self> = all.into_values().collect();
        all.sort_by_key(|group| Reverse(group.count));
        all
    }

    /// Takes the notes that are about it.
    pub(super) fn take(&mut self, notes: &[OperationView]) {
        let error = self.error.as_deref().unwrap_or_default().to_lowercase();
        let is_about = |item: &OperationItem| {
            item.group.as_ref().is_some_and(|about| {
                let text = about.error.as_deref().unwrap_or_default().to_lowercase();
                about.reason == self.reason && about.type_name == self.type_name && error.contains(&text)
            })
        };
        let about = notes.iter().filter(|note| note.items.iter().any(is_about));
        self.notes =
            about.map(|it| GroupNote { at_us: it.at_us, who: it.who.clone(), text: it.reason.clone() }).collect();
    }

    /// Whether its messages go on without a person.
    pub fn waits_by_itself(&self) -> bool {
        crate::HeldReason::parse(&self.reason).is_some_and(crate::HeldReason::releases_itself)
    }
}
