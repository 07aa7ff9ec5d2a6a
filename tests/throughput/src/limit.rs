//! `limit`: the same by hand, batched as well as we can: one worker per service, one transaction for up to 200 messages
//! in two pipelined round trips, publishing straight from memory after the commit, deletes of confirmed rows riding on
//! the next batch.
//!
//! `bundled`: the same, and what a batch sends to one service goes as AMQP messages of up to 100 messages each.
//!
//! It is a bound, not a bus: no relay that would recover its outbox, no retries, no timers, no journal.

use crate::{
    amqp::{self, Publish},
    rig::Servers,
    work::{
        BY_HAND, CreateShippingLabel, MakePayment, Outgoing, PaymentCompleted, Service, ShippingLabelCreated, step,
    },
};
use anyhow::{Context, Result, bail};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};
use saga_core::Message;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

const PREFETCH: u16 = 500;
const BATCH_MAX: usize = 200;
const BUNDLE_MAX: usize = 100;
/// A batch of at least this size means that more is coming.
const BUSY: usize = 8;
/// When idle, confirmed rows are deleted after this time.
const IDLE: Duration = Duration::from_millis(100);

/// Starts the three services.
pub(crate) async fn start(
    servers: &Servers,
    ended: mpsc::UnboundedSender<Uuid>,
    linger: Duration,
    bare: bool,
    bundled: bool,
) -> Result<JoinSet<Result<()>>> {
    let mut tasks = JoinSet::new();
    for service in Service::ALL {
        let (client, driver) = tokio_postgres::connect(&servers.url_of(service), NoTls).await?;
        tasks.spawn(async move { driver.await.context("the connection to the database ended") });
        client.batch_execute(BY_HAND).await?;
        client.batch_execute("SET plan_cache_mode = force_custom_plan").await?;
        if let Some(table) = service.own_table() {
            client.batch_execute(table).await?;
        }
        // like separate services: each has its own connections, and two, because the broker blocks publishers by
        // connection
        let consuming = amqp::connect(&servers.broker).await?;
        let publishing = amqp::connect(&servers.broker).await?;
        let channel = amqp::consuming(&consuming, PREFETCH).await?;
        let queue = servers.queue_of(service);
        amqp::declare(&channel, &queue).await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue.as_str().into(), "limit".into(), options, none).await?;
        let (confirms, confirmed) = mpsc::unbounded_channel();
        let publish = amqp::publisher(&publishing, confirms, bare).await?;
        let statements = Statements::prepare(&client, service).await?;
        let worker = Worker {
            service,
            queues: Service::ALL.map(|to| servers.queue_of(to)),
            client,
            statements,
            channel,
            consumer,
            publish,
            confirmed,
            ended: ended.clone(),
            linger,
            bundled,
            _connections: [consuming, publishing],
        };
        tasks.spawn(worker.run());
    }
    Ok(tasks)
}

struct Statements {
    claim: Statement,
    load: Statement,
    sent: Statement,
    own: Statement,
    outbox: Statement,
}

impl Statements {
    async fn prepare(client: &Client, service: Service) -> Result<Self> {
        let own = match service {
            Service::Ordering => {
                "INSERT INTO saga (id, saga, state, data)
                 SELECT i, 'order', s, d::jsonb FROM unnest($1::uuid[], $2::text[], $3::text[]) AS r(i, s, d)
                 ON CONFLICT (id, saga) DO UPDATE SET state = excluded.state, data = excluded.data"
            }
            Service::Payment => {
                "INSERT INTO charge (order_id, payment_id, amount_cents)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[])"
            }
            Service::Warehouse => {
                "INSERT INTO label (order_id, label_id, address)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[])"
            }
        };
        let claim = "INSERT INTO inbox (message_id) SELECT * FROM unnest($1::uuid[])
            ON CONFLICT DO NOTHING RETURNING message_id";
        let load = "SELECT id, state FROM saga WHERE id = ANY($1) AND saga = 'order' FOR UPDATE";
        let outbox = "INSERT INTO outbox (id, type, destination, order_id, conversation, causation, body)
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::uuid[], $7::bytea[])";
        Ok(Self {
            claim: client.prepare(claim).await?,
            load: client.prepare(load).await?,
            sent: client.prepare("DELETE FROM outbox WHERE id = ANY($1)").await?,
            own: client.prepare(own).await?,
            outbox: client.prepare(outbox).await?,
        })
    }
}

struct Worker {
    service: Service,
    queues: [String; 3],
    client: Client,
    statements: Statements,
    channel: Channel,
    consumer: Consumer,
    publish: mpsc::UnboundedSender<Publish>,
    confirmed: mpsc::UnboundedReceiver<Uuid>,
    ended: mpsc::UnboundedSender<Uuid>,
    linger: Duration,
    bundled: bool,
    _connections: [Connection; 2],
}

impl Worker {
    async fn run(mut self) -> Result<()> {
        let mut busy = false;
        let mut sent = Vec::new();
        loop {
            let first = match tokio::time::timeout(IDLE, self.consumer.next()).await {
                Ok(first) => first.context("the consumer ended")??,
                Err(_) => {
                    self.take_confirmed(&mut sent);
                    if !sent.is_empty() {
                        self.client.execute(&self.statements.sent, &[&sent]).await?;
                        sent.clear();
                    }
                    continue;
                }
            };
            let mut batch = vec![first];
            let mut messages = count(&batch[0]);
            let until = Instant::now() + self.linger;
            while messages < BATCH_MAX {
                let delivery = match self.consumer.next().now_or_never() {
                    Some(delivery) => delivery,
                    None if busy && !self.linger.is_zero() => {
                        match tokio::time::timeout_at(until, self.consumer.next()).await {
                            Ok(delivery) => delivery,
                            Err(_) => break,
                        }
                    }
                    None => break,
                };
                batch.push(delivery.context("the consumer ended")??);
                messages += batch.last().map_or(0, count);
            }
            busy = messages >= BUSY;
            self.take_confirmed(&mut sent);
            self.handle(&batch, &sent).await?;
            sent.clear();
            let last = batch.iter().map(|delivery| delivery.delivery_tag).max().unwrap_or_default();
            self.channel.basic_ack(last, BasicAckOptions { multiple: true }).await?;
        }
    }

    fn take_confirmed(&mut self, sent: &mut Vec<Uuid>) {
        while let Ok(id) = self.confirmed.try_recv() {
            sent.push(id);
        }
    }

    async fn handle(&self, batch: &[Delivery], sent: &Vec<Uuid>) -> Result<()> {
        let mut came = Vec::new();
        for delivery in batch {
            came.extend(amqp::messages(delivery)?);
        }
        let ids: Vec<Uuid> = came.iter().map(|(came, ..)| came.id).collect();
        let mut outgoing = Vec::new();
        let mut ends = Vec::new();
        match self.service {
            Service::Ordering => {
                let mut steps = Vec::with_capacity(came.len());
                for (came, kind, body) in &came {
                    steps.push((came.id, step(kind, body, *came)?));
                }
                let keys: Vec<Uuid> = steps.iter().map(|(_, step)| step.order_id).collect();
                let (fresh, mut states) = self.open(&ids, Some(&keys), sent).await?;
                let mut data: HashMap<Uuid, String> = HashMap::new();
                for (id, step) in steps {
                    if !fresh.contains(&id) {
                        continue;
                    }
                    let state = states.get(&step.order_id).map(String::as_str);
                    if state != step.from {
                        bail!("a message came in state {state:?}, {:?} was expected", step.from);
                    }
                    states.insert(step.order_id, step.to.to_owned());
                    data.insert(step.order_id, step.data);
                    match step.send {
                        Some(send) => outgoing.push(send),
                        None => ends.push(step.order_id),
                    }
                }
                let keys: Vec<Uuid> = data.keys().copied().collect();
                let of = |key: &Uuid| states.get(key).cloned().unwrap_or_default();
                let states: Vec<String> = keys.iter().map(of).collect();
                let data: Vec<String> = keys.iter().map(|key| data.remove(key).unwrap_or_default()).collect();
                self.close(&[&keys, &states, &data], &outgoing).await?;
            }
            Service::Payment => {
                let (fresh, _) = self.open(&ids, None, sent).await?;
                let (mut orders, mut payments, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
                for (came, _, body) in came.iter().filter(|(came, ..)| fresh.contains(&came.id)) {
                    let MakePayment { order_id, order } = serde_json::from_slice(body)?;
                    let payment_id = Uuid::now_v7();
                    orders.push(order_id);
                    payments.push(payment_id);
                    amounts.push(order.amount_cents);
                    let done = PaymentCompleted { order_id, payment_id, order };
                    outgoing.push(Outgoing::new(PaymentCompleted::TYPE, Service::Ordering, order_id, *came, &done));
                }
                self.close(&[&orders, &payments, &amounts], &outgoing).await?;
            }
            Service::Warehouse => {
                let (fresh, _) = self.open(&ids, None, sent).await?;
                let (mut orders, mut labels, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
                for (came, _, body) in came.iter().filter(|(came, ..)| fresh.contains(&came.id)) {
                    let CreateShippingLabel { order_id, order } = serde_json::from_slice(body)?;
                    let label_id = Uuid::now_v7();
                    orders.push(order_id);
                    labels.push(label_id);
                    addresses.push(order.address.clone());
                    let done = ShippingLabelCreated { order_id, label_id, order };
                    outgoing.push(Outgoing::new(ShippingLabelCreated::TYPE, Service::Ordering, order_id, *came, &done));
                }
                self.close(&[&orders, &labels, &addresses], &outgoing).await?;
            }
        }
        let together = if self.bundled { BUNDLE_MAX } else { 1 };
        // a service sends to one service or, as ordering does, to two
        for to in Service::ALL {
            let (now, later): (Vec<Outgoing>, Vec<Outgoing>) =
                outgoing.into_iter().partition(|message| message.to == to);
            outgoing = later;
            let mut now = now.into_iter();
            loop {
                let messages: Vec<Outgoing> = now.by_ref().take(together).collect();
                if messages.is_empty() {
                    break;
                }
                self.publish.send(Publish::to_queue(&self.queues[to as usize], self.service, messages))?;
            }
        }
        for end in ends {
            let _ = self.ended.send(end); // the client has what it wanted
        }
        Ok(())
    }

    /// The first round trip: which messages are new, and the states of their instances.
    async fn open(
        &self,
        ids: &Vec<Uuid>,
        keys: Option<&Vec<Uuid>>,
        sent: &Vec<Uuid>,
    ) -> Result<(HashSet<Uuid>, HashMap<Uuid, String>)> {
        let begin = self.client.batch_execute("BEGIN");
        let claim_arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [ids];
        let claim = self.client.query(&self.statements.claim, &claim_arguments);
        let load = async {
            match keys {
                Some(keys) => self.client.query(&self.statements.load, &[keys]).await,
                None => Ok(Vec::new()),
            }
        };
        let delete = async {
            match sent.is_empty() {
                true => Ok(0),
                false => self.client.execute(&self.statements.sent, &[sent]).await,
            }
        };
        let (_, claimed, loaded, _) = tokio::try_join!(begin, claim, load, delete)?;
        let states = loaded.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok((claimed.iter().map(|row| row.get(0)).collect(), states))
    }

    /// The second round trip: what the messages led to.
    async fn close(&self, own: &[&(dyn tokio_postgres::types::ToSql + Sync)], outgoing: &[Outgoing]) -> Result<()> {
        let ids: Vec<Uuid> = outgoing.iter().map(|row| row.id).collect();
        let kinds: Vec<&str> = outgoing.iter().map(|row| row.kind).collect();
        let destinations: Vec<&str> = outgoing.iter().map(|row| row.to.name()).collect();
        let bodies: Vec<&[u8]> = outgoing.iter().map(|row| row.body.as_slice()).collect();
        let own = self.client.execute(&self.statements.own, own);
        let orders: Vec<Uuid> = outgoing.iter().map(|row| row.order_id).collect();
        let conversations: Vec<Uuid> = outgoing.iter().map(|row| row.came.conversation).collect();
        let causes: Vec<Uuid> = outgoing.iter().map(|row| row.came.id).collect();
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&ids, &kinds, &destinations, &orders, &conversations, &causes, &bodies];
        let outbox = self.client.execute(&self.statements.outbox, &arguments);
        let commit = self.client.batch_execute("COMMIT");
        tokio::try_join!(own, outbox, commit)?;
        Ok(())
    }
}

/// Roughly how many messages a delivery has: a bundle is full when the load is high.
fn count(delivery: &Delivery) -> usize {
    (delivery.data.len() / 500).max(1)
}
