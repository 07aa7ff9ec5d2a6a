//! Fields that operators do not see: those that programs mark with `#[masked]`.
//!
//! A message says in its envelope which of its fields are masked; its sender wrote that, or its receiver when it held
//! the message. Of instances, and of messages in their journals, the charts say it.

use saga_core::{
    DefinitionView, Inspect, InstanceView, JournalView, OperationItem, OperationView, StoreError, masked_fields,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands in place of a masked value.
pub(crate) const MASK: &str = "•••";

/// The names of the fields that were hidden.
pub(crate) type Hidden = BTreeSet<String>;

/// Hides fields of a body or of an instance's data. What has no fields, as a body that is not JSON, is hidden as a
/// whole.
pub(crate) fn hide(value: &mut Value, fields: &[String]) -> Hidden {
    let mut hidden = Hidden::new();
    match value {
        _ if fields.is_empty() => {}
        Value::Object(all) => {
            let fields: Vec<String> = fields.iter().map(|field| plain(field)).collect();
            for (name, value) in all.iter_mut().filter(|(name, _)| fields.contains(&plain(name))) {
                *value = MASK.into();
                hidden.insert(name.clone());
            }
        }
        Value::Null => {}
        other => {
            *other = MASK.into();
            hidden.extend(fields.iter().cloned());
        }
    }
    hidden
}

/// A name without what serde's `rename_all` may change: a type that stands elsewhere may be written in any case.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// A body with its masked fields hidden, as bytes; as it is, if it has none.
pub(crate) fn hidden(body: &[u8], fields: &[String]) -> Vec<u8> {
    covered(body, fields).0
}

/// The same, and what was hidden.
fn covered(body: &[u8], fields: &[String]) -> (Vec<u8>, Hidden) {
    if fields.is_empty() {
        return (body.to_vec(), Hidden::new());
    }
    let mut value: Value = serde_json::from_slice(body).unwrap_or_else(|_| MASK.into());
    let hidden = hide(&mut value, fields);
    (value.to_string().into_bytes(), hidden)
}

/// Hides what is masked in instances of a database.
pub(crate) async fn instances(store: &dyn Inspect, rows: &mut [InstanceView]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let definitions = store.definitions().await?;
    for row in rows {
        instance(row, &definitions);
    }
    Ok(())
}

/// Hides what is masked in an instance: in any state and in any version, because the row may be of an older one.
pub(crate) fn instance(row: &mut InstanceView, definitions: &[DefinitionView]) -> Hidden {
    let fields = fields(&row.saga, definitions);
    let mut hidden = data(&mut row.data, &fields);
    // an alias or a field is named by its path in the data: what is masked is all of what it begins with
    let masked = |name: &str| fields.iter().any(|field| plain(field) == plain(name.split('.').next().unwrap_or(name)));
    let found_by = row.aliases.iter_mut().chain(&mut row.fields);
    for (name, value) in found_by.filter(|(name, _)| masked(name)) {
        *value = MASK.into();
        hidden.insert(name.clone());
    }
    hidden
}

/// Hides fields of a state's data, as it is stored.
fn data(value: &mut Value, fields: &[String]) -> Hidden {
    let mut hidden = hide(value, fields);
    // where states share data, the two are stored side by side
    if let Some(parts) = value.as_object_mut().filter(|all| all.len() == 2 && all.contains_key("data")) {
        for (_, part) in parts.iter_mut().filter(|(_, part)| part.is_object()) {
            hidden.extend(hide(part, fields));
        }
    }
    hidden
}

/// What is masked in instances of a saga.
pub(crate) fn fields(saga: &str, definitions: &[DefinitionView]) -> Vec<String> {
    let states = definitions.iter().filter(|it| it.saga == saga).flat_map(|it| &it.chart.states);
    states.flat_map(|state| state.masked.iter().cloned()).collect()
}

/// Hides what is masked in what the journal of a saga's instance keeps: in messages, and in the data after each step.
pub(crate) fn journal(saga: &str, lines: &mut [JournalView], definitions: &[DefinitionView]) -> Hidden {
    let (mut hidden, of_data) = (Hidden::new(), fields(saga, definitions));
    for line in lines {
        if let Some(after) = &mut line.after {
            hidden.extend(data(&mut after.data, &of_data));
        }
        let Some(message) = &mut line.message else { continue };
        let messages = definitions.iter().flat_map(|it| &it.chart.messages).filter(|it| it.type_name == line.type_name);
        let mut fields: Vec<String> = messages.flat_map(|it| it.masked.iter().cloned()).collect();
        fields.extend(masked_fields(&message["envelope"]));
        if let (false, Some(body)) = (fields.is_empty(), message["body"].as_str()) {
            let (body, names) = covered(body.as_bytes(), &fields);
            message["body"] = String::from_utf8_lossy(&body).into_owned().into();
            hidden.extend(names);
        }
    }
    hidden
}

/// Hides what is masked in the old bodies that edits have kept, unless all is to be seen.
pub(crate) fn operations<'a>(all: impl IntoIterator<Item = &'a mut OperationView>, unmasked: bool) -> Hidden {
    all.into_iter().flat_map(|operation| &mut operation.items).flat_map(|one| item(one, unmasked)).collect()
}

/// The same for one message of an operation.
pub(crate) fn item(item: &mut OperationItem, unmasked: bool) -> Hidden {
    let Some((body, masked)) = item.old_body_and_masked() else { return Hidden::new() };
    let masked = if unmasked { Vec::new() } else { masked };
    let (body, hidden) = covered(body.as_bytes(), &masked);
    item.old_body = Some(String::from_utf8_lossy(&body).into_owned());
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::MASKED_HEADER;
    use serde_json::json;

    #[test]
    fn the_old_body_of_an_edit_hides_what_its_record_names() {
        let edited = || {
            serde_json::from_value::<OperationItem>(json!({ "endpoint": "e", "receiver": "r", "message_id": "m",
                "result": "edited", "old_body": "masked [\"card\"]\n\n{\"card\":4111}" }))
            .unwrap()
        };
        let (mut shut, mut open) = (edited(), edited());
        assert_eq!(item(&mut shut, false), Hidden::from(["card".to_owned()]));
        assert_eq!(shut.old_body.as_deref(), Some(r#"{"card":"•••"}"#));
        assert_eq!(item(&mut open, true), Hidden::new());
        assert_eq!(open.old_body.as_deref(), Some(r#"{"card":4111}"#));
    }

    #[test]
    fn masked_fields_are_hidden_and_others_stay() {
        let fields = ["card".to_owned(), "none".to_owned(), "card_number".to_owned()];
        let mut body = json!({ "card": { "number": 4111 }, "cents": 5 });
        assert_eq!(hide(&mut body, &fields), Hidden::from(["card".to_owned()]), "what was there");
        assert_eq!(body, json!({ "card": MASK, "cents": 5 }));
        assert_eq!(hidden(br#"{"cardNumber":1}"#, &fields), r#"{"cardNumber":"•••"}"#.as_bytes(), "in another case");
        assert_eq!(hidden(br#"{"card":1,"b":2}"#, &fields), r#"{"b":2,"card":"•••"}"#.as_bytes());
        assert_eq!(hidden(b"4111 no JSON", &fields), "\"•••\"".as_bytes(), "the whole of what has no fields");
        assert_eq!(hidden(b"4111 no JSON", &[]), b"4111 no JSON", "nothing is masked");
    }

    #[test]
    fn an_instance_hides_what_any_of_its_states_masks_in_its_state_and_in_its_data() {
        let definition: DefinitionView = serde_json::from_value(json!({ "endpoint": "shop", "saga": "order",
            "version": 1, "registered_at_us": 0, "chart": { "saga": "order", "version": 1, "messages": [], "edges": [],
                "states": [{ "name": "Waiting", "done": false, "masked": ["card", "pin"] }] } }))
        .unwrap();
        let shown = |data: Value| {
            let mut row: InstanceView = serde_json::from_value(json!({ "saga": "order", "id": "7", "state": "Old",
                "data": data, "aliases": { "card.number": "4111", "reference": "r" },
                "fields": { "pin": "1", "floor": "3" }, "seq": 1, "version": 1,
                "paused_by": null, "created_at_us": 0, "updated_at_us": 0, "completed_at_us": null }))
            .unwrap();
            instance(&mut row, std::slice::from_ref(&definition));
            assert_eq!((row.aliases["card.number"].as_str(), row.aliases["reference"].as_str()), (MASK, "r"));
            assert_eq!((row.fields["pin"].as_str(), row.fields["floor"].as_str()), (MASK, "3"), "an older row");
            row.data
        };
        let apart = shown(json!({ "state": { "pin": 1, "floor": 3 }, "data": { "card": 4111, "cents": 5 } }));
        assert_eq!(apart, json!({ "state": { "pin": MASK, "floor": 3 }, "data": { "card": MASK, "cents": 5 } }));
        assert_eq!(shown(json!({ "pin": 1, "floor": 3 })), json!({ "pin": MASK, "floor": 3 }), "a saga without data");
    }

    #[test]
    fn a_journal_hides_what_its_chart_or_its_envelope_masks() {
        let line = |type_name: &str, envelope: Value| {
            let message = json!({ "envelope": envelope, "body": r#"{"card":4111,"iban":7,"cents":5}"# });
            serde_json::from_value::<JournalView>(json!({ "message_id": "m", "type": type_name, "result": "handled",
                "seq": 1, "from_state": null, "to_state": null, "effects": null, "causation_id": null,
                "handled_at_us": 0, "handled_by": "p", "attempts": 1, "note": null, "message": message }))
            .unwrap()
        };
        let definition: DefinitionView = serde_json::from_value(json!({ "endpoint": "shop", "saga": "order",
            "version": 1, "registered_at_us": 0, "chart": { "saga": "order", "version": 1, "edges": [],
                "states": [{ "name": "Waiting", "done": false, "masked": ["pin"] }],
                "messages": [{ "type_name": "Paid", "kind": "event", "starts": false, "masked": ["card"] }] } }))
        .unwrap();
        let mut lines = [
            line("Paid", json!({})),
            line("Other", json!({ "headers": { MASKED_HEADER: ["iban"] } })),
            line("Open", json!({})),
        ];
        let data = json!({ "state": { "pin": 1 }, "data": { "pin": 2, "n": 3 } });
        lines[2].after = serde_json::from_value(json!({ "data": data, "version": 1, "done": false })).unwrap();
        let hidden = journal("order", &mut lines, &[definition]);
        assert_eq!(hidden, Hidden::from(["card", "iban", "pin"].map(str::to_owned)));
        let data = &lines[2].after.as_ref().unwrap().data;
        assert_eq!(*data, json!({ "state": { "pin": MASK }, "data": { "pin": MASK, "n": 3 } }), "as of the instance");
        let body = |line: &JournalView| line.message.as_ref().unwrap()["body"].as_str().unwrap().to_owned();
        assert!(!body(&lines[0]).contains("4111") && body(&lines[0]).contains("\"iban\":7"), "{}", body(&lines[0]));
        assert!(!body(&lines[1]).contains("\"iban\":7") && body(&lines[1]).contains("4111"), "{}", body(&lines[1]));
        assert_eq!(body(&lines[2]), r#"{"card":4111,"iban":7,"cents":5}"#, "as it was");
    }
}
