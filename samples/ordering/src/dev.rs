//! `ordering dev`: the three services and the operators' dashboard in one process, with buttons that break things.
//! Nothing else runs: no broker, and the databases are SQLite files in a temporary folder.

use crate::{
    create_tables,
    ledger::Service,
    messages::OrderPlaced,
    metrics::Metrics,
    saga::OrderFulfilment,
    services::{self, Placing, World},
    sqlite_of,
};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use operator::{Dashboard, Workbench};
use sagabus::{
    Endpoint, InProcess, Saga, Sqlite, async_trait,
    endpoint::{EndpointBuilder, Envelope},
    port::{Destination, Inspect, InstanceKey, LinkLimits, Outgoing, Topology, Transport},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use uuid::Uuid;

/// How long messages of a payment that was killed wait for the next one: long enough to be seen.
const LEASE: Duration = Duration::from_secs(3);

/// A dropped endpoint is gone within a moment; it is waited for this often, 50 ms each.
const DEATH_TRIES: u32 = 100;

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The dashboard's address, on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
    /// Where the services answer Prometheus, at `/metrics`
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    world: World,
    /// How long a payment may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = crate::demo::seconds)]
    payment_timeout: f64,
}

/// A temporary folder, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // the system empties its temporary folder some day
    }
}

impl Dev {
    pub(crate) async fn run(self) -> Result<bool> {
        let folder = Folder(std::env::temp_dir().join(format!("ordering-{}", Uuid::now_v7())));
        std::fs::create_dir_all(&folder.0).with_context(|| format!("cannot create {}", folder.0.display()))?;
        let metrics = Metrics::listen(self.metrics).await?;
        let shop = Shop::open(&folder, self.world, Duration::from_secs_f64(self.payment_timeout)).await?;
        if let Some(metrics) = metrics {
            eprintln!("http://{}/metrics", metrics.address()?);
            tokio::spawn(metrics.serve()); // it ends with the process
        }
        let files = Service::ALL.map(|service| format!("sqlite:{}/{}.db", folder.0.display(), service.name()));
        let databases = files.each_ref().map(|file| format!("--database {file}")).join(" ");
        println!("in another terminal: cargo run -p sagabus-operator -- {databases} status");
        let dashboard = Dashboard::new(files.to_vec(), self.listen).workbench(Box::new(Desk(shop.clone())));
        dashboard.serve().await?;
        shop.close().await;
        Ok(true)
    }
}

/// The services.
struct Shop {
    bus: InProcess,
    world: World,
    timeout: Duration,
    ordering: Endpoint<Sqlite>,
    warehouse: Mutex<Option<Endpoint<Sqlite>>>,
    payment_store: Sqlite,
    /// `None` while it is down.
    payment: Mutex<Option<Endpoint<Sqlite>>>,
    /// The order that was placed last.
    last: Mutex<Option<OrderPlaced>>,
}

impl Shop {
    async fn open(folder: &Folder, world: World, timeout: Duration) -> Result<Arc<Self>> {
        let bus = InProcess::of(&Service::ALL.map(Service::name));
        let mut stores = Vec::new();
        for service in Service::ALL {
            let store = sqlite_of(&folder.0, service).await?;
            create_tables(&store, service).await?;
            stores.push(store);
        }
        let [ordering, payment, warehouse]: [Sqlite; 3] =
            stores.try_into().map_err(|_| anyhow!("three services, three stores"))?;
        let shop = Self {
            ordering: with_lease(services::ordering(bus.clone(), ordering, None)).start().await?,
            payment: Mutex::new(Some(start_payment(&bus, &payment, world, timeout).await?)),
            warehouse: Mutex::new(Some(with_lease(services::warehouse(bus.clone(), warehouse, world)).start().await?)),
            payment_store: payment,
            bus,
            world,
            timeout,
            last: Mutex::new(None),
        };
        Ok(Arc::new(shop))
    }

    /// Stops payment and warehouse; ordering ends with the process.
    async fn close(&self) {
        for service in [&self.payment, &self.warehouse] {
            if let Some(endpoint) = service.lock().await.take() {
                let _ = endpoint.stop().await; // the process ends either way
            }
        }
    }

    async fn place(&self) -> Result<String> {
        let order_id = Uuid::now_v7();
        let order = OrderPlaced {
            order_id,
            customer: "Ada".into(),
            address: "1 Main Street".into(),
            amount_cents: 4200,
            payment_timeout_ms: u64::try_from(self.timeout.as_millis())?,
        };
        let placed = services::place(self.ordering.session().await?, order.clone()).await;
        let placed = placed.map_err(|error| anyhow!("the order could not be placed: {error}"))?;
        debug_assert_eq!(placed, Placing::New, "an id is new");
        *self.last.lock().await = Some(order);
        Ok(format!("order {order_id} is placed"))
    }

    /// Stops payment in order, or starts it again.
    async fn switch_payment(&self) -> Result<String> {
        let mut payment = self.payment.lock().await;
        match payment.take() {
            Some(endpoint) => {
                endpoint.stop().await?;
                Ok("payment is down: orders wait for it, until their time is up".into())
            }
            None => {
                *payment = Some(self.start_payment().await?);
                Ok("payment is up again: it takes what has waited".into())
            }
        }
    }

    /// Drops payment in the middle of what it does, as a kill would, and starts it again.
    async fn kill_payment(&self) -> Result<String> {
        let mut payment = self.payment.lock().await;
        let Some(endpoint) = payment.take() else { return Ok("payment is down already".into()) };
        drop(endpoint);
        *payment = Some(self.start_payment_after_death().await?);
        let text = "payment was killed and started again: what it had not committed comes once more, nobody pays twice";
        Ok(text.into())
    }

    /// Starts payment when the tasks of the one that was dropped have let go of the bus.
    async fn start_payment_after_death(&self) -> Result<Endpoint<Sqlite>> {
        let mut tries = 0;
        loop {
            match self.start_payment().await {
                Err(_) if tries < DEATH_TRIES => tries += 1,
                started => return started,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn start_payment(&self) -> Result<Endpoint<Sqlite>> {
        start_payment(&self.bus, &self.payment_store, self.world, self.timeout).await
    }

    /// Delivers the last order's event a second time, under its own id, as a broker may.
    async fn send_twice(&self) -> Result<String> {
        let Some(order) = self.last.lock().await.clone() else { return Ok("place an order before".into()) };
        let key = InstanceKey { saga: OrderFulfilment::NAME.into(), id: order.order_id.to_string() };
        let journal = self.ordering.store().journal(&key, 100).await?;
        let Some(first) = journal.into_iter().next() else { return Ok("the order is still on its way".into()) };
        let body = serde_json::to_string(&order)?;
        let envelope = Envelope::new(first.message_id.clone(), first.type_name, body);
        let link = self.bus.attach(Topology::new("stranger"), LinkLimits::default()).await?;
        let row = Outgoing::new(Uuid::now_v7(), Destination::Endpoint("ordering".into()), Arc::new(envelope));
        let mut reports = link.reports;
        link.outgoing.send(row).context("the bus is open as long as the process lives")?;
        let reported = tokio::time::timeout(Duration::from_secs(5), reports.recv()).await;
        reported.context("ordering did not answer in time")?.context("the bus is open as long as the process lives")?;
        Ok(format!("message {} came a second time: ordering knows it, and does nothing", first.message_id))
    }
}

fn with_lease(builder: EndpointBuilder<Sqlite>) -> EndpointBuilder<Sqlite> {
    builder.settings(|settings| settings.lease = LEASE)
}

async fn start_payment(bus: &InProcess, store: &Sqlite, world: World, timeout: Duration) -> Result<Endpoint<Sqlite>> {
    Ok(with_lease(services::payment(bus.clone(), store.clone(), world, timeout)).start().await?)
}

/// The buttons.
struct Desk(Arc<Shop>);

#[async_trait]
impl Workbench for Desk {
    fn buttons(&self) -> Vec<(&'static str, String)> {
        let is_up = self.0.payment.try_lock().is_ok_and(|payment| payment.is_some());
        let switch = if is_up { "Payment down" } else { "Payment up" };
        vec![
            ("order", "Place an order".into()),
            ("switch", switch.into()),
            ("kill", "Kill payment".into()),
            ("twice", "Send twice".into()),
        ]
    }

    async fn press(&self, name: &str) -> String {
        let done = match name {
            "order" => self.0.place().await,
            "switch" => self.0.switch_payment().await,
            "kill" => self.0.kill_payment().await,
            "twice" => self.0.send_twice().await,
            _ => Ok("there is no such button".into()),
        };
        done.unwrap_or_else(|error| format!("that failed: {error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    /// Waits until the last order has ended, and returns its state.
    async fn end(shop: &Shop) -> String {
        let order_id = shop.last.lock().await.as_ref().expect("an order was placed").order_id;
        let ended = async {
            loop {
                let order = shop.ordering.store().order_by_id(order_id).await.expect("the file can be read");
                if let Some(order) = order.filter(|it| matches!(it.status.as_str(), "shipped" | "cancelled")) {
                    return order.status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the order ends")
    }

    #[tokio::test]
    async fn what_the_buttons_break_heals() {
        let folder = Folder(std::env::temp_dir().join(format!("ordering-{}", Uuid::now_v7())));
        std::fs::create_dir_all(&folder.0).expect("the folder for temporary files can be written");
        let calm = World { decline: 0, no_stock: 0, silent: 0 };
        let shop = Shop::open(&folder, calm, Duration::from_secs(60)).await.expect("the services start");
        let desk = Desk(shop.clone());
        assert!(desk.press("twice").await.contains("before"), "there is no order yet");
        assert!(desk.press("order").await.contains("is placed"));
        assert_eq!(end(&shop).await, "shipped");
        let key =
            |order: &OrderPlaced| InstanceKey { saga: OrderFulfilment::NAME.into(), id: order.order_id.to_string() };
        let key = key(shop.last.lock().await.as_ref().expect("an order was placed"));
        let before = shop.ordering.store().journal_count(&key).await.expect("the file can be read");
        assert!(desk.press("twice").await.contains("ordering knows it"));
        assert_eq!(shop.ordering.store().journal_count(&key).await.expect("the file can be read"), before);

        assert_eq!(desk.buttons()[1].1, "Payment down");
        assert!(desk.press("switch").await.contains("is down"));
        assert_eq!(desk.buttons()[1].1, "Payment up");
        assert!(desk.press("kill").await.contains("down already"));
        desk.press("order").await;
        assert!(desk.press("switch").await.contains("up again"));
        assert!(desk.press("kill").await.contains("started again"));
        assert_eq!(end(&shop).await, "shipped");
        assert!(desk.press("nope").await.contains("no such button"));
        shop.close().await;
    }
}
