//! In-process: messages go from endpoint to endpoint of one process. A message is confirmed when its last receiver has
//! committed, so the sender's outbox is the queue, and it is as durable as the sender's database.

use async_trait::async_trait;
use saga_core::{
    Ack, Delivery, Destination, ErrorCode, Fate, Link, LinkLimits, LinkState, Outgoing, Report, Topology, Transport,
    TransportError, TransportErrorKind,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// The most messages whose receivers are remembered while one of them is away. Beyond that, receivers get the message
/// again, and their inbox recognises it.
const PARTLY_MAX: usize = 100_000;

/// A broker within the process. Give each endpoint of the process a clone.
#[derive(Debug, Clone, Default)]
pub struct InProcess {
    bus: Arc<Mutex<Bus>>,
}

#[derive(Debug, Default)]
struct Bus {
    /// Endpoints that will attach: events wait until these have said what they subscribe to.
    expected: BTreeSet<String>,
    endpoints: BTreeMap<String, Attached>,
}

#[derive(Debug)]
struct Attached {
    subscribes: BTreeSet<String>,
    temporary: bool,
    deliveries: mpsc::UnboundedSender<Delivery>,
}

impl InProcess {
    /// A bus for any endpoints. An event reaches those that have started by then. If the first endpoint to start may
    /// publish at once, as a restarted process with a full outbox does, name the endpoints with [`InProcess::of`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A bus for these endpoints: no event leaves an outbox before all of them have started.
    pub fn of(endpoints: &[&str]) -> Self {
        let expected = endpoints.iter().map(|name| (*name).to_owned()).collect();
        Self { bus: Arc::new(Mutex::new(Bus { expected, endpoints: BTreeMap::new() })) }
    }
}

impl Bus {
    /// Who gets the message, and why it must come again, if a receiver cannot get it now.
    fn receivers(&self, destination: &Destination) -> (Vec<Receiver>, Option<String>) {
        let mut away = Vec::new();
        let mut running = Vec::new();
        let mut reach = |name: &str, attached: &Attached| {
            if attached.deliveries.is_closed() {
                away.push(name.to_owned());
            } else {
                running.push(Receiver { name: name.to_owned(), deliveries: attached.deliveries.clone() });
            }
        };
        match destination {
            Destination::Endpoint(name) | Destination::ReplyTo(name) => match self.endpoints.get(name) {
                Some(attached) => reach(name, attached),
                None => away.push(name.clone()),
            },
            Destination::Event(event) => {
                for (name, attached) in
                    self.endpoints.iter().filter(|(_, attached)| attached.subscribes.contains(event))
                {
                    reach(name, attached);
                }
                away.extend(self.expected.iter().filter(|name| !self.endpoints.contains_key(*name)).cloned());
            }
        }
        away.sort_unstable();
        let why = (!away.is_empty()).then(|| format!("not running in this process: {}", away.join(", ")));
        (running, why)
    }
}

/// A running endpoint.
struct Receiver {
    name: String,
    deliveries: mpsc::UnboundedSender<Delivery>,
}

#[async_trait]
impl Transport for InProcess {
    async fn attach(&self, topology: Topology, _limits: LinkLimits) -> Result<Link, TransportError> {
        let (deliveries, incoming) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (outgoing, rows) = mpsc::unbounded_channel();
        let (up, state) = watch::channel(LinkState::Up);
        {
            let mut bus = self.bus.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = bus.endpoints.get(&topology.endpoint).is_some_and(|known| !known.deliveries.is_closed());
            if taken {
                let name = topology.endpoint;
                let text = format!("endpoint `{name}` runs in this process already");
                return Err(TransportError::new(TransportErrorKind::Invalid, text).with_code(ErrorCode::AlreadyRuns));
            }
            bus.endpoints.retain(|_, known| !(known.temporary && known.deliveries.is_closed()));
            let (subscribes, temporary) = (topology.subscribes.into_iter().collect(), topology.temporary);
            let attached = Attached { subscribes, temporary, deliveries };
            bus.endpoints.insert(topology.endpoint, attached);
        }
        tokio::spawn(forward(self.bus.clone(), rows, reports, up));
        Ok(Link::new(incoming, outgoing, reported, state))
    }
}

/// Endpoints that have committed a message while others were away: sent again, it goes only to the others.
type Partly = Arc<Mutex<BTreeMap<Uuid, BTreeSet<String>>>>;

/// Runs until the endpoint drops its end.
async fn forward(
    bus: Arc<Mutex<Bus>>,
    mut rows: mpsc::UnboundedReceiver<Outgoing>,
    reports: mpsc::UnboundedSender<Report>,
    _up: watch::Sender<LinkState>,
) {
    let partly = Partly::default();
    while let Some(outgoing) = rows.recv().await {
        let (mut receivers, away) = bus.lock().unwrap_or_else(PoisonError::into_inner).receivers(&outgoing.destination);
        if let Some(have_it) = partly.lock().unwrap_or_else(PoisonError::into_inner).get(&outgoing.row) {
            receivers.retain(|receiver| !have_it.contains(&receiver.name));
        }
        let pending = Arc::new(Pending {
            row: outgoing.row,
            left: AtomicUsize::new(receivers.len() + 1),
            given_back: AtomicBool::new(false),
            committed: Mutex::default(),
            away,
            partly: partly.clone(),
            reports: reports.clone(),
        });
        for Receiver { name, deliveries } in receivers {
            let waiting = pending.clone();
            let ack = Ack::new(move |is_handled| waiting.settle(is_handled.then_some(name)));
            let mut delivery = Delivery::new(outgoing.envelope.clone(), ack);
            // a process that died while running the message may have died of it; being away says nothing
            delivery.delivery_count = outgoing.expired;
            let _ = deliveries.send(delivery); // refused: dropping the delivery gives it back
        }
        pending.sent();
    }
}

/// A message between its publish and its last receiver's commit.
struct Pending {
    row: Uuid,
    left: AtomicUsize,
    given_back: AtomicBool,
    committed: Mutex<BTreeSet<String>>,
    away: Option<String>,
    partly: Partly,
    reports: mpsc::UnboundedSender<Report>,
}

impl Pending {
    /// A receiver has committed, or given it back.
    fn settle(&self, committed: Option<String>) {
        match committed {
            Some(name) => drop(self.committed.lock().unwrap_or_else(PoisonError::into_inner).insert(name)),
            None => self.given_back.store(true, Ordering::Release),
        }
        self.sent();
    }

    /// One receiver less to wait for; the last one reports.
    fn sent(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let fate = match &self.away {
            Some(away) => Fate::Unroutable(away.clone()),
            None if self.given_back.load(Ordering::Acquire) => Fate::Unknown("a receiver gave it back".into()),
            None => Fate::Confirmed,
        };
        let mut partly = self.partly.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = std::mem::take(&mut *self.committed.lock().unwrap_or_else(PoisonError::into_inner));
        if fate == Fate::Confirmed {
            partly.remove(&self.row);
        } else if !committed.is_empty() && (partly.len() < PARTLY_MAX || partly.contains_key(&self.row)) {
            partly.entry(self.row).or_default().extend(committed);
        }
        drop(partly);
        let _ = self.reports.send(Report::new(self.row, fate)); // the sender is gone: its lease runs out
    }
}
