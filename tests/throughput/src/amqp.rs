//! AMQP by hand: queues, a publisher with a window of confirms.

use crate::work::Service;
use anyhow::{Context, Result};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// More in flight costs lapin more than it brings: it looks through all pending tags at each multiple ack.
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
    let events =
        [crate::work::OrderPlaced::TYPE, crate::work::PaymentCompleted::TYPE, crate::work::ShippingLabelCreated::TYPE];
    for service in Service::ALL {
        let queue = format!("{prefix}{}", service.name());
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in Service::ALL.map(Service::name).into_iter().chain(events) {
        let exchange = format!("{prefix}{exchange}");
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
    }
    Ok(())
}

/// What goes to the broker.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) id: Uuid,
    pub(crate) kind: &'static str,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) body: Vec<u8>,
}

impl Publish {
    fn properties(&self) -> BasicProperties {
        let id = self.id.to_string();
        BasicProperties::default().with_message_id(id.as_str().into()).with_type(self.kind.into()).with_delivery_mode(2)
    }
}

/// Publishes with a window of confirms; returns where to put messages. Those confirmed come out of `confirmed`.
pub(crate) async fn publisher(
    connection: &Connection,
    confirmed: mpsc::UnboundedSender<Uuid>,
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
                            let properties = publish.properties();
                            let Publish { id, exchange, routing_key, body, .. } = publish;
                            let options = BasicPublishOptions::default();
                            let confirm = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
                            match confirm {
                                Ok(confirm) => (id, confirm.await),
                                Err(error) => (id, Err(error)),
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

fn settle((id, answer): (Uuid, Result<Confirmation, lapin::Error>), confirmed: &mpsc::UnboundedSender<Uuid>) {
    match answer {
        Ok(Confirmation::Ack(_)) => {
            let _ = confirmed.send(id); // nobody keeps count
        }
        other => panic!("the broker did not confirm {id}: {other:?}"),
    }
}
