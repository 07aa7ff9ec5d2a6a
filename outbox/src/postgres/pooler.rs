//! Notices a pooler that nobody told us about.

use super::{ANSWER, Postgres, answer, unit};
use saga_core::StoreError;
use sqlx::PgConnection;
use std::time::Duration;

/// A server begins a transaction at once. A pooler may have no other session for us, and lets us wait.
const BEGIN: Duration = Duration::from_secs(1);

/// A pooler in transaction mode gives a transaction another session when somebody else has the one before, and a
/// statement that was prepared there is not known here. Handlers would meet that now and then, under load. So it is
/// tried at the start: one connection prepares a statement, another one takes the session, and the first looks again.
pub(super) async fn check(store: &Postgres) -> Result<(), StoreError> {
    if store.pooled {
        return Ok(());
    }
    let mut first = store.own.acquire().await?;
    let mut second = store.own.acquire().await?;
    let checked = answer(async {
        first.begin(unit::begin(ANSWER)).await?;
        probe(&mut first).await?;
        first.commit().await?;
        second.begin(unit::begin(ANSWER)).await?;
        let begun = tokio::time::timeout(BEGIN, first.begin(unit::begin(ANSWER))).await;
        if let Ok(begun) = begun {
            begun?;
            probe(&mut first).await?;
            first.commit().await?;
        }
        second.commit().await
    })
    .await;
    // dropped, not given back: where the second transaction waits, its begin is still on its way
    checked.map_err(|error| first.lost(error))
}

async fn probe(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT $1::text").bind("prepared").execute(connection).await.map(drop)
}
