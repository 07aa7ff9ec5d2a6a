//! AMQP by hand: queues, a publisher with a window of confirms.

use crate::work::{Came, Outgoing, Service};
use anyhow::{Context, Result};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    message::Delivery,
    options::{
        BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use uuid::Uuid;

/// More in flight costs lapin more than it gains: lapin searches all pending tags at each multiple ack.
const WINDOW: usize = 1000;

pub(crate) async fn connect(broker: &str) -> Result<Connection> {
    Connection::connect(broker, ConnectionProperties::default()).await.context("the broker cannot be reached")
}

/// A service's queue, as durable as those of Sagabus: a quorum queue.
pub(crate) async fn declare(channel: &Channel, queue: &str) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.into(), durable, arguments).await?;
    Ok(())
}

/// A channel that consumes.
pub(crate) async fn consuming(connection: &Connection, prefetch: u16) -> Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    Ok(channel)
}

/// Deletes what a round leaves behind.
pub(crate) async fn clean(connection: &Connection, prefix: &str) -> Result<()> {
    use saga_core::Message as _;
    let channel = connection.create_channel().await?;
    let events = [crate::work::OrderPlaced::TYPE];
    for service in Service::ALL {
        let queue = format!("{prefix}{}", service.name());
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    let own = Service::ALL.map(Service::name).into_iter().chain(["sagabus.bundles.v1"]);
    for exchange in own.chain(events) {
        let exchange = format!("{prefix}{exchange}");
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
    }
    Ok(())
}

/// What goes to the broker.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// One, or the messages of a bundle.
    pub(crate) messages: Vec<Outgoing>,
    /// The sending service; `None` for the client.
    pub(crate) from: Option<Service>,
}

impl Publish {
    /// Messages of a service, straight into a queue.
    pub(crate) fn to_queue(queue: &str, from: Service, messages: Vec<Outgoing>) -> Self {
        Self { exchange: "".into(), routing_key: queue.into(), messages, from: Some(from) }
    }
}

/// The same envelope as that of Sagabus, so that its services and those written by hand could talk to each other. The
/// envelope makes a conversation traceable, and the broker and both sides pay for each of its fields. `bare`: only what
/// deduplication needs.
pub(crate) fn properties(message: &Outgoing, from: Option<Service>, bare: bool) -> BasicProperties {
    let id = message.id.to_string();
    let properties = BasicProperties::default()
        .with_message_id(id.as_str().into())
        .with_type(message.kind.into())
        .with_delivery_mode(2);
    let Some(from) = from.filter(|_| !bare) else { return properties };
    let now = Timestamp::now();
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut headers = FieldTable::default();
    headers.insert("causation-id".into(), text(&message.came.id.to_string()));
    headers.insert("saga".into(), text("order"));
    headers.insert("saga-id".into(), text(&message.order_id.to_string()));
    headers.insert("entered".into(), AMQPValue::LongLongInt(1));
    headers.insert("sent-at".into(), text(&format!("{now:.6}")));
    // commands name the requester, answers name the saga that asked
    let properties = if from == Service::Ordering {
        properties.with_reply_to(from.name().into())
    } else {
        headers.insert("receiver".into(), text("order"));
        properties
    };
    properties
        .with_correlation_id(message.came.conversation.to_string().as_str().into())
        .with_content_type("application/json".into())
        .with_timestamp(now.as_second().max(0) as u64)
        .with_app_id(from.name().into())
        .with_headers(headers)
}

/// A message in a bundle, with the same envelope.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bundled<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
    conversation: Uuid,
    causation: Uuid,
    saga: &'a str,
    saga_id: Uuid,
    entered: i64,
    sent_at_us: i64,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    receiver: Option<&'a str>,
    sender: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

const BUNDLE: &str = "bundle";

fn bundle(messages: &[Outgoing], from: Service) -> Result<(BasicProperties, Vec<u8>)> {
    let sent_at_us = Timestamp::now().as_microsecond();
    let asks = from == Service::Ordering;
    let bundled = messages.iter().map(|message| {
        Ok(Bundled {
            id: message.id,
            kind: message.kind,
            conversation: message.came.conversation,
            causation: message.came.id,
            saga: "order",
            saga_id: message.order_id,
            entered: 1,
            sent_at_us,
            reply_to: asks.then_some(from.name()),
            receiver: (!asks).then_some("order"),
            sender: from.name(),
            body: serde_json::from_slice(&message.body)?,
        })
    });
    let bundled = bundled.collect::<Result<Vec<_>>>()?;
    let properties = BasicProperties::default().with_type(BUNDLE.into()).with_delivery_mode(2);
    Ok((properties, serde_json::to_vec(&bundled)?))
}

/// The messages of a delivery: ids, type, body.
pub(crate) fn messages(delivery: &Delivery) -> Result<Vec<(Came, &str, &[u8])>> {
    if delivery.properties.kind().as_ref().is_none_or(|kind| kind.as_str() != BUNDLE) {
        let (came, kind) = came(delivery)?;
        return Ok(vec![(came, kind, &delivery.data)]);
    }
    let bundled: Vec<Bundled<'_>> = serde_json::from_slice(&delivery.data)?;
    let messages = bundled.into_iter().map(|message| {
        let Bundled { id, conversation, kind, body, .. } = message;
        (Came { id, conversation }, kind, body.get().as_bytes())
    });
    Ok(messages.collect())
}

/// The ids of a received message.
pub(crate) fn came(delivery: &Delivery) -> Result<(Came, &str)> {
    let properties = &delivery.properties;
    let id = properties.message_id().as_ref().context("no message id")?.as_str().parse()?;
    let kind = properties.kind().as_ref().context("no type")?.as_str();
    let conversation = properties.correlation_id().as_ref().map(|id| id.as_str().parse()).transpose()?;
    Ok((Came { id, conversation: conversation.unwrap_or(id) }, kind))
}

/// Publishes with a window of confirms. Returns the sender for messages; those confirmed come out of `confirmed`.
pub(crate) async fn publisher(
    connection: &Connection,
    confirmed: mpsc::UnboundedSender<Uuid>,
    bare: bool,
) -> Result<mpsc::UnboundedSender<Publish>> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (sender, mut rows) = mpsc::unbounded_channel::<Publish>();
    tokio::spawn(async move {
        let mut window = FuturesUnordered::new();
        let mut batch = Vec::new();
        loop {
            let room = WINDOW.saturating_sub(window.len());
            tokio::select! {
                Some(answer) = window.next(), if !window.is_empty() => settle(answer, &confirmed),
                n = rows.recv_many(&mut batch, room.min(200)), if room > 0 => {
                    if n == 0 {
                        break;
                    }
                    for publish in batch.drain(..) {
                        let channel = channel.clone();
                        let mut publishing = Box::pin(async move {
                            let Publish { exchange, routing_key, mut messages, from } = publish;
                            let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
                            let (properties, body) = match (messages.as_mut_slice(), from) {
                                ([message], _) => {
                                    (properties(message, from, bare), std::mem::take(&mut message.body))
                                }
                                (several, Some(from)) => bundle(several, from).expect("our own bodies are JSON"),
                                _ => unreachable!("a client sends no bundles"),
                            };
                            let options = BasicPublishOptions::default();
                            match channel.basic_publish(exchange, routing_key, options, &body, properties).await {
                                Ok(confirm) => (ids, confirm.await),
                                Err(error) => (ids, Err(error)),
                            }
                        });
                        match publishing.as_mut().now_or_never() {
                            Some(answer) => settle(answer, &confirmed),
                            None => window.push(publishing),
                        }
                    }
                }
            }
        }
        while let Some(answer) = window.next().await {
            settle(answer, &confirmed);
        }
    });
    Ok(sender)
}

fn settle((ids, answer): (Vec<Uuid>, Result<Confirmation, lapin::Error>), confirmed: &mpsc::UnboundedSender<Uuid>) {
    match answer {
        Ok(Confirmation::Ack(_)) => {
            for id in ids {
                let _ = confirmed.send(id); // nobody keeps count
            }
        }
        other => panic!("the broker did not confirm {ids:?}: {other:?}"),
    }
}
