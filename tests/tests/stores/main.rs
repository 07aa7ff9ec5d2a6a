//! The stores in `outbox`: the conformance suite, and what each promises besides.

mod errors;
mod gone;
mod operations;
mod postgres;
mod postgres_units;
mod sqlite;

use outbox::{Postgres, Sqlite};
use saga_core::{Store, testing::MemoryStore};
use tests::{Database, File, PgBouncer, Role};

async fn on_postgres() -> (Postgres, Database) {
    let database = Database::create().await;
    let store = database.store();
    store.migrate().await.expect("an empty database gets its tables");
    (store, database)
}

/// Through PgBouncer in transaction mode: each transaction may have another session of the server.
async fn through_pgbouncer() -> (Postgres, (PgBouncer, Database)) {
    let database = Database::create().await;
    let bouncer = PgBouncer::start(&database).await;
    let store = bouncer.store();
    store.migrate().await.expect("an empty database gets its tables");
    (store, (bouncer, database))
}

/// By a role that owns nothing and has the grants of SECURITY.md.
async fn owning_nothing() -> (Postgres, (Database, Role)) {
    let (_, database) = on_postgres().await;
    let role = Role::create(&database).await;
    let store = role.store();
    store.migrate().await.expect("tables that are there need no rights of their owner");
    (store, (database, role))
}

async fn on_sqlite() -> (Sqlite, File) {
    let file = File::create();
    let store = file.store("store.db").await;
    store.migrate().await.expect("an empty file gets its tables");
    (store, file)
}

tests::store_suite!(mod suite_postgres, [], crate::on_postgres);
tests::store_suite!(
    mod suite_pgbouncer,
    [cfg_attr(not(pgbouncer), ignore = "pgbouncer is not installed")],
    crate::through_pgbouncer
);
tests::store_suite!(mod suite_owning_nothing, [], crate::owning_nothing);
tests::store_suite!(mod suite_sqlite, [], crate::on_sqlite);

async fn in_memory() -> (MemoryStore, ()) {
    (MemoryStore::new(), ())
}

tests::store_suite!(mod suite_memory, [], crate::in_memory);
