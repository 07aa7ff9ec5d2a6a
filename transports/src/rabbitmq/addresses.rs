//! Where messages go. The exchange of an event is declared before its first message: publishing to a missing exchange
//! closes the channel.

use super::{
    connection::Broker,
    topology::{Admin, LOOK_EVERY, short},
};
use lapin::types::ShortString;
use saga_core::{Destination, Topology, TransportError, TransportErrorKind};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How long a refused destination is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// When an exchange was deleted, its events wait this long, until the subscribers have noticed, declared it again and
/// bound their queues.
const BOUND_AFTER: Duration = LOOK_EVERY.saturating_add(Duration::from_secs(5));
/// RabbitMQ's direct reply-to: a message to such an address is delivered *and* counts as unroutable.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";

/// Where a message goes, in AMQP's terms.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    /// Whether the broker returns it when no queue takes it.
    pub(super) mandatory: bool,
    /// Whether this is the exchange for bundles: what comes back from there goes to the queue itself.
    pub(super) to_bundles: bool,
}

/// Why there is no address.
#[derive(Debug)]
pub(super) enum NoAddress {
    /// The message cannot be published (now).
    Refused(String),
    /// The broker does not answer.
    Broken(String),
}

/// The destinations of one endpoint's messages, through all its connections.
pub(super) struct Addresses {
    broker: Arc<Broker>,
    endpoint: String,
    passive: bool,
    /// Asks the endpoint to look for what is missing at the broker.
    look: Arc<Notify>,
    /// Exchanges that exist, as far as this channel knows.
    ready: HashMap<Destination, Address>,
    /// Exchanges that were there once.
    known: HashSet<ShortString>,
    /// Those that were deleted, and since when.
    deleted: HashMap<ShortString, Instant>,
    /// Refused destinations: the broker's words, and until when they hold.
    refused: HashMap<Destination, (Instant, String)>,
    /// Whoever may not write to the default exchange may write to no queue: likewise.
    all_queues: Option<(Instant, String)>,
}

impl Addresses {
    pub(super) fn new(broker: Arc<Broker>, topology: &Topology, look: Arc<Notify>) -> Self {
        let (ready, known, deleted, refused, all_queues) = Default::default();
        Self {
            broker,
            endpoint: topology.endpoint.clone(),
            passive: topology.passive,
            look,
            ready,
            known,
            deleted,
            refused,
            all_queues,
        }
    }

    /// On a new channel everything is checked again.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
    }

    /// The broker refused a message to this destination.
    pub(super) fn refused(&mut self, destination: &Destination, code: u16, words: &str) {
        let holds = (Instant::now() + REFUSED_FOR, words.to_owned());
        match destination {
            Destination::Event(_) if matches!(code, 403 | 404) => {
                self.ready.remove(destination);
                self.refused.insert(destination.clone(), holds);
            }
            Destination::Endpoint(_) | Destination::ReplyTo(_) if code == 403 => {
                self.ready.retain(|it, _| matches!(it, Destination::Event(_)));
                self.all_queues = Some(holds);
            }
            _ => {} // other codes are about the message
        }
    }

    /// The address of a destination, if it is known.
    pub(super) fn get(&self, destination: &Destination) -> Option<&Address> {
        self.ready.get(destination)
    }

    /// The address of a destination, after what it needs was declared.
    pub(super) async fn find(
        &mut self,
        destination: &Destination,
        admin: &mut Admin<'_>,
    ) -> Result<Address, NoAddress> {
        if let Some(address) = self.ready.get(destination) {
            return Ok(address.clone());
        }
        if let Some((until, words)) = self.all_queues.as_ref().filter(|_| !matches!(destination, Destination::Event(_)))
        {
            if Instant::now() < *until {
                return Err(NoAddress::Refused(words.clone()));
            }
            self.all_queues = None;
        }
        if let Some((until, words)) = self.refused.get(destination) {
            if Instant::now() < *until {
                return Err(NoAddress::Refused(words.clone()));
            }
            self.refused.remove(destination);
        }
        let name = |name: &str| short(name).map_err(|error| NoAddress::Refused(error.to_string()));
        let address = match destination {
            Destination::ReplyTo(queue) => {
                // reply queues of other programs come and go: remembering them would never end
                let mandatory = !queue.starts_with(DIRECT_REPLY_TO);
                return Ok(Address { exchange: "".into(), routing_key: name(queue)?, mandatory, to_bundles: false });
            }
            Destination::Endpoint(endpoint) => {
                let routing_key = name(&self.broker.named(endpoint))?;
                Address { exchange: "".into(), routing_key, mandatory: true, to_bundles: false }
            }
            Destination::Event(event) => {
                let exchange = name(&self.broker.named(event))?;
                if let Err(missing) = self.provide(&exchange, admin).await {
                    if let Missing::Refused(words, lasts) = &missing {
                        self.refused.insert(destination.clone(), (Instant::now() + *lasts, words.clone()));
                    }
                    return Err(missing.into());
                }
                Address { exchange, routing_key: "".into(), mandatory: false, to_bundles: false }
            }
        };
        self.ready.insert(destination.clone(), address.clone());
        Ok(address)
    }

    /// Makes sure that an event's exchange exists.
    async fn provide(&mut self, exchange: &ShortString, admin: &mut Admin<'_>) -> Result<(), Missing> {
        let was_known = self.known.contains(exchange);
        if self.passive || was_known {
            if admin.has_exchange(exchange.as_str()).await? {
                self.known.insert(exchange.clone());
                self.is_back(exchange);
                return Ok(());
            }
            self.look.notify_one();
        }
        if self.passive {
            let words =
                format!("NOT_FOUND - no exchange `{exchange}`; this endpoint is passive, so declare it by hand");
            return Err(Missing::Refused(words, REFUSED_FOR));
        }
        if was_known {
            // subscribers must notice the missing exchange: they cannot see a missing binding
            let since = *self.deleted.entry(exchange.clone()).or_insert_with(|| {
                tracing::warn!(
                    endpoint = self.endpoint,
                    %exchange,
                    "the exchange was deleted while this endpoint ran; messages to it wait for {} s, in which \
                     subscribers declare it again and bind their queues",
                    BOUND_AFTER.as_secs()
                );
                Instant::now()
            });
            let left = BOUND_AFTER.saturating_sub(since.elapsed());
            if !left.is_zero() {
                let words = format!("exchange `{exchange}` was deleted, and its subscribers are yet to bind again");
                return Err(Missing::Refused(words, left));
            }
        }
        admin.declare_exchange(exchange.as_str()).await?;
        self.known.insert(exchange.clone());
        self.is_back(exchange);
        Ok(())
    }

    fn is_back(&mut self, exchange: &ShortString) {
        if let Some(since) = self.deleted.remove(exchange) {
            let lasted = since.elapsed();
            tracing::info!(endpoint = self.endpoint, %exchange, ?lasted, "the exchange is there again");
        }
    }
}

enum Missing {
    /// With the broker's words, and how long they hold.
    Refused(String, Duration),
    Broken(String),
}

impl From<TransportError> for Missing {
    fn from(error: TransportError) -> Self {
        match error.kind() {
            TransportErrorKind::Unreachable => Self::Broken(error.to_string()),
            _ => Self::Refused(error.to_string(), REFUSED_FOR),
        }
    }
}

impl From<Missing> for NoAddress {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Refused(words, _) => Self::Refused(words),
            Missing::Broken(why) => Self::Broken(why),
        }
    }
}
