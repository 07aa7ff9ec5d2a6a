//! `growth`: what slows down after months: an inbox of millions of rows, a transaction that somebody forgot, so that no
//! dead row can be removed, and the deletion of rows whose retention is over. And what slows down after a bad night: a
//! million held messages, thousands of messages that wait for one instance.

use crate::{
    amqp,
    bus::{self, Handlers},
    compare::Figures,
    rig::Servers,
    series::{Series, Size},
    work::Service,
};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use sqlx::{Connection as _, Executor, PgConnection};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

/// How long a sweep may take.
const SWEPT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Condition {
    /// New databases
    New,
    /// Many rows in ordering's inbox
    Full,
    /// New databases, with a transaction held open in each
    Held,
    /// Many rows, and a transaction held open in each database
    Both,
    /// Many rows, and more that are deleted meanwhile, because their retention is over
    Sweep,
    /// New databases, and many messages that are held for a person in ordering's
    Messages,
    /// New databases, and messages of one instance that wait in ordering's, because they came too early
    Early,
}

impl Condition {
    /// Whether each round has databases of its own.
    fn is_new(self) -> bool {
        matches!(self, Self::New | Self::Held | Self::Messages | Self::Early)
    }
}

#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Growth {
    /// Rows in ordering's inbox
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    inbox: u32,
    /// Further rows there whose retention is over, for `sweep`
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    expired: u32,
    /// Held messages, for `messages`
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    messages: u32,
    /// Early messages of one instance, for `early`
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    early: u32,
    /// Only these conditions
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Condition>,
    /// Keeps the full databases, and uses them again when they are there
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    #[serde(flatten)]
    size: Size,
}

impl Growth {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let mut series = Series::new(json);
        let full = Servers { prefix: format!("{}full_", servers.prefix), ..servers.clone() };
        let all = Condition::value_variants();
        let chosen = all.iter().filter(|condition| self.only.is_empty() || self.only.contains(condition));
        let chosen: Vec<Condition> = chosen.copied().collect();
        if !chosen.iter().all(|condition| condition.is_new()) && !is_filled(&full, self.inbox).await? {
            self.create(&full).await?;
            let mut database = full.connection_to(Service::Ordering).await?;
            fill(&mut database, self.inbox, "6 days", "0 days").await?;
            series.say(&format!("{} rows are in the inbox", self.inbox));
        }
        for _ in 0..self.size.rounds {
            for condition in &chosen {
                let servers = if condition.is_new() { servers } else { &full };
                let (figures, swept) = self.round(servers, *condition).await?;
                let name = condition.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
                series.add(&name, figures);
                if let Some(swept) = swept {
                    series.say(&format!("    {} rows deleted in {:.1} s", self.expired, swept.as_secs_f64()));
                }
            }
        }
        if !self.keep {
            full.reset(&amqp::connect(&servers.broker).await?, false).await?;
        }
        series.report(self)
    }

    /// New databases with their tables.
    async fn create(&self, servers: &Servers) -> Result<()> {
        servers.reset(&amqp::connect(&servers.broker).await?, true).await?;
        let (ended, _ends) = mpsc::unbounded_channel();
        for endpoint in bus::start(servers, ended, Handlers::Batch).await? {
            endpoint.stop().await?;
        }
        Ok(())
    }

    async fn round(&self, servers: &Servers, condition: Condition) -> Result<(Figures, Option<Duration>)> {
        if condition.is_new() {
            self.create(servers).await?;
        }
        let mut database = servers.connection_to(Service::Ordering).await?;
        if condition == Condition::Sweep {
            fill(&mut database, self.expired, "9 days", "8 days").await?;
        }
        match condition {
            // three of each instance, as after a bad night
            Condition::Messages => hold(&mut database, self.messages, "failed", "1000000 + n / 3").await?,
            Condition::Early => hold(&mut database, self.early, "early", "0").await?,
            _ => {}
        }
        // what a held transaction of an earlier round kept
        database.execute("VACUUM sagabus.outbox").await?;
        database.execute("VACUUM sagabus.saga").await?;
        database.execute("CHECKPOINT").await?;
        let mut holders = Vec::new();
        if matches!(condition, Condition::Held | Condition::Both) {
            for service in Service::ALL {
                let mut holder = servers.connection_to(service).await?;
                holder.execute("BEGIN; SELECT txid_current()").await?;
                holders.push(holder);
            }
        }
        let connection = amqp::connect(&servers.broker).await?;
        let (ended, ends) = mpsc::unbounded_channel();
        let endpoints = bus::start(servers, ended, Handlers::Batch).await?;
        let (figures, swept) = tokio::try_join!(self.size.measure(servers, &connection, ends), async {
            let expired = self.expired;
            if condition == Condition::Sweep { swept(&mut database, expired).await.map(Some) } else { Ok(None) }
        })?;
        for endpoint in endpoints {
            endpoint.stop().await?;
        }
        for holder in holders {
            holder.close().await?;
        }
        database.close().await?;
        if condition.is_new() {
            servers.reset(&connection, false).await?;
        } else {
            amqp::clean(&connection, &servers.prefix).await?;
        }
        Ok((figures, swept))
    }
}

/// Whether an earlier run has left about so many rows.
async fn is_filled(servers: &Servers, rows: u32) -> Result<bool> {
    let Ok(mut database) = servers.connection_to(Service::Ordering).await else { return Ok(false) };
    let sql = "SELECT coalesce((SELECT reltuples FROM pg_class WHERE oid = to_regclass('sagabus.inbox')), 0)::float8";
    let found: f64 = sqlx::query_scalar(sql).fetch_one(&mut database).await?;
    database.close().await?;
    Ok(found >= 0.9 * f64::from(rows))
}

/// Handled messages as the saga would have left them, from so long ago to so long ago.
async fn fill(database: &mut PgConnection, rows: u32, from: &str, to: &str) -> Result<()> {
    let insert = format!(
        "INSERT INTO sagabus.inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
            causation_id, saga, saga_id, seq, from_state, to_state, effects, sent_at, claimed_at, handled_at,
            handled_by, attempts)
         SELECT 'ordering', 'order', m, 42, 'payment.PaymentCompleted', 'handled', gen_random_uuid(),
            gen_random_uuid(), 'order', gen_random_uuid(), 2, 'AwaitingPayment', 'AwaitingShipment',
            json_build_array(json_build_object('id', m, 'type', 'warehouse.CreateShippingLabel', 'to', 'warehouse')),
            at, at, at, 'ordering@a-machine-of-last-week#1', 1
         FROM (SELECT gen_random_uuid() m,
                now() - interval '{from}' + n::float8 / {rows} * (interval '{from}' - interval '{to}') AS at
            FROM generate_series(1, {rows}) n) messages"
    );
    database.execute("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'").await?;
    let is_empty = "SELECT NOT EXISTS (SELECT FROM sagabus.inbox)";
    let is_empty: bool = sqlx::query_scalar(is_empty).fetch_one(&mut *database).await?;
    if is_empty {
        // an index is built faster than it is filled
        let drop = "ALTER TABLE sagabus.inbox DROP CONSTRAINT inbox_pkey; DROP INDEX sagabus.inbox_journal";
        database.execute(drop).await?;
    }
    let inserted = database.execute(insert.as_str()).await?.rows_affected();
    ensure!(inserted == u64::from(rows), "{inserted} rows were inserted");
    if is_empty {
        database
            .execute(
                "ALTER TABLE sagabus.inbox ADD PRIMARY KEY (message_id, receiver, endpoint);
                 CREATE INDEX inbox_journal ON sagabus.inbox (saga_id, saga) WHERE saga_id IS NOT NULL",
            )
            .await?;
    }
    database.execute("VACUUM ANALYZE sagabus.inbox").await?;
    Ok(())
}

/// Messages that wait in ordering's database, each for the instance whose number is `of` its own.
async fn hold(database: &mut PgConnection, messages: u32, reason: &str, of: &str) -> Result<()> {
    let insert = format!(
        "INSERT INTO sagabus.held (endpoint, receiver, message_id, reason, saga, saga_id, error, attempts, held_at,
            expires_at, type, envelope, body)
         SELECT 'ordering', 'order', m, '{reason}', 'order', lpad(({of})::text, 32, '0')::uuid::text,
            'error returned from database: relation charge does not exist', 16, now(), now() + interval '1 day',
            'payment.PaymentCompleted', json_build_object('message_id', m, 'type', 'payment.PaymentCompleted',
                'conversation_id', m, 'sender', 'payment'), '{{}}'::bytea
         FROM (SELECT gen_random_uuid() m, n FROM generate_series(1, {messages}) n) messages"
    );
    database.execute("SET synchronous_commit = off").await?;
    let held = database.execute(insert.as_str()).await?.rows_affected();
    ensure!(held == u64::from(messages), "{held} messages are held");
    database.execute("VACUUM ANALYZE sagabus.held").await?;
    Ok(())
}

/// Waits until so many rows of the inbox have been deleted since now. How long that took.
async fn swept(database: &mut PgConnection, rows: u32) -> Result<Duration> {
    let sql = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relid = 'sagabus.inbox'::regclass";
    let (began, before) = (Instant::now(), sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *database).await?);
    loop {
        let deleted = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *database).await? - before;
        if deleted >= i64::from(rows) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < SWEPT, "only {deleted} of {rows} rows were deleted within {SWEPT:?}");
        sleep(Duration::from_millis(200)).await;
    }
}
