//! The broker's channel is lost while its deliveries wait here, and they are delivered again on another one.

use super::*;

const PREFETCH: u16 = 20;

async fn rig(script: &Script) -> Rig {
    Rig::start(|builder| {
        let builder = builder.saga::<Walk>().retries(Retries::none()).handle::<Do>(script.clone());
        builder.settings(|settings| {
            settings.prefetch = PREFETCH;
            settings.handler_time = secs(10_000);
        })
    })
    .await
}

/// What the endpoint may have in memory while one unit of each of its two lanes runs or waits.
const MOST: usize = 2 * PREFETCH as usize;

/// Each message has had its effects once, in the order in which it was sent, and in one counted run.
fn assert_once_and_in_order(rig: &Rig) {
    assert_eq!(rig.done(), (1..=10).collect::<Vec<_>>());
    assert_eq!(rig.steps(1), (1..=9).collect::<Vec<_>>());
    assert_eq!(rig.held(), []);
    for row in rig.store.inbox() {
        assert_eq!((row.result, row.attempts, row.round), (InboxResult::Handled, 1, 0), "{}", row.message_id);
    }
}

#[tokio::test(start_paused = true)]
async fn r_034_deliveries_of_channels_that_time_out_while_the_database_is_away_do_not_gather() {
    let script = Script::new();
    let rig = rig(&script).await;
    away(&rig.store, Operation::Begin, StoreErrorKind::Unavailable);
    rig.broker.deliver(begin(1));
    rig.broker.deliver_all((1..=10).map(command).chain((1..=9).map(|n| step(1, n))));
    for timeout in 1..=20 {
        tokio::time::sleep(secs(1800)).await;
        rig.broker.lose_channel();
        tokio::time::sleep(secs(10)).await;
        let copies = rig.broker.in_memory();
        assert!(copies <= MOST, "{copies} deliveries are in memory after {timeout} timeouts");
    }
    assert_eq!((rig.broker.acked().len(), rig.broker.given_back()), (0, 0), "no loop of errors");
    rig.store.heal();
    rig.all_acked().await;
    assert_once_and_in_order(&rig);
}

#[tokio::test(start_paused = true)]
async fn t_019_deliveries_of_lost_channels_do_not_gather_behind_a_handler_that_is_busy() {
    let script = Script::new();
    script.plan(1, [Act::Hang(secs(2000))]);
    let rig = rig(&script).await;
    rig.broker.deliver(command(1));
    rig.until("it runs", |_| script.runs_of(1) == 1).await;
    rig.broker.deliver_all([begin(1)].into_iter().chain((1..=9).map(|n| step(1, n))).chain((2..=10).map(command)));
    rig.until("the saga goes on", |rig| rig.broker.open() == 10).await;
    for lost in 1..=50 {
        rig.broker.lose_channel();
        tokio::time::sleep(secs(5)).await;
        let copies = rig.broker.in_memory();
        assert!(copies <= MOST, "{copies} deliveries are in memory after {lost} lost channels");
    }
    assert_eq!(rig.broker.open(), 10, "what ran on a lost channel is not acknowledged on another");
    rig.until_within(secs(4000), "all are acknowledged", |rig| rig.broker.is_done()).await;
    assert_once_and_in_order(&rig);
    assert_eq!((1..=10).map(|n| script.runs_of(n)).collect::<Vec<_>>(), [1; 10]);
    assert_eq!(rig.broker.acked().len(), 20, "each on the channel that brought it last");
}

#[tokio::test(start_paused = true)]
async fn t_019_what_was_handled_on_a_lost_channel_is_acknowledged_when_it_comes_again() {
    let script = Script::new();
    script.plan(1, [Act::Hang(secs(10))]);
    let rig = rig(&script).await;
    rig.broker.deliver(command(1));
    rig.until("it runs", |_| script.runs_of(1) == 1).await;
    rig.broker.lose_channel();
    rig.until("it is handled", |rig| rig.done() == [1]).await;
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.broker.acked().len(), rig.inbox("do-1").attempts), (1, 1, 1));
}
