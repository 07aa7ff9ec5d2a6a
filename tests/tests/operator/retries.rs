//! What is put off for an instance, and for nobody else.

use super::of_message;
use saga_core::{OutboxAction, OutboxFilter};
use tests::tables::{Held, Tables};

suite! {
    what_other_receivers_put_off_is_not_of_the_instance,
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
