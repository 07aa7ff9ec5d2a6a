//! Two versions of a service at once: what the older one gets and cannot use waits for the newer one.

use super::*;
use crate::{HeldKey, InstanceKey, InstanceWrite, Store, Unit, Write};

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
