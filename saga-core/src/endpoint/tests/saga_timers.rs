//! Timers by the store's clock, which is the test's.

use super::{dialects::Begin, *};
use crate::*;

fn of(id: u64, type_name: &str) -> Envelope {
    Envelope::new(format!("{type_name}-{id}"), type_name, format!("{{\"id\":{id}}}"))
}

/// Has the same timer as [`Walk`], and is in less of a hurry.
#[states]
enum Nap {
    Napping {
        times: u32,
    },
    #[done]
    Awake,
}

#[saga(name = "nap", id = id: u64)]
impl Nap {
    fn begin(_: Begin) -> (Napping, After<Tired>) {
        (Napping { times: 0 }, after(hours(2), Tired {}))
    }

    fn tired(state: Napping, _: Tired) -> Either<Awake, (Napping, After<Tired>)> {
        match state.times {
            4 => Either::A(Awake),
            times => Either::B((Napping { times: times + 1 }, after(hours(2), Tired {}))),
        }
    }

    fn go(state: Napping, _: Go) -> (Napping, After<Tired>, Reenter) {
        (state, after(std::time::Duration::ZERO, Tired {}), Reenter)
    }
}

/// The timers in the outbox: when each is due after it was written, in seconds.
fn timers(rig: &Rig) -> Vec<i64> {
    let rows = rig.store.outbox().into_iter().filter(|row| row.kind == OutboxKind::Timer);
    rows.map(|row| (row.due_at_us - row.created_at_us) / 1_000_000).collect()
}

fn state_of(rig: &Rig, saga: &str) -> (String, i64) {
    let found = rig.store.instances().into_iter().find(|it| it.row.key.saga == saga);
    let row = found.unwrap_or_else(|| panic!("no instance of {saga}; {}", rig.says())).row;
    (row.state, row.seq)
}

#[tokio::test(start_paused = true)]
async fn s_048_a_timer_comes_once_and_not_before_it_is_due() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), of(1, "Buy")]);
    rig.all_acked().await;
    assert_eq!(timers(&rig), [3600]);
    tokio::time::sleep(secs(3590)).await;
    assert_eq!((rig.walk_at(1), rig.broker.sent_of("Tired").len()), (("Here".into(), 2), 0));
    rig.until_within(secs(20), "it comes", |rig| rig.walk_at(1) == ("Over".into(), 3)).await;
    tokio::time::sleep(secs(7200)).await;
    assert_eq!((rig.broker.sent_of("Tired").len(), timers(&rig)), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn s_049_a_timer_of_a_state_that_was_left_never_comes() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), of(1, "Buy")]);
    rig.all_acked().await;
    rig.broker.deliver(of(1, "Go"));
    rig.all_acked().await;
    assert_eq!(timers(&rig), [] as [i64; 0]);
    tokio::time::sleep(secs(7200)).await;
    assert_eq!((rig.broker.sent_of("Tired").len(), rig.walk_at(1)), (0, ("There".into(), 3)));
}

#[tokio::test(start_paused = true)]
async fn s_050_a_timer_that_waits_in_the_queue_while_its_state_is_left_is_stale() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), of(1, "Buy")]);
    rig.all_acked().await;
    let timer = rig.store.outbox().into_iter().find(|row| row.kind == OutboxKind::Timer).expect("it was set").envelope;
    rig.broker.deliver_all([of(1, "Go"), (*timer).clone()]);
    rig.all_acked().await;
    let row = rig.inbox(&timer.message_id);
    assert_eq!((row.result, row.from_state.as_deref()), (InboxResult::Stale, Some("There")));
    assert_eq!((rig.held(), rig.store.outbox().len(), rig.walk_at(1)), (vec![], 0, ("There".into(), 3)));
}

#[tokio::test(start_paused = true)]
async fn s_053_s_054_a_timer_sets_itself_again_and_one_without_delay_comes_at_once() {
    let rig = Rig::start(|builder| builder.saga::<Nap>()).await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    for n in 1..=4 {
        assert_eq!(timers(&rig), [7200], "one is pending at any moment");
        rig.until_within(secs(7210), "it comes", |rig| state_of(rig, "nap") == ("Napping".into(), n + 1)).await;
    }
    rig.broker.deliver(of(1, "Go")); // sets one that is due at once
    rig.until_within(secs(5), "it comes", |rig| state_of(rig, "nap") == ("Awake".into(), 7)).await;
    assert_eq!((timers(&rig), rig.broker.sent_of("Tired").len()), (vec![], 5));
    let stale = rig.store.inbox().into_iter().filter(|row| row.result == InboxResult::Stale).count();
    assert_eq!(stale, 0, "no timer cancels itself");
}

#[tokio::test(start_paused = true)]
async fn t_032_what_a_timer_causes_belongs_to_the_conversation_of_its_saga() {
    let rig = Rig::start(|builder| builder.saga::<Nap>()).await;
    rig.broker.deliver(Envelope { conversation_id: "talk".into(), ..begin(1) });
    rig.all_acked().await;
    let first = rig.the_outbox().envelope;
    assert_eq!((first.conversation_id.as_str(), first.causation_id.as_deref()), ("talk", Some("begin-1")));
    rig.until_within(secs(7210), "it comes", |rig| state_of(rig, "nap").1 == 2).await;
    rig.until("its row is deleted", |rig| rig.store.outbox().len() == 1).await;
    let next = rig.the_outbox().envelope;
    assert_eq!(next.conversation_id, "talk");
    assert_eq!(next.causation_id.as_ref(), Some(&first.message_id));
}

#[tokio::test(start_paused = true)]
async fn s_055_a_deadline_keeps_its_row_and_its_time_through_all_states() {
    let rig = Rig::start(|builder| builder.saga::<Long>()).await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    let rows = |rig: &Rig| rig.store.outbox().into_iter().map(|row| (row.id, row.due_at_us)).collect::<Vec<_>>();
    let first = rows(&rig);
    assert_eq!(timers(&rig), [3600]);
    for type_name in ["Go", "Step", "Buy"] {
        tokio::time::sleep(secs(600)).await;
        rig.broker.deliver(Envelope::new(type_name, type_name, r#"{"id":1,"n":1}"#));
        rig.all_acked().await;
        assert_eq!(rows(&rig), first, "{type_name}");
    }
    assert_eq!(state_of(&rig, "long"), ("Third".into(), 4));
    rig.until_within(secs(1900), "it comes", |rig| state_of(rig, "long") == ("End".into(), 5)).await;
    assert_eq!(rig.store.now_us() / 10_000_000, first[0].1 / 10_000_000, "an hour after the start");
    assert_eq!(rig.broker.sent_of("Tired").len(), 1);
}

/// Goes through three states under one deadline.
#[states]
enum Long {
    Zeroth,
    First,
    Second,
    Third,
    #[done]
    End,
}

#[saga(name = "long", id = id: u64)]
impl Long {
    fn begin(_: Begin) -> (Zeroth, Deadline<Tired>) {
        (Zeroth, deadline(hours(1), Tired {}))
    }

    fn go(_: Zeroth, _: Go) -> First {
        First
    }

    fn step(_: First, _: Step) -> Second {
        Second
    }

    fn buy(_: Second, _: Buy) -> Third {
        Third
    }

    fn tired(self, _: Tired) -> End {
        End
    }

    fn finish(_: Third, _: Finish) -> End {
        End
    }
}

#[tokio::test(start_paused = true)]
async fn s_057_a_timer_of_two_sagas_comes_to_the_one_that_set_it() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().saga::<Nap>()).await;
    rig.broker.deliver_all([begin(1), of(1, "Buy")]);
    rig.all_acked().await;
    let mut delays = timers(&rig);
    delays.sort_unstable();
    assert_eq!(delays, [3600, 7200]);
    rig.until_within(secs(3700), "the walker's comes", |rig| state_of(rig, "walk").0 == "Over").await;
    assert_eq!(state_of(&rig, "nap"), ("Napping".into(), 1));
    rig.until_within(secs(3700), "the sleeper's comes", |rig| state_of(rig, "nap").1 == 2).await;
    assert_eq!(state_of(&rig, "walk"), ("Over".into(), 3));
    let tired: Vec<_> = rig.store.inbox().into_iter().filter(|row| row.type_name == "Tired").collect();
    let receivers: Vec<_> = tired.iter().map(|row| (row.receiver.as_str(), row.result)).collect();
    assert_eq!(receivers, [("walk", InboxResult::Handled), ("nap", InboxResult::Handled)]);
}
