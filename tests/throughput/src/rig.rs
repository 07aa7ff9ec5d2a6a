//! Broker and databases of a round: created for it, deleted after it.

use crate::{amqp, cpu::Watch, work::Service};
use anyhow::{Context, Result};
use lapin::{Connection, uri::AMQPUri};
use sqlx::{ConnectOptions, Connection as _, Executor, PgConnection, postgres::PgConnectOptions};

/// Where everything is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Servers {
    /// The broker
    #[arg(long, value_name = "URL", default_value = "amqp://guest:guest@127.0.0.1:5672/%2f", global = true)]
    pub(crate) broker: String,
    /// The PostgreSQL server; the run creates its own databases there and drops them
    #[arg(long, value_name = "URL", default_value = "postgres://postgres@127.0.0.1:5432", global = true)]
    pub(crate) database: String,
    /// What the names of the run's queues and databases begin with
    #[arg(long, value_name = "P", default_value = "throughput_", global = true)]
    pub(crate) prefix: String,
}

impl Servers {
    /// Without TLS for all contestants: on one machine the run would measure OpenSSL.
    pub(crate) fn url_of(&self, service: Service) -> String {
        format!("{}/{}{}?sslmode=disable", self.database.trim_end_matches('/'), self.prefix, service.name())
    }

    pub(crate) fn queue_of(&self, service: Service) -> String {
        format!("{}{}", self.prefix, service.name())
    }

    pub(crate) fn watch(&self) -> Result<Watch> {
        let broker: AMQPUri = self.broker.parse().map_err(|error| anyhow::anyhow!("--broker: {error}"))?;
        let database: PgConnectOptions = self.database.parse().context("--database")?;
        Ok(Watch::new(database.get_port(), broker.authority.port))
    }

    pub(crate) async fn server(&self) -> Result<PgConnection> {
        let options: PgConnectOptions = self.database.parse().context("--database")?;
        let options = options.database("postgres").disable_statement_logging();
        PgConnection::connect_with(&options).await.context("the database cannot be reached")
    }

    /// Drops the databases and, with `create`, creates them anew.
    pub(crate) async fn reset(&self, connection: &Connection, create: bool) -> Result<()> {
        amqp::clean(connection, &self.prefix).await?;
        let mut server = self.server().await?;
        for service in Service::ALL {
            let name = format!("{}{}", self.prefix, service.name());
            server.execute(&*format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await?;
            if create {
                server.execute(&*format!("CREATE DATABASE \"{name}\"")).await?;
            }
        }
        // each round begins alike, without work left over in the server
        server.execute("CHECKPOINT").await?;
        server.close().await?;
        Ok(())
    }

    pub(crate) async fn connection_to(&self, service: Service) -> Result<PgConnection> {
        let options: PgConnectOptions = self.url_of(service).parse()?;
        Ok(PgConnection::connect_with(&options.disable_statement_logging()).await?)
    }
}
