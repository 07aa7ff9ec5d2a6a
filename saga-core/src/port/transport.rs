//! The broker side of the port.

use super::TransportError;
use crate::Envelope;
use async_trait::async_trait;
use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// A broker, or what stands in for one.
///
/// [`Transport::attach`] declares what the endpoint needs and returns a [`Link`]: four channels, on whose other ends
/// tasks of the transport work and reconnect by themselves until the link is dropped. Every implementation guarantees:
///
/// - A delivery comes again until [`Ack::ack`] settles it; an `Ack` that is dropped gives the message back.
/// - When the broker takes deliveries back unasked, because their channel is gone, it says so by [`Ack::of_channel`].
/// - Every [`Outgoing`] gets exactly one [`Report`]; none says `Confirmed` before the message is safe.
/// - A direct message (to a queue) that no queue took is reported `Unroutable`. An event without subscribers is
///   confirmed.
/// - A message that was in flight when a connection broke is reported `Unknown`; one that got no answer within
///   [`LinkLimits::confirm`], `Unknown` or `Unanswered`.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Declares the topology and starts to deliver.
    ///
    /// # Errors
    /// [`TransportError`] when the broker refuses (credentials, a topology that differs), or cannot be
    /// reached within [`LinkLimits::connect`].
    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError>;

    /// What spans call it: `messaging.system`.
    fn system(&self) -> &'static str {
        "sagabus"
    }
}

/// What an endpoint needs to exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// The endpoint: the name of its queue.
    pub endpoint: String,
    /// Events it listens to, by logical name.
    pub subscribes: Vec<String>,
    /// Events that an earlier version listened to and no process does now: they are unbound.
    pub dropped: Vec<String>,
    /// Declare nothing: everything was provisioned by hand.
    pub passive: bool,
    /// Whether the queue is this link's alone and goes with it: for the answers to a process's requests. When the
    /// connection breaks, it is made again under the same name. It is declared even when everything else is provisioned
    /// by hand.
    pub temporary: bool,
    /// Whether the endpoint takes bundles: many messages in one of the broker's. A transport that has none ignores it.
    /// One that has them reads bundles in any case.
    pub bundles: bool,
    /// Whether a message without an id gets one, instead of being delivered with a fault.
    pub generates_ids: bool,
}

impl Topology {
    /// What an endpoint without subscriptions needs.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..Self::default() }
    }
}

/// Limits of a link.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LinkLimits {
    /// The most unsettled messages at a time.
    pub prefetch: u16,
    /// The most bytes of their bodies, approximately: a transport may exceed it by one step.
    pub prefetch_bytes: usize,
    /// How many messages the endpoint handles at the same time. While it is slow, it needs few more than these; another
    /// process of the service may take the others.
    pub parallel: usize,
    /// The largest body that the endpoint takes, in bytes.
    pub body_bytes_max: usize,
    /// The most messages that await their confirm at a time.
    pub window: usize,
    /// How long a publish may wait for its confirm before it counts as unknown.
    pub confirm: Duration,
    /// How long the first connection may take, including tries and pauses.
    pub connect: Duration,
}

impl Default for LinkLimits {
    /// The limits of an endpoint whose builder sets none.
    fn default() -> Self {
        let settings = crate::Settings::default();
        Self {
            prefetch: settings.prefetch,
            prefetch_bytes: settings.prefetch_bytes,
            parallel: settings.prefetch.into(),
            body_bytes_max: settings.body_bytes_max,
            window: settings.window,
            confirm: settings.confirm,
            connect: settings.connect,
        }
    }
}

/// The four channels of an attached endpoint. The channels themselves are unbounded; the prefetch and the window of
/// sent messages bound what is in them.
///
/// To stop: drop `deliveries` (consuming ends), finish what is in hand, drop `outgoing`; the transport closes
/// when the last [`Ack`] is gone, and `state` closes with it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Link {
    /// Messages for this endpoint.
    pub deliveries: mpsc::UnboundedReceiver<Delivery>,
    /// Messages to publish.
    pub outgoing: mpsc::UnboundedSender<Outgoing>,
    /// What became of them.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// Whether the broker can be reached.
    pub state: watch::Receiver<LinkState>,
    /// Whether it can be published to, where the transport tells that apart: what is in the outbox goes out although
    /// nothing comes in. Else the same as `state`.
    pub publishing: watch::Receiver<LinkState>,
}

impl Link {
    /// A link over these channels.
    pub fn new(
        deliveries: mpsc::UnboundedReceiver<Delivery>,
        outgoing: mpsc::UnboundedSender<Outgoing>,
        reports: mpsc::UnboundedReceiver<Report>,
        state: watch::Receiver<LinkState>,
    ) -> Self {
        let publishing = state.clone();
        Self { deliveries, outgoing, reports, state, publishing }
    }

    /// With a state of publishing alone.
    #[must_use]
    pub fn with_publishing(self, publishing: watch::Receiver<LinkState>) -> Self {
        Self { publishing, ..self }
    }
}

/// Whether the broker can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// Consuming and publishing.
    Up,
    /// Away, with the reason; the transport is trying again.
    Down(String),
    /// The endpoint has failed and works no more, with the reason. Transports never say this.
    Failed(String),
}

/// A message that came.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The message; or, when it is not even an envelope (no message id, say), why.
    pub envelope: Arc<Envelope>,
    /// What is wrong with it, found before its body is read. The message is held with this text.
    pub fault: Option<String>,
    /// Earlier deliveries that were not acknowledged.
    pub delivery_count: u32,
    /// Settles it.
    pub ack: Ack,
}

impl Delivery {
    /// A message that can be read, delivered for the first time.
    pub fn new(envelope: Arc<Envelope>, ack: Ack) -> Self {
        Self { envelope, fault: None, delivery_count: 0, ack }
    }
}

/// The right to settle one delivery, once. Dropped unused, it gives the message back to the broker.
pub struct Ack {
    settle: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
    channel: Channel,
}

impl Ack {
    /// `settle` is called once: with `true` for an ack, with `false` when the message goes back.
    pub fn new(settle: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        Self { settle: Some(Box::new(settle)), channel: Channel::default() }
    }

    /// As [`Ack::new`], for a delivery that can be settled on one channel of the broker's and nowhere else. The
    /// transport drops `channel` when that channel is gone. The broker then delivers the message again, and the
    /// endpoint drops its copy unless it runs already: else copies would gather with each channel that is lost.
    ///
    /// ```
    /// use sagabus::port::Ack;
    /// use std::sync::Arc;
    ///
    /// let channel = Arc::new(()); // kept beside the broker's channel
    /// let ack = Ack::of_channel(&channel, |handled| println!("handled: {handled}"));
    /// ack.ack();
    /// ```
    pub fn of_channel(channel: &Arc<()>, settle: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        let mut ack = Self::new(settle);
        ack.channel = Channel(Some(Arc::downgrade(channel)));
        ack
    }

    /// The message is settled for good.
    pub fn ack(mut self) {
        if let Some(settle) = self.settle.take() {
            settle(true);
        }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }
}

/// The channel that brought a delivery, as long as that channel matters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Channel(Option<Weak<()>>);

impl Channel {
    /// Whether the channel is gone: the broker has taken back what was not settled, and delivers it again.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.as_ref().is_some_and(|channel| channel.strong_count() == 0)
    }

    /// Whether both are of the same channel.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => one.ptr_eq(other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle(false);
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

/// A message to publish.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outgoing {
    /// The outbox row: names the message in its [`Report`].
    pub row: Uuid,
    /// Where to.
    pub destination: Destination,
    /// What.
    pub envelope: Arc<Envelope>,
    /// Earlier tries.
    pub attempts: u32,
    /// How often its lease ran out, because the process that was publishing it died.
    pub expired: u32,
}

impl Outgoing {
    /// A message that was not tried before.
    pub fn new(row: Uuid, destination: Destination, envelope: Arc<Envelope>) -> Self {
        Self { row, destination, envelope, attempts: 0, expired: 0 }
    }
}

/// Where a message goes. Exhaustive: a transport must handle every kind, so a new kind must not compile unnoticed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The queue of one endpoint.
    Endpoint(String),
    /// An address from a message's `reply_to`: an endpoint, or a temporary queue of another program.
    ReplyTo(String),
    /// Every subscriber of this event.
    Event(String),
}

impl Destination {
    /// The name of the endpoint, queue or event.
    pub fn name(&self) -> &str {
        match self {
            Self::Endpoint(name) | Self::ReplyTo(name) | Self::Event(name) => name,
        }
    }
}

/// What became of an outgoing message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The outbox row.
    pub row: Uuid,
    /// What became of it.
    pub fate: Fate,
}

impl Report {
    /// The report about a row.
    pub fn new(row: Uuid, fate: Fate) -> Self {
        Self { row, fate }
    }
}

/// What became of an outgoing message. Exhaustive: each fate asks for its own treatment of the outbox row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The broker has it safely (in-process: the last receiver has committed).
    Confirmed,
    /// No queue took it.
    Unroutable(String),
    /// The broker did not say within [`LinkLimits::confirm`] that the queue has it. It must be sent again, and until
    /// that is answered, nothing else need be sent there.
    Unanswered(String),
    /// A queue that it would go to takes none, full as it is, say: nothing is wrong with the message. It must be sent
    /// again, and until one is taken, nothing else need be sent there.
    QueueRefused(String),
    /// The broker refused it.
    Refused(String),
    /// Unknown; it must be sent again.
    Unknown(String),
}
