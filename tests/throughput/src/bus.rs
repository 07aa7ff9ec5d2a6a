//! `sagabus`: the process on Sagabus, with the public API only and the journal on.

use crate::{
    rig::Servers,
    work::{
        CreateShippingLabel, MakePayment, Order, OrderPlaced, PaymentCompleted, PaymentOutcome, Service,
        ShippingLabelCreated, ShippingOutcome,
    },
};
use anyhow::Result;
use async_trait::async_trait;
use outbox::{Postgres, Sqlite};
use saga_core::{
    Batch, BatchContext, Change, Context, Endpoint, Handle, HandleBatch, HandlerError, HandlerOptions, Project, Sends,
    Store, saga, send, states,
};
use serde::Serialize;
use sqlx::Executor;
use std::path::Path;
use tokio::sync::mpsc;
use transports::{InProcess, RabbitMq};
use uuid::Uuid;

#[states]
pub(crate) enum Fulfilment {
    #[waits]
    AwaitingPayment { order: Order },
    #[waits]
    AwaitingShipment { order: Order },
    #[done]
    Shipped { order: Order },
}

#[saga(name = "order", id = order_id: Uuid)]
impl Fulfilment {
    fn order_placed(OrderPlaced { order_id, order }: OrderPlaced) -> (AwaitingPayment, Sends<MakePayment>) {
        (AwaitingPayment { order: order.clone() }, send(MakePayment { order_id, order }))
    }

    fn payment_completed(
        _: AwaitingPayment,
        PaymentCompleted { order_id, order, .. }: PaymentCompleted,
    ) -> (AwaitingShipment, Sends<CreateShippingLabel>) {
        (AwaitingShipment { order: order.clone() }, send(CreateShippingLabel { order_id, order }))
    }

    fn shipping_label_created(_: AwaitingShipment, label: ShippingLabelCreated) -> Shipped {
        Shipped { order: label.order }
    }
}

/// Tells the client which orders have ended, just before their commit.
pub(crate) struct Ends(pub(crate) mpsc::UnboundedSender<Uuid>);

#[async_trait]
impl<Db: Store> Project<Fulfilment, Db> for Ends {
    async fn project(&self, changes: &[Change<Fulfilment>], _: &mut Db::Tx) -> Result<(), HandlerError> {
        for change in changes.iter().filter(|change| matches!(change.after, Fulfilment::Shipped(_))) {
            let _ = self.0.send(change.id.parse()?); // the client has what it wanted
        }
        Ok(())
    }
}

/// Payment and warehouse: one row for each message.
#[derive(Clone, Copy)]
pub(crate) struct Desk;

#[async_trait]
impl Handle<MakePayment, Postgres> for Desk {
    async fn handle(
        &self,
        command: MakePayment,
        cx: &mut Context<'_, Postgres>,
    ) -> Result<PaymentOutcome, HandlerError> {
        let MakePayment { order_id, order } = command;
        let payment_id = Uuid::now_v7();
        sqlx::query("INSERT INTO charge (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)")
            .bind(order_id)
            .bind(payment_id)
            .bind(order.amount_cents)
            .execute(cx.tx().await?)
            .await?;
        Ok(PaymentCompleted { order_id, payment_id, order }.into())
    }
}

#[async_trait]
impl Handle<CreateShippingLabel, Postgres> for Desk {
    async fn handle(
        &self,
        command: CreateShippingLabel,
        cx: &mut Context<'_, Postgres>,
    ) -> Result<ShippingOutcome, HandlerError> {
        let CreateShippingLabel { order_id, order } = command;
        let label_id = Uuid::now_v7();
        sqlx::query("INSERT INTO label (order_id, label_id, address) VALUES ($1, $2, $3)")
            .bind(order_id)
            .bind(label_id)
            .bind(&order.address)
            .execute(cx.tx().await?)
            .await?;
        Ok(ShippingLabelCreated { order_id, label_id, order }.into())
    }
}

/// The same, one statement for a batch of messages.
#[async_trait]
impl HandleBatch<MakePayment, Postgres> for Desk {
    async fn handle(
        &self,
        batch: &mut Batch<'_, MakePayment>,
        cx: &mut BatchContext<'_, Postgres>,
    ) -> Result<(), HandlerError> {
        let orders: Vec<Uuid> = batch.iter().map(|command| command.order_id).collect();
        let amounts: Vec<i64> = batch.iter().map(|command| command.order.amount_cents).collect();
        let payments: Vec<Uuid> = batch.iter().map(|_| Uuid::now_v7()).collect();
        sqlx::query(
            "INSERT INTO charge (order_id, payment_id, amount_cents)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[])",
        )
        .bind(orders)
        .bind(&payments)
        .bind(amounts)
        .execute(cx.tx().await?)
        .await?;
        for (command, payment_id) in batch.iter_mut().zip(payments) {
            let (order_id, order) = (command.order_id, command.order.clone());
            command.answer(PaymentCompleted { order_id, payment_id, order });
        }
        Ok(())
    }
}

#[async_trait]
impl HandleBatch<CreateShippingLabel, Postgres> for Desk {
    async fn handle(
        &self,
        batch: &mut Batch<'_, CreateShippingLabel>,
        cx: &mut BatchContext<'_, Postgres>,
    ) -> Result<(), HandlerError> {
        let orders: Vec<Uuid> = batch.iter().map(|command| command.order_id).collect();
        let addresses: Vec<&str> = batch.iter().map(|command| command.order.address.as_str()).collect();
        let labels: Vec<Uuid> = batch.iter().map(|_| Uuid::now_v7()).collect();
        sqlx::query(
            "INSERT INTO label (order_id, label_id, address) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[])",
        )
        .bind(orders)
        .bind(&labels)
        .bind(addresses)
        .execute(cx.tx().await?)
        .await?;
        for (command, label_id) in batch.iter_mut().zip(labels) {
            let (order_id, order) = (command.order_id, command.order.clone());
            command.answer(ShippingLabelCreated { order_id, label_id, order });
        }
        Ok(())
    }
}

/// How payment and warehouse handle messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Handlers {
    /// One by one, each in its own transaction
    Single,
    /// One by one; messages of one batch share a transaction
    Shared,
    /// A batch in one call
    Batch,
}

/// The three endpoints, started.
pub(crate) async fn start(
    servers: &Servers,
    ended: mpsc::UnboundedSender<Uuid>,
    handlers: Handlers,
) -> Result<Vec<Endpoint<Postgres>>> {
    start_with(servers, ended, handlers, 1).await
}

/// The three endpoints, with so many lanes for sagas and for handlers in each.
pub(crate) async fn start_with(
    servers: &Servers,
    ended: mpsc::UnboundedSender<Uuid>,
    handlers: Handlers,
    lanes: usize,
) -> Result<Vec<Endpoint<Postgres>>> {
    let mut endpoints = Vec::new();
    for service in Service::ALL {
        endpoints.push(start_one(servers, service, ended.clone(), handlers, lanes).await?);
    }
    Ok(endpoints)
}

/// One of them.
pub(crate) async fn start_one(
    servers: &Servers,
    service: Service,
    ended: mpsc::UnboundedSender<Uuid>,
    handlers: Handlers,
    lanes: usize,
) -> Result<Endpoint<Postgres>> {
    let store = Postgres::new(&servers.url_of(service))?;
    if let Some(table) = service.own_table() {
        let mut connection = store.pool().acquire().await?;
        (&mut *connection).execute(table).await?;
    }
    let broker = RabbitMq::new(&servers.broker)?.with_prefix(&servers.prefix);
    let endpoint = Endpoint::builder(service.name(), broker, store);
    let endpoint = match (service, handlers) {
        (Service::Ordering, _) => endpoint.saga::<Fulfilment>().project(Ends(ended)),
        (Service::Payment, Handlers::Single) => endpoint.handle::<MakePayment>(Desk),
        (Service::Payment, Handlers::Shared) => {
            endpoint.handle_with::<MakePayment>(Desk, HandlerOptions::shares_transactions)
        }
        (Service::Payment, Handlers::Batch) => endpoint.handle_batch::<MakePayment>(Desk),
        (Service::Warehouse, Handlers::Single) => endpoint.handle::<CreateShippingLabel>(Desk),
        (Service::Warehouse, Handlers::Shared) => {
            endpoint.handle_with::<CreateShippingLabel>(Desk, HandlerOptions::shares_transactions)
        }
        (Service::Warehouse, Handlers::Batch) => endpoint.handle_batch::<CreateShippingLabel>(Desk),
    };
    // the handlers wait for nothing but the database; where each message has its own transaction, lanes commit in
    // parallel
    let endpoint = match handlers {
        Handlers::Single => endpoint,
        Handlers::Shared | Handlers::Batch => endpoint.settings(|settings| {
            settings.saga_lanes = lanes;
            settings.handler_lanes = lanes;
        }),
    };
    Ok(endpoint.start().await?)
}

/// The three endpoints in one process, each on its own SQLite file; and a client's.
pub(crate) async fn start_embedded(
    folder: &Path,
    ended: mpsc::UnboundedSender<Uuid>,
) -> Result<(Vec<Endpoint<Sqlite>>, Endpoint<Sqlite>)> {
    let bus = InProcess::of(&["ordering", "payment", "warehouse"]);
    let mut endpoints = Vec::new();
    for service in Service::ALL {
        let store = Sqlite::open(folder.join(format!("{}.db", service.name()))).await?;
        if let Some(table) = service.own_table() {
            store.writer().execute(table).await?;
        }
        let endpoint = Endpoint::builder(service.name(), bus.clone(), store);
        let endpoint = match service {
            Service::Ordering => endpoint.saga::<Fulfilment>().project(Ends(ended.clone())),
            Service::Payment => endpoint.handle_batch::<MakePayment>(Desk),
            Service::Warehouse => endpoint.handle_batch::<CreateShippingLabel>(Desk),
        };
        endpoints.push(endpoint.settings(|settings| settings.handler_lanes = 1).start().await?);
    }
    let store = Sqlite::open(folder.join("client.db")).await?;
    let client = Endpoint::builder("client", bus, store).start().await?;
    Ok((endpoints, client))
}

#[async_trait]
impl HandleBatch<MakePayment, Sqlite> for Desk {
    async fn handle(
        &self,
        batch: &mut Batch<'_, MakePayment>,
        cx: &mut BatchContext<'_, Sqlite>,
    ) -> Result<(), HandlerError> {
        let mut rows = Vec::with_capacity(batch.len());
        for command in batch {
            let (order_id, payment_id, order) = (command.order_id, Uuid::now_v7(), command.order.clone());
            rows.push((order_id.simple(), payment_id.simple(), order.amount_cents));
            command.answer(PaymentCompleted { order_id, payment_id, order });
        }
        sqlx::query(
            "INSERT INTO charge (order_id, payment_id, amount_cents)
             SELECT unhex(r.value ->> 0), unhex(r.value ->> 1), r.value ->> 2 FROM json_each($1) r",
        )
        .bind(serde_json::to_string(&rows)?)
        .execute(cx.tx().await?)
        .await?;
        Ok(())
    }
}

#[async_trait]
impl HandleBatch<CreateShippingLabel, Sqlite> for Desk {
    async fn handle(
        &self,
        batch: &mut Batch<'_, CreateShippingLabel>,
        cx: &mut BatchContext<'_, Sqlite>,
    ) -> Result<(), HandlerError> {
        let mut rows = Vec::with_capacity(batch.len());
        for command in batch {
            let (order_id, label_id, order) = (command.order_id, Uuid::now_v7(), command.order.clone());
            rows.push((order_id.simple(), label_id.simple(), order.address.clone()));
            command.answer(ShippingLabelCreated { order_id, label_id, order });
        }
        sqlx::query(
            "INSERT INTO label (order_id, label_id, address)
             SELECT unhex(r.value ->> 0), unhex(r.value ->> 1), r.value ->> 2 FROM json_each($1) r",
        )
        .bind(serde_json::to_string(&rows)?)
        .execute(cx.tx().await?)
        .await?;
        Ok(())
    }
}
