//! `parked`: the speed with and without a million open sagas, each with a timer.

use crate::{
    amqp,
    bus::{self, Handlers},
    compare::Figures,
    rig::Servers,
    series::{Series, Size, WARM_UP},
    work::Service,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use sqlx::{Connection as _, Executor};
use tokio::sync::mpsc;

#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Parked {
    /// Open instances of the saga under test, each with a timer due in 30 days
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    parked: usize,
    #[command(flatten)]
    #[serde(flatten)]
    size: Size,
}

impl Parked {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let mut series = Series::new(json);
        for _ in 0..self.size.rounds {
            series.add("alone", self.round(servers, 0).await?);
            series.add(&format!("beside {}", self.parked), self.round(servers, self.parked).await?);
        }
        series.report(self)
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
        let figures = self.size.measure(servers, &connection, ends).await?;
        for endpoint in endpoints {
            endpoint.stop().await?;
        }
        let mut database = servers.connection_to(Service::Ordering).await?;
        let sql = "SELECT (SELECT count(*) FROM sagabus.saga WHERE completed_at IS NULL),
            (SELECT count(*) FROM sagabus.saga WHERE completed_at IS NOT NULL),
            (SELECT count(*) FROM sagabus.outbox WHERE kind = 'timer')";
        let (open, done, timers): (i64, i64, i64) = sqlx::query_as(sql).fetch_one(&mut database).await?;
        let sagas = WARM_UP + self.size.sagas;
        ensure!(
            (open as usize, done as usize, timers as usize) == (parked, sagas, parked),
            "the books do not agree: {open} open and {done} done sagas, {timers} timers"
        );
        database.close().await?;
        servers.reset(&connection, false).await?;
        Ok(figures)
    }
}

/// Open instances with their timers, as the saga would have left them.
async fn park(servers: &Servers, parked: usize) -> Result<()> {
    let mut database = servers.connection_to(Service::Ordering).await?;
    let sagas = format!(
        "INSERT INTO sagabus.saga (saga, id, state, data, seq, entered, version, progress, created_at,
            updated_at)
         SELECT 'order', gen_random_uuid(), 'AwaitingPayment', json_build_object('order', json_build_object(
            'customer', 'Ada Lovelace', 'address', '12 St James''s Square, London', 'amount_cents', 4200,
            'note', repeat('n', 300))), 1, 1, 1,
            json_build_object('timers', json_build_array(json_build_object('type', 'ordering.PaymentOverdue',
                'number', 1000))), now(), now()
         FROM generate_series(1, {parked})"
    );
    let timers = "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer,
            envelope, body, created_at, due_at)
         SELECT gen_random_uuid(), 'ordering', m, 'timer', 'ordering.PaymentOverdue', 'ordering', 'order', id, 1000,
            json_build_object('message_id', m, 'type', 'ordering.PaymentOverdue', 'conversation_id', gen_random_uuid(),
                'causation_id', gen_random_uuid(), 'saga', json_build_object('saga', 'order', 'id', id, 'timer', 1000),
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
