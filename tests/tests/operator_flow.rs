//! What an operator does while endpoints run: on SQLite in one process, and on PostgreSQL with RabbitMQ.

use saga_core::{EndpointBuilder, HeldFilter, Inspect, OperationFilter, Retries, Transport};
use tests::{
    endpoint_suite, eventually,
    house::{House, held, journal, journey, one_held, unchanged},
    model::{Began, Closed, Effects},
};

endpoint_suite! {
    a_discarded_message_lets_what_waits_behind_it_go_on_in_order
    a_message_that_fails_again_and_again_can_be_given_up
    many_failed_messages_are_retried_by_one_filter
    a_running_endpoint_says_that_it_lives
}

async fn a_discarded_message_lets_what_waits_behind_it_go_on_in_order<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    house.publish(Began { id: 1 }).await;
    house.reaches(1, "Waiting").await;
    house.publish(Closed { id: 1, poison: true }).await;
    let poison = one_held(store).await;
    house.publish(Closed { id: 1, poison: false }).await;
    eventually("the right message to wait behind it", || async {
        held(store).await.iter().any(|held| held.reason == "paused").then_some(())
    })
    .await;
    let done = store.held_discard(&[poison.row()], "ann", "it cannot be handled").await;
    assert_eq!(done.count("discarded"), 1, "{done:?}");
    house.reaches(1, "Over").await;
    assert!(held(store).await.is_empty(), "nothing is held for it any more");
    assert_eq!(journey(store, 1).await.and_then(|journey| journey.paused_by), None);
    let lines = journal(store, 1).await;
    let discarded = lines.iter().find(|line| line.message_id == poison.message_id).expect("it is in the journal");
    assert_eq!(discarded.result, "discarded");
    assert_eq!(discarded.note.as_deref(), Some("discarded by ann: it cannot be handled"));
    house.quiet().await;
    house.stop().await;
}

/// A retry does not help a message that cannot be handled, and later messages wait behind it: a discard frees the
/// instance.
async fn a_message_that_fails_again_and_again_can_be_given_up<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    house.publish(Began { id: 1 }).await;
    house.reaches(1, "Waiting").await;
    house.publish(Closed { id: 1, poison: true }).await;
    let poison = one_held(store).await;
    for n in 1..=2 {
        let row = one_held(store).await.row();
        let done = store.held_retry(&[row], "ann", &format!("try {n}")).await;
        assert_eq!(done.count("retried"), 1, "{done:?}");
        eventually("it to fail again", || async {
            held(store).await.iter().any(|held| held.attempts > n).then_some(())
        })
        .await;
    }
    let again = one_held(store).await;
    assert_eq!(again.message_id, poison.message_id, "a retry keeps the message's id");
    let stale = store.held_discard(&[poison.row()], "ann", "as listed before the retries").await;
    assert_eq!(stale.count("gone"), 1, "it was held anew since: {stale:?}");
    let done = store.held_discard(&[again.row()], "ann", "it will never work").await;
    assert_eq!(done.count("discarded"), 1, "{done:?}");
    house.publish(Closed { id: 1, poison: false }).await;
    house.reaches(1, "Over").await;
    let filter = OperationFilter { message_id: Some(poison.message_id), ..OperationFilter::default() };
    let operations = store.operations(&filter, 10).await.unwrap();
    let why: Vec<&str> = operations.iter().rev().map(|operation| operation.reason.as_str()).collect();
    assert_eq!(why, ["try 1", "try 2", "as listed before the retries", "it will never work"]);
    house.stop().await;
}

async fn many_failed_messages_are_retried_by_one_filter<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let never = |builder: EndpointBuilder<Db>| builder.retries(Retries::none());
    let house = House::start(transport, stores, never).await;
    let store = house.worker.store();
    for id in 1..=20 {
        house.ask(id, if id % 2 == 0 { "permanent" } else { "please" }).await;
    }
    eventually("all to be settled", || async {
        (house.work.handled().len() == 10 && held(store).await.len() == 10).then_some(())
    })
    .await;
    let filter = HeldFilter { error: Some("NO USE".into()), needs_person: true, ..HeldFilter::default() };
    let listed = store.held(&filter, 100).await.unwrap();
    assert_eq!(listed.len() as u64, store.held_count(&filter).await.unwrap());
    let rows: Vec<_> = listed.iter().map(|held| held.row()).collect();
    let done = store.held_retry(&rows, "ann", "the cause is gone").await;
    assert_eq!(done.count("retried"), 10, "{done:?}");
    eventually("each to have run once more", || async {
        let held = held(store).await;
        (held.len() == 10 && held.iter().all(|held| held.attempts == 2)).then_some(())
    })
    .await;
    assert_eq!(house.work.runs(), 30);
    house.stop().await;
}

async fn a_running_endpoint_says_that_it_lives<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let status = house.worker.store().status().await.unwrap();
    let worker = status.endpoints.iter().find(|endpoint| endpoint.endpoint == "worker").expect("it has started");
    assert_eq!(worker.processes.len(), 1, "{worker:?}");
    assert_eq!(worker.processes[0].owner, house.worker.owner());
    assert!(status.now_us - worker.processes[0].seen_at_us < 60_000_000, "{status:?}");
    let store = house.worker.store().clone();
    house.stop().await;
    let status = store.status().await.unwrap();
    let left: Vec<_> = status.endpoints.iter().flat_map(|endpoint| &endpoint.processes).collect();
    assert!(left.is_empty(), "who stopped in order is gone: {left:?}");
}
