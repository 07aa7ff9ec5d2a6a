//! A broker that the test controls in every detail: one queue, for the endpoint under test.

use crate::{
    Ack, Delivery, Destination, Envelope, Fate, Link, LinkLimits, LinkState, Outgoing, Report, Topology, Transport,
    TransportError,
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, Weak},
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

type Fates = Box<dyn FnMut(&Outgoing) -> Option<Fate> + Send>;

/// A clone is the same broker. A message that the endpoint sends to itself comes back once it is confirmed.
#[derive(Clone)]
pub(super) struct Broker(Arc<Mutex<State>>);

struct State {
    link: Option<Ends>,
    /// Counts the endpoints that were attached.
    attached: usize,
    topology: Topology,
    prefetch: usize,
    queue: VecDeque<Queued>,
    /// Ends when its deliveries can be settled no more.
    channel: Arc<()>,
    /// Delivered on this channel and not settled, by their tags.
    open: BTreeMap<u64, Queued>,
    /// Deliveries so far.
    delivered: u64,
    /// One for each delivery, on this channel or an earlier one, that the endpoint keeps.
    in_memory: Vec<Weak<()>>,
    acked: Vec<String>,
    given_back: usize,
    sent: Vec<Outgoing>,
    fates: Fates,
    refuses_to_attach: Option<TransportError>,
}

struct Ends {
    deliveries: mpsc::UnboundedSender<Delivery>,
    reports: mpsc::UnboundedSender<Report>,
    state: watch::Sender<LinkState>,
    publishing: watch::Sender<LinkState>,
}

struct Queued {
    envelope: Arc<Envelope>,
    fault: Option<String>,
    delivery_count: u32,
}

impl Queued {
    /// It was delivered in vain.
    fn again(self) -> Self {
        Self { fault: None, delivery_count: self.delivery_count + 1, ..self }
    }
}

impl Broker {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            link: None,
            attached: 0,
            topology: Topology::default(),
            prefetch: 0,
            queue: VecDeque::new(),
            channel: Arc::default(),
            open: BTreeMap::new(),
            delivered: 0,
            in_memory: Vec::new(),
            acked: Vec::new(),
            given_back: 0,
            sent: Vec::new(),
            fates: Box::new(|_| Some(Fate::Confirmed)),
            refuses_to_attach: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics in here")
    }

    pub(super) fn deliver(&self, envelope: Envelope) {
        self.deliver_all([envelope]);
    }

    /// Puts messages into the queue together: they come as one batch.
    pub(super) fn deliver_all(&self, envelopes: impl IntoIterator<Item = Envelope>) {
        for envelope in envelopes {
            self.enqueue(envelope, 0, None);
        }
        self.pump();
    }

    /// Delivers a message that was delivered this often before.
    pub(super) fn redeliver(&self, envelope: Envelope, delivery_count: u32) {
        self.enqueue(envelope, delivery_count, None);
        self.pump();
    }

    /// Delivers what a transport could not make an envelope of.
    pub(super) fn deliver_faulty(&self, envelope: Envelope, fault: &str) {
        self.enqueue(envelope, 0, Some(fault.into()));
        self.pump();
    }

    /// Puts a message into the queue without delivering it yet.
    pub(super) fn enqueue(&self, envelope: Envelope, delivery_count: u32, fault: Option<String>) {
        self.state().queue.push_back(Queued { envelope: Arc::new(envelope), fault, delivery_count });
    }

    /// Delivers what the prefetch allows.
    pub(super) fn pump(&self) {
        loop {
            // sent outside the lock: a delivery that nobody takes is settled at once
            let (deliveries, delivery) = {
                let mut state = self.state();
                let Some(deliveries) = state.link.as_ref().map(|link| link.deliveries.clone()) else { return };
                if deliveries.is_closed() || state.open.len() >= state.prefetch {
                    return;
                }
                let Some(queued) = state.queue.pop_front() else { return };
                state.delivered += 1;
                let (broker, tag) = (self.clone(), state.delivered);
                let kept = Arc::new(());
                state.in_memory.push(Arc::downgrade(&kept));
                let ack = Ack::of_channel(&state.channel, move |acked| {
                    drop(kept);
                    broker.settled(tag, acked);
                });
                let envelope = Arc::new((*queued.envelope).clone());
                let (fault, delivery_count) = (queued.fault.clone(), queued.delivery_count);
                state.open.insert(tag, queued);
                (deliveries, Delivery { envelope, fault, delivery_count, ack })
            };
            let _ = deliveries.send(delivery);
        }
    }

    fn settled(&self, tag: u64, acked: bool) {
        let mut state = self.state();
        let Some(queued) = state.open.remove(&tag) else { return }; // of a channel that is gone
        if acked {
            state.acked.push(queued.envelope.message_id.clone());
        } else {
            state.given_back += 1;
            state.queue.push_front(queued.again());
        }
        drop(state);
        if acked {
            self.pump();
        }
    }

    /// The channel is gone, and what was not settled on it is delivered on another one.
    pub(super) fn lose_channel(&self) {
        {
            let mut state = self.state();
            state.channel = Arc::default();
            let open = std::mem::take(&mut state.open);
            open.into_values().rev().for_each(|queued| state.queue.push_front(queued.again()));
        }
        self.pump();
    }

    /// Deliveries that the endpoint has in memory.
    pub(super) fn in_memory(&self) -> usize {
        let mut state = self.state();
        state.in_memory.retain(|delivery| delivery.strong_count() > 0);
        state.in_memory.len()
    }

    fn took(&self, message: Outgoing) {
        let comes_back = match &message.destination {
            Destination::Endpoint(name) | Destination::ReplyTo(name) => name == super::NAME,
            Destination::Event(_) => false,
        };
        let fate = {
            let mut state = self.state();
            state.sent.push(message.clone());
            (state.fates)(&message)
        };
        let confirmed = fate == Some(Fate::Confirmed);
        if let Some(fate) = fate {
            self.report(message.row, fate);
        }
        if confirmed && comes_back {
            self.deliver((*message.envelope).clone());
        }
    }

    pub(super) fn report(&self, row: Uuid, fate: Fate) {
        if let Some(link) = &self.state().link {
            let _ = link.reports.send(Report { row, fate });
        }
    }

    /// What becomes of what is sent from now on; `None`: the test will say.
    pub(super) fn fates(&self, fates: impl FnMut(&Outgoing) -> Option<Fate> + Send + 'static) {
        self.state().fates = Box::new(fates);
    }

    pub(super) fn link(&self, state: LinkState) {
        if let Some(link) = &self.state().link {
            link.state.send_replace(state.clone());
            link.publishing.send_replace(state);
        }
    }

    /// The side that consumes is away, and no other.
    pub(super) fn consuming_is_down(&self) {
        if let Some(link) = &self.state().link {
            link.state.send_replace(LinkState::Down("consuming was interrupted".into()));
        }
    }

    /// The transport's tasks end, whatever the endpoint does.
    pub(super) fn end(&self) {
        self.state().link = None;
    }

    pub(super) fn refuse_to_attach(&self, error: TransportError) {
        self.state().refuses_to_attach = Some(error);
    }

    pub(super) fn topology(&self) -> Topology {
        self.state().topology.clone()
    }

    /// Everything that was sent, in its order.
    pub(super) fn sent(&self) -> Vec<Outgoing> {
        self.state().sent.clone()
    }

    /// Message ids of what was sent of a type.
    pub(super) fn sent_of(&self, type_name: &str) -> Vec<Outgoing> {
        self.sent().into_iter().filter(|message| message.envelope.type_name == type_name).collect()
    }

    /// Ids of acknowledged messages, in the order of the acknowledgements.
    pub(super) fn acked(&self) -> Vec<String> {
        self.state().acked.clone()
    }

    pub(super) fn given_back(&self) -> usize {
        self.state().given_back
    }

    pub(super) fn open(&self) -> usize {
        self.state().open.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.state().queue.len()
    }

    /// Whether everything was delivered and acknowledged.
    pub(super) fn is_done(&self) -> bool {
        let state = self.state();
        state.open.is_empty() && state.queue.is_empty()
    }
}

#[async_trait]
impl Transport for Broker {
    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError> {
        let (deliveries, deliveries_of) = mpsc::unbounded_channel();
        let (outgoing, mut taken) = mpsc::unbounded_channel();
        let (reports, reports_of) = mpsc::unbounded_channel();
        let (state, state_of) = watch::channel(LinkState::Up);
        let (publishing, publishing_of) = watch::channel(LinkState::Up);
        let attached = {
            let mut broker = self.state();
            if let Some(error) = broker.refuses_to_attach.take() {
                return Err(error);
            }
            broker.topology = topology;
            broker.prefetch = limits.prefetch.into();
            broker.link = Some(Ends { deliveries, reports, state, publishing });
            broker.attached += 1;
            broker.attached
        };
        let broker = self.clone();
        tokio::spawn(async move {
            broker.pump();
            while let Some(message) = taken.recv().await {
                broker.took(message);
            }
            // the endpoint has dropped its end; another may be attached by now
            let mut broker = broker.state();
            if broker.attached == attached {
                broker.link = None;
            }
        });
        Ok(Link::new(deliveries_of, outgoing, reports_of, state_of).with_publishing(publishing_of))
    }
}
