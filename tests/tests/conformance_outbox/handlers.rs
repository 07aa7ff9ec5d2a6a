//! Messages that come more than once, and what a handler commits.

use super::*;
use async_trait::async_trait;
use futures_util::future::join_all;
use outbox::Postgres;
use saga_core::{Context, DatabaseState, Handle, HandlerError, HandlerOptions, Retries};
use sqlx::{Connection, Executor};
use std::{collections::HashSet, sync::Mutex, time::Instant};
use tests::{
    PATIENCE, eventually,
    house::{held, one_held},
    model::{Arrived, Listener, Work, WorkOutcome, Worked, Worker},
    works::{work, works},
};

/// O-002: twice to one process and once to the other, all at the same time.
pub(crate) async fn o_002_a_hundred_messages_that_come_three_times_to_two_processes_have_a_hundred_effects<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    two.db().create_effects().await;
    let handler = Worker::default();
    let (mut workers, mut strangers) = (Vec::new(), Vec::new());
    let published = Arc::new(Mutex::new(HashSet::new()));
    for process in 0..2 {
        let mut ear = attach(&two.transports[process], &format!("ear-{process}"), &["journeys.Arrived"]).await;
        let heard = published.clone();
        tokio::spawn(async move {
            while let Some(came) = ear.deliveries.recv().await {
                heard.lock().expect("nobody panics with this lock").insert(came.envelope.message_id.clone());
                came.ack.ack();
            }
        });
        workers.push(two.endpoint(process, "worker").handle::<Work>(handler.clone()).start().await.unwrap());
        strangers.push(two.stranger(process).await);
    }
    let messages = works(0..100);
    let twice: Vec<Envelope> = messages.iter().chain(&messages).cloned().collect();
    let [one, other] = &mut strangers[..] else { panic!("there are two") };
    tokio::join!(one.send("worker", &twice), other.send("worker", &messages));
    eventually("all to be handled", || async { (two.count("effect").await >= 100).then_some(()) }).await;
    eventually("an empty outbox", || async { (two.count("{s}outbox").await == 0).then_some(()) }).await;
    // what is still under way is a duplicate: a new message of each process comes behind it
    for (n, stranger) in strangers.iter_mut().enumerate() {
        stranger.send("worker", &works([100 + n as u64])).await;
    }
    eventually("the last ones", || async { (two.count("effect").await >= 102).then_some(()) }).await;
    assert_eq!(two.db().effects().await, (0..102).collect::<Vec<i64>>());
    eventually("their events", || async {
        (published.lock().expect("nobody panics with this lock").len() >= 102).then_some(())
    })
    .await;
    assert_eq!(published.lock().expect("nobody panics with this lock").len(), 102, "one message each");
    assert_eq!((two.count("{s}inbox WHERE attempts = 1").await, two.count("{s}inbox").await), (102, 102));
    assert!(held(two.db()).await.is_empty());
    stop(workers).await;
}

/// O-004: a message id is known for each endpoint apart.
pub(crate) async fn o_004_two_endpoints_of_one_database_each_handle_an_event<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    let heard = [Listener::default(), Listener::default()];
    let mut endpoints = Vec::new();
    for (name, heard) in ["one", "two"].into_iter().zip(&heard) {
        endpoints.push(two.endpoint(0, name).subscribe::<Arrived>(heard.clone()).start().await.unwrap());
    }
    publish(&endpoints[0], [Arrived { id: 1 }]).await;
    eventually("two rows", || async { (two.count("{s}inbox WHERE result = 'handled'").await == 2).then_some(()) })
        .await;
    assert_eq!(heard.each_ref().map(Listener::heard), [[1], [1]]);
    let distinct =
        "SELECT count(DISTINCT endpoint) || ' endpoints, ' || count(DISTINCT message_id) || ' message' FROM {s}inbox";
    assert_eq!(two.db().text(distinct).await, "2 endpoints, 1 message");
    stop(endpoints).await;
}

/// Writes a row, publishes for later, and answers.
struct Later;

#[async_trait]
impl<Db: Effects> Handle<Work, Db> for Later {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Db>) -> Result<WorkOutcome, HandlerError> {
        Db::effect(cx.tx().await?, work.id).await?;
        cx.publish(Arrived { id: work.id }).delay(Duration::from_secs(3600));
        Ok(Worked { id: work.id }.into())
    }
}

/// O-013: whoever looks sees all of it or nothing.
pub(crate) async fn o_013_row_mark_and_messages_appear_in_one_commit<Db: Effects + Base, T: Transport + Clone>(
    two: Two<Db, T>,
) {
    two.db().create_effects().await;
    let worker = two.endpoint(0, "worker").handle::<Work>(Later).start().await.unwrap();
    let mut stranger = two.stranger(0).await;
    let works = works(0..100);
    let looking = async {
        let look = "SELECT (SELECT count(*) FROM effect)
            || ' ' || (SELECT count(*) FROM {s}inbox WHERE result = 'handled')
            || ' ' || (SELECT count(*) FROM {s}outbox WHERE type = 'journeys.Arrived')";
        let (until, mut seen) = (Instant::now() + PATIENCE, HashSet::new());
        while !seen.contains("100 100 100") {
            assert!(Instant::now() < until, "{seen:?}");
            seen.insert(two.db().text(look).await);
        }
        seen
    };
    let (seen, ()) = tokio::join!(looking, stranger.send("worker", &works));
    for seen in seen {
        let counts: HashSet<&str> = seen.split(' ').collect();
        assert_eq!(counts.len(), 1, "row, mark and message were expected together: {seen}");
    }
    stop([worker]).await;
}

/// Takes a seat; told to, takes it twice, and goes on as if nothing had happened.
struct Careless;

#[async_trait]
impl Handle<Work, Postgres> for Careless {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        let tx = cx.tx().await?;
        let seat = || sqlx::query("INSERT INTO seat (id) VALUES ($1)").bind(work.id as i64);
        seat().execute(&mut *tx).await?;
        if work.note == "twice" {
            assert!(seat().execute(&mut *tx).await.is_err(), "the seat is taken");
        }
        Ok(Worked { id: work.id }.into())
    }
}

/// O-017, PostgreSQL: one that ignores an error of its own statement is held, and told how to do it; its neighbours in
/// the batch commit.
#[tokio::test(flavor = "multi_thread")]
async fn o_017_a_handler_that_ignores_its_own_violation_is_told_of_nested_transactions() {
    let options: [fn(HandlerOptions) -> HandlerOptions; 2] = [|it| it, HandlerOptions::shares_transactions];
    join_all(options.map(|options| {
        on_postgres(move |two| async move {
            sqlx::query("CREATE TABLE seat (id bigint UNIQUE)").execute(two.db().pool()).await.unwrap();
            let builder = two.endpoint(0, "worker").retries(Retries::none());
            let worker = builder.handle_with::<Work>(Careless, options).start().await.unwrap();
            let works: Vec<Envelope> = (1..=20).map(|id| work(id, if id == 13 { "twice" } else { "" })).collect();
            two.stranger(0).await.send("worker", &works).await;
            eventually("19 seats", || async { (two.count("seat").await == 19).then_some(()) }).await;
            let held = one_held(two.db()).await;
            let error = held.error.unwrap_or_default();
            assert!(held.message_id == "w-13" && error.contains("nested transaction"), "{error}");
            assert_eq!(two.count("{s}inbox WHERE attempts = 1").await, 20);
            stop([worker]).await;
        })
    }))
    .await;
}

/// Takes a seat for 13 that is checked at the commit.
struct Seats;

#[async_trait]
impl Handle<Work, Postgres> for Seats {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        let insert = sqlx::query("INSERT INTO seat (id) VALUES ($1)").bind(work.id as i64);
        insert.execute(cx.tx().await?).await?;
        Ok(Worked { id: work.id }.into())
    }
}

/// O-016, PostgreSQL: a constraint that is checked at the commit finds its message.
#[tokio::test(flavor = "multi_thread")]
async fn o_016_what_is_refused_at_the_commit_is_found_and_the_others_are_committed_once() {
    on_postgres(|two| async move {
        let table = "CREATE TABLE seat (id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)";
        sqlx::query(table).execute(two.db().pool()).await.unwrap();
        sqlx::query("INSERT INTO seat VALUES (13)").execute(two.db().pool()).await.unwrap();
        let builder = two.endpoint(0, "worker").retries(Retries::none());
        let builder = builder.handle_with::<Work>(Seats, HandlerOptions::shares_transactions);
        let worker = builder.start().await.unwrap();
        two.stranger(0).await.send("worker", &works(1..=20)).await;
        eventually("20 seats", || async { (two.count("seat").await == 20).then_some(()) }).await;
        let held = one_held(two.db()).await;
        let error = held.error.unwrap_or_default();
        assert!(held.message_id == "w-13" && error.contains("seat_id_key"), "{error}");
        assert_eq!(two.count("{s}inbox WHERE attempts = 1").await, 20);
        stop([worker]).await;
    })
    .await;
}

/// R-037, PostgreSQL: a database that takes no writes is waited for, and no message is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn r_037_messages_wait_for_a_database_that_is_read_only_and_go_on_without_a_restart() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let two = Two { stores: [database.store(), database.store()], transports: [vhost.transport(), vhost.transport()] };
    let handler = Worker { pure: true, ..Worker::default() };
    let builder = two.endpoint(0, "worker").retries(Retries::none()).handle::<Work>(handler.clone());
    let worker = builder.start().await.unwrap();
    let read_only = async |on: bool| {
        let mut server = sqlx::PgConnection::connect(&format!("{}/postgres", Database::server())).await.unwrap();
        let sql = format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", database.name);
        server.execute(sql.as_str()).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(&database.name).execute(&mut server).await.unwrap();
    };
    read_only(true).await;
    two.stranger(0).await.send("worker", &works(0..10)).await;
    eventually("a try", || async { (handler.runs() >= 1).then_some(()) }).await;
    let why = "the endpoint to say that its database takes nothing";
    eventually(why, || async { matches!(worker.database(), DatabaseState::Down(_)).then_some(()) }).await;
    read_only(false).await;
    let store = database.store(); // the other's sessions were ended
    eventually("all to be handled", || async {
        let sql = "SELECT CAST(count(*) AS text) FROM {s}inbox WHERE result = 'handled' AND attempts = 1";
        (store.text(sql).await == "10").then_some(())
    })
    .await;
    // in vain: once in a lane, and once more where its session was just ended; never for as long as it lasts
    let runs = handler.handled().len();
    assert!((11..=26).contains(&runs) && held(&store).await.is_empty(), "{runs} runs of 10 messages");
    stop([worker]).await;
}
