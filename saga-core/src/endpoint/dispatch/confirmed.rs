//! The deletion of rows that have arrived.

use super::{PAUSE_MAX, PAUSE_MIN, Shared};
use crate::{Store, endpoint::trouble::Trouble, port::Backoff};
use std::{sync::Arc, time::Duration};

/// How long the first confirmed row waits for others, so that one statement deletes many.
const GATHER: Duration = Duration::from_millis(100);

/// Deletes rows that the broker has confirmed, many at a time.
pub(crate) async fn delete_confirmed<Db: Store>(shared: Arc<Shared<Db>>) {
    loop {
        shared.dispatcher.confirmed.notified().await;
        tokio::time::sleep(GATHER).await;
        delete_all_confirmed(&shared).await;
    }
}

/// Deletes until nothing is left to delete.
pub(crate) async fn delete_all_confirmed<Db: Store>(shared: &Shared<Db>) {
    let dispatcher = &shared.dispatcher;
    let _turn = dispatcher.deleting.lock().await;
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let trouble = Trouble::default();
    loop {
        let confirmed = dispatcher.take_confirmed();
        if confirmed.is_empty() {
            break;
        }
        let Err(error) = shared.store.delete_confirmed(&confirmed).await else {
            dispatcher.deleted();
            continue;
        };
        dispatcher.give_back_confirmed(confirmed);
        if trouble.begins().is_some() {
            tracing::warn!(endpoint = shared.name, %error, "confirmed rows wait for the database to be deleted");
        }
        backoff.pause().await;
    }
    if let Some(lasted) = trouble.ends() {
        tracing::info!(endpoint = shared.name, ?lasted, "confirmed rows are deleted again");
    }
}
