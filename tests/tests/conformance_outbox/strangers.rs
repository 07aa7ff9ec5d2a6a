//! Other programs on RabbitMQ: what they send, and the answers that they wait for.

use super::*;
use async_trait::async_trait;
use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, DecimalValue, FieldTable},
};
use saga_core::{Context, Handle, HandlerError, Retries};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Mutex};
use tests::{
    eventually,
    house::{one_held, retry},
    model::{Work, WorkOutcome, Worked, Worker},
    plain::{Plain, next},
};

fn text(property: Option<&lapin::types::ShortString>) -> Option<&str> {
    property.map(|text| text.as_str())
}

/// A command as a plain client sends it.
fn properties(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into()).with_type("worker.Work".into())
}

/// T-030: the answer to a plain client comes with its correlation id; a queue that is gone blocks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn t_030_a_plain_client_gets_its_answer_and_one_that_is_gone_blocks_nobody() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let two = Two { stores: [database.store(), database.store()], transports: [vhost.transport(), vhost.transport()] };
    two.db().create_effects().await;
    let worker = two.endpoint(0, "worker").handle::<Work>(Worker::default()).start().await.unwrap();
    let plain = Plain::connect(&vhost.url()).await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = plain.channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap().name().clone();
    let ask = async |id: u64| {
        let asking = properties(&format!("ask-{id}")).with_reply_to(queue.clone()).with_correlation_id("c-1".into());
        plain.publish("worker", asking, json!({ "id": id, "note": "" }).to_string().as_bytes()).await;
    };
    ask(1).await;
    let answer = next(&mut plain.consume(queue.as_str()).await).await;
    assert_eq!(text(answer.properties.kind().as_ref()), Some("worker.Worked"));
    assert_eq!(text(answer.properties.correlation_id().as_ref()), Some("c-1"));
    let caused = answer.properties.headers().as_ref().and_then(|headers| headers.inner().get("causation-id").cloned());
    assert_eq!(caused, Some(AMQPValue::LongString("ask-1".into())));
    assert_eq!(answer.data, br#"{"id":1}"#);

    plain.channel.queue_delete(queue.clone(), Default::default()).await.unwrap();
    for id in 2..=11 {
        ask(id).await;
    }
    eventually("the effects", || async { (two.count("effect").await == 11).then_some(()) }).await;
    let waiting = format!("{{s}}outbox WHERE waits_for = '{queue}' AND last_error IS NOT NULL");
    eventually("ten answers to wait", || async { (two.count(&waiting).await == 10).then_some(()) }).await;
    eventually("all else to leave", || async { (two.count("{s}outbox").await == 10).then_some(()) }).await;
    stop([worker]).await;
}

/// Fails once, and keeps the headers that it saw.
#[derive(Clone, Default)]
struct Reader(Arc<Mutex<Vec<BTreeMap<String, Value>>>>);

#[async_trait]
impl Handle<Work, Postgres> for Reader {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        let mut saw = self.0.lock().expect("nobody panics with this lock");
        saw.push(cx.envelope().headers.clone());
        match saw.len() {
            1 => Err(HandlerError::permanent("not yet")),
            _ => Ok(Worked { id: work.id }.into()),
        }
    }
}

/// T-027: headers of every type come, are held, and are the same after a retry.
#[tokio::test(flavor = "multi_thread")]
async fn t_027_headers_of_every_type_are_seen_and_are_the_same_after_a_retry() {
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let two = Two { stores: [database.store(), database.store()], transports: [vhost.transport(), vhost.transport()] };
    let reader = Reader::default();
    let builder = two.endpoint(0, "worker").retries(Retries::none());
    let worker = builder.handle::<Work>(reader.clone()).start().await.unwrap();
    let mut nested = FieldTable::default();
    nested.insert("deep".into(), AMQPValue::LongString("é".into()));
    let kinds = [
        ("void", AMQPValue::Void, json!(null)),
        ("bool", AMQPValue::Boolean(true), json!(true)),
        ("i8", AMQPValue::ShortShortInt(-8), json!(-8)),
        ("u8", AMQPValue::ShortShortUInt(200), json!(200)),
        ("i16", AMQPValue::ShortInt(-300), json!(-300)),
        ("u16", AMQPValue::ShortUInt(60_000), json!(60_000)),
        ("i32", AMQPValue::LongInt(-70_000), json!(-70_000)),
        ("u32", AMQPValue::LongUInt(4_000_000_000), json!(4_000_000_000_u32)),
        ("i64", AMQPValue::LongLongInt(i64::MIN), json!(i64::MIN)),
        ("float", AMQPValue::Float(1.5), json!(1.5)),
        ("double", AMQPValue::Double(-2.25), json!(-2.25)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1250 }), json!(12.5)),
        ("time", AMQPValue::Timestamp(1_795_000_000), json!(1_795_000_000)),
        ("text", AMQPValue::LongString("é".into()), json!("é")),
        ("bytes", AMQPValue::ByteArray(b"bytes".to_vec().into()), json!("bytes")),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::ShortInt(7)].into()), json!([null, 7])),
        ("table", AMQPValue::FieldTable(nested), json!({ "deep": "é" })),
    ];
    let mut headers = FieldTable::default();
    for (name, value, _) in &kinds {
        headers.insert((*name).into(), value.clone());
    }
    let expected: BTreeMap<String, Value> =
        kinds.into_iter().map(|(name, _, value)| (name.to_owned(), value)).collect();
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish("worker", properties("m-1").with_headers(headers), br#"{"id":1,"note":""}"#).await;
    let held = one_held(two.db()).await;
    assert_eq!(held.error.as_deref(), Some("not yet"));
    assert_eq!(retry(two.db(), &held).await, 1);
    let saw = || reader.0.lock().expect("nobody panics with this lock").clone();
    eventually("the second run", || async { (saw().len() == 2).then_some(()) }).await;
    assert_eq!(saw(), [expected.clone(), expected]);
    stop([worker]).await;
}
