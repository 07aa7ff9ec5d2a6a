//! The services, and what goes wrong in them: on RabbitMQ, with PostgreSQL and SQLite.

use async_trait::async_trait;
use lapin::BasicProperties;
use outbox::{Postgres, Sqlite};
use saga_core::{
    Command, Context, Endpoint, Event, Handle, HandlerError, HeldFilter, Inspect, OperationFilter, OutboxFilter,
    Retries, Store,
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{
    Database, File, Vhost, eventually,
    house::journey,
    model::{Arrived, Began, Closed, Effects, Journey, Work, WorkOutcome, Worked},
    plain::Plain,
};

/// Why the bad release of the worker fails.
pub(crate) const BAD_RELEASE: &str = "release 2.0.0 reads column `fee`, which is `charge`";
/// Why mails are not sent.
pub(crate) const MAIL_AWAY: &str = "the mail server does not answer";
/// The message that cannot be decoded, and the journey that it was to begin.
pub(crate) const STRANGE: &str = "from-the-mainframe-1";
pub(crate) const STRANGE_JOURNEY: u64 = 700;
/// Journeys that the bad release has stopped.
pub(crate) const STOPPED: u64 = 180;

/// Asks the warehouse, which does not run.
#[derive(Debug, Clone, Command, Serialize, Deserialize)]
#[command(to = "warehouse")]
struct Ship {
    id: u64,
}

/// Writes a row for each message, unless something is wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    wrong: Arc<AtomicBool>,
}

impl Service {
    pub(crate) fn is_wrong(&self, is: bool) {
        self.wrong.store(is, Ordering::SeqCst);
    }

    async fn write<Db: Effects>(
        &self,
        cx: &mut Context<'_, Db>,
        id: u64,
        why: fn() -> HandlerError,
    ) -> Result<(), HandlerError> {
        if self.wrong.load(Ordering::SeqCst) {
            return Err(why());
        }
        Ok(Db::effect(cx.tx().await?, id).await?)
    }
}

#[async_trait]
impl Handle<Work, Postgres> for Service {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Postgres>) -> Result<WorkOutcome, HandlerError> {
        self.write(cx, work.id, || HandlerError::permanent(BAD_RELEASE)).await?;
        Ok(Worked { id: work.id }.into())
    }
}

#[async_trait]
impl Handle<Arrived, Sqlite> for Service {
    async fn handle(&self, arrived: Arrived, cx: &mut Context<'_, Sqlite>) -> Result<(), HandlerError> {
        self.write(cx, arrived.id, || HandlerError::transient(MAIL_AWAY)).await
    }
}

#[async_trait]
impl Handle<Ship, Postgres> for Service {
    async fn handle(&self, ship: Ship, cx: &mut Context<'_, Postgres>) -> Result<(), HandlerError> {
        self.write(cx, ship.id, || HandlerError::permanent("not tonight")).await
    }
}

/// The services of a night.
pub(crate) struct Night {
    vhost: Vhost,
    /// Of journeys, worker and warehouse.
    databases: [Database; 3],
    file: File,
    journeys: Endpoint<Postgres>,
    worker: Endpoint<Postgres>,
    mail: Endpoint<Sqlite>,
    warehouse: Option<Endpoint<Postgres>>,
    /// Wrong: the worker's release is bad.
    pub(crate) release: Service,
    /// Wrong: the mail server is away.
    pub(crate) mailer: Service,
}

impl Night {
    /// Everything is wrong when this returns.
    pub(crate) async fn begins() -> Self {
        let (vhost, file) = (Vhost::create().await, File::create());
        let databases = [Database::create().await, Database::create().await, Database::create().await];
        let (release, mailer) = (Service::default(), Service::default());
        let [journeys, worker, warehouse] = databases.each_ref().map(Database::store);
        let mail = file.store("mail.db").await;
        worker.create_effects().await;
        mail.create_effects().await;
        warehouse.create_effects().await;
        warehouse.migrate().await.expect("the tables are created");
        let journeys = Endpoint::builder("journeys", vhost.transport(), journeys).saga::<Journey>();
        let worker = Endpoint::builder("worker", vhost.transport(), worker).handle::<Work>(release.clone());
        // ten minutes later: nothing is mended by waiting
        let later = Retries::none().delayed([Duration::from_secs(600)]);
        let mail = Endpoint::builder("mail", vhost.transport(), mail).subscribe::<Arrived>(mailer.clone());
        let mut night = Self {
            journeys: journeys.start().await.expect("journeys starts"),
            worker: worker.start().await.expect("worker starts"),
            mail: mail.retries(later).start().await.expect("mail starts"),
            warehouse: None,
            vhost,
            databases,
            file,
            release,
            mailer,
        };
        night.falls().await;
        night
    }

    async fn falls(&mut self) {
        for id in [1, 2] {
            self.publish([Began { id }]).await;
            self.reaches(id, "Waiting").await;
        }
        self.release.is_wrong(true);
        self.mailer.is_wrong(true);
        self.publish((3..3 + STOPPED).map(|id| Began { id })).await;
        self.publish([Closed { id: 1, poison: true }]).await;
        eventually("journey 1 to be paused", || async { journey(self.journeys.store(), 1).await?.paused_by.map(drop) })
            .await;
        self.publish([Closed { id: 1, poison: false }]).await;
        self.publish((1001..=1012).map(|id| Arrived { id })).await;
        let mut session = self.journeys.session().await.expect("a session opens");
        for id in 1..=3 {
            session.send(Ship { id });
        }
        session.commit().await.expect("the session commits");
        let plain = Plain::connect(&self.vhost.url()).await;
        let strange = BasicProperties::default().with_message_id(STRANGE.into()).with_type("client.Began".into());
        plain.publish("journeys", strange, br#"{"id":"seven hundred"}"#).await;
        plain.close().await;
        let held = async |store: &Postgres| store.held_count(&HeldFilter::default()).await.ok();
        eventually("all that fails to be held", || async {
            let (journeys, worker) = (held(self.journeys.store()).await?, held(self.worker.store()).await?);
            ((journeys, worker) == (3, STOPPED)).then_some(())
        })
        .await;
        eventually("the breaker to be open, and reported", || async {
            let processes = self.mail.store().processes().await.ok()?;
            let put_off = self.mail.store().outbox_count(&OutboxFilter::default()).await.ok()?;
            (put_off == 12 && processes[0].process.report["breakers"][0].is_string()).then_some(())
        })
        .await;
        // what the calendar would do
        let journeys = &self.databases[0];
        sql(journeys, "UPDATE sagabus.saga SET updated_at = updated_at - interval '26 hours' WHERE id = '2'").await;
        let timer = "UPDATE sagabus.outbox SET due_at = now() + interval '30 minutes' WHERE kind = 'timer'";
        assert_eq!(sql(journeys, &format!("{timer} AND saga_id = '3'")).await, 1, "the timer of journey 3");
        // as if the warehouse had been away for long: nobody asks for it within this test
        let unroutable = "UPDATE sagabus.outbox SET due_at = now() + interval '1 hour' WHERE waits_for = 'warehouse'";
        eventually("three commands to wait for a queue", || async {
            (sql(journeys, &format!("{unroutable} AND lease_until IS NULL")).await == 3).then_some(())
        })
        .await;
        self.warehouse_is_away(true).await;
    }

    /// Publishes from outside any handler.
    async fn publish<E: Event>(&self, events: impl IntoIterator<Item = E>) {
        let mut session = self.journeys.session().await.expect("a session opens");
        for event in events {
            session.publish(event);
        }
        session.commit().await.expect("the session commits");
    }

    /// Whether the warehouse's database lets nobody in.
    async fn warehouse_is_away(&self, is: bool) {
        let name = &self.databases[2].name;
        let mut server = PgConnection::connect(&format!("{}/postgres", Database::server())).await.expect("a server");
        let alter = format!("ALTER DATABASE \"{name}\" WITH ALLOW_CONNECTIONS {}", !is);
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        for sql in [alter, end] {
            server.execute(sql.as_str()).await.expect("the server does that");
        }
    }

    /// The database is back, and then the warehouse runs.
    pub(crate) async fn warehouse_is_back(&mut self) {
        self.warehouse_is_away(false).await;
        let store = self.databases[2].store();
        let warehouse = Endpoint::builder("warehouse", self.vhost.transport(), store);
        let warehouse = warehouse.handle::<Ship>(Service::default()).start().await;
        self.warehouse = Some(warehouse.expect("warehouse starts"));
    }

    /// The addresses of all databases, as operators have them.
    pub(crate) fn urls(&self) -> Vec<String> {
        let [journeys, worker, warehouse] = self.databases.each_ref().map(Database::url);
        vec![journeys, worker, format!("sqlite:{}", self.file.folder.join("mail.db").display()), warehouse]
    }

    /// Waits until a journey is in a state.
    pub(crate) async fn reaches(&self, id: u64, state: &str) {
        eventually(&format!("journey {id} to be {state}"), || async {
            (journey(self.journeys.store(), id).await?.state == state).then_some(())
        })
        .await;
    }

    /// The rows that each service has written: worker, mail, warehouse.
    pub(crate) async fn effects(&self) -> [Vec<i64>; 3] {
        let warehouse = self.warehouse.as_ref().expect("the warehouse runs");
        [self.worker.store().effects().await, self.mail.store().effects().await, warehouse.store().effects().await]
    }

    /// What was recorded of operators: who, what, why, and with how many rows that was done.
    pub(crate) async fn audit(&self) -> Vec<(String, String, String, usize)> {
        let stores: [&dyn Inspect; 3] = [self.journeys.store(), self.worker.store(), self.mail.store()];
        let mut all = Vec::new();
        for store in stores {
            let operations = store.operations(&OperationFilter::default(), 100).await.expect("the store is read");
            all.extend(operations.into_iter().map(|it| (it.who, it.action, it.reason, it.items.len())));
        }
        all.sort();
        all
    }

    /// Each message has had its effect, once, and nothing waits but what is to wait.
    pub(crate) async fn is_clean(&self) {
        let worked: Vec<i64> = (1..3 + STOPPED).chain([STRANGE_JOURNEY]).map(|id| id as i64).collect();
        let mailed: Vec<i64> = [1, 2].into_iter().chain(1001..=1012).collect();
        let expected = [worked, mailed, vec![1, 2, 3]];
        eventually("each effect once", || async { (self.effects().await == expected).then_some(()) }).await;
        for id in (3..3 + STOPPED).chain([STRANGE_JOURNEY]) {
            self.reaches(id, "Waiting").await;
        }
        for id in [1, 2] {
            self.reaches(id, "Over").await;
        }
        let stores: [&dyn Inspect; 3] = [self.journeys.store(), self.worker.store(), self.mail.store()];
        for store in stores {
            eventually("nothing to be held or on its way", || async {
                let held = store.held_count(&HeldFilter::default()).await.ok()?;
                let rows = store.outbox(&OutboxFilter::default(), 1000).await.ok()?;
                (held == 0 && rows.iter().all(|row| row.kind == "timer")).then_some(())
            })
            .await;
        }
        assert_eq!(self.effects().await, expected, "and nothing twice");
    }

    pub(crate) async fn ends(self) {
        self.journeys.stop().await.expect("an orderly end");
        self.worker.stop().await.expect("an orderly end");
        self.mail.stop().await.expect("an orderly end");
        if let Some(warehouse) = self.warehouse {
            warehouse.stop().await.expect("an orderly end");
        }
    }
}

/// Runs a statement. Returns how many rows it changed.
async fn sql(database: &Database, sql: &str) -> u64 {
    let mut connection = PgConnection::connect(&database.url()).await.expect("the database is there");
    connection.execute(sql).await.expect("the statement is right").rows_affected()
}
