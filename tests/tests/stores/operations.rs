//! What operators did is kept for 400 days.

use saga_core::OperationItem;
use std::time::Duration;
use tests::store_suite::{Base, WEEK};

const DAY: Duration = Duration::from_secs(86_400);

async fn old_operations_go<Db: Base>(store: Db) {
    let record = async |why| store.record("held note", OperationItem::gone("m"), "ann", why).await.unwrap();
    for why in ["one", "two", "three"] {
        record(why).await;
    }
    store.age("operation", "at", 399 * DAY).await;
    record("four").await;
    assert_eq!(store.sweep("e", WEEK).await.unwrap().rows, 0);
    store.age("operation", "at", 2 * DAY).await;
    assert_eq!(store.sweep("any", WEEK).await.unwrap().rows, 3, "they are no endpoint's own");
    assert_eq!(store.text("SELECT reason FROM {s}operation").await, "four");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_old_operations_go() {
    let (store, _database) = crate::on_postgres().await;
    old_operations_go(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_old_operations_go() {
    let (store, _file) = crate::on_sqlite().await;
    old_operations_go(store).await;
}
