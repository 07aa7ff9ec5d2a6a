//! Connections for units of work.
//!
//! Not sqlx's pool: that one pings a connection each time it is given back, which is one round trip more for every unit.

use crate::error::store_error;
use saga_core::StoreError;
use sqlx::{ConnectOptions, Connection, Error, PgConnection, postgres::PgConnectOptions};
use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// A connection that does not come within this time counts as "the database is away".
const ACQUIRE: Duration = Duration::from_secs(5);
/// A connection that was idle for so long is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Connections {
    options: PgConnectOptions,
    /// The last one given back is the first to go out: its statements are warm, and the others may rest.
    idle: Mutex<Vec<(PgConnection, Instant)>>,
    room: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, max: u32) -> Arc<Self> {
        Arc::new(Self { options, idle: Mutex::default(), room: Arc::new(Semaphore::new(max as usize)) })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle connection, or makes one.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Leased, StoreError> {
        let acquired = timeout(ACQUIRE, self.clone().find()).await.unwrap_or(Err(Error::PoolTimedOut));
        acquired.map_err(|error| self.lost(error))
    }

    async fn find(self: Arc<Self>) -> Result<Leased, Error> {
        let permit = self.room.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)?;
        loop {
            let idle = self.idle().pop();
            let connection = match idle {
                None => self.options.connect().await?,
                Some((connection, since)) if since.elapsed() < IDLE => connection,
                Some((mut connection, _)) => match connection.ping().await {
                    Ok(()) => connection,
                    Err(_) => continue,
                },
            };
            return Ok(Leased { connection: Some(connection), home: self.clone(), _permit: permit });
        }
    }

    /// An error on a connection: if the server is away, the idle ones are gone too.
    pub(super) fn lost(&self, error: Error) -> StoreError {
        let error = store_error(error);
        if matches!(error, StoreError::Unavailable(_)) {
            self.idle().clear();
        }
        error
    }
}

/// A connection that is being used. Dropped without [`Leased::give_back`], it is closed, and the server rolls back.
#[derive(Debug)]
pub(super) struct Leased {
    connection: Option<PgConnection>,
    home: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Leased {
    /// Nothing is under way on it: somebody else may use it.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.home.idle().push((connection, Instant::now()));
        }
    }

    /// An error on it.
    pub(super) fn lost(&self, error: Error) -> StoreError {
        self.home.lost(error)
    }
}

impl Deref for Leased {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is taken only by giving back, which consumes the lease")
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is taken only by giving back, which consumes the lease")
    }
}
