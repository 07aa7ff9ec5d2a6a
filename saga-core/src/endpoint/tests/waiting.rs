//! Messages that an instance holds for later: early, deferred, paused, of another version.

use super::*;
use crate::{InstanceKey, Store, Unit, Write};

fn go(id: u64) -> Envelope {
    message(format!("go-{id}"), &Go { id })
}

fn arrive(id: u64, n: u32) -> Envelope {
    message(format!("arrive-{id}-{n}"), &Arrive { id, n })
}

fn wait(id: u64, n: u32) -> Envelope {
    message(format!("wait-{id}-{n}"), &Wait { id, n })
}

fn boom(id: u64) -> Envelope {
    message(format!("boom-{id}"), &Boom { id })
}

#[tokio::test(start_paused = true)]
async fn s_036_early_and_deferred_messages_go_on_in_the_order_in_which_they_came() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([arrive(1, 1), step(1, 1)]);
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 2, "there is no instance yet");
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    assert_eq!(rig.steps(1), [1]);
    for envelope in [wait(1, 2), arrive(1, 3), wait(1, 4)] {
        rig.broker.deliver(envelope);
        rig.all_acked().await;
    }
    use HeldReason::{Deferred, Early};
    let reasons: Vec<_> = rig.held().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, [Early, Deferred, Early, Deferred]);
    rig.broker.deliver_all([go(1), arrive(1, 5)]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1, 1, 2, 3, 4, 5], vec![]));
    assert!(rig.store.inbox().iter().all(|row| (row.result, row.attempts) == (InboxResult::Handled, 1)));
}

#[tokio::test(start_paused = true)]
async fn s_042_early_messages_do_not_wait_for_ever() {
    let rig = Rig::walk().await;
    rig.broker.deliver(step(1, 1));
    rig.all_acked().await;
    rig.until_within(secs(3800), "it expires", |rig| rig.held().is_empty()).await;
    assert_eq!(rig.result("step-1-1"), InboxResult::Discarded, "nobody asked for an event");
}

/// Events that nobody asked for are given up; on an answer money may depend, so a person decides. Both are said, once
/// and with their number.
#[tokio::test(start_paused = true)]
async fn s_042_what_waits_for_an_instance_in_vain_is_journaled_or_held_for_a_person_and_logged() {
    let (warnings, _guard) = logs::Warnings::listen();
    let rig = Rig::walk().await;
    let asked = SagaRef { saga: "walk".into(), id: "3".into(), entered: Some(1), timer: None };
    let paid = Envelope { saga: Some(asked), ..message("paid", &Paid { id: 3 }) };
    rig.broker.deliver_all([step(1, 1), paid, step(2, 1)]);
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 3, "all are early");
    tokio::time::sleep(secs(3500)).await;
    assert_eq!((rig.held().len(), warnings.with("no instance came")), (3, vec![]), "the hour is not over");
    rig.until_within(secs(300), "the events go", |rig| rig.held().len() == 1).await;
    for id in ["step-1-1", "step-2-1"] {
        let row = rig.inbox(id);
        assert_eq!((row.result, row.note.as_deref()), (InboxResult::Discarded, Some("no instance came in time")));
    }
    let held = rig.the_held();
    assert_eq!((held.envelope.message_id.as_str(), held.reason), ("paid", HeldReason::Failed));
    let why = "no instance came in time: start it and retry, or discard the message";
    assert_eq!((held.error.as_deref(), held.expires_at_us), (Some(why), None), "it waits as long as it takes");
    let said = |text: &str, messages: u32| format!("{text}, endpoint=\"shop\", messages={messages}");
    assert_eq!(
        warnings.with("no instance came in time"),
        [
            said("discarded: early events for which no instance came in time", 2),
            said("held for a person: early answers and commands for which no instance came in time", 1),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn more_held_messages_than_one_unit_reads_go_on_in_order_and_other_instances_run_between() {
    let script = Script::new();
    let projection = Projection(script.clone());
    let rig = Rig::start(|builder| builder.saga::<Walk>().project::<Walk>(projection)).await;
    rig.broker.deliver_all([begin(1), begin(2)]);
    rig.all_acked().await;
    for page in 0..2 {
        rig.broker.deliver_all((1 + 500 * page..=500 + 500 * page).map(|n| arrive(1, n)));
        rig.all_acked().await;
    }
    assert_eq!(rig.held().len(), 1000);
    script.plan(1, vec![Act::Hang(secs(1)); 5]); // each page of them takes a second
    rig.broker.deliver(go(1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.broker.deliver(step(2, 1));
    rig.until_within(secs(2), "instance 2 goes on", |rig| rig.steps(2) == [1]).await;
    assert!(rig.steps(1).len() < 1000, "instance 1 was expected to be at it still");
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), ((1..=1000).collect(), vec![]));
}

/// Bodies of which a unit reads a few: those that fit from the start, and those that fit a state which a message of the
/// unit leads to.
#[tokio::test(start_paused = true)]
async fn large_held_messages_go_on_a_few_at_a_time_and_in_order() {
    let large = |mut envelope: Envelope| {
        let mut body = envelope.body.to_vec();
        body.resize(3 << 20, b' ');
        envelope.body = body.into();
        envelope
    };
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), begin(2)]);
    for n in 1..=8 {
        rig.broker.deliver_all([large(arrive(1, n)), large(arrive(2, n))]);
    }
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 16);
    let reads = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = reads.clone();
    rig.store.fail_while(move |operation| {
        let read = usize::from(operation == Operation::Held);
        counted.fetch_add(read, std::sync::atomic::Ordering::Relaxed);
        None
    });
    rig.broker.deliver_all([go(1), go(2), arrive(1, 9), arrive(2, 9)]);
    rig.all_acked().await;
    let all: Vec<u32> = (1..=9).collect();
    assert_eq!((rig.steps(1), rig.steps(2), rig.held()), (all.clone(), all, vec![]));
    let reads = reads.load(std::sync::atomic::Ordering::Relaxed);
    assert!((4..=12).contains(&reads), "48 MiB were read in {reads} parts of 16 to 19");
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_held_messages_go_on_waits_behind_them() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.broker.deliver_all((1..=450).map(|n| arrive(1, n)));
    rig.all_acked().await;
    rig.broker.deliver_all([go(1), arrive(1, 451), arrive(1, 452)]);
    rig.all_acked().await;
    assert_eq!(rig.steps(1), (1..=452).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_held_messages_that_do_not_fit_hide_none_that_fits() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.broker.deliver_all((1..=1000).map(|n| message(format!("after-{n}"), &Arrive { id: 1, n })));
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 1000);
    // a message that fits now, as if it had been early in an older version of the definition
    let mut unit = rig.store.begin(&[], secs(30)).await.unwrap();
    let envelope = std::sync::Arc::new(step(1, 7));
    let held = crate::HeldIn {
        receiver: "walk".into(),
        envelope: envelope.clone(),
        reason: HeldReason::Early,
        saga_id: Some("1".into()),
        error: None,
        attempts: 0,
        expires: None,
        alias: None,
    };
    let claim =
        crate::InboxRow { saga_id: Some("1".into()), ..crate::InboxRow::new("walk", envelope, InboxResult::Held) };
    let write = Write { endpoint: NAME.into(), held_in: vec![held], claims: vec![claim], ..Write::default() };
    unit.write(&write).await.unwrap();
    unit.commit().await.unwrap();
    rig.broker.deliver(step(1, 8));
    rig.all_acked().await;
    assert_eq!(rig.steps(1), [7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_held_for_one_paused_instance_slow_no_other() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), boom(1)]);
    rig.broker.deliver_all((1..=1000).map(|n| step(1, n)));
    rig.broker.deliver_all((2..=200).map(begin));
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 1001);
    let units = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = units.clone();
    rig.store.fail_while(move |operation| {
        if operation == Operation::Begin {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        assert_ne!(operation, Operation::Held, "what does not fit is not read");
        None
    });
    rig.broker.deliver_all((1..=200).map(|id| step(id, 2000)));
    rig.all_acked().await;
    assert_eq!(rig.steps(200), [2000]);
    let units = units.load(std::sync::atomic::Ordering::Relaxed);
    assert!(units <= 3, "{units} units for one batch");
}

#[tokio::test(start_paused = true)]
async fn s_069_a_panic_pauses_its_instance_and_a_retry_that_succeeds_releases_what_waits() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), boom(1), step(1, 1), begin(2), step(2, 1), step(1, 2)]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1).len(), rig.steps(2)), (0, vec![1]));
    use HeldReason::{Failed, Paused};
    let held: Vec<_> = rig.held().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(held, [Failed, Paused, Paused]);
    // an operator discards the cause: the operator's tool is not tested here, so the test writes its rows itself
    let key = InstanceKey { saga: "walk".into(), id: "1".into() };
    let mut row = rig.store.instances().remove(0).row;
    assert_eq!((row.key.clone(), row.paused_by.as_deref()), (key.clone(), Some("boom-1")));
    row.paused_by = None;
    let mut unit = rig.store.begin(&[], secs(30)).await.unwrap();
    let gone = crate::HeldKey { receiver: "walk".into(), message_id: "boom-1".into() };
    let write = Write {
        endpoint: NAME.into(),
        instances: vec![crate::InstanceWrite { base_seq: row.seq, row }],
        held_out: vec![gone],
        ..Write::default()
    };
    unit.write(&write).await.unwrap();
    unit.commit().await.unwrap();
    rig.broker.deliver(Envelope::wake(&key));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1, 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_version_wrote_waits_and_goes_on_when_that_version_is_there() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let set_version = async |version| {
        let mut row = rig.store.instances().remove(0).row;
        row.version = version;
        let mut unit = rig.store.begin(&[], secs(30)).await.unwrap();
        let instances = vec![crate::InstanceWrite { base_seq: row.seq, row }];
        unit.write(&Write { endpoint: NAME.into(), instances, ..Write::default() }).await.unwrap();
        unit.commit().await.unwrap();
    };
    set_version(2).await;
    rig.broker.deliver_all([step(1, 1), step(1, 2)]);
    rig.all_acked().await;
    assert_eq!(rig.held(), [("step-1-1".into(), HeldReason::Version), ("step-1-2".into(), HeldReason::Version)]);
    tokio::time::sleep(secs(300)).await;
    assert_eq!(rig.broker.sent_of(Envelope::WAKE).len(), 0, "nobody here knows version 2");
    set_version(1).await;
    rig.until("it is woken", |rig| rig.steps(1) == [1, 2]).await;
    assert_eq!(rig.held(), []);
}

#[tokio::test(start_paused = true)]
async fn r_030_a_message_of_an_unknown_type_goes_to_whoever_knows_it_later() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([command(1), begin(1)]);
    rig.all_acked().await;
    let held = rig.the_held();
    assert_eq!((held.receiver.as_str(), held.reason), ("", HeldReason::Version));
    assert!(held.error.unwrap().contains("unknown type `shop.Do`"), "it says what is known");
    let script = Script::new();
    let newer = Rig::start_on(rig.store.clone(), rig.broker.clone(), |builder| {
        builder.saga::<Walk>().handle::<Do>(script.clone())
    });
    let newer = newer.await.expect("it starts");
    newer.until("it is handled", |rig| rig.done() == [1]).await;
    assert_eq!(newer.held(), []);
}
