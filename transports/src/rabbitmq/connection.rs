//! Connections: opened with retries, with failures told apart.

use super::{
    stream,
    tls::{Tls, is_certificates},
    trouble::Trouble,
};
use lapin::{Connection, ConnectionProperties, Error, ErrorKind, uri::AMQPUri};
use saga_core::{Backoff, Destination, ErrorCode, Topology, TransportError, TransportErrorKind};
use std::{
    borrow::Cow,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// The longest try to connect: a broker that accepts but does not answer must not hold us.
const CONNECT: Duration = Duration::from_secs(8);
/// The shortest and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The channels of one connection: one works, one declares.
const CHANNELS: u16 = 2;

/// The hosts of one broker.
#[derive(Default)]
pub(super) struct Broker {
    pub(super) uris: Vec<AMQPUri>,
    pub(super) next: AtomicUsize,
    pub(super) tls: Tls,
    /// Before the name of every queue and exchange.
    pub(super) prefix: String,
}

impl fmt::Debug for Broker {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.uris.iter().map(|uri| format!("{}:{}", uri.authority.host, uri.authority.port));
        let vhost = self.uris.first().map(|uri| uri.vhost.as_str());
        f.debug_struct("Broker")
            .field("hosts", &hosts.collect::<Vec<_>>())
            .field("vhost", &vhost)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// The name on the broker.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The queue that a message goes to; `None` for an event, and for a queue of the broker's own naming, which no
    /// endpoint has.
    pub(super) fn queue<'a>(&self, destination: &'a Destination) -> Option<Cow<'a, str>> {
        match destination {
            Destination::Event(_) => None,
            Destination::ReplyTo(queue) => Some(queue.as_str().into()).filter(|_| !queue.starts_with("amq.")),
            Destination::Endpoint(endpoint) if self.prefix.is_empty() => Some(endpoint.as_str().into()),
            Destination::Endpoint(endpoint) => Some(self.named(endpoint).into()),
        }
    }

    /// The queue or the exchange that a message goes to.
    pub(super) fn place(&self, destination: &Destination) -> String {
        match destination {
            Destination::ReplyTo(queue) => queue.clone(),
            Destination::Endpoint(name) | Destination::Event(name) => self.named(name),
        }
    }

    pub(super) fn prefixed(&self, mut topology: Topology) -> Topology {
        let all = |names: Vec<String>| names.iter().map(|name| self.named(name)).collect();
        topology.endpoint = self.named(&topology.endpoint);
        topology.subscribes = all(topology.subscribes);
        topology.dropped = all(topology.dropped);
        topology
    }

    /// One try, at the next host.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, Error> {
        let uri = self.uris[self.next.fetch_add(1, Ordering::Relaxed) % self.uris.len()].clone();
        let options = ConnectionProperties::default().with_connection_name(format!("sagabus {name}").into());
        stream::connect(uri, &self.tls, options, CONNECT).await
    }

    /// Tries until the deadline; gives up at once when the broker refuses the credentials, and when certificates are to
    /// blame at each host.
    pub(super) async fn connect_until(&self, name: &str, until: Instant) -> Result<Connection, TransportError> {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let mut trouble = Trouble::default();
        let mut last = None;
        let mut certificates = 0;
        loop {
            let error = match tokio::time::timeout_at(until, self.connect(name)).await {
                Ok(Ok(connection)) => return enough_channels(connection),
                Ok(Err(error)) if is_certificates(&error) && certificates + 1 == self.uris.len() => {
                    let text = format!("there is no trust between us and the broker: {error}");
                    let failed = TransportError::new(TransportErrorKind::Invalid, text).with_code(ErrorCode::BrokerTls);
                    return Err(failed.with_source(error));
                }
                Ok(Err(error)) if is_denied(&error) => {
                    return Err(TransportError::new(TransportErrorKind::Denied, error.to_string()).with_source(error));
                }
                Ok(Err(error)) => Some(error),
                Err(_) => last.take(), // time is up: the failure before says more than that
            };
            let pause = backoff.next();
            if Instant::now() + pause >= until {
                let text = error.as_ref().map_or("it does not answer in time".into(), Error::to_string);
                let unreachable = TransportError::new(TransportErrorKind::Unreachable, text);
                return Err(match error {
                    Some(error) => unreachable.with_source(error),
                    None => unreachable,
                });
            }
            if let Some(error) = error {
                certificates = if is_certificates(&error) { certificates + 1 } else { 0 };
                if trouble.is_news() {
                    tracing::warn!(endpoint = name, %error, "waiting for the broker");
                }
                last = Some(error);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn enough_channels(connection: Connection) -> Result<Connection, TransportError> {
    match connection.configuration().channel_max() {
        // 0 is no limit
        channels @ 1..CHANNELS => Err(TransportError::new(
            TransportErrorKind::Invalid,
            format!("the broker allows {channels} channel a connection (`channel_max`), Sagabus needs {CHANNELS}"),
        )
        .with_code(ErrorCode::BrokerLimit)),
        _ => Ok(connection),
    }
}

/// Refused credentials or a missing virtual host: waiting does not help. It does help when a limit of connections is
/// reached (in a rolling restart the old process still has its own), or while the virtual host starts.
fn is_denied(error: &Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    let text = error.get_message().as_str();
    let passes = text.contains("limit") || text.contains("is down");
    matches!(error.get_id(), 403 | 530) && !passes
}
