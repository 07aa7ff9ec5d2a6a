//! Fields by which operators find instances. Where aliases are kept, and when they change, fields are kept too; but a
//! value may have many instances, and nothing about a field is a reason to fail.

use super::{Alias, alias_key};
use crate::{InstanceKey, port::FIELD_BYTES_MAX};
use std::collections::BTreeMap;

/// What can be a field: what can be an alias, and a `bool`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field by which operators find instances",
    label = "needs to be a string, an integer, a `Uuid`, a `bool`, or an `Option` of one",
    note = "other types implement `SagaId`"
)]
pub trait Field {
    fn text(&self) -> Option<String>;
}

#[diagnostic::do_not_recommend]
impl<T: Alias> Field for T {
    fn text(&self) -> Option<String> {
        Alias::text(self)
    }
}

#[diagnostic::do_not_recommend]
impl Field for bool {
    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

#[diagnostic::do_not_recommend]
impl Field for Option<bool> {
    fn text(&self) -> Option<String> {
        self.map(|value| value.to_string())
    }
}

/// The value of a field.
#[doc(hidden)]
pub fn field<F: Field>(value: &F) -> Option<String> {
    value.text()
}

/// The fields of an instance, by their names.
pub(crate) type KeptFields = BTreeMap<String, String>;

/// Those that can be kept. A value that is too long is left out as a whole: cut, it could pass for another one, and
/// what an operator does to the instances of one customer would be done to those of two.
pub(crate) fn kept_fields(all: Vec<(&'static str, Option<String>)>) -> KeptFields {
    let fits = |value: &String| !value.is_empty() && value.len() <= FIELD_BYTES_MAX && !value.contains('\0');
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.filter(fits)?))).collect()
}

/// What a batch does to the fields of one instance, each by the key under which it is kept, as an alias is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct FieldChanges {
    /// Those that the instance has after the batch and had not before.
    pub(crate) new: Vec<InstanceKey>,
    /// Those that are to be deleted first, whatever their value is.
    pub(crate) gone: Vec<InstanceKey>,
}

impl FieldChanges {
    /// `is_new`: the instance begins with this batch. An older one may have rows of which it does not know: a process
    /// that knew fewer fields has written it in between.
    pub(super) fn of(saga: &str, before: &KeptFields, after: &KeptFields, is_new: bool) -> Self {
        let key = |(name, value): (&String, &String)| alias_key(saga, name, value.clone());
        let new: Vec<_> = after.iter().filter(|(name, value)| before.get(*name) != Some(value)).collect();
        let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
        let gone = gone.chain(new.iter().copied().filter(|_| !is_new)).map(key).collect();
        Self { new: new.into_iter().map(key).collect(), gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, &str)]) -> KeptFields {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_value_is_kept_as_text_if_it_is_known_and_short() {
        let number = uuid::Uuid::from_u128(7);
        assert_eq!([field(&7_u64), field(&Some("x".to_owned()))], [Some("7".into()), Some("x".into())]);
        assert_eq!([field(&true), field(&Some(false))], [Some("true".into()), Some("false".into())]);
        assert_eq!([field(&number), field(&None::<bool>), field(&None::<i32>)], [Some(number.to_string()), None, None]);
        let (longest, longer) = ("x".repeat(FIELD_BYTES_MAX), "x".repeat(FIELD_BYTES_MAX + 1));
        let all = ["fits", "too long", "empty", "zero", "unknown"];
        let values = [Some(longest.clone()), Some(longer), Some(String::new()), Some("a\0b".into()), None];
        assert_eq!(kept_fields(all.into_iter().zip(values).collect()), of(&[("fits", &longest)]));
    }

    #[test]
    fn only_what_differs_is_written() {
        let key = |name: &str, value: &str| alias_key("s", name, value.into());
        let (before, after) =
            (of(&[("gone", "1"), ("other", "2"), ("same", "3")]), of(&[("new", "4"), ("other", "5")]));
        let after: KeptFields = after.into_iter().chain(of(&[("same", "3")])).collect();
        let changes = FieldChanges::of("s", &before, &after, false);
        assert_eq!(changes.new, [key("new", "4"), key("other", "5")]);
        assert_eq!(changes.gone, [key("gone", "1"), key("new", "4"), key("other", "5")]);
        assert_eq!(FieldChanges::of("s", &before, &before, false), FieldChanges::default());
        let begun = FieldChanges::of("s", &of(&[]), &after, true);
        assert_eq!((begun.new.len(), begun.gone), (3, Vec::new()), "a new instance has no rows yet");
    }
}
