//! What is put off for an instance, and for nobody else.

use super::of_message;
use saga_core::{OutboxAction, OutboxFilter};
use tests::tables::{Held, Tables};

suite! {
    what_other_receivers_put_off_is_not_of_the_instance,
    a_persons_retry_begins_anew,
    a_retry_that_strayed_to_a_process_without_its_receiver_is_judged_anew_or_discarded,
}

async fn what_other_receivers_put_off_is_not_of_the_instance(tables: Tables) {
    tables.instance("7", "Waiting", Some("m")).await;
    tables.hold(&Held::default()).await;
    tables.hold(&Held { receiver: "charge", saga_id: None, ..Held::default() }).await;
    let done = tables.store.held_retry(&of_message(&tables, "m").await, "ann", "the table is back").await;
    assert_eq!(done.count("retried"), 2, "{done:?}");
    // another endpoint of the database has a handler with the name of the saga
    let other = "INSERT INTO {s}outbox (id, endpoint, message_id, kind, type, destination, envelope, body, created_at,
            due_at)
        SELECT '01997a10-0000-7000-8000-000000000001', 'shop', message_id, kind, type, 'shop', envelope, body,
            created_at, due_at
        FROM {s}outbox WHERE envelope ->> 'receiver' = 'order'";
    tables.sql(other).await;
    // and what has no receiver is no reason to leave a row of the instance out
    tables.send("event", "shop.Sold", 0, "", "").await;
    let filter = OutboxFilter { saga: Some("order".into()), saga_id: Some("7".into()), ..OutboxFilter::default() };
    let rows = tables.store.outbox(&filter, 10).await.unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.kind.as_str(), row.endpoint.as_str())).collect();
    assert_eq!(found, [("retry", "ordering"), ("event", "ordering")]);
    assert_eq!(rows[0].envelope["receiver"], "order");
    assert_eq!(tables.store.outbox_count(&filter).await.unwrap(), 2);
    let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
    let done = tables.store.outbox_act(OutboxAction::Discard, &ids, "ann", "no use").await;
    assert_eq!(done.count(OutboxAction::DONE), 2, "{done:?}");
    let left = "SELECT endpoint || ' ' || (envelope ->> 'receiver') FROM {s}outbox WHERE message_id = 'm' ORDER BY 1";
    let left: Vec<String> = tables.sql(left).await.into_iter().flatten().collect();
    assert_eq!(left, ["ordering charge", "shop order"]);
    let inbox = "SELECT result FROM {s}inbox WHERE receiver = 'charge'";
    assert_eq!(tables.one(inbox).await.as_deref(), Some("retrying"), "it is still to be handled again");
}

/// An older process held the retries of two instances without a receiver, and no newer one came for a day.
async fn a_retry_that_strayed_to_a_process_without_its_receiver_is_judged_anew_or_discarded(tables: Tables) {
    for (id, attempts) in [("a", 1), ("b", 1), ("c", 2)] {
        tables.instance(id, "Waiting", Some(id)).await;
        tables.hold(&Held { message_id: id, saga_id: Some(id), attempts, ..Held::default() }).await;
        tables.sql(&format!("UPDATE {{s}}inbox SET result = 'retrying' WHERE message_id = '{id}'")).await;
        tables.sql(&format!("DELETE FROM {{s}}held WHERE message_id = '{id}'")).await;
        tables.hold(&Held { message_id: id, receiver: "", saga_id: None, attempts: 0, ..Held::default() }).await;
        let envelope = format!(
            r#"{{"message_id":"{id}","type":"payment.Paid","conversation_id":"c","receiver":"order","attempt":1}}"#
        );
        tables.sql(&format!("UPDATE {{s}}held SET envelope = '{envelope}' WHERE message_id = '{id}'")).await;
    }
    let done = tables.store.held_retry(&of_message(&tables, "a").await, "ann", "deployed").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    assert!(tables.sql("SELECT result FROM {s}inbox WHERE message_id = 'a'").await.is_empty(), "it is new there");
    for id in ["b", "c"] {
        let done = tables.store.held_discard(&of_message(&tables, id).await, "ann", "no use").await;
        assert_eq!(done.count("discarded"), 1, "{done:?}");
    }
    let paused = tables.sql("SELECT paused_by FROM {s}saga ORDER BY id").await;
    let text = |id: &str| Some(id.to_owned());
    assert_eq!(paused, [text("a"), None, text("c")], "`b` is over; of `c` it is an earlier retry than the one awaited");
    let inbox = "SELECT message_id || ' ' || receiver || ' ' || result FROM {s}inbox ORDER BY 1";
    let inbox: Vec<String> = tables.sql(inbox).await.into_iter().flatten().collect();
    assert_eq!(inbox, ["b  discarded", "b order discarded", "c  discarded", "c order retrying"]);
    let sent = "SELECT message_id || ' ' || type FROM {s}outbox WHERE message_id = 'a'";
    assert_eq!(tables.one(sent).await.as_deref(), Some("a payment.Paid"));
}

/// What killed three processes is held; after a fix the next crash, of whatever, is its first again.
async fn a_persons_retry_begins_anew(tables: Tables) {
    tables.hold(&Held { reason: "crashes", ..Held::default() }).await;
    tables.sql("UPDATE {s}inbox SET crashes = 4").await;
    let done = tables.store.held_retry(&of_message(&tables, "m").await, "ann", "fixed").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    let inbox = "SELECT result || ' ' || crashes || ' ' || round FROM {s}inbox";
    assert_eq!(tables.one(inbox).await.as_deref(), Some("retrying 0 0"));
}
