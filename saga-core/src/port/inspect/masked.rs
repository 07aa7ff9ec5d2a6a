//! Which fields of what operators read are not for their eyes.

use super::{HeldView, OperationItem, OutboxView};
use crate::Envelope;
use serde_json::Value;

/// Before the body that an edit keeps, if fields of it are masked: their names follow, then a blank line.
const MARK: &str = "masked ";

fn of(envelope: &Value) -> Vec<String> {
    let envelope = serde_json::from_value::<Envelope>(envelope.clone());
    envelope.map(|envelope| envelope.masked().into_iter().map(str::to_owned).collect()).unwrap_or_default()
}

impl HeldView {
    /// The fields of its body that operators do not see.
    pub fn masked(&self) -> Vec<String> {
        of(&self.envelope)
    }
}

impl OutboxView {
    /// The fields of its body that operators do not see.
    pub fn masked(&self) -> Vec<String> {
        of(&self.envelope)
    }
}

impl OperationItem {
    /// A body as an edit keeps it.
    pub(super) fn marked(masked: &[String], body: String) -> String {
        match serde_json::to_string(masked) {
            Ok(names) if !masked.is_empty() => format!("{MARK}{names}\n\n{body}"),
            _ => body,
        }
    }

    /// The fields of the old body that operators do not see, and that body as it was.
    pub fn old_body_and_masked(&self) -> Option<(&str, Vec<String>)> {
        let body = self.old_body.as_deref()?;
        let marked = body.strip_prefix(MARK).and_then(|rest| rest.split_once("\n\n"));
        let read = |(names, body)| Some((body, serde_json::from_str(names).ok()?));
        Some(marked.and_then(read).unwrap_or((body, Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_that_an_edit_keeps_says_what_of_it_is_masked() {
        let mut item = OperationItem::gone("m");
        assert_eq!(item.old_body_and_masked(), None);
        item.old_body = Some(OperationItem::marked(&["card".into()], "{\"card\":\n\n1}".into()));
        assert_eq!(item.old_body_and_masked(), Some(("{\"card\":\n\n1}", vec!["card".to_owned()])));
        item.old_body = Some(OperationItem::marked(&[], "{}".into()));
        assert_eq!(item.old_body_and_masked(), Some(("{}", Vec::new())), "nothing is masked");
    }
}
