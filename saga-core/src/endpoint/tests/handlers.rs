//! A handler that fails: what follows, and what is counted.

use super::*;

fn retries() -> Retries {
    Retries::none().immediate(1).delayed([secs(60), secs(3600)])
}

async fn rig_with(retries: Retries, script: &Script) -> Rig {
    Rig::start(|builder| builder.retries(retries).handle::<Do>(script.clone())).await
}

#[tokio::test(start_paused = true)]
async fn r_003_r_010_a_failing_message_runs_again_at_once_then_later_then_is_held() {
    let script = Script::new();
    script.always(Act::Fail);
    let rig = rig_with(retries(), &script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    assert_eq!(script.runs(), [(1, 0), (1, 1)]);
    let row = rig.the_outbox();
    assert_eq!((row.envelope.attempt, row.envelope.receiver.as_deref()), (2, Some("shop.Do")));
    assert_eq!(row.last_error.as_deref(), Some("the handler fails"));
    let inbox = rig.inbox("do-1");
    assert_eq!((inbox.result, inbox.attempts, inbox.round), (InboxResult::Retrying, 2, 1));
    assert_eq!(inbox.note.as_deref(), Some("the handler fails"));
    tokio::time::sleep(secs(59)).await;
    assert_eq!(script.runs().len(), 2, "its time has not come");
    rig.until("the second round", |_| script.runs().len() == 4).await;
    rig.until_within(secs(3700), "the third round", |_| script.runs().len() == 6).await;
    rig.until("it is held", |rig| rig.held().len() == 1).await;
    assert_eq!(script.runs()[2..], [(1, 2), (1, 3), (1, 4), (1, 5)]);
    let inbox = rig.inbox("do-1");
    assert_eq!((inbox.result, inbox.attempts, inbox.round), (InboxResult::Held, 6, 2));
    let held = rig.the_held();
    assert_eq!((held.reason, held.attempts, held.error.as_deref()), (HeldReason::Failed, 6, Some("the handler fails")));
    assert_eq!(rig.done(), [] as [u64; 0], "failed runs leave nothing");
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(rig.broker.sent().len(), 2, "the retries and nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_put_off_comes_again_and_succeeds() {
    let script = Script::new();
    script.plan(1, [Act::Fail, Act::Fail]);
    let rig = rig_with(retries(), &script).await;
    rig.broker.deliver(Envelope { reply_to: Some("asker".into()), ..command(1) });
    rig.until_within(secs(120), "it is handled", |rig| rig.done() == [1]).await;
    let row = rig.inbox("do-1");
    assert_eq!((row.result, row.attempts, row.round), (InboxResult::Handled, 3, 1));
    rig.until("the answer is sent", |rig| rig.broker.sent_of("shop.Did").len() == 1).await;
    let answer = &rig.broker.sent_of("shop.Did")[0];
    assert_eq!(answer.destination, crate::Destination::ReplyTo("asker".into()));
    assert_eq!(answer.envelope.causation_id.as_deref(), Some("do-1"));
}

#[tokio::test(start_paused = true)]
async fn r_005_a_permanent_error_makes_one_run() {
    let script = Script::new();
    script.always(Act::Refuse);
    let rig = rig_with(retries(), &script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.the_held().reason), (1, HeldReason::Failed));
    assert_eq!(rig.inbox("do-1").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn r_015_a_panic_costs_its_message_and_no_other() {
    let script = Script::new();
    script.plan(2, [Act::Panic, Act::Panic]);
    let rig = rig_with(Retries::none().immediate(1), &script).await;
    rig.broker.deliver_all((1..=3).map(command));
    rig.all_acked().await;
    assert_eq!((rig.done(), script.runs_of(2)), (vec![1, 3], 2));
    assert!(rig.the_held().error.unwrap().contains("the handler panics"));
}

#[tokio::test(start_paused = true)]
async fn r_015_a_handler_that_runs_too_long_fails() {
    let script = Script::new();
    script.plan(1, [Act::Hang(secs(3600))]);
    let rig = Rig::start(|builder| {
        let builder = builder.retries(Retries::none().immediate(1)).handle::<Do>(script.clone());
        builder.settings(|settings| settings.handler_time = secs(10))
    })
    .await;
    rig.broker.deliver(command(1));
    rig.until_within(secs(11), "it is handled", |rig| rig.broker.is_done()).await;
    assert_eq!((rig.done(), rig.inbox("do-1").attempts), (vec![1], 2));
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_wait_for_others_as_long_as_it_may_run() {
    let script = Script::new();
    script.plan(1, [Act::Hang(secs(280))]);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(command(1));
    rig.until_within(secs(300), "it is handled", |rig| rig.broker.is_done()).await;
    assert_eq!((rig.done(), script.runs_of(1)), (vec![1], 1));
}

#[tokio::test(start_paused = true)]
async fn retry_after_ends_after_a_day() {
    let script = Script::new();
    script.always(Act::RetryAfter(secs(3 * 3600)));
    let rig = rig_with(retries(), &script).await;
    rig.broker.deliver(command(1));
    rig.until_within(secs(23 * 3600), "it is tried again and again", |_| script.runs_of(1) == 8).await;
    assert_eq!(rig.held(), []);
    rig.until_within(secs(5 * 3600), "it is held", |rig| rig.held().len() == 1).await;
    assert_eq!((script.runs_of(1), rig.inbox("do-1").attempts), (9, 9));
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_tables_are_missing_is_put_off_and_no_run_is_counted() {
    let script = Script::new();
    script.always(Act::Meets(StoreErrorKind::Schema));
    let rig = rig_with(Retries::none(), &script).await;
    rig.broker.deliver(command(1));
    tokio::time::sleep(secs(3600)).await;
    let runs = script.runs_of(1);
    assert!((50..200).contains(&runs), "about once a minute was expected: {runs} runs");
    let row = rig.inbox("do-1");
    assert_eq!((row.result, row.attempts, row.round), (InboxResult::Retrying, 0, 0));
    script.always(Act::Succeed);
    rig.until_within(secs(90), "it is handled", |rig| rig.done() == [1]).await;
    assert_eq!(rig.inbox("do-1").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_tables_stay_missing_for_a_day_is_for_a_person() {
    let script = Script::new();
    script.always(Act::Meets(StoreErrorKind::Schema));
    let rig = rig_with(Retries::none(), &script).await;
    rig.broker.deliver(command(1));
    rig.until_within(secs(25 * 3600), "it is held", |rig| rig.held().len() == 1).await;
    assert_eq!(rig.the_held().reason, HeldReason::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_stale_plan_runs_again_and_counts_no_run() {
    let script = Script::new();
    script.plan(1, [Act::Meets(StoreErrorKind::StalePlan), Act::Meets(StoreErrorKind::StalePlan)]);
    let rig = rig_with(Retries::none(), &script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.inbox("do-1").attempts), (vec![1], 1));
}

#[tokio::test(start_paused = true)]
async fn r_036_a_failure_whose_connection_is_gone_counts_no_run_until_it_was_lost_five_times() {
    for (lost, counted) in [(5, 0), (6, 1)] {
        let script = Script::new();
        script.plan(1, vec![Act::Fail; lost]);
        let rig = rig_with(Retries::none().delayed([secs(600)]), &script).await;
        for _ in 0..lost {
            rig.store.fail_next(Operation::Rollback, StoreErrorKind::Unavailable);
        }
        rig.broker.deliver(command(1));
        rig.all_acked().await;
        let row = rig.inbox("do-1");
        assert_eq!(script.runs_of(1), if counted == 0 { lost + 1 } else { lost });
        let result = if counted == 0 { InboxResult::Handled } else { InboxResult::Retrying };
        assert_eq!((row.result, row.attempts), (result, 1), "lost {lost} times");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_commits_are_lost_for_ever_is_held_and_others_go_on() {
    for batches in [false, true] {
        let script = Script::new();
        let rig = Rig::start(|builder| {
            let builder = builder.retries(Retries::none());
            match batches {
                true => builder.handle_batch::<Do>(Batches(script.clone())),
                false => builder.handle::<Do>(script.clone()),
            }
        })
        .await;
        for _ in 0..6 {
            rig.store.lose_next_commit(false);
        }
        rig.broker.deliver_all((1..=3).map(command));
        rig.all_acked().await;
        assert_eq!(rig.done(), [2, 3], "batches: {batches}");
        assert_eq!(rig.the_held().envelope.message_id, "do-1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ends_the_transaction_itself_fails_and_leaves_nothing() {
    let script = Script::new();
    script.plan(1, [Act::EndTransaction]);
    let rig = rig_with(Retries::none(), &script).await;
    rig.broker.deliver_all([command(1), command(2)]);
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.held().len()), (vec![2], 1));
    assert!(rig.the_held().error.unwrap().contains("ended the transaction"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_publishes_what_json_cannot_say_is_held_at_once() {
    let script = Script::new();
    script.plan(1, [Act::PublishNan]);
    let rig = rig_with(retries(), &script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    let held = rig.the_held();
    assert!(held.error.as_deref().unwrap().contains("NaN"), "{held:?}");
    assert_eq!((rig.done(), held.attempts), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn t_013_an_outcome_that_is_too_large_is_held_at_once() {
    let builder =
        |builder: Builder| builder.handle::<Do>(Script::new()).settings(|settings| settings.body_bytes_max = 10);
    let rig = Rig::start(builder).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    let held = rig.the_held();
    assert!(held.error.as_deref().unwrap().contains("has 12 bytes; `body_bytes_max` allows 10"), "{held:?}");
    assert_eq!((rig.done(), held.attempts), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn a_handler_without_a_transaction_is_handled_once_too() {
    let script = Script::new();
    script.plan(1, [Act::FailIdle, Act::Idle]);
    let rig = rig_with(Retries::none().immediate(1), &script).await;
    rig.broker.deliver_all([command(1), command(1)]);
    rig.all_acked().await;
    rig.broker.redeliver(command(1), 1);
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.inbox("do-1").attempts), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn r_007_a_policy_that_discards_leaves_a_row_that_says_so() {
    let script = Script::new();
    script.always(Act::Fail);
    let rig = rig_with(Retries::by(|_| crate::Decision::Discard), &script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    let row = rig.inbox("do-1");
    assert_eq!((row.result, row.note.as_deref()), (InboxResult::Discarded, Some("the handler fails")));
    assert_eq!(rig.held(), []);
}

#[tokio::test(start_paused = true)]
async fn what_the_database_refuses_for_ever_is_held_and_others_go_on() {
    let script = Script::new();
    let rig = rig_with(Retries::none(), &script).await;
    rig.store.fail_next(Operation::Write, StoreErrorKind::Rejected); // what the handler wrote
    rig.store.fail_next(Operation::Write, StoreErrorKind::Rejected); // the note about it
    rig.broker.deliver_all([command(1), command(2)]);
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.the_held().reason), (vec![2], HeldReason::Failed));
}

#[tokio::test(start_paused = true)]
async fn r_006_a_policy_sees_the_message_its_error_and_its_runs_and_rounds() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let saw = seen.clone();
    let policy = Retries::by(move |failure| {
        let crate::Failure { envelope, error, runs_in_round, round, .. } = *failure;
        let tenant = envelope.headers["tenant"].as_str().map(str::to_owned);
        let waited = failure.elapsed >= secs(60);
        saw.lock().unwrap().push((envelope.type_name.clone(), tenant, error.to_owned(), runs_in_round, round, waited));
        match (runs_in_round, round) {
            (1, _) => crate::Decision::RetryNow,
            (_, 0) => crate::Decision::RetryAfter(secs(60)),
            _ => crate::Decision::Hold,
        }
    });
    let script = Script::new();
    script.always(Act::Fail);
    let rig = rig_with(policy.clone(), &script).await;
    let mut message = command(1);
    message.headers.insert("tenant".into(), "north".into());
    rig.broker.deliver(message.clone());
    rig.until_within(secs(90), "it is held", |rig| rig.held().len() == 1).await;
    let expected = [(1, 0, false), (2, 0, false), (1, 1, true), (2, 1, true)].map(|(run, round, waited)| {
        ("shop.Do".to_owned(), Some("north".to_owned()), "the handler fails".to_owned(), run, round, waited)
    });
    assert_eq!(*seen.lock().unwrap(), expected);
    let failure = crate::Failure {
        envelope: &message,
        error: "no",
        permanent: false,
        retry_after: None,
        runs_in_round: 2,
        round: 0,
        elapsed: Duration::ZERO,
    };
    assert_eq!([policy.decide(&failure), policy.decide(&failure)], [crate::Decision::RetryAfter(secs(60)); 2]);
}

#[tokio::test(start_paused = true)]
async fn r_008_a_handlers_own_policy_applies_alone() {
    let script = Script::new();
    script.always(Act::Fail);
    let rig = Rig::start(|builder| {
        let builder = builder.retries(Retries::none().immediate(3).delayed([secs(1), secs(1)]));
        builder.handle_with::<Do>(script.clone(), |options| options.retries(Retries::none().immediate(1)))
    })
    .await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!((script.runs_of(1), rig.the_held().attempts), (2, 2));
}
