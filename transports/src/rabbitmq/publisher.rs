//! The publishing side. One task owns the channel: publishes of several tasks on one channel could swap their tags, and
//! acks would go to the wrong message. A window keeps many messages in flight (`flight.rs`): a confirm awaited one by
//! one costs ten times as much. Messages in flight when a channel breaks go first on the next one (`unsent.rs`).

use super::{
    addresses::{Addresses, NoAddress},
    connection::Broker,
    flight::{Flight, Ready, broken},
    keep::{Life, Line, WORKS_AFTER},
    topology::Admin,
    trouble::Trouble,
    unsent::{Broken, Unsent},
    wire,
};
use futures_util::StreamExt;
use lapin::{Connection, Event};
use saga_core::{Fate, LinkLimits, Outgoing, Report, Topology};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// The most messages in flight: lapin searches all pending tags at each multiple ack, so more cost more than they gain.
const WINDOW_MAX: usize = 1000;
/// The most bytes of bodies in flight: lapin copies them. A larger body goes alone.
const WINDOW_BYTES_MAX: usize = 64 << 20;
/// The most messages that are prepared together.
const TOGETHER_MAX: usize = 256;
/// How long a broker's limit on bodies is believed, after it refused one.
const TOO_LARGE_FOR: Duration = Duration::from_secs(60);
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
    unsent: Unsent,
    /// The size of a body that the broker refused, its words, and until when that is believed.
    too_large: Option<(usize, String, Instant)>,
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
        let (unsent, too_large, blocked, refused) = Default::default();
        Self { broker, topology, limits, rows, reports, addresses, unsent, too_large, blocked, refused }
    }
}

impl Life for Publisher {
    const WHAT: &'static str = "publishing";

    async fn live(&mut self, connection: &Connection, line: &mut Line) -> Option<String> {
        let mut flight = match Flight::open(connection).await {
            Ok(flight) => flight,
            Err(why) => return Some(why),
        };
        self.addresses.forget();
        line.health.up();
        let broken = self.publish(&mut flight, connection, line).await.err()?;
        Some(self.part(flight, broken, line).await)
    }

    fn is_done(&self) -> bool {
        self.rows.is_closed()
    }
}

impl Publisher {
    /// Publishes until the endpoint is done, or the channel breaks.
    async fn publish(&mut self, flight: &mut Flight, connection: &Connection, line: &mut Line) -> Result<(), Broken> {
        let mut admin = Admin::new(connection);
        let mut events = Box::pin(connection.events_listener());
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let began = Instant::now();
        let (mut is_blocked, mut is_done) = (false, false);
        let mut gathered: Option<Instant> = None;
        let mut came = Vec::new();
        loop {
            if !is_blocked {
                self.fill(flight, &mut admin).await?;
                self.account(flight, line)?;
            }
            if is_done && self.unsent.is_empty() && flight.is_empty() {
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
                    Some(Event::Error(error)) => return Err(broken(&error)),
                    _ => {}
                },
                _ = look.tick() => {
                    if !is_blocked && flight.is_overdue() {
                        return Err(Broken::Otherwise(format!("no confirm within {:?}", self.limits.confirm)));
                    }
                    if !connection.status().connected() {
                        return Err(Broken::Otherwise("the connection is closed".into()));
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
            false => self.limits.window.min(WINDOW_MAX).saturating_sub(flight.unanswered()),
        }
    }

    /// Publishes what fits. Prepares all before the first one leaves, so that lapin's thread sends them in few packets.
    async fn fill(&mut self, flight: &mut Flight, admin: &mut Admin<'_>) -> Result<(), Broken> {
        let (mut room, mut bytes) = (self.room(flight), flight.bytes());
        let mut ready: Vec<Ready> = Vec::new();
        let mut made = Ok(());
        while room > 0
            && let Some(next) = self.unsent.front()
            && (bytes == 0 || bytes + next.envelope.body.len() <= WINDOW_BYTES_MAX)
            && let Some(outgoing) = self.unsent.take()
        {
            let body_bytes = outgoing.envelope.body.len();
            match self.make_ready(outgoing, flight.frame_max, admin).await {
                Ok(Some(message)) => ready.push(message),
                Ok(None) => continue,
                Err((outgoing, why)) => {
                    self.unsent.put_back(outgoing);
                    made = Err(Broken::Otherwise(why));
                    break;
                }
            }
            room -= 1;
            bytes += body_bytes;
        }
        let mut ready = ready.into_iter();
        while made.is_ok()
            && let Some(message) = ready.next()
        {
            made = flight.publish(message, self.limits.confirm);
        }
        for message in ready.rev() {
            self.unsent.put_back(message.outgoing);
        }
        made
    }

    /// All that publishing one message needs. `None` when it was refused; an error when the broker does not answer.
    async fn make_ready(
        &mut self,
        outgoing: Outgoing,
        frame_max: usize,
        admin: &mut Admin<'_>,
    ) -> Result<Option<Ready>, (Outgoing, String)> {
        let body_bytes = outgoing.envelope.body.len();
        if let Some((bytes, words, until)) = &self.too_large
            && body_bytes >= *bytes
            && Instant::now() < *until
        {
            let fate = Fate::Refused(words.clone());
            self.report(&outgoing, fate);
            return Ok(None);
        }
        let found = match self.addresses.get(&outgoing.destination) {
            Some(address) => Ok(address.clone()),
            None => self.addresses.find(&outgoing.destination, admin).await,
        };
        let address = match found {
            Ok(address) => address,
            Err(NoAddress::Broken(why)) => return Err((outgoing, why)),
            Err(NoAddress::Refused(words)) => {
                self.report(&outgoing, Fate::Refused(words));
                return Ok(None);
            }
        };
        let envelope = &outgoing.envelope;
        // our own address gets the prefix; another's came from the broker and has it already
        let own = envelope.reply_to.as_ref().filter(|reply_to| self.broker.named(reply_to) == self.topology.endpoint);
        let reply_to = own.map_or(envelope.reply_to.as_deref(), |_| Some(&self.topology.endpoint));
        match wire::properties(envelope, reply_to, frame_max) {
            Ok(properties) => Ok(Some(Ready { outgoing, address, properties })),
            Err(why) => {
                self.report(&outgoing, Fate::Refused(why));
                Ok(None)
            }
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
    async fn part(&mut self, mut flight: Flight, broken: Broken, line: &mut Line) -> String {
        let broken = flight.last_words(broken).await;
        let _ = self.account(&mut flight, line); // it is broken
        if let Some((culprit, fate)) = self.unsent.broke(flight.into_unreported(), &broken) {
            if let Broken::Refused(code, words) = &broken {
                self.addresses.refused(&culprit.destination, *code, words);
                // PRECONDITION_FAILED - message size 1500018 is larger than configured max size 1048576
                if words.contains("message size") {
                    let bytes = culprit.envelope.body.len();
                    self.too_large = Some((bytes, words.clone(), Instant::now() + TOO_LARGE_FOR));
                }
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
            Broken::Refused(_, words) => words,
            Broken::Otherwise(why) => why,
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
        self.unsent.reported();
        self.send(outgoing, fate);
    }

    fn send(&self, outgoing: &Outgoing, fate: Fate) {
        let _ = self.reports.send(Report::new(outgoing.row, fate)); // the endpoint is gone: its leases run out
    }
}
