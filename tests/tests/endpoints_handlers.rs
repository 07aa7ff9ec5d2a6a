//! Handlers in endpoints at work, on the in-process transport with SQLite and on RabbitMQ with PostgreSQL alike.

use async_trait::async_trait;
use saga_core::{Context, Endpoint, Handle, HandlerError, Inspect, Retries, StartError, Transport};
use std::{sync::atomic::Ordering, time::Duration};
use tests::{
    Database, File, Vhost, endpoint_suite, eventually,
    house::{House, held, one_held, retry},
    model::{Arrived, Began, Effects, Journey, Listener, Work, Worker},
};
use transports::InProcess;

/// O-014: a handler that fails leaves nothing; one that succeeds at last leaves one effect.
async fn o_014_r_001_r_004_failed_runs_leave_nothing<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, |builder| builder.retries(Retries::none().immediate(3))).await;
    house.ask(1, "fail twice").await;
    eventually("the effect", || async { (house.worker.store().effects().await == [1]).then_some(()) }).await;
    assert_eq!(house.work.runs.swap(0, Ordering::SeqCst), 3);
    house.ask(2, "fail").await;
    let failed = one_held(house.worker.store()).await;
    assert_eq!((failed.reason.as_str(), failed.attempts), ("failed", 4));
    assert!(failed.error.unwrap_or_default().contains("failed by order"));
    assert_eq!(house.work.runs.swap(0, Ordering::SeqCst), 4);
    house.ask(3, "permanent").await;
    eventually("the permanent failure to be held", || async {
        (held(house.worker.store()).await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(house.work.runs.swap(0, Ordering::SeqCst), 1);
    house.ask(4, "panic").await;
    eventually("the panic to be held", || async { (held(house.worker.store()).await.len() == 3).then_some(()) }).await;
    assert_eq!(house.work.runs(), 4, "a panic is a transient failure of its message");
    house.quiet().await;
    assert_eq!(house.worker.store().effects().await, [1]);
    eventually("the one event", || async { (house.heard.heard() == [1]).then_some(()) }).await;
    house.stop().await;
}

/// a delayed retry waits in the outbox, and other messages pass it.
async fn r_003_r_010_a_delayed_retry_waits_in_the_outbox<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let delays = [Duration::from_millis(300), Duration::from_millis(300)];
    let house = House::start(transport, stores, |builder| builder.retries(Retries::none().delayed(delays))).await;
    house.ask(1, "fail twice").await;
    house.ask(2, "good").await;
    eventually("the good one to pass the failed one", || async { house.work.handled().contains(&2).then_some(()) })
        .await;
    eventually("the effect after two rounds", || async {
        (house.worker.store().effects().await == [1, 2]).then_some(())
    })
    .await;
    house.quiet().await;
    assert!(held(house.worker.store()).await.is_empty());
    house.stop().await;
}

/// one poison message among good ones costs only itself.
async fn r_020_one_poison_message_costs_only_itself<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, |builder| builder.retries(Retries::none())).await;
    let mut session = house.journeys.session().await.unwrap();
    for id in 1..=60 {
        // the database itself refuses 666
        session.send(Work {
            id: if id == 30 { 666 } else { id },
            note: if id == 40 { "fail".into() } else { String::new() },
        });
    }
    session.commit().await.unwrap();
    let expected: Vec<i64> = (1..=60).filter(|id| ![30, 40].contains(id)).collect();
    eventually("58 effects", || async { (house.worker.store().effects().await == expected).then_some(()) }).await;
    eventually("2 held messages", || async { (held(house.worker.store()).await.len() == 2).then_some(()) }).await;
    house.stop().await;
}

/// O-015, R-020 for a `HandleBatch` handler: a batch that fails runs one by one, and what each message causes names
/// that message.
async fn o_015_r_020_a_batch_that_fails_is_run_one_by_one<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [journeys, worker, listener]: [Db; 3],
) {
    worker.create_effects().await;
    let (work, heard) = (Worker::default(), Listener::default());
    let named = |name: &str, store: Db| Endpoint::builder(name, transport.clone(), store);
    let journeys = named("journeys", journeys).saga::<Journey>().start().await.unwrap();
    let listener = named("listener", listener).subscribe::<Arrived>(heard.clone()).start().await.unwrap();
    let worker = named("worker", worker)
        .handle_batch::<Work>(work.clone())
        .retries(Retries::none())
        .settings(|settings| settings.handler_lanes = 1)
        .start()
        .await
        .unwrap();
    let send = async |ids: std::ops::RangeInclusive<u64>, faults: &[(u64, &str)]| {
        let mut session = journeys.session().await.unwrap();
        for id in ids {
            let note = faults.iter().find(|(faulty, _)| *faulty == id).map_or("", |(_, note)| note);
            session.send(Work { id: if note == "refused" { 666 } else { id }, note: note.into() });
        }
        session.commit().await.unwrap();
    };
    send(1..=60, &[]).await;
    eventually("60 effects", || async { (worker.store().effects().await.len() == 60).then_some(()) }).await;
    assert!(work.runs() < 60, "all 60 came one by one: {} runs", work.runs());

    send(61..=120, &[(70, "fail"), (80, "refused"), (90, "forget the outcome")]).await;
    let expected: Vec<i64> = (1..=120).filter(|id| ![70, 80, 90].contains(id)).collect();
    eventually("117 effects", || async { (worker.store().effects().await == expected).then_some(()) }).await;
    let held_now =
        eventually("3 held messages", || async { Some(held(worker.store()).await).filter(|held| held.len() == 3) })
            .await;
    assert!(held_now.iter().all(|held| held.attempts == 1), "one run each was expected to count: {held_now:?}");
    eventually("117 events", || async { (heard.heard().len() == 117).then_some(()) }).await;
    for endpoint in [journeys, worker, listener] {
        endpoint.stop().await.unwrap();
    }
}

/// a held message is retried, and handled once.
async fn r_022_a_held_message_is_retried<Db: Effects + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let house = House::start(transport, stores, |builder| builder.retries(Retries::none())).await;
    house.work.runs.store(0, Ordering::SeqCst);
    house.ask(1, "fail twice").await;
    for runs in [1, 2] {
        let found = eventually("the message to be held", || async {
            held(house.worker.store()).await.pop().filter(|held| held.attempts == runs)
        })
        .await;
        assert_eq!(retry(house.worker.store(), &found).await, 1);
        assert_eq!(retry(house.worker.store(), &found).await, 0, "only once");
    }
    eventually("the effect", || async { (house.worker.store().effects().await == [1]).then_some(()) }).await;
    assert!(held(house.worker.store()).await.is_empty());
    house.stop().await;
}

endpoint_suite! {
    o_014_r_001_r_004_failed_runs_leave_nothing
    r_003_r_010_a_delayed_retry_waits_in_the_outbox
    r_020_one_poison_message_costs_only_itself
    o_015_r_020_a_batch_that_fails_is_run_one_by_one
    r_022_a_held_message_is_retried
}

/// Everything that is wrong is reported in one list.
#[tokio::test]
async fn t_040_start_says_everything_that_is_wrong() {
    struct Wrong;
    #[async_trait]
    impl Handle<Work, outbox::Sqlite> for Wrong {
        async fn handle(
            &self,
            _: Work,
            _: &mut Context<'_, outbox::Sqlite>,
        ) -> Result<tests::model::WorkOutcome, HandlerError> {
            Err(HandlerError::transient("never runs"))
        }
    }
    let file = File::create();
    let started = Endpoint::builder("not worker", InProcess::new(), file.store("x.db").await)
        .handle::<Work>(Wrong)
        .handle::<Work>(Wrong)
        .settings(|settings| settings.prefetch = 0)
        .start()
        .await;
    let Err(StartError::Definition(wrong)) = started else { panic!("a list of what is wrong was expected") };
    for expected in ["sent to `worker`", "two handlers", "without whitespace", "`prefetch` is 0"] {
        assert!(wrong.iter().any(|mistake| mistake.text.contains(expected)), "`{expected}` is missing in {wrong:#?}");
    }
    // a command has one handler whatever their names, so another name is no advice
    assert!(!wrong.iter().any(|mistake| mistake.text.contains("two receivers")), "{wrong:#?}");
}

/// the database goes away while messages come: no attempt is counted, and work goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn r_036_killed_database_sessions_cost_no_attempts() {
    let (vhost, databases) =
        (Vhost::create().await, [Database::create().await, Database::create().await, Database::create().await]);
    let house = House::start(vhost.transport(), databases.each_ref().map(Database::store), |builder| {
        builder.retries(Retries::none())
    })
    .await;
    for id in 1..=200 {
        if id % 20 == 0 {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = ANY($1) AND pid <> pg_backend_pid()",
            )
            .bind(databases.iter().map(|database| database.name.clone()).collect::<Vec<_>>())
            .execute(Database::create().await.store().pool())
            .await
            .unwrap();
        }
        // the session's own commit may be hit: a repeated event belongs to the same journey
        eventually("the event to be committed", || async {
            let mut session = house.journeys.session().await.ok()?;
            session.publish(Began { id });
            session.commit().await.ok()
        })
        .await;
    }
    for id in 1..=200 {
        house.reaches(id, "Waiting").await;
    }
    assert_eq!(house.worker.store().effects().await, (1..=200).collect::<Vec<i64>>());
    assert!(held(house.worker.store()).await.is_empty());
    house.stop().await;
}
