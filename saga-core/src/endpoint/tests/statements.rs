//! What the database answers to the statements of user code: a conflict, a full disk, or that the statement is wrong.

use super::*;
use StoreErrorKind::{Conflict, Rejected, StalePlan, Unable, Unavailable};

fn is_down(rig: &Rig) -> bool {
    matches!(rig.endpoint.database(), crate::DatabaseState::Down(why) if why.contains("a statement failed"))
}

#[tokio::test(start_paused = true)]
async fn r_036_a_handler_that_conflicts_runs_again_and_no_run_is_counted() {
    for kind in [Conflict, StalePlan] {
        let script = Script::new();
        script.plan(1, vec![Act::Meets(kind); 9]);
        let rig = Rig::scripted(&script).await;
        rig.broker.deliver(command(1));
        rig.until_within(secs(15), "it is handled", |rig| rig.done() == [1]).await;
        assert_eq!((rig.inbox("do-1").attempts, script.runs_of(1)), (1, 10), "{kind:?}");
        assert_eq!(rig.endpoint.database(), crate::DatabaseState::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn r_036_a_handler_that_conflicts_for_ever_is_held_in_the_end() {
    let script = Script::new();
    script.plan(1, vec![Act::Meets(Conflict); 1000]);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver_all([command(1), command(2)]);
    rig.all_acked().await;
    let held = rig.the_held();
    assert_eq!((held.reason, held.attempts, script.runs_of(1)), (HeldReason::Failed, 1, 11));
    assert_eq!((held.error.as_deref(), rig.done()), (Some("the deed failed: a statement failed"), vec![2]));
}

#[tokio::test(start_paused = true)]
async fn r_037_a_handler_that_finds_the_database_full_waits_and_says_so_and_no_run_is_counted() {
    let (full, healthy) = (Script::new(), Script::new());
    full.always(Act::Meets(Unable));
    let rig = Rig::start(|builder| {
        builder.retries(Retries::none()).handle::<Do>(full.clone()).subscribe::<Step>(healthy.clone())
    })
    .await;
    rig.broker.deliver_all((1..=10).map(command));
    rig.until_within(secs(1), "it is said", is_down).await;
    for n in 11..=40 {
        rig.broker.deliver(step(1, n));
        rig.until_within(secs(1), "another handler goes on", |rig| rig.done().len() == n as usize - 10).await;
        assert!(is_down(&rig), "what another handler does proves nothing");
        tokio::time::sleep(secs(1)).await;
    }
    assert!((10..20).contains(&full.runs().len()), "with pauses: {} runs", full.runs().len());
    assert_eq!((rig.broker.open(), rig.store.inbox().len()), (10, 30), "nothing is written about what waits");
    full.always(Act::Succeed);
    rig.until_within(secs(5), "all are handled", |rig| rig.broker.is_done()).await;
    assert_eq!((rig.done().len(), rig.held()), (40, vec![]));
    assert!(rig.store.inbox().iter().all(|row| row.result == InboxResult::Handled && row.attempts == 1));
    assert_eq!(rig.endpoint.database(), crate::DatabaseState::Up);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_alone_finds_the_database_full_is_put_off_and_others_go_on() {
    let script = Script::new();
    script.plan(1, vec![Act::Meets(Unable); 1000]);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver_all((1..=5).map(command));
    rig.until_within(secs(60), "the others are handled", |rig| rig.done() == [2, 3, 4, 5]).await;
    assert_eq!(rig.endpoint.database(), crate::DatabaseState::Up, "it is this message's alone");
    tokio::time::sleep(secs(3600)).await;
    let runs = script.runs_of(1);
    assert!((60..120).contains(&runs), "21, then about once a minute: {runs} runs");
    assert_eq!((rig.inbox("do-1").result, rig.inbox("do-1").attempts), (InboxResult::Retrying, 0));
    script.plan(1, []);
    rig.until_within(secs(90), "it is handled", |rig| rig.done().len() == 5).await;
    assert_eq!((rig.inbox("do-1").attempts, rig.held()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_finds_the_database_full_for_a_day_is_for_a_person() {
    let script = Script::new();
    script.always(Act::Meets(Unable));
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(command(1));
    rig.until_within(secs(25 * 3600), "it is held", |rig| rig.held().len() == 1).await;
    assert_eq!(rig.the_held().reason, HeldReason::Failed);
}

#[tokio::test(start_paused = true)]
async fn what_a_statement_does_wrong_is_its_messages_failure() {
    // a connection that is gone shows by the rollback: this one works, so another connection is gone
    for kind in [Rejected, Unavailable] {
        let script = Script::new();
        script.plan(1, [Act::Meets(kind)]);
        let rig = Rig::scripted(&script).await;
        rig.broker.deliver(command(1));
        rig.all_acked().await;
        assert_eq!((rig.the_held().attempts, script.runs_of(1)), (1, 1), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_database_that_is_full_is_the_handlers_failure() {
    let script = Script::new();
    script.plan(1, [Act::MeetsElsewhere(Unable)]);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    assert_eq!((rig.the_held().attempts, script.runs_of(1)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn messages_that_share_a_transaction_wait_together_and_conflict_alone() {
    for batches in [false, true] {
        for kind in [Conflict, Unable] {
            let script = Script::new();
            script.plan(13, vec![Act::Meets(kind); 3]);
            let rig = Rig::start(|builder| {
                let builder = builder.retries(Retries::none());
                match batches {
                    true => builder.handle_batch::<Do>(Batches(script.clone())),
                    false => builder.handle_with::<Do>(script.clone(), crate::HandlerOptions::shares_transactions),
                }
            })
            .await;
            rig.broker.deliver_all((11..=15).map(command));
            rig.until_within(secs(5), "all are handled", |rig| rig.broker.is_done()).await;
            let what = format!("batches: {batches}, {kind:?}");
            assert_eq!((rig.done(), rig.held()), ((11..=15).collect(), vec![]), "{what}");
            assert!(rig.store.inbox().iter().all(|row| row.attempts == 1), "{what}");
            let runs = if kind == Conflict { 2 } else { 4 };
            assert_eq!(script.runs_of(11), runs, "{what}: again together only where that may help");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r_036_a_projection_that_conflicts_or_finds_the_database_full_counts_no_run() {
    for kind in [Conflict, Unable] {
        let script = Script::new();
        script.plan(1, vec![Act::Meets(kind); 9]);
        let rig = projecting(&script).await;
        rig.broker.deliver_all([begin(1), step(1, 1), step(1, 2)]);
        rig.until_within(secs(20), "all are handled", |rig| rig.broker.is_done()).await;
        assert_eq!((rig.steps(1), rig.held()), (vec![1, 2], vec![]), "{kind:?}");
        assert!(rig.store.inbox().iter().all(|row| row.attempts == 1), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_projection_that_conflicts_for_ever_is_held_and_one_that_is_full_is_put_off() {
    for (kind, result, attempts) in [(Conflict, InboxResult::Held, 1), (Unable, InboxResult::Retrying, 0)] {
        let script = Script::new();
        let rig = projecting(&script).await;
        rig.broker.deliver(begin(1));
        rig.all_acked().await;
        script.always(Act::Meets(kind));
        rig.broker.deliver(step(1, 1));
        rig.until_within(secs(60), "it is settled", |rig| rig.broker.is_done()).await;
        let row = rig.inbox("step-1-1");
        assert_eq!((row.result, row.attempts), (result, attempts), "{kind:?}");
    }
}

async fn projecting(script: &Script) -> Rig {
    Rig::start(|builder| builder.retries(Retries::none()).saga::<Walk>().project::<Walk>(Projection(script.clone())))
        .await
}
