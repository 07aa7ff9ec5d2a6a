//! What an operator does while endpoints run: on SQLite in one process, and on PostgreSQL with RabbitMQ.

use saga_core::{
    EndpointBuilder, HeldFilter, HeldView, Inspect, InstanceKey, InstanceRow, OperationFilter, OutboxFilter, Retries,
    Transport,
};
use tests::{
    endpoint_suite, eventually,
    house::{House, held, journal, journey, one_held, unchanged},
    model::{Began, Closed, Effects},
};

endpoint_suite! {
    a_discarded_message_lets_what_waits_behind_it_go_on_in_order
    a_message_that_fails_again_and_again_can_be_given_up
    many_failed_messages_are_retried_by_one_filter
    r_023_a_retry_that_fails_again_has_the_whole_policy_and_adds_its_runs
    a_running_endpoint_says_that_it_lives
    r_023_a_retry_in_vain_is_the_full_policy_once_more_and_the_first_failure_stays_visible
    r_025_an_edited_message_is_handled_and_its_instance_goes_on
    r_031_a_resumed_instance_goes_on_without_its_message
    r_031_a_cancelled_instance_is_over_and_what_comes_for_it_is_journaled
    a_process_that_is_asked_to_drain_stops_and_signs_off
    a_message_that_an_operator_gives_an_instance_is_handled_like_any_other
}

/// A journey that one of its messages has paused: that message.
async fn poisoned<Db: Effects + Inspect>(house: &House<Db>) -> HeldView {
    house.publish(Began { id: 1 }).await;
    house.reaches(1, "Waiting").await;
    house.publish(Closed { id: 1, poison: true }).await;
    one_held(house.journeys.store()).await
}

async fn a_discarded_message_lets_what_waits_behind_it_go_on_in_order<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    let poison = poisoned(&house).await;
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
    let poison = poisoned(&house).await;
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

/// R-023: as often as the policy says, under the same id.
async fn r_023_a_retry_that_fails_again_has_the_whole_policy_and_adds_its_runs<
    Db: Effects + Inspect,
    T: Transport + Clone,
>(
    transport: T,
    stores: [Db; 3],
) {
    let twice = |builder: EndpointBuilder<Db>| builder.retries(Retries::none().immediate(1));
    let house = House::start(transport, stores, twice).await;
    let store = house.worker.store();
    house.ask(1, "fail").await;
    let first = one_held(store).await;
    assert_eq!((first.attempts, house.work.runs()), (2, 2));
    assert_eq!(store.held_retry(&[first.row()], "ann", "repaired, or so we think").await.count("retried"), 1);
    let again =
        eventually("it to be held again", || async { held(store).await.pop().filter(|held| held.attempts == 4) }).await;
    assert_eq!((&again.message_id, &again.reason, house.work.runs()), (&first.message_id, &first.reason, 4));
    assert!(again.error.unwrap_or_default().contains("failed by order"));
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

async fn r_023_a_retry_in_vain_is_the_full_policy_once_more_and_the_first_failure_stays_visible<
    Db: Effects + Inspect,
    T: Transport + Clone,
>(
    transport: T,
    stores: [Db; 3],
) {
    let twice = |builder: EndpointBuilder<Db>| builder.retries(Retries::none().immediate(1));
    let house = House::start(transport, stores, twice).await;
    let store = house.worker.store();
    house.ask(1, "fail").await;
    let first = one_held(store).await;
    assert_eq!((first.attempts, house.work.runs()), (2, 2));
    for n in 1..=2 {
        let row = one_held(store).await.row();
        let done = store.held_retry(&[row], "ann", &format!("try {n}")).await;
        assert_eq!(done.count("retried"), 1, "{done:?}");
        eventually("it to fail again", || async {
            held(store).await.iter().any(|held| held.attempts == 2 + 2 * n).then_some(())
        })
        .await;
    }
    let last = one_held(store).await;
    assert_eq!((&last.message_id, last.attempts, house.work.runs()), (&first.message_id, 6, 6));
    let filter = OperationFilter { message_id: Some(first.message_id), ..OperationFilter::default() };
    let operations = store.operations(&filter, 10).await.unwrap();
    let failures: Vec<_> = operations.iter().rev().map(|operation| operation.items[0].error.clone()).collect();
    assert_eq!(failures, [first.error, last.error.clone()], "each failure but the last is in the audit");
    assert!(last.error.is_some_and(|error| error.contains("failed by order")));
    house.stop().await;
}

async fn r_025_an_edited_message_is_handled_and_its_instance_goes_on<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    let poison = poisoned(&house).await;
    let done = store.held_edit(&poison.row(), r#"{"id":1}"#, "ann", "no poison").await.expect("it is edited");
    assert_eq!(done.result, "edited");
    house.reaches(1, "Over").await;
    let lines = journal(store, 1).await;
    let handled = lines.iter().find(|line| line.message_id == poison.message_id).expect("it is in the journal");
    assert_eq!((handled.result.as_str(), handled.attempts), ("handled", 2), "under its own id");
    assert_eq!(held(store).await.len(), 0);
    house.quiet().await;
    house.stop().await;
}

async fn r_031_a_resumed_instance_goes_on_without_its_message<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    let poison = poisoned(&house).await;
    house.publish(Closed { id: 1, poison: false }).await;
    eventually("the right message to wait behind it", || async { (held(store).await.len() == 2).then_some(()) }).await;
    let seen = journey(store, 1).await.expect("it is there");
    let (key, seen) = (seen.key(), seen.seen());
    let done = store.saga_resume(&key, &seen, "ann", "the client closed it again").await.expect("it resumes");
    assert_eq!((done.result.as_str(), done.paused_by), ("resumed", Some(poison.message_id.clone())));
    house.reaches(1, "Over").await;
    let left = held(store).await;
    assert_eq!((left.len(), &left[0].message_id), (1, &poison.message_id), "the message is left held");
    assert_eq!(store.saga_resume(&key, &seen, "ann", "once more").await.unwrap().result, "not paused");
    // and can be dealt with later
    assert_eq!(store.held_retry(&[left[0].row()], "ann", "to be rid of it").await.count("retried"), 1);
    eventually("it to be late", || async {
        let lines = journal(store, 1).await;
        lines.iter().any(|line| line.message_id == poison.message_id && line.result == "ignored").then_some(())
    })
    .await;
    house.stop().await;
}

async fn r_031_a_cancelled_instance_is_over_and_what_comes_for_it_is_journaled<
    Db: Effects + Inspect,
    T: Transport + Clone,
>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    for id in 1..=2 {
        house.publish(Began { id }).await;
        house.reaches(id, "Waiting").await;
    }
    house.publish(Closed { id: 1, poison: true }).await;
    let poison = one_held(store).await;
    house.publish(Closed { id: 1, poison: false }).await;
    eventually("the right message to wait behind it", || async { (held(store).await.len() == 2).then_some(()) }).await;
    for (id, discarded) in [(1, 2), (2, 0)] {
        let seen = journey(store, id).await.expect("it is there");
        let done = store.saga_cancel(&seen.key(), &seen.seen(), "ann", "by phone").await.expect("it is cancelled");
        assert_eq!((done.result.as_str(), done.discarded), ("cancelled", discarded));
    }
    assert_eq!(held(store).await.len(), 0);
    house.publish(Closed { id: 1, poison: true }).await;
    house.publish(Began { id: 1 }).await;
    house.publish(Closed { id: 2, poison: false }).await;
    eventually("what comes later to be journaled", || async {
        let (one, two) = (journal(store, 1).await, journal(store, 2).await);
        let ignored = one.iter().chain(&two).filter(|line| line.result == "ignored").count();
        (ignored == 3).then_some((one, two))
    })
    .await;
    for id in 1..=2 {
        let over = journey(store, id).await.expect("retention has not removed it");
        assert_eq!((over.state.as_str(), over.paused_by.as_deref()), (InstanceRow::CANCELLED, None));
        assert!(over.completed_at_us.is_some() && over.data["id"] == id, "its data stays: {over:?}");
    }
    let discarded: Vec<_> = journal(store, 1).await.into_iter().filter(|line| line.result == "discarded").collect();
    assert_eq!(discarded.len(), 2);
    assert!(discarded.iter().any(|line| line.message_id == poison.message_id));
    let note = discarded[0].note.as_deref();
    assert_eq!(note, Some("discarded by ann, with the instance: by phone"));
    let timers = store.outbox(&OutboxFilter::default(), 100).await.unwrap();
    assert!(timers.iter().all(|row| row.kind != "timer"), "{timers:?}");
    assert_eq!(held(store).await.len(), 0, "nothing more is held for it");
    assert_eq!(house.heard.heard().len(), 2, "the worker's events, and none of the journeys'");
    house.stop().await;
}

async fn a_process_that_is_asked_to_drain_stops_and_signs_off<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    let processes = store.processes().await.unwrap();
    let process = processes.iter().find(|it| it.endpoint == "journeys").expect("it runs").process.owner.clone();
    assert_eq!(store.process_drain("nobody", "ann", "why").await.unwrap().result, "gone");
    assert_eq!(store.process_drain(&process, "ann", "the machine goes away").await.unwrap().result, "asked");
    eventually("it to sign off", || async {
        let left = store.processes().await.unwrap();
        left.iter().all(|it| it.process.owner != process).then_some(())
    })
    .await;
    let filter = OperationFilter { message_id: Some(process), ..OperationFilter::default() };
    let done = store.operations(&filter, 5).await.unwrap();
    assert_eq!((done[0].action.as_str(), done[0].reason.as_str()), ("process drain", "the machine goes away"));
    house.stop().await;
}

async fn a_message_that_an_operator_gives_an_instance_is_handled_like_any_other<
    Db: Effects + Inspect,
    T: Transport + Clone,
>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    let store = house.journeys.store();
    house.publish(Began { id: 1 }).await;
    house.reaches(1, "Waiting").await;
    let definitions = store.definitions().await.unwrap();
    let taken = definitions.iter().flat_map(|definition| &definition.chart.messages);
    let closed =
        taken.map(|it| it.type_name.as_str()).find(|name| name.ends_with("Closed")).expect("the saga takes it");
    let key = InstanceKey { saga: "journey".into(), id: "1".into() };
    let refused = store.saga_send(&key, (closed, "{\"id\":"), "ann", "a slip").await.unwrap_err();
    assert!(refused.to_string().contains("not JSON"), "{refused}");
    let body = r#"{"id":1,"poison":false}"#;
    let done = store.saga_send(&key, (closed, body), "ann", "they called").await.unwrap();
    let message = done.message_id.clone().expect("it has an id");
    assert_eq!(done.result, "sent");
    house.reaches(1, "Over").await;
    let line = journal(store, 1).await.into_iter().find(|line| line.message_id == message).expect("it is journaled");
    assert_eq!((line.result.as_str(), line.type_name.as_str()), ("handled", closed));
    let filter = OperationFilter { message_id: Some(message), ..OperationFilter::default() };
    let done = store.operations(&filter, 5).await.unwrap();
    assert_eq!((done[0].action.as_str(), done[0].reason.as_str()), ("saga send", "they called"));
    let done = store.saga_send(&key, (closed, body), "ann", "again").await.unwrap();
    assert_eq!((done.result.as_str(), done.message_id), ("done", None), "it is over");
    house.quiet().await;
    house.stop().await;
}
