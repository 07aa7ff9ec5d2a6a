//! Messages, handlers and a saga that the tests use: small, but with one of everything.

use async_trait::async_trait;
use saga_core::{
    After, Batch, BatchContext, Command, Context, Event, Handle, HandleBatch, HandlerError, Message, Outcome,
    Publishes, Saga, Sends, Store, after, publish, saga, seconds, send, states,
};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Starts a journey.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
#[event(from = "client")]
pub struct Began {
    /// The key.
    pub id: u64,
}

/// Asks the worker.
#[derive(Debug, Clone, Command, Serialize, Deserialize)]
#[command(to = "worker", outcome = WorkOutcome)]
pub struct Work {
    /// The key.
    pub id: u64,
    /// What it is about.
    pub note: String,
}

/// What the worker says.
#[derive(Debug, Outcome)]
pub enum WorkOutcome {
    /// It worked.
    Done(Worked),
}

/// It worked.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
#[event(from = "worker")]
pub struct Worked {
    /// The key.
    pub id: u64,
}

/// The last word.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
#[event(from = "client")]
pub struct Closed {
    /// The key.
    pub id: u64,
    /// Makes the transition panic.
    #[serde(default)]
    pub poison: bool,
}

/// Published when a journey ends.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
#[event(from = "journeys")]
pub struct Arrived {
    /// The key.
    pub id: u64,
}

/// The worker took too long.
#[derive(Debug, Message, Serialize, Deserialize)]
#[message(name = "journeys.TooLate")]
pub struct TooLate {}

/// A process: asks the worker, waits for its answer and then for the client's.
#[states]
pub enum Journey {
    /// Asked the worker.
    Working { id: u64 },
    /// Waits for the client.
    Waiting { id: u64 },
    /// Over.
    #[done]
    Over {
        /// Whether the worker was too slow.
        late: bool,
    },
}

#[saga(name = "journey", id = id: u64)]
impl Journey {
    fn began(began: Began) -> (Working, Sends<Work>, After<TooLate>) {
        let id = began.id;
        (Working { id }, send(Work { id, note: "please".into() }), after(seconds(3600), TooLate {}))
    }

    fn worked(state: Working, _: Worked) -> Waiting {
        Waiting { id: state.id }
    }

    fn too_late(_: Working, _: TooLate) -> Over {
        Over { late: true }
    }

    fn closed(state: Waiting, closed: Closed) -> (Over, Publishes<Arrived>) {
        assert!(!closed.poison, "poisoned by order");
        (Over { late: false }, publish(Arrived { id: state.id }))
    }
}

/// Handles [`Work`]: counts runs, and does what the note says.
#[derive(Debug, Clone, Default)]
pub struct Worker {
    /// Runs, failed ones included.
    pub runs: Arc<AtomicUsize>,
    /// Ids handled, in order.
    pub handled: Arc<Mutex<Vec<u64>>>,
    /// Writes nothing, whatever the note says.
    pub pure: bool,
}

impl Worker {
    /// Runs so far.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Ids handled so far.
    ///
    /// # Panics
    /// Never, unless another holder of the lock panicked.
    pub fn handled(&self) -> Vec<u64> {
        self.handled.lock().expect("nobody panics with this lock").clone()
    }
}

/// A database with a table for effects: one row for each message that was handled.
#[async_trait]
pub trait Effects: Store {
    /// Creates the table.
    async fn create_effects(&self);
    /// Appends a row.
    async fn effect(tx: &mut Self::Tx, id: u64) -> Result<(), sqlx::Error>;
    /// All rows.
    async fn effects(&self) -> Vec<i64>;
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS effect (id bigint NOT NULL CHECK (id <> 666))";
const INSERT: &str = "INSERT INTO effect (id) VALUES ($1)";
const SELECT: &str = "SELECT id FROM effect ORDER BY id";

#[async_trait]
impl Effects for outbox::Postgres {
    async fn create_effects(&self) {
        sqlx::query(CREATE).execute(self.pool()).await.expect("the table is created");
    }
    async fn effect(tx: &mut sqlx::PgConnection, id: u64) -> Result<(), sqlx::Error> {
        sqlx::query(INSERT).bind(id as i64).execute(tx).await.map(drop)
    }
    async fn effects(&self) -> Vec<i64> {
        // a test may have cut the connection
        crate::eventually("the table to be read", || async {
            sqlx::query_scalar(SELECT).fetch_all(self.pool()).await.ok()
        })
        .await
    }
}

#[async_trait]
impl Effects for outbox::Sqlite {
    async fn create_effects(&self) {
        sqlx::query(CREATE).execute(self.writer()).await.expect("the table is created");
    }
    async fn effect(tx: &mut sqlx::SqliteConnection, id: u64) -> Result<(), sqlx::Error> {
        sqlx::query(INSERT).bind(id as i64).execute(tx).await.map(drop)
    }
    async fn effects(&self) -> Vec<i64> {
        sqlx::query_scalar(SELECT).fetch_all(self.pool()).await.expect("the table is read")
    }
}

#[async_trait]
impl<Db: Effects> Handle<Work, Db> for Worker {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Db>) -> Result<WorkOutcome, HandlerError> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        if work.note != "pure" && !self.pure {
            Db::effect(cx.tx().await?, work.id).await?;
        }
        cx.publish(Arrived { id: work.id }).header("tenant", "é");
        match work.note.as_str() {
            "fail" => return Err(HandlerError::transient("failed by order")),
            "fail twice" if run <= 2 => return Err(HandlerError::transient("failed by order")),
            "permanent" => return Err(HandlerError::permanent("no use")),
            "panic" => panic!("panicked by order"),
            _ => {}
        }
        self.handled.lock().expect("nobody panics with this lock").push(work.id);
        Ok(Worked { id: work.id }.into())
    }
}

#[async_trait]
impl<Db: Effects> HandleBatch<Work, Db> for Worker {
    async fn handle(&self, batch: &mut Batch<'_, Work>, cx: &mut BatchContext<'_, Db>) -> Result<(), HandlerError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        for work in batch {
            let id = work.id;
            Db::effect(cx.tx().await?, id).await?;
            work.publish(Arrived { id });
            match work.note.as_str() {
                "fail" => return Err(HandlerError::transient("failed by order")),
                "forget the outcome" => {}
                _ => work.answer(Worked { id }),
            }
        }
        Ok(())
    }
}

/// Records every [`Arrived`].
#[derive(Debug, Clone, Default)]
pub struct Listener {
    /// Ids, in order.
    pub heard: Arc<Mutex<Vec<u64>>>,
}

impl Listener {
    /// Ids heard so far.
    ///
    /// # Panics
    /// Never, unless another holder of the lock panicked.
    pub fn heard(&self) -> Vec<u64> {
        self.heard.lock().expect("nobody panics with this lock").clone()
    }
}

#[async_trait]
impl<Db: Store> Handle<Arrived, Db> for Listener {
    async fn handle(&self, arrived: Arrived, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.heard.lock().expect("nobody panics with this lock").push(arrived.id);
        Ok(())
    }
}

impl Journey {
    /// The chart under another name.
    pub fn chart_named(name: &str) -> saga_core::Chart {
        let mut chart = Self::chart();
        chart.saga = name.into();
        chart
    }
}
