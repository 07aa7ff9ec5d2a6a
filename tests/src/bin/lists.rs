//! A process of the service whose history is checked: `lists BROKER DATABASE [STEP:N]` aborts itself when it reaches a
//! step for the nth time.

use outbox::Postgres;
use saga_core::Crashes;
use std::error::Error;
use tests::lists::service;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use transports::RabbitMq;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // `RUST_LOG=info` shows what the processes of a failing test say
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, database, more @ ..] = arguments.as_slice() else {
        return Err("lists BROKER DATABASE [STEP:N]".into());
    };
    let crashes = match more.first().and_then(|text| text.split_once(':')) {
        Some((step, n)) => Crashes::at(step.parse()?, n.parse()?),
        None => Crashes::default(),
    };
    let database = Postgres::with_connections(database, 4)?;
    let endpoint = service(RabbitMq::new(broker)?, database, crashes).start().await?;
    println!("started");
    signal(SignalKind::terminate())?.recv().await;
    endpoint.stop().await?;
    Ok(())
}
