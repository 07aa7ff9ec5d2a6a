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
/// After a group of so many deliveries the first of the next waits for others: more are on their way, and each group costs a unit of work.
/// A message that comes alone waits for nobody.
const BUSY: usize = 4;
/// How long a busy group says something about the next.
const BUSY_FOR: Duration = Duration::from_millis(100);
/// A group gathers for half of what groups take until they are settled, which adds little to what a message takes anyhow, on a slow machine
/// and under load as on a quick one; but never longer than this, however slow the handlers are.
const MODERATION_MAX: Duration = Duration::from_millis(10);
/// How long an answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A delivery to settle: `true` for an ack.
type Settle = (u64, bool);
type Settling = mpsc::UnboundedSender<Settle>;

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
    let mut group = Group::default();
    loop {
        tokio::select! {
            delivery = consumer.next(), if settle.is_some() && group.until.is_none() => {
                group.take(delivery, &settle);
                group.until = group.moderation().map(|wait| Instant::now() + wait);
                if group.until.is_none()
                    && let Some(end) = group.hand_on(&mut consumer, &settle, deliveries)
                {
                    return Some(end);
                }
            }
            () = tokio::time::sleep_until(group.until.unwrap_or_else(Instant::now)), if group.until.is_some() => {
                if let Some(end) = group.hand_on(&mut consumer, &settle, deliveries) {
                    return Some(end);
                }
            }
            () = deliveries.closed(), if settle.is_some() => {
                let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
                let _ = tokio::time::timeout(ANSWER, cancel).await;
                group = Group::default(); // what is in it goes back to the broker
                settle = None; // the loop ends when the last delivery is settled
            }
            n = settled.recv_many(&mut batch, 1024) => {
                if n == 0 {
                    return tell(channel, &mut acks).await.err();
                }
                for (tag, ack) in batch.drain(..) {
                    group.settled(tag);
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

/// Deliveries that are handed on together: one by one, each would wake the tasks behind by itself.
#[derive(Default)]
struct Group {
    came: Vec<Delivery>,
    /// When they are handed on, if not at once.
    until: Option<Instant>,
    /// When the group before was handed on, if it was a big one.
    busy: Option<Instant>,
    /// The delivery that came last.
    last: u64,
    /// The last delivery of a group that is being timed, and when it was handed on.
    timed: Option<(u64, Instant)>,
    /// How long groups take lately, from here until they are settled.
    took: Duration,
    /// Why no more will come.
    end: Option<String>,
}

impl Group {
    /// How long the next group gathers, if it does.
    fn moderation(&self) -> Option<Duration> {
        let busy = self.busy.is_some_and(|busy| busy.elapsed() < BUSY_FOR);
        busy.then(|| (self.took / 2).min(MODERATION_MAX))
    }

    /// A delivery is settled. One that came after the timed ones counts for them too: a single slow lane does not hide how the others do.
    fn settled(&mut self, tag: u64) {
        if let Some((last, since)) = self.timed
            && tag >= last
        {
            self.took = (3 * self.took + since.elapsed()) / 4;
            self.timed = None;
        }
    }

    fn take(&mut self, delivery: Option<lapin::Result<lapin::message::Delivery>>, settle: &Option<Settling>) {
        match delivery {
            Some(Ok(delivery)) => {
                self.last = delivery.delivery_tag;
                self.came.push(incoming(delivery, settle.clone()));
            }
            Some(Err(error)) => self.end = Some(error.to_string()),
            None => self.end = Some("the broker cancelled the consumer".into()),
        }
    }

    /// Hands on what is there by now; says why if no more will come.
    fn hand_on(
        &mut self,
        consumer: &mut Consumer,
        settle: &Option<Settling>,
        deliveries: &mpsc::UnboundedSender<Delivery>,
    ) -> Option<String> {
        while self.end.is_none()
            && let Some(delivery) = consumer.next().now_or_never()
        {
            self.take(delivery, settle);
        }
        self.pass(deliveries);
        self.end.take()
    }

    fn pass(&mut self, deliveries: &mpsc::UnboundedSender<Delivery>) {
        self.until = None;
        self.busy = (self.came.len() >= BUSY).then(Instant::now);
        self.timed.get_or_insert_with(|| (self.last, Instant::now()));
        for delivery in self.came.drain(..) {
            let _ = deliveries.send(delivery); // the endpoint is gone: it goes back to the broker
        }
    }
}

fn incoming(delivery: lapin::message::Delivery, settle: Option<Settling>) -> Delivery {
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

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::message::Delivery as Came;

    /// A consumer's groups, and where they are handed on.
    struct Line {
        group: Group,
        deliveries: mpsc::UnboundedSender<Delivery>,
        came: mpsc::UnboundedReceiver<Delivery>,
    }

    impl Line {
        fn new() -> Self {
            let (deliveries, came) = mpsc::unbounded_channel();
            Self { group: Group::default(), deliveries, came }
        }

        /// Hands on a group, which is settled after this time.
        async fn pass(&mut self, messages: u64, took: Duration) {
            for _ in 0..messages {
                let delivery = Came::mock(self.group.last + 1, "".into(), "".into(), false, b"{}".to_vec());
                self.group.take(Some(Ok(delivery)), &None);
            }
            self.group.pass(&self.deliveries);
            let handed_on = std::iter::from_fn(|| self.came.try_recv().ok()).count();
            assert_eq!(handed_on as u64, messages, "all are handed on");
            tokio::time::advance(took).await;
            self.group.settled(self.group.last);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_after_a_big_group_does_the_next_one_gather() {
        let mut line = Line::new();
        let unit = Duration::from_millis(1);
        assert_eq!(line.group.moderation(), None, "the first message of all waits for nobody");
        line.pass(BUSY as u64 - 1, unit).await;
        assert_eq!(line.group.moderation(), None, "a few messages say nothing about the next");
        line.pass(BUSY as u64, unit).await;
        assert!(line.group.moderation().is_some(), "more are on their way");
        tokio::time::advance(BUSY_FOR).await;
        assert_eq!(line.group.moderation(), None, "it was quiet: a message comes alone again");
        line.pass(BUSY as u64, unit).await;
        line.pass(1, unit).await;
        assert_eq!(line.group.moderation(), None, "a message came alone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_gathers_for_half_of_what_groups_take() {
        let mut line = Line::new();
        for _ in 0..40 {
            line.pass(BUSY as u64, Duration::from_millis(6)).await;
        }
        let wait = line.group.moderation().expect("it gathers");
        assert!((2.9..3.1).contains(&(wait.as_secs_f64() * 1e3)), "half of 6 ms was expected, not {wait:?}");
        for _ in 0..40 {
            line.pass(BUSY as u64, Duration::from_millis(90)).await;
        }
        assert_eq!(line.group.moderation(), Some(MODERATION_MAX), "slow handlers do not make it longer");
    }
}
