//! Topology: a quorum queue and a fanout exchange of the endpoint's name, a fanout exchange per event.

use lapin::{
    Channel, Connection, Error, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use saga_core::{Topology, TransportError};

/// The endpoint counts attempts; the broker must not drop a message that processes died over.
const DELIVERY_LIMIT: i64 = 100_000;

/// A name as AMQP takes it: at most 255 bytes.
pub(super) fn short(text: &str) -> Result<ShortString, TransportError> {
    ShortString::try_new(text).map_err(|_| TransportError::Invalid(format!("`{text}` is longer than AMQP's 255 bytes")))
}

/// Declares what the endpoint needs; when passive, only checks that its queue is there.
pub(super) async fn prepare(connection: &Connection, topology: &Topology) -> Result<(), TransportError> {
    let channel = connection.create_channel().await.map_err(failed)?;
    let name = short(&topology.endpoint)?;
    if topology.passive {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        channel.queue_declare(name, options, FieldTable::default()).await.map_err(failed)?;
    } else {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.clone(), durable, arguments).await.map_err(failed)?;
        exchange(&channel, &topology.endpoint).await?;
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name.clone(), name.clone(), "".into(), options, none).await.map_err(failed)?;
        for event in &topology.subscribes {
            exchange(&channel, event).await?;
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            channel.queue_bind(name.clone(), short(event)?, "".into(), options, none).await.map_err(failed)?;
        }
    }
    channel.close(200, "declared".into()).await.map_err(failed)
}

/// Declares the exchange of an endpoint or an event.
pub(super) async fn exchange(channel: &Channel, name: &str) -> Result<(), TransportError> {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(short(name)?, ExchangeKind::Fanout, durable, FieldTable::default()).await.map_err(failed)
}

/// Tells a difference that a person must mend from a broker that is away.
pub(super) fn failed(error: Error) -> TransportError {
    let ErrorKind::ProtocolError(refused) = error.kind() else { return TransportError::Unreachable(error.to_string()) };
    let text = refused.get_message().to_string();
    match refused.get_id() {
        406 => TransportError::Mismatch(format!(
            "{text}; what is there was declared otherwise: delete it when it is empty, or give the endpoint another name"
        )),
        404 => TransportError::Mismatch(format!("{text}; declare it, or let the endpoint do so")),
        403 => TransportError::Denied(text),
        405 => TransportError::Mismatch(format!("{text}; another connection uses it alone")),
        _ => TransportError::Unreachable(text),
    }
}
