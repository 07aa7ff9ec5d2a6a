//! Handlers whose messages come together: own transactions, shared ones, batches, and a handler that fails for good.

use super::*;

const SETTLED: InboxResult = InboxResult::Handled;

#[tokio::test(start_paused = true)]
async fn each_message_of_a_plain_handler_has_a_transaction_of_its_own() {
    let script = Script::new();
    script.plan(2, [Act::Fail]);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver_all((1..=3).map(command));
    rig.all_acked().await;
    assert_eq!((rig.done(), script.runs()), (vec![1, 3], vec![(1, 0), (2, 0), (3, 0)]));
    assert_eq!(rig.the_held().envelope.message_id, "do-2");
}

/// As many commits as there are units.
fn count_commits(rig: &Rig) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    let commits = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = commits.clone();
    rig.store.fail_while(move |operation| {
        if operation == Operation::Commit {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        None
    });
    commits
}

#[tokio::test(start_paused = true)]
async fn o_015_messages_that_share_a_transaction_run_one_by_one_after_a_failure() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.retries(Retries::none());
        builder.handle_with::<Do>(script.clone(), crate::HandlerOptions::shares_transactions)
    })
    .await;
    let commits = count_commits(&rig);
    let commits = || commits.load(std::sync::atomic::Ordering::Relaxed);
    rig.broker.deliver_all((1..=10).map(command));
    rig.all_acked().await;
    assert_eq!((rig.done().len(), commits()), (10, 1));
    script.plan(13, [Act::Fail, Act::Fail]);
    rig.broker.deliver_all((11..=15).map(command));
    rig.all_acked().await;
    assert_eq!(rig.done()[10..], [11, 12, 14, 15]);
    assert_eq!(script.runs_of(11), 2, "once together, once alone");
    assert_eq!(rig.inbox("do-11").attempts, 1, "the run together is not counted");
    assert_eq!(rig.the_held().envelope.message_id, "do-13");
    let before = commits();
    for round in 0..25 {
        rig.broker.deliver_all((100 + 10 * round..110 + 10 * round).map(command));
        rig.all_acked().await;
    }
    let units = commits() - before;
    assert_eq!(units, 20 * 10 + 5, "twenty units one by one, then together again");
}

#[tokio::test(start_paused = true)]
async fn o_016_what_is_refused_at_the_commit_is_found_and_the_others_are_committed_once() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.retries(Retries::none());
        builder.handle_with::<Do>(script.clone(), crate::HandlerOptions::shares_transactions)
    })
    .await;
    // as a constraint that is checked at the end refuses them: all together, and then the thirteenth alone
    let mut commits = 0;
    rig.store.fail_while(move |operation| {
        commits += usize::from(operation == Operation::Commit);
        (operation == Operation::Commit && [1, 1 + 13].contains(&commits)).then_some(StoreErrorKind::Rejected)
    });
    rig.broker.deliver_all((1..=20).map(command));
    rig.all_acked().await;
    assert_eq!(rig.done(), (1..=20).filter(|n| *n != 13).collect::<Vec<_>>());
    for row in rig.store.inbox() {
        let result = if row.message_id == "do-13" { InboxResult::Held } else { SETTLED };
        assert_eq!((row.result, row.attempts), (result, 1), "{}", row.message_id);
    }
    let held = rig.the_held();
    assert_eq!((held.reason, held.attempts), (HeldReason::Failed, 1));
    assert!(held.error.as_deref().is_some_and(|error| error.contains("Commit")), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn t_018_as_many_run_at_a_time_as_there_are_lanes_and_a_slow_one_holds_up_its_own() {
    let script = Script::new();
    script.always(Act::Hang(secs(1)));
    let rig = Rig::start(|builder| {
        builder.handle::<Do>(script.clone()).settings(|settings| {
            settings.handler_lanes = 8;
            settings.handler_time = secs(5000);
        })
    })
    .await;
    rig.broker.deliver_all((1..=100).map(command));
    let mut most = 0;
    for _ in 0..400 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(script.runs().len() - rig.done().len());
    }
    assert_eq!((most, rig.done().len()), (8, 100));
    script.plan(101, [Act::Hang(secs(1000))]);
    rig.broker.deliver_all((101..=200).map(command));
    tokio::time::sleep(secs(60)).await;
    let done = rig.done().len();
    assert!((160..200).contains(&done), "{done} of 200: only those behind the slow one wait");
    rig.until_within(secs(1100), "they follow", |rig| rig.done().len() == 200).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_share_a_transaction_run_one_by_one_after_a_deadlock() {
    let script = Script::new();
    let rig =
        Rig::start(|builder| builder.handle_with::<Do>(script.clone(), crate::HandlerOptions::shares_transactions))
            .await;
    let commits = count_commits(&rig);
    rig.store.fail_next(Operation::Write, StoreErrorKind::Conflict);
    rig.broker.deliver_all((1..=10).map(command));
    rig.all_acked().await;
    assert_eq!(commits.load(std::sync::atomic::Ordering::Relaxed), 10, "ten units, of one message each");
    assert_eq!((rig.done().len(), rig.inbox("do-1").attempts), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_for_a_shared_transaction_runs_in_the_next() {
    let script = Script::new();
    script.always(Act::Hang(Duration::from_millis(30)));
    let rig =
        Rig::start(|builder| builder.handle_with::<Do>(script.clone(), crate::HandlerOptions::shares_transactions))
            .await;
    let commits = count_commits(&rig);
    rig.broker.deliver_all((1..=10).map(command));
    rig.all_acked().await;
    assert_eq!(rig.done(), (1..=10).collect::<Vec<_>>());
    assert_eq!(commits.load(std::sync::atomic::Ordering::Relaxed), 5, "after 50 ms no message joins");
}

#[tokio::test(start_paused = true)]
async fn o_015_a_batch_is_one_call_and_one_by_one_after_a_failure() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.retries(Retries::none()).handle_batch::<Do>(Batches(script.clone()))).await;
    rig.broker.deliver_all((1..=10).map(command));
    rig.all_acked().await;
    assert_eq!((script.batches(), rig.done().len()), (vec![10], 10));
    script.plan(13, [Act::Panic, Act::Panic]);
    rig.broker.deliver_all((11..=15).map(command));
    rig.all_acked().await;
    assert_eq!(
        (script.batches()[1..].to_vec(), rig.done()[10..].to_vec()),
        (vec![5, 1, 1, 1, 1, 1], vec![11, 12, 14, 15])
    );
    assert!(rig.the_held().error.unwrap().contains("panics"));
}

#[tokio::test(start_paused = true)]
async fn o_003_a_batch_with_duplicates_runs_each_message_once() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.handle_batch::<Do>(Batches(script.clone()))).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    rig.broker.deliver_all([command(1), command(2), command(2), command(1), command(3), command(1)]);
    rig.all_acked().await;
    assert_eq!((script.batches(), rig.done()), (vec![1, 2], vec![1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_too_few_outcomes_fails_as_a_whole_and_says_so() {
    let script = Script::new();
    script.forget_outcomes(1);
    let rig = Rig::start(|builder| builder.retries(Retries::none()).handle_batch::<Do>(Batches(script.clone()))).await;
    rig.broker.deliver_all((1..=3).map(command));
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.held().len()), (vec![], 3));
    let errors = rig.store.held().into_iter().map(|row| row.error.unwrap());
    for error in errors {
        assert_eq!(error, "the handler left 1 of 1 messages shop.Do without an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn more_messages_than_a_batch_may_have_are_several_batches() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.handle_batch::<Do>(Batches(script.clone()));
        builder.settings(|settings| settings.batch_messages_max = 20)
    })
    .await;
    rig.broker.deliver_all((1..=50).map(command));
    rig.all_acked().await;
    assert_eq!((script.batches(), rig.done()), (vec![20, 20, 10], (1..=50).collect()));
}

#[tokio::test(start_paused = true)]
async fn r_014_a_handler_that_fails_for_good_delays_no_other() {
    let (failing, healthy) = (Script::new(), Script::new());
    failing.always(Act::Fail);
    let rig = Rig::start(|builder| {
        let builder = builder.saga::<Walk>().handle::<Do>(failing.clone()).subscribe::<Step>(healthy.clone());
        let builder = builder.retries(Retries::none().delayed([secs(10); 1000]));
        builder.settings(|settings| settings.prefetch = 100)
    })
    .await;
    let step = |n| step(1, n);
    rig.broker.deliver(begin(1));
    rig.broker.deliver_all((1..=2000).map(command)); // twenty times the prefetch
    rig.broker.deliver_all((1..=50).map(step));
    rig.until_within(secs(30), "the other handler is through", |rig| rig.done().len() == 50).await;
    assert_eq!(rig.steps(1).len(), 50);
    // ten minutes later as well
    tokio::time::sleep(secs(600)).await;
    rig.broker.deliver_all((51..=100).map(step));
    rig.until_within(secs(30), "the other handler is through", |rig| rig.done().len() == 100).await;
    assert!(failing.runs().len() < 300, "one at a time, with pauses: {} runs", failing.runs().len());
    let slowed = |rig: &Rig| rig.store.processes()[0].process.report["breakers"].clone();
    assert_eq!(slowed(&rig), serde_json::json!(["shop.Do"]), "the status says so, once");
    // and when the service is back, everything is handled without human help
    failing.always(Act::Succeed);
    let handled = |rig: &Rig| rig.store.inbox().iter().all(|row| row.result == SETTLED);
    rig.until_within(secs(600), "everything is handled", handled).await;
    assert_eq!((rig.done().len(), rig.held()), (2100, vec![]));
    rig.until("the status says that it is over", |rig| slowed(rig) == serde_json::json!([])).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_waited_long_has_all_its_retries_left() {
    let script = Script::new();
    script.always(Act::Fail);
    let rig = Rig::start(|builder| {
        let builder = builder.handle::<Do>(script.clone());
        builder.retries(Retries::none().delayed([secs(1), secs(1)]))
    })
    .await;
    rig.broker.deliver_all((1..=200).map(command));
    tokio::time::sleep(secs(120)).await;
    // those that ran have used up their retries; those that only waited have not
    let waited = rig.store.inbox().into_iter().filter(|row| row.attempts == 0);
    let waited: Vec<_> = waited.map(|row| (row.message_id, row.round)).collect();
    assert!(waited.len() > 100, "{} of 200 have not run", waited.len());
    assert!(waited.iter().all(|(_, round)| *round == 0), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn o_010_a_backlog_keeps_what_bears_a_used_id() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    script.always(Act::Fail);
    rig.broker.deliver_all((2..=60).map(command));
    rig.broker.deliver(Envelope { message_id: "do-1".into(), ..command(61) });
    rig.until("the backlog is put off", |rig| rig.broker.open() == 0 || rig.held().len() > 10).await;
    rig.until_within(secs(600), "all are held", |rig| rig.held().len() == 60).await;
    assert!(rig.held().iter().any(|(_, reason)| *reason == HeldReason::Rejected));
}
