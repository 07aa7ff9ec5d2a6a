//! `drain`: how fast an outbox empties that filled up while the broker was away, compared with a publisher by hand.

use crate::{
    amqp::{self, Publish},
    bus::{self, Handlers},
    compare::round,
    rig::Servers,
    work::{Came, MakePayment, Order, OrderPlaced, Outgoing, Service},
};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::{Channel, options::BasicConsumeOptions, types::FieldTable};
use saga_core::Message;
use serde::{Serialize, de::IgnoredAny};
use sqlx::{Connection as _, Executor, Row};
use std::time::Duration;
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

/// Rows in one transaction of the publisher by hand.
const ROWS: i64 = 1000;
/// The run has failed when no message reaches the queue for this long.
const STALLED: Duration = Duration::from_secs(30);
/// The run has failed when the outbox is not empty after this time.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// Rows in the outbox
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    rows: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: u32,
    by_hand_rows_per_s: f64,
    sagabus_rows_per_s: f64,
    ratio: f64,
}

impl Drain {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let by_hand = round(self.by_hand(servers).await?);
        if !json {
            println!("by hand  {by_hand:8.0} rows/s");
        }
        let sagabus = round(self.sagabus(servers).await?);
        if !json {
            println!("sagabus  {sagabus:8.0} rows/s");
        }
        let report = Report {
            rows: self.rows,
            by_hand_rows_per_s: by_hand,
            sagabus_rows_per_s: sagabus,
            ratio: round(sagabus / by_hand),
        };
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("sagabus drains {} rows at {} x the publisher by hand", report.rows, report.ratio);
        }
        Ok(true)
    }

    /// A queue that takes the rows, and the databases with the tables of Sagabus and a full outbox.
    async fn fill(&self, servers: &Servers) -> Result<(lapin::Connection, Channel)> {
        let connection = amqp::connect(&servers.broker).await?;
        servers.reset(&connection, true).await?;
        let (ended, _ends) = mpsc::unbounded_channel();
        for endpoint in bus::start(servers, ended, Handlers::Batch).await? {
            endpoint.stop().await?;
        }
        let OrderPlaced { order, .. } = OrderPlaced::new();
        let Order { customer, address, amount_cents, note } = order;
        let mut database = servers.connection_to(Service::Ordering).await?;
        sqlx::query(
            "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id,
                envelope, body, created_at, due_at)
             SELECT u, 'ordering', u, 'command', 'payment.MakePayment', 'payment', 'order', u,
                json_build_object('message_id', u, 'type', 'payment.MakePayment', 'conversation_id', u,
                    'causation_id', u, 'saga', json_build_object('saga', 'order', 'id', u, 'entered', 1),
                    'reply_to', 'ordering', 'sender', 'ordering', 'sent_at_us', 1795000000123456),
                convert_to(json_build_object('order_id', u, 'order', json_build_object('customer', $2::text,
                    'address', $3::text, 'amount_cents', $4::bigint, 'note', $5::text))::text, 'UTF8'),
                now(), now()
             FROM (SELECT gen_random_uuid() u FROM generate_series(1, $1)) ids",
        )
        .bind(self.rows as i32)
        .bind(customer)
        .bind(address)
        .bind(amount_cents)
        .bind(note)
        .execute(&mut database)
        .await?;
        database.execute("VACUUM ANALYZE sagabus.outbox").await?;
        database.execute("CHECKPOINT").await?;
        database.close().await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }

    /// Waits until the outbox is empty. Returns rows per second, from `began`.
    async fn emptied(&self, servers: &Servers, began: Instant) -> Result<f64> {
        let mut database = servers.connection_to(Service::Ordering).await?;
        let until = Instant::now() + LIMIT;
        while sqlx::query_scalar("SELECT EXISTS (SELECT FROM sagabus.outbox)").fetch_one(&mut database).await? {
            if Instant::now() > until {
                bail!("rows are left in the outbox after {LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rate = f64::from(self.rows) / began.elapsed().as_secs_f64();
        database.close().await?;
        Ok(rate)
    }

    /// All rows must be in payment's queue, alone or in bundles.
    async fn arrived(&self, servers: &Servers, channel: &Channel) -> Result<()> {
        let (queue, options) =
            (servers.queue_of(Service::Payment), BasicConsumeOptions { no_ack: true, ..<_>::default() });
        let none = FieldTable::default();
        let mut consumer = channel.basic_consume(queue.as_str().into(), "count".into(), options, none).await?;
        let mut there = 0;
        while there < self.rows as usize {
            let Ok(delivery) = tokio::time::timeout(STALLED, consumer.next()).await else {
                bail!("{there} of {} rows arrived, and no more", self.rows);
            };
            let delivery = delivery.context("the consumer ended")??;
            let is_bundle = delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == "sagabus.bundle");
            let messages: Vec<IgnoredAny> =
                if is_bundle { serde_json::from_slice(&delivery.data)? } else { vec![IgnoredAny] };
            there += messages.len();
        }
        Ok(())
    }

    async fn sagabus(&self, servers: &Servers) -> Result<f64> {
        let (connection, channel) = self.fill(servers).await?;
        let (ended, _ends) = mpsc::unbounded_channel();
        let began = Instant::now();
        let endpoint = bus::start_one(servers, Service::Ordering, ended, Handlers::Batch, 1).await?;
        let rate = self.emptied(servers, began).await?;
        self.arrived(servers, &channel).await?;
        endpoint.stop().await?;
        servers.reset(&connection, false).await?;
        Ok(rate)
    }

    /// Claims rows, publishes them, waits for their confirms, deletes them; all in one transaction.
    async fn by_hand(&self, servers: &Servers) -> Result<f64> {
        let (connection, channel) = self.fill(servers).await?;
        let publishing = amqp::connect(&servers.broker).await?;
        let (confirms, mut confirmed) = mpsc::unbounded_channel();
        let outlet = amqp::publisher(&publishing, confirms, false).await?;
        let mut answers = Vec::new();
        let mut database = servers.connection_to(Service::Ordering).await?;
        let queue = servers.queue_of(Service::Payment);
        let began = Instant::now();
        loop {
            let mut tx = database.begin().await?;
            let rows = sqlx::query(
                "SELECT id, body, envelope ->> 'conversation_id', envelope ->> 'causation_id', saga_id
                 FROM sagabus.outbox WHERE endpoint = 'ordering' AND due_at <= now() ORDER BY due_at
                 LIMIT $1 FOR UPDATE SKIP LOCKED",
            )
            .bind(ROWS)
            .fetch_all(&mut *tx)
            .await?;
            if rows.is_empty() {
                break;
            }
            let mut ids: Vec<Uuid> = Vec::with_capacity(rows.len());
            for row in &rows {
                let came = Came { conversation: row.get::<&str, _>(2).parse()?, id: row.get::<&str, _>(3).parse()? };
                let message = Outgoing {
                    id: row.get(0),
                    kind: MakePayment::TYPE,
                    to: Service::Payment,
                    order_id: row.get::<&str, _>(4).parse()?,
                    came,
                    body: row.get(1),
                };
                ids.push(message.id);
                outlet.send(Publish::to_queue(&queue, Service::Ordering, vec![message]))?;
            }
            let mut left = ids.len();
            while left > 0 {
                left -= confirmed.recv_many(&mut answers, left).await;
            }
            answers.clear();
            sqlx::query("DELETE FROM sagabus.outbox WHERE id = ANY($1)").bind(&ids).execute(&mut *tx).await?;
            tx.commit().await?;
        }
        let rate = self.emptied(servers, began).await?;
        self.arrived(servers, &channel).await?;
        database.close().await?;
        servers.reset(&connection, false).await?;
        Ok(rate)
    }
}
