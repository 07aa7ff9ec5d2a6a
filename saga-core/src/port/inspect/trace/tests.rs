use super::*;
use crate::port::{
    HeldOrder, InstanceDone, InstanceOrder, Listing, OperationItem, OutboxOrder, StoreErrorKind, Wanted,
};
use async_trait::async_trait;
use serde_json::{Value, json};

/// A database of a few rows; `None`: one that is away.
struct Rows(Option<Vec<Value>>);

#[async_trait]
impl Inspect for Rows {
    async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        let Some(rows) = &self.0 else { return Err(StoreError::new(StoreErrorKind::Unavailable, "away")) };
        let id_of = |row: &Value| row["message_id"].as_str().unwrap().to_owned();
        Ok(match listing {
            Listing::Traces(ids) => rows.iter().filter(|row| ids.contains(&id_of(row))).map(Value::to_string).collect(),
            Listing::Beginning(text) => {
                let begins = |row: &&Value| id_of(row).starts_with(text);
                let messages = rows.iter().filter(begins).map(|row| json!({ "id": id_of(row) }));
                let of = rows.iter().filter(|row| row["saga_id"].as_str().is_some_and(|id| id.starts_with(text)));
                let instances = of.map(|row| json!({ "id": row["saga_id"], "saga": row["receiver"] }));
                messages.chain(instances).map(|name| name.to_string()).collect()
            }
            Listing::Conversation(text, Wanted::Beyond) => vec![u8::from(*text == "old").to_string()],
            Listing::Conversation(text, _) => {
                let of = rows.iter().filter(|row| row["conversation_id"] == *text);
                of.map(|row| json!(id_of(row)).to_string()).collect()
            }
            Listing::Journal(key, _) => {
                let of = rows.iter().filter(|row| row["saga_id"] == key.id);
                let line = |row: &Value| {
                    json!({ "message_id": id_of(row), "type": "t", "result": "handled", "effects": null,
                        "handled_at_us": 1, "handled_by": "p", "attempts": 1 })
                };
                of.map(|row| line(row).to_string()).collect()
            }
            other => panic!("{other:?} was not expected"),
        })
    }

    async fn order(&self, _: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        Err(StoreError::conflict())
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

    async fn outbox_order(&self, _: &OutboxOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        Err(StoreError::conflict())
    }
}

fn inbox(endpoint: &str, id: &str, cause: Option<&str>, effects: &[&str], more: Value) -> Value {
    let effects: Vec<Value> = effects.iter().map(|id| json!({ "id": id, "type": id, "to": "somewhere" })).collect();
    let mut row = json!({ "place": "inbox", "endpoint": endpoint, "message_id": id, "type": id, "receiver": endpoint,
        "what": "handled", "causation_id": cause, "conversation_id": "talk", "effects": effects, "at_us": 5 });
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

/// An order and its payment, in two databases: placed → pay → paid, and a timer that is not due.
fn shop() -> [Rows; 2] {
    let of_7 = || json!({ "saga_id": "7" });
    [
        Rows(Some(vec![
            inbox("order", "placed", None, &["pay", "timer"], of_7()),
            inbox("order", "paid", Some("pay"), &[], of_7()),
            json!({ "place": "outbox", "endpoint": "order", "message_id": "timer", "type": "Overdue", "what": "timer",
                "to": "order", "causation_id": "placed", "at_us": 900 }),
        ])),
        Rows(Some(vec![
            inbox("payment", "pay", Some("placed"), &["paid"], json!({ "what": "held" })),
            json!({ "place": "held", "endpoint": "payment", "message_id": "pay", "type": "pay", "receiver": "payment",
                "what": "failed", "at_us": 6, "note": "no table" }),
        ])),
    ]
}

async fn told(stores: &[Rows], id: &str, messages_max: usize) -> Explained {
    let stores: Vec<&dyn Inspect> = stores.iter().map(|store| store as &dyn Inspect).collect();
    explain(&stores, id, messages_max).await
}

fn story(explained: Explained) -> Story {
    match explained.answer {
        Explanation::Story(story) => story,
        other => panic!("a story was expected: {other:?}"),
    }
}

fn tree(story: &Story) -> Vec<(usize, &str)> {
    story.messages.iter().map(|message| (message.depth, message.message_id.as_str())).collect()
}

const WHOLE: [(usize, &str); 4] = [(0, "placed"), (1, "pay"), (2, "paid"), (1, "timer")];

#[tokio::test]
async fn a_story_is_told_from_its_beginning_across_databases_whatever_part_is_named() {
    for id in ["placed", "pay", "paid", "timer", "7", "talk", "pla"] {
        let explained = told(&shop(), id, 100).await;
        assert!(explained.unread.is_empty());
        let story = story(explained);
        assert_eq!(tree(&story), WHOLE, "{id}");
        let asked: Vec<&str> = story.messages.iter().filter(|it| it.asked).map(|it| it.message_id.as_str()).collect();
        let expected = match id {
            "7" => vec!["placed", "paid"],
            "talk" => vec!["placed", "pay", "paid"],
            "pla" => vec!["placed"],
            id => vec![id],
        };
        assert_eq!(asked, expected, "{id}");
        let [placed, pay, paid, timer] = &story.messages[..] else { panic!("four messages") };
        assert_eq!((placed.steps[0].database, pay.steps[0].database), (0, 1));
        assert_eq!(placed.steps[0].caused, ["pay", "timer"]);
        assert_eq!((pay.sender.as_deref(), pay.caused_by.as_deref()), (Some("order"), Some("placed")));
        let step = &pay.steps[..];
        assert_eq!((step.len(), step[0].result.as_str(), step[0].reason.as_deref()), (1, "held", Some("failed")));
        assert_eq!((step[0].note.as_deref(), paid.steps[0].saga_id.as_deref()), (Some("no table"), Some("7")));
        assert_eq!((timer.steps.len(), timer.waits[0].kind.as_str(), timer.waits[0].due_at_us), (0, "timer", 900));
    }
}

#[tokio::test]
async fn an_id_that_is_not_enough_names_the_ids_and_an_unknown_one_nothing() {
    let Explanation::Several(ids) = told(&shop(), "pa", 100).await.answer else { panic!("two begin with pa") };
    assert_eq!(ids, ["paid", "pay"]);
    for id in ["x", "", "old"] {
        let explained = told(&shop(), id, 100).await;
        assert!(matches!(explained.answer, Explanation::Nothing), "{id}");
        assert_eq!(explained.beyond, id == "old", "{id}: it may be older than what was looked at");
    }
}

#[tokio::test]
async fn a_database_that_is_away_leaves_the_part_of_the_others() {
    let [one, _] = shop();
    let explained = told(&[Rows(None), one], "paid", 100).await;
    assert_eq!(explained.unread.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0]);
    let story = story(explained);
    assert_eq!(tree(&story), [(0, "paid")], "its cause is in the database that is away");
    assert_eq!(story.messages[0].caused_by.as_deref(), Some("pay"), "and is named");
}

#[tokio::test]
async fn a_long_story_ends_where_it_is_told_to_and_a_circle_ends_too() {
    let long: Vec<Value> = (0..50)
        .map(|n| {
            let cause = (n > 0).then(|| format!("tick-{:02}", n - 1));
            inbox("clock", &format!("tick-{n:02}"), cause.as_deref(), &[&format!("tick-{:02}", n + 1)], json!({}))
        })
        .collect();
    let story_of_ten = story(told(&[Rows(Some(long))], "tick-49", 10).await);
    assert_eq!((story_of_ten.messages.len(), story_of_ten.left_out), (10, 1));
    let circle =
        vec![inbox("a", "one", Some("two"), &["two"], json!({})), inbox("a", "two", Some("one"), &["one"], json!({}))];
    assert_eq!(story(told(&[Rows(Some(circle))], "one", 10).await).messages.len(), 2);
}
