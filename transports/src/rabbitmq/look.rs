//! What a broker has for endpoints, asked over AMQP alone: whoever may use a queue may ask, without the management
//! plugin.
//!
//! Whether a queue exists is asked passively. What kind it is, AMQP tells only to whoever declares it: so the queue of
//! an endpoint that exists is declared as its endpoint does it, which changes nothing. Only if somebody deletes it
//! between the two questions, the second creates it: as the endpoint would, but bound to nothing. A process of the
//! endpoint binds it within a minute; without one, commands to it wait there instead of in their senders' outboxes.
//! Queues that are no endpoint's are never declared.

use super::{
    RabbitMq,
    connection::Broker,
    topology::{Admin, DELIVERY_LIMIT, answer, failed, quorum, short},
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
        /// Whether it is as an endpoint declares it.
        fits: Fit,
    },
    /// This user may not even look, or another connection has it alone; in the broker's words.
    Closed(String),
}

/// How a queue compares with what an endpoint declares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fit {
    /// It is the same.
    Same,
    /// It is not durable, or no quorum queue.
    Unsafe,
    /// It is a durable quorum queue that may drop a message which came back too often: its `x-delivery-limit` is
    /// smaller, or missing, and RabbitMQ 4.0 and later take 20 then, unless a policy says otherwise. In the broker's
    /// words.
    Drops(String),
    /// It differs in something else: the first difference, in the broker's words.
    Otherwise(String),
    /// This user may not declare it; in the broker's words.
    Forbidden(String),
    /// It is no endpoint's, so nobody has asked.
    Unasked,
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
    /// The queue of an endpoint, and whether it is as the endpoint declares it. If somebody deletes it at this very
    /// moment, this creates it, bound to nothing.
    ///
    /// # Errors
    /// When the broker goes away meanwhile.
    pub async fn queue(&self, name: &str) -> Result<QueueState, TransportError> {
        let mut state = self.other(name).await?;
        if let QueueState::There { fits, .. } = &mut state {
            *fits = match self.declare(&self.broker.named(name), quorum()).await? {
                Declared::Done(_) => Fit::Same,
                Declared::Refused(code, words) => refused(code, words),
            };
        }
        Ok(state)
    }

    /// Any other queue. It is asked passively alone.
    ///
    /// # Errors
    /// When the broker goes away meanwhile.
    pub async fn other(&self, name: &str) -> Result<QueueState, TransportError> {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        Ok(match self.declare(&self.broker.named(name), (passive, FieldTable::default())).await? {
            Declared::Done(queue) => QueueState::There {
                messages: queue.message_count(),
                consumers: queue.consumer_count(),
                fits: Fit::Unasked,
            },
            Declared::Refused(404, _) => QueueState::Missing,
            Declared::Refused(_, words) => QueueState::Closed(words),
        })
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

/// Why a queue that exists was not declared again. The broker names the first difference alone, `durable` before all.
pub(super) fn refused(code: u16, words: String) -> Fit {
    match code {
        403 => Fit::Forbidden(words),
        406 if ["durable", "x-queue-type"].iter().any(|it| words.contains(&format!("arg '{it}'"))) => Fit::Unsafe,
        406 if words.contains("arg 'x-delivery-limit'") && !is_larger(&words) => Fit::Drops(words),
        _ => Fit::Otherwise(words),
    }
}

/// Whether the limit that is there keeps messages for longer than ours: `.. but current is the value '-1' of type ..`.
/// Any negative one is none at all.
fn is_larger(words: &str) -> bool {
    let current = words.split_once("current is the value '").and_then(|(_, rest)| rest.split_once('\''));
    current.and_then(|(limit, _)| limit.parse::<i64>().ok()).is_some_and(|limit| !(0..DELIVERY_LIMIT).contains(&limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_kind_of_queue_is_unsafe() {
        let differs =
            |what: &str| format!("PRECONDITION_FAILED - inequivalent arg '{what}' for queue 'durable' in vhost '/'");
        for what in ["durable", "x-queue-type"] {
            assert_eq!(refused(406, differs(what)), Fit::Unsafe);
        }
        assert_eq!(refused(406, differs("x-message-ttl")), Fit::Otherwise(differs("x-message-ttl")));
        assert_eq!(refused(403, "ACCESS_REFUSED".into()), Fit::Forbidden("ACCESS_REFUSED".into()));
    }

    #[test]
    fn a_smaller_limit_of_deliveries_or_none_may_drop_messages() {
        let differs = |current: &str| {
            let words = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'e' in vhost '/': ";
            format!("{words}received the value '100000' of type 'signedint' but current is {current}")
        };
        for current in ["none", "the value '20' of type 'signedint'", "the value '99999' of type 'long'"] {
            assert_eq!(refused(406, differs(current)), Fit::Drops(differs(current)));
        }
        for current in ["the value '-1' of type 'long'", "the value '1000000' of type 'signedint'"] {
            assert_eq!(refused(406, differs(current)), Fit::Otherwise(differs(current)));
        }
    }
}
