//! PostgreSQL: a unit's locks, its limits, and what a handler can do to its transaction.

use crate::on_postgres;
use outbox::Postgres;
use saga_core::{Store, StoreError, StoreErrorKind, Unit};
use sqlx::Executor;
use std::time::Duration;
use tests::{
    Database, eventually,
    store_suite::{CONFLICT, LIMIT, WEEK, inbox_row, instance, keys, kind, outbox_row, write, writes},
};

/// X01: a unit does not wait for a lock that another unit holds; it learns which lock that is.
#[tokio::test(flavor = "multi_thread")]
async fn x01_a_lock_that_somebody_holds_is_named() {
    let (store, _database) = on_postgres().await;
    let mut first = store.begin(&[-3, 5], LIMIT).await.unwrap();
    assert!(first.read(&keys(&[])).await.unwrap().locked_elsewhere.is_empty());
    let mut second = store.begin(&[-3, 4, 5, 7], LIMIT).await.unwrap();
    let mut locked = second.read(&keys(&[])).await.unwrap().locked_elsewhere;
    locked.sort_unstable();
    assert_eq!(locked, [-3, 5]);
    first.commit().await.unwrap();
    let mut third = store.begin(&[5, 7], LIMIT).await.unwrap();
    assert_eq!(third.read(&keys(&[])).await.unwrap().locked_elsewhere, [7]);
    assert!(store.read(&keys(&[])).await.unwrap().locked_elsewhere.is_empty(), "outside a unit nothing is locked");
}

/// S-084: a unit that takes an alias learns that another one works on it.
#[tokio::test(flavor = "multi_thread")]
async fn s_084_an_alias_that_another_unit_works_on_is_named() {
    let (store, _database) = on_postgres().await;
    let (mut first, mut second) = (store.begin(&[1], LIMIT).await.unwrap(), store.begin(&[2], LIMIT).await.unwrap());
    assert_eq!(first.lock(&[7, 8]).await.unwrap(), [0; 0]);
    assert_eq!(second.lock(&[6, 7]).await.unwrap(), [7]);
    first.commit().await.unwrap();
    assert_eq!(second.lock(&[7]).await.unwrap(), [0; 0], "it ends with its unit");
}

/// Rule 1: what the last holder of a lock wrote is seen by the next, whatever the role's default isolation.
#[tokio::test(flavor = "multi_thread")]
async fn rule_1_what_the_last_holder_wrote_is_seen() {
    let database = Database::create().await;
    let sql = format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name);
    database.store().pool().execute(sql.as_str()).await.unwrap();
    let store = database.store();
    store.migrate().await.unwrap();
    for n in 0..5 {
        let mut first = store.begin(&[7], LIMIT).await.unwrap();
        let id = format!("m{n}");
        first
            .write(&tests::with!(writes(), claims = vec![inbox_row(&id)], instances = vec![instance(n + 1, n)]))
            .await
            .unwrap();
        let (committed, begun) = tokio::join!(first.commit(), store.begin(&[7], LIMIT));
        committed.unwrap();
        let mut second = begun.unwrap();
        let found = second.read(&keys(&[&id])).await.unwrap();
        let seen = found.inbox.len() == 1 && found.instances[0].seq == n + 1;
        assert!(seen || found.locked_elsewhere == [7], "it has the lock and saw {found:?}");
    }
}

/// What runs outside units is read committed too, and the session keeps the role's default: behind a pooler that nobody
/// announced, other clients have the session next.
#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_default_is_not_followed_and_not_changed() {
    let database = Database::create().await;
    let sql = format!("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'", database.name);
    database.store().pool().execute(sql.as_str()).await.unwrap();
    let stores: Vec<Postgres> = (0..8).map(|_| database.store()).collect();
    stores[0].migrate().await.unwrap();
    let calls = stores.iter().map(async |store| {
        for _ in 0..20 {
            store.reserve_calls("e", "bank", 1, Duration::from_millis(1), LIMIT).await.unwrap();
            store.delete_confirmed(&[uuid::Uuid::nil()]).await.unwrap();
        }
    });
    futures_util::future::join_all(calls).await;
    stores[0].read(&tests::with!(keys(&["m"]), instances = Vec::new())).await.unwrap();
    let mut unit = stores[0].begin(&[1], LIMIT).await.unwrap();
    let shown: String = sqlx::query_scalar("SHOW default_transaction_isolation").fetch_one(unit.tx()).await.unwrap();
    assert_eq!(shown, "serializable", "the session is the role's");
}

/// X01: the server ends a unit whose process is frozen, which frees its locks for others.
#[tokio::test(flavor = "multi_thread")]
async fn x01_a_unit_that_hangs_is_ended_by_the_server() {
    let (store, _database) = on_postgres().await;
    let mut frozen = store.begin(&[7], Duration::from_millis(300)).await.unwrap();
    frozen.write(&tests::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
    eventually("the lock to be free", || async {
        let mut unit = store.begin(&[7], LIMIT).await.unwrap();
        unit.read(&keys(&[])).await.unwrap().locked_elsewhere.is_empty().then_some(())
    })
    .await;
    let late = frozen.write(&tests::with!(writes(), outbox = vec![outbox_row("o", None, false)])).await;
    assert_eq!(kind(late), Some(StoreErrorKind::Unavailable));
    assert_eq!(kind(frozen.commit().await), Some(StoreErrorKind::Unavailable), "nobody may take it for committed");
    let found = store.read(&keys(&["m"])).await.unwrap();
    assert!(found.inbox.is_empty());
}

/// B16: a handler that ends the transaction fails, and nothing of the unit is written outside one.
#[tokio::test(flavor = "multi_thread")]
async fn b16_a_handler_that_ends_the_transaction_is_told_so() {
    let (store, _database) = on_postgres().await;
    for ends in ["ROLLBACK", "COMMIT", "ROLLBACK; BEGIN", "COMMIT; BEGIN", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        for (locks, empty) in [(&[][..], false), (&[1], false), (&[], true)] {
            let mut unit = store.begin(locks, LIMIT).await.unwrap();
            unit.tx().execute(ends).await.unwrap();
            let write =
                if empty { writes() } else { tests::with!(writes(), outbox = vec![outbox_row("o", None, false)]) };
            let error = unit.write(&write).await.expect_err(ends);
            assert_eq!(error.kind(), StoreErrorKind::Rejected, "{ends}: {error}");
            assert!(error.to_string().contains("the handler ended the transaction itself"), "{error}");
            unit.rollback().await.unwrap();
        }
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM sagabus.outbox").fetch_one(store.pool()).await.unwrap();
    assert_eq!(rows, 0);
    write(&store, tests::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
}

/// M10: a handler that swallowed an error fails, even if it sends nothing; a nested transaction is the way out.
#[tokio::test(flavor = "multi_thread")]
async fn m10_an_aborted_transaction_is_noticed() {
    let (store, _database) = on_postgres().await;
    for write in [writes(), tests::with!(writes(), claims = vec![inbox_row("m")])] {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let _swallowed = unit.tx().execute("SELECT 1 / 0").await;
        let error = unit.write(&write).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Rejected);
        assert!(error.to_string().contains("nested transaction"), "{error}");
        unit.rollback().await.unwrap();

        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        let mut nested = sqlx::Connection::begin(unit.tx()).await.unwrap();
        nested.execute("SELECT 1 / 0").await.unwrap_err();
        nested.rollback().await.unwrap();
        unit.write(&write).await.unwrap();
        unit.commit().await.unwrap();
    }
}

/// M16: a refusal at the commit is the fault of the data, and the error names the constraint.
#[tokio::test(flavor = "multi_thread")]
async fn m16_a_deferred_constraint_is_named() {
    let (store, _database) = on_postgres().await;
    let sql = "CREATE TABLE seat (n int, CONSTRAINT one_seat UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)";
    store.pool().execute(sql).await.unwrap();
    let mut unit = store.begin(&[], LIMIT).await.unwrap();
    unit.tx().execute("INSERT INTO seat VALUES (1), (1)").await.unwrap();
    unit.write(&tests::with!(writes(), claims = vec![inbox_row("m")])).await.unwrap();
    let error = unit.commit().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected, "{error}");
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    let constraint = source.and_then(|source| source.as_database_error()?.constraint());
    assert_eq!(constraint, Some("one_seat"), "{error}");
    assert!(store.read(&keys(&["m"])).await.unwrap().inbox.is_empty());
}

/// Rule of `SAGAS`: a scan that a projection needs would look expensive enough to trigger JIT.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_compiled_in_a_unit_of_sagas() {
    let (store, _database) = on_postgres().await;
    for (locks, jit) in [(&[1][..], "off"), (&[], "on")] {
        let mut unit = store.begin(locks, LIMIT).await.unwrap();
        let shown: String = sqlx::query_scalar("SHOW jit").fetch_one(unit.tx()).await.unwrap();
        assert_eq!(shown, jit, "a handler's plans are its own");
    }
}

/// M14: two processes with the same messages for several receivers do not wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn m14_two_processes_with_the_same_messages_do_not_deadlock() {
    let (store, _database) = on_postgres().await;
    let claim = async |store: &Postgres, n: usize, reverse: bool| {
        let mut claims = Vec::new();
        for id in 0..50 {
            for receiver in ["a", "b", "c"] {
                let row = inbox_row(&format!("{n}-{id}"));
                claims.push(tests::with!(row, receiver = receiver.into()));
            }
        }
        if reverse {
            claims.reverse();
        }
        write(store, tests::with!(writes(), claims = claims)).await
    };
    for n in 0..20 {
        let (one, other) = tokio::join!(claim(&store, n, false), claim(&store, n, true));
        let lost = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(lost.iter().map(StoreError::kind).collect::<Vec<_>>(), [StoreErrorKind::Conflict]);
        let source = std::error::Error::source(&lost[0]).and_then(|source| source.downcast_ref::<sqlx::Error>());
        let code = source.and_then(|source| Some(source.as_database_error()?.code()?.into_owned()));
        assert_eq!(code.as_deref(), Some("23505"), "the slower one finds the rows there");
    }
    let deadlocks: i64 =
        sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(store.pool())
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

/// A held message begins to wait for a person while a unit removes it: the unit runs again, and no row is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_message_that_changed_meanwhile_is_a_conflict() {
    let (store, _database) = on_postgres().await;
    let held = tests::store_suite::held_in("m", saga_core::HeldReason::Early);
    write(&store, tests::with!(writes(), held_in = vec![held])).await.unwrap();
    let mut changing = store.pool().begin().await.unwrap();
    changing.execute("UPDATE sagabus.held SET reason = 'failed'").await.unwrap();
    let out = saga_core::HeldKey::new("saga", "m");
    let taken = tokio::spawn({
        let store = store.clone();
        async move { write(&store, tests::with!(writes(), held_out = vec![out])).await }
    });
    eventually("the unit to wait for the row", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
        )
        .fetch_one(store.pool())
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    changing.commit().await.unwrap();
    assert_eq!(kind(taken.await.unwrap()), CONFLICT);
    let out = saga_core::HeldKey::new("saga", "m");
    write(&store, tests::with!(writes(), held_out = vec![out])).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM sagabus.held").fetch_one(store.pool()).await.unwrap();
    assert_eq!(rows, 0);
}

/// O-054: processes that clean up at the same time, beside work, do not hinder each other.
#[tokio::test(flavor = "multi_thread")]
async fn o_054_three_cleanups_beside_work_delete_what_is_old_without_a_deadlock() {
    let (store, database) = on_postgres().await;
    let old = "INSERT INTO sagabus.inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
             claimed_at, handled_at, handled_by, attempts)
         SELECT 'e', 'r', 'old-' || n, 1, 't', 'handled', 'c', now(), now() - interval '20 days', 'p', 1
         FROM generate_series(1, 20000) n";
    store.pool().execute(old).await.unwrap();
    // a process that waited a second for a lock would get an error
    let url = format!("{}?options[lock_timeout]=1000", database.url());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = Postgres::with_connections(&url, 2).unwrap();
        tasks.spawn(async move { while store.sweep("e", WEEK).await.unwrap().rows > 0 {} });
    }
    for worker in 0..2 {
        let store = Postgres::with_connections(&url, 2).unwrap();
        tasks.spawn(async move {
            for n in 0..100 {
                let claims = vec![inbox_row(&format!("new-{worker}-{n}"))];
                let mut unit = store.begin(&[worker], LIMIT).await.unwrap();
                unit.write(&tests::with!(writes(), claims = claims)).await.unwrap();
                unit.commit().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    while store.sweep("e", WEEK).await.unwrap().rows > 0 {}
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM sagabus.inbox").fetch_one(store.pool()).await.unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(store.pool()).await.unwrap();
    assert_eq!((left, deadlocks), (200, 0));
}

/// B16: it would be gone for good, and the unit that was to take it back fails.
#[tokio::test(flavor = "multi_thread")]
async fn b16_a_handler_that_ended_the_transaction_takes_nothing_back() {
    use tests::store_suite::Lab as _;
    let (store, _database) = on_postgres().await;
    let row = outbox_row("o", None, false);
    write(&store, tests::with!(writes(), outbox = vec![row.clone()])).await.unwrap();
    for ends in ["ROLLBACK", "COMMIT"] {
        let mut unit = store.begin(&[], LIMIT).await.unwrap();
        unit.tx().execute(ends).await.unwrap();
        let error = unit.take_back(&[row.id]).await.expect_err("it was expected to be refused");
        assert_eq!(error.code(), saga_core::ErrorCode::TransactionEnded, "{error}");
        let _ = unit.rollback().await; // there is nothing left
        assert_eq!(store.count("outbox").await, 1, "{ends}");
    }
}
