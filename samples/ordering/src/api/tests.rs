//! The API on a socket, in front of an endpoint in this process.

use super::*;
use crate::ledger::Service;
use reqwest::{Client, Method};
use sagabus::{
    InProcess, Sqlite, async_trait,
    port::{Link, LinkLimits, Topology, Transport, TransportError},
};
use std::{path::PathBuf, sync::Mutex};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// Ordering alone: its orders are placed and wait for a payment that never comes.
struct Ordering {
    url: String,
    client: Client,
    store: Sqlite,
    folder: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Arc<Endpoint<Sqlite>>>,
}

impl Ordering {
    async fn start() -> Self {
        Self::start_on(InProcess::of(&Service::ALL.map(Service::name))).await
    }

    async fn start_on(bus: impl Transport) -> Self {
        let folder = std::env::temp_dir().join(format!("ordering-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        let store = Sqlite::open(folder.join("ordering.db")).await.expect("a new file opens");
        store.create_tables(Service::Ordering).await.expect("the tables are created");
        let endpoint = services::ordering(bus, store.clone(), None).start().await.expect("ordering starts");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let timeout = Duration::from_secs(60);
        let endpoint = Arc::new(endpoint);
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await; // a test that stops nothing drops the sender at its end
            };
            let end = Duration::from_millis(100);
            serve(listener, &endpoint, timeout, stop, end).await.expect("the API is served");
            endpoint
        });
        Self { url, client: Client::new(), store, folder, stop: Some(stop), serving }
    }

    /// The status and the JSON of an answer.
    async fn ask(&self, method: Method, path: &str, content_type: &str, body: impl Into<String>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body.into());
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let answer = request.send().await.expect("the API answers");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        let json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {status}, no JSON: `{text}`"));
        (status, json)
    }

    async fn place(&self, order: &Value) -> (u16, Value) {
        self.ask(Method::POST, "/orders", "application/json", order.to_string()).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, "", "").await
    }
}

impl Drop for Ordering {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn order(order_id: &str) -> Value {
    json!({ "order_id": order_id, "customer": "Ada", "address": "1 Main Street", "amount_cents": 4200 })
}

const ID: &str = "01a1fc8f-b622-77bb-9166-a7df7985a06d";

#[tokio::test]
async fn the_same_order_again_is_accepted_and_another_one_under_its_id_is_a_conflict() {
    let ordering = Ordering::start().await;
    for _ in 0..2 {
        assert_eq!(ordering.place(&order(ID)).await, (202, json!({ "order_id": ID })));
    }
    for (field, value) in
        [("customer", json!("Somebody else")), ("address", json!("elsewhere")), ("amount_cents", json!(1))]
    {
        let mut other = order(ID);
        other[field] = value;
        let (status, refusal) = ordering.place(&other).await;
        assert_eq!((status, &refusal["field"], &refusal["order_id"]), (409, &json!(field), &json!(ID)), "{refusal}");
    }
    let (status, shown) = ordering.get(&format!("/orders/{ID}")).await;
    assert_eq!(status, 200);
    for (field, value) in order(ID).as_object().expect("an object") {
        assert_eq!(&shown[field], value, "{shown}");
    }
}

#[tokio::test]
async fn every_refusal_is_json_with_a_reason() {
    let ordering = Ordering::start().await;
    let good = order(ID).to_string();
    let large = format!("{{\"customer\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    for (method, path, content_type, body, status, field) in [
        (Method::POST, "/orders", "application/xml", &good, 415, json!("content-type")),
        (Method::POST, "/orders", "", &"[".to_owned(), 400, json!("body")),
        (Method::POST, "/orders", "application/json", &large, 413, json!("body")),
        (Method::DELETE, "/orders", "", &good, 405, Value::Null),
        (Method::POST, "/health/ready", "", &good, 405, Value::Null),
        (Method::GET, "/nowhere", "", &good, 404, Value::Null),
        (Method::GET, "/orders/nonsense", "", &good, 404, Value::Null),
        (Method::GET, "/orders/%ff", "", &good, 404, Value::Null),
        (Method::GET, "/orders/01a1fc8f-b622-77bb-9166-000000000000/events", "", &good, 404, Value::Null),
    ] {
        let (found, refusal) = ordering.ask(method.clone(), path, content_type, body.as_str()).await;
        assert_eq!((found, &refusal["field"]), (status, &field), "{method} {path}: {refusal}");
        assert!(refusal["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{method} {path}: {refusal}");
    }
    // what README's `curl -d` sends
    let (status, _) = ordering.ask(Method::POST, "/orders", "application/x-www-form-urlencoded", good).await;
    assert_eq!(status, 202);
    let allowed = ordering.client.delete(format!("{}/orders", ordering.url)).send().await.expect("the API answers");
    assert_eq!(allowed.headers()["allow"], "POST");
}

#[tokio::test]
async fn without_its_database_ordering_names_the_order_to_try_again_and_is_not_ready() {
    let ordering = Ordering::start().await;
    let up = json!({ "ready": true, "database": "up", "broker": "up" });
    assert_eq!(ordering.get("/health/ready").await, (200, up));
    ordering.store.close().await;
    let mut anonymous = order(ID);
    anonymous["order_id"] = Value::Null;
    let (status, refusal) = ordering.place(&anonymous).await;
    assert_eq!(status, 503);
    let chosen = refusal["order_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    assert!(chosen.is_some(), "the id that was chosen is missing: {refusal}");
    let (status, refusal) = ordering.get(&format!("/orders/{ID}")).await;
    assert_eq!((status, &refusal["order_id"]), (503, &json!(ID)), "{refusal}");
    let noticed = async {
        loop {
            let (status, health) = ordering.get("/health/ready").await;
            if status != 200 {
                return (status, health);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (status, health) = tokio::time::timeout(Duration::from_secs(30), noticed).await.expect("it is noticed");
    assert_eq!((status, &health["ready"], &health["broker"]), (503, &json!(false), &json!("up")), "{health}");
    assert!(health["database"].as_str().is_some_and(|database| database.starts_with("away: ")), "{health}");
    assert_eq!(ordering.get("/health/live").await, (200, json!({ "live": true })));
}

/// A transport that ends when the test says so, like one with a bug.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<Option<watch::Sender<LinkState>>>>);

impl Ending {
    pub(crate) fn end(&self) {
        self.0.lock().expect("no test panicked with it").take().expect("an endpoint is attached");
    }
}

#[async_trait]
impl Transport for Ending {
    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError> {
        let mut link = InProcess::of(&Service::ALL.map(Service::name)).attach(topology, limits).await?;
        let (state, told) = watch::channel(LinkState::Up);
        *self.0.lock().expect("no test panicked with it") = Some(state);
        link.state = told;
        Ok(link)
    }
}

#[tokio::test]
async fn an_endpoint_that_has_failed_is_not_ready() {
    let bus = Ending::default();
    let ordering = Ordering::start_on(bus.clone()).await;
    assert_eq!(ordering.get("/health/ready").await.0, 200);
    bus.end();
    let failed = async {
        loop {
            let (status, health) = ordering.get("/health/ready").await;
            if status != 200 {
                return (status, health);
            }
            tokio::task::yield_now().await;
        }
    };
    let (status, health) = tokio::time::timeout(Duration::from_secs(10), failed).await.expect("it is noticed");
    assert_eq!((status, &health["ready"], &health["database"]), (503, &json!(false), &json!("up")), "{health}");
    assert!(health["broker"].as_str().is_some_and(|broker| broker.contains("the endpoint has failed")), "{health}");
}

#[tokio::test]
async fn a_client_that_watches_an_order_does_not_keep_ordering_from_stopping() {
    let mut ordering = Ordering::start().await;
    assert_eq!(ordering.place(&order(ID)).await.0, 202);
    let mut events = ordering.client.get(format!("{}/orders/{ID}/events", ordering.url)).send().await.expect("events");
    assert!(events.chunk().await.expect("the order as it is").is_some());
    ordering.stop.take().expect("it was not stopped before").send(()).expect("the API is served");
    let endpoint = (&mut ordering.serving).await.expect("it ends without a panic");
    let alone = tokio::time::timeout(Duration::from_secs(5), crate::serve::alone(endpoint)).await;
    alone.expect("nobody else holds the endpoint").stop().await.expect("an orderly end");
    let rest = async { while events.chunk().await.expect("an end, not an error").is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), rest).await.expect("the events end with the service");
}
