//! A simulated broker: a durable queue for each endpoint, and everything that a real one may do with messages.

use super::{
    faults::{Chance, Mishap},
    trace::Trace,
};
use crate::{
    Ack, Delivery, Destination, Envelope, Fate, Link, LinkLimits, LinkState, Outgoing, Report, Topology, Transport,
    TransportError, endpoint::low,
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch};

/// A clone is the same broker.
#[derive(Clone)]
pub(super) struct Broker {
    queues: Arc<Mutex<BTreeMap<String, Queue>>>,
    chance: Chance,
    trace: Trace,
    /// A test breaks it: what is delivered counts as settled.
    #[cfg(test)]
    acks_first: Arc<std::sync::atomic::AtomicBool>,
}

#[derive(Default)]
struct Queue {
    events: BTreeSet<String>,
    waiting: VecDeque<Queued>,
    /// Delivered and not settled, by delivery.
    open: BTreeMap<u64, Queued>,
    deliveries: u64,
    consumer: Option<Consumer>,
    /// Counts the processes that were attached.
    attached: u64,
}

struct Consumer {
    deliveries: mpsc::UnboundedSender<Delivery>,
    state: watch::Sender<LinkState>,
    is_up: bool,
    prefetch: usize,
    wake: Arc<Notify>,
}

#[derive(Clone)]
struct Queued {
    envelope: Arc<Envelope>,
    from: Arc<str>,
    /// Earlier deliveries.
    count: u32,
}

impl Queue {
    /// The connection of its consumer broke: what was not settled comes again.
    fn take_back(&mut self, last: bool) {
        for (_, mut queued) in std::mem::take(&mut self.open).into_iter().rev() {
            queued.count += 1;
            if last { self.waiting.push_back(queued) } else { self.waiting.push_front(queued) }
        }
    }

    fn wake(&self) {
        if let Some(consumer) = &self.consumer {
            consumer.wake.notify_one();
        }
    }
}

impl Broker {
    pub(super) fn new(chance: Chance, trace: Trace) -> Self {
        Self {
            queues: Arc::default(),
            chance,
            trace,
            #[cfg(test)]
            acks_first: Arc::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn acks_first(&self, whether: bool) {
        self.acks_first.store(whether, std::sync::atomic::Ordering::Relaxed);
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that wait or are not settled, and endpoints that are not attached.
    pub(super) fn busy(&self) -> Vec<String> {
        let queues = self.queues();
        let busy = queues.iter().filter_map(|(name, queue)| {
            let (waiting, open) = (queue.waiting.len(), queue.open.len());
            let is_up = queue.consumer.as_ref().is_some_and(|consumer| consumer.is_up);
            (waiting + open > 0 || !is_up).then(|| {
                let link = if is_up { "" } else { ", no connection" };
                format!("queue `{name}`: {waiting} messages wait, {open} are not settled{link}")
            })
        });
        busy.collect()
    }

    /// The process died: its connection is gone.
    pub(super) fn died(&self, endpoint: &str) {
        let last = self.chance.strikes(Mishap::Overtaking);
        for name in [endpoint.to_owned(), low::queue(endpoint)] {
            let mut queues = self.queues();
            let Some(queue) = queues.get_mut(&name) else { continue };
            queue.consumer = None;
            queue.attached += 1;
            queue.take_back(last);
        }
    }

    /// Takes a message, or does not, and says what its sender is told.
    pub(super) fn publish(&self, from: &str, destination: &Destination, envelope: &Arc<Envelope>) -> Fate {
        let unknown = || Fate::Unknown("the connection was lost".into());
        let to = destination.name();
        if self.queues().get(from).is_some_and(|own| own.consumer.as_ref().is_some_and(|consumer| !consumer.is_up)) {
            return unknown();
        }
        if self.chance.strikes(Mishap::LinkLoss) {
            self.break_link(from);
            return unknown();
        }
        if self.chance.strikes(Mishap::LostPublish) {
            self.trace.is_lost(from, to, envelope, "lost");
            return unknown();
        }
        let copies = if self.chance.strikes(Mishap::Duplicate) { 2 } else { 1 };
        let mut queues = self.queues();
        let mut found = false;
        for (name, queue) in queues.iter_mut() {
            let goes_there = match destination {
                Destination::Endpoint(to) | Destination::ReplyTo(to) => to == name,
                Destination::Event(event) => queue.events.contains(event),
            };
            if !goes_there {
                continue;
            }
            found = true;
            for _ in 0..copies {
                let queued = Queued { envelope: envelope.clone(), from: from.into(), count: 0 };
                // messages of one sender keep their order
                let after = queue.waiting.iter().rposition(|other| *other.from == *from).map_or(0, |last| last + 1);
                let place = match self.chance.strikes(Mishap::Overtaking) {
                    true => after + self.chance.below((queue.waiting.len() - after + 1) as u64) as usize,
                    false => queue.waiting.len(),
                };
                queue.waiting.insert(place, queued);
            }
            queue.wake();
        }
        drop(queues);
        if !found && !matches!(destination, Destination::Event(_)) {
            return Fate::Unroutable(format!("no queue `{to}`"));
        }
        if self.chance.strikes(Mishap::LostConfirm) {
            self.trace.note(from, || format!("no confirm of {}", super::trace::short(&envelope.type_name)));
            return Fate::Unanswered("no confirm came in time".into());
        }
        Fate::Confirmed
    }

    /// The endpoint's connection breaks, and is back after a while.
    fn break_link(&self, endpoint: &str) {
        let last = self.chance.strikes(Mishap::Overtaking);
        let away = Duration::from_millis(50 + self.chance.below(20_000));
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(endpoint) else { return };
        let attached = queue.attached;
        let Some(consumer) = queue.consumer.as_mut().filter(|consumer| consumer.is_up) else { return };
        consumer.is_up = false;
        consumer.state.send_replace(LinkState::Down("the connection broke".into()));
        queue.take_back(last);
        drop(queues);
        self.trace.note(endpoint, || "the connection to the broker breaks".into());
        let (broker, endpoint) = (self.clone(), endpoint.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(away).await;
            let mut queues = broker.queues();
            let Some(queue) = queues.get_mut(&endpoint).filter(|queue| queue.attached == attached) else { return };
            let Some(consumer) = &mut queue.consumer else { return };
            consumer.is_up = true;
            consumer.state.send_replace(LinkState::Up);
            consumer.wake.notify_one();
            broker.trace.note(&endpoint, || "the connection is back".into());
        });
    }

    /// Delivers until the process is gone.
    async fn deliver(self, endpoint: String, attached: u64, wake: Arc<Notify>) {
        loop {
            wake.notified().await;
            loop {
                self.chance.pause().await;
                if self.chance.strikes(Mishap::LinkLoss) {
                    self.break_link(&endpoint);
                }
                // sent outside the lock: a delivery that nobody takes is settled at once
                let (deliveries, delivery) = {
                    let mut queues = self.queues();
                    let Some(queue) = queues.get_mut(&endpoint).filter(|it| it.attached == attached) else { return };
                    let Some(consumer) = queue.consumer.as_ref() else { return };
                    if !consumer.is_up || queue.open.len() >= consumer.prefetch {
                        break;
                    }
                    let deliveries = consumer.deliveries.clone();
                    let Some(queued) = queue.waiting.pop_front() else { break };
                    queue.deliveries += 1;
                    let number = queue.deliveries;
                    self.trace.arrives(&queued.from, &endpoint, &queued.envelope, queued.count);
                    let (broker, of) = (self.clone(), endpoint.clone());
                    let ack = Ack::new(move |acked| broker.settled(&of, number, acked));
                    let mut delivery = Delivery::new(Arc::new((*queued.envelope).clone()), ack);
                    delivery.delivery_count = queued.count;
                    queue.open.insert(number, queued);
                    #[cfg(test)]
                    if self.acks_first.load(std::sync::atomic::Ordering::Relaxed) {
                        queue.open.clear();
                    }
                    (deliveries, delivery)
                };
                let _ = deliveries.send(delivery); // the process is gone: dropping the delivery gives it back
            }
        }
    }

    fn settled(&self, endpoint: &str, number: u64, acked: bool) {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(endpoint) else { return };
        let Some(mut queued) = queue.open.remove(&number) else { return }; // it went back when a connection broke
        if !acked {
            queued.count += 1;
            queue.waiting.push_front(queued);
        }
        queue.wake();
    }

    /// Takes what the endpoint sends, until its process is gone.
    async fn take(
        self,
        endpoint: String,
        attached: u64,
        mut sent: mpsc::UnboundedReceiver<Outgoing>,
        reports: mpsc::UnboundedSender<Report>,
    ) {
        while let Some(Outgoing { row, destination, envelope, .. }) = sent.recv().await {
            self.chance.pause().await;
            let is_alive = self.queues().get(&endpoint).is_some_and(|queue| queue.attached == attached);
            if !is_alive && self.chance.below(2) == 0 {
                self.trace.is_lost(&endpoint, destination.name(), &envelope, "died with its process");
                continue;
            }
            let fate = self.publish(&endpoint, &destination, &envelope);
            self.chance.pause().await;
            let _ = reports.send(Report::new(row, fate)); // nobody is there any more
        }
    }
}

#[async_trait]
impl Transport for Broker {
    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError> {
        let (deliveries, deliveries_of) = mpsc::unbounded_channel();
        let (outgoing, sent) = mpsc::unbounded_channel();
        let (reports, reports_of) = mpsc::unbounded_channel();
        let (state, state_of) = watch::channel(LinkState::Up);
        let Topology { endpoint, subscribes, dropped, .. } = topology;
        let wake = Arc::new(Notify::new());
        let attached = {
            let mut queues = self.queues();
            let queue = queues.entry(endpoint.clone()).or_default();
            queue.events.retain(|event| !dropped.contains(event));
            queue.events.extend(subscribes);
            queue.take_back(false);
            queue.attached += 1;
            let prefetch = limits.prefetch.into();
            queue.consumer = Some(Consumer { deliveries, state, is_up: true, prefetch, wake: wake.clone() });
            queue.attached
        };
        wake.notify_one();
        tokio::spawn(self.clone().deliver(endpoint.clone(), attached, wake));
        tokio::spawn(self.clone().take(endpoint, attached, sent, reports));
        Ok(Link::new(deliveries_of, outgoing, reports_of, state_of))
    }
}
