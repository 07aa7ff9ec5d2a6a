//! The database is away, busy or of another version: no message is lost or blamed.

use super::*;
use crate::{Store, Unit};

/// One saga instance for each `n`, one command for each `n`.
fn both(messages: u64) -> Vec<Envelope> {
    (1..=messages).flat_map(|n| [begin(n), step(n, 1), command(n)]).collect()
}

async fn rig(script: &Script) -> Rig {
    Rig::start(|builder| builder.saga::<Walk>().retries(Retries::none()).handle::<Do>(script.clone())).await
}

/// Each message has had its effects once, in one counted run.
fn assert_exactly_once(rig: &Rig, messages: u64) {
    let mut done = rig.done();
    done.sort_unstable();
    assert_eq!(done, (1..=messages).collect::<Vec<_>>());
    for n in 1..=messages {
        assert_eq!(rig.steps(n), [1], "instance {n}");
    }
    assert_eq!(rig.held(), []);
    let inbox = rig.store.inbox();
    assert_eq!(inbox.len() as u64, 3 * messages);
    for row in inbox {
        assert_eq!((row.result, row.attempts, row.round), (InboxResult::Handled, 1, 0), "{}", row.message_id);
    }
    let mut published: Vec<_> = rig.broker.sent_of("Stepped").into_iter().map(|sent| sent.row).collect();
    published.sort_unstable();
    published.dedup();
    assert_eq!(published.len() as u64, messages);
    let answers = rig.broker.sent_of("shop.Did").len();
    assert_eq!(answers, 0, "nobody asked for an answer");
}

async fn commit_unknown(committed: bool, messages: u64) {
    let script = Script::new();
    let rig = rig(&script).await;
    for _ in 0..2 {
        rig.store.lose_next_commit(committed);
    }
    rig.broker.deliver_all(both(messages));
    rig.all_acked().await;
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    assert_exactly_once(&rig, messages);
}

#[tokio::test(start_paused = true)]
async fn o_018_a_commit_that_happened_unheard_has_its_effects_once() {
    commit_unknown(true, 1).await;
}

#[tokio::test(start_paused = true)]
async fn o_019_a_commit_that_did_not_happen_unheard_has_its_effects_once() {
    commit_unknown(false, 1).await;
}

#[tokio::test(start_paused = true)]
async fn o_018_a_batchs_commit_that_happened_unheard_has_its_effects_once() {
    commit_unknown(true, 100).await;
}

#[tokio::test(start_paused = true)]
async fn o_019_a_batchs_commit_that_did_not_happen_unheard_has_its_effects_once() {
    commit_unknown(false, 100).await;
}

#[tokio::test(start_paused = true)]
async fn o_018_a_shared_transactions_commit_that_happened_unheard_has_its_effects_once() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.handle_batch::<Do>(Batches(script.clone()))).await;
    rig.store.lose_next_commit(true);
    rig.broker.deliver_all((1..=100).map(command));
    rig.all_acked().await;
    assert_eq!(rig.done(), (1..=100).collect::<Vec<_>>());
    assert_eq!(script.batches(), [100], "the inbox knew");
}

async fn waits_for(operation: Operation, kind: StoreErrorKind) {
    let script = Script::new();
    let rig = rig(&script).await;
    away(&rig.store, operation, kind);
    rig.broker.deliver_all(both(10));
    tokio::time::sleep(secs(600)).await;
    assert_eq!(rig.broker.acked(), [] as [&str; 0], "{operation:?}");
    assert_eq!(rig.broker.given_back(), 0);
    rig.store.heal();
    rig.all_acked().await;
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    assert_exactly_once(&rig, 10);
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_messages_wait_and_no_run_is_counted() {
    for operation in [Operation::Begin, Operation::Read, Operation::Write, Operation::Commit] {
        waits_for(operation, StoreErrorKind::Unavailable).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r_033_t_016_a_database_that_is_away_is_asked_with_pauses_and_no_more_messages_are_taken() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.saga::<Walk>().retries(Retries::none()).handle::<Do>(script.clone());
        builder.settings(|settings| settings.prefetch = 5)
    })
    .await;
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    rig.store.fail_while(move |operation| {
        let works = matches!(operation, Operation::Begin | Operation::Read);
        count.fetch_add(usize::from(works), std::sync::atomic::Ordering::Relaxed);
        Some(StoreErrorKind::Unavailable)
    });
    rig.broker.deliver_all(both(10));
    for _ in 0..60 {
        tokio::time::sleep(secs(10)).await;
        assert_eq!((rig.broker.open(), rig.broker.given_back(), rig.broker.queued()), (5, 0, 25));
    }
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!((300..650).contains(&asked), "two lanes in ten minutes, about every three seconds: {asked} times");
    rig.store.heal();
    rig.until_within(secs(5), "it goes on", |rig| rig.broker.is_done()).await;
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    assert_exactly_once(&rig, 10);
}

#[tokio::test(start_paused = true)]
async fn tables_that_are_not_there_are_waited_for() {
    for operation in [Operation::Begin, Operation::Read, Operation::Write] {
        waits_for(operation, StoreErrorKind::Schema).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r_036_what_runs_again_at_once_counts_no_run() {
    for kind in [StoreErrorKind::StalePlan, StoreErrorKind::Conflict] {
        for operation in [Operation::Begin, Operation::Read, Operation::Write, Operation::Commit] {
            let script = Script::new();
            let rig = rig(&script).await;
            rig.store.fail_next(operation, kind);
            rig.store.fail_next(operation, kind);
            rig.broker.deliver_all(both(10));
            rig.until_within(secs(1), "all are handled", |rig| rig.broker.is_done()).await;
            rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
            assert_exactly_once(&rig, 10);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_before_a_lost_commit_blames_no_handler() {
    let script = Script::new();
    let rig = rig(&script).await;
    away(&rig.store, Operation::Read, StoreErrorKind::Unavailable);
    rig.broker.deliver(command(1));
    tokio::time::sleep(secs(60)).await;
    rig.store.heal();
    rig.store.lose_next_commit(false); // it comes back, and goes once more
    rig.all_acked().await;
    let row = rig.inbox("do-1");
    assert_eq!((row.result, row.attempts), (InboxResult::Handled, 1));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_locked_elsewhere_waits_and_others_of_the_lane_go_on() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), begin(2)]);
    rig.all_acked().await;
    let lock = crate::hash_of([b"walk".as_slice(), b"1"]);
    let elsewhere = rig.store.begin(&[lock], secs(3600)).await.expect("the store is there");
    rig.broker.deliver_all([step(1, 1), step(2, 1)]);
    rig.until_within(secs(1), "instance 2 goes on", |rig| rig.steps(2) == [1]).await;
    for n in 2..=20 {
        rig.broker.deliver_all([step(1, n), step(2, n)]);
        rig.until_within(secs(1), "instance 2 goes on", |rig| rig.steps(2).len() as u32 == n).await;
    }
    assert_eq!((rig.steps(1).len(), rig.broker.open()), (0, 20));
    elsewhere.rollback().await.expect("the store is there");
    rig.until_within(secs(3), "instance 1 goes on", |rig| rig.broker.is_done()).await;
    assert_eq!(rig.steps(1), (1..=20).collect::<Vec<_>>(), "in the order in which they came");
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_a_frozen_process_is_waited_for_no_longer_than_its_unit_may_be_idle() {
    let rig = Rig::walk().await;
    let lock = crate::hash_of([b"walk".as_slice(), b"1"]);
    let _frozen = rig.store.begin(&[lock], secs(30)).await.expect("the store is there");
    rig.broker.deliver_all([begin(1), step(1, 1)]);
    tokio::time::sleep(secs(29)).await;
    assert_eq!(rig.broker.open(), 2);
    rig.until_within(secs(3), "its lock is free", |rig| rig.broker.is_done()).await;
    assert_eq!(rig.steps(1), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_for_a_lock_is_counted_once_however_many_channels_are_lost() {
    a_suspect_behind_a_lock(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_for_a_lock_is_counted_once() {
    a_suspect_behind_a_lock(0).await;
}

/// It waits for ten minutes, in which so many channels are lost.
async fn a_suspect_behind_a_lock(channels_lost: u64) {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let lock = crate::hash_of([b"walk".as_slice(), b"1"]);
    let elsewhere = rig.store.begin(&[lock], secs(3600)).await.expect("the store is there");
    rig.broker.redeliver(step(1, 1), 2);
    for _ in 0..channels_lost {
        tokio::time::sleep(secs(60)).await;
        rig.broker.lose_channel();
    }
    tokio::time::sleep(secs(600 - 60 * channels_lost)).await;
    elsewhere.rollback().await.expect("the store is there");
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1], vec![]));
    assert_eq!(rig.inbox("step-1-1").crashes, 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_another_process_changed_meanwhile_is_read_again() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let other = Rig::start_on(rig.store.clone(), broker::Broker::new(), |builder| builder.saga::<Walk>()).await;
    let other = other.expect("a second process starts");
    for n in 0..50 {
        rig.broker.deliver(step(1, 2 * n));
        other.broker.deliver(step(1, 2 * n + 1));
    }
    rig.all_acked().await;
    other.all_acked().await;
    let mut steps = rig.steps(1);
    steps.sort_unstable();
    assert_eq!(steps, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn r_037_the_endpoint_says_that_its_database_is_away_and_when_it_is_back() {
    use crate::DatabaseState::{Down, Up};
    let rig = rig(&Script::new()).await;
    assert_eq!(rig.endpoint.database(), Up);
    // no message comes: the relay notices
    away(&rig.store, Operation::Lease, StoreErrorKind::Unavailable);
    rig.until_within(secs(4), "it is noticed", |rig| matches!(rig.endpoint.database(), Down(_))).await;
    rig.store.heal();
    rig.until_within(secs(8), "it is back", |rig| rig.endpoint.database() == Up).await;
    // the relay has nothing to complain of, but messages wait: the disk is full, or tables are missing
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Schema] {
        away(&rig.store, Operation::Write, kind);
        let n = 1 + rig.broker.acked().len() as u64;
        rig.broker.deliver(command(n));
        rig.until_within(secs(2), "it is noticed", |rig| matches!(rig.endpoint.database(), Down(_))).await;
        tokio::time::sleep(secs(60)).await;
        assert!(matches!(rig.endpoint.database(), Down(_)), "{kind:?}: as long as messages wait");
        assert_eq!(rig.broker.given_back(), 0);
        rig.store.heal();
        rig.all_acked().await;
        assert_eq!(rig.endpoint.database(), Up, "{kind:?}");
    }
    // the broker is away too: the heartbeat asks
    rig.broker.link(crate::LinkState::Down("no route".into()));
    away(&rig.store, Operation::Heartbeat, StoreErrorKind::Unavailable);
    rig.until_within(secs(31), "it is noticed", |rig| matches!(rig.endpoint.database(), Down(_))).await;
    rig.store.heal();
    rig.until_within(secs(31), "it is back", |rig| rig.endpoint.database() == Up).await;
}

#[tokio::test(start_paused = true)]
async fn o_054_a_cleanup_that_fails_is_tried_again_a_minute_later() {
    let rig = Rig::start(|builder| {
        builder.handle::<Do>(Script::new()).settings(|settings| settings.retention = secs(86_400))
    })
    .await;
    rig.broker.deliver_all((1..=10).map(command));
    rig.all_acked().await;
    tokio::time::sleep(secs(86_000)).await;
    away(&rig.store, Operation::Sweep, StoreErrorKind::Unavailable);
    tokio::time::sleep(secs(1000)).await;
    assert_eq!(rig.store.inbox().len(), 10, "they are old enough");
    rig.store.heal();
    rig.until_within(secs(61), "they are deleted", |rig| rig.store.inbox().is_empty()).await;
}

/// What a handler has done elsewhere is not done again every three seconds for as long as the disk is full.
#[tokio::test(start_paused = true)]
async fn a_handler_does_not_run_again_before_a_write_works() {
    for kind in [StoreErrorKind::Unable, StoreErrorKind::Schema] {
        let script = Script::new();
        let rig = Rig::scripted(&script).await;
        away(&rig.store, Operation::Write, kind);
        rig.broker.deliver(command(1));
        tokio::time::sleep(secs(600)).await;
        assert_eq!((script.runs_of(1), rig.done()), (1, vec![]), "{kind:?}");
        rig.store.heal();
        rig.all_acked().await;
        assert_eq!((script.runs_of(1), rig.done(), rig.inbox("do-1").attempts), (2, vec![1], 1), "{kind:?}");
        assert_eq!((rig.held(), rig.store.inbox().len()), (vec![], 1), "nothing is left of the probe");
    }
}
