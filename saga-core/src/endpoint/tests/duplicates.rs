//! What comes more than once: to several receivers, to two processes, to a message that waits, to one that was put off.

use super::*;
use async_trait::async_trait;

/// Another handler of [`Step`].
struct Second(Script);

#[async_trait]
impl crate::Handle<Step, MemoryStore> for Second {
    async fn handle(&self, step: Step, cx: &mut crate::Context<'_, MemoryStore>) -> Result<(), crate::HandlerError> {
        <Script as crate::Handle<Step, MemoryStore>>::handle(&self.0, step, cx).await
    }

    fn name(&self) -> &'static str {
        "second watcher"
    }
}

#[tokio::test(start_paused = true)]
async fn o_005_of_three_receivers_only_the_one_that_failed_runs_again() {
    let (first, second) = (Script::new(), Script::new());
    second.plan(1, [Act::Fail, Act::Fail]);
    let rig = Rig::start(|builder| {
        let builder = builder.saga::<Walk>().subscribe::<Step>(first.clone()).subscribe::<Step>(Second(second.clone()));
        builder.retries(Retries::none().immediate(1).delayed([secs(60)]))
    })
    .await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    rig.broker.deliver(step(1, 1));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), first.runs_of(1), second.runs_of(1)), (vec![1], 1, 2));
    rig.broker.redeliver(step(1, 1), 1);
    rig.all_acked().await;
    assert_eq!((first.runs_of(1), second.runs_of(1)), (1, 2), "one is settled, the other waits for its retry");
    rig.until_within(secs(90), "the retry", |rig| rig.done().len() == 2).await;
    rig.all_acked().await;
    assert_eq!((rig.steps(1), first.runs_of(1), second.runs_of(1)), (vec![1], 1, 3));
    assert_eq!((rig.broker.sent_of("Stepped").len(), rig.held()), (1, vec![]));
}

/// Another process of the same endpoint, with a broker of its own.
async fn another(rig: &Rig, build: impl FnOnce(Builder) -> Builder) -> Rig {
    Rig::start_on(rig.store.clone(), Broker::new(), build).await.expect("a second process starts")
}

#[tokio::test(start_paused = true)]
async fn o_006_a_batch_of_which_another_process_has_handled_one_runs_again_without_it() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all((1..=50).map(begin));
    rig.broker.deliver(step(25, 1));
    rig.all_acked().await;
    let other = another(&rig, |builder| builder.saga::<Walk>()).await;
    // as if they came for the first time: the inbox is not asked, and the claims meet the one that is there
    other.broker.deliver_all((1..=50).map(|id| step(id, 1)));
    other.all_acked().await;
    for id in 1..=50 {
        assert_eq!((rig.steps(id), rig.inbox(&format!("step-{id}-1")).attempts), (vec![1], 1), "instance {id}");
    }
    assert_eq!(rig.held(), []);
    other.until("all is sent", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!((rig.broker.sent_of("Stepped").len(), other.broker.sent_of("Stepped").len()), (1, 49));
}

#[tokio::test(start_paused = true)]
async fn o_006_a_batch_of_commands_of_which_another_process_handles_one_meanwhile_runs_again_without_it() {
    let (quick, slow) = (Script::new(), Script::new());
    slow.plan(1, [Act::Hang(secs(1))]);
    let rig = Rig::scripted(&quick).await;
    let other = another(&rig, |builder| builder.handle_batch::<Do>(Batches(slow.clone()))).await;
    other.broker.deliver_all((1..=50).map(command));
    other.until("the batch runs", |_| slow.runs_of(1) == 1).await;
    rig.broker.deliver(command(25));
    rig.until_within(Duration::from_millis(500), "one is handled", |rig| rig.broker.is_done()).await;
    other.all_acked().await;
    let mut done = rig.done();
    done.sort_unstable();
    assert_eq!((done, rig.held()), ((1..=50).collect::<Vec<_>>(), vec![]));
    assert!(rig.store.inbox().iter().all(|row| (row.result, row.attempts) == (InboxResult::Handled, 1)));
    let batches = slow.batches();
    assert_eq!((batches[0], batches[1..].iter().sum::<usize>()), (50, 49), "{batches:?}");
}

/// A handler may have effects that no rollback undoes.
#[tokio::test(start_paused = true)]
async fn what_another_process_handles_while_a_slow_one_runs_before_it_does_not_run_again() {
    let (quick, slow) = (Script::new(), Script::new());
    slow.plan(1, [Act::Hang(secs(2))]);
    let rig = Rig::scripted(&slow).await;
    rig.broker.deliver_all((1..=3).map(command));
    rig.until("the first runs", |_| slow.runs_of(1) == 1).await;
    let other = another(&rig, |builder| builder.handle::<Do>(quick.clone())).await;
    other.broker.deliver(command(2));
    other.all_acked().await;
    rig.all_acked().await;
    assert_eq!((slow.runs(), quick.runs_of(2)), (vec![(1, 0), (3, 0)], 1));
    assert_eq!(rig.done().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn o_007_what_is_held_stays_as_it_is_when_it_comes_again() {
    let script = Script::new();
    script.plan(1, [Act::Fail]);
    let rig = Rig::start(|builder| builder.saga::<Walk>().retries(Retries::none()).handle::<Do>(script.clone())).await;
    let boom = message("boom-1", &Boom { id: 1 });
    let broken = Envelope::new("broken", "Step", "{\"id\":");
    let all = [step(9, 1), command(1), boom, step(1, 1), broken];
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    for envelope in all.clone() {
        rig.broker.deliver(envelope);
        rig.all_acked().await;
    }
    let before = rig.store.held();
    let mut reasons: Vec<&str> = before.iter().map(|row| row.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["early", "failed", "failed", "paused", "undecodable"]);
    for delivery_count in [1, 0] {
        for envelope in all.clone() {
            rig.broker.redeliver(envelope, delivery_count);
            rig.all_acked().await;
        }
    }
    assert_eq!(rig.store.held(), before, "with the attempts and errors that they had");
    assert_eq!((rig.broker.acked().len(), script.runs_of(1), rig.walk_at(1)), (16, 1, ("Here".into(), 1)));
}

#[tokio::test(start_paused = true)]
async fn r_011_a_retry_that_was_committed_and_not_acknowledged_is_one_retry() {
    let script = Script::new();
    script.plan(1, [Act::Fail]);
    let build = |builder: Builder| builder.retries(Retries::none().delayed([secs(60)])).handle::<Do>(script.clone());
    let Rig { store, broker, endpoint } = Rig::start(build).await;
    broker.deliver(command(1));
    tokio::time::sleep(secs(1)).await;
    let committed = store.outbox();
    assert_eq!((committed.len(), broker.is_done()), (1, true));
    drop(endpoint);
    // the acknowledgement did not arrive: the next process gets the message once more
    let rig = Rig::start_on(store, Broker::new(), build).await.expect("it starts");
    rig.broker.redeliver(command(1), 1);
    rig.all_acked().await;
    assert_eq!(rig.store.outbox(), committed);
    let row = rig.inbox("do-1");
    assert_eq!((row.result, row.attempts, row.round), (InboxResult::Retrying, 1, 1));
    rig.until_within(secs(90), "the retry", |rig| rig.done() == [1]).await;
    rig.until("it is acknowledged", |rig| rig.broker.is_done()).await;
    assert_eq!((script.runs(), rig.inbox("do-1").attempts), (vec![(1, 0), (1, 1)], 2));
}
