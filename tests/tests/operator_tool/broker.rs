//! `sagabus doctor --broker`: what the broker has for the endpoints of a database, over AMQP alone.

use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use saga_core::{Endpoint, Message};
use serde_json::Value;
use tests::{
    Database, Vhost,
    model::{Arrived, Listener},
    plain::Plain,
    tool::{json, run},
};

/// What the doctor says of the broker, and the codes of its findings.
fn asked(database: &str, broker: &str) -> (Value, Vec<String>) {
    let (_, out, err) = run(&[database], &["--json", "doctor", "--broker", broker]);
    let found = json(&out).as_array().and_then(|all| all.last().cloned()).unwrap_or_default();
    assert!(found["advice"].is_array(), "no broker in {out}{err}");
    let codes = codes(&found["advice"]);
    (found, codes)
}

fn codes(texts: &Value) -> Vec<String> {
    let texts = texts.as_array().into_iter().flatten().filter_map(Value::as_str);
    let codes = texts.filter_map(|text| text.rsplit_once(" ["));
    codes.map(|(_, code)| code.trim_end_matches(']').to_owned()).collect()
}

async fn listener(vhost: &Vhost, database: &Database) -> Endpoint<outbox::Postgres> {
    let builder = Endpoint::builder("listener", vhost.transport(), database.store());
    builder.subscribe::<Arrived>(Listener::default()).start().await.expect("the listener starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_says_what_the_broker_has_for_the_endpoints() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let (url, broker) = (database.url(), vhost.url());
    let running = listener(&vhost, &database).await;
    let (found, told) = asked(&url, &broker);
    assert_eq!(told, [""; 0], "nothing is wrong while it runs: {found}");
    let queue = &found["queues"][0];
    assert_eq!((&queue["queue"], &queue["messages"], &queue["fits"]), (&"listener".into(), &0.into(), &true.into()));
    assert!(queue["consumers"].as_u64() > Some(0), "its process consumes: {found}");
    let (_, out, _) = run(&[&url], &["doctor", "--broker", &broker]);
    assert!(
        out.contains("queues of the endpoints in these databases") && out.contains("nothing wrong was found"),
        "{out}"
    );

    running.stop().await.expect("it stops");
    let stranger = Plain::connect(&broker).await;
    stranger.queue("listener_error").await;
    let (found, told) = asked(&url, &broker);
    assert_eq!((told, codes(&found["remarks"])), (vec![], vec!["SB0071".to_owned()]), "an empty one harms nobody");
    stranger.publish("listener", lapin::BasicProperties::default(), b"{}").await;
    stranger.publish("listener_error", lapin::BasicProperties::default(), b"{}").await;
    vhost.remove("exchanges", Arrived::TYPE).await;
    let (found, told) = asked(&url, &broker);
    assert_eq!(told, ["SB0069", "SB0071", "SB0070"], "unread, left over, unbound were expected: {found}");
    assert_eq!(found["queues"][0]["messages"], 1, "{found}");

    vhost.remove("queues", "listener_error").await;
    vhost.remove("queues", "listener").await;
    let (found, told) = asked(&url, &broker);
    assert_eq!(told, ["SB0067", "SB0070"], "no queue, no exchange were expected: {found}");
    stranger.queue("listener").await;
    let (found, told) = asked(&url, &broker);
    assert_eq!(told, ["SB0068", "SB0070"], "a classic queue is unsafe: {found}");
    let queues = vhost.list("queues").await;
    assert_eq!(queues.len(), 1, "who looks creates nothing: {queues:?}");

    vhost.remove("queues", "listener").await;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    stranger.channel.queue_declare("listener".into(), durable, quorum).await.expect("a queue");
    let (found, told) = asked(&url, &broker);
    assert_eq!(told, ["SB0013", "SB0070"], "a quorum queue without a delivery limit of ours may drop: {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_without_all_databases_does_not_say_that_all_is_well() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let running = listener(&vhost, &database).await;
    let away = "postgres://nobody@127.0.0.1:1/away";
    let (code, out, err) = run(&[&database.url(), away], &["doctor", "--broker", &vhost.url()]);
    let broker = out.split_once("queues of the endpoints").expect("the broker answers").1;
    assert!(code == 1 && broker.contains("not every database") && !broker.contains("nothing wrong"), "{out}");
    assert_eq!(err.matches("127.0.0.1:1/away").count(), 1, "it is told once: {err}");
    running.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_says_what_its_user_may_not_and_keeps_the_password() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    listener(&vhost, &database).await.stop().await.expect("it stops");
    let url = database.url();
    vhost.permit(["", ".*", ".*"]).await;
    let (found, told) = asked(&url, &vhost.url());
    assert_eq!(told, [""; 0], "a passive service needs no right to configure: {found}");
    assert_eq!(codes(&found["remarks"]), ["SB0014"], "{found}");
    let wrong = vhost.url().replace("guest:guest", "guest:s3cret");
    let (code, out, err) = run(&[&url], &["doctor", "--broker", &wrong]);
    assert!(code == 1 && err.contains("[SB0012]"), "{err}");
    assert!(!format!("{out}{err}").contains("s3cret"), "{out}{err}");
}
