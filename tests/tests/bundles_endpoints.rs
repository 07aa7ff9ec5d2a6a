//! Bundles under whole endpoints: what is bundled, and that faults cost one message, never its neighbours.

use async_trait::async_trait;
use lapin::options::BasicNackOptions;
use outbox::Postgres;
use saga_core::{
    After, Bundles, Context, Endpoint, Envelope, Event, Handle, HandlerError, Inspect, InstanceFilter, Message,
    OutboxFilter, Retries, after, saga, states,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{
    Database, Vhost, eventually,
    house::held,
    link::provision_taking,
    model::{Began, Effects, Journey, Work, WorkOutcome, Worked, Worker},
    plain::{BUNDLE, Plain, Tracer, bundle_body, bundle_properties, is_bundle, parts},
    store_suite::Lab,
    works::{effects, everything_before_is_settled, nothing_is_left, work, works},
};

/// A worker that handles messages together.
async fn start_worker(vhost: &Vhost, database: &Database, work: &Worker) -> Endpoint<Postgres> {
    let store = database.store();
    store.create_effects().await;
    Endpoint::builder("worker", vhost.transport(), store)
        .handle_batch::<Work>(work.clone())
        .retries(Retries::none())
        .start()
        .await
        .expect("the worker starts")
}

/// In how many AMQP messages the messages of each type came to a queue, until so many of these types have come.
async fn amqp_messages<const N: usize>(tracer: &mut Tracer, types: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let (mut came, mut amqp) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    while types.iter().any(|(name, count)| came.get(*name).is_none_or(|came| came < count)) {
        let traced = tracer.message().await;
        let types: Vec<String> = match is_bundle(&traced.properties) {
            true => {
                let of = |part: &Value| part["envelope"]["type"].as_str().unwrap_or_default().to_owned();
                parts(&traced.body).iter().map(of).collect()
            }
            false => traced.properties.kind().iter().map(|kind| kind.as_str().to_owned()).collect(),
        };
        for name in types.iter().collect::<BTreeSet<_>>() {
            *amqp.entry(name.clone()).or_default() += 1;
        }
        for name in types {
            *came.entry(name).or_default() += 1;
        }
    }
    amqp
}

async fn instances(store: &Postgres, state: &str, expected: u64) {
    let filter = InstanceFilter { state: Some(state.into()), ..Default::default() };
    eventually(&format!("{expected} instances to be {state}"), || async {
        (store.instances_count(&filter).await.ok()? == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_replies_are_bundled() {
    let (vhost, [first, second]) = (Vhost::create().await, [Database::create().await, Database::create().await]);
    let mut tracer = Tracer::start(&vhost).await;
    let work = Worker::default();
    let worker = start_worker(&vhost, &second, &work).await;
    let journeys = Endpoint::builder("journeys", vhost.transport(), first.store()).saga::<Journey>();
    let journeys = journeys.start().await.expect("journeys starts");
    let mut session = journeys.session().await.unwrap();
    for id in 0..300 {
        session.publish(Began { id });
    }
    session.commit().await.unwrap();
    let came = amqp_messages(&mut tracer, [("worker.Work", 300), ("worker.Worked", 300)]).await;
    assert!(came["worker.Work"] <= 60, "bundles of commands were expected: {came:?}");
    assert!(came["worker.Worked"] <= 60, "bundles of replies were expected: {came:?}");
    effects(worker.store(), 0..300).await;
    instances(journeys.store(), "Waiting", 300).await;
    assert!(held(journeys.store()).await.is_empty() && held(worker.store()).await.is_empty(), "nothing is held");
    nothing_is_left(&vhost, journeys).await;
    nothing_is_left(&vhost, worker).await;
}

/// Fails every other message once: it comes again as a delayed retry. (Failures in a row would slow the handler down.)
#[derive(Clone, Default)]
struct Stumbling(Arc<Mutex<BTreeSet<u64>>>);

#[async_trait]
impl Handle<Work, Postgres> for Stumbling {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        if work.id % 2 == 1 && self.0.lock().expect("nobody panics with this lock").insert(work.id) {
            return Err(HandlerError::transient("stumbled"));
        }
        Postgres::effect(cx.tx().await?, work.id).await?;
        Ok(Worked { id: work.id }.into())
    }
}

/// Retries that are due together.
#[tokio::test(flavor = "multi_thread")]
async fn retries_are_bundled() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    database.store().create_effects().await;
    let stumbling = Stumbling::default();
    let start = || async {
        let worker = Endpoint::builder("worker", vhost.transport(), database.store())
            .handle::<Work>(stumbling.clone())
            .retries(Retries::none().delayed([Duration::from_secs(3600)]))
            .settings(|settings| {
                settings.bundles = Bundles::Always;
                settings.handler_lanes = 1;
            });
        worker.start().await.expect("the worker starts")
    };
    let worker = start().await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("worker", "b", &bundle_body(&works(0..100))).await;
    eventually("50 messages to stumble", || async {
        let rows = worker.store().outbox_count(&OutboxFilter::default()).await.ok()?;
        let handled = worker.store().effects().await.len();
        (handled == 50 && rows == 50).then_some(())
    })
    .await;
    worker.stop().await.expect("an orderly end");
    database.store().age("outbox", "due_at", Duration::from_secs(3600)).await; // all are due
    let mut tracer = Tracer::start(&vhost).await;
    let worker = start().await;
    let came = amqp_messages(&mut tracer, [("worker.Work", 50)]).await;
    assert!(came["worker.Work"] <= 10, "bundles of retries were expected: {came:?}");
    effects(worker.store(), 0..100).await;
    assert!(held(worker.store()).await.is_empty(), "nothing is held");
    nothing_is_left(&vhost, worker).await;
}

/// Ends a nap.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "naps.Rang")]
struct Rang {}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Lay {
    id: u64,
}

#[states]
enum Nap {
    Sleeping,
    #[done]
    Awake,
}

#[saga(name = "nap", id = id: u64)]
impl Nap {
    fn laid(_: Lay) -> (Sleeping, After<Rang>) {
        (Sleeping, after(saga_core::seconds(1), Rang {}))
    }
    fn rang(_: Sleeping, _: Rang) -> Awake {
        Awake
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_are_bundled() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let mut tracer = Tracer::start(&vhost).await;
    let naps = Endpoint::builder("naps", vhost.transport(), database.store()).saga::<Nap>();
    let naps = naps.start().await.expect("naps starts");
    let mut session = naps.session().await.unwrap();
    for id in 0..200 {
        session.publish(Lay { id });
    }
    session.commit().await.unwrap();
    let came = amqp_messages(&mut tracer, [("naps.Rang", 200)]).await;
    assert!(came["naps.Rang"] <= 60, "bundles of timers were expected: {came:?}");
    assert_eq!(came["client.Lay"], 200, "each event was expected in an AMQP message of its own: {came:?}");
    instances(naps.store(), "Awake", 200).await;
    nothing_is_left(&vhost, naps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_in_a_bundle_costs_only_itself() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let worker = start_worker(&vhost, &database, &Worker::default()).await;
    let mut bundle = works(0..100);
    bundle[10] = work(10, "fail");
    bundle[20].body = r#"{"id":"twenty"}"#.into();
    bundle[30].type_name = "worker.Unknown".into();
    bundle[40].body = "7".into();
    bundle[50].type_name = BUNDLE.into(); // a bundle in a bundle is a message that nobody knows
    bundle[60].headers.insert("nul".into(), json!("\0"));
    bundle[70].message_id = "x".repeat(2000);
    bundle[80].content_type = Some("text/plain".into());
    let bad = [10, 20, 30, 40, 50, 60, 70, 80];
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("worker", "b", &bundle_body(&bundle)).await;
    plain.publish_one("worker", &work(100, "")).await;
    effects(worker.store(), (0..=100).filter(|id| !bad.contains(id))).await;
    let held_now = eventually("what is wrong to be held", || async {
        Some(held(worker.store()).await).filter(|held| held.len() == bad.len())
    })
    .await;
    assert!(held_now.iter().all(|held| held.error.is_some()), "each with its reason: {held_now:?}");
    nothing_is_left(&vhost, worker).await;
}

/// Doubled by the broker or a producer, whole or in part, one after the other or together.
#[tokio::test(flavor = "multi_thread")]
async fn o_003_a_bundle_that_comes_twice_changes_nothing() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let worker = start_worker(&vhost, &database, &Worker::default()).await;
    let plain = Plain::connect(&vhost.url()).await;
    let body = bundle_body(&works(0..100));
    for id in ["b", "b", "another"] {
        plain.publish_bundle("worker", id, &body).await;
    }
    plain.publish_one("worker", &work(7, "")).await;
    effects(worker.store(), 0..100).await;
    plain.publish_bundle("worker", "b", &body).await;
    let twice_inside: Vec<Envelope> = works(100..150).into_iter().flat_map(|one| [one.clone(), one]).collect();
    plain.publish_bundle("worker", "c", &bundle_body(&twice_inside)).await;
    everything_before_is_settled(&plain, &worker, 150).await;
    assert!(held(worker.store()).await.is_empty(), "nothing is held");
    nothing_is_left(&vhost, worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_cannot_be_read_is_held_with_the_reason_and_others_go_on() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let worker = start_worker(&vhost, &database, &Worker::default()).await;
    let plain = Plain::connect(&vhost.url()).await;
    let good = bundle_body(&works(0..10));
    let tiny = r#"{"envelope":{"message_id":"a","type":"t"},"body":1}"#;
    let many = format!("[{}]", vec![tiny; 300_000].join(",")); // nearly as large as a broker takes
    let broken: [(&str, &[u8], &str); 6] = [
        ("half", &good[..good.len() / 2], "broken"),
        ("empty", b"[]", "without messages"),
        ("nothing", b"", "broken"),
        ("object", br#"{"envelope":{}}"#, "broken"),
        ("no-body", br#"[{"envelope":{"message_id":"a","type":"t"}}]"#, "no body"),
        ("many", many.as_bytes(), "a bundle of more than"),
    ];
    for (id, body, _) in broken {
        plain.publish_bundle("worker", id, body).await;
    }
    let newer = "application/vnd.sagabus.bundle.v2+json";
    plain.publish("worker", bundle_properties("newer").with_content_type(newer.into()), &good).await;
    plain.publish_bundle("worker", "good", &good).await;
    effects(worker.store(), 0..10).await;
    let held_now =
        eventually("7 held messages", || async { Some(held(worker.store()).await).filter(|held| held.len() == 7) })
            .await;
    let reasons = broken.map(|(id, _, reason)| (id, reason)).into_iter().chain([("newer", "bundle.v2+json")]);
    for (id, reason) in reasons {
        let found = held_now.iter().find(|held| held.message_id == id);
        let error = found.and_then(|held| held.error.as_deref()).unwrap_or_default();
        assert!(error.contains(reason), "{id}: `{reason}` was expected in `{error}`");
    }
    nothing_is_left(&vhost, worker).await;
}

/// It may have killed processes: each of its messages runs alone, so that the one at fault is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_came_back_again_and_again_runs_message_by_message() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    provision_taking(&vhost, "worker").await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("worker", "b", &bundle_body(&works(0..100))).await;
    for _ in 0..3 {
        let came = eventually("the bundle", || async {
            plain.channel.basic_get("worker".into(), Default::default()).await.expect("the queue is there")
        })
        .await;
        let back = BasicNackOptions { requeue: true, ..Default::default() };
        came.delivery.acker.nack(back).await.expect("the channel is open");
    }
    let work = Worker::default();
    let worker = start_worker(&vhost, &database, &work).await;
    effects(worker.store(), 0..100).await;
    assert_eq!(work.runs(), 100, "each was expected to run alone");
    assert!(held(worker.store()).await.is_empty(), "nothing is held");
    nothing_is_left(&vhost, worker).await;
}
