//! PostgreSQL: rows that are gone, and that it cannot remove because somebody holds a transaction open.

use crate::on_postgres;
use saga_core::{HeldReason, Store};
use sqlx::Executor;
use std::time::Duration;
use tests::store_suite::{Lab, WEEK, chart, held_in, instance, request, write, writes};

/// While somebody holds a transaction open, timers that are gone cannot be removed: a look reads none beyond the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_reads_no_timers_that_are_gone() {
    let (store, _database) = on_postgres().await;
    let fill = "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, envelope, body,
             created_at, due_at)
         SELECT gen_random_uuid(), 'e', 'm' || n, 'timer', 'test.Message', 'e', '{}', '{}', now(),
             now() + interval '1 hour'
         FROM generate_series(1, 20000) n";
    store.pool().execute(fill).await.unwrap();
    let mut old = store.pool().begin().await.unwrap();
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sagabus.outbox").await.unwrap();
    store.pool().execute("DELETE FROM sagabus.outbox").await.unwrap();
    let read = async || -> i64 {
        // the session of the looks tells what it has read a second later, at its next statement
        store.lease(&tests::with!(request("me"), ahead = Duration::ZERO)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        store.lease(&tests::with!(request("me"), ahead = Duration::ZERO)).await.unwrap();
        let sql = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_due'";
        sqlx::query_scalar(sql).fetch_one(store.pool()).await.unwrap()
    };
    let before = read().await;
    for since in [None, Some(Duration::from_secs(5))] {
        let look = tests::with!(request("me"), since = since, ahead = Duration::from_secs(3));
        assert_eq!(store.lease(&look).await.unwrap().next_due, None);
    }
    let read = read().await - before;
    assert!(read < 1000, "two looks read {read} rows that are gone");
    old.rollback().await.unwrap();
}

/// Old rows that cannot be deleted, or not in time, keep nothing else from happening.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_fails_keeps_no_other_step_from_happening() {
    let (store, _database) = on_postgres().await;
    let process = tests::with!(saga_core::Process::new("e", "p"), charts = vec![chart(1)]);
    store.register(&process).await.unwrap();
    let mut done = instance(1, 0);
    (done.row.done, done.row.key.id) = (true, "8".into());
    let version = tests::with!(held_in("m", HeldReason::Version), expires = Some(Duration::ZERO));
    write(&store, tests::with!(writes(), instances = vec![done], held_in = vec![version])).await.unwrap();
    store.age("saga", "completed_at", 2 * WEEK).await;
    store.age("held", "expires_at", Duration::from_secs(1)).await;
    let refuses = "CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''an audit wants them''; END';
        CREATE TRIGGER refuses BEFORE DELETE ON sagabus.saga FOR EACH ROW EXECUTE FUNCTION refuses()";
    store.pool().execute(refuses).await.unwrap();
    assert_eq!(store.sweep("e", WEEK).await.unwrap().without_version, 1, "it is said to a person");
    assert_eq!(store.column("held", "reason", "m").await, [Some("undecodable".into())]);
    let error = store.sweep("e", WEEK).await.unwrap_err();
    assert!(error.to_string().contains("an audit wants them"), "{error}");
}
