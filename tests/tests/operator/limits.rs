//! Of more rows than are shown or counted, the right ones are.

use saga_core::{HeldFilter, InstanceFilter};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tests::{
    eventually,
    many::numbered,
    tables::{Held, Tables},
};

suite! {
    a_list_shows_the_first_in_its_order_whatever_index_finds_them,
    the_paused_instances_of_one_saga_hide_no_others,
}

/// So many paused instances of a saga, each changed a minute after the one before.
async fn paused(tables: &Tables, saga: &str, rows: u64) {
    let sql = format!(
        "INSERT INTO {{s}}saga (saga, id, state, data, seq, entered, version, paused_by, created_at, updated_at)
         SELECT '{saga}', 'i' || (10000000 + n), 'Waiting', '{{}}', 1, 1, 1, 'm', {{now}} - 90000 * {{minute}},
            {{now}} - (80000 - n) * {{minute}}"
    );
    tables.sql(&numbered(&sql, rows)).await;
}

async fn a_list_shows_the_first_in_its_order_whatever_index_finds_them(tables: Tables) {
    paused(&tables, "order", 30).await;
    let filter = InstanceFilter { paused: true, ..InstanceFilter::default() };
    let found = tables.store.instances(&filter, 3).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["i10000030", "i10000029", "i10000028"], "last changed first");
    for (n, reason) in ["rejected", "failed", "early", "crashes"].into_iter().enumerate() {
        tables.hold(&Held { message_id: &format!("m{n}"), reason, ..Held::default() }).await;
    }
    let filter = HeldFilter { saga_id: Some("7".into()), ..HeldFilter::default() };
    let found = tables.store.held(&filter, 2).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|it| it.message_id.as_str()).collect();
    assert_eq!(ids, ["m0", "m1"], "in order of arrival");
}

async fn the_paused_instances_of_one_saga_hide_no_others(tables: Tables) {
    paused(&tables, "aaa", 70_000).await;
    paused(&tables, "zebra", 2).await;
    let status = tables.store.status().await.unwrap();
    let counted: Vec<_> = status.instances.iter().map(|it| (it.saga.as_str(), it.paused)).collect();
    assert_eq!(counted, [("aaa", 10_001), ("zebra", 2)], "one more than are counted says that there are more");
    let minutes = status.instances[1].paused_ms / 60_000;
    assert!((79_998..=80_005).contains(&minutes), "{minutes} min");
    // both were changed first; the list looks at so many of each saga
    let filter = InstanceFilter { paused: true, saga: Some("zebra".into()), ..InstanceFilter::default() };
    assert_eq!(tables.store.instances(&filter, 10).await.unwrap().len(), 2);
    let oldest = InstanceFilter { paused: true, unchanged_for: Some(Duration::ZERO), ..InstanceFilter::default() };
    let found = tables.store.instances(&oldest, 2).await.unwrap();
    let sagas: Vec<_> = found.iter().map(|it| (it.saga.as_str(), it.id.as_str())).collect();
    assert_eq!(sagas.iter().filter(|(_, id)| *id == "i10000001").count(), 2, "{sagas:?}");
}

/// A page that was given up is asked for again: the look that it left ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_nobody_waits_for_ends() {
    let tables = Tables::postgres().await;
    let mut other = PgConnection::connect(&tables.url).await.unwrap();
    other.execute("BEGIN; LOCK TABLE sagabus.held").await.unwrap();
    let filter = HeldFilter::default();
    let waits = "SELECT CAST(pid AS text) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    tokio::select! {
        found = tables.store.held(&filter, 10) => panic!("the table is locked: {found:?}"),
        _ = eventually("the look to wait", || async { tables.sql(waits).await.pop() }) => {}
    }
    eventually("it to end", || async { tables.sql(waits).await.is_empty().then_some(()) }).await;
    // a shorter limit of the database's own stays
    let short = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 300', current_database());
        END $$";
    other.execute(short).await.unwrap();
    let began = std::time::Instant::now();
    let error = tables.store.held(&filter, 10).await.unwrap_err().to_string();
    assert!(error.contains("statement timeout") && began.elapsed() < Duration::from_secs(10), "{error}");
}
