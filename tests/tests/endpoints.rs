//! Endpoints at work, on the in-process transport with SQLite and on RabbitMQ with PostgreSQL alike.

use async_trait::async_trait;
use saga_core::{
    Context, Endpoint, EndpointBuilder, Faults, Handle, HandlerError, Inspect, InstanceFilter, Retries, StartError,
    Step, Transport,
};
use std::{future::Future, sync::atomic::Ordering, time::Duration};
use tests::{
    Database, File, Vhost, eventually,
    model::{Arrived, Began, Closed, Effects, Journey, Listener, Work, Worked, Worker},
};
use transports::InProcess;

/// One endpoint of each kind.
struct House<Db: Effects + Inspect> {
    journeys: Endpoint<Db>,
    worker: Endpoint<Db>,
    listener: Endpoint<Db>,
    work: Worker,
    heard: Listener,
}

impl<Db: Effects + Inspect> House<Db> {
    async fn start<T: Transport + Clone>(
        transport: T,
        stores: [Db; 3],
        change: impl Fn(EndpointBuilder<Db>) -> EndpointBuilder<Db>,
    ) -> Self {
        let [journeys, worker, listener] = stores;
        worker.create_effects().await;
        let (work, heard) = (Worker::default(), Listener::default());
        let named = |name: &str, store: Db| Endpoint::named(name).transport(transport.clone()).store(store);
        Self {
            journeys: named("journeys", journeys).saga::<Journey>().start().await.expect("journeys starts"),
            worker: change(named("worker", worker).handle::<Work>(work.clone())).start().await.expect("worker starts"),
            listener: named("listener", listener)
                .subscribe::<Arrived>(heard.clone())
                .start()
                .await
                .expect("listener starts"),
            work,
            heard,
        }
    }

    /// Publishes from outside any handler.
    async fn publish<E: saga_core::Event>(&self, event: E) {
        let mut session = self.journeys.session().await.expect("a session opens");
        session.publish(event);
        session.commit().await.expect("the session commits");
    }

    async fn ask(&self, id: u64, note: &str) {
        let mut session = self.journeys.session().await.expect("a session opens");
        session.send(Work { id, note: note.into() });
        session.commit().await.expect("the session commits");
    }

    async fn state(&self, id: u64) -> Option<String> {
        // a test may have cut the connection: asked again by whoever waits
        let instance = self.journeys.store().instance("journey", &id.to_string()).await.ok()?;
        instance.map(|instance| instance.state)
    }

    async fn reaches(&self, id: u64, state: &str) {
        eventually(&format!("journey {id} to be {state}"), || async {
            (self.state(id).await.as_deref() == Some(state)).then_some(())
        })
        .await;
    }

    /// The one held message of the worker or of the journeys.
    async fn held(&self, store: &Db) -> saga_core::HeldView {
        eventually("a held message", || async { store.held(10).await.expect("the store is read").pop() }).await
    }

    async fn quiet(&self) {
        for endpoint in [&self.journeys, &self.worker, &self.listener] {
            eventually(&format!("the outbox of {} to be empty of what is due", endpoint.name()), || async {
                let rows = endpoint.store().outbox(100).await.expect("the store is read");
                rows.iter().all(|row| row.kind == "timer").then_some(())
            })
            .await;
        }
    }

    async fn stop(self) {
        for endpoint in [self.journeys, self.worker, self.listener] {
            endpoint.stop().await.expect("an orderly end");
        }
    }
}

fn unchanged<Db: Effects + Inspect>(builder: EndpointBuilder<Db>) -> EndpointBuilder<Db> {
    builder
}

/// A process goes from its start to its end, and every outbox is empty after it.
async fn a_journey_goes_through<Db: Effects + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let house = House::start(transport, stores, unchanged).await;
    for id in 1..=50 {
        house.publish(Began { id }).await;
    }
    for id in 1..=50 {
        house.reaches(id, "Waiting").await;
        house.publish(Closed { id, poison: false }).await;
    }
    for id in 1..=50 {
        house.reaches(id, "Over").await;
    }
    assert_eq!(house.worker.store().effects().await, (1..=50).collect::<Vec<i64>>());
    house.quiet().await;
    assert!(
        house.journeys.store().timers("journey", "7").await.unwrap().is_empty(),
        "the timer of a state that was left is gone"
    );
    // each id is heard twice: the worker publishes it, and the saga at its end
    eventually("all events to be heard", || async { (house.heard.heard().len() == 100).then_some(()) }).await;
    let journal = house.journeys.store().journal("journey", "7").await.unwrap();
    let steps: Vec<_> =
        journal.iter().map(|line| (line.from_state.as_deref(), line.to_state.as_deref(), line.seq)).collect();
    assert_eq!(
        steps,
        [
            (None, Some("Working"), Some(1)),
            (Some("Working"), Some("Waiting"), Some(2)),
            (Some("Waiting"), Some("Over"), Some(3))
        ]
    );
    house.stop().await;
}

/// S-036, S-040: what comes too early waits, and is handled in order when its time has come.
async fn s_036_what_comes_too_early_waits<Db: Effects + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let house = House::start(transport, stores, unchanged).await;
    house.publish(Closed { id: 1, poison: false }).await; // before there is an instance
    let held = house.held(house.journeys.store()).await;
    assert_eq!((held.reason.as_str(), held.saga_id.as_deref(), held.attempts), ("early", Some("1"), 0));
    assert!(held.expires_at_us.is_some(), "an early message without an instance waits for a limited time");
    house.publish(Began { id: 1 }).await;
    house.reaches(1, "Over").await;
    assert!(house.journeys.store().held(10).await.unwrap().is_empty());
    house.publish(Worked { id: 1 }).await; // too late
    eventually("the late message to be journaled", || async {
        let journal = house.journeys.store().journal("journey", "1").await.unwrap();
        journal.iter().any(|line| line.result == "ignored" && line.from_state.as_deref() == Some("Over")).then_some(())
    })
    .await;
    house.stop().await;
}

/// S-002: a repeated start never makes a second instance.
async fn s_002_a_repeated_start_is_ignored<Db: Effects + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let house = House::start(transport, stores, unchanged).await;
    house.publish(Began { id: 1 }).await;
    house.reaches(1, "Waiting").await;
    house.publish(Began { id: 1 }).await;
    eventually("the second start to be journaled", || async {
        let journal = house.journeys.store().journal("journey", "1").await.unwrap();
        journal.iter().any(|line| line.result == "ignored").then_some(())
    })
    .await;
    assert_eq!(house.journeys.store().instances(&InstanceFilter::default(), 10).await.unwrap().len(), 1);
    assert_eq!(house.work.runs(), 1);
    house.stop().await;
}

/// S-069, S-070, S-071: a panic holds its message and pauses its instance; others go on; a retry releases what waited.
async fn s_069_a_panic_pauses_its_instance_alone<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let house = House::start(transport, stores, unchanged).await;
    for id in [1, 2] {
        house.publish(Began { id }).await;
        house.reaches(id, "Waiting").await;
    }
    house.publish(Closed { id: 1, poison: true }).await;
    let failed = house.held(house.journeys.store()).await;
    assert_eq!((failed.reason.as_str(), failed.attempts), ("failed", 1));
    let error = failed.error.unwrap_or_default();
    assert!(
        error.contains("poisoned by order") && error.contains("model.rs"),
        "text and place of the panic were expected: {error}"
    );
    let instance = house.journeys.store().instance("journey", "1").await.unwrap().unwrap();
    assert_eq!(instance.paused_by.as_deref(), Some(failed.message_id.as_str()));

    house.publish(Closed { id: 1, poison: false }).await;
    house.publish(Closed { id: 2, poison: false }).await;
    house.reaches(2, "Over").await;
    eventually("the later message to wait behind the failed one", || async {
        let held = house.journeys.store().held(10).await.unwrap();
        held.iter().any(|held| held.reason == "paused" && held.attempts == 0).then_some(())
    })
    .await;
    // the cause is not repaired: held again, attempts added up
    assert_eq!(house.journeys.store().held_retry(&failed.message_id, "me", "trying").await.unwrap(), 1);
    eventually("the retry to fail anew", || async {
        let held = house.journeys.store().held_messages(&failed.message_id).await.unwrap().pop()?;
        (held.attempts == 2).then_some(())
    })
    .await;
    assert_eq!(house.state(1).await.as_deref(), Some("Waiting"));
    house.stop().await;
}

/// O-014: a handler that fails leaves nothing; one that succeeds at last leaves one effect.
async fn r_004_failed_runs_leave_nothing<Db: Effects + Inspect, T: Transport + Clone>(transport: T, stores: [Db; 3]) {
    let house = House::start(transport, stores, |builder| builder.retries(Retries::none().immediate(3))).await;
    house.ask(1, "fail twice").await;
    eventually("the effect", || async { (house.worker.store().effects().await == [1]).then_some(()) }).await;
    assert_eq!(house.work.runs.swap(0, Ordering::SeqCst), 3);
    house.ask(2, "fail").await;
    let held = house.held(house.worker.store()).await;
    assert_eq!((held.reason.as_str(), held.attempts), ("failed", 4));
    assert!(held.error.unwrap_or_default().contains("failed by order"));
    assert_eq!(house.work.runs.swap(0, Ordering::SeqCst), 4);
    house.ask(3, "permanent").await;
    eventually("the permanent failure to be held", || async {
        (house.worker.store().held(10).await.unwrap().len() == 2).then_some(())
    })
    .await;
    assert_eq!(house.work.runs.swap(0, Ordering::SeqCst), 1);
    house.ask(4, "panic").await;
    eventually("the panic to be held", || async {
        (house.worker.store().held(10).await.unwrap().len() == 3).then_some(())
    })
    .await;
    assert_eq!(house.work.runs(), 4, "a panic is a transient failure of its message");
    house.quiet().await;
    assert_eq!(house.worker.store().effects().await, [1]);
    eventually("the one event", || async { (house.heard.heard() == [1]).then_some(()) }).await;
    house.stop().await;
}

/// a delayed retry waits in the outbox, and comes back as what it was.
async fn r_003_a_delayed_retry_waits_in_the_outbox<Db: Effects + Inspect, T: Transport + Clone>(
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
    assert!(house.worker.store().held(10).await.unwrap().is_empty());
    house.stop().await;
}

/// R-020, O-015, O-016: one poison message among good ones costs only itself.
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
    eventually("2 held messages", || async { (house.worker.store().held(10).await.unwrap().len() == 2).then_some(()) })
        .await;
    house.stop().await;
}

/// R-020 of a handler that takes all that came together: a batch that fails is run one by one, and what each message causes names it.
async fn r_020_a_batch_that_fails_is_run_one_by_one<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [journeys, worker, listener]: [Db; 3],
) {
    worker.create_effects().await;
    let (work, heard) = (Worker::default(), Listener::default());
    let named = |name: &str, store: Db| Endpoint::named(name).transport(transport.clone()).store(store);
    let journeys = named("journeys", journeys).saga::<Journey>().start().await.unwrap();
    let listener = named("listener", listener).subscribe::<Arrived>(heard.clone()).start().await.unwrap();
    let worker = named("worker", worker)
        .handle_batch::<Work>(work.clone())
        .retries(Retries::none())
        .settings(|settings| settings.handler_lanes = 1)
        .start()
        .await
        .unwrap();
    let send = async |ids: std::ops::RangeInclusive<u64>, spoilt: &[(u64, &str)]| {
        let mut session = journeys.session().await.unwrap();
        for id in ids {
            let note = spoilt.iter().find(|(spoilt, _)| *spoilt == id).map_or("", |(_, note)| note);
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
    let held =
        eventually("3 held messages", || async { worker.store().held(10).await.ok().filter(|held| held.len() == 3) })
            .await;
    assert!(held.iter().all(|held| held.attempts == 1), "one run each was expected to count: {held:?}");
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
        let held = eventually("the message to be held", || async {
            house.worker.store().held(10).await.unwrap().pop().filter(|held| held.attempts == runs)
        })
        .await;
        assert_eq!(house.worker.store().held_retry(&held.message_id, "me", "repaired").await.unwrap(), 1);
        assert_eq!(house.worker.store().held_retry(&held.message_id, "me", "repaired").await.unwrap(), 0, "only once");
    }
    eventually("the effect", || async { (house.worker.store().effects().await == [1]).then_some(()) }).await;
    assert!(house.worker.store().held(10).await.unwrap().is_empty());
    house.stop().await;
}

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
    let sender = Endpoint::named("journeys").transport(transport.clone()).store(journeys).start().await.unwrap();
    let mut session = sender.session().await.unwrap();
    session.send(Work { id: 1, note: String::new() });
    session.commit().await.unwrap();
    let row = eventually("the reason in the outbox", || async {
        sender.store().outbox(10).await.unwrap().pop().filter(|row| row.last_error.is_some())
    })
    .await;
    assert_eq!(row.destination, "worker");
    worker.create_effects().await;
    let work = Worker::default();
    let late = Endpoint::named("worker")
        .transport(transport)
        .store(worker)
        .handle::<Work>(work.clone())
        .start()
        .await
        .unwrap();
    eventually("the command to arrive", || async { (work.handled() == [1]).then_some(()) }).await;
    sender.stop().await.unwrap();
    late.stop().await.unwrap();
}

/// O-022, rule 6: what does not fit the window goes through the outbox, all of it, and nothing overtakes.
async fn o_022_more_than_the_window_holds_arrives_in_order<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let [journeys, worker, _] = stores;
    worker.create_effects().await;
    let work = Worker::default();
    let named = |name: &str, store: Db| Endpoint::named(name).transport(transport.clone()).store(store);
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

/// an endpoint that stops loses nothing, and works again after.
async fn r_041_a_stopped_endpoint_goes_on_where_it_was<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    stores: [Db; 3],
) {
    let [journeys, worker, _] = stores;
    worker.create_effects().await;
    let work = Worker::default();
    let named = |name: &str, store: &Db| Endpoint::named(name).transport(transport.clone()).store(store.clone());
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
    assert!(worker.held(10).await.unwrap().is_empty());
    sender.stop().await.unwrap();
    receiver.stop().await.unwrap();
}

async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(InProcess, [outbox::Sqlite; 3]) -> F) {
    let file = File::create();
    let stores = [file.store("a.db").await, file.store("b.db").await, file.store("c.db").await];
    test(InProcess::new(), stores).await;
}

async fn on_rabbitmq<F: Future<Output = ()>>(test: impl FnOnce(transports::RabbitMq, [outbox::Postgres; 3]) -> F) {
    let vhost = Vhost::create().await;
    let databases = [Database::create().await, Database::create().await, Database::create().await];
    test(vhost.transport(), databases.each_ref().map(Database::store)).await;
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod sqlite_in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::on_sqlite(|transport, stores| super::$test(transport, stores)).await;
            })*
        }
        mod postgres_rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::on_rabbitmq(|transport, stores| super::$test(transport, stores)).await;
            })*
        }
    };
}

suite! {
    a_journey_goes_through
    s_036_what_comes_too_early_waits
    s_002_a_repeated_start_is_ignored
    s_069_a_panic_pauses_its_instance_alone
    r_004_failed_runs_leave_nothing
    r_003_a_delayed_retry_waits_in_the_outbox
    r_020_one_poison_message_costs_only_itself
    r_020_a_batch_that_fails_is_run_one_by_one
    r_022_a_held_message_is_retried
    o_042_a_session_sends_with_its_commit_or_not_at_all
    o_036_a_command_waits_for_its_endpoint
    o_022_more_than_the_window_holds_arrives_in_order
    r_041_a_stopped_endpoint_goes_on_where_it_was
}

/// Two endpoints that share a SQLite file share its one writer (rule 11).
#[tokio::test(flavor = "multi_thread")]
async fn several_endpoints_share_one_sqlite_file() {
    let file = File::create();
    let stores = [file.store("one.db").await, file.store("one.db").await, file.store("one.db").await];
    a_journey_goes_through(InProcess::new(), stores).await;
}

/// Everything that is wrong is said in one list.
#[tokio::test]
async fn start_says_everything_that_is_wrong() {
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
    let started = Endpoint::named("not worker")
        .store(file.store("x.db").await)
        .handle::<Work>(Wrong)
        .handle::<Work>(Wrong)
        .settings(|settings| settings.prefetch = 0)
        .start()
        .await;
    let Err(StartError::Definition(wrong)) = started else { panic!("a list of what is wrong was expected") };
    for expected in
        ["sent to `worker`", "two handlers", "without blanks", "no transport", "two receivers", "`prefetch` is 0"]
    {
        assert!(wrong.iter().any(|text| text.contains(expected)), "`{expected}` is missing in {wrong:#?}");
    }
}

/// the database goes away while messages come: nothing is spent, and work goes on by itself.
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
            sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid()")
                .bind(databases.iter().map(|database| database.name.clone()).collect::<Vec<_>>())
                .execute(Database::create().await.store().pool())
                .await
                .unwrap();
        }
        // the session's own commit may be hit: the same event again is the same journey
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
    assert!(house.worker.store().held(10).await.unwrap().is_empty());
    house.stop().await;
}

#[test]
fn fault_points_are_named_as_the_steps_are() {
    assert_eq!("before-commit".parse(), Ok(Step::BeforeCommit));
    assert!("nowhere".parse::<Step>().is_err());
    let _ = Faults::crash_at(Step::Commit, 1);
}
