//! One transaction.

use super::{ANSWER, Postgres, answer, connections::Leased, read, write};
use crate::{error::store_error, rows::us};
use async_trait::async_trait;
use saga_core::{Found, HeldRow, HeldWanted, Keys, StoreError, StoreErrorKind, Unit, Write};
use sqlx::{Executor, PgConnection};
use std::{fmt::Write as _, time::Duration};

/// Keys are looked up by an index. A plan prepared while a table has a few pages would scan all of it, and would be
/// kept while the table grows; dead rows of the outbox are enough for that. The setting inflates the cost of a
/// projection's unavoidable scan, which would trigger JIT, so JIT is off too. A lock timeout keeps units from waiting
/// long for a row that another program has locked.
const SAGAS: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL lock_timeout = '5s'";

/// One transaction on PostgreSQL.
#[derive(Debug)]
pub struct PostgresUnit {
    connection: Leased,
    /// Statements are prepared once; not behind a pooler, where the next transaction may have another session.
    persistent: bool,
    /// The settings of [`SAGAS`] are in force.
    by_index: bool,
}

/// The start of a transaction, which the server ends when it is idle for `limit`. Read committed, whatever the role's
/// default: the unit must see what the last holder of a lock wrote.
pub(super) fn begin(limit: Duration) -> String {
    // 0 would mean no limit
    let limit_ms = (us(limit) / 1000).clamp(1, i64::from(i32::MAX));
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {limit_ms}")
}

/// Behind a pooler the session may have statements of another client under names that sqlx uses here too.
pub(super) fn pooled(begin: &str) -> String {
    format!("{begin}; DEALLOCATE ALL")
}

impl PostgresUnit {
    /// One round trip. This statement tries the locks and later ones read: a statement sees what was committed when it
    /// began, and an instance that does not exist yet has no row to lock.
    ///
    /// The transaction sets a mark, `sagabus.unit`, that ends with it: `+`, and the locks that other transactions hold.
    /// The first read fetches the mark, and a write without it fails. sqlx drops the rows of these statements, so the
    /// mark also carries those locks.
    pub(super) async fn begin(store: &Postgres, locks: &[i64], limit: Duration) -> Result<Self, StoreError> {
        let mut sql = begin(limit);
        if store.pooled {
            sql = pooled(&sql);
        }
        if locks.is_empty() {
            sql.push_str("; SET LOCAL sagabus.unit = '+'");
        } else {
            sql.push_str(SAGAS);
            sql.push_str("; SELECT set_config('sagabus.unit', '+' || coalesce(string_agg(k::text, ','), ''), true)");
            sql.push_str(" FROM unnest('{");
            for (n, lock) in locks.iter().enumerate() {
                let _ = write!(sql, "{}{lock}", if n > 0 { "," } else { "" });
            }
            sql.push_str("}'::bigint[]) k WHERE NOT pg_try_advisory_xact_lock(k)");
        }
        let mut connection = store.units.acquire().await?;
        answer(connection.begin(sql)).await.map_err(|error| connection.lost(error))?;
        Ok(Self { connection, persistent: !store.pooled, by_index: !locks.is_empty() })
    }
}

#[async_trait]
impl Unit for PostgresUnit {
    type Tx = PgConnection;

    fn tx(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError> {
        let rows = answer(read::rows(&mut self.connection, self.persistent, keys)).await;
        read::found(&rows.map_err(|error| self.connection.lost(error))?)
    }

    async fn held(&mut self, endpoint: &str, wanted: &[HeldWanted], rows_max: i64) -> Result<Vec<HeldRow>, StoreError> {
        let rows = answer(read::held(&mut self.connection, self.persistent, endpoint, wanted, rows_max)).await;
        rows.map_err(|error| self.connection.lost(error))
    }

    async fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        let late = || StoreError::new(StoreErrorKind::Unavailable, "no answer from the database");
        let looks_up = !write.completes.is_empty() || !write.held_out.is_empty();
        if looks_up && !self.by_index {
            // until here the handler's own plans are untouched; this is only for messages that were put off or held
            let set = answer(self.connection.execute("SET LOCAL enable_seqscan = off")).await;
            set.map_err(|error| self.connection.lost(error))?;
            self.by_index = true;
        }
        let written = write::write(&mut self.connection, self.persistent, write);
        match tokio::time::timeout(ANSWER, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(write::Failed::Conflict(None))) => Err(StoreError::conflict()),
            Ok(Err(write::Failed::Conflict(Some(error)))) => Err(StoreError::conflict().with_source(error)),
            Ok(Err(write::Failed::Store(error))) => Err(error),
            Ok(Err(write::Failed::Sqlx(error))) => Err(self.connection.lost(error)),
            Err(_) => Err(late()),
        }
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        // the other connections are left alone: the data may be to blame for this error
        answer(self.connection.commit()).await.map_err(store_error)?;
        self.connection.give_back().await;
        Ok(())
    }

    async fn rollback(mut self) -> Result<(), StoreError> {
        answer(self.connection.rollback()).await.map_err(|error| self.connection.lost(error))?;
        self.connection.give_back().await;
        Ok(())
    }
}
