//! A plain AMQP client: what a program that is not Sagabus sees and does, bundles included.

use crate::PATIENCE;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use saga_core::Envelope;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// The `type` of an AMQP message that holds several of ours.
pub const BUNDLE: &str = "sagabus.bundle";

/// The content type of such a message: any other version is foreign.
pub const BUNDLE_V1: &str = "application/vnd.sagabus.bundle.v1+json";

/// The exchange to which queues are bound that take them.
const BUNDLES: &str = "sagabus.bundles.v1";

/// One connection with one channel that confirms.
#[derive(Debug)]
pub struct Plain {
    connection: Connection,
    /// The channel.
    pub channel: Channel,
}

impl Plain {
    /// Connects.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn connect(url: &str) -> Self {
        let connection =
            Connection::connect(url, ConnectionProperties::default()).await.expect("the broker lets us in");
        let channel = connection.create_channel().await.expect("a channel opens");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { connection, channel }
    }

    /// Declares a durable queue as any program may.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn queue(&self, name: &str) {
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(name.into(), durable, FieldTable::default()).await.expect("a queue");
    }

    /// Binds a queue to an exchange, which it declares.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn bind(&self, queue: &str, exchange: &str) {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared =
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, durable, FieldTable::default());
        declared.await.expect("an exchange");
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        self.channel.queue_bind(queue.into(), exchange.into(), "".into(), options, none).await.expect("a binding");
    }

    /// Takes a queue's binding to the exchange for bundles away.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn unbind_bundles(&self, queue: &str) {
        let unbound = self.channel.queue_unbind(queue.into(), BUNDLES.into(), queue.into(), FieldTable::default());
        unbound.await.expect("the binding is there");
    }

    /// Deletes the exchange for bundles.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn delete_bundles(&self) {
        self.channel.exchange_delete(BUNDLES.into(), Default::default()).await.expect("the exchange is there");
    }

    /// Consumes a queue.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.expect("a consumer")
    }

    /// Publishes to a queue, and waits for the confirm.
    ///
    /// # Panics
    /// When the broker refuses, or no queue takes it.
    pub async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let published = self.channel.basic_publish("".into(), queue.into(), options, body, properties);
        let confirm = published.await.expect("it is published").await.expect("a confirm");
        assert!(matches!(confirm, Confirmation::Ack(None)), "the queue `{queue}` was expected to take it: {confirm:?}");
    }

    /// Publishes a bundle with this id.
    pub async fn publish_bundle(&self, queue: &str, id: &str, body: &[u8]) {
        self.publish(queue, bundle_properties(id), body).await;
    }

    /// Publishes a message of ours alone.
    pub async fn publish_one(&self, queue: &str, envelope: &Envelope) {
        let properties = BasicProperties::default()
            .with_message_id(envelope.message_id.as_str().into())
            .with_type(envelope.type_name.as_str().into());
        self.publish(queue, properties, &envelope.body).await;
    }

    /// Closes the connection.
    ///
    /// # Panics
    /// When the broker does not close it.
    pub async fn close(self) {
        self.connection.close(200, "".into()).await.expect("an orderly end");
    }
}

/// The AMQP properties of a bundle.
pub fn bundle_properties(id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_message_id(id.into())
        .with_type(BUNDLE.into())
        .with_content_type(BUNDLE_V1.into())
        .with_delivery_mode(2)
}

/// The body of a bundle of messages whose bodies are JSON.
///
/// # Panics
/// When an envelope cannot be written.
pub fn bundle_body<'a>(envelopes: impl IntoIterator<Item = &'a Envelope>) -> Vec<u8> {
    let parts = envelopes.into_iter().map(|envelope| {
        let body: Value = serde_json::from_slice(&envelope.body).expect("a test writes JSON here");
        json!({ "envelope": envelope, "body": body })
    });
    serde_json::to_vec(&parts.collect::<Vec<_>>()).expect("envelopes are JSON")
}

/// The next delivery of a plain consumer, acknowledged.
///
/// # Panics
/// When none comes.
pub async fn next(consumer: &mut Consumer) -> Delivery {
    let came = timeout(PATIENCE, consumer.next()).await.expect("an AMQP message was expected");
    let delivery = came.expect("the consumer lives").expect("the channel lives");
    delivery.acker.ack(BasicAckOptions::default()).await.expect("it is acknowledged");
    delivery
}

/// Whether an AMQP message is a bundle.
pub fn is_bundle(properties: &BasicProperties) -> bool {
    properties.kind().as_ref().is_some_and(|kind| kind.as_str() == BUNDLE)
}

/// The bodies of the messages in an AMQP message, which is a bundle or a single one.
///
/// # Panics
/// When a bundle is not the documented JSON.
pub fn bodies(delivery: &Delivery) -> Vec<String> {
    if !is_bundle(&delivery.properties) {
        return vec![String::from_utf8_lossy(&delivery.data).into_owned()];
    }
    parts(&delivery.data).iter().map(|part| part["body"].to_string()).collect()
}

/// The messages in the body of a bundle.
///
/// # Panics
/// When it is not a JSON array.
pub fn parts(body: &[u8]) -> Vec<Value> {
    serde_json::from_slice(body).expect("a bundle is a JSON array")
}

/// What a plain consumer gets until this many messages have come.
///
/// # Panics
/// When not.
pub async fn read(plain: &Plain, queue: &str, messages: usize) -> Vec<Delivery> {
    let mut consumer = plain.consume(queue).await;
    let (mut all, mut count) = (Vec::new(), 0);
    while count < messages {
        let came = next(&mut consumer).await;
        count += bodies(&came).len();
        all.push(came);
    }
    assert_eq!(count, messages, "no more messages were expected");
    all
}

/// That they are these numbers, in order, each in an AMQP message of its own.
///
/// # Panics
/// When not.
pub fn assert_single(came: &[Delivery], numbers: impl IntoIterator<Item = u128>) {
    assert!(!came.iter().any(|came| is_bundle(&came.properties)), "single messages were expected, and bundles came");
    assert_numbers(came, numbers);
}

/// That they are these numbers, in order.
///
/// # Panics
/// When not.
pub fn assert_numbers(came: &[Delivery], numbers: impl IntoIterator<Item = u128>) {
    let numbers: Vec<String> = numbers.into_iter().map(|n| n.to_string()).collect();
    let all: Vec<String> = came.iter().flat_map(bodies).collect();
    assert_eq!(all, numbers, "they were expected once and in order");
}

/// What the broker's tracer reports of publishing: <https://www.rabbitmq.com/docs/firehose>.
#[derive(Debug)]
pub struct Tracer {
    _plain: Plain,
    consumer: Consumer,
}

/// An AMQP message that was published.
#[derive(Debug)]
pub struct Traced {
    /// The queues that it reached.
    pub queues: Vec<ShortString>,
    /// Its properties, as far as tests need them.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Tracer {
    /// Traces a virtual host from now on.
    ///
    /// # Panics
    /// When the broker does not let us, or reports nothing.
    pub async fn start(vhost: &crate::Vhost) -> Self {
        vhost.trace().await;
        let plain = Plain::connect(&vhost.url()).await;
        let (exclusive, none) = (QueueDeclareOptions { exclusive: true, ..Default::default() }, FieldTable::default);
        let channel = &plain.channel;
        let queue = channel.queue_declare("".into(), exclusive, none()).await.expect("a queue").name().clone();
        let (bind, trace) = (QueueBindOptions::default(), "amq.rabbitmq.trace");
        let bound = channel.queue_bind(queue.clone(), trace.into(), "publish.#".into(), bind, none());
        bound.await.expect("a binding");
        let mut consumer = plain.consume(queue.as_str()).await;
        // the tracer is on once it reports a message
        for tries in 0.. {
            assert!(tries < 100, "the broker's tracer was expected to begin");
            let (options, probe) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish("".into(), "nobody".into(), options, b"", probe).await.expect("a probe");
            if timeout(Duration::from_millis(100), consumer.next()).await.is_ok() {
                break;
            }
        }
        Self { _plain: plain, consumer }
    }

    /// The next AMQP message that reached a queue; `None` when the test is over.
    ///
    /// # Panics
    /// When the broker's report cannot be read.
    pub async fn next(&mut self) -> Option<Traced> {
        loop {
            let report = self.consumer.next().await?.ok()?;
            let _ = report.acker.ack(BasicAckOptions::default()).await; // the test is over
            let (queues, properties) = traced(&report.properties).expect("the tracer says where a message went");
            if !queues.is_empty() {
                return Some(Traced { queues, properties, body: report.data });
            }
        }
    }

    /// The next AMQP message that reached a queue.
    ///
    /// # Panics
    /// When none comes.
    pub async fn message(&mut self) -> Traced {
        let next = timeout(PATIENCE, self.next()).await.expect("an AMQP message was expected");
        next.expect("the tracer goes on")
    }
}

fn traced(report: &BasicProperties) -> Option<(Vec<ShortString>, BasicProperties)> {
    let report = report.headers().as_ref()?.inner();
    let AMQPValue::FieldTable(properties) = report.get("properties")? else { return None };
    let AMQPValue::FieldArray(queues) = report.get("routed_queues")? else { return None };
    let text = |value: &AMQPValue| value.as_long_string().map(|text| ShortString::from(text.to_string()));
    let property = |name: &str| properties.inner().get(name).and_then(text);
    let mut made = BasicProperties::default();
    if let Some(AMQPValue::FieldTable(headers)) = properties.inner().get("headers") {
        made = made.with_headers(headers.clone());
    }
    type Set = fn(BasicProperties, ShortString) -> BasicProperties;
    let sets: [(&str, Set); 6] = [
        ("message_id", BasicProperties::with_message_id),
        ("type", BasicProperties::with_type),
        ("content_type", BasicProperties::with_content_type),
        ("correlation_id", BasicProperties::with_correlation_id),
        ("app_id", BasicProperties::with_app_id),
        ("reply_to", BasicProperties::with_reply_to),
    ];
    for (name, set) in sets {
        if let Some(text) = property(name) {
            made = set(made, text);
        }
    }
    Some((queues.as_slice().iter().filter_map(text).collect(), made))
}
