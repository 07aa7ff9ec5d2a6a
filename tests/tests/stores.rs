//! The conformance suite of the port `Store`: every store passes the same tests. Whoever writes another one adds a line at the end.

use bytes::Bytes;
use saga_core::{
    Claim, Destination, Envelope, HeldKey, HeldReason, HeldRow, InboxResult, InboxRow, Inspect, InstanceKey,
    InstanceRow, InstanceWrite, Keys, Leases, OutboxKind, OutboxRow, PublishFailed, SagaRef, Store, StoreError,
    TimersOut, Unit, Write,
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tests::{Database, File, eventually};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn envelope(message_id: &str) -> Envelope {
    Envelope {
        message_id: message_id.into(),
        type_name: "test.Message".into(),
        conversation_id: "conversation".into(),
        causation_id: Some("cause".into()),
        saga: Some(SagaRef { saga: "sender".into(), id: "9".into(), entered: Some(2) }),
        receiver: None,
        attempt: 0,
        round: 0,
        reply_to: Some("e".into()),
        sender: Some("e".into()),
        sent_at_us: Some(1_795_000_000_123_456),
        content_type: None,
        headers: BTreeMap::from([("tenant".into(), json!("é")), ("empty".into(), json!(""))]),
        body: Bytes::from_static(b"{\"a\": 1}"),
    }
}

fn claim_row(message_id: &str) -> InboxRow {
    InboxRow {
        endpoint: "e".into(),
        receiver: "r".into(),
        envelope: Arc::new(envelope(message_id)),
        result: InboxResult::Handled,
        saga_id: None,
        seq: None,
        from_state: None,
        to_state: None,
        effects: Some(Vec::new()),
        handled_by: "me".into(),
        attempts: 1,
        note: None,
    }
}

fn outbox_row(message_id: &str, delay: Option<Duration>, leased: bool) -> OutboxRow {
    OutboxRow {
        id: Uuid::now_v7(),
        endpoint: "e".into(),
        kind: OutboxKind::Command,
        destination: Destination::Endpoint("there".into()),
        envelope: Arc::new(envelope(message_id)),
        delay,
        leased,
    }
}

fn held_row(message_id: &str, reason: HeldReason) -> HeldRow {
    HeldRow {
        endpoint: "e".into(),
        receiver: "saga".into(),
        envelope: Arc::new(envelope(message_id)),
        arrival: 0,
        reason,
        saga_id: Some("7".into()),
        error: Some("why".into()),
        attempts: 0,
        expires: None,
    }
}

fn instance(seq: i64, base_seq: i64) -> InstanceWrite {
    let row = InstanceRow {
        key: InstanceKey { saga: "saga".into(), id: "7".into() },
        state: "S".into(),
        data: r#"{"n":1}"#.into(),
        seq,
        entered: seq,
        version: 1,
        originator: Some(r#"{"reply_to":"x"}"#.into()),
        paused_by: None,
        done: false,
    };
    InstanceWrite { row, base_seq }
}

fn writes() -> Write {
    Write { endpoint: "e".into(), owner: "me".into(), lease: LEASE, ..Write::default() }
}

async fn write<S: Store>(store: &S, write: Write) -> Result<(), StoreError> {
    let mut unit = store.begin(&[1, 2]).await?;
    unit.write(&write).await?;
    unit.commit().await
}

fn keys(message_ids: &[&str]) -> Keys {
    Keys {
        endpoint: "e".into(),
        message_ids: message_ids.iter().map(|id| (*id).to_owned()).collect(),
        instances: vec![InstanceKey { saga: "saga".into(), id: "7".into() }],
        held_rows_max: 100,
    }
}

async fn claim<S: Store>(store: &S, owner: &str, sent: &[Uuid]) -> saga_core::Claimed {
    store.forget(sent).await.expect("rows are deleted");
    let claim = Claim { endpoint: "e", owner, rows_max: 100, lease: LEASE, retention: WEEK };
    store.claim(&claim).await.expect("rows are claimed")
}

/// A message is claimed once; a second claim is a conflict that changes nothing.
async fn o_001_a_message_is_claimed_once(store: impl Store + Inspect) {
    write(&store, Write { claims: vec![claim_row("m")], ..writes() }).await.unwrap();
    let again =
        Write { claims: vec![claim_row("n"), claim_row("m")], outbox: vec![outbox_row("o", None, false)], ..writes() };
    assert!(matches!(write(&store, again).await, Err(StoreError::Conflict)));
    let found = store.read(&keys(&["m", "n"])).await.unwrap();
    assert_eq!(found.inbox.iter().map(|row| row.message_id.as_str()).collect::<Vec<_>>(), ["m"]);
    assert_eq!(found.inbox[0].body_hash, envelope("m").body_hash());
    assert_eq!(store.outbox(10).await.unwrap().len(), 0, "the conflict must take everything with it");
}

/// O-011: ids are compared byte for byte.
async fn o_011_ids_are_compared_byte_for_byte(store: impl Store + Inspect) {
    let long = "x".repeat(255);
    let ids = ["M", "m", "m ", "ünïcode 🦀", "a'b\"c%_", long.as_str()];
    for id in ids {
        write(&store, Write { claims: vec![claim_row(id)], ..writes() }).await.unwrap();
        assert!(
            matches!(write(&store, Write { claims: vec![claim_row(id)], ..writes() }).await, Err(StoreError::Conflict)),
            "{id}"
        );
    }
    assert_eq!(store.read(&keys(&ids)).await.unwrap().inbox.len(), ids.len());
}

/// A row that waits is completed only by whoever knows how it waits.
async fn a_row_that_waits_is_settled_once(store: impl Store + Inspect) {
    let waiting = InboxRow { result: InboxResult::Retrying, attempts: 4, ..claim_row("m") };
    write(&store, Write { claims: vec![waiting], ..writes() }).await.unwrap();
    let done = || InboxRow { attempts: 5, ..claim_row("m") };
    assert!(matches!(write(&store, Write { settles: vec![(done(), 3)], ..writes() }).await, Err(StoreError::Conflict)));
    write(&store, Write { settles: vec![(done(), 4)], ..writes() }).await.unwrap();
    assert!(
        matches!(write(&store, Write { settles: vec![(done(), 5)], ..writes() }).await, Err(StoreError::Conflict)),
        "it is settled"
    );
    let found = store.read(&keys(&["m"])).await.unwrap();
    assert_eq!((found.inbox[0].result, found.inbox[0].attempts), (InboxResult::Handled, 5));
}

/// S-067: an instance that changed meanwhile is a conflict.
async fn s_067_an_instance_that_changed_is_a_conflict(store: impl Store + Inspect) {
    write(&store, Write { instances: vec![instance(1, 0)], ..writes() }).await.unwrap();
    assert!(
        matches!(write(&store, Write { instances: vec![instance(1, 0)], ..writes() }).await, Err(StoreError::Conflict)),
        "it exists"
    );
    write(&store, Write { instances: vec![instance(3, 1)], ..writes() }).await.unwrap();
    assert!(matches!(
        write(&store, Write { instances: vec![instance(2, 1)], ..writes() }).await,
        Err(StoreError::Conflict)
    ));
    let found = store.read(&keys(&[])).await.unwrap();
    assert_eq!((found.instances[0].seq, found.instances[0].originator.as_deref()), (3, Some(r#"{"reply_to":"x"}"#)));
    let data: serde_json::Value = serde_json::from_str(&found.instances[0].data).unwrap();
    assert_eq!(data, json!({ "n": 1 }));
}

/// A rolled back or dropped unit leaves nothing, and its connection is usable.
async fn a_unit_without_commit_leaves_nothing(store: impl Store + Inspect) {
    for drop_it in [true, false] {
        let mut unit = store.begin(&[1]).await.unwrap();
        unit.write(&Write { claims: vec![claim_row("m")], ..writes() }).await.unwrap();
        if drop_it { drop(unit) } else { unit.rollback().await.unwrap() }
    }
    assert!(store.read(&keys(&["m"])).await.unwrap().inbox.is_empty());
    write(&store, Write { claims: vec![claim_row("m")], ..writes() }).await.unwrap();
}

/// A savepoint parts the writes of one transaction.
async fn a_savepoint_parts_writes(store: impl Store + Inspect) {
    let mut unit = store.begin(&[]).await.unwrap();
    for (id, keep) in [("a", true), ("b", false), ("c", true)] {
        unit.savepoint().await.unwrap();
        unit.write(&Write { claims: vec![claim_row(id)], ..writes() }).await.unwrap();
        if !keep {
            unit.rollback_to_savepoint().await.unwrap();
        }
    }
    unit.commit().await.unwrap();
    let mut ids: Vec<String> =
        store.read(&keys(&["a", "b", "c"])).await.unwrap().inbox.into_iter().map(|row| row.message_id).collect();
    ids.sort();
    assert_eq!(ids, ["a", "c"]);
}

/// O-040: what the relay sends is what was written, to the byte.
async fn o_040_a_claimed_row_is_what_was_written(store: impl Store + Inspect) {
    let big = Envelope { body: format!("{{\"text\":\"{}\"}}", "é".repeat(500_000)).into(), ..envelope("big") };
    let mut foreign = envelope("foreign");
    (foreign.sender, foreign.reply_to, foreign.content_type) =
        (None, Some("amq.gen-x".into()), Some("application/json; charset=utf-8".into()));
    (foreign.receiver, foreign.attempt, foreign.round) = (Some("r".into()), 4, 1);
    let rows = [envelope("plain"), big, foreign]
        .map(|envelope| OutboxRow { envelope: Arc::new(envelope), ..outbox_row("", None, false) });
    write(&store, Write { outbox: rows.to_vec(), ..writes() }).await.unwrap();
    let claimed = claim(&store, "me", &[]).await;
    let (written, read): (Vec<_>, Vec<_>) =
        (rows.iter().map(|row| &row.envelope).collect(), claimed.rows.iter().map(|row| &row.envelope).collect());
    assert!(written == read, "the rows differ from what was written, or their order does");
    assert_eq!(claimed.rows[0].destination, Destination::Endpoint("there".into()));
}

/// Leases: what is leased is left alone, what is due goes once, what failed comes back later.
async fn leases_keep_relays_apart(store: impl Store + Inspect) {
    let rows = vec![
        outbox_row("mine", None, true),
        outbox_row("free", None, false),
        outbox_row("later", Some(Duration::from_secs(3600)), false),
    ];
    let (mine, free) = (rows[0].id, rows[1].id);
    write(&store, Write { outbox: rows, ..writes() }).await.unwrap();
    let claimed = claim(&store, "other", &[]).await;
    assert_eq!(claimed.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [free]);
    let next = claimed.next_due.expect("a row is due later");
    assert!(next > Duration::from_secs(3590) && next <= Duration::from_secs(3600), "{next:?}");
    assert!(claim(&store, "third", &[]).await.rows.is_empty(), "a leased row was claimed");

    let leases = Leases { owner: "third", lease: LEASE, renew: &[free], failed: &[] };
    assert_eq!(store.hold_leases(&leases).await.unwrap(), [free], "a lease of somebody else cannot be renewed");
    let failed = [PublishFailed { id: free, error: "no route".into(), delay: Duration::from_millis(1) }];
    let leases = Leases { owner: "other", lease: LEASE, renew: &[], failed: &failed };
    assert!(store.hold_leases(&leases).await.unwrap().is_empty());
    let again = eventually("the failed row to be due", || async { claim(&store, "other", &[]).await.rows.pop() }).await;
    assert_eq!((again.id, again.attempts), (free, 1));
    let shown = store.outbox_row(&free.to_string()).await.unwrap().expect("the row is there");
    assert_eq!(shown.last_error.as_deref(), Some("no route"));

    claim(&store, "other", &[mine, free]).await;
    assert_eq!(store.outbox(10).await.unwrap().len(), 1, "sent rows go, the later one stays");
}

/// Rule 3: the rows of a process that died are taken over when their lease has run out.
async fn o_031_a_lease_that_ran_out_is_taken_over(store: impl Store + Inspect) {
    let short = Write { lease: Duration::from_millis(1), outbox: vec![outbox_row("m", None, true)], ..writes() };
    write(&store, short).await.unwrap();
    let row = eventually("the lease to run out", || async { claim(&store, "heir", &[]).await.rows.pop() }).await;
    assert_eq!(row.attempts, 1, "a claim after a crash counts as a try");
}

/// O-033: a row that commits late, with an id below those already sent, is found.
async fn o_033_a_row_that_commits_late_is_found(store: impl Store + Inspect) {
    let late = outbox_row("late", None, false);
    write(&store, Write { outbox: vec![outbox_row("early", None, false)], ..writes() }).await.unwrap();
    assert_eq!(claim(&store, "me", &[]).await.rows.len(), 1);
    write(&store, Write { outbox: vec![late.clone()], ..writes() }).await.unwrap();
    assert_eq!(claim(&store, "me", &[]).await.rows[0].id, late.id);
}

/// S-049, S-008: the timers of a state go when it is left, deadlines when the saga is done.
async fn s_049_timers_of_a_state_go_with_it(store: impl Store + Inspect) {
    let timer = |entered: Option<i64>| {
        let mut row = outbox_row("t", Some(Duration::from_secs(3600)), false);
        row.kind = OutboxKind::Timer;
        let saga = SagaRef { saga: "saga".into(), id: "7".into(), entered };
        row.envelope = Arc::new(Envelope { saga: Some(saga), ..envelope(&row.id.to_string()) });
        row
    };
    write(
        &store,
        Write { outbox: vec![timer(Some(1)), timer(Some(2)), timer(None), outbox_row("c", None, false)], ..writes() },
    )
    .await
    .unwrap();
    let key = InstanceKey { saga: "saga".into(), id: "7".into() };
    let out = |keep_entered| Write { timers_out: vec![TimersOut { key: key.clone(), keep_entered }], ..writes() };
    write(&store, out(Some(2))).await.unwrap();
    assert_eq!(store.timers("saga", "7").await.unwrap().len(), 2, "the deadline and the present state's timer stay");
    write(&store, out(None)).await.unwrap();
    assert_eq!(store.timers("saga", "7").await.unwrap().len(), 0);
    assert_eq!(store.outbox(10).await.unwrap().len(), 1, "the command stays");
}

/// Held messages keep their order of arrival, and their bytes.
async fn held_messages_keep_order_and_bytes(store: impl Store + Inspect) {
    let bytes = Bytes::from_static(&[0xff, 0x00, b'{', 0x80]);
    let mut raw = held_row("raw", HeldReason::Undecodable);
    raw.envelope = Arc::new(Envelope { body: bytes.clone(), ..envelope("raw") });
    for row in [held_row("b", HeldReason::Early), held_row("a", HeldReason::Paused), raw] {
        write(&store, Write { held_in: vec![row], ..writes() }).await.unwrap();
    }
    write(&store, Write { held_in: vec![held_row("b", HeldReason::Paused)], ..writes() }).await.unwrap();
    let found = store.read(&keys(&[])).await.unwrap();
    let order: Vec<_> = found.held.iter().map(|row| (row.envelope.message_id.as_str(), row.reason)).collect();
    assert_eq!(order, [("b", HeldReason::Paused), ("a", HeldReason::Paused), ("raw", HeldReason::Undecodable)]);
    assert_eq!(found.held[2].envelope.body, bytes);
    assert_eq!(found.held[0].envelope.saga, envelope("").saga);
    let gone = HeldKey { receiver: "saga".into(), message_id: "a".into() };
    write(&store, Write { held_out: vec![gone], ..writes() }).await.unwrap();
    assert_eq!(store.read(&keys(&[])).await.unwrap().held.len(), 2);
}

/// Rule 8: runs after crashes are counted before they begin, and end with the settlement.
async fn a_suspect_is_counted(store: impl Store + Inspect) {
    let claim = InboxRow { result: InboxResult::Suspect, attempts: 0, ..claim_row("m") };
    for n in 1..=3 {
        assert_eq!(store.suspect(&claim).await.unwrap(), Some(n));
    }
    write(&store, Write { settles: vec![(claim_row("m"), 0)], ..writes() }).await.unwrap();
    assert_eq!(store.suspect(&claim).await.unwrap(), None, "it is settled");
}

/// O-053: old marks and done instances go, except those that a held message refers to; rule 7: what was first sent too long ago is
/// held for a person.
async fn o_053_old_rows_go_unless_something_held_needs_them(store: impl Store + Inspect) {
    let mut done = instance(1, 0);
    done.row.done = true;
    let mut other = done.clone();
    other.row.key.id = "8".into();
    let rows = Write {
        claims: vec![claim_row("old"), claim_row("kept")],
        instances: vec![done, other],
        held_in: vec![
            HeldRow { receiver: "another".into(), ..held_row("kept", HeldReason::Failed) },
            held_row("waits", HeldReason::Failed),
        ],
        outbox: vec![outbox_row("sent", None, true)],
        lease: Duration::ZERO,
        ..writes()
    };
    let charts = [tests::model::Journey::chart_named("saga")];
    store.register("e", &charts).await.unwrap();
    write(&store, rows).await.unwrap();
    assert_eq!(store.sweep("e", WEEK).await.unwrap(), 0, "nothing is old yet");
    eventually("the rows to be older than a retention of nothing", || async {
        store.sweep("e", Duration::ZERO).await.unwrap();
        let found = store.read(&keys(&["old", "kept"])).await.unwrap();
        (found.inbox.len() == 1 && store.outbox(10).await.unwrap().is_empty()).then_some(())
    })
    .await;
    assert_eq!(store.read(&keys(&["old", "kept"])).await.unwrap().inbox[0].message_id, "kept");
    assert!(store.instance("saga", "7").await.unwrap().is_some(), "a held message waits for it");
    assert!(store.instance("saga", "8").await.unwrap().is_none());
    let stranded = store.held_messages("sent").await.unwrap();
    assert_eq!(stranded[0].reason, "stranded");
    assert_eq!(store.held_retry("sent", "me", "looked there").await.unwrap(), 1);
    assert_eq!(claim(&store, "me", &[]).await.rows[0].destination, Destination::Endpoint("there".into()));
}

/// S-042: an early event whose instance did not come in time is journaled as discarded; an answer stays for a person.
async fn s_042_early_messages_do_not_wait_for_ever(store: impl Store + Inspect) {
    store.register("e", &[tests::model::Journey::chart_named("saga")]).await.unwrap();
    let early = |id: &str, from: &str| {
        let saga = SagaRef { saga: from.into(), id: "7".into(), entered: None };
        let envelope = Arc::new(Envelope { type_name: "worker.Worked".into(), saga: Some(saga), ..envelope(id) });
        let claim = InboxRow {
            receiver: "saga".into(),
            result: InboxResult::Held,
            envelope: envelope.clone(),
            ..claim_row(id)
        };
        let held = HeldRow { envelope, expires: Some(Duration::ZERO), attempts: 1, ..held_row(id, HeldReason::Early) };
        Write { claims: vec![claim], held_in: vec![held], ..writes() }
    };
    write(&store, early("event", "another saga")).await.unwrap();
    write(&store, early("answer", "saga")).await.unwrap();
    eventually("the time to be up", || async {
        store.sweep("e", WEEK).await.unwrap();
        let held = store.held(10).await.unwrap();
        (held.len() == 1 && held[0].reason == "failed" && held[0].message_id == "answer").then_some(())
    })
    .await;
    let found = store.read(&keys(&["event", "answer"])).await.unwrap();
    let mut results: Vec<_> = found.inbox.iter().map(|row| (row.message_id.as_str(), row.result)).collect();
    results.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(results, [("answer", InboxResult::Held), ("event", InboxResult::Discarded)]);
}

/// A retry of a message that two endpoints of one database hold goes to both, each with its own receiver and attempts.
async fn a_retry_reaches_every_endpoint_that_holds_the_message(store: impl Store + Inspect) {
    for endpoint in ["e", "f"] {
        let held =
            HeldRow { endpoint: endpoint.into(), saga_id: None, attempts: 4, ..held_row("m", HeldReason::Failed) };
        let claim = InboxRow {
            endpoint: endpoint.into(),
            receiver: "saga".into(),
            result: InboxResult::Held,
            attempts: 4,
            ..claim_row("m")
        };
        write(&store, Write { endpoint: endpoint.into(), held_in: vec![held], claims: vec![claim], ..writes() })
            .await
            .unwrap();
    }
    assert_eq!(store.held_retry("m", "me", "repaired").await.unwrap(), 2);
    assert!(store.held(10).await.unwrap().is_empty());
    let row = claim(&store, "me", &[]).await.rows.pop().expect("a retry for e");
    assert_eq!(
        (row.destination, row.envelope.receiver.as_deref(), row.envelope.attempt),
        (Destination::Endpoint("e".into()), Some("saga"), 4)
    );
    assert_eq!(store.read(&keys(&["m"])).await.unwrap().inbox[0].result, InboxResult::Retrying);
}

/// O-056: many processes start at once on an empty database.
async fn o_056_twenty_migrations_at_once(store: impl Store + Inspect) {
    let all = futures_util::future::join_all((0..20).map(|_| store.migrate())).await;
    for done in all {
        done.unwrap();
    }
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let database = Database::create().await;
                let store = database.store();
                store.migrate().await.unwrap();
                super::$test(store).await;
            })*

            /// Rule 1: the lock comes first, the reading after it, so that what the holder wrote is seen.
            #[tokio::test(flavor = "multi_thread")]
            async fn rule_1_what_the_lock_waited_for_is_seen() {
                let database = Database::create().await;
                let store = database.store();
                store.migrate().await.unwrap();
                let mut first = store.begin(&[7]).await.unwrap();
                let second = tokio::spawn({
                    let store = store.clone();
                    async move {
                        let mut unit = store.begin(&[5, 7]).await.unwrap();
                        unit.read(&keys(&["m"])).await.unwrap()
                    }
                });
                eventually("the second to wait for the lock", || async {
                    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetch_one(store.pool()).await.unwrap();
                    (waiting > 0).then_some(())
                }).await;
                first.write(&Write { claims: vec![claim_row("m")], instances: vec![instance(1, 0)], ..writes() }).await.unwrap();
                first.commit().await.unwrap();
                let found = second.await.unwrap();
                assert_eq!((found.inbox.len(), found.instances.len()), (1, 1), "the second was expected to see what the first wrote");
            }

            /// O-057: a schema of another version is refused before anything is consumed.
            #[tokio::test(flavor = "multi_thread")]
            async fn o_057_a_newer_schema_is_refused() {
                let database = Database::create().await;
                let store = database.store();
                store.migrate().await.unwrap();
                sqlx::query("INSERT INTO sagabus.schema_version (version) VALUES (99)").execute(store.pool()).await.unwrap();
                let error = store.migrate().await.unwrap_err().to_string();
                assert!(error.contains("version 99") && error.contains("expects 1"), "{error}");
            }

            /// R-039: what PostgreSQL refuses for ever is told from what passes.
            #[tokio::test(flavor = "multi_thread")]
            async fn r_039_data_that_is_refused_for_ever_is_no_outage() {
                let database = Database::create().await;
                let store = database.store();
                store.migrate().await.unwrap();
                let mut nul = instance(1, 0);
                nul.row.state = "a\0b".into(); // no text of PostgreSQL holds it
                let refused = write(&store, Write { instances: vec![nul], ..writes() }).await;
                assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
                let mut escaped = instance(1, 0);
                escaped.row.data = r#"{"text":"\u0000"}"#.into(); // `jsonb` would refuse it
                write(&store, Write { instances: vec![escaped.clone()], ..writes() }).await.unwrap();
                assert_eq!(store.read(&keys(&[])).await.unwrap().instances[0].data, escaped.row.data);
            }
        }
        /// Rule of `BY_INDEX`: a scan that a projection needs would look dear enough to be compiled first.
        #[tokio::test(flavor = "multi_thread")]
        async fn nothing_is_compiled_in_a_unit_of_sagas() {
            let database = Database::create().await;
            let store = database.store();
            let mut unit = store.begin(&[1]).await.unwrap();
            let jit: String = sqlx::query_scalar("SHOW jit").fetch_one(unit.tx()).await.unwrap();
            assert_eq!(jit, "off");
        }
        /// Through PgBouncer in transaction mode, where that is installed: each transaction may have another session of the server.
        mod pgbouncer {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let database = Database::create().await;
                let Some(bouncer) = tests::PgBouncer::start(&database).await else { return };
                let store = bouncer.store();
                store.migrate().await.unwrap();
                super::$test(store).await;
            })*
        }
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let file = File::create();
                let store = file.store("store.db").await;
                store.migrate().await.unwrap();
                super::$test(store).await;
            })*
        }
    };
}

suite! {
    o_001_a_message_is_claimed_once
    o_011_ids_are_compared_byte_for_byte
    a_row_that_waits_is_settled_once
    s_067_an_instance_that_changed_is_a_conflict
    a_unit_without_commit_leaves_nothing
    a_savepoint_parts_writes
    o_040_a_claimed_row_is_what_was_written
    leases_keep_relays_apart
    o_031_a_lease_that_ran_out_is_taken_over
    o_033_a_row_that_commits_late_is_found
    s_049_timers_of_a_state_go_with_it
    held_messages_keep_order_and_bytes
    a_suspect_is_counted
    o_053_old_rows_go_unless_something_held_needs_them
    s_042_early_messages_do_not_wait_for_ever
    a_retry_reaches_every_endpoint_that_holds_the_message
    o_056_twenty_migrations_at_once
}
