//! What is in flight on one publishing channel.

use super::{
    addresses::Address,
    keep::Parted,
    patience::{Patience, Silent},
    returns::{Sent, Window},
    unsent::Broken,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Error, ErrorKind,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use saga_core::{Fate, Outgoing};
use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// How long an answer of the broker may take, except confirms.
const ANSWER: Duration = Duration::from_secs(10);
/// How long lapin may take to report on messages whose channel broke.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// RabbitMQ closes a connection with this code when it stops, and when an operator asks it to: no message's fault.
const CONNECTION_FORCED: u16 = 320;
/// The most messages without an answer that one channel keeps in mind: then another one begins without them.
const GIVEN_UP_MAX: usize = 1000;
/// How long nothing else is published after the first bundle to a queue, when the broker answers nothing: one that no
/// queue takes comes back at once, so this one is with a queue that does not confirm.
const PROBE: Duration = Duration::from_secs(1);
/// A frame that cannot be.
const FRAME_ERROR: u16 = 501;

type Answer = (u64, Result<Confirmation, Error>);
type Publishing = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One AMQP message: a message of ours, or a bundle.
pub(super) struct Ready {
    pub(super) messages: Vec<Outgoing>,
    pub(super) message_id: String,
    pub(super) body: Bytes,
    pub(super) address: Address,
    pub(super) properties: BasicProperties,
    /// The first bundle to a queue that may not take any.
    pub(super) is_probe: bool,
}

/// One publishing channel.
pub(super) struct Flight {
    /// Shared, because a `Channel` is expensive to clone.
    channel: Arc<Channel>,
    /// The largest frame that the broker takes, 0 for any.
    pub(super) frame_max: usize,
    publishing: FuturesUnordered<Publishing>,
    window: Window,
    /// AMQP messages that are not reported yet, by number.
    open: BTreeMap<u64, Open>,
    /// Our messages in them, and the bytes of their bodies.
    messages: usize,
    bytes: usize,
    /// AMQP messages that are reported as not answered, and for whose answer lapin waits.
    given_up: usize,
    /// What was returned because its receiver takes bundles no more: it goes again, singly and in order, when nothing
    /// else is in flight that may come back from there.
    recalled: BTreeMap<u64, Open>,
    /// The first bundle to a queue, until it is answered.
    probe: Option<Probe>,
    /// A queue that has taken its first bundle.
    takes_bundles: Option<String>,
    patience: Patience,
    settled: Vec<(Outgoing, Fate)>,
    broken: Option<Broken>,
}

struct Open {
    messages: Vec<Outgoing>,
    bytes: usize,
    sent: Sent,
    /// When its confirm is overdue.
    limit: Instant,
    mandatory: bool,
    to_bundles: bool,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    number: u64,
    since: Instant,
}

impl Flight {
    /// `confirm`: how long an answer may take.
    pub(super) async fn open(connection: &Connection, confirm: Duration) -> Result<Self, Parted> {
        let open = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, Error>(channel)
        };
        let channel = tokio::time::timeout(ANSWER, open).await.map_err(|_| Parted::unanswered())??;
        Ok(Self {
            channel: Arc::new(channel),
            frame_max: connection.configuration().frame_max() as usize,
            publishing: FuturesUnordered::new(),
            window: Window::default(),
            open: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            given_up: 0,
            recalled: BTreeMap::new(),
            probe: None,
            takes_bundles: None,
            patience: Patience::new(confirm),
            settled: Vec::new(),
            broken: None,
        })
    }

    /// Whether the channel is open, as far as lapin knows.
    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Whether everything is reported.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// AMQP messages that await their confirm.
    pub(super) fn unanswered(&self) -> usize {
        self.window.open()
    }

    /// Our messages that are not reported yet.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Whether something was returned that goes again once nothing is in flight.
    pub(super) fn recalls(&self) -> bool {
        !self.recalled.is_empty()
    }

    /// What goes again, in order; nothing, while later messages to the same queues may come back as well.
    pub(super) fn recalled(&mut self) -> Vec<Outgoing> {
        match all_came_back(&self.recalled, &self.open) {
            true => in_order(std::mem::take(&mut self.recalled), BTreeMap::new()),
            false => Vec::new(),
        }
    }

    /// Whether the first bundle to a queue is on its way. If it comes back, what was sent after it must not be there
    /// before it, such as an event of the same instance.
    pub(super) fn probes(&mut self) -> bool {
        let Some(Probe { number, since }) = self.probe else { return false };
        if Instant::now() < since.max(self.patience.last()) + PROBE {
            return true;
        }
        self.takes(number);
        false
    }

    /// A queue that has taken its first bundle, once.
    pub(super) fn takes_bundles(&mut self) -> Option<String> {
        self.takes_bundles.take()
    }

    /// Its queue has taken this message. Ends the probe, if it was one.
    fn takes(&mut self, number: u64) {
        if self.probe.as_ref().is_some_and(|probe| probe.number == number) {
            self.probe = None;
            self.takes_bundles = self.open.get(&number).map(|open| open.sent.routing_key.clone());
        }
    }

    /// Bytes of the bodies that are not reported yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publishes.
    pub(super) fn publish(&mut self, message: Ready, confirm: Duration) -> Result<(), Broken> {
        let Ready { messages, message_id, body, address, properties, is_probe } = message;
        let Address { exchange, routing_key, mandatory, to_bundles } = address;
        let number = self.window.publish();
        self.bytes += body.len();
        self.messages += messages.len();
        let now = Instant::now();
        if is_probe {
            self.probe = Some(Probe { number, since: now });
        }
        let limit = now + confirm;
        let sent = Sent { message_id, exchange: exchange.to_string(), routing_key: routing_key.to_string() };
        self.open.insert(number, Open { messages, bytes: body.len(), sent, limit, mandatory, to_bundles });
        let channel = self.channel.clone();
        let mut publishing: Publishing = Box::pin(async move {
            let options = BasicPublishOptions { mandatory, immediate: false };
            let published = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
            let answer = match published {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (number, answer)
        });
        // polled once here, in order: the first poll gives the message its tag and queues its frame
        match publishing.as_mut().now_or_never() {
            Some(answer) => {
                self.answer(answer);
                self.broken()
            }
            None => {
                self.publishing.push(publishing);
                Ok(())
            }
        }
    }

    /// Whether an answer may come.
    pub(super) fn awaits_answers(&self) -> bool {
        !self.publishing.is_empty()
    }

    /// Waits for one answer.
    pub(super) async fn next_answer(&mut self) {
        if let Some(answer) = self.publishing.next().await {
            self.answer(answer);
        }
    }

    /// Takes the answers that have arrived.
    pub(super) fn take_answers(&mut self) {
        while let Some(Some(answer)) = self.publishing.next().now_or_never() {
            self.answer(answer);
        }
        self.window.collected();
    }

    fn answer(&mut self, (number, answer): Answer) {
        match answer {
            Ok(Confirmation::Ack(returned)) => {
                self.heard(number, true);
                self.remember(returned.map(Box::new));
                match self.open.get(&number) {
                    // it may have been returned, and the return may come with another message's confirm
                    Some(open) if open.mandatory => self.window.confirmed(number, open.sent.clone()),
                    _ => {
                        self.window.answered(number);
                        self.settle(number, Fate::Confirmed);
                    }
                }
            }
            Ok(Confirmation::Nack(returned)) => {
                self.heard(number, false);
                self.remember(returned.map(Box::new));
                self.window.answered(number);
                self.settle(number, Fate::QueueRefused("the broker refused it (nack): its queue may be full".into()));
            }
            Ok(Confirmation::NotRequested) => {
                self.broken = Some(Broken::Otherwise("the channel gives no confirms".into()));
            }
            // the first error from the broker says why
            Err(error) if !matches!(self.broken, Some(Broken::Refused(..))) => self.broken = Some(broken(&error)),
            Err(_) => {}
        }
    }

    /// An answer came. One that is no longer waited for may come after all.
    fn heard(&mut self, number: u64, is_taken: bool) {
        let open = self.open.get(&number);
        self.given_up = self.given_up.saturating_sub(usize::from(open.is_none()));
        // a queue without a majority refuses each message after a while, and nothing else is answered meanwhile
        if is_taken {
            self.patience.answered(number, open.map(|open| open.sent.place()));
        }
    }

    fn remember(&mut self, returned: Option<Box<BasicReturnMessage>>) {
        if let Some(returned) = returned {
            let delivery = &returned.delivery;
            let id = delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
            let sent = Sent {
                message_id: id.unwrap_or_default(),
                exchange: delivery.exchange.to_string(),
                routing_key: delivery.routing_key.to_string(),
            };
            self.window.returned(sent, format!("{} ({})", returned.reply_text, returned.reply_code));
        }
    }

    fn settle(&mut self, number: u64, fate: Fate) {
        self.takes(number);
        if let Some(Open { messages, .. }) = self.take(number) {
            self.settled.extend(messages.into_iter().map(|message| (message, fate.clone())));
        }
    }

    fn take(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        self.probe.take_if(|probe| probe.number == number);
        self.bytes -= open.bytes;
        self.messages -= open.messages.len();
        Some(open)
    }

    /// Messages whose fate is known, each once.
    pub(super) fn settled(&mut self) -> Vec<(Outgoing, Fate)> {
        let mut settled = Vec::new();
        self.window.settled(&mut settled);
        for (number, returned) in settled {
            if returned.is_some() && self.open.get(&number).is_some_and(|open| open.to_bundles) {
                let recalled = self.take(number);
                self.recalled.extend(recalled.map(|open| (number, open)));
                continue;
            }
            let fate = returned.map_or(Fate::Confirmed, |text| Fate::Unroutable(format!("no queue took it: {text}")));
            self.settle(number, fate);
        }
        std::mem::take(&mut self.settled)
    }

    /// Whether an answer said that the channel is broken.
    pub(super) fn broken(&self) -> Result<(), Broken> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Where the oldest message went that is overdue and gets no answer although nobody is busy, and whether the
    /// broker has answered what was published later: then it is not the channel that is ill, but a queue.
    pub(super) fn overdue(&self) -> Option<(String, bool)> {
        let now = Instant::now();
        let late = self.open.iter().take_while(|(_, open)| open.limit < now);
        late.filter(|(number, _)| self.window.awaits(**number)).find_map(|(number, open)| {
            let place = open.sent.place();
            let silent = self.patience.judge(*number, place, self.window.is_passed(*number))?;
            Some((place.to_owned(), silent == Silent::Place && self.given_up < GIVEN_UP_MAX))
        })
    }

    /// Waits no longer for the answers of what went to this place.
    pub(super) fn give_up(&mut self, place: &str, why: &str) {
        let awaits = |number: &u64, open: &Open| open.sent.place() == place && self.window.awaits(*number);
        let there = self.open.iter().filter(|(number, open)| awaits(number, open)).map(|(number, _)| *number);
        for number in there.collect::<Vec<_>>() {
            self.given_up += 1;
            self.window.given_up(number);
            if let Some(Open { messages, .. }) = self.take(number) {
                let fate = Fate::Unanswered(why.to_owned());
                self.settled.extend(messages.into_iter().map(|message| (message, fate.clone())));
            }
        }
    }

    /// Gives messages that waited for a blocking broker their full time again.
    pub(super) fn forgive(&mut self, confirm: Duration) {
        let now = Instant::now();
        self.open.values_mut().for_each(|open| open.limit = now + confirm);
        if let Some(probe) = &mut self.probe {
            probe.since = now;
        }
    }

    /// The channel is broken: takes the answers that still come. The broker's own words count more than what was seen
    /// here.
    pub(super) async fn last_words(&mut self, why: Broken) -> Broken {
        let until = Instant::now() + LAST_WORDS;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, self.publishing.next()).await {
            self.answer(answer);
        }
        match (&why, self.broken.take()) {
            (Broken::Otherwise(_) | Broken::Silent { .. }, Some(refused @ Broken::Refused(..))) => refused,
            _ => why,
        }
    }

    /// The messages that are not reported, in order.
    pub(super) fn into_unreported(self) -> Vec<Outgoing> {
        in_order(self.recalled, self.open)
    }
}

/// Whether nothing else is in flight that may come back from the same queues.
fn all_came_back(recalled: &BTreeMap<u64, Open>, open: &BTreeMap<u64, Open>) -> bool {
    let places: HashSet<&str> = recalled.values().map(|open| open.sent.place()).collect();
    !open.values().any(|open| open.to_bundles && places.contains(open.sent.place()))
}

/// What came back, to go again, and what is in flight.
fn in_order(recalled: BTreeMap<u64, Open>, open: BTreeMap<u64, Open>) -> Vec<Outgoing> {
    let mut all = recalled;
    all.extend(open);
    all.into_values().flat_map(|open| open.messages).collect()
}

/// Why the channel broke, by an error of lapin.
pub(super) fn broken(error: &Error) -> Broken {
    match error.kind() {
        ErrorKind::ProtocolError(refused) if refused.get_id() != CONNECTION_FORCED => {
            Broken::Refused(refused.get_id(), refused.get_message().to_string())
        }
        ErrorKind::SerialisationError(_) => Broken::Refused(FRAME_ERROR, error.to_string()),
        _ => Broken::Otherwise(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{Destination, Envelope};
    use uuid::Uuid;

    /// Messages to the queue `place`, on their way through the exchange for bundles or not.
    fn open(place: &str, rows: impl IntoIterator<Item = u128>, to_bundles: bool) -> Open {
        let message = |n: u128| {
            let to = Destination::Endpoint(place.into());
            Outgoing::new(Uuid::from_u128(n), to, Arc::new(Envelope::new("m", "t", "{}")))
        };
        let sent = Sent { routing_key: place.into(), ..Sent::default() };
        let messages = rows.into_iter().map(message).collect();
        Open { messages, bytes: 0, sent, limit: Instant::now(), mandatory: true, to_bundles }
    }

    /// A message that is forgotten would keep its lease, and leave only after a restart.
    #[test]
    fn what_came_back_before_the_channel_broke_goes_again_in_its_order() {
        let recalled = BTreeMap::from([(1, open("e", [1, 2], true)), (4, open("e", [5], true))]);
        let open = BTreeMap::from([2, 3, 5].map(|n| (n, open("e", [u128::from(n) + 1], true))));
        let rows: Vec<u128> = in_order(recalled, open).iter().map(|it| it.row.as_u128()).collect();
        assert_eq!(rows, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_came_back_waits_for_what_may_come_back_from_there_and_for_no_other_queue() {
        let recalled = BTreeMap::from([(2, open("back", [2], true))]);
        let with = |number, other| BTreeMap::from([(1, open("silent", [1], true)), (number, other)]);
        assert!(!all_came_back(&recalled, &with(3, open("back", [3], true))), "it may come back as well");
        assert!(all_came_back(&recalled, &with(3, open("back", [3], false))), "it goes to the queue itself");
        assert!(all_came_back(&recalled, &with(3, open("other", [3], true))));
    }
}
