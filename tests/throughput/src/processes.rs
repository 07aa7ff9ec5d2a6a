//! `processes`: one process of each service, and several that share its queue and its database.

use crate::{
    amqp,
    compare::{Contestant, Figures, audit},
    process::Fleet,
    rig::Servers,
    series::{Series, Size, WARM_UP},
    work::Service,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use sqlx::Connection as _;
use tokio::sync::mpsc;

/// An instance whose transitions were not committed in the order of its states.
const OUT_OF_ORDER: &str = "SELECT count(*) FROM (
    SELECT array_agg(to_state ORDER BY handled_at, seq) AS states, array_agg(seq ORDER BY handled_at, seq) AS steps
    FROM sagabus.inbox GROUP BY saga_id) i
WHERE states <> '{AwaitingPayment,AwaitingShipment,Shipped}' OR steps <> '{1,2,3}'";

/// The number of processes that handled something, and the smallest part that one of them had.
const SHARES: &str = "SELECT count(*), coalesce(min(n) / sum(n), 0)::float8
    FROM (SELECT count(*) n FROM sagabus.inbox GROUP BY handled_by) shares";

#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Processes {
    /// Processes of each service, beside a run with one
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, 3])]
    processes: Vec<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    size: Size,
}

impl Processes {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let mut series = Series::new(json);
        for _ in 0..self.size.rounds {
            for each in [1].into_iter().chain(self.processes.iter().copied()) {
                let (figures, shares) = self.round(servers, each).await?;
                series.add(&format!("{each} of each"), figures);
                series.say(&format!("    the smallest part of one process, by service: {}", shares.join(", ")));
            }
        }
        series.report(self)
    }

    async fn round(&self, servers: &Servers, each: usize) -> Result<(Figures, Vec<String>)> {
        let connection = amqp::connect(&servers.broker).await?;
        servers.reset(&connection, true).await?;
        let (ended, ends) = mpsc::unbounded_channel();
        let fleet = Fleet::start(servers, each, &ended).await?;
        let figures = self.size.measure(servers, &connection, ends).await?;
        audit(servers, Contestant::Sagabus, WARM_UP + self.size.sagas).await?;
        let mut shares = Vec::new();
        for service in Service::ALL {
            let mut database = servers.connection_to(service).await?;
            let held: i64 = sqlx::query_scalar("SELECT count(*) FROM sagabus.held").fetch_one(&mut database).await?;
            ensure!(held == 0, "{held} messages are held by {}", service.name());
            if service == Service::Ordering {
                let wrong: i64 = sqlx::query_scalar(OUT_OF_ORDER).fetch_one(&mut database).await?;
                ensure!(wrong == 0, "{wrong} instances did their steps out of order");
            }
            let (worked, least): (i64, f64) = sqlx::query_as(SHARES).fetch_one(&mut database).await?;
            ensure!(worked == each as i64, "{worked} of {each} processes of {} worked", service.name());
            shares.push(format!("{} {:.0} %", service.name(), 100.0 * least));
            database.close().await?;
        }
        fleet.stop().await?;
        servers.reset(&connection, false).await?;
        Ok((figures, shares))
    }
}
