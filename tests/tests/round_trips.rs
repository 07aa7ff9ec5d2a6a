//! What a message costs: round trips to PostgreSQL, counted at the wire, besides the handler's own statements. And what
//! a lost answer to a commit costs: one repetition.

use outbox::Postgres;
use saga_core::{Endpoint, EndpointBuilder, Event, Inspect, Settings, Store, saga, states};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{
    Database, eventually,
    house::{held, journal},
    model::{Began, Effects, Journey, Work, Worker},
    proxy::Proxy,
};
use transports::InProcess;

/// One lane, so that messages that come while a unit is held back make one batch.
fn one_lane(settings: &mut Settings) {
    settings.poll = Duration::from_secs(3600);
    settings.saga_lanes = 1;
    settings.handler_lanes = 1;
}

async fn proxied(database: &Database) -> (Proxy, Postgres) {
    let server = Database::server();
    let address = server.rsplit('@').next().expect("a server has an address").to_owned();
    let proxy = Proxy::to(address.clone()).await;
    let url = database.url().replace(&address, &format!("127.0.0.1:{}", proxy.port));
    (proxy, Postgres::new(&format!("{url}?sslmode=disable")).expect("the URL is one"))
}

/// An endpoint behind a proxy, and one that sends to it; both live as long as a test.
struct Line {
    proxy: Proxy,
    /// The endpoint's database, without the proxy.
    direct: Postgres,
    client: Endpoint<Postgres>,
    endpoint: Endpoint<Postgres>,
    _databases: [Database; 2],
}

impl Line {
    async fn start(name: &str, with: impl FnOnce(EndpointBuilder<Postgres>) -> EndpointBuilder<Postgres>) -> Self {
        let databases = [Database::create().await, Database::create().await];
        let (proxy, store) = proxied(&databases[0]).await;
        let bus = InProcess::new();
        let direct = databases[0].store();
        direct.migrate().await.unwrap();
        direct.create_effects().await;
        let endpoint = with(Endpoint::builder(name, bus.clone(), store)).settings(one_lane).start().await.unwrap();
        let client = Endpoint::builder("client", bus, databases[1].store()).start().await.unwrap();
        Self { proxy, direct, client, endpoint, _databases: databases }
    }

    async fn sagas() -> Self {
        Self::start("journeys", |builder| builder.saga::<Journey>()).await
    }

    async fn begin(&self, ids: std::ops::Range<u64>) {
        let mut session = self.client.session().await.unwrap();
        for id in ids {
            session.publish(Began { id });
        }
        session.commit().await.unwrap();
    }

    async fn work(&self, ids: std::ops::Range<u64>, note: &str) {
        let mut session = self.client.session().await.unwrap();
        for id in ids {
            session.send(Work { id, note: note.into() });
        }
        session.commit().await.unwrap();
    }

    /// Waits until this many messages are handled.
    async fn handled(&self, expected: i64) {
        eventually(&format!("{expected} handled messages"), || async {
            let handled = "SELECT count(*) FROM sagabus.inbox WHERE result = 'handled'";
            let rows: i64 = sqlx::query_scalar(handled).fetch_one(self.direct.pool()).await.unwrap();
            (rows >= expected).then_some(())
        })
        .await;
    }

    /// The round trips and units that something costs.
    async fn cost(&self, what: impl Future<Output = ()>) -> (u64, u64) {
        let before = (self.proxy.unit_trips(), self.proxy.units());
        what.await;
        (self.proxy.unit_trips() - before.0, self.proxy.units() - before.1)
    }

    async fn stop(self) {
        // messages to endpoints that do not run here stay in its outbox
        let _ = self.endpoint.stop().await;
        self.client.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_saga_costs_four_round_trips_and_a_batch_of_100_no_more() {
    let line = Line::sagas().await;
    for id in 0..10 {
        line.begin(id..id + 1).await; // every connection prepares its statements
        line.handled(id as i64 + 1).await;
    }
    let lone = line.cost(async {
        line.begin(10..11).await;
        line.handled(11).await;
    });
    assert_eq!(lone.await, (4, 1), "begin with locks, read, write, commit");

    // one message waits at the proxy, and 100 others gather behind it
    let batch = line.cost(async {
        line.proxy.hold();
        line.begin(11..12).await;
        line.begin(12..112).await;
        line.proxy.release();
        line.handled(112).await;
    });
    let (trips, units) = batch.await;
    assert_eq!(trips, units * 4, "{units} units");
    assert!(units <= 3, "101 messages were expected to gather in two units, or three if they came apart: {units}");
    line.stop().await;
}

#[derive(Event, Serialize, Deserialize)]
struct Moved {
    id: u64,
    depot: u64,
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    first_depot: u64,
}

#[states(data = Parcel, fields(first_depot))]
enum Parcels {
    #[waits]
    Stored {
        #[field]
        depot: u64,
    },
}

#[saga(name = "parcel", id = id: u64)]
impl Parcels {
    fn arrived(moved: Moved) -> (Parcel, Stored) {
        (Parcel { first_depot: moved.depot }, Stored { depot: moved.depot })
    }

    fn moved(_: Stored, moved: Moved) -> Stored {
        Stored { depot: moved.depot }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_by_which_operators_find_instances_cost_no_round_trip() {
    let line = Line::start("parcels", |builder| builder.saga::<Parcels>()).await;
    let moved = async |id: u64, depot: u64| {
        let mut session = line.client.session().await.unwrap();
        session.publish(Moved { id, depot });
        session.commit().await.unwrap();
    };
    // begun, moved, and moved without a change
    let depots = [1, 2, 2];
    for n in 0..30 {
        moved(n % 10, depots[n as usize / 10]).await; // every connection prepares its statements
        line.handled(n as i64 + 1).await;
    }
    for (n, depot) in depots.into_iter().enumerate() {
        let cost = line.cost(async {
            moved(10, depot).await;
            line.handled(n as i64 + 31).await;
        });
        assert_eq!(cost.await, (4, 1), "begin with locks, read, write, commit");
    }
    let fields =
        "SELECT string_agg(concat_ws(' ', name, value), ', ' ORDER BY name) FROM sagabus.field WHERE id = '10'";
    let fields: String = sqlx::query_scalar(fields).fetch_one(line.direct.pool()).await.unwrap();
    assert_eq!(fields, "parcel by depot 2, parcel by first_depot 1");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_handler_without_statements_costs_three_round_trips_beside_the_look_into_the_inbox() {
    let handler = Worker { pure: true, ..Worker::default() };
    let line = Line::start("worker", |builder| builder.handle::<Work>(handler)).await;
    for id in 0..10 {
        line.work(id..id + 1, "").await;
        line.handled(id as i64 + 1).await;
    }
    let lone = line.cost(async {
        line.work(10..11, "").await;
        line.handled(11).await;
    });
    assert_eq!(lone.await, (3, 1), "begin, write, commit");
    line.stop().await;
}

/// Rule 3: the server has committed and its answer was lost, for one message and for a hundred. The outcome is unknown,
/// so the unit runs again, and the inbox decides.
#[tokio::test(flavor = "multi_thread")]
async fn o_018_rule_3_a_commit_whose_answer_is_lost_moves_each_instance_once() {
    let line = Line::sagas().await;
    let mut last = 0;
    for n in [1, 100] {
        line.proxy.swallow_commits(1);
        line.begin(last..last + n).await;
        line.handled((last + n) as i64).await;
        eventually("the swallowed answer", || async { (line.proxy.swallowed() > 0).then_some(()) }).await;
        last += n;
    }
    assert_eq!(line.proxy.swallowed(), 2);
    for id in 0..last {
        let steps: Vec<_> = journal(&line.direct, id).await.into_iter().map(|line| (line.seq, line.attempts)).collect();
        assert_eq!(steps, [(Some(1), 1)], "journey {id} was expected to begin once");
    }
    let sent = line.direct.outbox(&Default::default(), 10_000).await.unwrap();
    let timers = sent.iter().filter(|row| row.kind == "timer").count();
    assert_eq!(timers as u64, last, "one timer each was expected");
    assert_eq!(held(&line.direct).await.len(), 0);
    line.stop().await;
}

/// The same for handlers, plain and in batches.
#[tokio::test(flavor = "multi_thread")]
async fn o_018_rule_3_a_commit_whose_answer_is_lost_leaves_one_effect_of_each_message() {
    for batches in [false, true] {
        let line = Line::start("worker", |builder| match batches {
            false => builder.handle::<Work>(Worker::default()),
            true => builder.handle_batch::<Work>(Worker::default()),
        })
        .await;
        let mut last = 0;
        for n in [1, 100] {
            line.proxy.swallow_commits(1);
            line.work(last..last + n, "").await;
            line.handled((last + n) as i64).await;
            last += n;
        }
        assert_eq!(line.proxy.swallowed(), 2, "batches: {batches}");
        assert_eq!(line.direct.effects().await, (0..last as i64).collect::<Vec<_>>(), "batches: {batches}");
        assert_eq!(held(&line.direct).await.len(), 0);
        line.stop().await;
    }
}
