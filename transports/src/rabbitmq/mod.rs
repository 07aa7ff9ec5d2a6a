//! RabbitMQ by lapin. Supervisors of ours own connections and channels: lapin's recovery gives up, and soft errors close
//! channels for good.

mod acks;
mod connection;
mod consumer;
mod frames;
mod publisher;
mod readable;
mod returns;
mod stream;
mod topology;
mod wire;

use async_trait::async_trait;
use connection::{Broker, Health};
use lapin::uri::AMQPUri;
use saga_core::{Link, LinkLimits, Topology, Transport, TransportError};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A RabbitMQ broker. Cheap to clone; each endpoint makes two connections of its own when it starts, one to consume and one
/// to publish, because RabbitMQ blocks publishers by connection.
#[derive(Debug, Clone)]
pub struct RabbitMq {
    broker: Arc<Broker>,
}

impl RabbitMq {
    /// A broker by its URL, `amqp://user:password@host:5672/vhost` or `amqps://…` (`/` in a vhost's name is `%2f`).
    /// Several hosts, separated by commas, are tried in turn: `amqp://user:password@one:5672,two:5672/vhost`.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        let mut uris = Vec::new();
        for url in each_host(url) {
            let mut uri: AMQPUri = url.parse().map_err(|error| {
                TransportError::Invalid(format!(
                    "the broker's URL cannot be read: {error}; it looks like amqp://user:password@host:5672/vhost"
                ))
            })?;
            uri.query.heartbeat = uri.query.heartbeat.or(Some(10));
            uri.query.connection_timeout = uri.query.connection_timeout.or(Some(5000));
            uris.push(uri);
        }
        Ok(Self { broker: Arc::new(Broker { uris, ..Broker::default() }) })
    }

    /// Puts `prefix` before the name of every queue and exchange, so that several systems can share a virtual host.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        let broker = Broker { uris: self.broker.uris.clone(), prefix: prefix.into(), ..Broker::default() };
        Self { broker: Arc::new(broker) }
    }
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
    async fn attach(&self, topology: Topology, limits: LinkLimits) -> Result<Link, TransportError> {
        let topology = self.broker.prefixed(topology);
        let name = topology.endpoint.clone();
        let connection = self.broker.connect_within(&name, limits.connect).await?;
        topology::prepare(&connection, &topology).await?;
        let publishing = self.broker.connect_within(&name, limits.connect).await?;

        let (deliveries, incoming) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (outgoing, rows) = mpsc::unbounded_channel();
        let (health, state) = Health::new();
        let topology = Arc::new(topology);
        tokio::spawn(consumer::run(
            self.broker.clone(),
            connection,
            topology.clone(),
            limits.prefetch,
            deliveries,
            health.consuming(),
        ));
        tokio::spawn(publisher::run(
            self.broker.clone(),
            publishing,
            topology,
            limits,
            rows,
            reports,
            health.publishing(),
        ));
        Ok(Link { deliveries: incoming, outgoing, reports: reported, state })
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
    fn a_wrong_url_is_refused_with_an_example() {
        let error = RabbitMq::new("http://localhost").unwrap_err().to_string();
        assert!(error.contains("amqp://user:password@host:5672/vhost"), "{error}");
    }
}
