//! `ordering serve`: one service as a process.

use crate::{
    LogFormat, api, choreography, create_tables,
    demo::seconds,
    ledger::{Ledger, Service, create_database, may_pass},
    metrics::Metrics,
    servers::{BROKER, DATABASE, Server, Usage, place_of, variable},
    services::{self, World},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use sagabus::{
    Endpoint, Postgres, RabbitMq,
    endpoint::{Bundles, Ended, EndpointBuilder},
    testing::{CrashPoint, Crashes},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// How long requests that are under way may take after SIGTERM.
const HTTP_END: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Which service
    service: Service,
    /// A RabbitMQ broker, `amqp://user:password@host:5672/vhost` [env: ORDERING_BROKER_URL]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Where ordering listens for HTTP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the service answers Prometheus, at `/metrics`
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    world: World,
    /// How long a payment may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    payment_timeout: f64,
    /// The same process without a saga, by events alone: for all three services, or for none
    #[arg(long)]
    choreographed: bool,
    /// How logs are written
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// How long a process owns the messages it publishes: when it dies, others take over its messages after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    lease: f64,
    /// Read every stored instance as this program would, list those that it cannot read, and exit: before a deployment
    #[arg(long)]
    check: bool,
    /// Take bundles although each message is handled by itself: for tests
    #[arg(long, hide = true)]
    bundles: bool,
    /// Die when a step is reached for the Nth time, as by `kill -9`: for tests
    #[arg(long, value_name = "STEP:N", hide = true, value_parser = crash)]
    crash_at: Option<(CrashPoint, u64)>,
}

fn crash(text: &str) -> Result<(CrashPoint, u64), String> {
    let (step, n) = text.split_once(':').ok_or("expected STEP:N")?;
    Ok((step.parse()?, n.parse().map_err(|_| format!("`{n}` is not a number"))?))
}

impl Serve {
    pub(crate) async fn run(self) -> Result<bool> {
        let missing = |what: &str, variable| Usage(format!("{what} URL is missing, and so is {variable}"));
        let server = self.server.database.clone().or_else(|| variable(DATABASE));
        let url = self.server.database_of(&server.ok_or_else(|| missing("--database", DATABASE))?, self.service)?;
        let broker_url = self.broker.clone().or_else(|| variable(BROKER)).ok_or_else(|| missing("--broker", BROKER))?;
        let broker = RabbitMq::new(&broker_url).map_err(|error| Usage(format!("--broker: {error}")))?;
        let broker = broker.with_prefix(self.server.prefix());
        if self.check {
            return check(services::ordering(broker, Postgres::new(&url)?, None)).await;
        }
        let listener = self.listener().await?;
        // before the endpoint starts: it asks once whether anybody listens
        let metrics = Metrics::listen(self.metrics).await?;
        let timeout = Duration::from_secs_f64(self.payment_timeout);
        wait_for_database(&url).await?;
        let store = Postgres::new(&url)?;
        create_tables(&store, self.service).await?;
        let builder = match (self.service, self.choreographed) {
            (Service::Ordering, false) => services::ordering(broker, store, None),
            (Service::Ordering, true) => choreography::ordering(broker, store, None),
            (Service::Payment, false) => services::payment(broker, store, self.world, timeout),
            (Service::Payment, true) => choreography::payment(broker, store, self.world, timeout),
            (Service::Warehouse, false) => services::warehouse(broker, store, self.world),
            (Service::Warehouse, true) => choreography::warehouse(broker, store, self.world),
        };
        // before the endpoint takes a message: a signal that comes while it starts ends it in order, too
        let stop = stop_signal()?;
        let endpoint = self.with_options(builder).start().await?;
        tracing::info!(
            endpoint = endpoint.name(),
            broker = place_of(&broker_url),
            database = place_of(&url),
            version = env!("CARGO_PKG_VERSION"),
            "service started"
        );
        let endpoint = Arc::new(endpoint);
        let stop = end_of(endpoint.clone(), stop);
        if let Some(metrics) = metrics {
            tracing::info!(address = %metrics.address()?, "metrics");
            tokio::spawn(metrics.serve()); // it ends with the process
        }
        match listener {
            Some(listener) => {
                tracing::info!(address = %listener.local_addr()?, "listening");
                api::serve(listener, &endpoint, timeout, stop, HTTP_END).await?;
            }
            None => stop.await,
        }
        finish(endpoint).await
    }

    /// Ordering's address. It is bound before anything else starts, so that nothing runs if it is taken.
    async fn listener(&self) -> Result<Option<TcpListener>> {
        if self.service != Service::Ordering {
            return Ok(None);
        }
        let listener = TcpListener::bind(self.listen).await;
        listener.map(Some).with_context(|| format!("cannot listen on {}", self.listen))
    }

    fn with_options<Db: Ledger>(&self, builder: EndpointBuilder<Db>) -> EndpointBuilder<Db> {
        let lease = Duration::from_secs_f64(self.lease);
        let builder = builder.settings(|settings| {
            settings.lease = lease;
            if self.bundles {
                settings.bundles = Bundles::Always;
            }
        });
        match self.crash_at {
            Some((step, n)) => builder.crashes(Crashes::at(step, n)),
            None => builder,
        }
    }
}

/// Ordering has the samples' only saga.
async fn check<Db: Ledger>(endpoint: EndpointBuilder<Db>) -> Result<bool> {
    let checked = endpoint.check(|instance| println!("{instance}")).await?;
    println!("{checked}");
    Ok(checked.unreadable == 0)
}

/// SIGTERM or Ctrl-C.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Waits for `stop`, or until the endpoint has failed: it does not come back by itself.
async fn end_of<Db: Ledger>(endpoint: Arc<Endpoint<Db>>, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = stop => {}
        _ = endpoint.ended() => {} // `finish` asks how
    }
}

/// Stops the endpoint. If it has failed, the process ends with an error, so that its supervisor starts another.
async fn finish<Db: Ledger>(endpoint: Arc<Endpoint<Db>>) -> Result<bool> {
    let Ok(endpoint) = tokio::time::timeout(HTTP_END, alone(endpoint)).await else {
        tracing::warn!("stopped in haste: a request is still under way");
        return Ok(true);
    };
    match endpoint.stop().await {
        Ok(()) => tracing::info!("stopped"),
        Err(failed @ Ended::Failed(_)) => bail!(failed),
        Err(in_haste) => tracing::warn!(%in_haste, "stopped in haste"),
    }
    Ok(true)
}

/// The endpoint, once no request uses it.
pub(crate) async fn alone<Db: Ledger>(mut endpoint: Arc<Endpoint<Db>>) -> Endpoint<Db> {
    loop {
        match Arc::try_unwrap(endpoint) {
            Ok(alone) => return alone,
            Err(shared) => endpoint = shared,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Creates the service's database; the server may still be starting.
async fn wait_for_database(url: &str) -> Result<()> {
    let mut tries = 0;
    loop {
        match create_database(url).await {
            Err(error) if may_pass(&error) && tries < 60 => {
                tries += 1;
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return other.context("cannot create the database"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::tests::Ending, sqlite_of};

    #[tokio::test]
    async fn a_service_whose_endpoint_fails_ends_with_the_reason() {
        let folder = std::env::temp_dir().join(format!("ordering-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        let store = sqlite_of(&folder, Service::Ordering).await.expect("a new file opens");
        create_tables(&store, Service::Ordering).await.expect("the tables are created");
        let bus = Ending::default();
        let endpoint = Arc::new(services::ordering(bus.clone(), store, None).start().await.expect("ordering starts"));
        bus.end();
        end_of(endpoint.clone(), std::future::pending()).await;
        let error = finish(endpoint).await.expect_err("it failed");
        assert!(error.to_string().contains("the transport has ended"), "{error:#}");
        let _ = std::fs::remove_dir_all(folder);
    }
}
