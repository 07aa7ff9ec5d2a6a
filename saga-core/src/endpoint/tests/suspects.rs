//! Messages that may have killed the process.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_suspect_is_counted_before_it_runs() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(script.clone())).await;
    rig.broker.redeliver(begin(1), 1);
    rig.broker.redeliver(step(1, 1), 2);
    rig.broker.redeliver(command(1), 2);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done()), (vec![1], vec![1]));
    for (id, crashes) in [("begin-1", 0), ("step-1-1", 1), ("do-1", 1)] {
        let row = rig.inbox(id);
        assert_eq!((row.result, row.crashes), (InboxResult::Handled, crashes), "{id}");
    }
}

/// As if the process had died while it ran the message: it was counted, and nothing else of it happened.
async fn dies_with(message: Envelope, times: u32) -> Rig {
    let (script, store, broker) = (Script::new(), MemoryStore::new(), Broker::new());
    broker.enqueue(begin(1), 0, None);
    for run in 0..times {
        script.always(Act::Hang(secs(3600)));
        let rig = Rig::start_on(store.clone(), broker.clone(), |builder| {
            let builder = builder.saga::<Walk>().project::<Walk>(Projection(script.clone()));
            builder.handle::<Do>(script.clone()).settings(|settings| settings.handler_time = secs(7200))
        });
        let rig = rig.await.expect("it starts");
        if run == 0 {
            script.always(Act::Succeed);
            rig.all_acked().await;
            script.always(Act::Hang(secs(3600)));
            rig.broker.redeliver(message.clone(), 2);
        }
        let runs = script.runs().len();
        rig.until("it runs", |_| script.runs().len() > runs || run == 0).await;
        tokio::time::sleep(secs(1)).await;
        drop(rig.endpoint);
        tokio::time::sleep(secs(1)).await;
    }
    script.always(Act::Succeed);
    let rig = Rig::start_on(store, broker, |builder| {
        let builder = builder.saga::<Walk>().project::<Walk>(Projection(script.clone()));
        builder.handle::<Do>(script.clone())
    });
    let rig = rig.await.expect("it starts");
    rig.all_acked().await;
    rig
}

#[tokio::test(start_paused = true)]
async fn a_command_that_killed_three_processes_is_held_without_a_fourth_run() {
    let rig = dies_with(command(7), 2).await;
    assert_eq!((rig.done(), rig.inbox("do-7").crashes), (vec![7], 3));
    let rig = dies_with(command(7), 3).await;
    assert_eq!((rig.done(), rig.the_held().reason), (vec![], HeldReason::Crashes));
    assert!(rig.the_held().error.unwrap().contains("died 3 times"));
}

#[tokio::test(start_paused = true)]
async fn a_saga_message_that_killed_three_processes_pauses_its_instance() {
    let rig = dies_with(step(1, 1), 3).await;
    assert_eq!((rig.steps(1), rig.the_held().reason), (vec![], HeldReason::Crashes));
    rig.broker.deliver(step(1, 2));
    rig.all_acked().await;
    assert_eq!(rig.held()[1], ("step-1-2".into(), HeldReason::Paused));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_runs_alone_and_nothing_of_its_instance_overtakes_it() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.handle_batch::<Do>(Batches(script.clone()))).await;
    rig.broker.enqueue(command(1), 0, None);
    rig.broker.enqueue(command(2), 0, None);
    rig.broker.enqueue(command(3), 2, None);
    rig.broker.enqueue(command(4), 0, None);
    rig.broker.enqueue(command(5), 0, None);
    rig.broker.pump();
    rig.all_acked().await;
    assert_eq!((script.batches(), rig.done()), (vec![2, 1, 2], vec![1, 2, 3, 4, 5]));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_settled_already_is_not_run_again() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    rig.broker.redeliver(command(1), 9);
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.inbox("do-1").crashes), (vec![1], 0));
}

/// A service that hangs in its projection, which stands for what kills it.
async fn hanging(script: &Script, store: &MemoryStore, broker: &Broker) -> Rig {
    let rig = Rig::start_on(store.clone(), broker.clone(), |builder| {
        let builder = builder.saga::<Walk>().project::<Walk>(Projection(script.clone()));
        builder.settings(|settings| settings.handler_time = secs(7200))
    });
    rig.await.expect("it starts")
}

/// Dies so often in the next run of the projection.
async fn dies(times: u32, script: &Script, store: &MemoryStore, broker: &Broker, first: Envelope) {
    script.always(Act::Hang(secs(3600)));
    for time in 0..times {
        let runs = script.runs().len();
        let rig = hanging(script, store, broker).await;
        if time == 0 {
            rig.broker.redeliver(first.clone(), 2);
        }
        rig.until("it runs", |_| script.runs().len() > runs).await;
        tokio::time::sleep(secs(1)).await;
        drop(rig.endpoint);
        tokio::time::sleep(secs(1)).await;
    }
    script.always(Act::Succeed);
}

fn arrive(n: u32) -> Envelope {
    message(format!("arrive-{n}"), &Arrive { id: 1, n })
}

/// Begun, and with two messages that wait for a later state.
async fn waits_for_go(script: &Script, store: &MemoryStore, broker: &Broker) {
    let rig = hanging(script, store, broker).await;
    rig.broker.deliver_all([begin(1), arrive(1), arrive(2)]);
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_held_message_that_kills_the_process_is_found_and_no_other_is_blamed() {
    for times in [2, 3] {
        let (script, store, broker) = (Script::new(), MemoryStore::new(), Broker::new());
        waits_for_go(&script, &store, &broker).await;
        tokio::time::sleep(secs(1)).await;
        script.plan(1, vec![Act::Succeed, Act::Succeed]); // `go`, and the first that waits for it
        let go = message("go", &Go { id: 1 });
        dies(times, &script, &store, &broker, go).await;
        let rig = hanging(&script, &store, &broker).await;
        rig.all_acked().await;
        assert_eq!((rig.result("go"), rig.result("arrive-1")), (InboxResult::Handled, InboxResult::Handled));
        assert_eq!((rig.inbox("arrive-1").crashes, rig.inbox("arrive-2").crashes), (1, i64::from(times) + 1));
        if times == 2 {
            assert_eq!((rig.steps(1), rig.held()), (vec![1, 2], vec![]));
            continue;
        }
        assert_eq!(rig.held(), [("arrive-2".into(), HeldReason::Crashes)]);
        assert!(rig.the_held().error.unwrap().contains("died 3 times"));
        rig.broker.deliver(step(1, 3));
        rig.all_acked().await;
        assert_eq!(rig.held()[1], ("step-1-3".into(), HeldReason::Paused));
    }
}

#[tokio::test(start_paused = true)]
async fn what_kills_the_process_behind_a_wake_up_is_held() {
    let (script, store, broker) = (Script::new(), MemoryStore::new(), Broker::new());
    let rig = hanging(&script, &store, &broker).await;
    rig.broker.deliver_all([begin(1), message("boom-1", &Boom { id: 1 }), step(1, 1)]);
    rig.all_acked().await;
    assert_eq!(rig.held()[1], ("step-1-1".into(), HeldReason::Paused));
    drop(rig.endpoint);
    tokio::time::sleep(secs(1)).await;
    store.change_instances(|instance| instance.row.paused_by = None); // an operator resumes it
    let wake = Envelope::wake(&crate::InstanceKey { saga: "walk".into(), id: "1".into() });
    dies(3, &script, &store, &broker, wake).await;
    let rig = hanging(&script, &store, &broker).await;
    rig.all_acked().await;
    assert_eq!(rig.held(), [("boom-1".into(), HeldReason::Failed), ("step-1-1".into(), HeldReason::Crashes)]);
    assert_eq!((rig.inbox("step-1-1").crashes, rig.store.inbox().len()), (4, 3), "the wake-up leaves no row");
}

/// What waits may go on now, and what came killed the process: which of them it was is seen when each runs alone.
#[tokio::test(start_paused = true)]
async fn what_kills_the_process_does_not_run_beside_what_waits() {
    let (script, store, broker) = (Script::new(), MemoryStore::new(), Broker::new());
    let rig = hanging(&script, &store, &broker).await;
    rig.broker.deliver_all([begin(1), message("boom-1", &Boom { id: 1 }), step(1, 1)]);
    rig.all_acked().await;
    drop(rig.endpoint);
    tokio::time::sleep(secs(1)).await;
    store.change_instances(|instance| instance.row.paused_by = None); // an operator resumes it
    script.plan(1, vec![Act::Succeed]); // what waits
    dies(3, &script, &store, &broker, step(1, 2)).await;
    let rig = hanging(&script, &store, &broker).await;
    rig.all_acked().await;
    assert_eq!((rig.result("step-1-1"), rig.inbox("step-1-1").crashes), (InboxResult::Handled, 1));
    assert_eq!(rig.held(), [("boom-1".into(), HeldReason::Failed), ("step-1-2".into(), HeldReason::Crashes)]);
}
