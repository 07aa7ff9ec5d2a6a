//! `naive`: lapin and sqlx in the usual way: one transaction per message, 16 handlers per service, an outbox that a
//! relay empties.

use crate::{
    amqp,
    rig::Servers,
    work::{BY_HAND, Came, MakePayment, Outgoing, PaymentCompleted, Service, ShippingLabelCreated, step},
};
use anyhow::{Result, bail};
use futures_util::{StreamExt, future::try_join_all};
use lapin::{
    Channel, Confirmation,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use saga_core::Message;
use sqlx::{Executor, PgPool, Row, postgres::PgPoolOptions};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
};
use uuid::Uuid;

const HANDLERS: usize = 16;
const RELAY_ROWS: i64 = 100;
/// How long the relay waits when nobody wakes it.
const POLL: Duration = Duration::from_millis(100);

/// Starts the three services.
pub(crate) async fn start(
    servers: &Servers,
    ended: mpsc::UnboundedSender<Uuid>,
    bare: bool,
) -> Result<JoinSet<Result<()>>> {
    let mut tasks = JoinSet::new();
    for service in Service::ALL {
        let pool = PgPoolOptions::new()
            .max_connections(HANDLERS as u32 + 1)
            .test_before_acquire(false)
            .connect(&servers.url_of(service))
            .await?;
        pool.execute(BY_HAND).await?;
        if let Some(table) = service.own_table() {
            pool.execute(table).await?;
        }
        let consuming = amqp::connect(&servers.broker).await?;
        let publishing = amqp::connect(&servers.broker).await?;
        let channel = amqp::consuming(&consuming, HANDLERS as u16).await?;
        amqp::declare(&channel, &servers.queue_of(service)).await?;
        let wake = Arc::new(Notify::new());
        let outlet = publishing.create_channel().await?;
        outlet.confirm_select(ConfirmSelectOptions::default()).await?;
        tasks.spawn(relay(servers.clone(), service, bare, pool.clone(), outlet, wake.clone()));
        let serving = serve(servers.queue_of(service), service, pool, channel, wake, ended.clone());
        tasks.spawn(async move {
            let _connections = [consuming, publishing];
            serving.await
        });
    }
    Ok(tasks)
}

async fn serve(
    queue: String,
    service: Service,
    pool: PgPool,
    channel: Channel,
    wake: Arc<Notify>,
    ended: mpsc::UnboundedSender<Uuid>,
) -> Result<()> {
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.as_str().into(), "naive".into(), options, none).await?;
    let room = Arc::new(Semaphore::new(HANDLERS));
    while let Some(delivery) = consumer.next().await {
        let (delivery, pool, wake, ended) = (delivery?, pool.clone(), wake.clone(), ended.clone());
        let turn = room.clone().acquire_owned().await?;
        tokio::spawn(async move {
            let _turn = turn;
            let end = handle(service, &pool, &delivery).await.expect("a message is handled");
            wake.notify_one();
            delivery.ack(BasicAckOptions::default()).await.expect("a message is acknowledged");
            if let Some(order_id) = end {
                let _ = ended.send(order_id); // the client has what it wanted
            }
        });
    }
    bail!("the consumer of {queue} ended")
}

/// One message, one transaction. Returns the order that has ended, if one has.
async fn handle(service: Service, pool: &PgPool, delivery: &Delivery) -> Result<Option<Uuid>> {
    let (came, kind) = amqp::came(delivery)?;
    let mut tx = pool.begin().await?;
    let claimed = sqlx::query("INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(came.id)
        .execute(&mut *tx)
        .await?;
    if claimed.rows_affected() == 0 {
        return Ok(None);
    }
    let mut end = None;
    let send = match service {
        Service::Ordering => {
            let step = step(kind, &delivery.data, came)?;
            let row = sqlx::query("SELECT state, data::text FROM saga WHERE id = $1 AND saga = 'order' FOR UPDATE")
                .bind(step.order_id)
                .fetch_optional(&mut *tx)
                .await?;
            let state: Option<String> = row.map(|row| row.get(0));
            if state.as_deref() != step.from {
                bail!("{kind} came in state {state:?}");
            }
            sqlx::query(
                "INSERT INTO saga (id, saga, state, data) VALUES ($1, 'order', $2, $3::jsonb)
                 ON CONFLICT (id, saga) DO UPDATE SET state = excluded.state, data = excluded.data",
            )
            .bind(step.order_id)
            .bind(step.to)
            .bind(step.data)
            .execute(&mut *tx)
            .await?;
            end = step.send.is_none().then_some(step.order_id);
            step.send
        }
        Service::Payment => {
            let MakePayment { order_id, order } = serde_json::from_slice(&delivery.data)?;
            let payment_id = Uuid::now_v7();
            sqlx::query("INSERT INTO charge (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)")
                .bind(order_id)
                .bind(payment_id)
                .bind(order.amount_cents)
                .execute(&mut *tx)
                .await?;
            let done = PaymentCompleted { order_id, payment_id, order };
            Some(Outgoing::new(PaymentCompleted::TYPE, Service::Ordering, order_id, came, &done))
        }
        Service::Warehouse => {
            let crate::work::CreateShippingLabel { order_id, order } = serde_json::from_slice(&delivery.data)?;
            let label_id = Uuid::now_v7();
            sqlx::query("INSERT INTO label (order_id, label_id, address) VALUES ($1, $2, $3)")
                .bind(order_id)
                .bind(label_id)
                .bind(&order.address)
                .execute(&mut *tx)
                .await?;
            let done = ShippingLabelCreated { order_id, label_id, order };
            Some(Outgoing::new(ShippingLabelCreated::TYPE, Service::Ordering, order_id, came, &done))
        }
    };
    if let Some(Outgoing { id, kind, to, order_id, came, body }) = send {
        sqlx::query(
            "INSERT INTO outbox (id, type, destination, order_id, conversation, causation, body)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(kind)
        .bind(to.name())
        .bind(order_id)
        .bind(came.conversation)
        .bind(came.id)
        .bind(body)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(end)
}

/// Publishes what is in the outbox, waits for the confirms, deletes it.
async fn relay(
    servers: Servers,
    service: Service,
    bare: bool,
    pool: PgPool,
    channel: Channel,
    wake: Arc<Notify>,
) -> Result<()> {
    loop {
        let mut tx = pool.begin().await?;
        let rows = sqlx::query(
            "SELECT id, type, destination, order_id, conversation, causation, body
                 FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
        )
        .bind(RELAY_ROWS)
        .fetch_all(&mut *tx)
        .await?;
        if rows.is_empty() {
            drop(tx);
            let _ = tokio::time::timeout(POLL, wake.notified()).await;
            continue;
        }
        let mut confirms = Vec::with_capacity(rows.len());
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            let (kind, to) = Outgoing::stored(row.get(1), row.get(2))?;
            let came = Came { conversation: row.get(4), id: row.get(5) };
            let row = Outgoing { id: row.get(0), kind, to, order_id: row.get(3), came, body: row.get(6) };
            let (queue, options) = (servers.queue_of(to), BasicPublishOptions::default());
            let properties = amqp::properties(&row, Some(service), bare);
            confirms
                .push(channel.basic_publish("".into(), queue.as_str().into(), options, &row.body, properties).await?);
            ids.push(row.id);
        }
        for confirm in try_join_all(confirms).await? {
            if !matches!(confirm, Confirmation::Ack(_)) {
                bail!("not confirmed: {confirm:?}");
            }
        }
        sqlx::query("DELETE FROM outbox WHERE id = ANY($1)").bind(&ids).execute(&mut *tx).await?;
        tx.commit().await?;
    }
}
