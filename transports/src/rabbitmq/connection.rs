//! Connections: made with patience, told apart by why they fail.

use super::stream;
use lapin::{Connection, ConnectionProperties, Error, ErrorKind, uri::AMQPUri};
use saga_core::{LinkState, Topology, TransportError};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// One try to connect takes at most so long: a broker that accepts but does not answer must not hold us.
const CONNECT: Duration = Duration::from_secs(8);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The hosts of one broker.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) uris: Vec<AMQPUri>,
    pub(super) next: AtomicUsize,
    /// Before the name of every queue and exchange.
    pub(super) prefix: String,
}

impl Broker {
    /// The name on the broker.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn prefixed(&self, topology: Topology) -> Topology {
        Topology {
            endpoint: self.named(&topology.endpoint),
            subscribes: topology.subscribes.iter().map(|event| self.named(event)).collect(),
            passive: topology.passive,
        }
    }

    /// One try, at the next host.
    async fn connect(&self, name: &str) -> Result<Connection, Error> {
        let uri = self.uris[self.next.fetch_add(1, Ordering::Relaxed) % self.uris.len()].clone();
        let options = ConnectionProperties::default().with_connection_name(format!("sagabus {name}").into());
        stream::connect(uri, options, CONNECT).await
    }

    /// Tries until the limit; gives up at once when the broker does not let us in.
    pub(super) async fn connect_within(&self, name: &str, limit: Duration) -> Result<Connection, TransportError> {
        let until = Instant::now() + limit;
        let mut tries = 0;
        loop {
            match self.connect(name).await {
                Ok(connection) => return Ok(connection),
                Err(error) if denied(&error) => return Err(TransportError::Denied(error.to_string())),
                Err(error) if Instant::now() >= until => return Err(TransportError::Unreachable(error.to_string())),
                Err(error) => {
                    tracing::warn!(endpoint = name, %error, "waiting for the broker");
                    tokio::time::sleep(pause(&mut tries).min(until.saturating_duration_since(Instant::now()))).await;
                }
            }
        }
    }

    /// Tries for ever, or until `gone`: the endpoint works on without the broker meanwhile.
    pub(super) async fn reconnect(&self, name: &str, gone: impl Fn() -> bool) -> Option<Connection> {
        let mut tries = 0;
        while !gone() {
            tokio::time::sleep(pause(&mut tries)).await;
            match self.connect(name).await {
                Ok(connection) => return Some(connection),
                Err(error) => tracing::warn!(endpoint = name, tries, %error, "waiting for the broker"),
            }
        }
        None
    }
}

/// Doubles from 50 ms, spread by a part that differs between processes.
pub(super) fn pause(tries: &mut u32) -> Duration {
    let base = Duration::from_millis(50).saturating_mul(1 << (*tries).min(8)).min(PAUSE_MAX);
    *tries += 1;
    base - base / 4 * (std::process::id() % 16) / 16
}

/// Refused credentials or a virtual host that is not there: waiting does not help.
fn denied(error: &Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.get_id(), 403 | 530)
}

/// Whether the broker can be reached, from both sides of a link.
pub(super) struct Health {
    sides: Arc<Mutex<[Option<String>; 2]>>,
    state: Arc<watch::Sender<LinkState>>,
}

impl Health {
    pub(super) fn new() -> (Self, watch::Receiver<LinkState>) {
        let (state, receiver) = watch::channel(LinkState::Up);
        (Self { sides: Arc::default(), state: Arc::new(state) }, receiver)
    }

    pub(super) fn consuming(&self) -> Side {
        Side { sides: self.sides.clone(), state: self.state.clone(), side: 0 }
    }

    pub(super) fn publishing(&self) -> Side {
        Side { sides: self.sides.clone(), state: self.state.clone(), side: 1 }
    }
}

/// One side of a link.
pub(super) struct Side {
    sides: Arc<Mutex<[Option<String>; 2]>>,
    state: Arc<watch::Sender<LinkState>>,
    side: usize,
}

impl Side {
    pub(super) fn up(&self) {
        self.set(None);
    }

    pub(super) fn down(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, why: Option<String>) {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        sides[self.side] = why;
        let state = sides.iter().flatten().next().map_or(LinkState::Up, |why| LinkState::Down(why.clone()));
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            *known = state;
            changed
        });
    }
}
