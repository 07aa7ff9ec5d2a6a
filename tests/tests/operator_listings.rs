//! No listing of an operator reads a whole table. With a million rows `cargo run --release -p tests --bin listings`
//! measures how long each takes.

use saga_core::{HELD_GROUPS_MAX, HeldFilter, InstanceFilter, OutboxFilter};
use std::cmp::Reverse;
use tests::{
    many::{fill, numbered, questions, scans},
    tables::Tables,
    tool::{json, run},
};

const ROWS: u64 = 100_000;

async fn no_listing_reads_a_whole_table(tables: Tables) {
    fill(&tables, ROWS).await;
    for question in questions(ROWS) {
        let found = question.reads.ask(&*tables.store).await.unwrap();
        // there are no processes and no definitions, and nothing goes to nowhere
        let is_empty = ["processes", "outbox list --to nowhere"].contains(&question.command);
        assert_eq!(found == 0, is_empty, "{}: {found}", question.command);
        for plan in question.reads.plans(&tables.url).await.unwrap() {
            assert_eq!(scans(&plan), [""; 0], "{}: {plan}", question.command);
        }
    }
    // what is rare is found wherever it is, and counts end where nobody reads them any more
    let rare = HeldFilter { type_name: Some("billing.Rare".into()), ..HeldFilter::default() };
    let counted = tables.store.held_counted(&rare).await.unwrap();
    assert_eq!((counted.rows, counted.more), (ROWS / 20_000, false));
    let counted = tables.store.outbox_counted(&OutboxFilter::default()).await.unwrap();
    assert_eq!(counted.to_string(), "10000+");
    let paused = InstanceFilter { paused: true, ..InstanceFilter::default() };
    assert_eq!(tables.store.instances_counted(&paused).await.unwrap().to_string(), (ROWS / 5000).to_string());
    assert_eq!(tables.store.held_count(&HeldFilter::default()).await.unwrap(), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_listing_reads_a_whole_table() {
    no_listing_reads_a_whole_table(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_listing_reads_a_whole_table() {
    no_listing_reads_a_whole_table(Tables::sqlite().await).await;
}

/// 450 states and types are more than one statement can tell apart.
async fn no_group_is_left_out_however_many_there_are(tables: Tables) {
    let instances = "INSERT INTO {s}saga (saga, id, state, data, seq, entered, version, created_at, updated_at)
        SELECT 'aaa', 'a' || n, 'S' || n, '{}', 1, 1, 1, {now} - 500 * {minute}, {now} - n * {minute}";
    tables.sql(&numbered(instances, 450)).await;
    tables.instance("7", "Waiting", None).await;
    tables.sql("UPDATE {s}saga SET saga = 'zebra' WHERE id = '7'").await;
    let held = "INSERT INTO {s}held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, envelope,
            body)
        SELECT 'ordering', 'charge', 'm' || n, 'failed', 'no', 1, {now} - {minute}, 't' || (n % 450), '{}', {body}";
    tables.sql(&numbered(held, 450)).await;

    let store = &tables.store;
    let all = store.instances(&InstanceFilter::default(), 1000).await.unwrap();
    assert!(all.len() == 451 && all.is_sorted_by_key(|it| Reverse(it.updated_at_us)), "{}", all.len());
    let page = store.instances(&InstanceFilter::default(), 20).await.unwrap();
    assert!(page.iter().zip(&all).all(|(one, other)| one.id == other.id) && page.len() == 20, "{page:?}");
    assert_eq!(store.instances_counted(&InstanceFilter::default()).await.unwrap().to_string(), "451");
    assert_eq!(store.instances_count(&InstanceFilter::default()).await.unwrap(), 451);
    let zebra = InstanceFilter { saga: Some("zebra".into()), ..InstanceFilter::default() };
    assert_eq!(store.instances(&zebra, 5).await.unwrap().len(), 1);
    let s7 = InstanceFilter { state: Some("S7".into()), ..InstanceFilter::default() };
    assert_eq!(store.instances_counted(&s7).await.unwrap().to_string(), "1");
    assert_eq!(store.forms().await.unwrap().len(), 451);
    let status = store.status().await.unwrap();
    assert_eq!((status.instances.len(), status.endpoints[0].held[0].count), (451, 450));
    let held = store.held(&HeldFilter::default(), 1000).await.unwrap();
    assert!(held.len() == 450 && held.is_sorted_by_key(|it| it.arrival), "{}", held.len());
    assert_eq!(store.held_groups(&HeldFilter::default()).await.unwrap().len(), HELD_GROUPS_MAX);
    let one = HeldFilter { type_name: Some("t9".into()), ..HeldFilter::default() };
    assert_eq!(store.held_groups(&one).await.unwrap().len(), 1);

    let url = &[tables.url.as_str()];
    assert_eq!(run(url, &["sagas", "list", "--saga", "ZEBRA"]).1.lines().count(), 1);
    let (code, out, _) = run(url, &["check"]);
    assert!(code == 1 && out.contains("zebra\tWaiting\t1\t1"), "{out}");
    let versions = json(&run(url, &["--json", "versions"]).1);
    assert_eq!((&versions[1]["saga"], &versions[1]["open"]), (&"zebra".into(), &1.into()), "{versions}");
    let (_, out, err) = run(url, &["held", "groups"]);
    assert_eq!((out.lines().count(), err.as_str()), (HELD_GROUPS_MAX, "200 of 200+ shown\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_group_is_left_out_however_many_there_are() {
    no_group_is_left_out_however_many_there_are(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_group_is_left_out_however_many_there_are() {
    no_group_is_left_out_however_many_there_are(Tables::sqlite().await).await;
}

/// Groups are those of the first and the last 30,000 messages; a list has the first 60,000.
async fn what_was_not_looked_at_is_not_said_to_be_nowhere(tables: Tables) {
    let held = "INSERT INTO {s}held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, envelope,
            body)
        SELECT 'ordering', 'charge', 'm' || n, 'failed',
            CASE n WHEN 33000 THEN 'middle' WHEN 63000 THEN 'late' ELSE 'no' END, 1, {now} - {minute}, 't', '{}',
            {body}";
    tables.sql(&numbered(held, 66_500)).await;
    let url = &[tables.url.as_str()];
    for error in ["middle", "nowhere"] {
        let (code, out, err) = run(url, &["held", "groups", "--error", error]);
        let told = err.starts_with("nothing that was looked at matches, but there is more: ");
        assert!(code == 0 && out.is_empty() && told && !err.contains("no held message matches"), "{error}: {out}{err}");
        let (_, out, err) = run(url, &["--json", "held", "groups", "--error", error]);
        assert_eq!((json(&out), err.as_str()), (serde_json::json!([]), "0 of 0+ shown\n"), "{error}");
    }
    assert_eq!(run(url, &["held", "groups", "--error", "late"]).1.lines().count(), 1);
    let note = |error: &str| {
        run(url, &["held", "note", "--reason-is", "failed", "--type", "t", "--error", error, "the bank is asked"])
    };
    assert_eq!(note("late"), (0, "noted\n".into(), String::new()), "a list does not look so far");
    let (code, _, err) = note("nowhere");
    assert!(code == 1 && err.contains("no held message matches"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_what_was_not_looked_at_is_not_said_to_be_nowhere() {
    what_was_not_looked_at_is_not_said_to_be_nowhere(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_what_was_not_looked_at_is_not_said_to_be_nowhere() {
    what_was_not_looked_at_is_not_said_to_be_nowhere(Tables::sqlite().await).await;
}

/// Of 20 types each is looked at up to 3,000 messages.
async fn a_group_says_that_there_is_more_and_since_when_its_last_is_held(tables: Tables) {
    let held = "INSERT INTO {s}held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, envelope,
            body)
        SELECT 'ordering', 'charge', 'm' || n, 'failed', 'no', 1, {now} - ({rows} - n) * {minute} / 100,
            CASE WHEN n % 13300 = 7 THEN 'rare' ELSE 't' || (n % 19) END, '{}', {body}";
    tables.sql(&numbered(held, 66_500)).await;
    let groups = tables.store.held_groups(&HeldFilter::default()).await.unwrap();
    assert_eq!(groups.len(), 20);
    for group in &groups {
        let is_rare = group.type_name == "rare";
        assert_eq!((group.count, group.more), if is_rare { (5, false) } else { (3000, true) }, "{group:?}");
        // a message came every 600 ms, of a type every 11.4 s
        let hours = (group.last_us - group.first_us) as f64 / 3_600_000_000.0;
        assert!(is_rare || (hours - 11.08).abs() < 0.05, "{hours} from the first to the last: {group:?}");
    }
    let out = run(&[&tables.url], &["held", "groups"]).1;
    assert!(out.contains("3000+\tfailed\tt1\t") && out.contains("\n5\tfailed\trare\t"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_group_says_that_there_is_more_and_since_when_its_last_is_held() {
    a_group_says_that_there_is_more_and_since_when_its_last_is_held(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_group_says_that_there_is_more_and_since_when_its_last_is_held() {
    a_group_says_that_there_is_more_and_since_when_its_last_is_held(Tables::sqlite().await).await;
}

#[test]
fn a_walk_over_the_inbox_is_a_scan_and_a_look_into_it_is_none() {
    let walk = "GroupAggregate  (cost=1.00 rows=1)
        ->  Index Only Scan using inbox_handled on inbox  (cost=0.42 rows=1)
              Index Cond: (handled_at > statement_timestamp())
        ->  Index Only Scan using inbox_handled on inbox i  (cost=0.42 rows=1)
              Index Cond: ((endpoint = 'e'::text) AND (handled_at > statement_timestamp()))
        ->  Bitmap Index Scan on inbox_journal  (cost=0.42 rows=1)
              Index Cond: (saga_id = '7'::text)
        ->  Index Scan Backward using inbox_pkey on inbox  (cost=0.42 rows=1)
              Filter: (conversation_id = 'c'::text)";
    let found = scans(walk);
    assert!(found.len() == 2 && found[0].contains("inbox_handled") && found[1].contains("inbox_pkey"), "{found:?}");
    let walk = "SCAN sagabus_inbox USING INDEX sagabus_inbox_handled
        SEARCH sagabus_inbox USING COVERING INDEX sagabus_inbox_handled (endpoint=? AND handled_at>?)
        SCAN sagabus_inbox";
    assert_eq!(scans(walk).len(), 2);
}
