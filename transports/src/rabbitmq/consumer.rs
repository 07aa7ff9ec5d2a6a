//! The consuming side: one connection, one channel; made anew when it breaks.

use super::{
    acks::Acks,
    connection::{Broker, Side},
    topology, wire,
};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use saga_core::{Ack, Delivery, Topology};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// How long a settled delivery waits for others: nobody waits for an acknowledgement, and each frame is a command to the queue's log.
/// Should the connection break meanwhile, they come again and are found to be duplicates. Those behind an open delivery are then told
/// one by one.
const GATHER: Duration = Duration::from_millis(10);
/// How long an answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A delivery to settle: `true` for an ack.
type Settle = (u64, bool);

/// Runs until the endpoint drops its end and the last delivery is settled.
pub(super) async fn run(
    broker: Arc<Broker>,
    first: Connection,
    topology: Arc<Topology>,
    prefetch: u16,
    deliveries: mpsc::UnboundedSender<Delivery>,
    health: Side,
) {
    let name = &topology.endpoint;
    let mut connection = first;
    loop {
        let why = match consume(&connection, &topology, prefetch).await {
            Ok((channel, consumer)) => {
                health.up();
                let why = channel_life(&channel, consumer, &deliveries, prefetch).await;
                if why.is_none() {
                    let _ = tokio::time::timeout(ANSWER, connection.close(200, "bye".into())).await;
                    return;
                }
                why
            }
            Err(error) => Some(error),
        };
        let Some(why) = why else { return };
        tracing::warn!(endpoint = name, error = why, "consuming was interrupted");
        health.down(format!("consuming was interrupted: {why}"));
        if !connection.status().connected() || deliveries.is_closed() {
            match broker.reconnect(name, || deliveries.is_closed()).await {
                Some(next) => connection = next,
                None => return,
            }
        } else {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if let Err(error) = topology::prepare(&connection, &topology).await {
            tracing::error!(endpoint = name, %error, "the topology cannot be restored");
        }
    }
}

async fn consume(connection: &Connection, topology: &Topology, prefetch: u16) -> Result<(Channel, Consumer), String> {
    let open = async {
        let channel = connection.create_channel().await?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let queue = topology.endpoint.as_str().into();
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue, "sagabus".into(), options, none).await?;
        Ok::<_, lapin::Error>((channel, consumer))
    };
    match tokio::time::timeout(ANSWER, open).await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err("the broker does not answer".into()),
    }
}

/// The life of one channel. Returns why it ended; `None` when the endpoint is done with it.
async fn channel_life(
    channel: &Channel,
    mut consumer: Consumer,
    deliveries: &mpsc::UnboundedSender<Delivery>,
    prefetch: u16,
) -> Option<String> {
    // not bounded by itself: there are at most as many as unacknowledged deliveries. The channel belongs to this life: what
    // was delivered on an earlier one can never be acknowledged on this one
    let (settle, mut settled) = mpsc::unbounded_channel::<Settle>();
    let mut settle = Some(settle);
    let mut acks = Acks::default();
    let mut tell_at: Option<Instant> = None;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            first = consumer.next(), if settle.is_some() => {
                // what is there by now goes on together: passed on one by one, each would wake the tasks behind by itself
                let mut next = Some(first);
                let mut came = Vec::new();
                let mut end = None;
                while let Some(delivery) = next {
                    match delivery {
                        Some(Ok(delivery)) => came.push(incoming(delivery, settle.clone())),
                        Some(Err(error)) => end = Some(error.to_string()),
                        None => end = Some("the broker cancelled the consumer".into()),
                    }
                    next = if end.is_none() { consumer.next().now_or_never() } else { None };
                }
                for delivery in came {
                    let _ = deliveries.send(delivery);
                }
                if end.is_some() {
                    return end;
                }
            },
            () = deliveries.closed(), if settle.is_some() => {
                let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
                let _ = tokio::time::timeout(ANSWER, cancel).await;
                settle = None; // the loop ends when the last delivery is settled
            }
            n = settled.recv_many(&mut batch, 1024) => {
                if n == 0 {
                    return tell(channel, &mut acks).await.err();
                }
                for (tag, ack) in batch.drain(..) {
                    if ack {
                        acks.handled(tag);
                    } else {
                        acks.given_back(tag);
                        let back = BasicNackOptions { requeue: true, ..Default::default() };
                        if let Err(error) = channel.basic_nack(tag, back).await {
                            return Some(error.to_string());
                        }
                    }
                }
                // well before the prefetch is used up, which would stop the deliveries
                if acks.waiting() >= usize::from(prefetch / 4) {
                    if let Err(error) = tell(channel, &mut acks).await {
                        return Some(error);
                    }
                    tell_at = None;
                } else if tell_at.is_none() {
                    tell_at = Some(Instant::now() + GATHER);
                }
            }
            () = tokio::time::sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                tell_at = None;
                if let Err(error) = tell(channel, &mut acks).await {
                    return Some(error);
                }
            }
        }
    }
}

fn incoming(delivery: lapin::message::Delivery, settle: Option<mpsc::UnboundedSender<Settle>>) -> Delivery {
    let tag = delivery.delivery_tag;
    let delivery_count = wire::delivery_count(&delivery.properties);
    let (envelope, fault) = wire::envelope(&delivery.properties, delivery.data);
    let ack = Ack::new(move |ack| {
        let _ = settle.map(|settle| settle.send((tag, ack)));
    });
    Delivery { envelope: Arc::new(envelope), fault, delivery_count, ack }
}

/// Acknowledges what is settled: one frame for all up to the first open delivery, one for each behind it.
async fn tell(channel: &Channel, acks: &mut Acks) -> Result<(), String> {
    let up_to = acks.up_to().map(|tag| (tag, true)).into_iter();
    for (tag, multiple) in up_to.chain(acks.take_waiting().into_iter().map(|tag| (tag, false))) {
        channel.basic_ack(tag, BasicAckOptions { multiple }).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
