//! Brokers and a database server that belong to one test, which may stop them.

use crate::{BrokerAt, Vhost, eventually};
use outbox::Postgres;
use serde_json::Value;
use servers::{Broker, INSTALL, Programs, Server};
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::block_in_place,
};

/// Two brokers at a time are too much for a small machine, and these tests measure time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A broker, or a cluster, with a database server.
#[derive(Debug)]
pub struct Own {
    /// A virtual host of the broker.
    pub vhost: Vhost,
    /// The broker's nodes: one, or a cluster.
    pub nodes: Vec<Broker>,
    /// The database server.
    pub server: Server,
    _turn: MutexGuard<'static, ()>,
}

impl Own {
    /// Starts a single broker; `erlang` are further arguments for its virtual machine.
    ///
    /// # Panics
    /// When the programs are not installed, or do not start.
    pub async fn start(erlang: &str) -> Self {
        Self::start_nodes(|programs| Ok(vec![Broker::prepare(programs, erlang)?])).await
    }

    /// Starts a cluster of three nodes.
    ///
    /// # Panics
    /// When the programs are not installed, or do not start, or the nodes do not find each other.
    pub async fn start_cluster() -> Self {
        Self::start_nodes(|programs| Broker::prepare_cluster(programs, 3)).await
    }

    async fn start_nodes(prepare: impl FnOnce(&Programs) -> anyhow::Result<Vec<Broker>>) -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let programs = Programs::find()
            .unwrap_or_else(|| panic!("this test stops its own RabbitMQ and PostgreSQL: install them (`{INSTALL}`)"));
        let (nodes, server) = block_in_place(|| {
            let mut nodes = prepare(&programs).expect("the folder for temporary files can be written");
            let (first, others) = nodes.split_first_mut().expect("a broker has a node");
            first.launch().expect("the broker's program runs");
            let server = Server::prepare(&programs, 100).expect("a database server is made");
            server.start().expect("the database server starts");
            first.managed().expect("the broker starts");
            others.iter_mut().for_each(|node| node.launch().expect("the broker's program runs"));
            others.iter_mut().for_each(|node| node.managed().expect("the broker starts"));
            (nodes, server)
        });
        // a node that joins another one begins anew, so what it answered before says nothing
        for node in &nodes {
            let url = format!("{}/api/nodes", node.management());
            eventually("each node to see all nodes", || async {
                let seen: Vec<Value> = reqwest::get(&url).await.ok()?.json().await.ok()?;
                (seen.iter().filter(|node| node["running"] == true).count() == nodes.len()).then_some(())
            })
            .await;
        }
        let vhost = Vhost::create_on(BrokerAt::cluster(&nodes, &nodes[0]), "").await;
        Self { vhost, nodes, server, _turn: turn }
    }

    /// A new database.
    ///
    /// # Panics
    /// When the server does not let us.
    pub async fn store(&self, name: &str) -> Postgres {
        let url = self.server.url("postgres");
        let mut server = PgConnection::connect(&format!("{url}/postgres")).await.expect("the server is there");
        server.execute(&*format!("CREATE DATABASE {name}")).await.expect("the server creates a database");
        Postgres::with_connections(&format!("{url}/{name}"), 8).expect("the address is a PostgreSQL URL")
    }

    /// Databases for three endpoints.
    pub async fn stores(&self) -> [Postgres; 3] {
        [self.store("journeys").await, self.store("worker").await, self.store("listener").await]
    }
}
