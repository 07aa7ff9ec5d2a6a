//! Where messages go. The exchange of an event is declared before its first message: publishing to a missing exchange
//! closes the channel.

use super::{
    connection::Broker,
    topology::{Admin, LOOK_EVERY, bundles_exchange, short},
};
use lapin::types::ShortString;
use saga_core::{Destination, Topology, TransportError, TransportErrorKind};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How long a refused destination is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// When an exchange was deleted, its events wait this long, until the subscribers have noticed, declared it again and
/// bound their queues.
const BOUND_AFTER: Duration = LOOK_EVERY.saturating_add(Duration::from_secs(5));
/// How long a queue counts as one that takes no bundles, before its exchange for them is looked for again.
const SINGLE_FOR: Duration = LOOK_EVERY;
/// How long after bundles came back, or were refused.
const WITHDRAWN_FOR: Duration = Duration::from_secs(60);
/// The most queues of which it is known whether they take bundles: reply queues of other programs come and go.
const BUNDLING_MAX: usize = 1000;
/// RabbitMQ's direct reply-to: a message to such an address is delivered *and* counts as unroutable.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";

/// Where a message goes, in AMQP's terms.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    /// Whether the broker returns it when no queue takes it.
    pub(super) mandatory: bool,
    /// Whether this is the exchange of an endpoint that takes bundles. A message that comes back from it goes to the
    /// queue itself.
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
    /// Queues whose endpoint takes bundles (`None`), and those that get single messages until then.
    bundling: HashMap<String, Option<Instant>>,
}

impl Addresses {
    pub(super) fn new(broker: Arc<Broker>, topology: &Topology, look: Arc<Notify>) -> Self {
        let (ready, known, deleted, refused, bundling) = Default::default();
        Self {
            broker,
            endpoint: topology.endpoint.clone(),
            passive: topology.passive,
            look,
            ready,
            known,
            deleted,
            refused,
            bundling,
        }
    }

    /// On a new channel everything is checked again.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
        self.bundling.retain(|_, single_until| single_until.is_some());
    }

    /// The queue that a message goes to; `None` for an event, and for an address that is no queue.
    pub(super) fn queue<'a>(&self, destination: &'a Destination) -> Option<Cow<'a, str>> {
        match destination {
            Destination::Endpoint(endpoint) => Some(self.broker.queue(endpoint)),
            Destination::ReplyTo(queue) if queue.starts_with(DIRECT_REPLY_TO) => None,
            Destination::ReplyTo(queue) => Some(queue.as_str().into()),
            Destination::Event(_) => None,
        }
    }

    /// The address for bundles to a queue, if its endpoint is known to take them. Single messages to it go the same way,
    /// so that they stay in order with bundles.
    pub(super) fn of_bundles(&self, queue: &str) -> Option<Address> {
        let takes = matches!(self.bundling.get(queue), Some(None));
        let exchange = ShortString::try_new(bundles_exchange(queue)).ok().filter(|_| takes)?;
        Some(Address { exchange, routing_key: "".into(), mandatory: true, to_bundles: true })
    }

    /// Finds out whether the endpoint with this queue takes bundles, if that is not known.
    pub(super) async fn ask_for_bundles(&mut self, queue: &str, admin: &mut Admin<'_>) -> Result<(), String> {
        if self.bundling.get(queue).is_some_and(|until| until.is_none_or(|until| Instant::now() < until)) {
            return Ok(());
        }
        let takes = match admin.has_exchange(&bundles_exchange(queue)).await {
            Ok(exists) => exists,
            Err(error) if error.kind() == TransportErrorKind::Unreachable => return Err(error.to_string()),
            Err(_) => false, // the name is too long, or the broker does not let us ask
        };
        if self.bundling.len() >= BUNDLING_MAX {
            self.bundling.clear();
        }
        self.bundling.insert(queue.to_owned(), (!takes).then(|| Instant::now() + SINGLE_FOR));
        Ok(())
    }

    /// What was sent as bundles to this queue came back or was refused.
    pub(super) fn no_bundles(&mut self, queue: &str) {
        self.bundling.insert(queue.to_owned(), Some(Instant::now() + WITHDRAWN_FOR));
    }

    /// The broker refused something with these words: if they name an exchange for bundles, no more are sent there.
    pub(super) fn refused_bundles(&mut self, words: &str) {
        let named = |queue: &String| words.contains(&format!("'{}'", bundles_exchange(queue)));
        for (_, single_until) in self.bundling.iter_mut().filter(|(queue, _)| named(queue)) {
            *single_until = Some(Instant::now() + WITHDRAWN_FOR);
        }
    }

    /// The broker refused a message to this destination.
    pub(super) fn refused(&mut self, destination: &Destination, code: u16, words: &str) {
        // other codes are about the message
        if matches!(code, 403 | 404) && !matches!(destination, Destination::ReplyTo(_)) {
            self.ready.remove(destination);
            self.refused.insert(destination.clone(), (Instant::now() + REFUSED_FOR, words.to_owned()));
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
