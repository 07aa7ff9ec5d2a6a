//! The promise under faults: the sample's services as processes on RabbitMQ and PostgreSQL, killed, doubled, disturbed;
//! and an audit of the books afterwards.

use futures_util::future::join_all;
use lapin::{options::BasicPublishOptions, types::AMQPValue};
use saga_core::CrashPoint;
use sqlx::{Connection as _, PgConnection};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tests::{
    Database,
    dice::Dice,
    eventually,
    plain::{Plain, Traced, Tracer, is_bundle},
    process::{Service, System, free_port},
};

const SERVICES: [&str; 3] = ["ordering", "payment", "warehouse"];
/// Short, so that silent payments and rows of dead processes occur in a short test.
const SHORT: [&str; 4] = ["--payment-timeout", "2", "--lease", "3"];

/// A number from the environment, for runs of another size.
fn size(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
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

/// Kills each process of the three services several times while orders are placed, and audits the books. `more` are
/// further arguments of the services. SAGABUS_TEST_ORDERS and SAGABUS_TEST_KILLS run it at another size.
async fn killed_at_any_moment(more: &[&str], seed: u64) {
    let (orders, kills) = (size("SAGABUS_TEST_ORDERS", 200), size("SAGABUS_TEST_KILLS", 3));
    let system = System::create().await;
    let port = free_port();
    let mut services = serve_all(&system, port, more).await;
    ready(port).await;
    for (service, name) in services.iter().zip(SERVICES) {
        // an event that is published before its queue is bound reaches nobody
        eventually(&format!("{name} to start"), || async { service.log().contains("service started").then_some(()) })
            .await;
    }
    let ended = Arc::new(AtomicUsize::new(0));
    let killing = async {
        let mut dice = Dice::new(seed);
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
            let arguments: Vec<&str> = ["--listen", &listen].iter().chain(&SHORT).chain(more).copied().collect();
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
async fn services_that_are_killed_at_any_moment_leave_clean_books() {
    killed_at_any_moment(&[], 20_261_121).await;
}

/// Nobody knows the whole, and still nothing is lost or done twice.
#[tokio::test(flavor = "multi_thread")]
async fn choreographed_services_that_are_killed_at_any_moment_leave_clean_books() {
    killed_at_any_moment(&["--choreographed"], 20_261_127).await;
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

/// R-044: three processes of a service are restarted one after the other, five times, while orders come.
#[tokio::test(flavor = "multi_thread")]
async fn r_044_a_rolling_restart_fails_no_message_and_keeps_none_waiting() {
    const WORKS: [&str; 8] = ["--lease", "10", "--decline", "0", "--no-stock", "0", "--silent", "0"];
    let system = System::create().await;
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let others = [[&["--listen", &*listen][..], &WORKS].concat(), WORKS.to_vec()];
    let _others = [system.serve("ordering", &others[0]), system.serve("warehouse", &others[1])];
    let mut payments: Vec<Service> = (0..3).map(|_| system.serve("payment", &WORKS)).collect();
    let living = async || {
        eventually("three processes of payment", || async {
            (count(&system, "payment", "SELECT count(*) FROM sagabus.process").await? == 3).then_some(())
        })
        .await;
    };
    living().await;
    ready(port).await;
    let done = AtomicBool::new(false);
    let restarting = async {
        for _ in 0..5 {
            for payment in &mut payments {
                assert!(payment.terminate().await, "an orderly end was expected after SIGTERM");
                *payment = system.serve("payment", &WORKS);
                living().await;
            }
        }
        done.store(true, Ordering::SeqCst);
    };
    let placing = async {
        let mut orders = 0;
        while !done.load(Ordering::SeqCst) {
            place(&system, &[port], 40).await;
            orders += 40;
        }
        orders
    };
    let ((), orders) = tokio::join!(restarting, placing);
    system.verify(orders).await;
    let workers = count(&system, "payment", "SELECT count(DISTINCT handled_by) FROM sagabus.inbox").await;
    println!("{orders} orders, {workers:?} of 18 processes of payment worked");
    assert!(workers > Some(5), "the restarts were expected to fall among the orders: {workers:?}");
    for service in SERVICES {
        let failed = "SELECT count(*) FROM sagabus.inbox
            WHERE attempts > 1 OR crashes > 0 OR result IN ('held', 'retrying')";
        assert_eq!(count(&system, service, failed).await, Some(0), "messages of {service} failed");
        assert_eq!(count(&system, service, "SELECT count(*) FROM sagabus.held").await, Some(0));
        let slowest = "SELECT (1000 * extract(epoch FROM max(handled_at - sent_at)))::bigint FROM sagabus.inbox
            WHERE result = 'handled'";
        let slowest = count(&system, service, slowest).await.expect("messages were handled");
        assert!(slowest < 10_000, "a message of {service} waited {slowest} ms: longer than the lease");
    }
}

/// R-043; that `stop` is called twice does not compile, for it takes the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn r_043_a_second_signal_is_harmless_and_a_service_that_ended_starts_again() {
    let system = System::create().await;
    let port = free_port();
    for _ in 0..2 {
        let mut services = serve_all(&system, port, &[]).await;
        ready(port).await;
        place(&system, &[port], 3).await;
        for service in &mut services {
            service.signal();
            assert!(service.terminate().await, "an orderly end was expected after two signals");
            assert!(!service.log().contains("panicked"), "{}", service.log());
        }
    }
    let mut services = serve_all(&system, port, &[]).await;
    system.verify(6).await;
    for service in &mut services {
        assert!(service.terminate().await, "an orderly end was expected");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_put_twice_on_every_queue_changes_nothing() {
    let system = System::create().await;
    let port = free_port();
    let _services = serve_all(&system, port, &["--bundles"]).await;
    ready(port).await;
    let doubled = Arc::new(Doubled::default());
    double(&system, doubled.clone()).await;
    place(&system, &[port], 100).await;
    // many messages are in a bundle, each of which counts once
    eventually("at least 120 doubled messages, and bundles among them", || {
        let (all, bundles) = (doubled.all.load(Ordering::SeqCst), doubled.bundles.load(Ordering::SeqCst));
        async move { (all >= 120 && bundles >= 5).then_some(()) }
    })
    .await;
    system.verify(100).await;
}

/// What `double` did.
#[derive(Default)]
struct Doubled {
    all: AtomicUsize,
    bundles: AtomicUsize,
}

/// Puts every message once more on every queue that it reached, bundles whole.
async fn double(system: &System, doubled: Arc<Doubled>) {
    const MARK: &str = "doubled";
    let mut tracer = Tracer::start(&system.vhost).await;
    let plain = Plain::connect(&system.vhost.url()).await;
    tokio::spawn(async move {
        while let Some(Traced { queues, properties, body }) = tracer.next().await {
            let mut headers = properties.headers().clone().unwrap_or_default();
            if headers.inner().contains_key(MARK) {
                continue; // published here
            }
            headers.insert(MARK.into(), AMQPValue::Boolean(true));
            let is_bundle = is_bundle(&properties);
            let properties = properties.with_headers(headers);
            for queue in queues {
                let options = BasicPublishOptions::default();
                let publish = plain.channel.basic_publish("".into(), queue, options, &body, properties.clone());
                if let Ok(confirm) = publish.await {
                    let _ = confirm.await; // the test is over
                }
                doubled.all.fetch_add(1, Ordering::SeqCst);
                doubled.bundles.fetch_add(usize::from(is_bundle), Ordering::SeqCst);
            }
        }
    });
}

/// Counts the bundles that reach each service.
async fn count_bundles(system: &System) -> Arc<Mutex<BTreeMap<String, usize>>> {
    let bundles = Arc::new(Mutex::new(BTreeMap::new()));
    let (counted, mut tracer) = (bundles.clone(), Tracer::start(&system.vhost).await);
    tokio::spawn(async move {
        while let Some(traced) = tracer.next().await {
            if is_bundle(&traced.properties) {
                let mut counted = counted.lock().expect("nobody panics with this lock");
                traced.queues.iter().for_each(|queue| *counted.entry(queue.to_string()).or_default() += 1);
            }
        }
    });
    bundles
}

/// Bundles are in flight wherever the processes die: every service takes them.
#[tokio::test(flavor = "multi_thread")]
async fn o_024_o_025_o_027_o_028_a_crash_at_any_step_leaves_a_ledger_that_a_restart_completes() {
    for (n, step) in CrashPoint::ALL.iter().enumerate() {
        let system = System::create().await;
        let port = free_port();
        let times = 1 + n % 2;
        let crash = format!("{step:?}:{times}");
        let mut services = serve_all(&system, port, &["--bundles", "--crash-at", &crash]).await;
        let bundles = count_bundles(&system).await;
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
            let arguments: Vec<&str> = ["--bundles", "--listen", &listen].into_iter().chain(SHORT).collect();
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
        eventually(&format!("bundles to several services at step {step:?}"), || async {
            (bundles.lock().expect("nobody panics with this lock").len() >= 2).then_some(())
        })
        .await;
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
