//! Somebody who interferes for a while.

use crate::{
    rows::SERVICES,
    system::{System, connect},
};
use anyhow::{Context, Result};
use futures_util::StreamExt;
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tests::{
    dice::Dice,
    plain::{Plain, Traced, Tracer},
};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

/// How many deliveries are shuffled at a time, and how long somebody waits for them.
const HAND: (usize, Duration) = (12, Duration::from_millis(60));

/// Who interferes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meddler {
    /// Puts every message once more on every queue that it reached.
    Doubles,
    /// Takes messages from all queues and puts them back in another order.
    Shuffles,
    /// Holds locks on the rows of all orders that are under way, and on their instances.
    Locks,
    /// Takes all connections that the database server has.
    Hoards,
}

/// The task that interferes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Meddling(AbortHandle);

impl Meddling {
    /// Whether it still interferes.
    pub(crate) fn lasts(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Meddler {
    /// Begins; returns once it has an effect.
    pub(crate) async fn begin(self, system: &System, seed: u64) -> Result<Meddling> {
        let task = match self {
            Self::Doubles => {
                let (tracer, plain) = (Tracer::start(&system.vhost).await, Plain::connect(&system.vhost.url()).await);
                tokio::spawn(double(tracer, plain))
            }
            Self::Shuffles => {
                let mut tasks = Vec::new();
                for service in SERVICES {
                    let (plain, queue) = (Plain::connect(&system.vhost.url()).await, system.named(service));
                    tasks.push(Box::pin(shuffle(plain, queue, Dice::for_the(seed, service))));
                }
                tokio::spawn(async move { drop(futures_util::future::select_all(tasks).await) })
            }
            Self::Locks => keep(lock(&system.servers.server.url("postgres"), system).await?),
            Self::Hoards => keep(hoard(system).await?),
        };
        Ok(Meddling(task.abort_handle()))
    }
}

fn keep(connections: Vec<PgConnection>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(connections);
    })
}

async fn double(mut tracer: Tracer, plain: Plain) {
    const MARK: &str = "doubled";
    while let Some(Traced { queues, properties, body }) = tracer.next().await {
        let mut headers = properties.headers().clone().unwrap_or_default();
        if headers.inner().contains_key(MARK) {
            continue; // published here
        }
        headers.insert(MARK.into(), AMQPValue::Boolean(true));
        let properties = properties.with_headers(headers);
        for queue in queues {
            let options = BasicPublishOptions::default();
            let _ = plain.channel.basic_publish("".into(), queue, options, &body, properties.clone()).await;
        }
    }
}

/// A consumer beside the service, which puts back what it gets: published before the original is acknowledged, so that
/// nothing is lost when it is stopped.
async fn shuffle(plain: Plain, queue: String, mut dice: Dice) -> Option<()> {
    let (hand, wait) = HAND;
    plain.channel.basic_qos(hand as u16, BasicQosOptions::default()).await.ok()?;
    let consume = BasicConsumeOptions::default();
    let mut consumer =
        plain.channel.basic_consume(queue.as_str().into(), "".into(), consume, FieldTable::default()).await.ok()?;
    loop {
        let mut taken: Vec<Delivery> = Vec::new();
        while taken.len() < hand
            && let Ok(Some(Ok(delivery))) = timeout(wait, consumer.next()).await
        {
            taken.push(delivery);
        }
        for n in (1..taken.len()).rev() {
            taken.swap(n, dice.below(n + 1));
        }
        for delivery in taken {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = delivery.properties.clone();
            let back =
                plain.channel.basic_publish("".into(), queue.as_str().into(), options, &delivery.data, properties);
            back.await.ok()?.await.ok()?;
            delivery.acker.ack(BasicAckOptions::default()).await.ok()?;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn lock(server: &str, system: &System) -> Result<Vec<PgConnection>> {
    let mut connection = connect(&format!("{server}/{}", system.named("ordering"))).await?;
    connection
        .execute(
            "BEGIN; SELECT FROM orders WHERE status NOT IN ('shipped', 'cancelled') FOR UPDATE;
             SELECT FROM sagabus.saga WHERE completed_at IS NULL FOR UPDATE",
        )
        .await?;
    Ok(vec![connection])
}

/// Takes connections as a stranger until there are none, and ends those of the services.
async fn hoard(system: &System) -> Result<Vec<PgConnection>> {
    let url = format!("{}/postgres", system.servers.server.url("stranger"));
    let mut connections = Vec::new();
    for _ in 0..2 {
        while let Ok(connection) = PgConnection::connect(&url).await {
            connections.push(connection);
        }
        let kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        system.servers.sql("postgres", &[kick]).await.context("the connections of the services end")?;
    }
    while let Ok(connection) = PgConnection::connect(&url).await {
        connections.push(connection);
    }
    Ok(connections)
}
