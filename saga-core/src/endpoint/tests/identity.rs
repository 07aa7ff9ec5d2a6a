//! Which message is which: ids, duplicates, retries.

use super::*;

fn other_body(mut envelope: Envelope) -> Envelope {
    let mut body = envelope.body.to_vec();
    body.extend_from_slice(b"  ");
    envelope.body = body.into();
    envelope
}

#[tokio::test(start_paused = true)]
async fn o_010_of_two_messages_under_one_id_in_one_batch_the_second_is_held() {
    let rig = Rig::walk().await;
    let (first, second) = (step(1, 1), Envelope { message_id: "step-1-1".into(), ..step(1, 2) });
    rig.broker.deliver_all([begin(1), first.clone(), second.clone(), first]);
    rig.all_acked().await;
    assert_eq!(rig.steps(1), [1]);
    let held = rig.the_held();
    assert_eq!((held.reason, held.envelope.body.clone()), (HeldReason::Rejected, second.body.clone()));
    assert!(held.error.unwrap().contains("used before"), "it says why");
    // no matter how often it comes, it is held once
    rig.broker.deliver(second);
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn o_010_of_two_commands_under_one_id_in_one_batch_the_second_is_held() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    let (first, second) = (command(1), Envelope { message_id: "do-1".into(), ..command(2) });
    rig.broker.deliver_all([first.clone(), second, first, command(3)]);
    rig.all_acked().await;
    assert_eq!(rig.done(), [1, 3]);
    assert_eq!(rig.the_held().reason, HeldReason::Rejected);
    assert_eq!(rig.result("do-1"), InboxResult::Handled);
}

#[tokio::test(start_paused = true)]
async fn o_010_of_two_unknown_messages_under_one_id_both_are_held() {
    let rig = Rig::walk().await;
    let first = Envelope::new("m", "new.Thing", "{}");
    rig.broker.deliver_all([first.clone(), other_body(first)]);
    rig.all_acked().await;
    let reasons: Vec<_> = rig.held().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, [HeldReason::Version, HeldReason::Rejected]);
}

/// A message that failed once waits for its retry; then the retry and the redelivered original come together.
async fn retry_and_original(original_first: bool) {
    let script = Script::new();
    script.plan(1, [Act::Fail]);
    let rig =
        Rig::start(|builder| builder.retries(Retries::none().delayed([secs(60)])).handle::<Do>(script.clone())).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    let retry = (*rig.the_outbox().envelope).clone();
    assert_eq!((retry.attempt, retry.receiver.as_deref()), (1, Some("shop.Do")));
    let batch = if original_first { [command(1), retry] } else { [retry, command(1)] };
    rig.broker.deliver_all(batch);
    rig.all_acked().await;
    assert_eq!((rig.done(), script.runs()), (vec![1], vec![(1, 0), (1, 1)]));
    let row = rig.inbox("do-1");
    assert_eq!((row.result, row.attempts, row.round), (InboxResult::Handled, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn r_012_a_retry_behind_its_redelivered_original_runs() {
    retry_and_original(true).await;
}

#[tokio::test(start_paused = true)]
async fn r_012_a_retry_before_its_redelivered_original_runs() {
    retry_and_original(false).await;
}

#[tokio::test(start_paused = true)]
async fn r_012_a_retry_of_a_saga_message_behind_its_redelivered_original_runs() {
    let projection = Projection::default();
    projection.0.plan(1, [Act::Succeed, Act::Fail]);
    let rig = Rig::start(|builder| {
        let builder = builder.saga::<Walk>().project::<Walk>(projection.clone());
        builder.retries(Retries::none().delayed([secs(60)]))
    })
    .await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    rig.broker.deliver(step(1, 1));
    rig.until("the step is put off", |rig| rig.store.outbox().len() == 1 && rig.broker.is_done()).await;
    let retry = (*rig.the_outbox().envelope).clone();
    rig.broker.deliver_all([step(1, 1), retry]);
    rig.all_acked().await;
    assert_eq!(rig.steps(1), [1]);
    assert_eq!(rig.result("step-1-1"), InboxResult::Handled);
}

#[tokio::test(start_paused = true)]
async fn a_forged_attempt_means_nothing() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(script.clone())).await;
    let forged = |envelope| Envelope { attempt: i64::MAX, ..envelope };
    rig.broker.deliver_all([forged(begin(1)), forged(step(1, 1)), forged(command(1))]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done()), (vec![1], vec![1]));
    assert_eq!(script.runs(), [(1, 0)]);
    rig.broker.deliver_all([forged(step(1, 1)), forged(command(1))]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done()), (vec![1], vec![1]), "they are duplicates");
}

#[tokio::test(start_paused = true)]
async fn a_retry_with_a_used_id_and_another_body_is_held() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    rig.broker.deliver(Envelope { message_id: "do-1".into(), attempt: 1, ..command(2) });
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.the_held().reason), (vec![1], HeldReason::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_retried_message_that_is_still_undecodable_is_held_again_and_leaves_no_row_unsettled() {
    let rig = Rig::walk().await;
    let broken = Envelope { content_type: Some("text/plain".into()), ..Envelope::new("m", "Step", "one") };
    rig.broker.deliver(broken.clone());
    rig.all_acked().await;
    assert_eq!(rig.result("m"), InboxResult::Held);
    let held = rig.the_held();
    assert_eq!((held.receiver.as_str(), held.reason, held.attempts), ("", HeldReason::Undecodable, 0));
}

#[tokio::test(start_paused = true)]
async fn o_001_a_message_that_comes_twice_is_handled_once() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(script.clone())).await;
    rig.broker.deliver_all([begin(1), step(1, 1), command(1)]);
    rig.all_acked().await;
    // as after a lost acknowledgement; and as from an outbox row that was sent twice
    for delivery_count in [1, 0] {
        for envelope in [begin(1), step(1, 1), command(1)] {
            rig.broker.redeliver(envelope, delivery_count);
        }
        rig.broker.redeliver(step(1, 10 + delivery_count), 0);
        rig.all_acked().await;
    }
    assert_eq!((rig.steps(1), rig.done()), (vec![1, 11, 10], vec![1]));
    assert_eq!(rig.broker.sent_of("Stepped").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn equal_ids_in_two_receivers_of_one_endpoint_are_two_messages() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().subscribe::<Step>(script.clone())).await;
    rig.broker.deliver_all([begin(1), step(1, 1)]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done()), (vec![1], vec![1]));
    let receivers: Vec<_> = rig.store.inbox().into_iter().map(|row| row.receiver).collect();
    assert_eq!(receivers, ["walk", "step watcher", "walk"]);
}
