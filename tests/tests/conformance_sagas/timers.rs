//! Timers are rows, and the database's clock says when they are due.

use super::{sagas::*, *};
use saga_core::days;

/// How long after it was written a timer is due, in microseconds.
fn delay(timer: &OutboxView) -> i64 {
    timer.due_at_us - timer.created_at_us
}

/// A row takes a moment to write.
fn is_about(us: i64, expected: Duration) -> bool {
    (us - i64::try_from(expected.as_micros()).expect("it fits")).abs() < 2_000_000
}

/// S-048, S-054: seconds, nothing at all, and three hundred years.
pub(crate) async fn s_048_s_054_a_timer_is_due_by_the_databases_clock<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<race::Race>()).await;
    publish(&process, (1..=4).map(|key| Started { key })).await;
    service.count("race", "Racing", 4).await;
    let all = service.timers().await;
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|timer| is_about(delay(timer), Duration::from_secs(3600))), "{all:?}");
    let of = async |id: &str| {
        let mut timers = service.timers().await;
        timers.retain(|timer| timer.saga_id.as_deref() == Some(id));
        assert!(timers.len() <= 1, "{timers:?}");
        timers.pop()
    };

    publish(&process, [Added { key: 1, n: 0 }]).await;
    service.reaches("race", "1", "Lost", 3).await; // at once

    let years = days(300 * 365);
    publish(&process, [Added { key: 2, n: years.as_secs() }, Added { key: 3, n: u64::MAX }]).await;
    for id in ["2", "3"] {
        service.reaches("race", id, "Racing", 2).await;
    }
    let exact = of("2").await.expect("it is stored");
    assert!(is_about(delay(&exact), years), "{exact:?}");
    let endless = of("3").await.expect("it is stored");
    assert!(is_about(delay(&endless), days(1000 * 365)), "for ever is a thousand years: {endless:?}");

    // an hour passes for one of them; for the others it is three hundred years at least
    let before = of("4").await.expect("it is stored");
    service.later(Duration::from_secs(3500)).await;
    let after = of("4").await.expect("it is not due");
    assert_eq!(before.id, after.id);
    service.reaches("race", "4", "Racing", 1).await;
    service.later(Duration::from_secs(100)).await;
    service.reaches("race", "4", "Lost", 2).await;
    for id in ["2", "3"] {
        service.reaches("race", id, "Racing", 2).await;
    }
    let expected = [("service.Started".to_owned(), "handled".to_owned()), ("service.Idle".into(), "handled".into())];
    assert_eq!(service.journaled("race", "4", 2).await, expected, "it came once");
    stop([process]).await;
}

/// S-051: the first entry's timer is gone, and the second's counts from the second entry.
pub(crate) async fn s_051_only_the_timer_of_the_second_entry_has_effect<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<door::Door>()).await;
    publish(&process, [Entered { key: 1 }]).await;
    service.reaches("door", "1", "Inside", 1).await;
    let first = service.timers().await;
    service.later(Duration::from_secs(1800)).await;
    publish(&process, [Left { key: 1 }]).await;
    service.reaches("door", "1", "Outside", 2).await;
    assert_eq!(service.timers().await.len(), 0);
    publish(&process, [Entered { key: 1 }]).await;
    service.reaches("door", "1", "Inside", 3).await;
    let second = service.timers().await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first[0].id != second[0].id && is_about(delay(&second[0]), Duration::from_secs(3600)), "{second:?}");

    service.later(Duration::from_secs(2000)).await; // the first would be due
    publish(&process, [Entered { key: 2 }]).await; // and what came before it has been seen
    service.reaches("door", "2", "Inside", 1).await;
    let inside = service.reaches("door", "1", "Inside", 3).await;
    assert_eq!(inside.data["idle"], 0);
    service.later(Duration::from_secs(1600)).await;
    let inside = service.reaches("door", "1", "Inside", 4).await;
    assert_eq!(inside.data["idle"], 1);
    stop([process]).await;
}

/// S-059: fifty timers, no process, then three.
pub(crate) async fn s_059_timers_that_fall_due_while_all_are_down_are_handled_once<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let build = |builder: EndpointBuilder<Db>| builder.saga::<race::Race>();
    let process = service.start(0, build).await;
    publish(&process, (0..50).map(|key| Started { key })).await;
    service.count("race", "Racing", 50).await;
    stop([process]).await;
    service.later(Duration::from_secs(7200)).await;
    let (a, b, c) = tokio::join!(service.start(0, build), service.start(1, build), service.start(2, build));
    service.count("race", "Lost", 50).await;
    service.quiet().await;
    let timers = "SELECT count(*) || ' ' || sum(CASE WHEN result = 'handled' AND attempts = 1 THEN 1 ELSE 0 END)
        FROM {s}inbox WHERE type = 'service.Idle'";
    assert_eq!(service.db().text(timers).await, "50 50");
    for id in 0..50 {
        service.reaches("race", &id.to_string(), "Lost", 2).await;
    }
    assert_eq!(service.held().await.len(), 0);
    stop([a, b, c]).await;
}
