//! RabbitMQ, through lapin. Our own tasks keep connections and channels alive: lapin's recovery gives up, and soft
//! errors close channels for good.

mod acks;
mod addresses;
mod amqp;
mod bundle;
mod bundling;
mod connection;
mod consumer;
mod flight;
mod frames;
mod group;
mod health;
mod keep;
mod look;
mod patience;
mod prefetch;
mod publisher;
mod readable;
mod returns;
mod stream;
mod subscription;
mod tls;
mod too_large;
mod topology;
mod trouble;
mod unsent;
mod wire;

use async_trait::async_trait;
use connection::Broker;
use consumer::Consumer;
use health::Health;
use keep::{FAREWELL, keep_connected};
use lapin::{Connection, uri::AMQPUri};
pub use look::{Fit, Look, QueueState};
use publisher::Publisher;
use saga_core::{Backoff, Link, LinkLimits, Topology, Transport, TransportError, TransportErrorKind};
use std::{sync::Arc, time::Duration};
use tls::Tls;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use topology::Admin;
use trouble::Trouble;

/// The shortest and the longest pause between two tries to declare.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A RabbitMQ broker. Cheap to clone; each endpoint opens two connections when it starts, one to consume and one to
/// publish, because RabbitMQ blocks publishers by connection.
#[derive(Debug, Clone)]
pub struct RabbitMq {
    broker: Arc<Broker>,
}

impl RabbitMq {
    /// A broker by its URL, `amqp://user:password@host:5672/vhost` or `amqps://…` (`/` in a vhost's name is `%2f`).
    /// Several hosts, separated by commas, are tried in turn: `amqp://user:password@one:5672,two:5672/vhost`.
    /// Options follow a `?`, separated by `&`: `heartbeat` (seconds), `connection_timeout` (milliseconds), `frame_max`
    /// (bytes), `channel_max`, `auth_mechanism`.
    ///
    /// `amqps://` checks that the broker's certificate is for the host of the URL and by an authority that the system
    /// trusts; with `cacertfile=/path/to/ca.pem`, by an authority in this file instead. `certfile=…&keyfile=…` is what
    /// we show a broker that asks for a certificate; `auth_mechanism=external` then takes the place of a password.
    /// The files are PEM, and read for each connection.
    ///
    /// # Errors
    /// When the URL cannot be read, or has an option that is not one of these or has no such value, or when a file
    /// cannot be read.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        if !["amqp://", "amqps://"].iter().any(|scheme| url.starts_with(scheme)) {
            // not even the parser's words: they repeat all of it, and there is a password in it
            let text = format!("the broker's URL does not begin with amqp:// or amqps://; {EXAMPLE}");
            return Err(TransportError::new(TransportErrorKind::Invalid, text));
        }
        if url.split_once('?').is_some_and(|(_, options)| options.contains('@')) {
            // which of them ends the password, and which begins the options, cannot be told
            let text = "the broker's URL has an `@` behind a `?`: in a password and in a path write %40 and %3F";
            return Err(TransportError::new(TransportErrorKind::Invalid, text));
        }
        let tls = Tls::of(url)
            .map_err(|wrong| TransportError::new(TransportErrorKind::Invalid, format!("the broker's URL has {wrong}")));
        let mut uris = Vec::new();
        for url in each_host(url) {
            if let Some(wrong) = wrong_option(&url) {
                let text = format!("the broker's URL has {wrong}");
                return Err(TransportError::new(TransportErrorKind::Invalid, text));
            }
            let mut uri: AMQPUri = url.parse().map_err(|error| {
                TransportError::new(
                    TransportErrorKind::Invalid,
                    format!("the broker's URL cannot be read: {error}; {EXAMPLE}"),
                )
            })?;
            if let Some(address) = ipv6(&url) {
                uri.authority.host = address; // the parser takes it for no host, and `localhost` instead
            }
            uri.query.heartbeat = uri.query.heartbeat.or(Some(10));
            uri.query.connection_timeout = uri.query.connection_timeout.or(Some(5000));
            uris.push(uri);
        }
        Ok(Self { broker: Arc::new(Broker { uris, tls: tls?, ..Broker::default() }) })
    }

    /// Puts `prefix` before the name of every queue and exchange, so that several systems can share a virtual host.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        let (uris, tls) = (self.broker.uris.clone(), self.broker.tls.clone());
        let broker = Broker { uris, tls, prefix: prefix.into(), ..Broker::default() };
        Self { broker: Arc::new(broker) }
    }
}

/// What a broker's URL looks like.
const EXAMPLE: &str = "it looks like amqp://user:password@host:5672/vhost";

/// The options of a URL that are numbers, with the largest value of each.
const NUMBERS: [(&str, u64); 4] = [
    ("heartbeat", u16::MAX as u64),
    ("connection_timeout", u64::MAX),
    ("frame_max", u32::MAX as u64),
    ("channel_max", u16::MAX as u64),
];
/// The option that is none, and its values.
const AUTH: (&str, [&str; 5]) = ("auth_mechanism", ["plain", "amqplain", "external", "anonymous", "rabbit-cr-demo"]);

/// What is wrong with the options of a URL. The parser of URLs reads over those that it does not know, and does not say
/// which one it cannot read.
fn wrong_option(url: &str) -> Option<String> {
    let (_, options) = url.split_once('?')?;
    options.split('&').filter(|option| !option.is_empty()).find_map(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = |wanted: String| format!("the option `{name}` with the value `{value}`: it is {wanted}");
        if name == AUTH.0 {
            let fits = AUTH.1.iter().any(|known| known.eq_ignore_ascii_case(value));
            return (!fits).then(|| wrong(format!("one of {}", AUTH.1.join(", "))));
        }
        if tls::FILES.contains(&name) {
            return value.is_empty().then(|| wrong("the path of a PEM file".into()));
        }
        let Some((_, most)) = NUMBERS.iter().find(|(known, _)| *known == name) else {
            let (known, files) = (NUMBERS.map(|(known, _)| known).join(", "), tls::FILES.join(", "));
            return Some(format!("the option `{name}`, which is not known; there are: {known}, {}, {files}", AUTH.0));
        };
        let fits = value.parse::<u64>().is_ok_and(|number| number <= *most);
        (!fits).then(|| wrong(format!("a number from 0 to {most}")))
    })
}

/// The host of a URL, if it is an address of IPv6: `[::1]`, without the brackets.
fn ipv6(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (address, _) = host.strip_prefix('[')?.split_once(']')?;
    Some(address.to_owned())
}

/// One URL for each host of a list.
fn each_host(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return vec![url.into()] };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    let (hosts, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}")).collect()
}

#[async_trait]
impl Transport for RabbitMq {
    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError> {
        let topology = Arc::new(self.broker.prefixed(topology));
        let name = topology.endpoint.clone();
        let bundles = self.broker.named(bundling::EXCHANGE);
        let until = Instant::now() + limits.connect;
        let connection = self.declared(&name, &topology, &bundles, &limits, until).await?;
        let publishing = self.broker.connect_until(&name, until).await?;

        let (deliveries, incoming) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (outgoing, rows) = mpsc::unbounded_channel();
        let (health, state) = Health::new();
        let look = Arc::new(Notify::new());
        let broker = &self.broker;
        let consumer = Consumer::new(topology.clone(), bundles, limits, deliveries, look.clone());
        let publisher = Publisher::new(broker.clone(), topology, limits, rows, reports, look);
        tokio::spawn(keep_connected(consumer, broker.clone(), connection, name.clone(), health.consuming()));
        tokio::spawn(keep_connected(publisher, broker.clone(), publishing, name, health.publishing()));
        let link = Link::new(incoming, outgoing, reported, state);
        Ok(link.with_publishing(health.of_publishing()))
    }
}

impl RabbitMq {
    /// A connection over which the topology was declared. Tries until the deadline: a broker that starts, or changes
    /// the leader of a queue, may accept a connection and fail in the next moment.
    async fn declared(
        &self,
        name: &str,
        topology: &Topology,
        bundles: &str,
        limits: &LinkLimits,
        until: Instant,
    ) -> Result<Connection, TransportError> {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let mut trouble = Trouble::default();
        let mut last = None;
        loop {
            let connection = match self.broker.connect_until(name, until).await {
                Ok(connection) => connection,
                // the failure before says more than that time is up
                Err(error) if error.kind() == TransportErrorKind::Unreachable => return Err(last.unwrap_or(error)),
                Err(error) => return Err(error),
            };
            let mut admin = Admin::new(&connection, bundles);
            let error = match tokio::time::timeout_at(until, admin.declare(topology)).await {
                Ok(Ok(())) => {
                    if let Some(lasted) = trouble.is_over() {
                        tracing::info!(endpoint = name, ?lasted, "the topology is declared");
                    }
                    if topology.passive && !topology.temporary {
                        admin.warn_of_drops(topology).await;
                    }
                    return Ok(connection);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    let text = format!("it does not declare the endpoint's queue within {:?}", limits.connect);
                    last.take().unwrap_or_else(|| TransportError::new(TransportErrorKind::Unreachable, text))
                }
            };
            let pause = backoff.next();
            if error.kind() != TransportErrorKind::Unreachable || Instant::now() + pause >= until {
                return Err(error);
            }
            if trouble.is_news() {
                tracing::warn!(endpoint = name, %error, "waiting for the broker to declare the endpoint's queue");
            }
            last = Some(error);
            // the next try may be at another host; what does not answer is not waited for
            let _ = tokio::time::timeout(FAREWELL, connection.close(200, "again".into())).await;
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_hosts_becomes_one_url_each() {
        let urls = each_host("amqp://u:p@one:1,two:2/%2f?heartbeat=5");
        assert_eq!(urls, ["amqp://u:p@one:1/%2f?heartbeat=5", "amqp://u:p@two:2/%2f?heartbeat=5"]);
        assert_eq!(each_host("amqp://one"), ["amqp://one"]);
    }

    #[test]
    fn t_025_each_wrong_option_is_named() {
        let refusal = |options: &str| {
            let url = format!("amqp://user:s3cret@one:5672,two:5672/vhost?{options}");
            RabbitMq::new(&url).err().map(|error| error.to_string())
        };
        for (options, expected) in [
            ("heartbeat=soon", "the option `heartbeat` with the value `soon`: it is a number from 0 to 65535"),
            ("frame_max=131072&heartbeat=65536", "`heartbeat` with the value `65536`"),
            ("connection_timeout=-1", "`connection_timeout` with the value `-1`"),
            ("frame_max=", "`frame_max` with the value ``: it is a number from 0 to 4294967295"),
            ("channel_max", "`channel_max` with the value ``"),
            ("hearbeat=10", "the option `hearbeat`, which is not known; there are: heartbeat, connection_timeout"),
            ("cacertfile=", "`cacertfile` with the value ``: it is the path of a PEM file"),
            ("cacertfile=/ca.pem", "cacertfile, certfile, keyfile, which are for TLS: it begins with amqps://"),
            ("auth_mechanism=magic", "`auth_mechanism` with the value `magic`: it is one of plain, amqplain"),
        ] {
            let refusal = refusal(options).unwrap_or_else(|| panic!("{options} is accepted"));
            assert!(refusal.contains(expected) && !refusal.contains("s3cret"), "{options}: {refusal}");
        }
        assert_eq!(refusal("heartbeat=5&connection_timeout=3000&frame_max=131072&channel_max=10&"), None);
        assert_eq!(refusal("auth_mechanism=plain"), None);
        assert_eq!(refusal(""), None);
    }

    #[test]
    fn an_at_sign_behind_a_question_mark_is_refused() {
        for url in ["amqps://u:p@h/v?cacertfile=/a@b/ca.pem", "amqp://u:s3?cret@h/v", "amqp://u:s3@cr?et@h/v"] {
            let refusal = RabbitMq::new(url).unwrap_err().to_string();
            assert!(refusal.contains("write %40 and %3F") && !refusal.contains("et@"), "{url}: {refusal}");
        }
        assert!(RabbitMq::new("amqp://u:p%3Fa%40b@h/v?heartbeat=5").is_ok());
    }

    #[test]
    fn a_wrong_url_is_refused_with_an_example() {
        for url in ["http://localhost", "payments:s3cret@rabbit:5672/prod", "amqp:payments:s3cret@rabbit", ""] {
            let error = RabbitMq::new(url).unwrap_err().to_string();
            assert!(error.contains("amqp://user:password@host:5672/vhost") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_address_of_ipv6_is_the_host() {
        let broker = RabbitMq::new("amqp://u:p@[fd00::5]:5672,two:5673,[::1]/v?heartbeat=5").unwrap();
        let hosts = broker.broker.uris.iter().map(|uri| (uri.authority.host.as_str(), uri.authority.port));
        assert_eq!(hosts.collect::<Vec<_>>(), [("fd00::5", 5672), ("two", 5673), ("::1", 5672)]);
    }

    #[test]
    fn no_password_is_in_what_is_printed_for_debugging() {
        let broker = format!("{:?}", RabbitMq::new("amqp://payments:s3cret@one,two:5673/v").unwrap());
        assert!(broker.contains("one:5672") && broker.contains("two:5673"), "{broker}");
        assert!(!broker.contains("s3cret"), "{broker}");
    }
}
