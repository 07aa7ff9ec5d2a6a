//! The servers of a run, and on them the system of a row: a virtual host, databases, processes.

use crate::{
    meddler::{Meddler, Meddling},
    processes::Processes,
    rows::{Row, SERVICES},
};
use anyhow::{Context, Result};
use servers::{Broker, Programs, Server};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tests::{BrokerAt, Vhost, proxy::Proxy};
use tokio::{task::block_in_place, time::timeout};

/// Connections that PostgreSQL takes.
const CONNECTIONS: u32 = 150;
/// Consumers whose deliveries stay unacknowledged are looked for every second.
const BROKER: &str = "-rabbit channel_tick_interval 1000";
/// How long a connection to the server may take; some of its faults are silent.
const CONNECT: Duration = Duration::from_secs(5);

/// A broker and a database server that are ours, each behind a proxy.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) broker: Broker,
    pub(crate) server: Server,
    pub(crate) to_broker: Proxy,
    pub(crate) to_server: Proxy,
}

impl Servers {
    /// Starts both.
    pub(crate) async fn start(programs: &Programs) -> Result<Self> {
        let (broker, server) = block_in_place(|| {
            let mut broker = Broker::prepare(programs, BROKER)?;
            broker.launch()?; // it starts while the database's files are made
            let server = Server::prepare(programs, CONNECTIONS)?;
            server.start()?;
            broker.managed()?;
            anyhow::Ok((broker, server))
        })?;
        let (to_broker, to_server) = (Proxy::to(broker.address()).await, Proxy::to(server.address()).await);
        let servers = Self { broker, server, to_broker, to_server };
        servers.sql("postgres", &["CREATE ROLE app LOGIN CREATEDB", "CREATE ROLE stranger LOGIN"]).await?;
        Ok(servers)
    }

    /// Runs statements in a database, as its owner, each by itself.
    pub(crate) async fn sql(&self, database: &str, statements: &[&str]) -> Result<()> {
        let mut connection = connect(&format!("{}/{database}", self.server.url("postgres"))).await?;
        for statement in statements {
            connection.execute(*statement).await.with_context(|| (*statement).to_owned())?;
        }
        connection.close().await?;
        Ok(())
    }
}

/// Connects as one whom no setting of the server disturbs.
pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    let mut connection = timeout(CONNECT, PgConnection::connect(url)).await.context("no answer")??;
    let undisturbed = "SET statement_timeout = 0; SET lock_timeout = 0; SET default_transaction_read_only = off;
        SET default_transaction_isolation = 'read committed'";
    timeout(CONNECT, connection.execute(undisturbed)).await.context("no answer")??;
    Ok(connection)
}

/// What one row runs.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) processes: Processes,
    pub(crate) vhost: Vhost,
    prefix: String,
    meddling: Vec<(Meddler, Meddling)>,
    /// The faults that are there at once.
    pub(crate) mixed: Vec<&'static Row>,
    seed: u64,
    pub(crate) servers: Servers,
}

impl System {
    /// Starts the services of a row.
    pub(crate) async fn start(servers: Servers, row: &Row, seed: u64) -> Result<Self> {
        let vhost = Vhost::create_on(BrokerAt::from(&servers.broker), "").await;
        let prefix = vhost.name.clone();
        let broker = servers.to_broker.instead_of(&vhost.url());
        let server = servers.to_server.instead_of(&servers.server.url("app"));
        let place = ["--broker", &broker, "--database", &server, "--prefix", &prefix].map(str::to_owned);
        let processes = Processes::start_all(place.into(), row.arguments, row.processes).await?;
        Ok(Self { processes, vhost, prefix, meddling: Vec::new(), mixed: Vec::new(), seed, servers })
    }

    /// The name of a service's database or queue, or of an exchange.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    /// The address of a service's database, past the proxy.
    pub(crate) fn database_url(&self, service: &str) -> String {
        format!("{}/{}", self.servers.server.url("postgres"), self.named(service))
    }

    /// What `ordering verify` needs.
    pub(crate) fn books(&self) -> [String; 4] {
        let [database, prefix] = ["--database", "--prefix"].map(str::to_owned);
        [database, self.servers.server.url("postgres"), prefix, self.prefix.clone()]
    }

    /// Rows in all outboxes.
    pub(crate) async fn in_outboxes(&self) -> Result<i64> {
        let mut rows = 0;
        for service in SERVICES {
            let mut connection = connect(&self.database_url(service)).await?;
            rows +=
                sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sagabus.outbox").fetch_one(&mut connection).await?;
        }
        Ok(rows)
    }

    /// Somebody begins to interfere.
    pub(crate) async fn begin(&mut self, meddler: Meddler) -> Result<()> {
        let meddling = meddler.begin(self, self.seed).await?;
        self.meddling.push((meddler, meddling));
        Ok(())
    }

    /// Whether somebody interfered until now.
    pub(crate) fn end(&mut self, meddler: Meddler) -> bool {
        let at = self.meddling.iter().position(|(who, _)| *who == meddler);
        at.is_some_and(|at| self.meddling.swap_remove(at).1.lasts())
    }

    /// Ends all and drops what was made for the row. Returns the servers for the next one.
    pub(crate) async fn end_all(self) -> Result<Servers> {
        let Self { processes, vhost, prefix, meddling, servers, .. } = self;
        drop((processes, meddling, vhost));
        for service in SERVICES {
            servers.sql("postgres", &[&format!("DROP DATABASE IF EXISTS \"{prefix}_{service}\" WITH (FORCE)")]).await?;
        }
        Ok(servers)
    }
}
