//! What a handler cannot take now goes to the outbox: all of it, at once, and in an order in which each gets its turn.

use super::{
    limits::{Bank, keyed, limited},
    *,
};
use crate::Limit;
use tokio::time::Instant;

/// A bank that takes so much, in eight lanes, beside others that watch steps.
async fn slow(limit: Limit, bank: &Bank, others: &Script) -> Rig {
    Rig::start(|builder| {
        let builder = builder.limit("bank", limit).handle_with::<Do>(bank.clone(), limited);
        builder.subscribe::<Step>(others.clone()).settings(|settings| {
            settings.handler_lanes = 8;
            settings.prefetch = 40;
        })
    })
    .await
}

async fn of_one_lane(limit: Limit, bank: &Bank) -> Rig {
    Rig::start(|builder| builder.limit("bank", limit).handle_with::<Do>(bank.clone(), keyed)).await
}

fn are_handled(rig: &Rig, mut numbers: impl Iterator<Item = u64>) -> bool {
    let rows = rig.store.inbox();
    let is_handled = |id: String| rows.iter().any(|row| row.message_id == id && row.result == InboxResult::Handled);
    numbers.all(|n| is_handled(format!("do-{n}")))
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_holds_up_no_other_handler_and_leaves_no_turn_unused() {
    let (bank, others) = (Bank::default(), Script::new());
    let rig = slow(Limit::none().rate(1, secs(60)), &bank, &others).await;
    rig.broker.deliver_all((1..=500).map(command));
    rig.broker.deliver_all((1..=50).map(|n| step(1, n)));
    rig.until_within(secs(10), "what does not concern the bank is handled", |rig| rig.done().len() == 50).await;
    rig.until_within(secs(10), "what waits for its turn is not in the way", |rig| rig.broker.is_done()).await;
    assert_eq!(bank.calls().len(), 1);
    tokio::time::sleep(secs(1200)).await;
    let calls = bank.calls();
    assert!((20..=21).contains(&calls.len()), "{} calls at one a minute in 20 minutes", calls.len());
    assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= secs(60)), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_lane_waits_for_its_call_is_put_off_at_once() {
    let (bank, others) = (Bank::default(), Script::new());
    let rig = slow(Limit::none().per_second(1), &bank, &others).await;
    rig.broker.deliver_all((1..=400).map(command));
    rig.broker.deliver(step(1, 1));
    rig.until_within(secs(1), "what does not concern the bank is handled", |rig| rig.done().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn processes_leave_no_turn_of_a_slow_rate_of_all_unused() {
    let bank = Bank::default();
    let build = |builder: Builder| {
        builder.limit("bank", Limit::none().rate(1, secs(10))).handle_with::<Do>(bank.clone(), limited)
    };
    let store = MemoryStore::new();
    let one = Rig::start_on(store.clone(), Broker::new(), build).await.expect("it starts");
    let other = Rig::start_on(store, Broker::new(), build).await.expect("it starts");
    let began = Instant::now();
    one.broker.deliver_all((1..=10).map(command));
    other.broker.deliver_all((11..=20).map(command));
    one.until_within(secs(600), "all calls are made", |_| bank.calls().len() == 20).await;
    let took = began.elapsed();
    assert!(took >= secs(190) && took < secs(230), "20 calls at one in 10 s took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_put_off_by_the_rate_keeps_the_turn_of_its_key() {
    for rate in [Limit::none().per_second(100), Limit::none().rate(1, secs(5))] {
        let bank = Bank::default();
        let rig = Rig::start(|builder| {
            let builder = builder.limit("bank", rate.per_key(1, secs(3600)));
            builder.handle_with::<Do>(bank.clone(), keyed).settings(|settings| settings.handler_lanes = 8)
        })
        .await;
        let customers = if rate == Limit::none().per_second(100) { 400 } else { 20 };
        rig.broker.deliver_all((101..=100 + customers).map(command));
        rig.until_within(secs(130), "each customer has its first call", |rig| are_handled(rig, 101..=100 + customers))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_twice_takes_one_turn() {
    let bank = Bank::default();
    let rig = of_one_lane(Limit::none().per_key(1, secs(60)), &bank).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    tokio::time::sleep(secs(61)).await;
    rig.broker.redeliver(command(1), 1);
    rig.all_acked().await;
    rig.broker.deliver(command(2));
    rig.until_within(secs(2), "the next call is made", |_| bank.calls().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_put_off_stops_no_other() {
    let bank = Bank::default();
    let rig = of_one_lane(Limit::none().rate(1, secs(60)), &bank).await;
    rig.store.fail_next(Operation::Write, StoreErrorKind::Rejected); // all
    rig.store.fail_next(Operation::Write, StoreErrorKind::Rejected); // the first of them
    rig.broker.deliver_all((1..=10).map(command));
    rig.until_within(secs(5), "nothing stays in memory", |rig| rig.broker.is_done()).await;
    assert_eq!(rig.held(), [("do-2".into(), HeldReason::Failed)]);
    rig.until_within(secs(600), "the others are handled", |rig| are_handled(rig, 3..=10)).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_used_again_twice_in_a_backlog_is_held_once() {
    let bank = Bank::default();
    let rig = of_one_lane(Limit::none().rate(1, secs(60)), &bank).await;
    rig.broker.deliver(command(1));
    rig.all_acked().await;
    let other = || Envelope { body: "{ \"n\": 1 }".into(), ..command(1) };
    rig.broker.deliver_all([command(2), other(), other(), command(3)]);
    rig.until_within(secs(5), "nothing stays in memory", |rig| rig.broker.is_done()).await;
    assert_eq!(rig.the_held().reason, HeldReason::Rejected);
}

#[tokio::test(start_paused = true)]
async fn turns_do_not_move_away_while_the_database_is_away() {
    let bank = Bank::default();
    let rig = of_one_lane(Limit::none().per_second(1), &bank).await;
    away(&rig.store, Operation::Begin, StoreErrorKind::Unavailable);
    rig.broker.deliver_all((1..=20).map(command));
    tokio::time::sleep(secs(60)).await;
    assert_eq!(bank.calls().len(), 0, "a call whose message cannot be settled is made again and again");
    rig.store.heal();
    rig.until_within(secs(30), "all calls are made", |_| bank.calls().len() == 20).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_put_off_is_not_overtaken_for_ever() {
    for limit in [Limit::none().rate(1, secs(10)), Limit::none().per_key(1, secs(10))] {
        let bank = Bank::default();
        let rig = of_one_lane(limit, &bank).await;
        rig.broker.deliver_all((1..=5).map(command));
        for n in 6..=70 {
            tokio::time::sleep(secs(1)).await;
            rig.broker.deliver(command(n));
        }
        assert!(are_handled(&rig, 1..=5), "{limit:?}: {} calls for those that came later", bank.calls().len());
    }
}
