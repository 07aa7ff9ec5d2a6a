//! The life of one consuming channel: deliveries come, groups of them go to the endpoint, acknowledgements go back.

use super::{
    acks::Acks,
    group::Group,
    keep::{Line, WORKS_AFTER},
    prefetch::Prefetch,
    wire,
};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery as Came,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use saga_core::{Ack, Delivery, LinkLimits};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// How long a settled delivery waits for others: nobody waits for an acknowledgement, and each frame is a write to the
/// quorum queue's log. If the connection breaks meanwhile, they come again and are found to be duplicates.
const GATHER: Duration = Duration::from_millis(10);
/// How long an answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A delivery that is settled.
struct Settled {
    tag: u64,
    body_bytes: usize,
    /// Handled; else it goes back to the broker.
    is_handled: bool,
}

type Settling = mpsc::UnboundedSender<Settled>;

/// One channel, and the consumers that follow each other on it (`prefetch.rs` says why there may be more than one).
pub(super) struct Subscription {
    channel: Channel,
    consumer: Consumer,
    queue: String,
    /// Consumers so far: each has a tag of its own.
    consumers: u32,
    prefetch: Prefetch,
    acks: Acks,
    group: Group,
    /// Not bounded by itself: there are at most as many as unacknowledged deliveries. It belongs to this channel, because
    /// what was delivered on an earlier one can never be acknowledged on this one. `None` when no more deliveries are wanted.
    settle: Option<Settling>,
    settled: mpsc::UnboundedReceiver<Settled>,
    /// Why no more deliveries come.
    end: Option<String>,
}

impl Subscription {
    pub(super) async fn open(connection: &Connection, queue: &str, limits: &LinkLimits) -> Result<Self, String> {
        let prefetch = Prefetch::new(limits);
        let channel = answer(connection.create_channel()).await?;
        let consumer = consume(&channel, queue, 1, prefetch.current()).await?;
        let (settle, settled) = mpsc::unbounded_channel();
        Ok(Self {
            channel,
            consumer,
            queue: queue.to_owned(),
            consumers: 1,
            prefetch,
            acks: Acks::default(),
            group: Group::default(),
            settle: Some(settle),
            settled,
            end: None,
        })
    }

    /// Runs until the channel breaks, or the endpoint wants no more and the last delivery is settled.
    pub(super) async fn run(
        &mut self,
        deliveries: &mpsc::UnboundedSender<Delivery>,
        line: &mut Line,
    ) -> Result<(), String> {
        let mut tell_at: Option<Instant> = None;
        let mut batch = Vec::new();
        let mut gather_until: Option<Instant> = None;
        let works_at = tokio::time::sleep(WORKS_AFTER);
        tokio::pin!(works_at);
        let mut works = false;
        loop {
            tokio::select! {
                delivery = self.consumer.next(), if self.settle.is_some() && gather_until.is_none() => {
                    self.take(delivery);
                    gather_until = self.group.gathers_until();
                    if gather_until.is_none() {
                        self.hand_on(deliveries).await?;
                        line.works();
                    }
                }
                () = tokio::time::sleep_until(gather_until.unwrap_or_else(Instant::now)), if gather_until.is_some() => {
                    gather_until = None;
                    self.hand_on(deliveries).await?;
                    line.works();
                }
                () = deliveries.closed(), if self.settle.is_some() => {
                    let cancel = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
                    let _ = tokio::time::timeout(ANSWER, cancel).await;
                    self.group.give_back();
                    gather_until = None;
                    self.settle = None; // the loop ends when the last delivery is settled
                }
                n = self.settled.recv_many(&mut batch, 1024) => {
                    if n == 0 {
                        return self.tell().await;
                    }
                    self.settle(&mut batch).await?;
                    // well before the prefetch is used up, which would stop the deliveries
                    if self.acks.waiting() >= usize::from(self.prefetch.current() / 4).max(1) {
                        self.tell().await?;
                        tell_at = None;
                    } else if tell_at.is_none() {
                        tell_at = Some(Instant::now() + GATHER);
                    }
                    self.adapt().await?;
                }
                () = tokio::time::sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                    tell_at = None;
                    self.tell().await?;
                }
                () = &mut works_at, if !works => {
                    works = true;
                    line.works();
                }
            }
        }
    }

    /// Takes what the consumer says.
    fn take(&mut self, delivery: Option<lapin::Result<Came>>) {
        match delivery {
            Some(Ok(came)) => {
                self.prefetch.came(came.data.len());
                self.group.take(came.delivery_tag, incoming(came, self.settle.clone()));
            }
            Some(Err(error)) => self.end = Some(error.to_string()),
            None => self.end = Some("the broker cancelled the consumer".into()),
        }
    }

    /// Hands on what is there by now.
    async fn hand_on(&mut self, deliveries: &mpsc::UnboundedSender<Delivery>) -> Result<(), String> {
        while self.end.is_none()
            && let Some(delivery) = self.consumer.next().now_or_never()
        {
            self.take(delivery);
        }
        self.group.hand_on(deliveries);
        match self.end.take() {
            Some(end) => Err(end),
            None => self.adapt().await,
        }
    }

    async fn settle(&mut self, batch: &mut Vec<Settled>) -> Result<(), String> {
        for Settled { tag, body_bytes, is_handled } in batch.drain(..) {
            self.group.settled(tag);
            self.prefetch.settled(tag, body_bytes);
            if is_handled {
                self.acks.handled(tag);
            } else {
                self.acks.given_back(tag);
                let back = BasicNackOptions { requeue: true, ..Default::default() };
                self.channel.basic_nack(tag, back).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Acknowledges what is settled: one frame for all up to the first open delivery, one for each behind it.
    async fn tell(&mut self) -> Result<(), String> {
        let up_to = self.acks.up_to().map(|tag| (tag, true)).into_iter();
        for (tag, multiple) in up_to.chain(self.acks.take_waiting().into_iter().map(|tag| (tag, false))) {
            let told = self.channel.basic_ack(tag, BasicAckOptions { multiple }).await;
            told.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Replaces the consumer when it has the wrong prefetch.
    async fn adapt(&mut self) -> Result<(), String> {
        if self.settle.is_none() {
            return Ok(());
        }
        let Some(prefetch) = self.prefetch.next(self.group.last()) else { return Ok(()) };
        answer(self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default())).await?;
        // what was on its way to it; its stream ends with the cancellation
        while let Some(delivery) = answer_in_time(self.consumer.next()).await? {
            self.take(Some(delivery));
        }
        if let Some(end) = self.end.take() {
            return Err(end);
        }
        self.consumers += 1;
        self.consumer = consume(&self.channel, &self.queue, self.consumers, prefetch).await?;
        Ok(())
    }
}

async fn consume(channel: &Channel, queue: &str, number: u32, prefetch: u16) -> Result<Consumer, String> {
    answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let tag = format!("sagabus-{number}");
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    answer(channel.basic_consume(queue.into(), tag.into(), options, none)).await
}

async fn answer<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    answer_in_time(asked).await?.map_err(|error| error.to_string())
}

async fn answer_in_time<T>(asked: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| "the broker does not answer".to_owned())
}

fn incoming(came: Came, settle: Option<Settling>) -> Delivery {
    let (tag, body_bytes) = (came.delivery_tag, came.data.len());
    let delivery_count = wire::delivery_count(&came.properties, came.redelivered);
    let (envelope, fault) = wire::envelope(&came.properties, came.data);
    let ack = Ack::new(move |is_handled| {
        let _ = settle.map(|settle| settle.send(Settled { tag, body_bytes, is_handled }));
    });
    Delivery { envelope: Arc::new(envelope), fault, delivery_count, ack }
}
