//! The promise under faults: the sample's services as processes on RabbitMQ and PostgreSQL, killed, doubled, disturbed;
//! and an audit of the books afterwards.

use futures_util::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use saga_core::CrashPoint;
use sqlx::{Connection as _, PgConnection};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{
    Database, eventually,
    process::{Service, System, free_port},
};

const SERVICES: [&str; 3] = ["ordering", "payment", "warehouse"];
/// Short, so that silent payments and rows of dead processes occur in a short test.
const SHORT: [&str; 4] = ["--payment-timeout", "2", "--lease", "3"];

/// A number from the environment, for runs of another size.
fn size(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// A fixed sequence that looks random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

async fn serve_all(system: &System, port: u16, more: &[&str]) -> Vec<Service> {
    let listen = format!("127.0.0.1:{port}");
    let arguments: Vec<&str> = ["--listen", &listen].into_iter().chain(SHORT).chain(more.iter().copied()).collect();
    SERVICES.iter().map(|service| system.serve(service, &arguments)).collect()
}

async fn ready(port: u16) {
    eventually("ordering is ready", || async move {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/health/ready")).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}

async fn place(system: &System, ports: &[u16], orders: usize) -> serde_json::Value {
    let apis: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let (apis, orders) = (apis.join(","), orders.to_string());
    let (clean, placed) =
        system.run(&["place", "--api", &apis, "--orders", &orders, "--within", "300", "--json"]).await;
    assert!(clean, "every order was expected to end: {placed:#}");
    placed
}

async fn count(system: &System, service: &str, sql: &'static str) -> Option<i64> {
    let url = format!("{}/{}_{service}", Database::server(), system.database.name);
    let mut connection = PgConnection::connect(&url).await.ok()?;
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.ok()
}

/// SAGABUS_TEST_ORDERS and SAGABUS_TEST_KILLS run it at another size.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_killed_at_any_moment_leave_clean_books() {
    let (orders, kills) = (size("SAGABUS_TEST_ORDERS", 200), size("SAGABUS_TEST_KILLS", 3));
    let system = System::create().await;
    let port = free_port();
    let mut services = serve_all(&system, port, &[]).await;
    ready(port).await;
    let ended = Arc::new(AtomicUsize::new(0));
    let killing = async {
        let mut dice = Dice(20_261_121);
        let total = kills * SERVICES.len();
        let mut turns: Vec<usize> = (0..total).map(|n| n % SERVICES.len()).collect();
        for n in (1..turns.len()).rev() {
            turns.swap(n, dice.below(n + 1));
        }
        for (n, service) in turns.into_iter().enumerate() {
            // the kills are spread over the placing of the orders, by progress, not by the clock
            let at = (orders * n / total + dice.below(orders / total + 1)) as i64;
            eventually("orders to come in", || async {
                let placed = count(&system, "ordering", "SELECT count(*) FROM orders").await;
                (placed? >= at || ended.load(Ordering::SeqCst) > 0).then_some(())
            })
            .await;
            services[service].kill();
            let listen = format!("127.0.0.1:{port}");
            let arguments: Vec<&str> = ["--listen", &listen].into_iter().chain(SHORT).collect();
            services[service] = system.serve(SERVICES[service], &arguments);
        }
    };
    let placing = async {
        let placed = place(&system, &[port], orders).await;
        ended.store(1, Ordering::SeqCst);
        placed
    };
    let (placed, ()) = tokio::join!(placing, killing);
    let audit = system.verify(orders).await;
    println!("{kills} kills of each service, placed {placed}, books {audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_of_every_service_share_the_work() {
    let system = System::create().await;
    let ports = [free_port(), free_port()];
    let mut services = serve_all(&system, ports[0], &[]).await;
    services.extend(serve_all(&system, ports[1], &[]).await);
    join_all(ports.map(ready)).await;
    place(&system, &ports, 200).await;
    system.verify(200).await;
    for service in SERVICES {
        let processes = count(&system, service, "SELECT count(DISTINCT handled_by) FROM sagabus.inbox").await;
        assert_eq!(processes, Some(2), "both processes of {service} were expected to work");
    }
    for service in &mut services {
        assert!(service.terminate().await, "an orderly end was expected after SIGTERM");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_put_twice_on_every_queue_changes_nothing() {
    let system = System::create().await;
    let port = free_port();
    let _services = serve_all(&system, port, &[]).await;
    ready(port).await;
    let doubled = Arc::new(AtomicUsize::new(0));
    let _doubling = double(&system, doubled.clone()).await;
    place(&system, &[port], 100).await;
    eventually("at least 400 doubled messages", || {
        let doubled = doubled.load(Ordering::SeqCst);
        async move { (doubled >= 400).then_some(()) }
    })
    .await;
    system.verify(100).await;
}

/// Puts every message once more on every queue that it reached, as reported by the broker's tracer:
/// <https://www.rabbitmq.com/docs/firehose>.
async fn double(system: &System, doubled: Arc<AtomicUsize>) -> Connection {
    system.vhost.trace().await;
    let connection =
        Connection::connect(&system.vhost.url(), ConnectionProperties::default()).await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let none = FieldTable::default;
    let (exclusive, bind) =
        (QueueDeclareOptions { exclusive: true, ..Default::default() }, QueueBindOptions::default());
    channel.queue_declare("doubling".into(), exclusive, none()).await.expect("a queue");
    let bound = channel.queue_bind("doubling".into(), "amq.rabbitmq.trace".into(), "publish.#".into(), bind, none());
    bound.await.expect("a binding");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let consume = channel.basic_consume("doubling".into(), "doubling".into(), BasicConsumeOptions::default(), none());
    let mut consumer = consume.await.expect("a consumer");
    // the tracer is on once it reports a message
    for tries in 0.. {
        assert!(tries < 100, "the broker's tracer was expected to begin");
        let probe = BasicProperties::default();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), "nobody".into(), options, b"", probe).await.expect("a probe");
        if tokio::time::timeout(Duration::from_millis(100), consumer.next()).await.is_ok() {
            break;
        }
    }
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let _ = delivery.acker.ack(BasicAckOptions::default()).await; // the test is over
            let Some((queues, properties)) = traced(&delivery.properties) else { continue };
            for queue in queues {
                let options = BasicPublishOptions::default();
                let publish = channel.basic_publish("".into(), queue, options, &delivery.data, properties.clone());
                if let Ok(confirm) = publish.await {
                    let _ = confirm.await; // the test is over
                }
                doubled.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    connection
}

/// The queues that a traced message reached, and its properties, marked; `None` for one that `double` published itself.
fn traced(trace: &BasicProperties) -> Option<(Vec<ShortString>, BasicProperties)> {
    const MARK: &str = "doubled";
    let trace = trace.headers().as_ref()?.inner();
    let AMQPValue::FieldTable(properties) = trace.get("properties")? else { return None };
    let AMQPValue::FieldArray(queues) = trace.get("routed_queues")? else { return None };
    let text = |value: &AMQPValue| value.as_long_string().map(|text| ShortString::from(text.to_string()));
    let property = |name: &str| properties.inner().get(name).and_then(text);
    let mut headers = match properties.inner().get("headers") {
        Some(AMQPValue::FieldTable(headers)) => headers.clone(),
        _ => FieldTable::default(),
    };
    if headers.inner().contains_key(MARK) {
        return None;
    }
    headers.insert(MARK.into(), AMQPValue::Boolean(true));
    let mut marked = BasicProperties::default()
        .with_message_id(property("message_id")?)
        .with_type(property("type")?)
        .with_correlation_id(property("correlation_id")?)
        .with_app_id(property("app_id")?)
        .with_headers(headers);
    if let Some(reply_to) = property("reply_to") {
        marked = marked.with_reply_to(reply_to); // a command's
    }
    Some((queues.as_slice().iter().filter_map(text).collect(), marked))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_leaves_a_ledger_that_a_restart_completes() {
    for (n, step) in CrashPoint::ALL.iter().enumerate() {
        let system = System::create().await;
        let port = free_port();
        let times = 1 + n % 2;
        let crash = format!("{step:?}:{times}");
        let mut services = serve_all(&system, port, &["--crash-at", &crash]).await;
        let ports = [port];
        let crashed = AtomicBool::new(false);
        // One round of orders may be a single batch, or be cancelled on a slow machine before it reaches the warehouse.
        let placing = async {
            let mut orders = 0;
            while orders == 0 || !crashed.load(Ordering::SeqCst) {
                place(&system, &ports, 30).await;
                orders += 30;
            }
            orders
        };
        let restarting = async {
            let listen = format!("127.0.0.1:{port}");
            let arguments: Vec<&str> = ["--listen", &listen].into_iter().chain(SHORT).collect();
            for (service, name) in services.iter_mut().zip(SERVICES) {
                eventually(&format!("{name} to crash at step {step:?}"), || {
                    let dead = service.is_dead();
                    async move { dead.then_some(()) }
                })
                .await;
                assert!(
                    service.log().contains("the process crashes here"),
                    "{name} died of something else than {step:?}"
                );
                *service = system.serve(name, &arguments);
            }
            crashed.store(true, Ordering::SeqCst);
        };
        let (orders, ()) = tokio::join!(placing, restarting);
        system.verify(orders).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_takes_an_order_and_tells_its_story() {
    let system = System::create().await;
    let port = free_port();
    let mut services = serve_all(&system, port, &["--decline", "0", "--no-stock", "0", "--silent", "0"]).await;
    ready(port).await;
    let api = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::new();

    let bad = client
        .post(format!("{api}/orders"))
        .body(r#"{"customer":"a","address":"b","amount_cents":0}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 400);
    let why: serde_json::Value = bad.json().await.unwrap();
    assert_eq!(why["field"], "amount_cents", "{why}");
    assert_eq!(client.get(format!("{api}/orders/nonsense")).send().await.unwrap().status(), 404);

    let order = serde_json::json!({
        "order_id": "01a1fc8f-b622-77bb-9166-a7df7985a06d", "customer": "Ada", "address": "1 Main Street",
        "amount_cents": 4200,
    });
    for _ in 0..2 {
        let placed = client.post(format!("{api}/orders")).json(&order).send().await.unwrap();
        assert_eq!(placed.status(), 202);
        assert_eq!(placed.headers()["location"], "/orders/01a1fc8f-b622-77bb-9166-a7df7985a06d");
    }
    let url = format!("{api}/orders/01a1fc8f-b622-77bb-9166-a7df7985a06d");
    let events = client.get(format!("{url}/events")).send().await.unwrap().text().await.unwrap();
    let last =
        events.lines().rev().find_map(|line| line.strip_prefix("data: ")).expect("the events end with the order");
    assert!(last.contains(r#""status":"shipped""#), "{events}");
    let shown: serde_json::Value = client.get(&url).send().await.unwrap().json().await.unwrap();
    let states: Vec<&str> =
        shown["history"].as_array().unwrap().iter().filter_map(|line| line["state"].as_str()).collect();
    assert_eq!(states, ["awaiting_payment", "awaiting_shipment", "shipped"], "{shown}");
    system.verify(1).await;
    for service in &mut services {
        assert!(service.terminate().await, "an orderly end was expected after SIGTERM");
    }
}
