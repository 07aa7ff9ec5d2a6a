//! Two versions of a service at once: what the older one gets and cannot use waits for the newer one.

use super::*;
use crate::{HeldKey, InstanceKey, InstanceWrite, Store, Unit, Write, endpoint::take_back::TakeBack};

/// Changes the only instance, as a process of another version or an operator does.
async fn change(rig: &Rig, held_out: Vec<HeldKey>, change: impl FnOnce(&mut crate::InstanceRow)) {
    let mut row = rig.store.instances().remove(0).row;
    change(&mut row);
    let mut unit = rig.store.begin(&[], secs(30)).await.unwrap();
    let instances = vec![InstanceWrite { base_seq: row.seq, row }];
    unit.write(&Write { endpoint: NAME.into(), instances, held_out, ..Write::default() }).await.unwrap();
    unit.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_for_a_handler_that_only_the_newer_version_has_is_not_lost_to_the_older_one() {
    let script = Script::new();
    script.plan(1, vec![Act::Fail]);
    let newer = |builder: Builder| {
        builder.retries(Retries::none().delayed([secs(60)])).saga::<Walk>().handle::<Do>(script.clone())
    };
    let rig = Rig::start(newer).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    assert_eq!((rig.result("do-1"), rig.inbox("do-1").attempts), (InboxResult::Retrying, 1));
    let Rig { store, broker, endpoint } = rig;
    drop(endpoint);
    let older = Rig::start_on(store, broker, |builder| builder.saga::<Walk>()).await.expect("it starts");
    older.until_within(secs(120), "the older version holds it", |rig| rig.held().len() == 1).await;
    assert_eq!(older.the_held().receiver, "");
    older.until("the row that brought it is gone", |rig| rig.broker.is_done() && rig.store.outbox().is_empty()).await;
    let Rig { store, broker, endpoint } = older;
    drop(endpoint);
    let rig = Rig::start_on(store, broker, newer).await.expect("it starts");
    rig.until("it is handled", |rig| rig.done() == [1]).await;
    assert_eq!((rig.held(), rig.result("do-1"), rig.inbox("do-1").attempts), (vec![], InboxResult::Handled, 2));
}

#[tokio::test(start_paused = true)]
async fn the_retry_that_an_instance_waits_for_comes_again_until_the_newer_version_takes_it() {
    let script = Script::new();
    let projection = Projection(script.clone());
    let retries = Retries::none().delayed([secs(60)]);
    let rig = Rig::start(|builder| builder.retries(retries).saga::<Walk>().project::<Walk>(projection)).await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    script.plan(1, vec![Act::Fail; 2]); // in the batch, then alone
    rig.broker.deliver_all([step(1, 1), step(1, 2)]);
    rig.all_acked().await;
    change(&rig, vec![], |row| row.version = 2).await;
    tokio::time::sleep(secs(3600)).await;
    let row = rig.inbox("step-1-1");
    assert_eq!((row.result, row.attempts, row.round), (InboxResult::Retrying, 1, 1), "this process may not run it");
    assert_eq!(rig.held(), [("step-1-2".into(), HeldReason::Paused)]);
    change(&rig, vec![], |row| row.version = 1).await;
    rig.until_within(secs(301), "it is taken", |rig| rig.steps(1) == [1, 2]).await;
    assert_eq!((rig.held(), rig.inbox("step-1-1").attempts), (vec![], 2));
}

fn wakes(rig: &Rig) -> Vec<(i64, i64)> {
    let rows = rig.store.outbox();
    let wakes = rows.iter().filter(|row| row.envelope.type_name == Envelope::WAKE);
    wakes.map(|row| (row.envelope.attempt, (row.due_at_us - row.created_at_us) / 1_000_000)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_that_an_older_process_gets_reaches_the_newer_one() {
    let rig = Rig::walk().await;
    let boom = message("boom-1", &Boom { id: 1 });
    rig.broker.deliver_all([begin(1), boom, step(1, 1), step(1, 2)]);
    rig.all_acked().await;
    // an operator discards the cause, as the newer version's row has it
    let gone = vec![HeldKey { receiver: "walk".into(), message_id: "boom-1".into() }];
    change(&rig, gone, |row| (row.version, row.paused_by) = (2, None)).await;
    let key = InstanceKey { saga: "walk".into(), id: "1".into() };
    rig.broker.deliver_all([Envelope::wake(&key), Envelope::wake(&key)]);
    rig.all_acked().await;
    assert!(matches!(wakes(&rig)[..], [(1, 7..=10)]), "one comes again: {:?}", wakes(&rig));
    tokio::time::sleep(secs(60)).await;
    assert!(matches!(wakes(&rig)[..], [(2..=4, _)]), "and again: {:?}", wakes(&rig));
    change(&rig, vec![], |row| row.version = 1).await;
    rig.until_within(secs(301), "it is woken", |rig| rig.steps(1) == [1, 2]).await;
    rig.until("it comes no more", |rig| rig.store.outbox().iter().all(|row| row.envelope.type_name != Envelope::WAKE))
        .await;
    let held: Vec<String> = rig.held().into_iter().map(|(id, _)| id).collect();
    assert_eq!(held, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_without_a_use_does_not_come_again() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    change(&rig, vec![], |row| row.version = 2).await;
    rig.broker.deliver(Envelope::wake(&InstanceKey { saga: "walk".into(), id: "1".into() }));
    rig.all_acked().await;
    assert_eq!(wakes(&rig), [], "nothing waits there");
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_for_a_saga_that_is_not_here_comes_again_for_a_day() {
    let rig = Rig::walk().await;
    let wake = Envelope::wake(&InstanceKey { saga: "newer".into(), id: "1".into() });
    rig.broker.deliver(wake.clone());
    rig.all_acked().await;
    assert_eq!((rig.held(), rig.store.inbox().len()), (vec![], 0));
    assert!(matches!(wakes(&rig)[..], [(1, 7..=10)]), "{:?}", wakes(&rig));
    tokio::time::sleep(secs(72_000)).await;
    assert_eq!(wakes(&rig).len(), 1, "there may be a newer process by now");
    tokio::time::sleep(secs(86_400)).await;
    assert_eq!((wakes(&rig).len(), rig.held(), rig.store.inbox().len()), (0, vec![], 0));
}

/// What goes after a command.
fn back(command: &Envelope) -> Envelope {
    let body =
        TakeBack { type_name: command.type_name.clone(), id: command.message_id.clone(), hash: command.body_hash() };
    let id = format!("back-{}", command.message_id);
    Envelope::new(id, Envelope::TAKE_BACK, serde_json::to_vec(&body).expect("it is JSON"))
}

#[tokio::test(start_paused = true)]
async fn what_goes_after_a_command_of_the_newer_version_reaches_it() {
    let script = Script::new();
    let older = Rig::walk().await;
    older.broker.deliver(back(&command(1)));
    older.all_acked().await;
    assert_eq!((older.held(), older.store.inbox().len()), (vec![], 0));
    let row = older.the_outbox();
    assert_eq!((row.envelope.type_name.as_str(), row.envelope.attempt), (Envelope::TAKE_BACK, 1));
    let Rig { store, broker, endpoint } = older;
    drop(endpoint);
    let newer = Rig::start_on(store, broker, |builder| builder.saga::<Walk>().handle::<Do>(script.clone()));
    let newer = newer.await.expect("it starts");
    newer.until("it is known", |rig| rig.store.inbox().len() == 2).await;
    newer.broker.deliver(command(1));
    newer.all_acked().await;
    assert_eq!((script.runs_of(1), newer.result("do-1")), (0, InboxResult::Discarded));
}

#[tokio::test(start_paused = true)]
async fn a_command_of_the_newer_version_that_is_held_is_taken_back_there() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([command(1), command(2)]);
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 2);
    rig.broker.deliver(back(&command(1)));
    rig.all_acked().await;
    assert_eq!((rig.held(), rig.result("do-1")), (vec![("do-2".into(), HeldReason::Version)], InboxResult::Discarded));
    assert_eq!(rig.inbox("back-do-1").note.as_deref(), Some("shop.Do do-1: taken back while it waited"));
    assert_eq!(rig.store.outbox().len(), 0);
}
