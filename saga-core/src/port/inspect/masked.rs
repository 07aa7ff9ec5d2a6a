//! Which fields of what operators read are not for their eyes.

use super::{HeldFilter, HeldRef, HeldView, Inspect, NOTES_MAX, OperationItem, OutboxView};
use crate::{ErrorCode, StoreError, StoreErrorKind};
use serde_json::Value;

/// The header with the names of fields that operators do not see.
pub const MASKED_HEADER: &str = "sagabus-masked";

/// Before the body that an edit keeps, if fields of it are masked: their names follow, then a blank line.
const MARK: &str = "masked ";

/// The fields that an envelope names as masked. Nothing else of it is read: a part that this binary cannot read must
/// not open what another one has hidden.
pub fn masked_fields(envelope: &Value) -> Vec<String> {
    let names = envelope["headers"][MASKED_HEADER].as_array();
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The fields of a held message that operators do not see. `None`: it was dealt with meanwhile.
///
/// # Errors
/// When it is there but not found, because too many ids begin alike: nobody can tell what a record must hide.
pub(super) async fn of_row<I: Inspect + ?Sized>(store: &I, row: &HeldRef) -> Result<Option<Vec<String>>, StoreError> {
    let (message_id, endpoint) = (Some(row.message_id.clone()), Some(row.endpoint.clone()));
    let filter = HeldFilter { message_id, endpoint, ..HeldFilter::default() };
    let found = store.held(&filter, NOTES_MAX).await?;
    let masked = found.iter().find(|held| held.row() == *row).map(HeldView::masked);
    if masked.is_none() && store.held_body(row).await?.is_some() {
        let id = &row.message_id;
        let text = format!("more than {NOTES_MAX} held messages have ids that begin with {id}: nothing was done");
        return Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::Ambiguous));
    }
    Ok(masked)
}

impl HeldView {
    /// The fields of its body that operators do not see.
    pub fn masked(&self) -> Vec<String> {
        masked_fields(&self.envelope)
    }
}

impl OutboxView {
    /// The fields of its body that operators do not see.
    pub fn masked(&self) -> Vec<String> {
        masked_fields(&self.envelope)
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
    use serde_json::json;

    #[test]
    fn an_envelope_that_cannot_be_read_still_says_what_is_masked() {
        let envelope =
            json!({ "of a newer binary": 7, "headers": { MASKED_HEADER: ["card", "pin"], "masked": ["x"] } });
        assert!(serde_json::from_value::<crate::Envelope>(envelope.clone()).is_err());
        assert_eq!(masked_fields(&envelope), ["card", "pin"]);
        assert_eq!(masked_fields(&json!("no object")), [""; 0]);
    }

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
