//! What endpoints send, on the in-process transport with SQLite and on RabbitMQ with PostgreSQL alike.

use saga_core::{Endpoint, Inspect, OutboxFilter, Transport};
use tests::{
    endpoint_suite, eventually,
    house::{House, held, unchanged},
    model::{Arrived, Effects, Work, Worker},
};

/// O-041, O-042: a session's messages leave with its commit, or not at all.
async fn o_042_a_session_sends_with_its_commit_or_not_at_all<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    for end in ["drop", "rollback", "reserved header"] {
        let mut session = house.journeys.session().await.unwrap();
        session.publish(Arrived { id: 1 });
        match end {
            "drop" => drop(session),
            "rollback" => session.rollback().await.unwrap(),
            _ => {
                session.publish(Arrived { id: 2 }).header("saga-id", "mine");
                let refused = session.commit().await.unwrap_err().to_string();
                assert!(refused.contains("saga-id"), "{refused}");
            }
        }
    }
    house.publish(Arrived { id: 3 }).await;
    eventually("the committed event", || async { (!house.heard.heard().is_empty()).then_some(()) }).await;
    house.quiet().await;
    assert_eq!(house.heard.heard(), [3]);
    house.stop().await;
}

/// O-036: a command to an endpoint that has never been started waits, visibly, and leaves by itself.
async fn o_036_a_command_waits_for_its_endpoint<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let [journeys, worker, _] = stores;
    let sender = Endpoint::builder("journeys", transport.clone(), journeys).start().await.unwrap();
    let mut session = sender.session().await.unwrap();
    session.send(Work { id: 1, note: String::new() });
    session.commit().await.unwrap();
    let row = eventually("the reason in the outbox", || async {
        sender.store().outbox(&OutboxFilter::default(), 10).await.unwrap().pop().filter(|row| row.last_error.is_some())
    })
    .await;
    assert_eq!(row.destination, "worker");
    worker.create_effects().await;
    let work = Worker::default();
    let late = Endpoint::builder("worker", transport, worker).handle::<Work>(work.clone()).start().await.unwrap();
    eventually("the command to arrive", || async { (work.handled() == [1]).then_some(()) }).await;
    sender.stop().await.unwrap();
    late.stop().await.unwrap();
}

/// O-022, rule 6: what does not fit the window goes through the outbox, without loss, and nothing overtakes.
async fn o_022_more_than_the_window_holds_arrives_in_order<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let [journeys, worker, _] = stores;
    worker.create_effects().await;
    let work = Worker::default();
    let named = |name: &str, store: Db| Endpoint::builder(name, transport.clone(), store);
    let sender = named("journeys", journeys).settings(|settings| settings.window = 50).start().await.unwrap();
    let receiver = named("worker", worker)
        .handle::<Work>(work.clone())
        .settings(|settings| settings.handler_lanes = 1)
        .start()
        .await
        .unwrap();
    for batch in 0..4 {
        let mut session = sender.session().await.unwrap();
        for n in 1..=100 {
            session.send(Work { id: batch * 100 + n, note: "pure".into() });
        }
        session.commit().await.unwrap();
    }
    eventually("400 messages", || async { (work.handled().len() >= 400).then_some(()) }).await;
    assert!(work.handled().iter().copied().eq(1..=400), "the order of sending was expected: {:?}", work.handled());
    sender.stop().await.unwrap();
    receiver.stop().await.unwrap();
}

/// an endpoint that stops loses nothing, and works again after a restart.
async fn r_041_a_stopped_endpoint_goes_on_where_it_was<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let [journeys, worker, _] = stores;
    worker.create_effects().await;
    let work = Worker::default();
    let named = |name: &str, store: &Db| Endpoint::builder(name, transport.clone(), store.clone());
    let sender = named("journeys", &journeys).start().await.unwrap();
    let start =
        || named("worker", &worker).handle::<Work>(work.clone()).settings(|settings| settings.prefetch = 50).start();
    let mut receiver = start().await.unwrap();
    let mut session = sender.session().await.unwrap();
    for id in 1..=500 {
        session.send(Work { id, note: String::new() });
    }
    session.commit().await.unwrap();
    for part in 1..=4 {
        eventually("some to be handled", || async { (work.runs() >= part * 100).then_some(()) }).await;
        receiver.stop().await.unwrap();
        receiver = start().await.unwrap();
    }
    eventually("500 effects", || async { (worker.effects().await.len() >= 500).then_some(()) }).await;
    assert_eq!(
        worker.effects().await,
        (1..=500).collect::<Vec<i64>>(),
        "each message was expected to have its effect once"
    );
    assert!(held(&worker).await.is_empty());
    sender.stop().await.unwrap();
    receiver.stop().await.unwrap();
}

endpoint_suite! {
    o_042_a_session_sends_with_its_commit_or_not_at_all
    o_036_a_command_waits_for_its_endpoint
    o_022_more_than_the_window_holds_arrives_in_order
    r_041_a_stopped_endpoint_goes_on_where_it_was
}
