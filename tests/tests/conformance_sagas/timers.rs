//! Timers are rows, and the database's clock says when they are due.

use super::{sagas::*, *};
use saga_core::{After, Deadline, Either, Message, Reenter, after, days, deadline, hours, saga, states};
use serde::{Deserialize, Serialize};
use serde_json::json;

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

/// Sleeps on, twice; its timer has the type of others' timers.
mod nap {
    use super::*;

    #[states]
    pub(crate) enum Nap {
        Napping {
            times: u64,
        },
        #[done]
        Awake,
    }

    #[saga(name = "nap", id = key: u64)]
    impl Nap {
        fn started(_: Started) -> (Napping, After<Idle>) {
            (Napping { times: 0 }, after(hours(2), Idle {}))
        }

        fn idle(it: Napping, _: Idle) -> Either<Awake, (Napping, After<Idle>)> {
            match it.times {
                2 => Either::A(Awake),
                times => Either::B((Napping { times: times + 1 }, after(hours(2), Idle {}))),
            }
        }

        /// Stays, and sets nothing.
        fn answered(it: Napping, _: Answered) -> Napping {
            it
        }

        /// Begins anew, without a timer.
        fn labelled(it: Napping, _: Labelled) -> (Napping, Reenter) {
            (it, Reenter)
        }
    }
}

impl<Db: Base, T: Transport + Clone> Service<Db, T> {
    /// The one timer that waits, once the row of one that has fired is gone.
    async fn timer(&self) -> OutboxView {
        eventually("one timer to wait", || async {
            let mut timers = self.timers().await;
            let one = timers.pop();
            one.filter(|_| timers.is_empty())
        })
        .await
    }

    /// The same timer as another copy of it is on its way, in the queue.
    fn on_its_way(timer: &OutboxView) -> Envelope {
        let envelope: Envelope = serde_json::from_value(timer.envelope.clone()).expect("it is an envelope");
        tests::with!(envelope, body = "{}".into())
    }
}

/// S-028, S-029: a transition into the same state keeps its timer, or enters the state anew without it.
pub(crate) async fn s_028_s_029_a_transition_into_the_same_state_keeps_what_it_does_not_set<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<nap::Nap>()).await;
    publish(&process, [Started { key: 1 }]).await;
    service.reaches("nap", "1", "Napping", 1).await;
    let set = service.timer().await;
    publish(&process, [Answered { key: 1 }]).await;
    service.reaches("nap", "1", "Napping", 2).await;
    let kept = service.timer().await;
    assert_eq!((&kept.id, kept.due_at_us), (&set.id, set.due_at_us), "the same row, at the same time");
    publish(&process, [Labelled { key: 1 }]).await;
    service.reaches("nap", "1", "Napping", 3).await;
    assert_eq!(service.timers().await.len(), 0, "it goes with the commit that enters the state anew");
    stop([process]).await;
}

/// S-050, S-056: a timer in the queue is stale when its state was left, and counts while the state is the same.
pub(crate) async fn s_050_s_056_a_timer_that_is_on_its_way_counts_if_it_is_alive<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<door::Door>().saga::<nap::Nap>()).await;
    let mut queue = service.stranger(0, "queue").await;
    publish(&process, [Entered { key: 1 }]).await;
    service.reaches("door", "1", "Inside", 1).await;
    let timer = Service::<Db, T>::on_its_way(&service.timer().await);
    publish(&process, [Left { key: 1 }]).await;
    service.reaches("door", "1", "Outside", 2).await;
    tell(&mut queue, [timer]).await;
    service.journaled("door", "1", 3).await;
    let stale = service.journal("door", "1").await.pop().expect("it has lines");
    assert_eq!((stale.result.as_str(), stale.from_state.as_deref()), ("stale", Some("Outside")));
    service.reaches("door", "1", "Outside", 2).await;

    publish(&process, [Started { key: 2 }]).await;
    service.reaches("nap", "2", "Napping", 1).await;
    let timer = Service::<Db, T>::on_its_way(&service.timer().await);
    publish(&process, [Answered { key: 2 }]).await;
    service.reaches("nap", "2", "Napping", 2).await;
    tell(&mut queue, [timer.clone()]).await;
    let counted = service.reaches("nap", "2", "Napping", 3).await;
    assert_eq!(counted.data, json!({ "times": 1 }), "it is the same entry of the state");
    // it has set another one, which the copies of the first do not touch
    let next = service.timer().await;
    tell(&mut queue, [timer]).await;
    publish(&process, [Answered { key: 2 }]).await;
    let after = service.reaches("nap", "2", "Napping", 4).await;
    assert_eq!((after.data, service.timer().await.id), (json!({ "times": 1 }), next.id));
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "service.Tired")]
struct Tired {}

/// Two timers in one state.
#[states]
enum Pair {
    Waiting,
    #[waits]
    Moved,
    #[done]
    Gone,
}

#[saga(name = "pair", id = key: u64)]
impl Pair {
    fn started(_: Started) -> (Waiting, After<Idle>, After<Tired>) {
        (Waiting, after(hours(1), Idle {}), after(hours(2), Tired {}))
    }

    fn idle(_: Waiting, _: Idle) -> Moved {
        Moved
    }

    fn tired(_: Waiting, _: Tired) -> Gone {
        Gone
    }

    fn left(_: Moved, _: Left) -> Gone {
        Gone
    }
}

/// S-052: its row goes, so it never comes.
pub(crate) async fn s_052_of_two_timers_the_one_that_leads_out_takes_the_other_with_it<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<Pair>()).await;
    publish(&process, [Started { key: 1 }]).await;
    service.reaches("pair", "1", "Waiting", 1).await;
    assert_eq!(service.timers().await.len(), 2);
    service.later(Duration::from_secs(3700)).await;
    service.reaches("pair", "1", "Moved", 2).await;
    let left = service.timers().await;
    assert!(left.iter().all(|timer| timer.type_name == "service.Idle"), "the other goes with that commit: {left:?}");
    service.quiet().await;
    service.later(Duration::from_secs(7200)).await;
    publish(&process, [Left { key: 1 }]).await;
    service.reaches("pair", "1", "Gone", 3).await;
    let expected = ["Started", "Idle", "Left"].map(|name| (format!("service.{name}"), "handled".to_owned()));
    assert_eq!(service.journaled("pair", "1", 3).await, expected);
    stop([process]).await;
}

/// S-053: one is pending at any moment.
pub(crate) async fn s_053_a_timer_that_sets_itself_again_comes_each_time_once<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<nap::Nap>()).await;
    publish(&process, [Started { key: 1 }]).await;
    for seq in 1..=3 {
        service.reaches("nap", "1", "Napping", seq).await;
        let timer = service.timer().await;
        assert!(is_about(delay(&timer), Duration::from_secs(7200)), "{timer:?}");
        service.later(Duration::from_secs(7300)).await;
    }
    service.reaches("nap", "1", "Awake", 4).await;
    service.quiet().await;
    let results = "SELECT count(*) || ' ' || sum(CASE WHEN result = 'handled' AND attempts = 1 THEN 1 ELSE 0 END)
        FROM {s}inbox WHERE type = 'service.Idle'";
    assert_eq!(service.db().text(results).await, "3 3", "no timer makes itself stale");
    stop([process]).await;
}

/// Goes through three states under one deadline.
mod long {
    use super::*;

    #[states]
    pub(crate) enum Long {
        First,
        Second,
        Third,
        #[done]
        End,
    }

    #[saga(name = "long", id = key: u64)]
    impl Long {
        fn started(_: Started) -> (First, Deadline<Idle>) {
            (First, deadline(hours(1), Idle {}))
        }

        fn answered(_: First, _: Answered) -> Second {
            Second
        }

        fn left(_: Second, _: Left) -> Third {
            Third
        }

        fn idle(self, _: Idle) -> End {
            End
        }
    }
}

/// S-055: a deadline is one row from the start to its end.
pub(crate) async fn s_055_a_deadline_keeps_its_row_through_all_states<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<long::Long>()).await;
    publish(&process, [Started { key: 1 }]).await;
    service.reaches("long", "1", "First", 1).await;
    let set = service.timer().await;
    let same = async || {
        let timer = service.timer().await;
        assert_eq!((timer.id, timer.due_at_us), (set.id.clone(), set.due_at_us));
    };
    publish(&process, [Answered { key: 1 }]).await;
    service.reaches("long", "1", "Second", 2).await;
    same().await;
    publish(&process, [Left { key: 1 }]).await;
    service.reaches("long", "1", "Third", 3).await;
    same().await;
    service.later(Duration::from_secs(3500)).await;
    service.reaches("long", "1", "Third", 3).await;
    service.later(Duration::from_secs(200)).await;
    service.reaches("long", "1", "End", 4).await;
    service.quiet().await;
    stop([process]).await;
}

/// S-057: two sagas of one endpoint, under one id.
pub(crate) async fn s_057_a_timer_of_two_sagas_comes_to_the_one_that_set_it<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<race::Race>().saga::<nap::Nap>()).await;
    publish(&process, [Started { key: 1 }]).await;
    service.reaches("race", "1", "Racing", 1).await;
    service.reaches("nap", "1", "Napping", 1).await;
    assert_eq!(service.timers().await.len(), 2, "of one type, an hour and two");
    service.later(Duration::from_secs(3700)).await;
    service.reaches("race", "1", "Lost", 2).await;
    assert_eq!(service.timer().await.saga.as_deref(), Some("nap"));
    service.reaches("nap", "1", "Napping", 1).await;
    service.later(Duration::from_secs(3700)).await;
    service.reaches("nap", "1", "Napping", 2).await;
    service.reaches("race", "1", "Lost", 2).await;
    for saga in ["race", "nap"] {
        let expected = ["Started", "Idle"].map(|name| (format!("service.{name}"), "handled".to_owned()));
        assert_eq!(service.journaled(saga, "1", 2).await, expected, "{saga}");
    }
    stop([process]).await;
}
