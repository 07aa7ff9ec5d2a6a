//! Connections for units of work.
//!
//! Not sqlx's pool: that pings a connection each time it is given back, which costs every unit one more round trip.

use super::answer;
use crate::error::store_error;
use saga_core::{StoreError, StoreErrorKind};
use sqlx::{
    ConnectOptions, Connection, Error, Executor, PgConnection,
    postgres::{PgConnectOptions, PgTransactionManager},
};
use sqlx_core::transaction::TransactionManager;
use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// A connection that does not come within this time counts as "the database is away".
pub(super) const ACQUIRE: Duration = Duration::from_secs(5);
/// A connection that was idle for this long is pinged before use.
const ASK: Duration = Duration::from_secs(5);
/// A connection that was idle for this long is closed, except the last: a server has few sessions, and other programs
/// need them.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// The maximum age of a connection: closing it frees what the session has accumulated, and drops outdated plans.
pub(super) const AGE: Duration = Duration::from_secs(30 * 60);
/// How often idle connections are checked.
const LOOK: Duration = Duration::from_secs(15);
/// How long the rollback of a dropped unit may take: its statement may still run. Then the connection is closed.
const ROLLBACK: Duration = Duration::from_secs(2);

/// Statements outside transactions run at the role's default isolation. Where that is a stricter one, leases and limits
/// of several processes fail each other, so there they have a transaction each. The session's default is left alone:
/// behind a pooler that nobody announced, other clients would have it.
const IS_STRICT: &str = "SELECT current_setting('default_transaction_isolation') <> 'read committed'";

#[derive(Debug)]
pub(super) struct Connections {
    options: PgConnectOptions,
    /// A pooler stands between.
    pooled: bool,
    /// Last in, first out: statement caches stay warm, and surplus connections become idle and are closed.
    idle: Mutex<Vec<Made>>,
    room: Arc<Semaphore>,
    /// Connections of an earlier generation are closed instead of given back.
    generation: AtomicU64,
    /// A task closes idle connections.
    watched: AtomicBool,
}

#[derive(Debug)]
struct Made {
    connection: PgConnection,
    /// A statement outside a transaction runs at a stricter isolation than read committed.
    is_strict: bool,
    born: Instant,
    generation: u64,
    idle_since: Instant,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, max: u32, pooled: bool) -> Arc<Self> {
        Arc::new(Self {
            options,
            pooled,
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(max as usize)),
            generation: AtomicU64::new(0),
            watched: AtomicBool::new(false),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Made>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle connection, or makes one.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Leased, StoreError> {
        self.watch();
        let acquired = timeout(ACQUIRE, self.clone().find()).await.unwrap_or(Err(Error::PoolTimedOut));
        acquired.map_err(|error| self.lost(error))
    }

    /// Takes a connection and begins a transaction by the given statements: one round trip. A connection that was idle
    /// may have died with its server; then nothing has begun, and a new one may find the server back.
    pub(super) async fn begin(self: &Arc<Self>, sql: &str) -> Result<Leased, StoreError> {
        let mut connection = self.acquire().await?;
        let Err(error) = answer(connection.begin(sql.to_owned())).await else { return Ok(connection) };
        let (error, was_idle) = (connection.lost(error), connection.was_idle);
        if !(error.leaves_unsure() && was_idle) {
            return Err(error);
        }
        drop(connection);
        let mut connection = self.acquire().await?;
        answer(connection.begin(sql.to_owned())).await.map_err(|error| connection.lost(error))?;
        Ok(connection)
    }

    async fn find(self: Arc<Self>) -> Result<Leased, Error> {
        let permit = self.room.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)?;
        loop {
            let idle = self.idle().pop();
            let was_idle = idle.is_some();
            let made = match idle {
                None => self.make().await?,
                Some(made) if self.is_old(&made) => {
                    close(made).await;
                    continue;
                }
                Some(made) if made.idle_since.elapsed() < ASK => made,
                Some(mut made) => match made.connection.ping().await {
                    Ok(()) => made,
                    Err(_) => continue,
                },
            };
            return Ok(Leased { made: Some(made), home: self.clone(), permit: Some(permit), begun: false, was_idle });
        }
    }

    async fn make(&self) -> Result<Made, Error> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut connection = self.options.connect().await?;
        let is_strict = match self.pooled {
            true => false, // all its statements are in transactions anyway
            false => sqlx::query_scalar(IS_STRICT).persistent(false).fetch_one(&mut connection).await?,
        };
        Ok(Made { connection, is_strict, born: Instant::now(), generation, idle_since: Instant::now() })
    }

    fn is_old(&self, made: &Made) -> bool {
        made.born.elapsed() > AGE || made.generation != self.generation.load(Ordering::Acquire)
    }

    async fn take_back(&self, mut made: Made) {
        if self.is_old(&made) {
            return close(made).await;
        }
        made.idle_since = Instant::now();
        self.idle().push(made);
    }

    /// Handles an error on a connection. If the server is away, idle connections are gone too; a plan that no longer
    /// fits the tables is in the other sessions as well; and a new connection may lead to another server than the one
    /// that has become read-only.
    pub(super) fn lost(&self, error: Error) -> StoreError {
        let error = store_error(error);
        match error.kind() {
            StoreErrorKind::Unavailable => self.idle().clear(),
            StoreErrorKind::StalePlan | StoreErrorKind::Unable => self.retire(),
            _ => {}
        }
        error
    }

    /// Closes every connection that exists now, as soon as it is unused.
    pub(super) fn retire(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle().clear();
    }

    /// Starts the task that closes idle connections; it ends with the `Connections`, or with its runtime.
    fn watch(self: &Arc<Self>) {
        /// Records that no task watches any more, even if the task was aborted.
        struct Watching(Weak<Connections>);
        impl Drop for Watching {
            fn drop(&mut self) {
                if let Some(connections) = self.0.upgrade() {
                    connections.watched.store(false, Ordering::Release);
                }
            }
        }
        if self.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let watching = Watching(Arc::downgrade(self));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(connections) = watching.0.upgrade() else { return };
                let old = connections.long_idle();
                drop(connections);
                for made in old {
                    close(made).await;
                }
            }
        });
    }

    /// Takes out connections that were idle for too long, except the one used last.
    fn long_idle(&self) -> Vec<Made> {
        let mut idle = self.idle();
        let rested = idle.iter().take(idle.len().saturating_sub(1));
        let n = rested.take_while(|made| made.idle_since.elapsed() > IDLE).count();
        let mut old: Vec<Made> = idle.drain(..n).collect();
        old.extend(idle.pop_if(|made| self.is_old(made)));
        old
    }
}

/// Closes the session properly.
async fn close(made: Made) {
    let _ = timeout(ROLLBACK, made.connection.close()).await; // it is closed either way
}

/// A connection that is being used.
///
/// When it is dropped without [`Leased::give_back`], a task rolls back and gives it back. Without a runtime, or when
/// that takes too long, the connection is closed, and the server rolls back.
#[derive(Debug)]
pub(super) struct Leased {
    made: Option<Made>,
    home: Arc<Connections>,
    permit: Option<OwnedSemaphorePermit>,
    begun: bool,
    /// It was not made just now.
    was_idle: bool,
}

impl Leased {
    /// Begins a transaction by the given statements: one round trip.
    pub(super) async fn begin(&mut self, sql: String) -> Result<(), Error> {
        // set first: if this future is dropped, sqlx does not know that a transaction may be open
        self.begun = true;
        PgTransactionManager::begin(self, Some(sql.into())).await
    }

    /// Whether a statement needs a transaction to run read committed.
    pub(super) fn is_strict(&self) -> bool {
        self.made.as_ref().is_some_and(|made| made.is_strict)
    }

    /// Whether a transaction was begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Commits what [`Leased::begin`] began.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        PgTransactionManager::commit(self).await?;
        self.begun = false;
        Ok(())
    }

    /// Rolls back what [`Leased::begin`] began.
    pub(super) async fn rollback(&mut self) -> Result<(), Error> {
        let begun = self.begun;
        self.connection().rolled_back(begun).await?;
        self.begun = false;
        Ok(())
    }

    fn connection(&mut self) -> &mut Made {
        self.made.as_mut().expect("it is taken only by giving back, which consumes the lease")
    }

    /// Gives it back: no statement or transaction is open on it.
    pub(super) async fn give_back(mut self) {
        if let Some(made) = self.made.take() {
            self.home.take_back(made).await;
        }
    }

    /// Notes an error on it.
    pub(super) fn lost(&self, error: Error) -> StoreError {
        self.home.lost(error)
    }
}

impl Made {
    async fn rolled_back(&mut self, begun: bool) -> Result<(), Error> {
        let connection = &mut self.connection;
        if begun && PgTransactionManager::get_transaction_depth(connection) == 0 {
            return connection.execute("ROLLBACK").await.map(drop);
        }
        while PgTransactionManager::get_transaction_depth(connection) > 0 {
            PgTransactionManager::rollback(connection).await?;
        }
        Ok(())
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let (Some(mut made), Ok(runtime)) = (self.made.take(), Handle::try_current()) else { return };
        let (home, permit, begun) = (self.home.clone(), self.permit.take(), self.begun);
        runtime.spawn(async move {
            let cleared = async {
                made.rolled_back(begun).await?;
                made.connection.ping().await // whatever was cut off is over then
            };
            if let Ok(Ok(())) = timeout(ROLLBACK, cleared).await {
                home.take_back(made).await;
            }
            drop(permit);
        });
    }
}

impl Deref for Leased {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.made.as_ref().expect("it is taken only by giving back, which consumes the lease").connection
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection().connection
    }
}
