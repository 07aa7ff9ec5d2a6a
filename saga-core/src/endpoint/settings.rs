//! An endpoint's settings.

use super::queue::UNITS_MAX;
use crate::ambient;
use std::time::Duration;

/// An endpoint's settings. Each has a default that fits a service with a few thousand messages a second.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Lanes for sagas; the messages of an instance are always in the same one. A lane runs one unit of work at a time,
    /// and a second one beside it while half of [`batch_messages_max`](Self::batch_messages_max) or more wait. Fewer
    /// lanes give larger batches. Default: one per two cores, at most 8.
    pub saga_lanes: usize,
    /// Units of work that run at the same time, for each handler. Use more for handlers that wait for other services (a
    /// bank, a carrier), one for handlers that only write to the database. Default: one per core, 2 to 8.
    pub handler_lanes: usize,
    /// The most messages in one unit of work. Default: 400; less with more than 2 lanes for sagas, so that together
    /// they lock no more than 1,600 instances at a time (PostgreSQL's lock table is small).
    pub batch_messages_max: usize,
    /// The most unsettled messages at a time. Default: 1000.
    pub prefetch: u16,
    /// The most bytes of their bodies in memory at a time, approximately. Default: 64 MiB.
    pub prefetch_bytes: usize,
    /// The most published messages that await their confirm at a time. What does not fit waits in the outbox. Default:
    /// 4096.
    pub window: usize,
    /// The most bytes of their bodies, approximately. Default: 64 MiB.
    pub window_bytes: usize,
    /// How long a process owns the outbox rows that it publishes. Default: 30 s, at least 3 s.
    pub lease: Duration,
    /// How often the relay looks into the outbox when nothing is known to be due. Default: 2 s.
    pub poll: Duration,
    /// How long a publish may wait for its confirm. Default: 10 s.
    pub confirm: Duration,
    /// How long `start` waits for broker and database. Default: 30 s.
    pub connect: Duration,
    /// How long a handler may run. Default: 5 min.
    pub handler_time: Duration,
    /// How long `stop` waits for what is running. Default: 8 s.
    pub stop: Duration,
    /// How long inbox rows and done instances are kept. Default: 7 days.
    pub retention: Duration,
    /// Keep the messages of sagas in the journal, as long as it is kept itself, and with each step the instance as the
    /// step left it, with the timers that it set. `sagabus export` writes the messages into a file, and
    /// [`replay`](crate::testing::replay) runs them through later versions of the code. `sagabus sagas show` tells what
    /// each step changed in the data, and `sagabus sagas fork` lets an instance stand again where a step left it. It
    /// costs as much space as the messages, and for each step the instance, take. Default: false.
    pub keep_messages: bool,
    /// How long a message waits for its instance to start. Default: 1 h.
    pub early: Duration,
    /// The largest body that is taken or sent, in bytes. Default: 4 MiB.
    pub body_bytes_max: usize,
    /// The most [requests](crate::Endpoint::request) that may be open at a time; others wait for a place, no longer
    /// than their own limit. Default: 4096.
    pub requests: u16,
    /// The most bytes of bodies of requests that the broker has not confirmed. Default: 64 MiB.
    pub request_bytes: usize,
    /// Declare nothing at the broker, except the queue for the answers to this process's requests: everything was
    /// provisioned by hand. Default: false.
    ///
    /// The queue is durable, with the arguments `x-queue-type=quorum` and `x-delivery-limit=100000`, or a policy sets
    /// its `delivery-limit` to -1: RabbitMQ 4.0 and later drop a message that came back 20 times otherwise, and it
    /// comes back each time its process dies or loses its connection. The exchange of each event is a durable fanout.
    pub passive: bool,
    /// Whether publishers may send this endpoint several messages in one of the broker's. With `passive`, bind the
    /// queue to the direct exchange `sagabus.bundles.v1` by its own name, or do not. Default: [`Bundles::Auto`].
    pub bundles: Bundles,
    /// Whether a message that comes without a message id gets a generated one and is handled. Such a message cannot be
    /// told from its own redelivery: after a lost connection it may be handled twice. Default: false, it is held.
    pub generate_ids: bool,
}

/// Whether an endpoint takes bundles: many messages in one AMQP message, which costs the broker and both sides a
/// fraction of the time. A bundle is acknowledged when its last message is settled, and until then no other process of
/// the service can take a part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bundles {
    /// If the endpoint handles messages together anyway: unless it has a handler that runs each in a transaction of its
    /// own.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No: for plain AMQP consumers on the same queue, say. Bundles that are in the queue already are still read.
    Never,
}

/// Instances that the lanes of an endpoint lock at the same time, by default.
const LOCKED_TOGETHER: usize = 1600;

impl Settings {
    /// The default of `body_bytes_max`.
    pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;
}

impl Default for Settings {
    fn default() -> Self {
        let cores = ambient::cores();
        let saga_lanes = (cores / 2).clamp(1, 8);
        Self {
            saga_lanes,
            handler_lanes: cores.clamp(2, 8),
            batch_messages_max: (LOCKED_TOGETHER / (saga_lanes * UNITS_MAX)).min(400),
            prefetch: 1000,
            prefetch_bytes: 64 << 20,
            window: 4096,
            window_bytes: 64 << 20,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(2),
            confirm: Duration::from_secs(10),
            connect: Duration::from_secs(30),
            handler_time: Duration::from_secs(300),
            stop: Duration::from_secs(8),
            retention: Duration::from_secs(7 * 86_400),
            keep_messages: false,
            early: Duration::from_secs(3600),
            body_bytes_max: Self::BODY_BYTES_MAX,
            requests: 4096,
            request_bytes: 64 << 20,
            passive: false,
            bundles: Bundles::Auto,
            generate_ids: false,
        }
    }
}

/// The longest span that every database and clock can add to its time. "For ever" becomes this.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Settings {
    /// Shortens spans that no clock can add, so that `Duration::MAX` means "for ever".
    pub(super) fn cap(&mut self) {
        for duration in [
            &mut self.lease,
            &mut self.poll,
            &mut self.confirm,
            &mut self.connect,
            &mut self.handler_time,
            &mut self.stop,
            &mut self.retention,
            &mut self.early,
        ] {
            *duration = (*duration).min(LONGEST);
        }
    }

    /// What is wrong with the settings.
    pub(super) fn check(&self) -> Vec<String> {
        let counts = [
            ("saga_lanes", self.saga_lanes),
            ("handler_lanes", self.handler_lanes),
            ("batch_messages_max", self.batch_messages_max),
            ("prefetch", self.prefetch.into()),
            ("prefetch_bytes", self.prefetch_bytes),
            ("window", self.window),
            ("window_bytes", self.window_bytes),
            ("body_bytes_max", self.body_bytes_max),
            ("requests", self.requests.into()),
            ("request_bytes", self.request_bytes),
        ];
        let times = [
            ("poll", self.poll),
            ("confirm", self.confirm),
            ("handler_time", self.handler_time),
            ("retention", self.retention),
        ];
        let mut wrong: Vec<String> =
            counts.iter().filter(|(_, n)| *n == 0).map(|(name, _)| format!("setting `{name}` is 0")).collect();
        wrong.extend(times.iter().filter(|(_, t)| t.is_zero()).map(|(name, _)| format!("setting `{name}` is 0")));
        if self.retention < self.early {
            let (retention, early) = (self.retention, self.early);
            wrong.push(format!(
                "setting `retention` is {retention:?}, shorter than `early`, {early:?}: an early message would be \
                 forgotten"
            ));
        }
        if self.lease < Duration::from_secs(3) {
            let lease = self.lease;
            wrong.push(format!("setting `lease` is {lease:?}, shorter than 3 s: rows would often be sent twice"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_ever_is_a_hundred_years() {
        let mut settings = Settings { retention: Duration::MAX, early: Duration::MAX, ..Settings::default() };
        settings.poll = Duration::MAX;
        settings.cap();
        assert_eq!((settings.retention, settings.early, settings.poll), (LONGEST, LONGEST, LONGEST));
        assert_eq!(settings.check(), [] as [String; 0]);
    }

    /// O-012, restated: what is retried or held keeps its inbox row whatever the retention, so only `early` may be
    /// too long for it.
    #[test]
    fn o_012_what_makes_no_sense_is_named() {
        let settings = Settings {
            poll: Duration::ZERO,
            window: 0,
            lease: Duration::from_secs(1),
            early: Duration::from_secs(8 * 86_400),
            ..Settings::default()
        };
        let wrong = settings.check().join("\n");
        for name in ["`poll` is 0", "`window` is 0", "`lease` is 1s", "is 604800s, shorter than `early`, 691200s"] {
            assert!(wrong.contains(name), "{name} was expected in:\n{wrong}");
        }
    }
}
