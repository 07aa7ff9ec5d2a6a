//! Fields by which operators find instances: `--where customer=7`.

use crate::{find, masks};
use saga_core::{FieldIs, FieldName, Inspect, StoreError};

/// `customer=7` as people type it.
pub(crate) fn parse(text: &str) -> Result<FieldIs, String> {
    let (name, value) = text.split_once('=').unwrap_or_default();
    if name.trim().is_empty() || value.is_empty() {
        return Err("a field and its value were expected: customer=7".into());
    }
    Ok(FieldIs { name: name.trim().into(), value: value.into() })
}

/// The fields that instances of a database have. One that is masked is none: whoever may not see a value shall not
/// guess it either.
pub(crate) async fn names(store: &dyn Inspect, unmasked: bool) -> Result<Vec<FieldName>, StoreError> {
    let mut names = store.field_names().await?;
    if !unmasked && !names.is_empty() {
        let definitions = store.definitions().await?;
        names.retain(|field| !masks::fields(&field.saga, &definitions).contains(&field.name));
    }
    Ok(names)
}

/// The wanted fields in their proper spelling, whatever their case; else which there are.
pub(crate) fn spelt(
    wanted: &[FieldIs],
    saga: Option<&String>,
    known: impl IntoIterator<Item = FieldName>,
) -> Result<Vec<FieldIs>, String> {
    let of_saga = known.into_iter().filter(|field| saga.is_none_or(|saga| *saga == field.saga));
    let names: Vec<String> = of_saga.map(|field| field.name).collect();
    let what = saga.map_or_else(|| "field of an instance".into(), |saga| format!("field of an instance of {saga}"));
    let one = |field: &FieldIs| {
        let name = find::name(&field.name, &names, &what)?;
        Ok(FieldIs { name, value: field.value.clone() })
    };
    wanted.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_typed_with_its_value() {
        let is = |name: &str, value: &str| Ok(FieldIs { name: name.into(), value: value.into() });
        assert_eq!(parse("customer=Ann Smith"), is("customer", "Ann Smith"));
        assert_eq!(parse("card.token=a=b"), is("card.token", "a=b"), "the value is all that follows");
        for wrong in ["", "customer", "=7", "customer="] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_no_instance_has_says_which_there_are() {
        let known = || {
            ["order customer", "order region", "parcel weight"].map(|text| {
                let (saga, name) = text.split_once(' ').unwrap();
                serde_json::from_value::<FieldName>(serde_json::json!({ "saga": saga, "name": name })).unwrap()
            })
        };
        let spelt = |name: &str, saga: Option<&str>| {
            let wanted = [FieldIs { name: name.into(), value: "7".into() }];
            spelt(&wanted, saga.map(str::to_owned).as_ref(), known()).map(|mut fields| fields.remove(0).name)
        };
        assert_eq!(spelt("CUSTOMER", None), Ok("customer".into()));
        let text = "no field of an instance is called custmer; there are: customer, region, weight";
        assert_eq!(spelt("custmer", None), Err(text.into()));
        let text = "no field of an instance of order is called weight; there are: customer, region";
        assert_eq!(spelt("weight", Some("order")), Err(text.into()));
        let text = "no field of an instance of letter is called weight; there is none";
        assert_eq!(spelt("weight", Some("letter")), Err(text.into()));
    }
}
