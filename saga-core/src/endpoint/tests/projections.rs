//! A projection that fails.

use super::*;

async fn rig_with(retries: Retries, script: &Script) -> Rig {
    let rig =
        Rig::start(|builder| builder.retries(retries).saga::<Walk>().project::<Walk>(Projection(script.clone()))).await;
    rig.broker.deliver_all([begin(1), begin(2)]);
    rig.all_acked().await;
    rig
}

fn projected(rig: &Rig, id: u64) -> usize {
    let rows = rig.store.rows("walks");
    rows.iter().filter(|row| row.as_str().is_some_and(|text| text.starts_with(&format!("{id} ")))).count()
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_projection_fails_is_put_off_and_later_ones_wait_behind_it_in_order() {
    let script = Script::new();
    let rig = rig_with(Retries::none().immediate(2).delayed([secs(60)]), &script).await;
    script.plan(1, vec![Act::Fail; 1 + 3]); // in the batch, then three runs alone
    rig.broker.deliver_all([step(1, 1), step(2, 1), step(1, 2), step(1, 3)]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1).len(), rig.steps(2)), (0, vec![1]));
    let row = rig.inbox("step-1-1");
    assert_eq!((row.result, row.attempts, row.round), (InboxResult::Retrying, 3, 1));
    assert_eq!(rig.held(), [("step-1-2".into(), HeldReason::Paused), ("step-1-3".into(), HeldReason::Paused)]);
    rig.broker.deliver(step(1, 4));
    rig.until_within(secs(90), "all go on", |rig| rig.steps(1).len() == 4).await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1, 2, 3, 4], vec![]));
    assert_eq!((rig.result("step-1-1"), rig.inbox("step-1-1").attempts), (InboxResult::Handled, 4));
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_projection_fails_for_good_is_held_and_pauses_its_instance() {
    let script = Script::new();
    let rig = rig_with(Retries::none(), &script).await;
    script.plan(1, vec![Act::Panic; 10]);
    rig.broker.deliver_all([step(1, 1), step(1, 2), step(2, 1)]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1).len(), rig.steps(2)), (0, vec![1]));
    assert_eq!(rig.held(), [("step-1-1".into(), HeldReason::Failed), ("step-1-2".into(), HeldReason::Paused)]);
    let error = rig.store.held().remove(0).error.unwrap();
    assert!(error.contains("projection of saga `walk`") && error.contains("panics"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_projection_whose_tables_are_missing_heals_by_itself_and_counts_no_run() {
    let script = Script::new();
    let rig = rig_with(Retries::none(), &script).await;
    script.always(Act::Meets(StoreErrorKind::Schema));
    rig.broker.deliver_all([step(1, 1), step(1, 2)]);
    tokio::time::sleep(secs(600)).await;
    assert_eq!((rig.inbox("step-1-1").result, rig.inbox("step-1-1").attempts), (InboxResult::Retrying, 0));
    script.always(Act::Succeed);
    rig.until_within(secs(120), "it goes on", |rig| rig.steps(1) == [1, 2]).await;
    assert_eq!((rig.held(), rig.inbox("step-1-1").attempts), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_or_a_stale_plan_in_a_projection_counts_no_run() {
    for stale in [false, true] {
        let script = Script::new();
        let rig = rig_with(Retries::none(), &script).await;
        if stale {
            script.plan(1, vec![Act::Meets(StoreErrorKind::StalePlan); 3]);
        } else {
            script.plan(1, vec![Act::Fail; 3]);
            for _ in 0..3 {
                rig.store.fail_next(Operation::Rollback, StoreErrorKind::Unavailable);
            }
        }
        rig.broker.deliver_all([step(1, 1), step(1, 2)]);
        rig.all_acked().await;
        assert_eq!((rig.steps(1), rig.held(), rig.inbox("step-1-1").attempts), (vec![1, 2], vec![], 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_projection_that_hangs_fails_and_others_go_on() {
    let script = Script::new();
    let rig = rig_with(Retries::none(), &script).await;
    script.plan(1, vec![Act::Hang(secs(1_000_000)); 2]);
    rig.broker.deliver_all([step(1, 1), step(2, 1)]);
    rig.until_within(secs(700), "both are settled", |rig| rig.broker.is_done()).await;
    assert_eq!((rig.steps(2), rig.the_held().reason), (vec![1], HeldReason::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_discards_discards_one_message_after_the_other() {
    let script = Script::new();
    let rig = rig_with(Retries::by(|_| crate::Decision::Discard), &script).await;
    script.plan(1, vec![Act::Fail; 6]); // in the batch and alone, three times
    rig.broker.deliver_all((1..=5).map(|n| step(1, n)));
    rig.all_acked().await;
    let results: Vec<_> = (1..=5).map(|n| rig.result(&format!("step-1-{n}"))).collect();
    use InboxResult::{Discarded, Handled};
    assert_eq!(results, [Discarded, Discarded, Discarded, Handled, Handled]);
    assert_eq!(rig.steps(1), [4, 5]);
}

#[tokio::test(start_paused = true)]
async fn what_waited_behind_a_message_that_is_discarded_meets_the_projection_by_itself() {
    let script = Script::new();
    let first = std::sync::atomic::AtomicBool::new(true);
    let policy = Retries::by(move |_| match first.swap(false, std::sync::atomic::Ordering::Relaxed) {
        true => crate::Decision::RetryAfter(secs(60)),
        false => crate::Decision::Discard,
    });
    let rig = rig_with(policy, &script).await;
    script.always(Act::Fail);
    rig.broker.deliver_all((1..=4).map(|n| step(1, n)));
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 3, "they wait behind the first");
    rig.until_within(secs(90), "all are discarded", |rig| rig.held().is_empty()).await;
    rig.all_acked().await;
    for n in 1..=4 {
        assert_eq!(rig.result(&format!("step-1-{n}")), InboxResult::Discarded);
    }
    assert_eq!((rig.steps(1).len(), projected(&rig, 1)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waited_and_fails_itself_is_put_off_and_held_no_more() {
    let script = Script::new();
    let rig = rig_with(Retries::none().delayed([secs(60), secs(60)]), &script).await;
    // both together and the first alone; a minute later both, the first alone, and the second alone
    script.plan(1, [Act::Fail, Act::Fail, Act::Fail, Act::Succeed, Act::Fail]);
    rig.broker.deliver_all([step(1, 1), step(1, 2)]);
    rig.all_acked().await;
    assert_eq!(rig.held(), [("step-1-2".into(), HeldReason::Paused)]);
    rig.until_within(secs(90), "the first goes on", |rig| rig.steps(1) == [1]).await;
    rig.all_acked().await;
    assert_eq!((rig.held(), rig.result("step-1-2")), (vec![], InboxResult::Retrying));
    rig.until_within(secs(90), "the second goes on", |rig| rig.steps(1) == [1, 2]).await;
    rig.all_acked().await;
    assert_eq!((rig.held(), rig.result("step-1-2")), (vec![], InboxResult::Handled));
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_projection_fails_starts_later() {
    let script = Script::new();
    let rig = rig_with(Retries::none().delayed([secs(60)]), &script).await;
    script.plan(3, vec![Act::Fail; 1]);
    rig.broker.deliver(begin(3));
    rig.all_acked().await;
    rig.broker.deliver(step(3, 1));
    rig.all_acked().await;
    assert_eq!(rig.held(), [("step-3-1".into(), HeldReason::Early)]);
    rig.until_within(secs(90), "it starts", |rig| rig.held().is_empty()).await;
    assert_eq!(rig.steps(3), [1]);
}
