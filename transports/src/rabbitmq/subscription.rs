//! The life of one consuming channel: deliveries come, groups of them go to the endpoint, acknowledgements go back.

use super::{
    acks::Acks,
    bundle,
    group::Group,
    keep::{Line, Parted, WORKS_AFTER},
    prefetch::Prefetch,
    wire,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery as Came,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use saga_core::{Ack, Delivery, Envelope, LinkLimits, Topology};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// How long a settled delivery waits for others: nobody waits for an acknowledgement, and each frame is a write to the
/// quorum queue's log. If the connection breaks meanwhile, the messages come again and are recognised as duplicates.
const GATHER: Duration = Duration::from_millis(10);
/// How long acknowledgements wait for the consumer to have its full prefetch, so that it can be replaced.
const REPLACE: Duration = Duration::from_millis(50);
/// How long an answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A message that is settled.
struct Settled {
    /// Of the delivery that brought it.
    tag: u64,
    /// Whether it was handled; if not, it goes back to the broker.
    is_handled: bool,
}

/// A delivery of which messages are not settled.
struct Open {
    body_bytes: usize,
    unsettled: usize,
    /// Whether a message of it goes back: then all of it does, and the inbox knows the others.
    goes_back: bool,
}

type Settling = mpsc::UnboundedSender<Settled>;

/// One channel, and the consumers that follow each other on it (`prefetch.rs` says why there may be more than one).
pub(super) struct Subscription {
    channel: Channel,
    /// Dropped with the channel: what the endpoint still has of it comes again.
    lives: Arc<()>,
    consumer: Consumer,
    queue: String,
    /// Whether a message without an id gets one.
    generates_ids: bool,
    /// Consumers so far: each has its own tag.
    consumers: u32,
    prefetch: Prefetch,
    acks: Acks,
    group: Group,
    open: HashMap<u64, Open>,
    /// Unbounded itself; it never has more items than there are unsettled messages. It belongs to this channel,
    /// because deliveries of an earlier channel cannot be acknowledged on this one. `None` when no more deliveries are
    /// wanted.
    settle: Option<Settling>,
    settled: mpsc::UnboundedReceiver<Settled>,
    /// Why no more deliveries come.
    end: Option<String>,
    /// The deadline for replacing the consumer.
    replace_until: Option<Instant>,
}

impl Subscription {
    pub(super) async fn open(
        connection: &Connection,
        topology: &Topology,
        limits: &LinkLimits,
    ) -> Result<Self, Parted> {
        let queue = topology.endpoint.as_str();
        let prefetch = Prefetch::new(limits);
        let channel = answer(connection.create_channel()).await?;
        let consumer = consume(&channel, queue, 1, prefetch.current()).await?;
        let (settle, settled) = mpsc::unbounded_channel();
        Ok(Self {
            channel,
            lives: Arc::default(),
            consumer,
            queue: queue.to_owned(),
            generates_ids: topology.generates_ids,
            consumers: 1,
            group: Group::new(prefetch.messages_max()),
            prefetch,
            acks: Acks::default(),
            open: HashMap::new(),
            settle: Some(settle),
            settled,
            end: None,
            replace_until: None,
        })
    }

    /// Runs until the channel breaks, or the endpoint wants no more and the last delivery is settled.
    pub(super) async fn run(
        &mut self,
        deliveries: &mpsc::UnboundedSender<Delivery>,
        line: &mut Line,
    ) -> Result<(), Parted> {
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
                    // what is on its way goes back at once: other processes have newer messages of the same keys
                    self.cancel().await?;
                    self.group.give_back();
                    gather_until = None;
                    self.settle = None; // the loop ends when the last delivery is settled
                }
                n = self.settled.recv_many(&mut batch, 1024) => {
                    if n == 0 {
                        self.acknowledge(usize::MAX).await?;
                        // a connection that closes over the last of them may lose it, and its messages come again
                        return answer(self.channel.close(200, "bye".into())).await;
                    }
                    self.settle(&mut batch).await?;
                    if self.group.is_full() {
                        self.group.hand_on(deliveries);
                    }
                    // well before the prefetch is used up, which would stop deliveries
                    if self.acks.waiting() >= (self.prefetch.current() / 4).max(1) {
                        self.tell(deliveries).await?;
                        tell_at = self.replace_until;
                    } else if tell_at.is_none() {
                        tell_at = Some(Instant::now() + GATHER);
                    }
                }
                () = tokio::time::sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                    self.tell(deliveries).await?;
                    tell_at = self.replace_until;
                }
                () = &mut works_at, if !works => {
                    works = true;
                    line.works();
                }
            }
        }
    }

    /// Takes a delivery or the end of the consumer.
    fn take(&mut self, delivery: Option<lapin::Result<Came>>) {
        match delivery {
            Some(Ok(came)) => {
                let (tag, body_bytes) = (came.delivery_tag, came.data.len());
                let messages = self.incoming(came);
                let count = messages.len();
                self.prefetch.came(tag, count, body_bytes);
                self.acks.came();
                self.open.insert(tag, Open { body_bytes, unsettled: count, goes_back: false });
                self.group.take(tag, messages);
            }
            Some(Err(error)) => self.end = Some(error.to_string()),
            None => self.end = Some("the broker cancelled the consumer".into()),
        }
    }

    /// The messages in a delivery: one, or those of a bundle.
    fn incoming(&self, came: Came) -> Vec<Delivery> {
        let tag = came.delivery_tag;
        let delivery_count = wire::delivery_count(&came.properties, came.redelivered);
        let message = |envelope: Envelope, fault: Option<String>| {
            let settle = self.settle.clone();
            let ack = Ack::of_channel(&self.lives, move |is_handled| {
                let _ = settle.map(|settle| settle.send(Settled { tag, is_handled }));
            });
            let mut delivery = Delivery::new(Arc::new(envelope), ack);
            delivery.fault = fault;
            delivery.delivery_count = delivery_count;
            delivery
        };
        let body = Bytes::from(came.data);
        match bundle::read(&came.properties, &body) {
            Some(Ok(envelopes)) => envelopes
                .into_iter()
                .map(|envelope| {
                    let (envelope, fault) = wire::bundled(envelope);
                    message(envelope, fault)
                })
                .collect(),
            bundle => {
                let (envelope, fault) = wire::envelope(&came.properties, body, self.generates_ids);
                vec![message(envelope, fault.or(bundle.and_then(Result::err)))]
            }
        }
    }

    /// Passes on what has gathered.
    async fn hand_on(&mut self, deliveries: &mpsc::UnboundedSender<Delivery>) -> Result<(), Parted> {
        while self.end.is_none()
            && let Some(delivery) = self.consumer.next().now_or_never()
        {
            self.take(delivery);
        }
        self.group.hand_on(deliveries);
        match self.end.take() {
            Some(end) => Err(Parted::Broken(end)),
            None => self.grow(deliveries).await.map(drop),
        }
    }

    /// Ends the consumer, and takes what was on its way to it.
    async fn cancel(&mut self) -> Result<(), Parted> {
        answer(self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default())).await?;
        while let Some(delivery) = answer_in_time(self.consumer.next()).await? {
            self.take(Some(delivery));
        }
        Ok(())
    }

    async fn settle(&mut self, batch: &mut Vec<Settled>) -> Result<(), Parted> {
        for Settled { tag, is_handled } in batch.drain(..) {
            self.group.message_settled();
            let Entry::Occupied(mut open) = self.open.entry(tag) else { continue };
            self.prefetch.message_settled();
            open.get_mut().unsettled -= 1;
            open.get_mut().goes_back |= !is_handled;
            if open.get().unsettled > 0 {
                continue;
            }
            let Open { body_bytes, goes_back, .. } = open.remove();
            self.group.settled(tag);
            self.prefetch.settled(tag, body_bytes);
            if !goes_back {
                self.acks.handled(tag);
            } else {
                self.acks.given_back(tag);
                let back = BasicNackOptions { requeue: true, ..Default::default() };
                self.channel.basic_nack(tag, back).await?;
            }
        }
        Ok(())
    }

    /// Acknowledges what is settled, unless that has to wait.
    async fn tell(&mut self, deliveries: &mpsc::UnboundedSender<Delivery>) -> Result<(), Parted> {
        if self.grow(deliveries).await? {
            return Ok(());
        }
        let free = self.prefetch.current().saturating_sub(self.acks.current());
        self.acknowledge(self.prefetch.acknowledgeable(free)).await
    }

    /// Acknowledges at most `most`: one frame for all up to the first open delivery, one for each behind it.
    async fn acknowledge(&mut self, most: usize) -> Result<(), Parted> {
        for (tag, multiple) in self.acks.frames(most) {
            self.channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }

    /// Replaces the consumer by one with another prefetch, when that is wanted. It does so only when the running
    /// consumer has its full prefetch, so that nothing is on its way to it: the broker would requeue that and send it
    /// later, behind others. Returns whether acknowledgements must wait for that moment.
    async fn grow(&mut self, deliveries: &mpsc::UnboundedSender<Delivery>) -> Result<bool, Parted> {
        let wanted = self.prefetch.next(self.acks.older()).filter(|_| self.settle.is_some());
        let Some(prefetch) = wanted else {
            self.replace_until = None;
            return Ok(false);
        };
        if self.acks.current() < self.prefetch.current() {
            let until = *self.replace_until.get_or_insert_with(|| Instant::now() + REPLACE);
            let waits = Instant::now() < until;
            if !waits {
                self.replace_until = None;
                self.prefetch.suffices();
            }
            return Ok(waits);
        }
        self.replace_until = None;
        self.cancel().await?;
        self.group.hand_on(deliveries);
        if let Some(end) = self.end.take() {
            return Err(Parted::Broken(end));
        }
        self.consumers += 1;
        self.consumer = consume(&self.channel, &self.queue, self.consumers, prefetch).await?;
        self.prefetch.runs(prefetch);
        self.acks.consumer_changed(self.group.last());
        Ok(false)
    }
}

async fn consume(channel: &Channel, queue: &str, number: u32, prefetch: usize) -> Result<Consumer, Parted> {
    let prefetch = prefetch.try_into().unwrap_or(u16::MAX);
    answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let tag = format!("sagabus-{number}");
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    answer(channel.basic_consume(queue.into(), tag.into(), options, none)).await
}

async fn answer<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, Parted> {
    Ok(answer_in_time(asked).await??)
}

async fn answer_in_time<T>(asked: impl Future<Output = T>) -> Result<T, Parted> {
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| Parted::unanswered())
}
