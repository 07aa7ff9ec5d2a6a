//! Topology: a quorum queue and a fanout exchange of the endpoint's name, a fanout exchange per event, and one direct
//! exchange for all bundles (`bundling.rs`).
//!
//! What exists can be deleted while endpoints run. Each endpoint checks every 3 seconds whether its queue and
//! exchanges exist (cheap: the broker looks them up in memory), and at once when something went wrong. What is missing
//! is declared again, and logged. Bindings cannot be looked up, so everything is declared anew every minute.
//!
//! The queue for the answers to a process's requests is the exception: exclusive, so that it goes with the process, and
//! without an exchange of its own. It goes with the connection as well, and what is in it then is lost.
//!
//! What can be lost: a publisher that had known an exchange publishes nothing to it while it is missing
//! (`addresses.rs`). But a publisher that starts just then declares the exchange without a binding: the events that it
//! publishes until the subscriber declares everything anew are lost, a minute's worth at most. The same happens after a
//! binding was removed by hand.

use super::{
    look::{Fit, refused},
    trouble::Trouble,
};
use lapin::{
    Channel, Connection, Error, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use saga_core::{ErrorCode, Topology, TransportError, TransportErrorKind};
use std::time::Duration;
use tokio::{sync::Notify, time::Instant};

/// The endpoint counts attempts; the broker must not drop a message that processes died over.
pub(super) const DELIVERY_LIMIT: i64 = 100_000;
/// How often an endpoint checks that its queue and exchanges exist.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(3);
/// However many messages find something missing, it checks no more often.
const LOOK_NO_SOONER: Duration = Duration::from_secs(1);
/// How often it declares all of them, bindings included.
const DECLARE_EVERY: Duration = Duration::from_secs(60);
/// How long an answer of the broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A channel for declarations only: an error closes it, and must not close a working one.
pub(super) struct Admin<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
    /// The exchange for bundles.
    bundles: &'a str,
}

impl<'a> Admin<'a> {
    pub(super) fn new(connection: &'a Connection, bundles: &'a str) -> Self {
        Self { connection, channel: None, bundles }
    }

    async fn channel(&mut self) -> Result<&Channel, TransportError> {
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => answer(self.connection.create_channel()).await?,
        };
        Ok(self.channel.insert(channel))
    }

    /// Declares everything; when passive, only checks that the queue exists.
    pub(super) async fn declare(&mut self, topology: &Topology) -> Result<(), TransportError> {
        let name = short(&topology.endpoint)?;
        let channel = self.channel().await?;
        if topology.temporary {
            // no auto-delete: a consumer is replaced by another one, and the queue must outlive the moment between
            let alone = QueueDeclareOptions { exclusive: true, ..Default::default() };
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
            answer(channel.queue_declare(name.clone(), alone, arguments)).await?;
            self.announce(&name, topology).await;
            return Ok(());
        }
        if topology.passive {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            return answer(channel.queue_declare(name, options, FieldTable::default())).await.map(drop);
        }
        let (durable, arguments) = quorum();
        answer(channel.queue_declare(name.clone(), durable, arguments)).await?;
        // before anything else: what goes singly to the new queue would overtake bundles that come back
        self.announce(&name, topology).await;
        // the endpoint's own exchange is for other programs
        for exchange in std::iter::once(&topology.endpoint).chain(&topology.subscribes) {
            self.declare_exchange(exchange).await?;
            let channel = self.channel().await?;
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            answer(channel.queue_bind(name.clone(), short(exchange)?, "".into(), options, none)).await?;
        }
        for event in topology.dropped.iter().filter(|event| !topology.subscribes.contains(event)) {
            self.unbind(&name, event, &ShortString::default()).await?;
        }
        Ok(())
    }

    /// Looks whether a queue that was provisioned by hand keeps what comes back often, by declaring it once more, which
    /// changes nothing. Who may not declare it cannot ask.
    pub(super) async fn warn_of_drops(&mut self, topology: &Topology) {
        let (Ok(name), Ok(channel)) = (short(&topology.endpoint), self.channel().await) else { return };
        let (durable, arguments) = quorum();
        let declared = tokio::time::timeout(ANSWER, channel.queue_declare(name, durable, arguments)).await;
        let Ok(Err(error)) = declared else { return };
        let ErrorKind::ProtocolError(words) = error.kind() else { return };
        if let Fit::Drops(words) = refused(words.get_id(), words.get_message().to_string()) {
            tracing::warn!(
                endpoint = topology.endpoint,
                words,
                "the broker may drop messages of this queue that came back too often: RabbitMQ 4.0 and later after 20 \
                 times, unless a policy sets its `delivery-limit` to -1"
            );
        }
    }

    /// Says whether the endpoint takes bundles. A broker that does not allow it costs speed only.
    async fn announce(&mut self, queue: &ShortString, topology: &Topology) {
        let announced = match topology.bundles {
            true => self.bind_bundles(queue).await,
            false => self.unbind(queue, self.bundles, queue).await,
        };
        if let Err(error) = announced {
            let endpoint = &topology.endpoint;
            tracing::debug!(endpoint, %error, "the endpoint cannot say whether it takes bundles");
        }
    }

    async fn bind_bundles(&mut self, queue: &ShortString) -> Result<(), TransportError> {
        self.declare_bundles().await?;
        let exchange = short(self.bundles)?;
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let channel = self.channel().await?;
        answer(channel.queue_bind(queue.clone(), exchange, queue.clone(), options, none)).await
    }

    /// Declares the exchange for bundles. It is its own alternate: a policy that names an alternate exchange for all
    /// exchanges would otherwise take the bundles that no queue takes, and they must come back.
    pub(super) async fn declare_bundles(&mut self) -> Result<(), TransportError> {
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(self.bundles.into()));
        self.declare_exchange_of(self.bundles, ExchangeKind::Direct, arguments).await
    }

    /// Declares the exchange of an endpoint or an event.
    pub(super) async fn declare_exchange(&mut self, name: &str) -> Result<(), TransportError> {
        self.declare_exchange_of(name, ExchangeKind::Fanout, FieldTable::default()).await
    }

    async fn declare_exchange_of(
        &mut self,
        name: &str,
        kind: ExchangeKind,
        arguments: FieldTable,
    ) -> Result<(), TransportError> {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let channel = self.channel().await?;
        answer(channel.exchange_declare(short(name)?, kind, durable, arguments)).await
    }

    async fn unbind(&mut self, queue: &ShortString, exchange: &str, key: &ShortString) -> Result<(), TransportError> {
        let (queue, exchange, key) = (queue.clone(), short(exchange)?, key.clone());
        let unbinding = self.channel().await?.queue_unbind(queue, exchange, key, FieldTable::default());
        match tokio::time::timeout(ANSWER, unbinding).await {
            Ok(Err(error)) if code(&error) == Some(404) => Ok(()), // nothing to unbind from
            Ok(unbound) => unbound.map_err(failed),
            Err(_) => Err(silent()),
        }
    }

    /// Whether an exchange exists.
    pub(super) async fn has_exchange(&mut self, name: &str) -> Result<bool, TransportError> {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let (name, channel) = (short(name)?, self.channel().await?);
        found(channel.exchange_declare(name, ExchangeKind::Fanout, options, FieldTable::default())).await
    }

    async fn has_queue(&mut self, name: &str) -> Result<bool, TransportError> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let (name, channel) = (short(name)?, self.channel().await?);
        found(channel.queue_declare(name, options, FieldTable::default())).await
    }

    /// Which of the endpoint's queue and exchanges are missing.
    async fn missing(&mut self, topology: &Topology) -> Result<Vec<String>, TransportError> {
        let mut missing = Vec::new();
        if !self.has_queue(&topology.endpoint).await? {
            missing.push(format!("queue `{}`", topology.endpoint));
        }
        let own = std::iter::once(&topology.endpoint).filter(|_| !topology.passive && !topology.temporary);
        for exchange in own.chain(&topology.subscribes) {
            if !self.has_exchange(exchange).await? {
                missing.push(format!("exchange `{exchange}`"));
            }
        }
        Ok(missing)
    }

    /// Declares again what is missing, and logs it.
    pub(super) async fn restore(&mut self, topology: &Topology, trouble: &mut Trouble) -> Result<(), TransportError> {
        let endpoint = &topology.endpoint;
        let missing = self.missing(topology).await?.join(", ");
        if missing.is_empty() {
            // somebody else may have restored it
            if trouble.is_over().is_some() {
                tracing::info!(endpoint, "what was missing at the broker is there again");
            }
            return Ok(());
        }
        if trouble.is_news() {
            tracing::warn!(endpoint, missing, "something at the broker was deleted while this endpoint ran");
        }
        if !topology.passive {
            self.declare(topology).await?;
            trouble.is_over();
            tracing::info!(endpoint, declared = missing, "declared and bound again");
        }
        Ok(())
    }

    /// Keeps everything in place for as long as the connection lives. `look` asks for a check at once.
    pub(super) async fn keep(
        &mut self,
        topology: &Topology,
        look: &Notify,
        missing: &mut Trouble,
        refused: &mut Trouble,
    ) {
        let mut declared = Instant::now();
        loop {
            // either is a reason to look
            let _ = tokio::time::timeout(LOOK_EVERY - LOOK_NO_SOONER, look.notified()).await;
            let mut kept = self.restore(topology, missing).await;
            if kept.is_ok() && !topology.passive && declared.elapsed() >= DECLARE_EVERY {
                kept = self.declare(topology).await;
                declared = Instant::now();
            }
            match kept {
                Ok(()) => {
                    if let Some(lasted) = refused.is_over() {
                        tracing::info!(endpoint = topology.endpoint, ?lasted, "the topology is complete again");
                    }
                }
                // a broken connection is the consumer's to notice
                Err(_) if !self.connection.status().connected() => {}
                Err(error) if refused.is_news() => {
                    tracing::error!(endpoint = topology.endpoint, %error, "the topology cannot be completed");
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_NO_SOONER).await;
        }
    }
}

/// How the queue of an endpoint is declared.
pub(super) fn quorum() -> (QueueDeclareOptions, FieldTable) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    (QueueDeclareOptions { durable: true, ..Default::default() }, arguments)
}

pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, TransportError> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(silent()),
    }
}

async fn found<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<bool, TransportError> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if code(&error) == Some(404) => Ok(false),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(silent()),
    }
}

fn silent() -> TransportError {
    TransportError::new(TransportErrorKind::Unreachable, "it does not answer")
}

/// A name that AMQP accepts: at most 255 bytes.
pub(super) fn short(text: &str) -> Result<ShortString, TransportError> {
    let too_long = || format!("`{text}` is longer than AMQP's 255 bytes");
    ShortString::try_new(text).map_err(|_| TransportError::new(TransportErrorKind::Invalid, too_long()))
}

/// The code of the broker's refusal, if it is one.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(refused) => Some(refused.get_id()),
        _ => None,
    }
}

/// Tells a difference that a person must fix from a broker that is away.
pub(super) fn failed(error: Error) -> TransportError {
    let (kind, code, text) = match error.kind() {
        ErrorKind::ProtocolError(refused) => explained(refused.get_id(), refused.get_message().as_str()),
        _ => (TransportErrorKind::Unreachable, ErrorCode::BrokerUnreachable, error.to_string()),
    };
    TransportError::new(kind, text).with_code(code).with_source(error)
}

fn explained(code: u16, text: &str) -> (TransportErrorKind, ErrorCode, String) {
    use TransportErrorKind::{Invalid, Mismatch, Unreachable};
    match code {
        406 if text.contains("inequivalent arg") => (
            Mismatch,
            ErrorCode::TopologyDiffers,
            format!(
                "{text}; what is there was declared otherwise: delete it when it is empty, or give the endpoint \
                 another name"
            ),
        ),
        404 => (Mismatch, ErrorCode::TopologyDiffers, format!("{text}; declare it, or let the endpoint do so")),
        405 => (Mismatch, ErrorCode::TopologyDiffers, format!("{text}; another connection uses it alone")),
        403 => (
            Invalid,
            ErrorCode::BrokerPermission,
            format!(
                "the broker refuses: {text}; grant the user configure, write and read on the endpoint's queue and \
                 exchanges, or provision them and set `passive`"
            ),
        ),
        406 if text.contains("limit") => (
            Invalid,
            ErrorCode::BrokerLimit,
            format!("the broker refuses: {text}; raise the limit, or delete unused queues"),
        ),
        // the connection is forced to close, or the broker has an internal error
        320 | 506 | 541 => (Unreachable, ErrorCode::BrokerUnreachable, text.to_owned()),
        _ => (Invalid, ErrorCode::BrokerRefuses, format!("the broker refuses: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_not_taken_for_a_difference() {
        let limit = "PRECONDITION_FAILED - cannot declare queue 'e': queue limit in vhost 'v' (1) is reached";
        let (kind, code, text) = explained(406, limit);
        assert_eq!((kind, code), (TransportErrorKind::Invalid, ErrorCode::BrokerLimit));
        assert!(text.contains("raise the limit") && !text.contains("declared otherwise"), "{text}");
        let differs = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'e' in vhost 'v'";
        let (kind, code, text) = explained(406, differs);
        assert_eq!((kind, code), (TransportErrorKind::Mismatch, ErrorCode::TopologyDiffers));
        assert!(text.contains("declared otherwise"), "{text}");
    }
}
