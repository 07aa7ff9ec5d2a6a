//! Commands for a worker on RabbitMQ and PostgreSQL, as another program may put them on its queue.

use crate::{
    Vhost, eventually,
    model::Effects,
    plain::{Plain, bundle_body},
};
use outbox::Postgres;
use saga_core::{Endpoint, Envelope};
use serde_json::json;

/// Commands as any producer of bundles may write them.
pub fn works(ids: impl IntoIterator<Item = u64>) -> Vec<Envelope> {
    ids.into_iter().map(|id| work(id, "")).collect()
}

/// One of them.
pub fn work(id: u64, note: &str) -> Envelope {
    Envelope::new(format!("w-{id}"), "worker.Work", json!({ "id": id, "note": note }).to_string())
}

/// Waits until the worker's handlers have written these, each once.
///
/// # Panics
/// When they do not.
pub async fn effects(store: &Postgres, expected: impl IntoIterator<Item = i64>) {
    let expected: Vec<i64> = expected.into_iter().collect();
    eventually(&format!("{} effects", expected.len()), || async {
        (store.effects().await.len() >= expected.len()).then_some(())
    })
    .await;
    assert_eq!(store.effects().await, expected, "each message was expected to be handled once");
}

/// Waits until a worker that has handled the first so many has settled all that came to it before, duplicates included:
/// they leave no trace, but every lane works in order, and gets some of a hundred new messages.
pub async fn everything_before_is_settled(plain: &Plain, worker: &Endpoint<Postgres>, handled: u64) {
    plain.publish_bundle("worker", "new", &bundle_body(&works(handled..handled + 100))).await;
    effects(worker.store(), 0..handled as i64 + 100).await;
}

/// Ends an endpoint, and expects that it has acknowledged all that was in its queue: a message that was sent last
/// comes first.
///
/// # Panics
/// When something else comes.
pub async fn nothing_is_left(vhost: &Vhost, endpoint: Endpoint<Postgres>) {
    let queue = endpoint.name().to_owned();
    endpoint.stop().await.expect("an orderly end");
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_one(&queue, &Envelope::new("last", "test.Last", "{}")).await;
    let first = crate::plain::next(&mut plain.consume(&queue).await).await;
    let id = first.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
    assert_eq!(id.as_deref(), Some("last"), "nothing else was expected in the queue");
}
