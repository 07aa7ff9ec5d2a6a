//! A broker that the test controls in every detail: one queue, for the endpoint under test.

use crate::{
    Ack, Delivery, Destination, Envelope, Fate, Link, LinkLimits, LinkState, Outgoing, Report, Topology, Transport,
    TransportError,
};
use async_trait::async_trait;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
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
    /// Delivered and not settled.
    open: usize,
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
}

struct Queued {
    envelope: Arc<Envelope>,
    fault: Option<String>,
    delivery_count: u32,
}

impl Broker {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            link: None,
            attached: 0,
            topology: Topology::default(),
            prefetch: 0,
            queue: VecDeque::new(),
            open: 0,
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
            let (deliveries, queued) = {
                let mut state = self.state();
                let Some(deliveries) = state.link.as_ref().map(|link| link.deliveries.clone()) else { return };
                if deliveries.is_closed() || state.open >= state.prefetch {
                    return;
                }
                let Some(queued) = state.queue.pop_front() else { return };
                state.open += 1;
                (deliveries, queued)
            };
            let Queued { envelope, fault, delivery_count } = queued;
            let (broker, settled) = (self.clone(), envelope.clone());
            let ack = Ack::new(move |acked| broker.settled(settled, delivery_count, acked));
            let envelope = Arc::new((*envelope).clone());
            let _ = deliveries.send(Delivery { envelope, fault, delivery_count, ack });
        }
    }

    fn settled(&self, envelope: Arc<Envelope>, delivery_count: u32, acked: bool) {
        let mut state = self.state();
        state.open -= 1;
        if acked {
            state.acked.push(envelope.message_id.clone());
        } else {
            state.given_back += 1;
            state.queue.push_front(Queued { envelope, fault: None, delivery_count: delivery_count + 1 });
        }
        drop(state);
        if acked {
            self.pump();
        }
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
            link.state.send_replace(state);
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
        self.state().open
    }

    pub(super) fn queued(&self) -> usize {
        self.state().queue.len()
    }

    /// Whether everything was delivered and acknowledged.
    pub(super) fn is_done(&self) -> bool {
        let state = self.state();
        state.open == 0 && state.queue.is_empty()
    }
}

#[async_trait]
impl Transport for Broker {
    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError> {
        let (deliveries, deliveries_of) = mpsc::unbounded_channel();
        let (outgoing, mut taken) = mpsc::unbounded_channel();
        let (reports, reports_of) = mpsc::unbounded_channel();
        let (state, state_of) = watch::channel(LinkState::Up);
        let attached = {
            let mut broker = self.state();
            if let Some(error) = broker.refuses_to_attach.take() {
                return Err(error);
            }
            broker.topology = topology;
            broker.prefetch = limits.prefetch.into();
            broker.link = Some(Ends { deliveries, reports, state });
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
        Ok(Link { deliveries: deliveries_of, outgoing, reports: reports_of, state: state_of })
    }
}
