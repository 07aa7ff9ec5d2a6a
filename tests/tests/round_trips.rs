//! What a message costs: round trips to PostgreSQL, counted at the wire, warm, beside the handler's own statements.

use outbox::Postgres;
use saga_core::{Endpoint, Inspect, Settings, hash_of};
use std::time::Duration;
use tests::{
    Database, eventually,
    model::{Began, Closed, Journey, Work, Worker},
    proxy::Proxy,
};
use tokio::time::Instant;
use transports::InProcess;

/// No polling while we count.
fn quiet(settings: &mut Settings) {
    settings.poll = Duration::from_secs(3600);
    settings.saga_lanes = 1;
    settings.handler_lanes = 1;
}

async fn proxied(database: &Database) -> (Proxy, Postgres) {
    let server = Database::server();
    let address = server.rsplit('@').next().expect("a server has an address").to_owned();
    let proxy = Proxy::to(address.clone()).await;
    let store = Postgres::new(&format!(
        "{}?sslmode=disable",
        database.url().replace(&address, &format!("127.0.0.1:{}", proxy.port))
    ))
    .expect("the URL is one");
    (proxy, store)
}

/// Waits until the proxy has been silent for a while.
async fn silence(proxy: &Proxy) -> u64 {
    let mut last = (proxy.round_trips(), Instant::now());
    eventually("no round trips for 300 ms", || {
        let now = proxy.round_trips();
        if now != last.0 {
            last = (now, Instant::now());
        }
        let quiet = last.1.elapsed() > Duration::from_millis(300);
        async move { quiet.then_some(now) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_message_costs_at_most_five_and_a_batch_of_100_no_more_than_one_of_2() {
    let databases = [Database::create().await, Database::create().await, Database::create().await];
    let (saga_proxy, saga_store) = proxied(&databases[0]).await;
    let (work_proxy, work_store) = proxied(&databases[1]).await;
    let bus = InProcess::new();
    let named = |name: &str, store: Postgres| Endpoint::named(name).transport(bus.clone()).store(store).settings(quiet);
    let journeys = named("journeys", saga_store).saga::<Journey>().start().await.unwrap();
    let working =
        named("worker", work_store).handle::<Work>(Worker { pure: true, ..Worker::default() }).start().await.unwrap();
    let client = named("client", databases[2].store()).start().await.unwrap();
    let direct = databases[0].store();
    let handled = async |what: &str, expected: i64| {
        eventually(what, || async {
            let rows: i64 =
                sqlx::query_scalar("SELECT count(*) FROM sagabus.inbox").fetch_one(direct.pool()).await.unwrap();
            (rows >= expected).then_some(())
        })
        .await;
    };
    let begin = async |ids: std::ops::Range<u64>| {
        let mut session = client.session().await.unwrap();
        for id in ids {
            session.publish(Began { id });
        }
        session.commit().await.unwrap();
    };

    // warm: every connection has prepared its statements. The worker's word comes back to the saga: two messages a journey
    for id in 0..20 {
        begin(id..id + 1).await;
        handled("the journey to begin and the worker to answer", (id as i64 + 1) * 2).await;
    }
    let (saga_before, work_before) = (silence(&saga_proxy).await, silence(&work_proxy).await);
    begin(20..21).await;
    handled("two messages of the saga", 42).await;
    let (saga, work) = (silence(&saga_proxy).await - saga_before, silence(&work_proxy).await - work_before);
    println!(
        "round trips: {saga} for two messages of a saga that come alone, {work} for one of a handler without statements of its own"
    );
    assert!(saga <= 2 * 5, "a saga's message that comes alone costs {saga} / 2 round trips");
    assert!(work <= 5, "a handler's message that comes alone costs {work} round trips");

    // a batch: while the one lane waits for the lock of a journey that we hold, messages of others gather behind it
    begin(100..303).await;
    handled("203 journeys to begin and the worker to answer", 42 + 406).await;
    let batch = async |ids: std::ops::Range<u64>, handled_before: i64| {
        let first = ids.start;
        let mut lock = direct.pool().begin().await.unwrap();
        let key = hash_of([b"journey".as_slice(), first.to_string().as_bytes()]);
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(&mut *lock).await.unwrap();
        // deletions of confirmed rows aside: they are gathered by time
        let before = silence(&saga_proxy).await - saga_proxy.deletions();
        let close = async |ids: std::ops::Range<u64>| {
            let mut session = client.session().await.unwrap();
            for id in ids {
                session.publish(Closed { id, poison: false });
            }
            session.commit().await.unwrap();
        };
        close(first..first + 1).await;
        silence(&saga_proxy).await;
        close(first + 1..ids.end).await;
        silence(&saga_proxy).await;
        lock.rollback().await.unwrap();
        handled("the batch", handled_before + (ids.end - ids.start) as i64).await;
        silence(&saga_proxy).await - saga_proxy.deletions() - before
    };
    let warm = batch(100..150, 448).await;
    let pair = batch(150..153, 498).await;
    let hundred = batch(200..301, 501).await;
    assert!(saga_proxy.deletions() > 0, "confirmed rows were expected to be deleted through the proxy");
    println!(
        "round trips: {pair} for one message and a batch of 2, {hundred} for one and a batch of 100 (the first time {warm} for one and 49)"
    );
    assert!(
        hundred <= pair,
        "a batch of 100 costs {hundred} round trips, one of 2 {pair} (one message before each included)"
    );
    for endpoint in [journeys, working, client] {
        endpoint.stop().await.unwrap();
    }
    assert_eq!(direct.held(1).await.unwrap().len(), 0);
}
