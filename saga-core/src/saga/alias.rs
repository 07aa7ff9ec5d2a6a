//! Aliases: fields of an instance's data by which messages find it that do not know its id.

use super::{SagaId, id::ID_BYTES_MAX};
use crate::InstanceKey;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    marker::PhantomData,
};

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

/// What a message has, for the alias in a field of the data.
#[doc(hidden)]
pub struct Named<'a, N, A>(&'a N, PhantomData<fn() -> A>);

impl<'a, N, A> Named<'a, N, A> {
    pub fn of<D>(value: &'a N, _field: fn(&D) -> &A) -> Self {
        Self(value, PhantomData)
    }
}

/// If the field can be no alias, [`alias`] says so, and rustc takes what [`NamesNone`] has: see [`crate::probe`].
impl<N, A: Alias> Named<'_, N, A> {
    pub fn text(&self) -> Option<String>
    where
        N: NamesAlias<A::Value>,
    {
        self.0.text()
    }
}

#[doc(hidden)]
pub trait NamesNone {
    fn text(&self) -> Option<String>;
}

impl<N, A> NamesNone for Named<'_, N, A> {
    fn text(&self) -> Option<String> {
        None
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_the_value_of_an_alias_says_why() {
        let (longest, longer) = ("x".repeat(ID_BYTES_MAX), "x".repeat(ID_BYTES_MAX + 1));
        assert_eq!(value_fault(&longest), None);
        let wrong = [("", "is empty"), (&*longer, "is longer than 1000 bytes"), ("a\0b", "contains U+0000")];
        for (value, fault) in wrong {
            assert_eq!(value_fault(value).as_deref(), Some(fault));
        }
    }

    #[test]
    fn a_value_is_an_alias_as_it_is_or_when_it_is_known() {
        assert_eq!([alias(&7_u64), alias(&Some(7_u64))], [Some("7".into()), Some("7".into())]);
        assert_eq!(alias(&None::<String>), None);
    }

    #[test]
    fn only_what_differs_is_new_or_gone() {
        let of = |all: &[(&str, &str)]| -> Aliases {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let key = |name: &str, value: &str| alias_key("s", name, value.into());
        let before = of(&[("gone", "1"), ("other", "2"), ("same", "3")]);
        let after = of(&[("new", "4"), ("other", "5"), ("same", "3")]);
        let changes = AliasChanges::of("s", &before, &after, Vec::new());
        assert_eq!(changes.new, [key("new", "4"), key("other", "5")]);
        assert_eq!(changes.gone, [key("gone", "1"), key("other", "2")]);
        assert_eq!(AliasChanges::of("s", &before, &before, Vec::new()), AliasChanges::default());
    }
}
