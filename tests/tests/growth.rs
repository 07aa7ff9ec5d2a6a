//! What grows must not slow down the rest: an instance for which thousands of messages came too early, and many held
//! messages. `cargo run --release -p throughput -- growth` measures the same at full size.

use outbox::Postgres;
use saga_core::{Endpoint, Event, HeldFilter, Inspect, saga, states};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{Database, eventually, proxy::Proxy};
use tokio::time::Instant;
use transports::InProcess;

/// Instances that are begun at a time, to see how fast others are.
const OTHERS: u64 = 200;
/// The instance for which messages come too early. The others have larger keys.
const LARGE: u64 = 0;
/// Held messages that one unit reads: `HELD_ROWS_MAX` of the endpoint.
const PAGE: u64 = 200;

/// A number from the environment, for runs of another size.
fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Opened {
    key: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Added {
    key: u64,
    n: u64,
}

#[states]
enum Counter {
    Open { added: u64 },
}

#[saga(name = "counter", id = key: u64)]
impl Counter {
    fn opened(_: Opened) -> Open {
        Open { added: 0 }
    }

    fn added(open: Open, it: Added) -> Open {
        assert_eq!(it.n, open.added, "in order of arrival");
        Open { added: it.n + 1 }
    }
}

/// A service with one lane, so that all instances share it, behind a proxy that counts; and who sends to it.
struct Counters {
    proxy: Proxy,
    /// The service's database, past the proxy.
    direct: Postgres,
    client: Endpoint<Postgres>,
    service: Endpoint<Postgres>,
    begun: u64,
    _databases: [Database; 2],
}

impl Counters {
    async fn start() -> Self {
        let databases = [Database::create().await, Database::create().await];
        let server = Database::server();
        let proxy = Proxy::to(server.rsplit('@').next().expect("a server has an address").to_owned()).await;
        let url = format!("{}?sslmode=disable", proxy.instead_of(&databases[0].url()));
        let (bus, direct) = (InProcess::new(), databases[0].store());
        let service = Endpoint::builder("counters", bus.clone(), Postgres::new(&url).expect("it is a URL"));
        let service = service.saga::<Counter>().settings(|settings| settings.saga_lanes = 1);
        let service = service.start().await.expect("the service starts");
        let client = Endpoint::builder("client", bus, databases[1].store()).start().await.expect("the client starts");
        Self { proxy, direct, client, service, begun: 0, _databases: databases }
    }

    async fn publish<E: Event>(&self, events: impl IntoIterator<Item = E>) {
        let mut session = self.client.session().await.expect("a session opens");
        for event in events {
            session.publish(event);
        }
        session.commit().await.expect("the session commits");
    }

    /// What a statement counts in the service's database.
    async fn count(&self, sql: &str) -> u64 {
        let counted: i64 = sqlx::query_scalar(sql).fetch_one(self.direct.pool()).await.expect("the statement is right");
        counted as u64
    }

    /// Begins other instances and waits for them. The time, the units of work, and round trips of these.
    async fn others(&mut self) -> (Duration, u64, u64) {
        let keys = self.begun + 1..self.begun + 1 + OTHERS;
        let (began, units, trips) = (Instant::now(), self.proxy.units(), self.proxy.unit_trips());
        self.publish(keys.clone().map(|key| Opened { key })).await;
        let open = format!("SELECT count(*) FROM sagabus.saga WHERE id::bigint >= {}", keys.start);
        eventually(&format!("{OTHERS} instances to begin"), || async {
            (self.count(&open).await == OTHERS).then_some(())
        })
        .await;
        self.begun += OTHERS;
        (began.elapsed(), self.proxy.units() - units, self.proxy.unit_trips() - trips)
    }

    /// The best time of three, because others use the machine as well. Each unit costs four round trips, once its
    /// statements are prepared.
    async fn speed(&mut self) -> Duration {
        let mut best = self.others().await.0;
        for _ in 0..3 {
            let (time, units, trips) = self.others().await;
            assert_eq!(trips, units * 4, "begin with locks, read, write, commit: {units} units");
            assert!(units <= OTHERS / 2, "{OTHERS} messages were expected to share units: {units}");
            best = best.min(time);
        }
        best
    }

    async fn stop(self) {
        for endpoint in [self.client, self.service] {
            endpoint.stop().await.expect("an orderly end");
        }
    }
}

/// The goal is 80 % of the speed; a test that shares a machine can only tell another order of magnitude.
fn far_from(alone: Duration) -> Duration {
    alone * 3 + Duration::from_millis(500)
}

/// SAGABUS_TEST_EARLY is how many messages come too early.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_early_messages_of_one_instance_delay_no_other() {
    let early = size("SAGABUS_TEST_EARLY", 10_000);
    let mut counters = Counters::start().await;
    let alone = counters.speed().await;
    for from in (0..early).step_by(1000) {
        counters.publish((from..early.min(from + 1000)).map(|n| Added { key: LARGE, n })).await;
    }
    eventually(&format!("{early} messages to wait"), || async {
        (counters.direct.held_count(&HeldFilter::default()).await.ok()? == early).then_some(())
    })
    .await;
    let beside = counters.speed().await;
    assert!(
        beside < far_from(alone),
        "{OTHERS} instances beside {early} early messages took {beside:?}, alone {alone:?}"
    );

    // the large one begins first, and the others come while it goes through what waited
    let units = counters.proxy.units();
    counters.proxy.hold();
    counters.publish([Opened { key: LARGE }]).await;
    let others = counters.begun + 1..counters.begun + 1 + OTHERS;
    counters.publish(others.clone().map(|key| Opened { key })).await;
    counters.proxy.release();
    let added = format!("SELECT count(*) FROM sagabus.saga WHERE id = '{LARGE}' AND data ->> 'added' = '{early}'");
    eventually("all that waited to be applied in order", || async {
        (counters.count(&added).await == 1).then_some(())
    })
    .await;
    let units = counters.proxy.units() - units;
    let of_large = format!("FROM sagabus.inbox WHERE saga_id = '{LARGE}' AND result = 'handled'");
    let largest = format!("SELECT max(n) FROM (SELECT count(*) AS n {of_large} GROUP BY xmin::text) units");
    let largest = counters.count(&largest).await;
    assert!(largest <= PAGE + 1, "a unit was expected to apply {PAGE} messages and the start: {largest}");
    assert!(units <= early / PAGE + 20, "full pages were expected: {units} units");
    let delayed = format!(
        "SELECT count(*) FROM sagabus.inbox WHERE saga_id::bigint >= {}
         AND handled_at >= (SELECT max(handled_at) {of_large})",
        others.start
    );
    assert_eq!(counters.count(&delayed).await, 0, "nobody was expected to wait until all was applied");
    println!("{OTHERS} instances: {alone:?}, beside {early} early messages {beside:?}; applied in {units} units");
    counters.stop().await;
}

/// SAGABUS_TEST_HELD is how many messages are held. A scan of all of them would be a matter of the planner, who sees
/// that at 100,000 rows as at a million.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_through_the_held_messages_of_others() {
    let held = size("SAGABUS_TEST_HELD", 100_000);
    let mut counters = Counters::start().await;
    let alone = counters.speed().await;
    let fill = format!(
        "INSERT INTO sagabus.held (endpoint, receiver, message_id, reason, saga, saga_id, error, attempts, held_at,
            expires_at, type, envelope, body)
         SELECT 'counters', 'counter', 'held-' || n,
            CASE n % 3 WHEN 0 THEN 'early' WHEN 1 THEN 'failed' ELSE 'paused' END, 'counter',
            (1000000000 + n / 3)::text, 'no table', 1, now(), now() + interval '1 hour', 'client.Added',
            json_build_object('message_id', 'held-' || n, 'type', 'client.Added'), '{{\"key\":1,\"n\":1}}'::bytea
         FROM generate_series(1, {held}) n"
    );
    sqlx::query(&fill).execute(counters.direct.pool()).await.expect("the statement is right");
    sqlx::query("VACUUM ANALYZE sagabus.held").execute(counters.direct.pool()).await.expect("as a server does");
    let scanned = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'sagabus.held'::regclass";
    // statistics of the statements above come within a second or so
    eventually("the statistics to know the rows", || async {
        let filled = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = 'sagabus.held'::regclass";
        (counters.count(filled).await >= held).then_some(())
    })
    .await;
    let before = counters.count(scanned).await;
    let beside = counters.speed().await;
    assert!(
        beside < far_from(alone),
        "{OTHERS} instances beside {held} held messages took {beside:?}, alone {alone:?}"
    );
    // a message for an instance for which others wait, and one that goes on
    counters.publish([Added { key: 1, n: 0 }, Added { key: 1_000_000_001, n: 0 }]).await;
    let settled = "SELECT count(*) FROM sagabus.inbox WHERE type = 'client.Added'";
    eventually("both messages to be settled", || async { (counters.count(settled).await == 2).then_some(()) }).await;
    println!("{OTHERS} instances: {alone:?}, beside {held} held messages {beside:?}");
    // those who read say so when they are idle or gone
    let rows = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = 'sagabus.saga'::regclass";
    eventually("the statistics of all units", || async {
        (counters.count(rows).await >= counters.begun).then_some(())
    })
    .await;
    let read = counters.count(scanned).await - before;
    assert!(read < held, "no statement was expected to read through all held messages: {read} rows were");
    counters.stop().await;
}
