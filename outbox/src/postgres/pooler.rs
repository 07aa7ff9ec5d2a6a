//! Detects a pooler that the URL does not announce.

use super::{ANSWER, Postgres, answer, begin};
use saga_core::StoreError;
use sqlx::PgConnection;
use std::time::Duration;

/// A server begins a transaction at once; a pooler without a free session makes us wait.
const BEGIN: Duration = Duration::from_secs(1);

/// A pooler in transaction mode may give each transaction another session, which does not know the statements prepared
/// in the one before. Under load, handlers would fail by this now and then. So the start tries it: one connection
/// prepares a statement, another one takes its session, and the first runs the statement again.
pub(super) async fn check(store: &Postgres) -> Result<(), StoreError> {
    if store.pooled {
        return Ok(());
    }
    let mut first = store.own.acquire().await?;
    let mut second = store.own.acquire().await?;
    let checked = answer(async {
        first.begin(begin(ANSWER)).await?;
        probe(&mut first).await?;
        first.commit().await?;
        second.begin(begin(ANSWER)).await?;
        let begun = tokio::time::timeout(BEGIN, first.begin(begin(ANSWER))).await;
        if let Ok(begun) = begun {
            begun?;
            probe(&mut first).await?;
            first.commit().await?;
        }
        second.commit().await
    })
    .await;
    // dropped, not given back: if the second transaction waits, its `BEGIN` is still under way
    checked.map_err(|error| first.lost(error))
}

async fn probe(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT $1::text").bind("prepared").execute(connection).await.map(drop)
}
