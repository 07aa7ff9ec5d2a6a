//! What is in flight on one publishing channel.

use super::{
    addresses::Address,
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
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long an answer of the broker may take, except confirms.
const ANSWER: Duration = Duration::from_secs(10);
/// How long lapin may take to report on messages whose channel broke.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// RabbitMQ closes a connection with this code when it stops, and when an operator asks it to: no message's fault.
const CONNECTION_FORCED: u16 = 320;
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
    /// What was returned because its receiver takes bundles no more: it goes again, singly and in order, when nothing
    /// is in flight.
    recalled: BTreeMap<u64, Vec<Outgoing>>,
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
    pub(super) async fn open(connection: &Connection) -> Result<Self, String> {
        let open = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, Error>(channel)
        };
        let opened = tokio::time::timeout(ANSWER, open).await;
        let channel =
            opened.map_err(|_| "the broker does not answer".to_owned())?.map_err(|error| error.to_string())?;
        Ok(Self {
            channel: Arc::new(channel),
            frame_max: connection.configuration().frame_max() as usize,
            publishing: FuturesUnordered::new(),
            window: Window::default(),
            open: BTreeMap::new(),
            messages: 0,
            bytes: 0,
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

    /// What goes again, in order.
    pub(super) fn recalled(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.recalled).into_values().flatten().collect()
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
    }

    fn answer(&mut self, (number, answer): Answer) {
        match answer {
            Ok(Confirmation::Ack(returned)) => {
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
                self.recalled.extend(recalled.map(|open| (number, open.messages)));
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

    pub(super) fn is_overdue(&self) -> bool {
        self.open.first_key_value().is_some_and(|(_, open)| open.limit < Instant::now())
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
            (Broken::Otherwise(_), Some(refused @ Broken::Refused(..))) => refused,
            _ => why,
        }
    }

    /// The messages that are not reported, in order.
    pub(super) fn into_unreported(self) -> Vec<Outgoing> {
        unreported(self.recalled, self.open.into_iter().map(|(number, open)| (number, open.messages)))
    }
}

/// What came back, to go again, and what is in flight.
fn unreported(
    recalled: BTreeMap<u64, Vec<Outgoing>>,
    open: impl Iterator<Item = (u64, Vec<Outgoing>)>,
) -> Vec<Outgoing> {
    let mut all = recalled;
    all.extend(open);
    all.into_values().flatten().collect()
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

    /// A message that is forgotten would keep its lease, and leave only after a restart.
    #[test]
    fn what_came_back_before_the_channel_broke_goes_again_in_its_order() {
        let message = |n: u128| {
            let to = Destination::Endpoint("e".into());
            Outgoing::new(Uuid::from_u128(n), to, Arc::new(Envelope::new("m", "t", "{}")))
        };
        let recalled = BTreeMap::from([(1, vec![message(1), message(2)]), (4, vec![message(5)])]);
        let open = [(2, vec![message(3)]), (3, vec![message(4)]), (5, vec![message(6)])];
        let rows: Vec<u128> = unreported(recalled, open.into_iter()).iter().map(|it| it.row.as_u128()).collect();
        assert_eq!(rows, [1, 2, 3, 4, 5, 6]);
    }
}
