//! The publishing side. One task owns the channel: publishes of several tasks on one channel could swap their tags, and
//! acks would go to the wrong message. A window keeps many messages in flight (`flight.rs`): a confirm awaited one by
//! one costs ten times as much. Messages in flight when a channel breaks go first on the next one (`unsent.rs`).

use super::{
    addresses::{Address, Addresses, NoAddress},
    bundle,
    bundling::{Bundling, EXCHANGE},
    connection::Broker,
    flight::{Flight, Ready, broken},
    keep::{FAREWELL, Life, Line, Parted, WORKS_AFTER},
    too_large::{TooLarge, largest_body},
    topology::Admin,
    trouble::Trouble,
    unsent::{Broken, Unsent},
    wire,
};
use futures_util::StreamExt;
use lapin::{BasicProperties, Connection, Event};
use saga_core::{BundleSizes, Envelope, Fate, LinkLimits, Outgoing, Report, Topology};
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use uuid::Uuid;

/// The most AMQP messages in flight: lapin searches all pending tags at each multiple ack, so more cost more than they
/// gain.
const WINDOW_MAX: usize = 1000;
/// The most bytes of bodies in flight: lapin copies them. A larger body goes alone.
const WINDOW_BYTES_MAX: usize = 64 << 20;
/// The most messages that are prepared together.
const TOGETHER_MAX: usize = 1000;
/// How often confirms are collected: nobody waits for one, and each would wake this task by itself.
const GATHER: Duration = Duration::from_millis(5);

/// The publishing side of a link.
pub(super) struct Publisher {
    broker: Arc<Broker>,
    topology: Arc<Topology>,
    limits: LinkLimits,
    rows: mpsc::UnboundedReceiver<Outgoing>,
    reports: mpsc::UnboundedSender<Report>,
    addresses: Addresses,
    bundling: Bundling,
    /// The most bytes of a bundle: less than usual at a broker with a smaller limit.
    bundle_bytes_max: usize,
    bundle_sizes: BundleSizes,
    unsent: Unsent,
    too_large: Option<TooLarge>,
    blocked: Trouble,
    refused: Trouble,
}

impl Publisher {
    pub(super) fn new(
        broker: Arc<Broker>,
        topology: Arc<Topology>,
        limits: LinkLimits,
        rows: mpsc::UnboundedReceiver<Outgoing>,
        reports: mpsc::UnboundedSender<Report>,
        look: Arc<Notify>,
    ) -> Self {
        let addresses = Addresses::new(broker.clone(), &topology, look);
        let bundling = Bundling::new(&topology.endpoint, &broker.named(EXCHANGE));
        let (unsent, too_large, blocked, refused) = Default::default();
        let bundle_bytes_max = bundle::BYTES_MAX;
        let bundle_sizes = BundleSizes::new(&topology.endpoint);
        Self {
            broker,
            topology,
            limits,
            rows,
            reports,
            addresses,
            bundling,
            bundle_bytes_max,
            bundle_sizes,
            unsent,
            too_large,
            blocked,
            refused,
        }
    }
}

impl Life for Publisher {
    const WHAT: &'static str = "publishing";

    async fn live(&mut self, connection: &Connection, line: &mut Line) -> Option<Parted> {
        let mut flight = match Flight::open(connection, self.limits.confirm).await {
            Ok(flight) => flight,
            Err(parted) => return Some(parted),
        };
        self.addresses.forget();
        let bundles = self.broker.named(EXCHANGE);
        let mut admin = Admin::new(connection, &bundles);
        self.bundling.begin(&mut admin, self.topology.passive).await;
        line.health.up();
        let Err(broken) = self.publish(&mut flight, connection, &mut admin, line).await else {
            if self.blocked.lasts() {
                // the broker reads nothing from it, the goodbye neither
                let _ = tokio::time::timeout(FAREWELL, connection.close(200, "bye".into())).await;
            }
            return None;
        };
        // the next connection may not be blocked, and says nothing then; nor is it known that the broker takes messages
        let _ = self.blocked.is_over();
        Some(self.part(flight, broken, line).await)
    }

    fn is_done(&self) -> bool {
        self.rows.is_closed()
    }
}

impl Publisher {
    /// Publishes until the endpoint is done, or the channel breaks.
    async fn publish(
        &mut self,
        flight: &mut Flight,
        connection: &Connection,
        admin: &mut Admin<'_>,
        line: &mut Line,
    ) -> Result<(), Broken> {
        let mut events = Box::pin(connection.events_listener());
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let began = Instant::now();
        let (mut is_blocked, mut is_done) = (false, false);
        let mut gathered: Option<Instant> = None;
        let mut came = Vec::new();
        loop {
            if !is_blocked {
                self.fill(flight, admin).await?;
                self.account(flight, line)?;
            }
            if is_done && self.unsent.is_empty() && flight.is_empty() && !flight.recalls() {
                return Ok(());
            }
            let is_careful = self.unsent.is_careful();
            if gathered.is_none() && flight.awaits_answers() && !is_careful {
                gathered = Some(Instant::now() + GATHER);
            }
            let room = self.room(flight).min(TOGETHER_MAX);
            let takes_more = room > 0 && !is_done && !is_blocked && self.unsent.is_empty();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(gathered.unwrap_or_else(Instant::now)), if gathered.is_some() => {
                    gathered = None;
                    flight.take_answers();
                    self.account(flight, line)?;
                }
                // each waits for the one before
                () = flight.next_answer(), if is_careful && flight.awaits_answers() => self.account(flight, line)?,
                n = self.rows.recv_many(&mut came, room), if takes_more => {
                    is_done = n == 0;
                    self.unsent.extend(came.drain(..));
                }
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        is_blocked = true;
                        self.is_blocked(reason.as_str(), line);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        is_blocked = false;
                        flight.forgive(self.limits.confirm);
                        self.is_unblocked();
                        line.health.up();
                    }
                    // lapin tells of errors of all channels, and those that declare have theirs
                    Some(Event::Error(error)) if !flight.is_open() => return Err(broken(&error)),
                    _ => {}
                },
                _ = look.tick() => {
                    while !is_blocked && let Some((place, works)) = flight.overdue() {
                        let why = format!("no confirm within {:?}", self.limits.confirm);
                        if !works {
                            return Err(Broken::Silent { place, why });
                        }
                        flight.give_up(&place, &why);
                        self.account(flight, line)?;
                        self.give_up(&place, &why);
                    }
                    if !connection.status().connected() {
                        return Err(Broken::Otherwise("the connection is closed".into()));
                    }
                    if is_blocked && self.rows.is_closed() {
                        return Ok(()); // what is not published is in the outbox
                    }
                    if began.elapsed() >= WORKS_AFTER {
                        line.works();
                    }
                }
            }
        }
    }

    /// How many messages may be published now.
    fn room(&self, flight: &Flight) -> usize {
        match self.unsent.is_careful() {
            true => usize::from(flight.is_empty()),
            false => {
                let messages = self.limits.window.saturating_sub(flight.messages());
                messages.min(WINDOW_MAX.saturating_sub(flight.unanswered()))
            }
        }
    }

    /// Publishes what fits. Prepares all before the first one leaves, so that lapin's thread sends them in few packets.
    async fn fill(&mut self, flight: &mut Flight, admin: &mut Admin<'_>) -> Result<(), Broken> {
        if flight.probes() {
            return Ok(());
        }
        if let Some(queue) = flight.takes_bundles() {
            self.bundling.arrived(&queue);
        }
        if flight.recalls() && !self.recall(flight) {
            return Ok(()); // nothing goes before what may come back as well
        }
        let mut ready: Vec<Ready> = Vec::new();
        let mut parcels = self.parcels(flight).into_iter();
        let mut left: Vec<Outgoing> = Vec::new();
        let mut made = Ok(());
        // nothing goes behind a probe
        while made.is_ok()
            && ready.last().is_none_or(|last| !last.is_probe)
            && let Some(parcel) = parcels.next()
        {
            let (rest, broken) = self.make_ready(parcel, flight.frame_max, admin, &mut ready).await;
            left = rest;
            made = broken.map_or(Ok(()), |why| Err(Broken::Otherwise(why)));
        }
        left.extend(parcels.flatten());
        let mut ready = ready.into_iter();
        while made.is_ok()
            && let Some(message) = ready.next()
        {
            made = flight.publish(message, self.limits.confirm);
        }
        let unpublished: Vec<Outgoing> = ready.flat_map(|ready| ready.messages).chain(left).collect();
        unpublished.into_iter().rev().for_each(|message| self.unsent.put_back(message));
        made
    }

    /// What went to the exchange for bundles came back. All of it goes again, to the queues themselves. Returns whether
    /// all has come back.
    fn recall(&mut self, flight: &mut Flight) -> bool {
        for message in flight.recalled().into_iter().rev() {
            if let Some(queue) = self.broker.queue(&message.destination) {
                self.bundling.returned(&queue);
            }
            self.unsent.put_back(message);
        }
        !flight.recalls()
    }

    /// Takes what fits into the window, as what may go together.
    fn parcels(&mut self, flight: &Flight) -> Vec<Vec<Outgoing>> {
        let (mut room, mut bytes) = (self.room(flight).min(TOGETHER_MAX), flight.bytes());
        let (unsent, broker) = (&mut self.unsent, &self.broker);
        let taken = std::iter::from_fn(|| {
            let body_bytes = unsent.front()?.envelope.body.len();
            if room == 0 || (bytes > 0 && bytes + body_bytes > WINDOW_BYTES_MAX) {
                return None;
            }
            room -= 1;
            bytes += body_bytes;
            unsent.take()
        });
        bundle::parcels(taken, |message| broker.queue(&message.destination))
    }

    /// Turns a parcel into AMQP messages: bundles if its receiver takes them, else single ones. Refused messages are
    /// reported. Gives back what is left behind a probe, or when the broker does not answer, with its words.
    async fn make_ready(
        &mut self,
        parcel: Vec<Outgoing>,
        frame_max: usize,
        admin: &mut Admin<'_>,
        ready: &mut Vec<Ready>,
    ) -> (Vec<Outgoing>, Option<String>) {
        let mut parcel = parcel.into_iter();
        loop {
            if let Some((messages, bundle)) = self.bundle(parcel.as_slice()) {
                let is_probe = bundle.is_probe;
                ready.push(Ready { messages: parcel.by_ref().take(messages).collect(), ..bundle });
                if is_probe {
                    return (parcel.collect(), None);
                }
                continue;
            }
            let Some(message) = parcel.next() else { return (Vec::new(), None) };
            match self.single(&message, frame_max, admin).await {
                Ok((address, properties)) => ready.push(Ready {
                    message_id: message.envelope.message_id.clone(),
                    body: message.envelope.body.clone(),
                    messages: vec![message],
                    address,
                    properties,
                    is_probe: false,
                }),
                Err(NoAddress::Refused(words)) => self.report(&message, Fate::Refused(words)),
                Err(NoAddress::Broken(why)) => return (std::iter::once(message).chain(parcel).collect(), Some(why)),
            }
        }
    }

    /// A bundle with the first messages, and how many; `None` if the first one must go singly.
    fn bundle(&mut self, messages: &[Outgoing]) -> Option<(usize, Ready)> {
        let [first, _, ..] = messages else { return None };
        let queue = self.broker.queue(&first.destination)?;
        let address = self.bundling.of_bundle(&queue)?;
        let envelopes = messages.iter().map(|message| self.addressed(&message.envelope));
        let (messages, body) = bundle::body(envelopes, self.bundle_bytes_max)?;
        let message_id = Uuid::now_v7().to_string();
        let properties = bundle::properties(&message_id);
        self.bundle_sizes.sent(messages);
        let is_probe = self.bundling.sends(&queue);
        Some((messages, Ready { messages: Vec::new(), message_id, body, address, properties, is_probe }))
    }

    /// All that publishing one message needs.
    async fn single(
        &mut self,
        message: &Outgoing,
        frame_max: usize,
        admin: &mut Admin<'_>,
    ) -> Result<(Address, BasicProperties), NoAddress> {
        if let Some(words) = self.too_large.as_ref().and_then(|it| it.refuses(message.envelope.body.len())) {
            return Err(NoAddress::Refused(words));
        }
        let queue = self.broker.queue(&message.destination);
        let to_bundles = queue.and_then(|queue| self.bundling.of_single(&queue));
        let address = match to_bundles.as_ref().or_else(|| self.addresses.get(&message.destination)) {
            Some(address) => address.clone(),
            None => self.addresses.find(&message.destination, admin).await?,
        };
        let properties = wire::properties(&self.addressed(&message.envelope), frame_max).map_err(NoAddress::Refused)?;
        Ok((address, properties))
    }

    /// The envelope with the address for answers as the broker knows it: our own gets the prefix; another's came from
    /// the broker and has it already.
    fn addressed<'a>(&self, envelope: &'a Envelope) -> Cow<'a, Envelope> {
        match &envelope.reply_to {
            Some(reply_to) if *reply_to != self.topology.endpoint => {
                let named = self.broker.named(reply_to);
                if named != self.topology.endpoint {
                    return Cow::Borrowed(envelope);
                }
                let mut envelope = envelope.clone();
                envelope.reply_to = Some(named);
                Cow::Owned(envelope)
            }
            _ => Cow::Borrowed(envelope),
        }
    }

    /// Reports what is known, and says whether the channel is broken.
    fn account(&mut self, flight: &mut Flight, line: &mut Line) -> Result<(), Broken> {
        for (outgoing, fate) in flight.settled() {
            line.works();
            self.report(&outgoing, fate);
        }
        flight.broken()
    }

    /// The channel is broken: reports messages in flight whose fate is known, keeps the rest for the next channel.
    async fn part(&mut self, mut flight: Flight, broken: Broken, line: &mut Line) -> Parted {
        let broken = flight.last_words(broken).await;
        let _ = self.account(&mut flight, line); // it is broken
        let mut broken = broken;
        if let Broken::Refused(code, words) = &broken {
            if let Some(largest) = largest_body(words) {
                self.too_large = Some(TooLarge::than(largest, words));
                self.bundle_bytes_max = self.bundle_bytes_max.min(largest);
            }
            if self.bundling.refused(*code, words) {
                broken = Broken::Otherwise(words.clone());
            }
        }
        if let Some((culprit, fate)) = self.unsent.broke(flight.into_unreported(), &broken) {
            if let Broken::Refused(code, words) = &broken {
                self.addresses.refused(&culprit.destination, *code, words);
            }
            if self.refused.is_news() {
                tracing::warn!(
                    endpoint = self.topology.endpoint,
                    message_id = culprit.envelope.message_id,
                    message_type = culprit.envelope.type_name,
                    destination = culprit.destination.name(),
                    ?fate,
                    "the broker does not take a message; it stays in the outbox, and others are published"
                );
            }
            let _ = self.refused.is_over(); // each message by itself, but not more than one line a minute
            line.works();
            self.send(&culprit, fate);
        }
        match broken {
            Broken::Refused(_, why) | Broken::Otherwise(why) => Parted::Broken(why),
            Broken::Silent { place, why } => {
                if self.unsent.is_given_up(&place) {
                    self.give_up(&place, &why);
                }
                Parted::Silent(why)
            }
        }
    }

    /// A queue does not confirm. What waits for it goes back to the outbox, which tries one message at a time: a few
    /// more than that, and RabbitMQ takes nothing from this channel any more until the queue answers.
    fn give_up(&mut self, place: &str, why: &str) {
        while let Ok(message) = self.rows.try_recv() {
            self.unsent.extend([message]);
        }
        let broker = &self.broker;
        for message in self.unsent.give_up(|message| broker.place(&message.destination) == place) {
            self.send(&message, Fate::Unanswered(why.to_owned()));
        }
    }

    fn is_blocked(&mut self, reason: &str, line: &Line) {
        line.health.down(format!("the broker blocks publishers: {reason}"));
        if self.blocked.is_news() {
            tracing::warn!(endpoint = self.topology.endpoint, reason, "the broker blocks publishers");
        }
    }

    fn is_unblocked(&mut self) {
        if let Some(lasted) = self.blocked.is_over() {
            tracing::info!(endpoint = self.topology.endpoint, ?lasted, "the broker takes messages again");
        }
    }

    fn report(&mut self, outgoing: &Outgoing, fate: Fate) {
        self.unsent.reported(&fate);
        self.send(outgoing, fate);
    }

    fn send(&mut self, outgoing: &Outgoing, fate: Fate) {
        let fate = self.unsent.in_doubt(outgoing, fate);
        let _ = self.reports.send(Report::new(outgoing.row, fate)); // the endpoint is gone: its leases run out
    }
}
