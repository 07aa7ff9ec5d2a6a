//! The publishing side. One task owns the channel: publishes of several tasks on one channel could swap their tags, and acks
//! would go to the wrong message. Its window keeps many frames in flight: a confirm awaited one by one costs ten times as much.

use super::{
    connection::{Broker, Side},
    returns::{Settled, Window},
    topology, wire,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Event,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use saga_core::{Destination, Fate, LinkLimits, Outgoing, Report, Topology};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

/// lapin looks through all pending tags at each multiple ack: more in flight costs more than it brings.
const WINDOW_MAX: usize = 1000;
/// Messages that are made ready together, at most.
const TOGETHER_MAX: usize = 256;
/// How often confirms are looked at: nobody waits for one, and each would wake this task by itself.
const GATHER: Duration = Duration::from_millis(5);
/// How long an answer of the broker may take, confirms aside.
const ANSWER: Duration = Duration::from_secs(10);

type Answer = (u64, Uuid, String, Result<Confirmation, lapin::Error>);
type Publishing = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Runs until the endpoint drops its end.
pub(super) async fn run(
    broker: Arc<Broker>,
    first: Connection,
    topology: Arc<Topology>,
    limits: LinkLimits,
    mut rows: mpsc::UnboundedReceiver<Outgoing>,
    reports: mpsc::UnboundedSender<Report>,
    health: Side,
) {
    let name = &topology.endpoint;
    let mut connection = first;
    // what was in flight when a channel broke is published first on the next one: later messages must not overtake it
    let mut again: Vec<Outgoing> = Vec::new();
    loop {
        let why = match Publisher::open(&broker, &connection, &topology, limits, &reports, &health).await {
            Ok(mut publisher) => {
                health.up();
                let why = publisher.live(&connection, &mut rows, &mut again).await;
                publisher.keep_lost(&mut again);
                if why.is_none() {
                    let _ = tokio::time::timeout(ANSWER, connection.close(200, "bye".into())).await;
                    return;
                }
                why
            }
            Err(error) => Some(error),
        };
        let Some(why) = why else { return };
        tracing::warn!(endpoint = name, error = why, "publishing was interrupted");
        health.down(format!("publishing was interrupted: {why}"));
        let gone = || rows.is_closed();
        match broker.reconnect(name, gone).await {
            Some(next) => connection = next,
            None => return,
        }
    }
}

/// Where a message goes, as AMQP says it.
#[derive(Debug, Clone)]
struct Address {
    exchange: ShortString,
    routing_key: ShortString,
    mandatory: bool,
}

/// A message as AMQP says it.
struct Ready {
    outgoing: Outgoing,
    address: Address,
    properties: BasicProperties,
}

/// One publishing channel.
struct Publisher<'a> {
    broker: &'a Broker,
    topology: &'a Topology,
    limits: LinkLimits,
    reports: &'a mpsc::UnboundedSender<Report>,
    health: &'a Side,
    /// Shared, because a `Channel` is dear to clone.
    channel: Arc<Channel>,
    /// Declares: an error closes a channel, and must not close the one that publishes.
    admin: Channel,
    addresses: HashMap<Destination, Address>,
    publishing: FuturesUnordered<Publishing>,
    window: Window,
    /// What is not reported, by number, with its time limit.
    open: BTreeMap<u64, (Outgoing, Instant)>,
    settled: Vec<Settled>,
}

impl<'a> Publisher<'a> {
    async fn open(
        broker: &'a Broker,
        connection: &Connection,
        topology: &'a Topology,
        limits: LinkLimits,
        reports: &'a mpsc::UnboundedSender<Report>,
        health: &'a Side,
    ) -> Result<Self, String> {
        let open = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>((channel, connection.create_channel().await?))
        };
        let opened = tokio::time::timeout(ANSWER, open).await;
        let (channel, admin) =
            opened.map_err(|_| "the broker does not answer".to_owned())?.map_err(|error| error.to_string())?;
        Ok(Self {
            broker,
            topology,
            limits,
            reports,
            health,
            channel: Arc::new(channel),
            admin,
            addresses: HashMap::new(),
            publishing: FuturesUnordered::new(),
            window: Window::default(),
            open: BTreeMap::new(),
            settled: Vec::new(),
        })
    }

    /// Publishes until the channel breaks (then says why) or the endpoint is done (`None`).
    async fn live(
        &mut self,
        connection: &Connection,
        rows: &mut mpsc::UnboundedReceiver<Outgoing>,
        again: &mut Vec<Outgoing>,
    ) -> Option<String> {
        let window = self.limits.window.min(WINDOW_MAX);
        let mut events = Box::pin(connection.events_listener());
        let mut blocked = false;
        let mut done = false;
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let mut gathered: Option<Instant> = None;
        let mut batch: VecDeque<Outgoing> = again.drain(..).collect();
        let mut came = Vec::new();
        loop {
            let mut ready = Vec::new();
            let mut broken = None;
            while self.window.open() + ready.len() < window
                && let Some(outgoing) = batch.pop_front()
            {
                match self.make_ready(outgoing, connection).await {
                    Ok(made) => ready.extend(made),
                    Err((outgoing, why)) => {
                        batch.push_front(outgoing);
                        broken = Some(why);
                        break;
                    }
                }
            }
            let mut ready = ready.into_iter();
            while broken.is_none()
                && let Some(next) = ready.next()
            {
                broken = self.publish(next);
            }
            if broken.is_some() {
                again.extend(ready.map(|ready| ready.outgoing));
                again.extend(batch);
                return broken;
            }
            let room = window.saturating_sub(self.window.open());
            if gathered.is_none() && !self.publishing.is_empty() {
                gathered = Some(Instant::now() + GATHER);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(gathered.unwrap_or_else(Instant::now)), if gathered.is_some() => {
                    gathered = None;
                    let mut broken = None;
                    while let Some(Some(answer)) = self.publishing.next().now_or_never() {
                        broken = broken.or(self.answer(answer));
                    }
                    self.report();
                    if broken.is_some() {
                        again.extend(batch);
                        return broken;
                    }
                }
                n = rows.recv_many(&mut came, room.min(TOGETHER_MAX)), if room > 0 && !done && !blocked && batch.is_empty() => {
                    done = n == 0;
                    batch.extend(came.drain(..));
                }
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        blocked = true;
                        self.health.down(format!("the broker blocks publishers: {reason}"));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        blocked = false;
                        self.forgive();
                        self.health.up();
                    }
                    Some(Event::Error(error)) => {
                        again.extend(batch);
                        return Some(error.to_string());
                    }
                    _ => {}
                },
                _ = look.tick() => {
                    if !blocked && self.overdue() {
                        again.extend(batch);
                        return Some(format!("no confirm within {:?}", self.limits.confirm));
                    }
                    if !connection.status().connected() {
                        again.extend(batch);
                        return Some("the connection is closed".into());
                    }
                }
            }
            if done && batch.is_empty() && self.open.is_empty() {
                return None;
            }
        }
    }

    /// All that publishing needs, for many messages before the first is published: lapin's thread sends what is there, so a message that
    /// is late makes a packet of its own. `None` when it was refused; an error when the connection is gone.
    async fn make_ready(
        &mut self,
        outgoing: Outgoing,
        connection: &Connection,
    ) -> Result<Option<Ready>, (Outgoing, String)> {
        let address = match self.address(&outgoing.destination, connection).await {
            Ok(address) => address,
            Err(_) if !connection.status().connected() => return Err((outgoing, "the connection is closed".into())),
            Err(refused) => {
                self.send(outgoing.row, Fate::Refused(refused));
                return Ok(None);
            }
        };
        let envelope = &outgoing.envelope;
        // our own address is written as the broker knows it; another's came from there
        let own = envelope.reply_to.as_ref().filter(|reply_to| self.broker.named(reply_to) == self.topology.endpoint);
        let reply_to = own.map_or(envelope.reply_to.as_deref(), |_| Some(&self.topology.endpoint));
        match wire::properties(envelope, reply_to) {
            Ok(properties) => Ok(Some(Ready { outgoing, address, properties })),
            Err(why) => {
                self.send(outgoing.row, Fate::Refused(why));
                Ok(None)
            }
        }
    }

    /// Publishes; says why if that shows that the channel is gone.
    fn publish(&mut self, Ready { outgoing, address, properties }: Ready) -> Option<String> {
        let Address { exchange, routing_key, mandatory } = address;
        let (row, envelope) = (outgoing.row, outgoing.envelope.clone());
        let number = self.window.publish();
        self.open.insert(number, (outgoing, Instant::now() + self.limits.confirm));
        let channel = self.channel.clone();
        let message_id = envelope.message_id.clone();
        let mut publishing: Publishing = Box::pin(async move {
            let options = BasicPublishOptions { mandatory, immediate: false };
            let published = channel.basic_publish(exchange, routing_key, options, &envelope.body, properties).await;
            let answer = match published {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (number, row, message_id, answer)
        });
        // polled once here, in order: that is when lapin gives the message its tag and queues its frame
        match publishing.as_mut().now_or_never() {
            Some(answer) => {
                let broken = self.answer(answer);
                self.report();
                broken
            }
            None => {
                self.publishing.push(publishing);
                None
            }
        }
    }

    /// Where a message goes. Its exchange is declared once: a publish to one that is not there would close the channel.
    async fn address(&mut self, destination: &Destination, connection: &Connection) -> Result<Address, String> {
        if let Some(address) = self.addresses.get(destination) {
            return Ok(address.clone());
        }
        let short =
            |name: &str| ShortString::try_new(name).map_err(|_| format!("`{name}` is longer than AMQP's 255 bytes"));
        let address = match destination {
            Destination::ReplyTo(name) => {
                // strangers' queues come and go: remembering them would never end
                return Ok(Address { exchange: "".into(), routing_key: short(name)?, mandatory: true });
            }
            Destination::Endpoint(name) => {
                Address { exchange: "".into(), routing_key: short(&self.broker.named(name))?, mandatory: true }
            }
            Destination::Event(name) => {
                Address { exchange: short(&self.broker.named(name))?, routing_key: "".into(), mandatory: false }
            }
        };
        if !self.topology.passive && !address.mandatory {
            let declare = topology::exchange(&self.admin, address.exchange.as_str());
            match tokio::time::timeout(ANSWER, declare).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if let Ok(Ok(admin)) = tokio::time::timeout(ANSWER, connection.create_channel()).await {
                        self.admin = admin;
                    }
                    return Err(error.to_string());
                }
                Err(_) => return Err("the broker does not answer".into()),
            }
        }
        self.addresses.insert(destination.clone(), address.clone());
        Ok(address)
    }

    /// Takes an answer in; says why if it means that the channel is gone.
    fn answer(&mut self, (number, row, message_id, answer): Answer) -> Option<String> {
        let mut remember = |returned: Option<Box<BasicReturnMessage>>| {
            if let Some(returned) = returned {
                let id = returned.delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
                let text = format!("{} ({})", returned.reply_text, returned.reply_code);
                self.window.returned(id.unwrap_or_default(), text);
            }
        };
        match answer {
            Ok(Confirmation::Ack(returned)) => {
                remember(returned.map(Box::new));
                self.window.confirmed(number, row, message_id);
                None
            }
            Ok(Confirmation::Nack(returned)) => {
                remember(returned.map(Box::new));
                self.window.failed(number);
                self.open.remove(&number);
                self.send(row, Fate::Refused("the broker refused it (nack): its queue may be full".into()));
                None
            }
            Ok(Confirmation::NotRequested) => Some("the channel gives no confirms".into()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Reports what is settled.
    fn report(&mut self) {
        let mut settled = std::mem::take(&mut self.settled);
        self.window.settled(&mut settled);
        for (number, row, returned) in settled.drain(..) {
            self.open.remove(&number);
            let fate = returned.map_or(Fate::Confirmed, |text| Fate::Unroutable(format!("no queue took it: {text}")));
            self.send(row, fate);
        }
        self.settled = settled;
    }

    fn overdue(&self) -> bool {
        self.open.first_key_value().is_some_and(|(_, (_, limit))| *limit < Instant::now())
    }

    /// What waited for a broker that blocked gets its time again.
    fn forgive(&mut self) {
        let limit = Instant::now() + self.limits.confirm;
        self.open.values_mut().for_each(|(_, known)| *known = limit);
    }

    /// The channel is gone: nobody knows what became of the rest, so it is published again.
    fn keep_lost(&mut self, again: &mut Vec<Outgoing>) {
        let open = std::mem::take(&mut self.open);
        again.splice(0..0, open.into_values().map(|(outgoing, _)| outgoing));
    }

    fn send(&self, row: Uuid, fate: Fate) {
        let _ = self.reports.send(Report { row, fate }); // the endpoint is gone: its leases run out
    }
}
