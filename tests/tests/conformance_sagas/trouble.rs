//! An instance that is paused: what waits behind it, and how it goes on.

use super::{sagas::*, *};
use serde_json::json;

impl<Db: Base, T: Transport + Clone> Service<Db, T> {
    /// The messages held for an instance, once there are so many: type and reason, in order of arrival.
    async fn held_for(&self, id: &str, count: usize) -> Vec<(String, String)> {
        let held = eventually(&format!("{count} messages to be held for {id}"), || async {
            let mut held = self.held().await;
            held.retain(|held| held.saga_id.as_deref() == Some(id));
            (held.len() == count).then_some(held)
        })
        .await;
        assert!(held.iter().skip(1).all(|held| held.attempts == 0), "no attempt was expected to be counted: {held:?}");
        held.into_iter().map(|held| (held.type_name, held.reason)).collect()
    }

    /// The message that pauses an instance.
    async fn culprit(&self, id: &str) -> HeldView {
        let held = self.held().await;
        let found = held.into_iter().find(|held| held.saga_id.as_deref() == Some(id) && held.reason == "failed");
        found.expect("a message pauses it")
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(one, other)| (format!("service.{one}"), (*other).to_owned())).collect()
}

/// S-060, S-070, S-071: five messages and a timer wait behind one that panicked. Instance 1: the cause is repaired and
/// the message retried. Instance 2: it is discarded. Instance 4: one of those that wait ends the instance.
pub(crate) async fn s_060_s_070_s_071_what_came_while_an_instance_was_paused_follows_in_order<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<broken::Counter>()).await;
    publish(&process, (1..=4).map(|key| Opened { key })).await;
    service.count("counter", "Open", 4).await;
    publish(&process, [1, 2, 4].map(|key| Added { key, n: 13 })).await;
    for id in ["1", "2", "4"] {
        assert_eq!(service.held_for(id, 1).await, pairs(&[("Added", "failed")]));
        let (instance, culprit) = (service.instance("counter", id).await, service.culprit(id).await);
        let error = culprit.error.as_deref().unwrap_or_default();
        assert!(error.contains("broken by order") && error.contains("sagas.rs"), "text and place: {error}");
        assert_eq!(instance.expect("it is there").paused_by.as_deref(), Some(culprit.message_id.as_str()));
    }
    for n in 1..=5 {
        publish(&process, [1, 2, 3].map(|key| Added { key, n })).await;
        service.held_for("1", n as usize + 1).await;
    }
    publish(&process, [Closed { key: 4 }]).await;
    service.held_for("4", 2).await;
    let other = service.reaches("counter", "3", "Open", 6).await;
    assert_eq!(other.data["added"], json!([1, 2, 3, 4, 5]), "other instances go on");
    service.later(Duration::from_secs(7200)).await;
    service.reaches("counter", "3", "Shut", 7).await;
    let mut waiting = vec![("Added", "failed")];
    waiting.extend([("Added", "paused"); 5]);
    waiting.push(("Idle", "paused"));
    for id in ["1", "2"] {
        assert_eq!(service.held_for(id, 7).await, pairs(&waiting));
        service.reaches("counter", id, "Open", 1).await;
    }
    assert_eq!(service.held_for("4", 3).await, pairs(&[("Added", "failed"), ("Closed", "paused"), ("Idle", "paused")]));
    stop([process]).await;

    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    let (first, second, fourth) = (service.culprit("1").await, service.culprit("2").await, service.culprit("4").await);
    let done = service.db().held_retry(&[first.row(), fourth.row()], "me", "repaired").await;
    assert_eq!(done.count("retried"), 2, "{done:?}");
    let done = service.db().held_discard(&[second.row()], "me", "no use").await;
    assert_eq!(done.count("discarded"), 1, "{done:?}");

    let instance = service.reaches("counter", "1", "Shut", 8).await;
    assert_eq!(instance.data, json!({ "added": [13, 1, 2, 3, 4, 5], "idle": true }), "it, then the six in order");
    assert_eq!(instance.paused_by, None);
    let instance = service.reaches("counter", "2", "Shut", 7).await;
    assert_eq!(instance.data, json!({ "added": [1, 2, 3, 4, 5], "idle": true }));
    assert_eq!(instance.paused_by, None);
    let discarded = service.journal("counter", "2").await.into_iter().find(|it| it.message_id == second.message_id);
    assert_eq!(discarded.expect("it is journaled").result, "discarded");
    let instance = service.reaches("counter", "4", "Shut", 3).await;
    assert_eq!(instance.data, json!({ "added": [13], "idle": false }));
    service.journaled("counter", "4", 4).await;
    let timer = service.journal("counter", "4").await.into_iter().find(|line| line.type_name == "service.Idle");
    let timer = timer.expect("it is journaled");
    let what = "the timer waited behind the others, and they left its state";
    assert_eq!((timer.result.as_str(), timer.from_state.as_deref()), ("stale", Some("Shut")), "{what}");
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-047: the start is committed; what panics behind it pauses the instance, and what waited goes on in order.
pub(crate) async fn s_047_an_early_message_that_panics_leaves_the_start_as_it_is<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<broken::Counter>()).await;
    for (held, n) in [(1, 13), (2, 1)] {
        publish(&process, [Added { key: 1, n }]).await;
        eventually("it to be early", || async { (service.held().await.len() == held).then_some(()) }).await;
    }
    publish(&process, [Opened { key: 1 }]).await;
    let instance = service.reaches("counter", "1", "Open", 1).await;
    assert_eq!(instance.data, json!({ "added": [] }), "the start has its effect");
    assert_eq!(service.timers().await.len(), 1, "and its timer");
    assert_eq!(service.held_for("1", 2).await, pairs(&[("Added", "failed"), ("Added", "early")]));
    let culprit = service.culprit("1").await;
    assert_eq!(instance.paused_by.as_deref(), Some(culprit.message_id.as_str()));
    stop([process]).await;

    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    let done = service.db().held_retry(&[culprit.row()], "me", "repaired").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    let instance = service.reaches("counter", "1", "Open", 3).await;
    assert_eq!((instance.data, instance.paused_by), (json!({ "added": [13, 1] }), None));
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-072: there is no row to pause, and still nobody overtakes the start.
pub(crate) async fn s_072_what_comes_behind_a_start_that_panics_waits_for_it<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<broken::Counter>()).await;
    publish(&process, [Opened { key: 13 }]).await;
    assert_eq!(service.held_for("13", 1).await, pairs(&[("Opened", "failed")]));
    for n in 1..=2 {
        publish(&process, [Added { key: 13, n }]).await;
        service.held_for("13", n as usize + 1).await;
    }
    let waiting = pairs(&[("Opened", "failed"), ("Added", "early"), ("Added", "early")]);
    assert_eq!(service.held_for("13", 3).await, waiting);
    assert_eq!(service.db().count("saga").await, 0);
    stop([process]).await;

    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    let done = service.db().held_retry(&[service.culprit("13").await.row()], "me", "repaired").await;
    assert_eq!(done.count("retried"), 1, "{done:?}");
    let instance = service.reaches("counter", "13", "Open", 3).await;
    assert_eq!((instance.data, instance.paused_by), (json!({ "added": [1, 2] }), None));
    let journal = service.journaled("counter", "13", 3).await;
    assert_eq!(journal, pairs(&[("Opened", "handled"), ("Added", "handled"), ("Added", "handled")]));
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}
