//! What begins an instance, and what ends it: as the tables show it.

use super::{sagas::*, *};
use serde_json::json;

/// Over as soon as it begins.
mod once {
    use super::*;
    use saga_core::{Deadline, Publishes, Stay, deadline, hours, publish, saga, states};

    #[states]
    pub(crate) enum Once {
        #[done]
        Told,
    }

    #[saga(name = "once", id = key: u64)]
    impl Once {
        fn opened(it: Opened) -> (Told, Publishes<Ended>, Deadline<Idle>) {
            (Told, publish(Ended { key: it.key }), deadline(hours(1), Idle {}))
        }

        fn idle(self, _: Idle) -> Stay<Self> {
            Stay(self)
        }
    }
}

/// The types of what each handled message of an instance has sent.
fn effects(journal: &[JournalView]) -> Vec<Vec<String>> {
    let handled = journal.iter().filter(|line| line.result == "handled");
    let types = |line: &JournalView| {
        let all = line.effects.as_array().cloned().unwrap_or_default();
        all.iter().map(|effect| effect["type"].as_str().unwrap_or_default().to_owned()).collect()
    };
    handled.map(types).collect()
}

/// S-003, S-004, S-032, S-033: either half may begin, the other joins it once, and a second of a kind does not.
pub(crate) async fn s_003_s_004_s_032_s_033_two_halves_join_once_whichever_begins<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<meeting::Meeting>()).await;
    publish(&process, [Labelled { key: 1 }, Labelled { key: 3 }]).await;
    publish(&process, [Invoiced { key: 2 }]).await;
    for id in ["1", "2", "3"] {
        service.reaches("meeting", id, "Half", 1).await;
    }
    publish(&process, [Labelled { key: 3 }]).await;
    let again = service.reaches("meeting", "3", "Half", 2).await;
    assert_eq!(again.data, json!({ "label": true }), "what begins it is a message like others afterwards");
    publish(&process, [Invoiced { key: 1 }, Invoiced { key: 3 }]).await;
    publish(&process, [Labelled { key: 2 }]).await;
    let [label_first, invoice_first] =
        [service.reaches("meeting", "1", "Whole", 2).await, service.reaches("meeting", "2", "Whole", 2).await];
    assert_eq!(label_first.data, invoice_first.data, "both orders end alike");
    service.reaches("meeting", "3", "Whole", 3).await;
    publish(&process, (1..=3).map(|key| Labelled { key })).await;
    publish(&process, (1..=3).map(|key| Invoiced { key })).await;
    for (id, before) in [("1", 2), ("2", 2), ("3", 3)] {
        let lines = service.journaled("meeting", id, before + 2).await;
        assert!(lines[before..].iter().all(|(_, result)| result == "ignored"), "{id}: {lines:?}");
        let mut expected = vec![vec![]; before - 1];
        expected.push(vec!["service.Met".to_owned()]);
        assert_eq!(effects(&service.journal("meeting", id).await), expected, "{id}: it joins once");
    }
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-005: what begins and ends in one transition.
pub(crate) async fn s_005_a_start_into_a_done_state_sends_and_leaves_no_timer<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<once::Once>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    let instance = service.reaches("once", "1", "Told", 1).await;
    assert!(instance.completed_at_us.is_some(), "it is done: {instance:?}");
    assert_eq!(service.timers().await.len(), 0, "nobody would take the deadline");
    assert_eq!(effects(&service.journal("once", "1").await)[0][0], "service.Ended");
    service.quiet().await;
    stop([process]).await;
}

/// S-006: the row of an instance that is done stays as it is.
pub(crate) async fn s_006_what_comes_for_a_done_instance_is_late_and_leaves_its_row_alone<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<picky::Picky>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    publish(&process, [Ended { key: 1 }]).await;
    let before = service.reaches("picky", "1", "Done", 2).await;
    publish(&process, [Opened { key: 1 }]).await;
    publish(&process, [Labelled { key: 1 }]).await;
    publish(&process, [Added { key: 1, n: 1 }]).await;
    service.journaled("picky", "1", 5).await;
    let journal = service.journal("picky", "1").await;
    for line in &journal[2..] {
        assert_eq!((line.result.as_str(), line.from_state.as_deref()), ("ignored", Some("Done")), "{line:?}");
    }
    let after = service.reaches("picky", "1", "Done", 2).await;
    assert_eq!((after.data, after.updated_at_us), (before.data, before.updated_at_us));
    assert_eq!((service.held().await.len(), service.timers().await.len()), (0, 0));
    stop([process]).await;
}

/// S-007: nothing is left of the instance that had the id before.
pub(crate) async fn s_007_an_id_that_retention_has_removed_begins_anew<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    publish(&process, [Added { key: 1, n: 5 }]).await;
    publish(&process, [Closed { key: 1 }]).await;
    service.reaches("counter", "1", "Shut", 3).await;
    service.quiet().await;
    service.db().age("inbox", "handled_at", 2 * WEEK).await;
    service.db().age("saga", "completed_at", 2 * WEEK).await;
    eventually("the instance and its messages to be removed", || async {
        service.db().sweep("service", WEEK).await.expect("the database answers");
        (service.db().count("saga").await + service.db().count("inbox").await == 0).then_some(())
    })
    .await;
    publish(&process, [Opened { key: 1 }]).await;
    let anew = service.reaches("counter", "1", "Open", 1).await;
    assert_eq!((anew.data, anew.completed_at_us), (json!({ "added": [] }), None));
    let journal = service.journal("counter", "1").await;
    assert_eq!((journal.len(), journal[0].from_state.as_deref()), (1, None), "{journal:?}");
    assert_eq!(service.timers().await.len(), 1);
    stop([process]).await;
}
