//! Two processes of one service, which take messages for the same instances at the same time.

use super::{sagas::*, *};
use saga_core::{Context, Handle, HandlerError};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Starts two processes alike.
async fn two<Db: Base, T: Transport + Clone>(
    service: &Service<Db, T>,
    build: impl Fn(EndpointBuilder<Db>) -> EndpointBuilder<Db>,
) -> [Endpoint<Db>; 2] {
    [service.start(0, &build).await, service.start(1, &build).await]
}

/// What the lines of an instance's journal that moved it say: from, to and number.
async fn chain<Db: Base, T: Transport + Clone>(service: &Service<Db, T>, saga: &str, id: &str) -> Vec<JournalView> {
    let mut lines = service.journal(saga, id).await;
    lines.retain(|line| line.result == "handled");
    lines.sort_unstable_by_key(|line| line.seq);
    let mut before = None;
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line.from_state, line.seq), (&before, Some(n as i64 + 1)), "{saga} {id}: {lines:?}");
        assert_eq!(line.attempts, 1, "{saga} {id}: nobody is to blame for another's lock");
        before.clone_from(&line.to_state);
    }
    lines
}

/// S-009: nothing is lost on the way, and nothing left over.
pub(crate) async fn s_009_five_hundred_instances_run_through_in_two_processes<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let processes = two(&service, |builder| builder.saga::<sound::Counter>()).await;
    let [a, b] = &processes;
    tokio::join!(publish(a, (0..250).map(|key| Opened { key })), publish(b, (250..500).map(|key| Opened { key })));
    tokio::join!(
        publish(a, (250..500).map(|key| Added { key, n: 1 })),
        publish(b, (0..250).map(|key| Added { key, n: 1 }))
    );
    // a step that is overtaken by the end would be late: it is done first
    eventually("500 instances to have two transitions", || async {
        (service.db().text("SELECT CAST(count(*) AS text) FROM {s}saga WHERE seq = 2").await == "500").then_some(())
    })
    .await;
    assert_eq!(service.timers().await.len(), 500);
    tokio::join!(publish(a, (0..250).map(|key| Closed { key })), publish(b, (250..500).map(|key| Closed { key })));
    service.count("counter", "Shut", 500).await;
    service.quiet().await;
    assert_eq!((service.timers().await.len(), service.held().await.len()), (0, 0));
    let undone = "SELECT CAST(count(*) AS text) FROM {s}saga WHERE completed_at IS NULL";
    assert_eq!(service.db().text(undone).await, "0");
    for id in 0..500 {
        assert_eq!(chain(&service, "counter", &id.to_string()).await.len(), 3);
    }
    stop(processes).await;
}

/// Counts who has met.
#[derive(Clone, Default)]
struct Meetings(Arc<Mutex<BTreeMap<u64, u32>>>);

#[async_trait]
impl<Db: Base> Handle<Met, Db> for Meetings {
    async fn handle(&self, met: Met, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        *self.0.lock().expect("nobody panics with this lock").entry(met.key).or_default() += 1;
        Ok(())
    }
}

/// S-035: two hundred times.
pub(crate) async fn s_035_both_halves_at_once_join_exactly_once<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let meetings = Meetings::default();
    let build = |it: EndpointBuilder<Db>| it.saga::<meeting::Meeting>().subscribe::<Met>(meetings.clone());
    let processes = two(&service, build).await;
    let [a, b] = &processes;
    for half in [0, 1] {
        let (one, other) = (100 * half..100 * half + 100, 100 * half..100 * half + 100);
        tokio::join!(publish(a, one.map(|key| Labelled { key })), publish(b, other.map(|key| Invoiced { key })));
    }
    service.count("meeting", "Whole", 200).await;
    let counted = || meetings.0.lock().expect("nobody panics with this lock").clone();
    eventually("all meetings to be heard of", || async { (counted().len() == 200).then_some(()) }).await;
    service.quiet().await;
    assert!(counted().values().all(|times| *times == 1), "{:?}", counted());
    for id in 0..200 {
        assert_eq!(chain(&service, "meeting", &id.to_string()).await.len(), 2);
    }
    assert_eq!(service.held().await.len(), 0);
    stop(processes).await;
}

/// S-058: two hundred times, one way out.
pub(crate) async fn s_058_an_answer_and_a_timer_at_once_have_one_effect<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let processes = two(&service, |builder| builder.saga::<race::Race>()).await;
    let [a, b] = &processes;
    publish(a, (0..200).map(|key| Started { key })).await;
    service.count("race", "Racing", 200).await;
    assert_eq!(service.timers().await.len(), 200);
    tokio::join!(
        service.later(Duration::from_secs(7200)),
        publish(a, (0..100).map(|key| Answered { key })),
        publish(b, (100..200).map(|key| Answered { key }))
    );
    service.quiet().await;
    let settled = "SELECT CAST(count(*) AS text) FROM {s}inbox WHERE type = 'service.Answered' AND result <> 'held'";
    eventually("all answers to be settled", || async { (service.db().text(settled).await == "200").then_some(()) })
        .await;
    let left = "SELECT CAST(count(*) AS text) FROM {s}saga WHERE completed_at IS NOT NULL AND seq = 2";
    eventually("all to be out", || async { (service.db().text(left).await == "200").then_some(()) }).await;
    for id in 0..200 {
        let lines = chain(&service, "race", &id.to_string()).await;
        assert_eq!(lines.len(), 2, "one of both leads out: {lines:?}");
        let all = service.journal("race", &id.to_string()).await;
        let other = all.iter().filter(|line| line.result != "handled").collect::<Vec<_>>();
        match (lines[1].to_state.as_deref(), &other[..]) {
            (Some("Won"), []) => {} // its timer was deleted
            (Some("Won"), [timer]) => assert_eq!(timer.result, "stale", "{timer:?}"),
            (Some("Lost"), [answer]) => assert_eq!(answer.result, "ignored", "{answer:?}"),
            _ => panic!("{id}: {all:?}"),
        }
    }
    assert_eq!(service.held().await.len(), 0);
    stop(processes).await;
}

/// S-064: no update is lost, and no attempt counted.
pub(crate) async fn s_064_two_messages_for_one_instance_are_applied_one_after_the_other<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let processes = two(&service, |builder| builder.saga::<sound::Counter>()).await;
    let [a, b] = &processes;
    publish(a, (0..200).map(|key| Opened { key })).await;
    service.count("counter", "Open", 200).await;
    tokio::join!(
        publish(a, (0..200).map(|key| Added { key, n: 1 })),
        publish(b, (0..200).map(|key| Added { key, n: 2 }))
    );
    for id in 0..200 {
        let instance = service.reaches("counter", &id.to_string(), "Open", 3).await;
        let mut added: Vec<u64> = serde_json::from_value(instance.data["added"].clone()).expect("it is a list");
        added.sort_unstable();
        assert_eq!(added, [1, 2]);
        assert_eq!(chain(&service, "counter", &id.to_string()).await.len(), 3);
    }
    assert_eq!(service.held().await.len(), 0);
    stop(processes).await;
}

/// S-065: a hundred times, one row each.
pub(crate) async fn s_065_two_starts_of_one_instance_make_one_row<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let processes = two(&service, |builder| builder.saga::<sound::Counter>().saga::<meeting::Meeting>()).await;
    let [a, b] = &processes;
    tokio::join!(publish(a, (0..100).map(|key| Opened { key })), publish(b, (0..100).map(|key| Opened { key })));
    tokio::join!(publish(a, (0..100).map(|key| Labelled { key })), publish(b, (0..100).map(|key| Labelled { key })));
    for id in 0..100 {
        let id = id.to_string();
        let mut results: Vec<String> =
            service.journaled("counter", &id, 2).await.into_iter().map(|(_, result)| result).collect();
        results.sort_unstable();
        assert_eq!(results, ["handled", "ignored"], "the second is late");
        service.reaches("counter", &id, "Open", 1).await;
        service.reaches("meeting", &id, "Half", 2).await; // here the second has a transition
    }
    assert_eq!((service.db().count("saga").await, service.held().await.len()), (200, 0));
    stop(processes).await;
}

/// S-066: what came before the start is applied after it.
pub(crate) async fn s_066_no_message_of_two_hundred_for_a_new_instance_is_lost<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let processes = two(&service, |builder| builder.saga::<sound::Counter>()).await;
    let [a, b] = &processes;
    let with_start = async {
        let mut session = a.session().await.expect("a session opens");
        for n in 0..99 {
            session.publish(Added { key: 1, n });
            if n == 49 {
                session.publish(Opened { key: 1 });
            }
        }
        session.commit().await.expect("the session commits");
    };
    tokio::join!(with_start, publish(b, (100..200).map(|n| Added { key: 1, n })));
    let instance = service.reaches("counter", "1", "Open", 200).await;
    let mut added: Vec<u64> = serde_json::from_value(instance.data["added"].clone()).expect("it is a list");
    added.sort_unstable();
    assert_eq!(json!(added), json!((0..99).chain(100..200).collect::<Vec<u64>>()));
    assert_eq!((service.held().await.len(), service.db().count("saga").await), (0, 1));
    assert_eq!(chain(&service, "counter", "1").await.len(), 200);
    stop(processes).await;
}
