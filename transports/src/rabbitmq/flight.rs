//! What is in flight on one publishing channel.

use super::{
    addresses::Address,
    keep::Parted,
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
use saga_core::{Destination, Fate, Outgoing};
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

impl Flight {
    pub(super) async fn open(connection: &Connection) -> Result<Self, Parted> {
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

    /// Bytes of the bodies that are not reported yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publishes.
    pub(super) fn publish(&mut self, message: Ready, confirm: Duration) -> Result<(), Broken> {
        let Ready { messages, message_id, body, address, properties } = message;
        let Address { exchange, routing_key, mandatory, to_bundles } = address;
        let number = self.window.publish();
        self.bytes += body.len();
        self.messages += messages.len();
        let limit = Instant::now() + confirm;
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
                self.late(number);
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
                self.late(number);
                self.remember(returned.map(Box::new));
                self.window.answered(number);
                self.settle(number, Fate::Refused("the broker refused it (nack): its queue may be full".into()));
            }
            Ok(Confirmation::NotRequested) => {
                self.broken = Some(Broken::Otherwise("the channel gives no confirms".into()));
            }
            // the first error from the broker says why
            Err(error) if !matches!(self.broken, Some(Broken::Refused(..))) => self.broken = Some(broken(&error)),
            Err(_) => {}
        }
    }

    /// An answer that is no longer waited for may come after all.
    fn late(&mut self, number: u64) {
        self.given_up = self.given_up.saturating_sub(usize::from(!self.open.contains_key(&number)));
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
        if let Some(Open { messages, .. }) = self.take(number) {
            self.settled.extend(messages.into_iter().map(|message| (message, fate.clone())));
        }
    }

    fn take(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
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

    /// Where the oldest message went whose confirm is overdue, and whether the broker has answered what was published
    /// later: then it is not the channel that is ill, but a queue.
    pub(super) fn overdue(&self) -> Option<(String, bool)> {
        let (number, open) = self.open.first_key_value().filter(|(_, open)| open.limit < Instant::now())?;
        let works = self.window.is_passed(*number) && self.given_up < GIVEN_UP_MAX;
        Some((open.sent.place().to_owned(), works))
    }

    /// Waits no longer for the answers of what went to this place.
    pub(super) fn give_up(&mut self, place: &str, why: &str) {
        let there = self.open.iter().filter(|(_, open)| open.sent.place() == place).map(|(number, _)| *number);
        for number in there.collect::<Vec<_>>() {
            self.given_up += 1;
            self.window.given_up(number);
            if let Some(Open { messages, .. }) = self.take(number) {
                self.settled.extend(messages.into_iter().map(|message| {
                    let fate = not_answered(&message, why);
                    (message, fate)
                }));
            }
        }
    }

    /// Gives messages that waited for a blocking broker their full time again.
    pub(super) fn forgive(&mut self, confirm: Duration) {
        let limit = Instant::now() + confirm;
        self.open.values_mut().for_each(|open| open.limit = limit);
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

/// What is said of a message that got no answer. An event may have reached all queues but one.
pub(super) fn not_answered(message: &Outgoing, why: &str) -> Fate {
    match message.destination {
        Destination::Event(_) => Fate::Unknown(why.to_owned()),
        _ => Fate::Unanswered(why.to_owned()),
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
    use saga_core::Envelope;
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
