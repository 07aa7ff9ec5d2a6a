use super::*;
use crate::port::StoreErrorKind;

/// Holds what it is asked for, except the message `lost`; fails at the third order.
struct Counting(std::sync::Mutex<Vec<usize>>);

#[async_trait]
impl Inspect for Counting {
    async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        Ok(match listing {
            Listing::Held(_, Wanted::Count) => vec!["186".into()],
            Listing::Held(filter, _) if filter.message_id.as_deref() == Some("lost") => Vec::new(),
            Listing::Held(filter, _) if filter.message_id.is_some() => vec![
                r#"{ "endpoint": "e", "receiver": "r", "message_id": "m", "type": "t", "arrival": 7,
                    "reason": "failed", "attempts": 1, "held_at_us": 0,
                    "envelope": { "headers": { "sagabus-masked": ["card"] } } }"#
                    .into(),
            ],
            Listing::HeldBody(_) => vec![r#""7b7D""#.into()],
            _ => vec!["{}".into()],
        })
    }

    async fn order(&self, order: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        let mut orders = self.0.lock().unwrap();
        if orders.len() == 2 {
            return Err(StoreError::conflict());
        }
        if let HeldAction::Edit { old_body, .. } = order.action {
            assert_eq!(old_body, "masked [\"card\"]\n\n{}", "the record says what it must hide");
        }
        orders.push(order.rows.len());
        Ok(order.rows.iter().map(|row| row.done(order.action.as_str(), None, None)).collect())
    }

    async fn instance_order(&self, _: &InstanceOrder<'_>) -> Result<InstanceDone, StoreError> {
        Err(StoreError::conflict())
    }

    async fn process_drain(&self, _: &str, _: &str, _: &str) -> Result<OperationItem, StoreError> {
        Err(StoreError::conflict())
    }

    async fn record(&self, _: &str, _: OperationItem, _: &str, _: &str) -> Result<(), StoreError> {
        Err(StoreError::conflict())
    }

    async fn outbox_order(&self, order: &OutboxOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        self.0.lock().unwrap().push(order.rows.len());
        Ok(Vec::new())
    }
}

fn counting() -> Counting {
    Counting(std::sync::Mutex::default())
}

#[tokio::test]
async fn an_action_over_many_rows_is_done_in_bounded_orders_and_says_where_it_stopped() {
    let store = counting();
    let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 7 };
    let done = store.held_retry(&vec![row; 250], "me", "because").await;
    assert_eq!(*store.0.lock().unwrap(), [100, 100]);
    assert_eq!((done.items.len(), done.count("held retry")), (200, 200));
    assert!(done.stopped.is_some(), "what stopped it is told");
}

#[tokio::test]
async fn counts_and_bodies_are_read_and_what_is_no_view_is_an_error() {
    let store = counting();
    assert_eq!(store.held_count(&HeldFilter::default()).await.unwrap(), 186);
    let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 7 };
    assert_eq!(store.held_body(&row).await.unwrap().unwrap(), b"{}");
    let error = store.held(&HeldFilter::default(), 5).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.to_string().contains("missing field"), "{error}");
}

#[tokio::test]
async fn r_025_an_edit_is_checked_before_anything_is_done() {
    let store = counting();
    let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 7 };
    for (body, line) in [("{\"a\":", "line 1"), ("", "line 1"), ("{}x", "trailing"), ("\u{feff}{}", "line 1")] {
        let refused = store.held_edit(&row, body, "me", "because").await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Invalid);
        assert!(refused.to_string().contains("not JSON") && refused.to_string().contains(line), "{refused}");
    }
    assert_eq!(store.held_edit(&row, "{}", "me", "because").await.unwrap().result, "unchanged");
    assert_eq!(*store.0.lock().unwrap(), [0; 0], "nothing was ordered so far");
    assert_eq!(store.held_edit(&row, "[]", "me", "because").await.unwrap().result, "held edit");
    let lost = HeldRef { message_id: "lost".into(), ..row };
    let refused = store.held_edit(&lost, "[]", "me", "because").await.unwrap_err();
    assert!(refused.to_string().contains("nothing was done"), "what to hide is not known: {refused}");
    assert_eq!(store.0.lock().unwrap().len(), 1, "and nothing was ordered");
    assert_eq!(in_digits(b"\xff\0a"), "hex:ff0061");
}
