//! Three endpoints at work, for tests of the whole: one runs a saga, one handles its commands, one listens.

use crate::{
    Database, File, Vhost, eventually,
    model::{Arrived, Effects, Journey, Listener, Work, Worker},
};
use saga_core::{
    Endpoint, EndpointBuilder, HeldFilter, HeldView, Inspect, InstanceFilter, InstanceKey, InstanceView, JournalView,
    OutboxFilter, Transport,
};
use tracing_subscriber::EnvFilter;
use transports::{InProcess, RabbitMq};

/// One endpoint of each kind.
pub struct House<Db: Effects + Inspect> {
    /// Runs the saga.
    pub journeys: Endpoint<Db>,
    /// Handles `Work`.
    pub worker: Endpoint<Db>,
    /// Subscribes to `Arrived`.
    pub listener: Endpoint<Db>,
    /// The worker's handler.
    pub work: Worker,
    /// The listener's handler.
    pub heard: Listener,
}

impl<Db: Effects + Inspect> House<Db> {
    /// Starts the three; `change` may alter the worker.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start<T: Transport + Clone>(
        transport: T,
        stores: [Db; 3],
        change: impl Fn(EndpointBuilder<Db>) -> EndpointBuilder<Db>,
    ) -> Self {
        // `RUST_LOG=info` shows what the endpoints of a failing test say
        let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_test_writer();
        let _ = logs.try_init();
        let [journeys, worker, listener] = stores;
        worker.create_effects().await;
        let (work, heard) = (Worker::default(), Listener::default());
        let named = |name: &str, store: Db| Endpoint::builder(name, transport.clone(), store);
        Self {
            journeys: named("journeys", journeys).saga::<Journey>().start().await.expect("journeys starts"),
            worker: change(named("worker", worker).handle::<Work>(work.clone())).start().await.expect("worker starts"),
            listener: named("listener", listener)
                .subscribe::<Arrived>(heard.clone())
                .start()
                .await
                .expect("listener starts"),
            work,
            heard,
        }
    }

    /// Publishes from outside any handler.
    ///
    /// # Panics
    /// When the session does not commit.
    pub async fn publish<E: saga_core::Event>(&self, event: E) {
        let mut session = self.journeys.session().await.expect("a session opens");
        session.publish(event);
        session.commit().await.expect("the session commits");
    }

    /// Sends the worker a command from outside any handler.
    ///
    /// # Panics
    /// When the session does not commit.
    pub async fn ask(&self, id: u64, note: &str) {
        let mut session = self.journeys.session().await.expect("a session opens");
        session.send(Work { id, note: note.into() });
        session.commit().await.expect("the session commits");
    }

    /// The state of a journey; `None` when there is no such journey, or when a test has cut the connection.
    pub async fn state(&self, id: u64) -> Option<String> {
        Some(journey(self.journeys.store(), id).await?.state)
    }

    /// Waits until a journey is in a state.
    pub async fn reaches(&self, id: u64, state: &str) {
        eventually(&format!("journey {id} to be {state}"), || async {
            (self.state(id).await.as_deref() == Some(state)).then_some(())
        })
        .await;
    }

    /// Waits until nothing that is due is in any outbox.
    pub async fn quiet(&self) {
        for endpoint in [&self.journeys, &self.worker, &self.listener] {
            eventually(&format!("the outbox of {} to be empty of what is due", endpoint.name()), || async {
                let rows = endpoint.store().outbox(&OutboxFilter::default(), 100).await.ok()?;
                rows.iter().all(|row| row.kind == "timer").then_some(())
            })
            .await;
        }
    }

    /// Stops the three.
    ///
    /// # Panics
    /// When one does not stop cleanly.
    pub async fn stop(self) {
        for endpoint in [self.journeys, self.worker, self.listener] {
            endpoint.stop().await.expect("an orderly end");
        }
    }
}

/// A journey as stored.
pub async fn journey(store: &impl Inspect, id: u64) -> Option<InstanceView> {
    let id = id.to_string();
    let filter = InstanceFilter { saga: Some("journey".into()), id: Some(id.clone()), ..Default::default() };
    let found = store.instances(&filter, 1000).await.ok()?; // ids that begin like it are among them
    found.into_iter().find(|instance| instance.id == id)
}

/// What a journey handled.
///
/// # Panics
/// When the store cannot be read.
pub async fn journal(store: &impl Inspect, id: u64) -> Vec<JournalView> {
    let key = InstanceKey { saga: "journey".into(), id: id.to_string() };
    store.journal(&key, 1000).await.expect("the store is read")
}

/// All held messages.
///
/// # Panics
/// When the store cannot be read.
pub async fn held(store: &impl Inspect) -> Vec<HeldView> {
    store.held(&HeldFilter::default(), 10_000).await.expect("the store is read")
}

/// Waits for a held message.
pub async fn one_held(store: &impl Inspect) -> HeldView {
    eventually("a held message", || async { held(store).await.pop() }).await
}

/// Has held messages handled again. Returns how many there were.
pub async fn retry(store: &impl Inspect, held: &HeldView) -> usize {
    store.held_retry(&[held.row()], "me", "repaired").await.count("retried")
}

/// Runs a test with three SQLite files and endpoints in one process.
pub async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(InProcess, [outbox::Sqlite; 3]) -> F) {
    let file = File::create();
    let stores = [file.store("a.db").await, file.store("b.db").await, file.store("c.db").await];
    test(InProcess::new(), stores).await;
}

/// Runs a test with three PostgreSQL databases and endpoints on RabbitMQ.
pub async fn on_rabbitmq<F: Future<Output = ()>>(test: impl FnOnce(RabbitMq, [outbox::Postgres; 3]) -> F) {
    let vhost = Vhost::create().await;
    let databases = [Database::create().await, Database::create().await, Database::create().await];
    test(vhost.transport(), databases.each_ref().map(Database::store)).await;
}

/// Runs each test in both settings.
#[macro_export]
macro_rules! endpoint_suite {
    ($($test:ident)*) => {
        mod sqlite_in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                tests::house::on_sqlite(|transport, stores| super::$test(transport, stores)).await;
            })*
        }
        mod postgres_rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                tests::house::on_rabbitmq(|transport, stores| super::$test(transport, stores)).await;
            })*
        }
    };
}

/// Changes nothing about the worker.
pub fn unchanged<Db: Effects + Inspect>(builder: EndpointBuilder<Db>) -> EndpointBuilder<Db> {
    builder
}
