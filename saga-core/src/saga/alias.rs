//! Aliases: fields of an instance's data by which messages find it that do not know its id.

use super::{SagaId, id::ID_BYTES_MAX};
use crate::InstanceKey;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What can be an alias: a [`SagaId`], or an `Option` of one, which is `None` while the value is not known.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an alias",
    label = "needs to be a string, an integer, a `Uuid`, or an `Option` of one",
    note = "other types implement `SagaId`"
)]
pub trait Alias {
    /// The type of its values.
    type Value: SagaId;
    fn text(&self) -> Option<String>;
}

impl<T: SagaId> Alias for T {
    type Value = T;
    fn text(&self) -> Option<String> {
        Some(self.to_text())
    }
}

impl<T: SagaId> Alias for Option<T> {
    type Value = T;
    fn text(&self) -> Option<String> {
        self.as_ref().map(SagaId::to_text)
    }
}

/// What a message has where an alias with values of type `V` is expected.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "the alias is a `{V}`, and the message has a `{Self}`",
    label = "is a `{Self}`",
    note = "the field of the data and the field of the message have the same type; either may be an `Option` of it"
)]
pub trait NamesAlias<V> {
    fn text(&self) -> Option<String>;
}

impl<V: SagaId> NamesAlias<V> for V {
    fn text(&self) -> Option<String> {
        Some(self.to_text())
    }
}

impl<V: SagaId> NamesAlias<V> for Option<V> {
    fn text(&self) -> Option<String> {
        self.as_ref().map(SagaId::to_text)
    }
}

/// What a message has, for the alias in that field of the data.
#[doc(hidden)]
pub fn named<D, A: Alias, N: NamesAlias<A::Value>>(value: &N, _field: fn(&D) -> &A) -> Option<String> {
    value.text()
}

/// The value of an alias.
#[doc(hidden)]
pub fn alias<A: Alias>(value: &A) -> Option<String> {
    value.text()
}

/// The key of an alias: the place where it is kept, its lock, its lane and what waits for it go by this key, as for an
/// instance. [`Endpoint::builder`](crate::Endpoint::builder) refuses a saga that is called like an alias.
pub(crate) fn alias_key(saga: &str, alias: &str, value: String) -> InstanceKey {
    InstanceKey { saga: alias_name(saga, alias), id: value }
}

/// The name of an alias, as people see it.
pub(crate) fn alias_name(saga: &str, alias: &str) -> String {
    format!("{saga} by {alias}")
}

/// Why a text cannot be the value of an alias.
pub(super) fn value_fault(value: &str) -> Option<String> {
    if value.is_empty() {
        Some("is empty".into())
    } else if value.len() > ID_BYTES_MAX {
        Some(format!("is longer than {ID_BYTES_MAX} bytes"))
    } else if value.contains('\0') {
        Some("contains U+0000".into())
    } else {
        None
    }
}

/// What is known of the aliases that instances of a batch take.
#[derive(Debug, Default)]
pub(crate) struct KnownAliases {
    /// The instances that have them.
    pub(crate) taken: HashMap<InstanceKey, InstanceKey>,
    /// Those for which messages wait.
    pub(crate) awaited: HashSet<InstanceKey>,
}

/// What a batch does to the aliases of one instance.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct AliasChanges {
    /// Each that a transition took, even if a later one gave it back.
    pub(crate) taken: Vec<InstanceKey>,
    /// Those that the instance has after the batch and had not before.
    pub(crate) new: Vec<InstanceKey>,
    /// Those that it had before and has no longer.
    pub(crate) gone: Vec<InstanceKey>,
}

/// The aliases of an instance, by their names.
pub(crate) type Aliases = BTreeMap<String, String>;

impl AliasChanges {
    pub(super) fn of(saga: &str, before: &Aliases, after: &Aliases, taken: Vec<InstanceKey>) -> Self {
        let only = |of: &Aliases, other: &Aliases| -> Vec<InstanceKey> {
            let own = of.iter().filter(|(name, value)| other.get(*name) != Some(value));
            own.map(|(name, value)| alias_key(saga, name, value.clone())).collect()
        };
        Self { taken, new: only(after, before), gone: only(before, after) }
    }
}
