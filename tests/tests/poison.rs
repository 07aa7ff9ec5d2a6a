//! Messages that the broker refuses, under a whole endpoint: each is reported, and none affects another.

use async_trait::async_trait;
use lapin::{Connection, ConnectionProperties, options::ExchangeDeleteOptions};
use outbox::Postgres;
use saga_core::{Context, Endpoint, Event, Handle, HandlerError, Inspect, OutboxFilter};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    process::Command,
    sync::{Arc, Mutex},
};
use tests::{Database, Vhost, eventually, process::program};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Counted {
    n: u32,
}

/// Its exchange is deleted.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Gone {}

/// Larger than the broker takes.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Large {
    text: String,
}

#[derive(Clone, Default)]
struct Counter(Arc<Mutex<Vec<u32>>>);

#[async_trait]
impl Handle<Counted, Postgres> for Counter {
    async fn handle(&self, counted: Counted, _: &mut Context<'_, Postgres>) -> Result<(), HandlerError> {
        self.0.lock().expect("nobody panics with this lock").push(counted.n);
        Ok(())
    }
}

async fn count(endpoint: &Endpoint<Postgres>, numbers: std::ops::Range<u32>) {
    let mut session = endpoint.session().await.unwrap();
    for n in numbers {
        session.publish(Counted { n });
    }
    session.commit().await.unwrap();
}

async fn publish<E: Event>(endpoint: &Endpoint<Postgres>, event: E) {
    let mut session = endpoint.session().await.unwrap();
    session.publish(event);
    session.commit().await.unwrap();
}

async fn quiet(store: &Postgres) {
    eventually("an empty outbox", || async {
        (store.outbox_count(&OutboxFilter::default()).await.ok()? == 0).then_some(())
    })
    .await;
}

/// A thousand events flow while three are published that the broker refuses: one with a header that the broker does not
/// understand, put into the outbox by another program; one of 20 MB; one for an exchange that was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn o_035_three_refused_messages_are_told_and_a_thousand_others_arrive_in_order() {
    let (vhost, database, other) = (Vhost::create().await, Database::create().await, Database::create().await);
    let counter = Counter::default();
    let receiver = Endpoint::builder("receiver", vhost.transport(), other.store())
        .subscribe::<Counted>(counter.clone())
        .settings(|settings| settings.handler_lanes = 1)
        .start()
        .await
        .unwrap();
    // an endpoint that is not passive declares what the passive one needs
    let declaring = Endpoint::builder("sender", vhost.transport(), database.store()).start().await.unwrap();
    publish(&declaring, Gone {}).await;
    publish(&declaring, Large { text: String::new() }).await;
    quiet(declaring.store()).await;
    declaring.stop().await.unwrap();

    let sender = Endpoint::builder("sender", vhost.transport(), database.store())
        .settings(|settings| {
            settings.passive = true;
            settings.body_bytes_max = 64 << 20;
        })
        .start()
        .await
        .unwrap();
    publish(&sender, Gone {}).await; // its exchange is known
    quiet(sender.store()).await;
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.exchange_delete("client.Gone".into(), ExchangeDeleteOptions::default()).await.unwrap();

    count(&sender, 0..500).await;
    sqlx::query(
        "INSERT INTO sagabus.outbox
             (id, endpoint, message_id, kind, type, destination, envelope, body, created_at, due_at)
         SELECT gen_random_uuid(), 'sender', 'another program', 'event', 'client.Counted', 'client.Counted',
             ('{\"message_id\": \"another program\", \"type\": \"client.Counted\", \"headers\": {\"'
                 || repeat('n', 300) || '\": 1}}')::json,
             '{}', now(), now()",
    )
    .execute(sender.store().pool())
    .await
    .unwrap();
    publish(&sender, Gone {}).await;
    publish(&sender, Large { text: "x".repeat(20 << 20) }).await;
    count(&sender, 500..1000).await;

    let numbers = || counter.0.lock().expect("nobody panics with this lock").clone();
    eventually("1,000 events", || async { (numbers().len() >= 1000).then_some(()) }).await;
    assert!(numbers().into_iter().eq(0..1000), "they were expected once each and in order: {:?}", numbers());

    let refused = eventually("the three in `sagabus outbox list`", || async {
        let listed = Command::new(program("sagabus"))
            .args(["--database", &database.url(), "--json", "outbox", "list", "--failing"])
            .output()
            .ok()?;
        let rows: Value = serde_json::from_slice(&listed.stdout).ok()?;
        let rows = rows.as_array()?.clone();
        let told = |row: &Value| row["last_error"].as_str().is_some_and(|error| !error.is_empty());
        (rows.len() == 3 && rows.iter().all(told)).then_some(rows)
    })
    .await;
    for (type_name, says) in [("client.Counted", "255 bytes"), ("client.Gone", "client.Gone"), ("client.Large", "size")]
    {
        let row = refused.iter().find(|row| row["type"] == type_name);
        let error = row.and_then(|row| row["last_error"].as_str()).unwrap_or_default();
        assert!(error.contains(says), "{type_name}: `{says}` was expected in `{error}`");
    }
    sender.stop().await.unwrap();
    receiver.stop().await.unwrap();
}
