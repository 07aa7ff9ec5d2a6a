//! Start, end, and what a supervisor sees in between.

use super::*;
use crate::{Context, Ended, HandlerError, LinkState, TransportError, TransportErrorKind};

/// Hangs in the handler of message 1 until it is cut off.
async fn busy(stop: Duration) -> (Rig, Script) {
    let script = Script::new();
    script.plan(1, [Act::Hang(secs(5))]);
    let rig =
        Rig::start(|builder| builder.handle::<Do>(script.clone()).settings(|settings| settings.stop = stop)).await;
    rig.broker.deliver_all((1..=100).map(command));
    rig.until("it runs", |_| script.runs_of(1) == 1).await;
    (rig, script)
}

#[tokio::test(start_paused = true)]
async fn r_041_stop_finishes_what_runs_and_gives_back_what_waits() {
    let (rig, script) = busy(secs(8)).await;
    let Rig { endpoint, broker, store } = rig;
    assert_eq!(endpoint.stop().await, Ok(()));
    let done = store.rows("done").len();
    assert!((1..100).contains(&done), "{done} were run: the one that ran, and not all that waited");
    assert_eq!((broker.acked().len(), broker.given_back(), broker.open()), (done, 100 - done, 0));
    assert_eq!(store.processes().len(), 0, "it signed off");
    // the next process has the rest
    let rig = Rig::start_on(store, broker, |builder| builder.handle::<Do>(script.clone())).await.unwrap();
    rig.all_acked().await;
    assert_eq!(rig.done().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_an_operator_drains_finishes_what_runs_and_stops() {
    let (Rig { endpoint, broker, store }, _) = busy(secs(8)).await;
    let process = &store.processes()[0].process;
    assert!(process.report["host"].is_string() && process.report["program"].is_string(), "{:?}", process.report);
    assert!(store.drain(&process.owner));
    assert!(!store.drain("somebody else"));
    let began = tokio::time::Instant::now();
    assert_eq!(endpoint.ended().await, Ended::Stopped);
    assert!(began.elapsed() < secs(20), "with its next heartbeat: {:?}", began.elapsed());
    let done = store.rows("done").len();
    assert_eq!((broker.acked().len(), broker.given_back(), broker.open()), (done, 100 - done, 0));
    assert_eq!(store.processes().len(), 0, "it signed off");
    assert_eq!(endpoint.stop().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn r_042_stop_waits_no_longer_than_it_may_and_says_what_was_cut_off() {
    let (Rig { endpoint, broker, store }, script) = busy(secs(2)).await;
    let began = tokio::time::Instant::now();
    let Err(Ended::CutOff(text)) = endpoint.stop().await else { panic!("it was cut off") };
    assert!(text.contains("units of work were cut off"), "{text}");
    assert!(began.elapsed() <= secs(2), "{:?}", began.elapsed());
    assert_eq!((broker.acked().len(), broker.open(), store.rows("done").len()), (0, 0, 0));
    // elsewhere it is handled, as if it had never run
    let rig = Rig::start_on(store, broker, |builder| builder.handle::<Do>(script.clone())).await.unwrap();
    rig.all_acked().await;
    assert_eq!((rig.done().len(), rig.inbox("do-1").attempts, rig.held()), (100, 1, vec![]));
    assert_eq!(script.runs().into_iter().filter(|(n, _)| *n == 1).collect::<Vec<_>>(), [(1, 0), (1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn r_041_stop_waits_for_confirms_and_says_when_they_do_not_come() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(Envelope { reply_to: Some("asker".into()), ..command(1) });
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    let stopping = tokio::spawn(rig.endpoint.stop());
    tokio::time::sleep(secs(3)).await;
    assert!(!stopping.is_finished());
    rig.broker.report(rig.broker.sent()[0].row, crate::Fate::Confirmed);
    assert_eq!(stopping.await.unwrap(), Ok(()));
    assert_eq!(rig.store.outbox().len(), 0, "what was confirmed is deleted");

    let rig = Rig::scripted(&script).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(Envelope { reply_to: Some("asker".into()), ..command(2) });
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    let Err(Ended::CutOff(text)) = rig.endpoint.stop().await else { panic!("it was cut off") };
    assert!(text.contains("not confirmed"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_dropped_halfway_goes_on_by_itself() {
    let (rig, _) = busy(secs(8)).await;
    let Rig { endpoint, broker, store } = rig;
    let stop = endpoint.stop();
    assert!(tokio::time::timeout(secs(1), stop).await.is_err(), "it was expected to take longer");
    assert_eq!(broker.given_back(), 0, "what runs is not aborted");
    tokio::time::sleep(secs(7)).await;
    let done = store.rows("done").len();
    assert!(done >= 1, "what ran was finished");
    assert_eq!((broker.acked().len(), broker.open(), store.processes().len()), (done, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_endpoint_stops_without_finishing_and_loses_nothing() {
    let (rig, script) = busy(secs(8)).await;
    let Rig { endpoint, broker, store } = rig;
    drop(endpoint);
    tokio::time::sleep(secs(1)).await;
    assert_eq!((broker.acked().len(), broker.given_back(), broker.open()), (0, 100, 0));
    let rig = Rig::start_on(store, broker, |builder| builder.handle::<Do>(script.clone())).await.unwrap();
    rig.all_acked().await;
    assert_eq!(rig.done().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn stop_is_quick_while_the_database_is_away() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(script.clone())).await;
    rig.store.fail_while(|_| Some(StoreErrorKind::Unavailable));
    rig.broker.deliver_all([begin(1), command(1), Envelope::new("m", "unknown", "{}")]);
    tokio::time::sleep(secs(60)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(rig.endpoint.stop().await, Ok(()));
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    assert_eq!((rig.broker.queued(), rig.broker.open()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn stop_is_quick_while_a_breaker_pauses() {
    let script = Script::new();
    script.always(Act::Fail);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver_all((1..=40).map(command));
    tokio::time::sleep(secs(60)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(rig.endpoint.stop().await, Ok(()));
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_ends_fails_the_endpoint() {
    let rig = Rig::walk().await;
    rig.broker.end();
    let Ended::Failed(why) = rig.endpoint.ended().await else { panic!("it failed") };
    assert!(why.contains("transport"), "{why}");
    assert_eq!(rig.endpoint.link(), LinkState::Failed(why.clone()));
    assert_eq!(rig.endpoint.stop().await, Err(Ended::Failed(why)));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_fails_the_endpoint() {
    let rig = Rig::walk().await;
    rig.store.fail_while(|operation| {
        assert_ne!(operation, Operation::Lease, "the store panics");
        None
    });
    let Ended::Failed(why) = rig.endpoint.ended().await else { panic!("it failed") };
    assert!(why.contains("the store panics"), "{why}");
    assert_eq!(rig.endpoint.link(), LinkState::Failed(why));
    rig.store.heal();
    rig.broker.deliver(begin(1));
    assert_eq!(rig.broker.queued(), 1, "a failed endpoint takes nothing");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_the_link_is_passed_on() {
    let rig = Rig::walk().await;
    assert_eq!(rig.endpoint.link(), LinkState::Up);
    rig.broker.link(LinkState::Down("no route".into()));
    rig.until("it is down", |rig| rig.endpoint.link() == LinkState::Down("no route".into())).await;
    rig.broker.link(LinkState::Up);
    rig.until("it is up", |rig| rig.endpoint.link() == LinkState::Up).await;
}

async fn refused(build: impl FnOnce(Builder) -> Builder) -> String {
    match Rig::start_on(MemoryStore::new(), Broker::new(), build).await {
        Ok(_) => panic!("it was expected not to start"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn t_040_what_is_put_together_wrongly_does_not_start_and_all_of_it_is_said() {
    let text = refused(|builder| {
        let builder = builder.subscribe::<Step>(Script::new()).subscribe::<Step>(Script::new());
        let builder = builder.handle::<Do>(Script::new()).handle::<Do>(Script::new());
        builder.project::<Walk>(Projection::default()).settings(|settings| settings.window = 0)
    })
    .await;
    for part in ["named `step watcher`", "`shop.Do` has two handlers", "before it is added", "`window` is 0"] {
        assert!(text.contains(part), "`{part}` was expected in: {text}");
    }
}

struct Doers;

#[crate::handlers]
impl Doers {
    async fn step(&self, _: Do, _: &mut Context<'_, MemoryStore>) -> Result<Deed, HandlerError> {
        unreachable!("the endpoint does not start")
    }
    async fn seen(&self, _: Step, _: &mut Context<'_, MemoryStore>) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_of_handlers_that_is_added_twice_is_one_mistake_with_one_remedy() {
    let text = refused(|builder| builder.handlers(Doers).handlers(Doers)).await;
    let mistakes: Vec<_> = text.lines().filter(|line| line.trim_start().starts_with("- ")).collect();
    assert_eq!(mistakes.len(), 1, "{text}");
    assert!(mistakes[0].contains("Doers` is added twice: take one out"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn two_handlers_of_a_command_are_not_told_to_take_another_name() {
    let text = refused(|builder| builder.handlers(Doers).handle::<Do>(Script::new())).await;
    assert!(text.contains("`shop.Do` has two handlers: a command has one"), "{text}");
    assert!(!text.contains("give one another name"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_name_another_endpoint_uses_does_not_start() {
    let rig = Rig::walk().await;
    let other = Endpoint::builder("other", Broker::new(), rig.store.clone()).saga::<Walk>().start().await;
    let Err(StartError::Definition(wrong)) = other else { panic!("it was expected not to start") };
    assert!(wrong[0].text.contains("`walk` belongs to endpoint `shop`"), "{wrong:?}");
}

#[tokio::test(start_paused = true)]
async fn t_005_what_no_process_subscribes_to_any_more_is_unbound_even_if_the_broker_was_away() {
    let store = MemoryStore::new();
    let older = Rig::start_on(store.clone(), Broker::new(), |builder| builder.saga::<Walk>().subscribe::<Seen>(SeenBy));
    let older = older.await.unwrap();
    assert!(older.broker.topology().subscribes.contains(&"Seen".to_owned()));
    older.endpoint.stop().await.unwrap();
    let broker = Broker::new();
    broker.refuse_to_attach(TransportError::new(TransportErrorKind::Unreachable, "no route"));
    let failed = Rig::start_on(store.clone(), broker.clone(), |builder| builder.saga::<Walk>()).await;
    assert!(matches!(failed, Err(StartError::Transport(_))));
    assert_eq!(store.processes().len(), 0);
    let newer = Rig::start_on(store, broker, |builder| builder.saga::<Walk>()).await.unwrap();
    assert_eq!(newer.broker.topology().dropped, ["Seen"]);
}

#[tokio::test(start_paused = true)]
async fn r_040_settings_for_ever_and_a_database_that_comes_late_start_all_the_same() {
    let store = MemoryStore::new();
    let late = tokio::time::Instant::now() + secs(20);
    store.fail_while(move |_| (tokio::time::Instant::now() < late).then_some(StoreErrorKind::Unavailable));
    let for_ever = |settings: &mut Settings| {
        for time in [
            &mut settings.lease,
            &mut settings.poll,
            &mut settings.confirm,
            &mut settings.connect,
            &mut settings.handler_time,
            &mut settings.stop,
            &mut settings.retention,
            &mut settings.early,
        ] {
            *time = Duration::MAX;
        }
    };
    let rig = Rig::start_on(store, Broker::new(), |builder| {
        builder.saga::<Walk>().handle::<Do>(Script::new()).settings(for_ever)
    });
    let rig = rig.await.expect("it starts");
    rig.broker.deliver_all([step(1, 1), command(1), message("late", &Begin { id: 1 })]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done()), (vec![1], vec![1]));
    rig.until("what was sent is confirmed", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(rig.endpoint.stop().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn r_040_a_database_that_stays_away_is_an_error_within_the_limit() {
    let store = MemoryStore::new();
    away(&store, Operation::Migrate, StoreErrorKind::Unavailable);
    let began = tokio::time::Instant::now();
    let failed = Rig::start_on(store, Broker::new(), |builder| builder.saga::<Walk>()).await;
    assert!(matches!(failed, Err(StartError::Store(_))));
    assert!((secs(29)..=secs(31)).contains(&began.elapsed()), "{:?}", began.elapsed());
}
