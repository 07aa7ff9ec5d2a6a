//! Of more rows than are shown or counted, the right ones are.

use outbox::Postgres;
use saga_core::{HeldFilter, Inspect, InstanceFilter, OperationFilter};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tests::{
    eventually,
    many::numbered,
    tables::{Held, Tables},
    tool::run,
};

suite! {
    a_list_shows_the_first_in_its_order_whatever_index_finds_them,
    the_paused_instances_of_one_saga_hide_no_others,
    what_is_asked_of_items_is_asked_of_the_newest_operations_and_said,
    a_conversation_is_looked_for_among_the_newest_messages_and_said,
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

async fn what_is_asked_of_items_is_asked_of_the_newest_operations_and_said(tables: Tables) {
    let (id, json) = ("'01997a10-0000-7000-8000-' || (100000000000 + n)", "json");
    let (id, json) = if tables.is_postgres() { (format!("CAST({id} AS uuid)"), json) } else { (id.into(), "text") };
    let items = r#"'[{"endpoint":"e","receiver":"order","message_id":"m' || n ||
        '","saga":"order","saga_id":"7","result":"retried"}]'"#;
    let sql = format!(
        "INSERT INTO {{s}}operation (id, at, who, action, reason, items)
         SELECT {id}, {{now}} - ({{rows}} - n) * {{minute}}, 'ann',
            CASE n WHEN 1 THEN 'held note' ELSE 'held retry' END, 'why', CAST({items} AS {json})"
    );
    tables.sql(&numbered(&sql, 2100)).await;
    let of_message = |id: &str| OperationFilter { message_id: Some(id.into()), ..OperationFilter::default() };
    let found = async |filter: &OperationFilter| {
        let found = tables.store.operations(filter, 10).await.unwrap();
        (found.len(), tables.store.operations_beyond(filter).await.unwrap())
    };
    assert_eq!(found(&of_message("m2100")).await, (1, true));
    assert_eq!(found(&of_message("m1")).await, (0, true), "it is older than those that are looked at");
    let notes = OperationFilter { action: Some("held note".into()), ..OperationFilter::default() };
    assert_eq!(found(&notes).await, (1, false), "an index has the actions");
    assert_eq!(found(&OperationFilter::default()).await, (10, false));
    assert_eq!(tables.store.operations(&OperationFilter::default(), 1).await.unwrap()[0].items[0].message_id, "m2100");
    tables.instance("7", "Waiting", None).await;
    let url = &[tables.url.as_str()];
    let (_, out, _) = run(url, &["sagas", "show", "order", "7"]);
    assert!(out.contains("\nwhat operators did (of the newest 2000 operations)\n"), "{out}");
    tables.sql("DELETE FROM {s}operation WHERE at < {now} - 1999.5 * {minute}").await;
    assert_eq!(found(&of_message("m1")).await, (0, false));
    assert!(run(url, &["sagas", "show", "order", "7"]).1.contains("\nwhat operators did\n"));
}

async fn a_conversation_is_looked_for_among_the_newest_messages_and_said(tables: Tables) {
    let store = &tables.store;
    tables.hold(&Held::default()).await;
    assert_eq!(store.conversation("c", 10).await.unwrap(), ["m"], "what is held is looked at too");
    assert!(!store.conversation_beyond("c").await.unwrap());
    let sql = "INSERT INTO {s}inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
            claimed_at, handled_at, handled_by, attempts)
        SELECT 'ordering', 'charge', 'm' || n, 1, 't', 'handled', 'talk' || (n / 2), {now},
            {now} - ({rows} - n) * {minute}, 'p', 1";
    tables.sql(&numbered(sql, 60_100)).await;
    assert_eq!(store.conversation("talk30049", 10).await.unwrap(), ["m60098", "m60099"], "oldest first");
    assert_eq!(store.conversation("talk30049", 1).await.unwrap(), ["m60098"]);
    assert_eq!(store.conversation("talk7", 10).await.unwrap(), [""; 0]);
    assert!(store.conversation_beyond("talk7").await.unwrap());
    let url = &[tables.url.as_str()];
    let (code, _, err) = run(url, &["explain", "talk7"]);
    assert!(code == 1 && err.contains("among the newest messages alone"), "{err}");
    let (code, out, err) = run(url, &["explain", "talk30049"]);
    assert!(code == 0 && out.contains("m60098") && err.contains("among the newest messages alone"), "{out}{err}");
    let (_, out, err) = run(url, &["explain", "m60100"]);
    assert!(out.contains("m60100") && err.is_empty(), "by a message's id nothing is left out: {out}{err}");
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
    let mut third = PgConnection::connect(&tables.url).await.unwrap(); // the other's transaction is open
    third.execute(short).await.unwrap();
    let began = std::time::Instant::now();
    let store = Postgres::new(&tables.url).expect("the address is a PostgreSQL URL"); // sessions that know of it
    let error = store.held(&filter, 10).await.unwrap_err().to_string();
    assert!(error.contains("statement timeout") && began.elapsed() < Duration::from_secs(10), "{error}");
}
