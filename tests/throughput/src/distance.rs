//! `distance`: broker and database near, and far away: each packet of the services is delayed, in both directions.

use crate::{
    amqp,
    bus::{self, Handlers},
    compare::{Contestant, Figures, audit},
    rig::Servers,
    series::{Series, Size, WARM_UP},
};
use anyhow::{Context, Result, ensure};
use lapin::uri::AMQPUri;
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

/// Reads that may be under way in one direction: enough for 4 MiB, so that the delay alone is measured.
const UNDER_WAY: usize = 64;

#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Distance {
    /// How long each packet is on its way, in each direction
    #[arg(long, value_name = "MS", default_value_t = 5)]
    delay: u64,
    /// Lanes for sagas, and as many for handlers, of each endpoint: what is on its way does not keep the others waiting
    #[arg(long, value_name = "N", default_value_t = 4)]
    lanes: usize,
    #[command(flatten)]
    #[serde(flatten)]
    size: Size,
}

impl Distance {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let mut series = Series::new(json);
        for _ in 0..self.size.rounds {
            series.add("near", self.round(servers, servers).await?);
            let (far, _proxies) = far(servers, Duration::from_millis(self.delay)).await?;
            series.add(&format!("{} ms away", self.delay), self.round(servers, &far).await?);
        }
        series.report(self)
    }

    /// The client is always near.
    async fn round(&self, servers: &Servers, of_the_services: &Servers) -> Result<Figures> {
        let connection = amqp::connect(&servers.broker).await?;
        servers.reset(&connection, true).await?;
        let (ended, ends) = mpsc::unbounded_channel();
        let endpoints = bus::start_with(of_the_services, ended, Handlers::Batch, self.lanes).await?;
        let figures = self.size.measure(servers, &connection, ends).await?;
        audit(servers, Contestant::Sagabus, WARM_UP + self.size.sagas).await?;
        for endpoint in endpoints {
            endpoint.stop().await?;
        }
        servers.reset(&connection, false).await?;
        Ok(figures)
    }
}

/// The same servers behind proxies that delay.
async fn far(servers: &Servers, delay: Duration) -> Result<(Servers, JoinSet<()>)> {
    let broker: AMQPUri = servers.broker.parse().map_err(|error| anyhow::anyhow!("--broker: {error}"))?;
    let database: PgConnectOptions = servers.database.parse().context("--database")?;
    let mut proxies = JoinSet::new();
    let mut behind = async |url: &str, host: &str, port: u16| {
        let place = format!("{host}:{port}");
        ensure!(url.contains(&place), "the URL must name host and port");
        let proxy = delaying(&mut proxies, place.clone(), delay).await?;
        anyhow::Ok(url.replacen(&place, &format!("127.0.0.1:{proxy}"), 1))
    };
    let broker = behind(&servers.broker, &broker.authority.host, broker.authority.port).await?;
    let database = behind(&servers.database, database.get_host(), database.get_port()).await?;
    Ok((Servers { broker, database, prefix: servers.prefix.clone() }, proxies))
}

/// A proxy that keeps all it passes on for this time. Its port.
async fn delaying(proxies: &mut JoinSet<()>, server: String, delay: Duration) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    proxies.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(upstream) = TcpStream::connect(&server).await else { continue };
            let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = upstream.into_split();
            pass_on(from_client, to_server, delay);
            pass_on(from_server, to_client, delay);
        }
    });
    Ok(port)
}

/// What is read is written later; meanwhile more is read. Both tasks end with their connection.
fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (on_its_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    tokio::spawn(async move {
        loop {
            let mut bytes = Vec::with_capacity(64 << 10);
            match from.read_buf(&mut bytes).await {
                Ok(1..) if on_its_way.send((Instant::now() + delay, bytes)).await.is_ok() => {}
                _ => return,
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}
