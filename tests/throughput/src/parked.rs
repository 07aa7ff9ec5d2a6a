//! `parked`: the speed with and without a million open sagas, each with a timer.

use crate::{
    amqp,
    bus::{self, Handlers},
    compare::{Figures, round},
    load::{Client, Entrance, Load},
    rig::Servers,
    work::Service,
};
use anyhow::Result;
use serde::Serialize;
use sqlx::{Connection as _, Executor};
use tokio::sync::mpsc;

/// Sagas before the clock starts.
const WARM_UP: usize = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct Parked {
    /// Open sagas, each with a timer due in 30 days
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    parked: usize,
    /// Sagas of one round
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sagas: usize,
    /// Sagas under way at a time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    in_flight: usize,
    /// Rounds, with and without in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    parked: usize,
    sagas: usize,
    in_flight: usize,
    without: Figures,
    with: Figures,
    ratio: f64,
}

impl Parked {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for n in 1..=self.rounds {
            for (parked, all) in [(0, &mut without), (self.parked, &mut with)] {
                let figures = self.round(servers, parked).await?;
                if !json {
                    println!("round {n}  {parked:>8} parked {}", figures.line());
                }
                all.push(figures);
            }
        }
        let (without, with) = (Figures::median(&without), Figures::median(&with));
        let ratio = round(with.sagas_per_s / without.sagas_per_s);
        let Self { parked, sagas, in_flight, .. } = self;
        let report = Report { parked, sagas, in_flight, without, with, ratio };
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!(
                "\nmedians: {:.0} sagas/s without, {:.0} beside {parked} parked: {ratio} x",
                without.sagas_per_s, with.sagas_per_s
            );
        }
        Ok(true)
    }

    async fn round(&self, servers: &Servers, parked: usize) -> Result<Figures> {
        let connection = amqp::connect(&servers.broker).await?;
        servers.reset(&connection, true).await?;
        let (ended, ends) = mpsc::unbounded_channel();
        for endpoint in bus::start(servers, ended.clone(), Handlers::Batch).await? {
            endpoint.stop().await?;
        }
        if parked > 0 {
            park(servers, parked).await?;
        }
        let endpoints = bus::start(servers, ended, Handlers::Batch).await?;
        let mut client = Client::new(&connection, Entrance::event(servers), ends).await?;
        client.drive(Load { sagas: WARM_UP, in_flight: self.in_flight.min(WARM_UP), rate: None }).await?;
        let watch = servers.watch()?;
        let before = watch.now();
        let timed = client.drive(Load { sagas: self.sagas, in_flight: self.in_flight, rate: None }).await?;
        let figures = Figures::of(&timed, watch.now().since(before));
        for endpoint in endpoints {
            endpoint.stop().await?;
        }
        servers.reset(&connection, false).await?;
        Ok(figures)
    }
}

/// Open instances with their timers, as the saga would have left them.
async fn park(servers: &Servers, parked: usize) -> Result<()> {
    let mut database = servers.connection_to(Service::Ordering).await?;
    let sagas = format!(
        "INSERT INTO sagabus.saga (saga, id, state, data, seq, entered, version, created_at, updated_at)
         SELECT 'order', gen_random_uuid(), 'AwaitingPayment', json_build_object('order', json_build_object(
            'customer', 'Ada Lovelace', 'address', '12 St James''s Square, London', 'amount_cents', 4200,
            'note', repeat('n', 300))), 1, 1, 1, now(), now()
         FROM generate_series(1, {parked})"
    );
    let timers =
        "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, entered,
            envelope, body, created_at, due_at)
         SELECT gen_random_uuid(), 'ordering', m, 'timer', 'ordering.PaymentOverdue', 'ordering', 'order', id, 1,
            json_build_object('message_id', m, 'type', 'ordering.PaymentOverdue', 'conversation_id', gen_random_uuid(),
                'causation_id', gen_random_uuid(), 'saga', json_build_object('saga', 'order', 'id', id, 'entered', 1),
                'receiver', 'order', 'sender', 'ordering', 'sent_at_us', 1795000000123456),
            '{}', now(), now() + interval '30 days'
         FROM (SELECT id, gen_random_uuid() m FROM sagabus.saga) sagas";
    database.execute(sagas.as_str()).await?;
    database.execute(timers).await?;
    database.execute("VACUUM ANALYZE sagabus.saga").await?;
    database.execute("VACUUM ANALYZE sagabus.outbox").await?;
    database.execute("CHECKPOINT").await?;
    database.close().await?;
    Ok(())
}
