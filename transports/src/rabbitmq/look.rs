//! What a broker has for endpoints, asked over AMQP alone: whoever may use a queue may ask, without the management
//! plugin. Nothing is created.

use super::{
    RabbitMq,
    connection::Broker,
    topology::{Admin, answer, failed, quorum, short},
};
use lapin::{Connection, ErrorKind, Queue, options::QueueDeclareOptions, types::FieldTable};
use saga_core::TransportError;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Who looks does not wait long for a broker.
const CONNECT: Duration = Duration::from_secs(5);

/// A queue, as the broker tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueState {
    /// There is none of this name.
    Missing,
    /// It is there.
    There {
        /// The messages that wait in it for a consumer.
        messages: u32,
        /// Who consumes it: links of processes.
        consumers: u32,
        /// Whether it is as an endpoint declares it: a durable quorum queue. `None`: this user may not ask.
        fits: Option<bool>,
    },
    /// This user may not even look, or another connection has it alone; in the broker's words.
    Closed(String),
}

/// A connection that looks at queues and exchanges.
#[derive(Debug)]
pub struct Look {
    connection: Connection,
    broker: Arc<Broker>,
}

impl RabbitMq {
    /// Connects, to look what the broker has for endpoints.
    ///
    /// # Errors
    /// When the broker refuses, or cannot be reached within five seconds.
    pub async fn look(&self) -> Result<Look, TransportError> {
        let connection = self.broker.connect_until("doctor", Instant::now() + CONNECT).await?;
        Ok(Look { connection, broker: self.broker.clone() })
    }
}

impl Look {
    /// A queue: that of an endpoint, or any other.
    ///
    /// # Errors
    /// When the broker goes away meanwhile.
    pub async fn queue(&self, name: &str) -> Result<QueueState, TransportError> {
        let name = self.broker.named(name);
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let (messages, consumers) = match self.declare(&name, (passive, FieldTable::default())).await? {
            Declared::Done(queue) => (queue.message_count(), queue.consumer_count()),
            Declared::Refused(404, _) => return Ok(QueueState::Missing),
            Declared::Refused(_, words) => return Ok(QueueState::Closed(words)),
        };
        // it exists, so this creates nothing: the broker compares
        let fits = match self.declare(&name, quorum()).await? {
            Declared::Done(_) => Some(true),
            Declared::Refused(406, _) => Some(false),
            Declared::Refused(..) => None,
        };
        Ok(QueueState::There { messages, consumers, fits })
    }

    /// Whether an event has its exchange.
    ///
    /// # Errors
    /// When this user may not ask, or the broker goes away meanwhile.
    pub async fn has_event(&self, event: &str) -> Result<bool, TransportError> {
        Admin::new(&self.connection, "").has_exchange(&self.broker.named(event)).await
    }

    /// On a channel of its own: a refusal closes it.
    async fn declare(
        &self,
        name: &str,
        (options, arguments): (QueueDeclareOptions, FieldTable),
    ) -> Result<Declared, TransportError> {
        let (name, channel) = (short(name)?, answer(self.connection.create_channel()).await?);
        let declared = answer(async { Ok(channel.queue_declare(name, options, arguments).await) }).await?;
        let error = match declared {
            Ok(queue) => return Ok(Declared::Done(queue)),
            Err(error) => error,
        };
        let refused = match error.kind() {
            ErrorKind::ProtocolError(refused) => Some((refused.get_id(), refused.get_message().to_string())),
            _ => None,
        };
        refused.map_or_else(|| Err(failed(error)), |(code, words)| Ok(Declared::Refused(code, words)))
    }
}

/// What the broker answered.
enum Declared {
    Done(Queue),
    /// With its code and its words.
    Refused(u16, String),
}
