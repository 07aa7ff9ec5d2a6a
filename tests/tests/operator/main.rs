//! What an operator reads and does, on both databases. The rows are inserted by SQL: no endpoint runs.

use saga_core::{
    AgeFilter, Envelope, HeldFilter, HeldReason, HeldRef, Inspect, InstanceFilter, InstanceKey, OperationFilter,
    OutboxFilter, Store, hash_of,
};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tests::{
    Database, PgBouncer, eventually,
    tables::{Held, Tables},
};

/// Runs a test on both databases.
macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(tests::tables::Tables::postgres().await).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(tests::tables::Tables::sqlite().await).await;
            })+
        }
    };
}

mod limits;
mod retries;
mod stranded;

suite! {
    a_discarded_message_frees_its_instance,
    a_discarded_message_that_pauses_nothing_wakes_nobody,
    r_022_a_retried_message_goes_to_its_receiver_with_its_runs,
    r_025_an_edited_message_goes_to_its_receiver_and_its_old_body_is_kept,
    r_025_an_edit_that_cannot_be_carried_out_changes_nothing,
    a_message_that_nobody_knew_is_judged_anew,
    an_action_takes_what_was_listed_and_nothing_else,
    what_waits_behind_another_keeps_its_place,
    a_filter_lists_and_counts_the_same,
    instances_are_found_by_state_and_age,
    a_timeline_keeps_the_newest_lines_in_order,
    an_instance_shows_what_it_sent_and_what_is_put_off_for_it,
    a_status_tells_what_goes_on_by_itself_from_what_does_not,
    a_body_is_shown_byte_by_byte,
    r_027_of_two_operators_at_once_one_acts_and_the_other_is_told,
}

/// The held rows that a filter finds.
async fn refs(tables: &Tables, filter: &HeldFilter) -> Vec<HeldRef> {
    tables.store.held(filter, 1000).await.unwrap().iter().map(|held| held.row()).collect()
}

async fn of_message(tables: &Tables, message_id: &str) -> Vec<HeldRef> {
    refs(tables, &HeldFilter { message_id: Some(message_id.into()), ..HeldFilter::default() }).await
}

async fn a_discarded_message_frees_its_instance(tables: Tables) {
    tables.instance("7", "AwaitingShipment", Some("poison")).await;
    tables.instance("8", "AwaitingShipment", Some("other")).await;
    tables.hold(&Held { message_id: "poison", reason: "undecodable", ..Held::default() }).await;
    tables.hold(&Held { message_id: "right", reason: "paused", attempts: 0, ..Held::default() }).await;
    let done = tables.store.held_discard(&of_message(&tables, "poison").await, "ann", "not a label").await;
    assert!(done.stopped.is_none(), "{done:?}");
    assert_eq!(done.count("discarded"), 1, "{done:?}");
    let paused = "SELECT paused_by FROM {s}saga WHERE id = ";
    assert_eq!(tables.one(&format!("{paused}'7'")).await, None, "nothing pauses it any more");
    assert_eq!(tables.one(&format!("{paused}'8'")).await.as_deref(), Some("other"), "it has nothing to do with it");
    assert_eq!(refs(&tables, &HeldFilter::default()).await, of_message(&tables, "right").await);
    // a running endpoint, which gets a wake-up, offers what waits behind it
    let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!((sent[0].kind.as_str(), sent[0].destination.as_str()), ("retry", "ordering"));
    assert_eq!(sent[0].type_name, Envelope::WAKE);
    let envelope: Envelope = serde_json::from_value(sent[0].envelope.clone()).unwrap();
    let from = envelope.saga.expect("a wake-up names the instance");
    assert_eq!((from.saga.as_str(), from.id.as_str(), envelope.receiver.as_deref()), ("order", "7", Some("order")));
    assert_eq!(tables.store.outbox_body(&sent[0].id).await.unwrap().unwrap(), b"{}");
    // it is settled for good, and the note says by whom and why
    let row = "FROM {s}inbox WHERE message_id = 'poison'";
    assert_eq!(tables.one(&format!("SELECT result {row}")).await.as_deref(), Some("discarded"));
    assert_eq!(tables.one(&format!("SELECT note {row}")).await.as_deref(), Some("discarded by ann: not a label"));
    let settled = format!("SELECT 'now' {row} AND handled_at > {{now}} - {{minute}} / 2");
    assert_eq!(tables.one(&settled).await.as_deref(), Some("now"), "it was settled now, not when it was held");
    let filter =
        OperationFilter { saga: Some("order".into()), saga_id: Some("7".into()), ..OperationFilter::default() };
    let operations = tables.store.operations(&filter, 10).await.unwrap();
    assert_eq!(operations.len(), 1, "{operations:?}");
    let done = &operations[0];
    assert_eq!((done.who.as_str(), done.action.as_str(), done.reason.as_str()), ("ann", "held discard", "not a label"));
    assert_eq!((done.items[0].message_id.as_str(), done.items[0].result.as_str()), ("poison", "discarded"));
}

async fn a_discarded_message_that_pauses_nothing_wakes_nobody(tables: Tables) {
    tables.instance("7", "AwaitingShipment", Some("poison")).await;
    tables.hold(&Held { message_id: "right", reason: "paused", ..Held::default() }).await;
    tables.hold(&Held { message_id: "handled", receiver: "charge", saga_id: None, ..Held::default() }).await;
    let all = refs(&tables, &HeldFilter::default()).await;
    let done = tables.store.held_discard(&all, "ann", "why").await;
    assert_eq!(done.count("discarded"), 2, "{done:?}");
    assert_eq!(tables.store.outbox_count(&OutboxFilter::default()).await.unwrap(), 0);
    assert_eq!(tables.one("SELECT paused_by FROM {s}saga").await.as_deref(), Some("poison"));
}

async fn r_022_a_retried_message_goes_to_its_receiver_with_its_runs(tables: Tables) {
    tables.hold(&Held { attempts: 16, ..Held::default() }).await;
    let done = tables.store.held_retry(&of_message(&tables, "m").await, "ann", "the table is back").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    assert_eq!(tables.store.held_count(&HeldFilter::default()).await.unwrap(), 0);
    let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let row = &sent[0];
    assert_eq!((row.kind.as_str(), row.destination.as_str(), row.message_id.as_str()), ("retry", "ordering", "m"));
    let envelope: Envelope = serde_json::from_value(row.envelope.clone()).unwrap();
    assert_eq!((envelope.attempt, envelope.receiver.as_deref()), (16, Some("order")));
    assert_eq!(envelope.sender.as_deref(), Some("payment"), "all else stays");
    // those of its sender, by which timers are found
    assert_eq!((row.saga.as_deref(), row.saga_id.as_deref()), (Some("asker"), Some("9")));
    assert_eq!(tables.one("SELECT CAST(timer AS text) FROM {s}outbox").await.as_deref(), Some("4"));
    assert_eq!(tables.one("SELECT 'due' FROM {s}outbox WHERE due_at <= {now}").await.as_deref(), Some("due"));
    assert_eq!(tables.store.outbox_body(&row.id).await.unwrap().unwrap(), br#"{"a":1}"#);
    let inbox = "SELECT result || ' ' || attempts || ' ' || round || ' ' || note FROM {s}inbox";
    assert_eq!(tables.one(inbox).await.as_deref(), Some("retrying 16 0 retried by ann: the table is back"));
    let filter = OperationFilter { message_id: Some("m".into()), ..OperationFilter::default() };
    assert_eq!(tables.store.operations(&filter, 5).await.unwrap()[0].items[0].result, "retried");
}

async fn r_025_an_edited_message_goes_to_its_receiver_and_its_old_body_is_kept(tables: Tables) {
    tables.hold(&Held { attempts: 16, ..Held::default() }).await;
    let row = &of_message(&tables, "m").await[0];
    let body = r#"{ "a": "é\u0000" }"#;
    let done = tables.store.held_edit(row, body, "ann", "the sender's bug").await.unwrap();
    assert_eq!((done.result.as_str(), done.old_body.as_deref()), ("edited", Some(r#"{"a":1}"#)));
    assert_eq!(tables.store.held_count(&HeldFilter::default()).await.unwrap(), 0);
    let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    assert_eq!((sent.len(), sent[0].kind.as_str(), sent[0].message_id.as_str()), (1, "retry", "m"));
    assert_eq!((&sent[0].envelope["attempt"], &sent[0].envelope["receiver"]), (&16.into(), &"order".into()));
    assert_eq!(tables.store.outbox_body(&sent[0].id).await.unwrap().unwrap(), body.as_bytes());
    // the inbox knows the message by its new body
    let hash = Envelope::new("m", "payment.Paid", body).body_hash();
    let inbox = tables.one("SELECT result || ' ' || body_hash || ' ' || note FROM {s}inbox").await.unwrap();
    assert_eq!(inbox, format!("retrying {hash} edited by ann: the sender's bug"));
    let filter = OperationFilter { message_id: Some("m".into()), ..OperationFilter::default() };
    let operation = &tables.store.operations(&filter, 5).await.unwrap()[0];
    assert_eq!((operation.action.as_str(), operation.reason.as_str()), ("held edit", "the sender's bug"));
    assert_eq!(operation.items, [done]);
}

async fn r_025_an_edit_that_cannot_be_carried_out_changes_nothing(tables: Tables) {
    tables.instance("7", "AwaitingShipment", Some("poison")).await;
    tables.hold(&Held { message_id: "poison", ..Held::default() }).await;
    tables.hold(&Held { message_id: "right", reason: "paused", ..Held::default() }).await;
    let poison = &of_message(&tables, "poison").await[0];
    let refused = tables.store.held_edit(poison, "{'a':1}", "ann", "why").await.unwrap_err().to_string();
    assert!(refused.contains("not JSON") && refused.contains("line 1 column 2"), "{refused}");
    let same = tables.store.held_edit(poison, r#"{"a":1}"#, "ann", "why").await.unwrap();
    assert_eq!(same.result, "unchanged");
    assert_eq!(tables.store.operations(&OperationFilter::default(), 5).await.unwrap().len(), 0);
    let waits = tables.store.held_edit(&of_message(&tables, "right").await[0], "{}", "ann", "why").await.unwrap();
    assert_eq!((waits.result.as_str(), waits.old_body), ("waits", None));
    let gone = HeldRef { arrival: poison.arrival + 100, ..poison.clone() };
    assert_eq!(tables.store.held_edit(&gone, "{}", "ann", "why").await.unwrap().result, "gone");
    assert_eq!(tables.sql("SELECT DISTINCT CAST(body_hash AS text) FROM {s}inbox").await, [Some("1".into())]);
    for row in refs(&tables, &HeldFilter::default()).await {
        assert_eq!(tables.store.held_body(&row).await.unwrap().unwrap(), br#"{"a":1}"#);
    }
    assert_eq!(tables.store.outbox_count(&OutboxFilter::default()).await.unwrap(), 0);
}

async fn a_message_that_nobody_knew_is_judged_anew(tables: Tables) {
    tables.hold(&Held { receiver: "", reason: "undecodable", saga_id: None, ..Held::default() }).await;
    let done = tables.store.held_retry(&of_message(&tables, "m").await, "ann", "deployed").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    assert_eq!(tables.sql("SELECT result FROM {s}inbox").await, [], "nothing is known of it any more");
    let sent = tables.store.outbox(&OutboxFilter::default(), 10).await.unwrap();
    let envelope: Envelope = serde_json::from_value(sent[0].envelope.clone()).unwrap();
    assert_eq!((envelope.attempt, envelope.receiver), (0, None), "all that listen get it");
}

async fn an_action_takes_what_was_listed_and_nothing_else(tables: Tables) {
    for n in 0..205 {
        tables.hold(&Held { message_id: &format!("m{n:03}"), saga_id: None, ..Held::default() }).await;
    }
    let listed = refs(&tables, &HeldFilter::default()).await;
    assert_eq!(listed.len(), 205);
    // meanwhile one is dealt with and held again, and another one comes
    tables.sql("DELETE FROM {s}held WHERE message_id IN ('m007', 'm008')").await;
    tables.sql("DELETE FROM {s}inbox WHERE message_id IN ('m007', 'm008')").await;
    tables.hold(&Held { message_id: "m007", saga_id: None, ..Held::default() }).await;
    tables.hold(&Held { message_id: "new", saga_id: None, ..Held::default() }).await;
    let done = tables.store.held_retry(&listed, "ann", "all of them").await;
    assert!(done.stopped.is_none(), "{:?}", done.stopped);
    assert_eq!((done.count("retried"), done.count("gone")), (203, 2));
    let left: Vec<String> = refs(&tables, &HeldFilter::default()).await.into_iter().map(|row| row.message_id).collect();
    assert_eq!(left, ["m007", "new"]);
    let operations = tables.store.operations(&OperationFilter::default(), 10).await.unwrap();
    let items: Vec<usize> = operations.iter().rev().map(|operation| operation.items.len()).collect();
    assert_eq!(items, [100, 100, 5], "each transaction is bounded, and audited by itself");
}

async fn r_027_of_two_operators_at_once_one_acts_and_the_other_is_told(tables: Tables) {
    for n in 0..20 {
        let id = format!("m{n:02}");
        tables.hold(&Held { message_id: &id, receiver: "charge", saga_id: None, ..Held::default() }).await;
        let rows = of_message(&tables, &id).await;
        let (retried, discarded) = tokio::join!(
            tables.store.held_retry(&rows, "ann", "repaired"),
            tables.store.held_discard(&rows, "bob", "no use")
        );
        let told =
            [retried.count("retried"), retried.count("gone"), discarded.count("discarded"), discarded.count("gone")];
        assert!([[1, 0, 0, 1], [0, 1, 1, 0]].contains(&told), "{retried:?} {discarded:?}");
        let sent = format!("SELECT CAST(count(*) AS text) FROM {{s}}outbox WHERE message_id = '{id}'");
        let result = format!("SELECT result FROM {{s}}inbox WHERE message_id = '{id}'");
        let is = (tables.one(&sent).await, tables.one(&result).await);
        let expected = if told[0] == 1 { ("1", "retrying") } else { ("0", "discarded") };
        assert_eq!((is.0.as_deref(), is.1.as_deref()), (Some(expected.0), Some(expected.1)));
    }
}

async fn what_waits_behind_another_keeps_its_place(tables: Tables) {
    tables.instance("7", "AwaitingShipment", Some("poison")).await;
    tables.hold(&Held { message_id: "right", reason: "paused", ..Held::default() }).await;
    let done = tables.store.held_retry(&of_message(&tables, "right").await, "ann", "hurry").await;
    assert_eq!(done.count("waits"), 1, "{done:?}");
    assert_eq!(tables.store.held_count(&HeldFilter::default()).await.unwrap(), 1);
    assert_eq!(tables.store.outbox_count(&OutboxFilter::default()).await.unwrap(), 0);
}

async fn a_filter_lists_and_counts_the_same(tables: Tables) {
    tables.hold(&Held { message_id: "a1", ..Held::default() }).await;
    tables.hold(&Held { message_id: "a2", reason: "paused", saga_id: Some("8"), ..Held::default() }).await;
    tables.hold(&Held { message_id: "b_", type_name: "o.T", error: "No TABLE at all", ..Held::default() }).await;
    tables
        .hold(&Held { message_id: "bx", receiver: "charge", saga_id: None, error: "50% off", ..Held::default() })
        .await;
    let filter = HeldFilter::default;
    let text = |text: &str| Some(text.to_owned());
    tables.sql("UPDATE {s}held SET held_at = {now} - 60 * {minute} WHERE message_id = 'b_'").await;
    let half_an_hour = Some(Duration::from_secs(1800));
    let cases: [(HeldFilter, &[&str]); 14] = [
        (filter(), &["a1", "a2", "b_", "bx"]),
        (HeldFilter { message_id: text("a"), ..filter() }, &["a1", "a2"]),
        (HeldFilter { message_id: text("b_"), ..filter() }, &["b_"]),
        (HeldFilter { endpoint: text("payment"), ..filter() }, &[]),
        (HeldFilter { reason: Some(HeldReason::Paused), ..filter() }, &["a2"]),
        (HeldFilter { receiver: text("charge"), ..filter() }, &["bx"]),
        (HeldFilter { saga: text("order"), ..filter() }, &["a1", "a2", "b_"]),
        (HeldFilter { saga_id: text("8"), ..filter() }, &["a2"]),
        (HeldFilter { type_name: text("o.T"), ..filter() }, &["b_"]),
        (HeldFilter { error: text("no table"), ..filter() }, &["a1", "a2", "b_"]),
        (HeldFilter { error: text("50%"), ..filter() }, &["bx"]),
        (HeldFilter { needs_person: true, ..filter() }, &["a1", "b_", "bx"]),
        (HeldFilter { age: AgeFilter { older_than: half_an_hour, newer_than: None }, ..filter() }, &["b_"]),
        (HeldFilter { age: AgeFilter { older_than: None, newer_than: half_an_hour }, ..filter() }, &["a1", "a2", "bx"]),
    ];
    for (filter, expected) in cases {
        let found: Vec<String> = refs(&tables, &filter).await.into_iter().map(|row| row.message_id).collect();
        assert_eq!(found, expected, "{filter:?}");
        assert_eq!(tables.store.held_count(&filter).await.unwrap(), expected.len() as u64, "{filter:?}");
    }
    assert_eq!(tables.store.held(&filter(), 3).await.unwrap().len(), 3, "a limit is a limit");
}

async fn instances_are_found_by_state_and_age(tables: Tables) {
    tables.instance("old", "Waiting", None).await;
    tables.instance("new", "Waiting", Some("m")).await;
    tables.instance("-5", "Done", None).await;
    tables.sql("UPDATE {s}saga SET updated_at = {now} - 60 * {minute} WHERE id = 'old'").await;
    tables.sql("UPDATE {s}saga SET completed_at = {now}, updated_at = {now} WHERE id = '-5'").await;
    let ids = async |filter: InstanceFilter| {
        let found: Vec<String> =
            tables.store.instances(&filter, 10).await.unwrap().into_iter().map(|instance| instance.id).collect();
        assert_eq!(tables.store.instances_count(&filter).await.unwrap(), found.len() as u64, "{filter:?}");
        found
    };
    let filter = InstanceFilter::default;
    assert_eq!(ids(filter()).await, ["-5", "new", "old"], "last changed first");
    assert_eq!(ids(InstanceFilter { state: Some("Waiting".into()), ..filter() }).await, ["new", "old"]);
    assert_eq!(ids(InstanceFilter { paused: true, ..filter() }).await, ["new"]);
    assert_eq!(ids(InstanceFilter { open: true, ..filter() }).await, ["new", "old"]);
    assert_eq!(ids(InstanceFilter { id: Some("-".into()), ..filter() }).await, ["-5"]);
    let stuck = |minutes: u64| InstanceFilter { unchanged_for: Some(Duration::from_secs(60 * minutes)), ..filter() };
    assert_eq!(ids(stuck(30)).await, ["old"]);
    assert_eq!(ids(stuck(0)).await, ["old", "new", "-5"], "longest unchanged first");
    let shown = tables.store.instances(&InstanceFilter { id: Some("new".into()), ..filter() }, 1).await.unwrap();
    assert_eq!(shown[0].data["amount"], 5);
    assert_eq!(shown[0].paused_by.as_deref(), Some("m"));
}

async fn a_timeline_keeps_the_newest_lines_in_order(tables: Tables) {
    for n in 0..6 {
        let message = format!("m{n}");
        tables.hold(&Held { message_id: &message, ..Held::default() }).await;
        // all at the same time, as a batch writes them; one led to no transition
        let seq = if n == 3 { "NULL".into() } else { (n + 1).to_string() };
        let effects = r#"[{"type":"payment.MakePayment"}]"#;
        let set = format!("result = 'handled', seq = {seq}, effects = '{effects}'");
        tables.sql(&format!("UPDATE {{s}}inbox SET {set} WHERE message_id = '{message}'")).await;
    }
    tables.sql("UPDATE {s}inbox SET handled_at = {now} - 9 * {minute}").await;
    let key = InstanceKey { saga: "order".into(), id: "7".into() };
    assert_eq!(tables.store.journal_count(&key).await.unwrap(), 6);
    let all = tables.store.journal(&key, 100).await.unwrap();
    let seqs: Vec<i64> = all.iter().filter_map(|line| line.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 5, 6]);
    assert_eq!(all[0].effects[0]["type"], "payment.MakePayment");
    tables.sql("UPDATE {s}inbox SET handled_at = {now} WHERE seq >= 5").await;
    let newest = tables.store.journal(&key, 2).await.unwrap();
    assert_eq!(newest.iter().map(|line| line.seq).collect::<Vec<_>>(), [Some(5), Some(6)]);
}

async fn an_instance_shows_what_it_sent_and_what_is_put_off_for_it(tables: Tables) {
    tables.send("timer", "ordering", 5, "", "").await;
    tables.send("command", "payment", 0, ", last_error, attempts", ", 'refused', 2").await;
    // a message to the instance that is put off; and one that does not concern the instance
    tables.hold(&Held { message_id: "put-off", ..Held::default() }).await;
    tables.sql("UPDATE {s}inbox SET result = 'retrying'").await;
    tables.send("retry", "ordering", 1, ", last_error", ", 'no table'").await;
    let received = "message_id = 'put-off', saga = NULL, saga_id = NULL, envelope";
    let set = format!("{received} = '{{\"attempt\":8,\"receiver\":\"order\"}}'");
    tables.sql(&format!("UPDATE {{s}}outbox SET {set} WHERE kind = 'retry'")).await;
    tables.send("event", "shipped", 0, "", "").await;
    tables.sql("UPDATE {s}outbox SET saga_id = '8' WHERE kind = 'event'").await;
    let filter = OutboxFilter { saga: Some("order".into()), saga_id: Some("7".into()), ..OutboxFilter::default() };
    let rows = tables.store.outbox(&filter, 10).await.unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["command", "retry", "timer"], "{rows:?}");
    assert_eq!((rows[0].last_error.as_deref(), rows[0].attempts), (Some("refused"), 2));
    assert_eq!((rows[1].last_error.as_deref(), &rows[1].envelope["attempt"]), (Some("no table"), &8.into()));
    let failing = OutboxFilter { failing: true, ..OutboxFilter::default() };
    assert_eq!(tables.store.outbox_count(&failing).await.unwrap(), 1, "the run of the retry failed, not its way");
    let by_id = OutboxFilter { id: Some(rows[2].id[..36].into()), ..OutboxFilter::default() };
    assert_eq!(tables.store.outbox_count(&by_id).await.unwrap(), 1);
}

async fn a_status_tells_what_goes_on_by_itself_from_what_does_not(tables: Tables) {
    tables.send("command", "payment", -3, "", "").await;
    tables.send("timer", "ordering", -1, "", "").await; // overdue: on its way like any other
    tables.send("timer", "ordering", 9, "", "").await;
    tables.send("timer", "ordering", 90, "", "").await;
    tables.send("retry", "ordering", 1, ", last_error", ", 'no table charge'").await;
    tables.send("command", "payment", 7, "", "").await;
    tables.send("event", "shipped", 1, ", attempts, last_error", ", 2, 'the broker refuses'").await;
    tables.send("command", "warehouse", 2, ", waits_for, attempts", ", 'warehouse', 5").await;
    tables.instance("7", "Waiting", Some("m")).await;
    tables.hold(&Held::default()).await;
    tables.hold(&Held { message_id: "n", reason: "paused", ..Held::default() }).await;
    for (n, result) in ["handled", "ignored", "discarded", "retrying", "suspect"].iter().enumerate() {
        let message = format!("r{n}");
        tables.hold(&Held { message_id: &message, ..Held::default() }).await;
        let sql =
            format!("UPDATE {{s}}inbox SET result = '{result}', handled_at = {{now}} WHERE message_id = '{message}'");
        tables.sql(&sql).await;
        tables.sql(&format!("DELETE FROM {{s}}held WHERE message_id = '{message}'")).await;
    }
    let report = r#"{"link":"refused","breakers":["charge"]}"#;
    tables
        .sql(&format!(
            "INSERT INTO {{s}}process (owner, endpoint, started_at, seen_at, subscribes, types, report)
             VALUES ('p-1', 'ordering', {{now}} - {{minute}}, {{now}}, '[]', '[]', '{report}')"
        ))
        .await;
    let status = tables.store.status().await.unwrap();
    assert_eq!(status.endpoints.len(), 1, "{status:?}");
    let ordering = &status.endpoints[0];
    assert_eq!(ordering.endpoint, "ordering");
    let counts = [&ordering.due, &ordering.failing, &ordering.retrying, &ordering.timers, &ordering.delayed];
    assert_eq!(counts.map(|rows| rows.count), [2, 1, 1, 2, 1], "{ordering:?}");
    assert!(ordering.due.oldest_ms.is_some_and(|ms| (170_000..300_000).contains(&ms)), "{ordering:?}");
    assert!(ordering.timers.oldest_ms.is_some_and(|ms| ms < -400_000), "the next one lies ahead: {ordering:?}");
    assert_eq!(ordering.retrying.error.as_deref(), Some("no table charge"));
    assert_eq!(ordering.failing.error.as_deref(), Some("the broker refuses"));
    assert_eq!((ordering.unroutable[0].destination.as_str(), ordering.unroutable[0].count), ("warehouse", 1));
    assert!(ordering.unroutable[0].oldest_ms > 50_000, "{ordering:?}");
    let held: Vec<(&str, i64)> = ordering.held.iter().map(|held| (held.reason.as_str(), held.count)).collect();
    assert_eq!(held, [("failed", 1), ("paused", 1)]);
    assert!(ordering.held[0].oldest_ms > 50_000, "{ordering:?}");
    assert_eq!(ordering.handled_last_minute, 3, "runs that failed are not handled");
    assert_eq!(ordering.processes[0].owner, "p-1");
    assert_eq!(ordering.processes[0].report["link"], "refused");
    assert!(ordering.unconfirmed_ms.is_some_and(|ms| ms > 170_000), "{ordering:?}");
    let state = &status.instances[0];
    assert_eq!((state.saga.as_str(), state.count, state.paused, state.done), ("order", 1, 1, 0));
}

async fn a_body_is_shown_byte_by_byte(tables: Tables) {
    tables.hold(&Held::default()).await;
    let row = &of_message(&tables, "m").await[0];
    assert_eq!(tables.store.held_body(row).await.unwrap().unwrap(), br#"{"a":1}"#);
    let gone = HeldRef { arrival: row.arrival + 1, ..row.clone() };
    assert_eq!(tables.store.held_body(&gone).await.unwrap(), None);
}

/// A unit of work of a running endpoint holds the instance: the action waits for the unit, and then acts on what the
/// unit left.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_waits_for_the_unit_of_work_that_has_the_instance() {
    let tables = Tables::postgres().await;
    tables.instance("7", "AwaitingShipment", Some("m")).await;
    tables.hold(&Held::default()).await;
    let listed = of_message(&tables, "m").await;
    let mut unit = PgConnection::connect(&tables.url).await.unwrap();
    let lock = hash_of([b"order".as_slice(), b"7"]);
    unit.execute(&*format!("BEGIN; SELECT pg_advisory_xact_lock({lock})")).await.unwrap();
    let acting = tables.store.held_discard(&listed, "ann", "why");
    let working = async {
        eventually("the action to wait for the lock", || async {
            let waits = "SELECT 'waits' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            tables.sql(waits).await.pop()
        })
        .await;
        unit.execute("DELETE FROM sagabus.held; UPDATE sagabus.saga SET paused_by = NULL; COMMIT").await.unwrap();
    };
    let (done, ()) = tokio::join!(acting, working);
    assert_eq!(done.count("gone"), 1, "{done:?}");
    assert_eq!(tables.store.outbox_count(&OutboxFilter::default()).await.unwrap(), 0);
}

/// Behind a pooler each transaction may have another session of the server.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(pgbouncer), ignore = "pgbouncer is not installed")]
async fn listings_and_actions_work_behind_pgbouncer() {
    let database = Database::create().await;
    database.store().migrate().await.unwrap();
    let pooler = PgBouncer::start(&database).await;
    let store = pooler.store();
    for _ in 0..10 {
        assert_eq!(store.held_count(&HeldFilter::default()).await.unwrap(), 0);
        assert!(store.status().await.unwrap().endpoints.is_empty());
        let row = HeldRef { endpoint: "e".into(), receiver: "r".into(), message_id: "m".into(), arrival: 1 };
        let done = store.held_retry(&[row], "ann", "why").await;
        assert_eq!(done.count("gone"), 1, "{done:?}");
    }
}
