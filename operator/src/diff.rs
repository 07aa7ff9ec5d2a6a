//! What a step changed in an instance's data: one line for each field, nested ones by their path.

use crate::text::short;
use saga_core::JournalView;
use serde_json::{Map, Value};

/// The most fields that are told of one step.
const FIELDS_MAX: usize = 30;

/// What became of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Added(String, Value),
    Removed(String, Value),
    Changed(String, Value, Value),
    /// So many more fields changed.
    More(usize),
}

impl Change {
    /// As a line, for a terminal or a page: what is foreign in it is harmless, and long values are shortened.
    pub(crate) fn line(&self) -> String {
        let of = |value: &Value| short(&value.to_string());
        match self {
            Self::Added(path, value) => format!("{}: added {}", short(path), of(value)),
            Self::Removed(path, value) => format!("{}: removed, was {}", short(path), of(value)),
            Self::Changed(path, before, after) => format!("{}: {} → {}", short(path), of(before), of(after)),
            Self::More(fields) => format!("and {fields} more"),
        }
    }
}

/// What each line of a journal changed in the data, by the lines' order. Of a line without the instance, and of one
/// whose step before has none, nobody knows.
pub(crate) fn of_journal(lines: &[JournalView]) -> Vec<Vec<Change>> {
    let nothing = Value::Object(Map::new());
    let mut last: Option<(i64, &Value)> = Some((0, &nothing));
    let mut all = Vec::with_capacity(lines.len());
    for line in lines {
        let step = line.seq.zip(line.after.as_ref());
        let before = last.filter(|(seq, _)| step.is_some_and(|(own, _)| own == *seq + 1));
        let changes = before.zip(step).map(|((_, before), (_, after))| of(before, &after.data));
        all.push(changes.unwrap_or_default());
        if let Some((seq, after)) = step {
            last = Some((seq, &after.data));
        }
    }
    all
}

/// What differs between two values.
pub(crate) fn of(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", before, after, &mut changes);
    if changes.len() > FIELDS_MAX {
        let more = changes.len() - FIELDS_MAX;
        changes.truncate(FIELDS_MAX);
        changes.push(Change::More(more));
    }
    changes
}

fn compare(path: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let path = below(path, name);
                match after.get(name) {
                    Some(after) => compare(&path, value, after, changes),
                    None => each(&path, value, Change::Removed, changes),
                }
            }
            let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
            new.for_each(|(name, value)| each(&below(path, name), value, Change::Added, changes));
        }
        (Value::Array(before), Value::Array(after)) => {
            for (place, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{place}]"), before, after, changes);
            }
            let both = before.len().min(after.len());
            let place = |(place, value): (usize, &Value)| (format!("{path}[{place}]"), value.clone());
            let gone = before.iter().enumerate().skip(both).map(place);
            changes.extend(gone.map(|(path, value)| Change::Removed(path, value)));
            let new = after.iter().enumerate().skip(both).map(place);
            changes.extend(new.map(|(path, value)| Change::Added(path, value)));
        }
        _ if before == after => {}
        // a state without fields is null
        (Value::Null, Value::Object(fields)) if !fields.is_empty() => each(path, after, Change::Added, changes),
        (Value::Object(fields), Value::Null) if !fields.is_empty() => each(path, before, Change::Removed, changes),
        _ => {
            let path = if path.is_empty() { "(all)" } else { path };
            changes.push(Change::Changed(path.into(), before.clone(), after.clone()));
        }
    }
}

/// Every field of what came or went. A null says nothing.
fn each(path: &str, value: &Value, what: fn(String, Value) -> Change, changes: &mut Vec<Change>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        Some(fields) => fields.iter().for_each(|(name, value)| each(&below(path, name), value, what, changes)),
        None if value.is_null() => {}
        None => changes.push(what(path.into(), value.clone())),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(before: Value, after: Value) -> Vec<String> {
        of(&before, &after).iter().map(Change::line).collect()
    }

    #[test]
    fn a_field_is_told_by_its_path_and_what_became_of_it() {
        let card = |pin: u64| json!({ "no": 1, "pin": pin });
        let data = |cents: u64, pin: u64, note: Value| json!({ "cents": cents, "card": card(pin), "note": note });
        let before = json!({ "data": data(500, 2, Value::Null), "state": { "a": 1 } });
        let after = json!({ "data": data(700, 3, "x".into()), "state": { "b": [] } });
        let expected = [
            "data.card.pin: 2 → 3",
            "data.cents: 500 → 700",
            "data.note: null → \"x\"",
            "state.a: removed, was 1",
            "state.b: added []",
        ];
        let mut told = lines(before, after);
        told.sort_unstable();
        assert_eq!(told, expected);
        assert_eq!(lines(json!({ "a": [1, 2.50] }), json!({ "a": [1, 2.5] })), [""; 0]);
        let longer = lines(json!({ "a": [1, { "n": 2 }] }), json!({ "a": [1, { "n": 3 }, 4] }));
        assert_eq!(longer, ["a[1].n: 2 → 3", "a[2]: added 4"]);
        assert_eq!(lines(json!({ "a": [1, 2] }), json!({ "a": [1] })), ["a[1]: removed, was 2"]);
        assert_eq!(lines(json!({ "a": { "b": 1 } }), json!({ "a": 5 })), ["a: {\"b\":1} → 5"], "another kind");
        assert_eq!(lines(json!({ "state": { "b": 1 } }), json!({ "state": null })), ["state.b: removed, was 1"]);
        assert_eq!(lines(json!({}), json!({ "state": null })), [""; 0]);
        assert_eq!(lines(json!({}), json!({ "a": { "b": 1, "c": {} } })), ["a.b: added 1", "a.c: added {}"]);
        assert_eq!(lines(json!(null), json!({ "b": 1 })), ["b: added 1"]);
        assert_eq!(lines(json!(1), json!(2)), ["(all): 1 → 2"]);
    }

    #[test]
    fn what_is_long_or_foreign_is_shortened_and_harmless() {
        let told = lines(json!({}), json!({ "a\u{1b}[2J": "x\n".repeat(1000) }));
        assert!(told[0].starts_with("a\\u{1b}[2J: added \"x\\n") && told[0].ends_with('…'), "{told:?}");
        assert!(told[0].chars().count() < 350, "{told:?}");
        let many: Map<String, Value> = (0..40).map(|n| (format!("f{n}"), n.into())).collect();
        let told = lines(json!({}), Value::Object(many));
        assert_eq!((told.len(), told.last().map(String::as_str)), (31, Some("and 10 more")));
    }

    #[test]
    fn a_step_is_compared_with_the_step_before_it_and_with_no_other() {
        let line = |seq: Option<i64>, data: Option<Value>| -> JournalView {
            let after = data.map(|data| json!({ "data": data, "version": 1, "done": false }));
            serde_json::from_value(json!({ "message_id": "m", "type": "t", "result": "handled", "seq": seq,
                "from_state": null, "to_state": "A", "effects": null, "causation_id": null, "handled_at_us": 0,
                "handled_by": "p", "attempts": 1, "note": null, "after": after }))
            .unwrap()
        };
        let journal = [
            line(Some(1), Some(json!({ "n": 1 }))),
            line(None, None),
            line(Some(2), Some(json!({ "n": 2 }))),
            line(Some(3), None),
            line(Some(4), Some(json!({ "n": 4 }))),
            line(Some(5), Some(json!({ "n": 4 }))),
        ];
        let told = |journal: &[JournalView]| -> Vec<String> {
            let all = of_journal(journal);
            all.iter().map(|changes| changes.iter().map(Change::line).collect::<Vec<_>>().join("; ")).collect()
        };
        let unknown = "what the step before left is not known";
        assert_eq!(told(&journal), ["n: added 1", "", "n: 1 → 2", "", "", ""], "{unknown}, or nothing changed");
        assert_eq!(told(&journal[2..]), ["", "", "", ""], "{unknown}");
    }
}
