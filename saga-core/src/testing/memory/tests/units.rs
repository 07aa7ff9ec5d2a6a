use super::*;
use crate::{HeldKey, HeldWanted, TimerOut};
use serde_json::json;
use tokio::time::Instant;

#[tokio::test]
async fn a_message_is_claimed_once_and_a_conflict_changes_nothing() {
    let store = MemoryStore::new();
    write(&store, Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
    let again = Write { claims: vec![handled("n"), handled("m")], outbox: vec![outbox("o")], ..writes() };
    let mut unit = begin(&store).await;
    assert_eq!(kind(unit.write(&again).await), CONFLICT);
    assert_eq!(kind(unit.commit().await), REJECTED, "an aborted unit cannot commit");
    assert_eq!(store.inbox().len(), 1);
    assert!(store.outbox().is_empty());
}

#[tokio::test]
async fn a_row_that_waits_is_completed_once_by_who_knows_its_attempts() {
    let store = MemoryStore::new();
    write(&store, Write { claims: vec![inbox("m", InboxResult::Retrying, 4)], ..writes() }).await.unwrap();
    let complete = |known| Write { completes: vec![(inbox("m", InboxResult::Handled, 5), known)], ..writes() };
    assert_eq!(kind(write(&store, complete(3)).await), CONFLICT);
    write(&store, complete(4)).await.unwrap();
    assert_eq!(kind(write(&store, complete(5)).await), CONFLICT, "it is settled");
    let found = store.read(&keys(&["m"])).await.unwrap();
    assert_eq!((found.inbox[0].result, found.inbox[0].attempts), (InboxResult::Handled, 5));
}

#[tokio::test(start_paused = true)]
async fn a_completed_row_keeps_the_time_of_its_claim() {
    let store = MemoryStore::new();
    write(&store, Write { claims: vec![inbox("m", InboxResult::Held, 1)], ..writes() }).await.unwrap();
    let claimed = store.now_us();
    tokio::time::advance(LEASE).await;
    write(&store, Write { completes: vec![(handled("m"), 1)], ..writes() }).await.unwrap();
    assert_eq!(store.read(&keys(&["m"])).await.unwrap().inbox[0].since_us, claimed);
    assert_eq!(store.inbox()[0].handled_at_us, claimed + 30_000_000);
}

#[tokio::test]
async fn an_instance_that_changed_meanwhile_is_a_conflict() {
    let store = MemoryStore::new();
    let put = |seq, base| Write { instances: vec![instance(seq, base)], ..writes() };
    assert_eq!(kind(write(&store, put(2, 1)).await), CONFLICT, "it does not exist");
    write(&store, put(1, 0)).await.unwrap();
    assert_eq!(kind(write(&store, put(1, 0)).await), CONFLICT, "it exists");
    write(&store, put(3, 1)).await.unwrap();
    assert_eq!(kind(write(&store, put(2, 1)).await), CONFLICT, "it moved");
    let found = store.read(&keys(&[])).await.unwrap();
    assert_eq!(found.instances[0].seq, 3);
    assert_eq!(found.instances[0].originator.as_deref(), Some("written at 1"), "who started it never changes");
}

#[tokio::test]
async fn a_unit_sees_its_own_rows_and_others_see_them_after_the_commit() {
    let store = MemoryStore::new();
    let mut unit = begin(&store).await;
    let rows = Write {
        claims: vec![handled("m")],
        instances: vec![instance(1, 0)],
        held_in: vec![held("h", HeldReason::Early)],
        ..writes()
    };
    unit.write(&rows).await.unwrap();
    let own = unit.read(&keys(&["m"])).await.unwrap();
    assert_eq!((own.inbox.len(), own.instances.len(), own.waiting.len()), (1, 1, 1));
    let others = store.read(&keys(&["m"])).await.unwrap();
    assert_eq!((others.inbox.len(), others.instances.len(), others.waiting.len()), (0, 0, 0));
    unit.commit().await.unwrap();
    assert_eq!(store.read(&keys(&["m"])).await.unwrap().inbox.len(), 1);
}

#[tokio::test]
async fn a_unit_without_commit_leaves_nothing() {
    let store = MemoryStore::new();
    for drop_it in [true, false] {
        let mut unit = store.begin(&[1], LIMIT).await.unwrap();
        unit.write(&Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
        unit.tx().insert("orders", json!(1)).unwrap();
        if drop_it { drop(unit) } else { unit.rollback().await.unwrap() }
    }
    assert!(store.inbox().is_empty());
    assert!(store.rows("orders").is_empty());
    let mut unit = store.begin(&[1], LIMIT).await.unwrap();
    assert!(unit.read(&keys(&[])).await.unwrap().locked_elsewhere.is_empty(), "the lock is free again");
}

#[tokio::test]
async fn what_user_code_writes_commits_with_the_unit() {
    let store = MemoryStore::new();
    let mut unit = begin(&store).await;
    unit.tx().insert("orders", json!({ "id": 1 })).unwrap();
    assert_eq!(unit.tx().rows("orders"), [json!({ "id": 1 })]);
    assert!(store.rows("orders").is_empty());
    unit.write(&Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(store.rows("orders"), [json!({ "id": 1 })]);
}

#[tokio::test]
async fn a_transaction_that_user_code_ended_or_left_aborted_is_rejected_even_with_nothing_to_write() {
    let store = MemoryStore::new();
    let mut ended = begin(&store).await;
    ended.tx().end();
    assert_eq!(kind(ended.write(&writes()).await), REJECTED);
    let mut aborted = begin(&store).await;
    store.fail_next(Operation::Insert, StoreErrorKind::Rejected);
    aborted.tx().insert("orders", json!(1)).unwrap_err();
    aborted.tx().insert("orders", json!(2)).unwrap_err();
    assert_eq!(kind(aborted.write(&writes()).await), REJECTED);
    assert_eq!(kind(aborted.commit().await), REJECTED);
    assert!(store.rows("orders").is_empty());
}

#[tokio::test]
async fn locks_are_tried_and_those_held_elsewhere_are_named() {
    let store = MemoryStore::new();
    let first = store.begin(&[2, 5], LIMIT).await.unwrap();
    let mut second = store.begin(&[1, 2, 5, 9], LIMIT).await.unwrap();
    assert_eq!(second.read(&keys(&[])).await.unwrap().locked_elsewhere, [2, 5]);
    first.commit().await.unwrap();
    let mut third = store.begin(&[1, 2], LIMIT).await.unwrap();
    assert_eq!(third.read(&keys(&[])).await.unwrap().locked_elsewhere, [1], "the second holds 1 and never got 2");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_idle_for_its_limit_gives_its_locks_up() {
    let store = MemoryStore::new();
    let mut frozen = store.begin(&[1], LIMIT).await.unwrap();
    frozen.write(&Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
    tokio::time::advance(LIMIT / 2).await;
    frozen.read(&keys(&[])).await.unwrap();
    tokio::time::advance(LIMIT / 2).await;
    let mut second = store.begin(&[1], LIMIT).await.unwrap();
    assert_eq!(second.read(&keys(&[])).await.unwrap().locked_elsewhere, [1], "it was idle for half its limit only");
    tokio::time::advance(LIMIT / 2).await;
    let mut third = store.begin(&[1], LIMIT).await.unwrap();
    assert!(third.read(&keys(&[])).await.unwrap().locked_elsewhere.is_empty());
    assert_eq!(kind(frozen.commit().await), UNAVAILABLE);
    assert!(store.inbox().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_two_units_that_claim_the_same_the_second_waits_for_the_first() {
    for commits in [true, false] {
        let store = MemoryStore::new();
        let claim = || Write { claims: vec![handled("m")], ..writes() };
        let mut first = begin(&store).await;
        first.write(&claim()).await.unwrap();
        let second = tokio::spawn({
            let store = store.clone();
            async move { write(&store, claim()).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await; // virtual: the second has come to its wait
        assert!(!second.is_finished());
        if commits {
            first.commit().await.unwrap()
        } else {
            first.rollback().await.unwrap()
        }
        assert_eq!(kind(second.await.unwrap()), if commits { CONFLICT } else { None });
        assert_eq!(store.inbox().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_waits_no_longer_than_the_limit_of_who_blocks_it() {
    let store = MemoryStore::new();
    let mut frozen = begin(&store).await;
    frozen.write(&Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
    let began = Instant::now();
    write(&store, Write { claims: vec![handled("m")], ..writes() }).await.unwrap();
    assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_units_that_wait_for_each_other_are_a_conflict_for_one() {
    let store = MemoryStore::new();
    let claim = |id: &str| Write { claims: vec![handled(id)], ..writes() };
    let (mut first, mut second) = (begin(&store).await, begin(&store).await);
    first.write(&claim("a")).await.unwrap();
    second.write(&claim("b")).await.unwrap();
    let waits = tokio::spawn(async move {
        first.write(&claim("b")).await?;
        first.commit().await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(kind(second.write(&claim("a")).await), CONFLICT);
    drop(second);
    waits.await.unwrap().unwrap();
    assert_eq!(store.inbox().len(), 2);
}

#[tokio::test]
async fn timers_go_by_their_instance_and_number() {
    let store = MemoryStore::new();
    let other = |mut row: OutboxRow| {
        Arc::make_mut(&mut row.envelope).saga =
            Some(SagaRef { saga: "saga".into(), id: "8".into(), entered: None, timer: Some(1) });
        row
    };
    let rows = vec![timer(1), timer(2), timer(3), other(timer(1)), outbox("command")];
    write(&store, Write { outbox: rows, ..writes() }).await.unwrap();
    let out = |number| TimerOut { key: key(), number };
    write(&store, Write { timers_out: vec![out(1)], outbox: vec![timer(4)], ..writes() }).await.unwrap();
    assert_eq!(store.outbox().len(), 5, "three timers, the other instance's and the command stay");
    write(&store, Write { timers_out: vec![out(2), out(3), out(4)], ..writes() }).await.unwrap();
    assert_eq!(store.outbox().len(), 2);
}

#[tokio::test]
async fn held_messages_keep_their_arrival_and_are_read_by_instance_up_to_a_limit() {
    let store = MemoryStore::new();
    for id in ["b", "a", "c"] {
        write(&store, Write { held_in: vec![held(id, HeldReason::Early)], ..writes() }).await.unwrap();
    }
    let other = HeldIn { saga_id: Some("8".into()), ..held("other", HeldReason::Early) };
    write(&store, Write { held_in: vec![held("b", HeldReason::Paused), other], ..writes() }).await.unwrap();
    let order: Vec<_> = store.held().into_iter().map(|row| (row.envelope.message_id.clone(), row.reason)).collect();
    let early = |id: &str| (id.to_owned(), HeldReason::Early);
    assert_eq!(order, [("b".to_owned(), HeldReason::Paused), early("a"), early("c"), early("other")]);

    let mut unit = begin(&store).await;
    let waiting = unit.read(&keys(&[])).await.unwrap().waiting;
    let counts: Vec<_> = waiting.iter().map(|waiting| (waiting.reason, waiting.count)).collect();
    assert_eq!(counts, [(HeldReason::Early, 2), (HeldReason::Paused, 1)]);
    let wanted = |id: &str| HeldWanted {
        key: InstanceKey { saga: "saga".into(), id: id.into() },
        type_name: "test.Message".into(),
        reason: HeldReason::Early,
    };
    let rows = unit.held("e", &[wanted("7"), wanted("8")], 1, i64::MAX).await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.envelope.message_id.as_str()).collect();
    assert_eq!(ids, ["a", "other"], "one for each instance, in order of arrival");
    assert!(unit.held("another endpoint", &[wanted("7")], 9, i64::MAX).await.unwrap().is_empty());
    let gone = HeldKey { receiver: "saga".into(), message_id: "a".into() };
    unit.write(&Write { held_out: vec![gone], ..writes() }).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(store.held().len(), 3);
}

#[tokio::test]
async fn a_test_may_change_rows_behind_everybodys_back() {
    let store = MemoryStore::new();
    let rows = Write {
        claims: vec![handled("m")],
        outbox: vec![outbox("o")],
        held_in: vec![held("h", HeldReason::Failed)],
        instances: vec![instance(1, 0)],
        ..writes()
    };
    write(&store, rows).await.unwrap();
    store.change_inbox(|row| row.result = InboxResult::Retrying);
    store.change_outbox(|row| row.due_at_us += 1);
    store.change_held(|row| row.attempts = 7);
    store.change_instances(|row| row.row.paused_by = Some("h".into()));
    let found = begin(&store).await.read(&keys(&["m"])).await.unwrap();
    assert_eq!((found.inbox[0].result, found.instances[0].paused_by.as_deref()), (InboxResult::Retrying, Some("h")));
    assert_eq!((store.held()[0].attempts, store.outbox()[0].due_at_us > store.outbox()[0].created_at_us), (7, true));
}

#[tokio::test]
async fn runs_after_crashes_are_counted_until_the_message_is_settled() {
    let store = MemoryStore::new();
    let row = inbox("m", InboxResult::Suspect, 0);
    for n in 1..=3 {
        // known at the last run, not before
        let row = InboxRow { saga_id: (n == 3).then(|| "7".into()), ..row.clone() };
        assert_eq!(store.count_crash("e", "me", &row).await.unwrap(), Some(n));
    }
    write(&store, Write { completes: vec![(handled("m"), 0)], ..writes() }).await.unwrap();
    assert_eq!(store.count_crash("e", "me", &row).await.unwrap(), None);
    let row = &store.inbox()[0];
    assert_eq!((row.crashes, row.saga_id.as_deref()), (3, Some("7")));
}
