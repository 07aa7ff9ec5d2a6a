//! Limits of what stands behind handlers.

use super::*;
use crate::{Context, Handle, HandlerError, HandlerOptions, Limit, async_trait};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::time::Instant;

/// A service behind handlers.
#[derive(Clone, Default)]
pub(super) struct Bank {
    calls: Arc<Mutex<Vec<Instant>>>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    takes: Duration,
    down: Arc<AtomicBool>,
}

impl Bank {
    async fn call(&self) -> Result<(), HandlerError> {
        self.calls.lock().unwrap().push(Instant::now());
        self.most.fetch_max(self.now.fetch_add(1, Relaxed) + 1, Relaxed);
        tokio::time::sleep(self.takes).await;
        self.now.fetch_sub(1, Relaxed);
        match self.down.load(Relaxed) {
            true => Err(HandlerError::transient("the bank is down")),
            false => Ok(()),
        }
    }

    pub(super) fn calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap().clone()
    }

    /// The most calls in any second.
    fn in_a_second(&self) -> usize {
        let calls = self.calls();
        let within = |from: &Instant| calls.iter().filter(|at| (*from..*from + secs(1)).contains(at)).count();
        calls.iter().map(within).max().unwrap_or_default()
    }
}

#[async_trait]
impl Handle<Do, MemoryStore> for Bank {
    async fn handle(&self, Do { n }: Do, _: &mut Context<'_, MemoryStore>) -> Result<Deed, HandlerError> {
        self.call().await.map(|()| Did { n }.into())
    }
}

#[async_trait]
impl Handle<Step, MemoryStore> for Bank {
    async fn handle(&self, _: Step, _: &mut Context<'_, MemoryStore>) -> Result<(), HandlerError> {
        self.call().await
    }

    fn name(&self) -> &'static str {
        "step watcher"
    }
}

pub(super) fn limited(options: HandlerOptions) -> HandlerOptions {
    options.limit("bank")
}

#[tokio::test(start_paused = true)]
async fn a_service_is_called_at_its_rate_and_nobody_else_waits() {
    let (bank, others) = (Bank::default(), Script::new());
    let rig = Rig::start(|builder| {
        let builder = builder.limit("bank", Limit::none().per_second(20)).handle_with::<Do>(bank.clone(), limited);
        builder.subscribe::<Step>(others.clone()).settings(|settings| settings.prefetch = 100)
    })
    .await;
    rig.broker.deliver_all((1..=600).map(command));
    rig.broker.deliver_all((1..=50).map(|n| step(1, n)));
    rig.until_within(secs(15), "what does not concern the bank is handled", |rig| rig.done().len() == 50).await;
    assert!(bank.calls().len() < 320, "{} calls while the others were handled", bank.calls().len());
    rig.until_within(secs(32), "all calls are made", |_| bank.calls().len() == 600).await;
    rig.all_acked().await;
    assert!((19..=25).contains(&bank.in_a_second()), "{} calls in a second", bank.in_a_second());
    assert_eq!((rig.held(), rig.inbox("do-600").attempts), (vec![], 1), "waiting is no run");
}

#[tokio::test(start_paused = true)]
async fn processes_share_a_rate_and_no_burst_follows_a_pause() {
    let bank = Bank::default();
    let build = |builder: Builder| {
        builder.limit("bank", Limit::none().rate(600, secs(60))).handle_with::<Do>(bank.clone(), limited)
    };
    let store = MemoryStore::new();
    let one = Rig::start_on(store.clone(), Broker::new(), build).await.expect("it starts");
    let other = Rig::start_on(store, Broker::new(), build).await.expect("it starts");
    tokio::time::sleep(secs(60)).await;
    let began = Instant::now();
    one.broker.deliver_all((1..=15).map(command));
    other.broker.deliver_all((16..=30).map(command));
    one.until_within(secs(5), "all calls are made", |_| bank.calls().len() == 30).await;
    assert!(began.elapsed() >= Duration::from_millis(2800), "30 calls at 10 a second took {:?}", began.elapsed());
    assert!(bank.in_a_second() <= 12, "{} calls in a second", bank.in_a_second());
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_than_allowed_run_at_the_same_time_whichever_handler_makes_them() {
    let bank = Bank { takes: Duration::from_millis(100), ..Bank::default() };
    let rig = Rig::start(|builder| {
        let builder =
            builder.limit("bank", Limit::none().concurrent(3)).settings(|settings| settings.handler_lanes = 4);
        builder.handle_with::<Do>(bank.clone(), limited).subscribe_with::<Step>(bank.clone(), limited)
    })
    .await;
    rig.broker.deliver_all((1..=20).map(command));
    rig.broker.deliver_all((1..=20).map(|n| step(n.into(), n)));
    rig.all_acked().await;
    assert_eq!((bank.calls().len(), bank.most.load(Relaxed)), (40, 3));
}

#[tokio::test(start_paused = true)]
async fn handlers_of_one_service_have_one_breaker() {
    let bank = Bank::default();
    bank.down.store(true, Relaxed);
    let rig = Rig::start(|builder| {
        let builder = builder.retries(Retries::none().delayed([secs(3600)])).limit("bank", Limit::none());
        builder.handle_with::<Do>(bank.clone(), limited).subscribe_with::<Step>(bank.clone(), limited)
    })
    .await;
    rig.broker.deliver_all((1..=12).map(command));
    rig.until("it has failed often", |_| bank.calls().len() >= 11).await;
    let before = bank.calls().len();
    rig.broker.deliver_all((1..=100).map(|n| step(n.into(), n)));
    tokio::time::sleep(secs(5)).await;
    let calls = bank.calls().len() - before;
    assert!(calls < 20, "the service is down, and another handler called it {calls} times more in 5 s");
}

/// Of the customers `Do` is for, the first asks for a hundred.
fn customer(it: &Do) -> u64 {
    it.n.saturating_sub(100)
}

pub(super) fn keyed(options: HandlerOptions) -> HandlerOptions {
    options.limit("bank").key(customer)
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_rate_and_a_flood_of_one_holds_up_no_other() {
    let bank = Bank::default();
    let rig = Rig::start(|builder| {
        builder.limit("bank", Limit::none().per_key(2, secs(1))).handle_with::<Do>(bank.clone(), keyed)
    })
    .await;
    rig.broker.deliver_all((1..=120).map(command));
    let are_handled = |rig: &Rig| {
        let rows = rig.store.inbox();
        let handled = rows.iter().filter(|row| row.result == InboxResult::Handled);
        let ids: HashSet<&str> = handled.map(|row| row.message_id.as_str()).collect();
        (101..=120).all(|n| ids.contains(&*format!("do-{n}")))
    };
    rig.until_within(secs(2), "the others are handled", are_handled).await;
    assert!(bank.calls().len() < 30, "{} calls", bank.calls().len());
    rig.until_within(secs(60), "all calls are made", |_| bank.calls().len() == 120).await;
    rig.all_acked().await;
    let calls = &bank.calls()[25..];
    let most = (calls.iter()).map(|from| calls.iter().filter(|at| (*from..*from + secs(1)).contains(at)).count()).max();
    assert!(most <= Some(3), "{most:?} calls for one customer in a second");
    assert_eq!((rig.held(), rig.inbox("do-100").attempts), (vec![], 1), "waiting is no run");
}

/// Two processes have ten commands each of one key, and make a call for it `every` so long. Returns how long all took.
#[tokio::test(start_paused = true)]
async fn a_key_that_waits_for_its_turn_takes_no_place_from_others() {
    let bank = Bank::default();
    let rig = Rig::start(|builder| {
        let builder = builder.limit("bank", Limit::none().concurrent(1).per_key(1, secs(1)));
        builder.handle_with::<Do>(bank.clone(), keyed).settings(|settings| settings.handler_lanes = 8)
    })
    .await;
    rig.broker.deliver_all((81..=140).map(command));
    // a lane waits up to a second for the turn of its key, and others of its own lane with it
    rig.until_within(secs(12), "the others are called", |_| bank.calls().len() > 45).await;
}

async fn two_processes_call(bank: &Bank, every: Duration) -> Duration {
    let build = |builder: Builder| {
        builder.limit("bank", Limit::none().per_key(1, every)).handle_with::<Do>(bank.clone(), keyed)
    };
    let store = MemoryStore::new();
    let one = Rig::start_on(store.clone(), Broker::new(), build).await.expect("it starts");
    let other = Rig::start_on(store, Broker::new(), build).await.expect("it starts");
    let began = Instant::now();
    one.broker.deliver_all((1..=10).map(command));
    other.broker.deliver_all((11..=20).map(command));
    one.until_within(every * 60, "all calls are made", |_| bank.calls().len() == 20).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn processes_share_the_rate_of_a_key() {
    let bank = Bank::default();
    let took = two_processes_call(&bank, secs(1)).await;
    assert!(took >= secs(18), "20 calls at one a second took {took:?}");
    assert!(bank.in_a_second() <= 2, "{} calls in a second", bank.in_a_second());
}

#[tokio::test(start_paused = true)]
async fn processes_leave_no_turn_of_a_slow_rate_unused() {
    let took = two_processes_call(&Bank::default(), secs(10)).await;
    assert!(took >= secs(190) && took < secs(230), "20 calls at one in 10 s took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_at_once_whose_turn_does_not_come_soon_is_skipped() {
    let bank = Bank::default();
    bank.down.store(true, Relaxed);
    let rig = Rig::start(|builder| {
        let builder = builder.retries(Retries::none().immediate(2).delayed([secs(10)]));
        let builder = builder.limit("bank", Limit::none().per_key(1, secs(60)));
        builder.handle_with::<Do>(bank.clone(), keyed)
    })
    .await;
    rig.broker.deliver_all([command(1)]);
    rig.until("the first call is made", |_| bank.calls().len() == 1).await;
    tokio::time::sleep(secs(50)).await;
    assert_eq!(bank.calls().len(), 1, "a retry at once is a call");
    rig.until_within(secs(300), "its retries end", |rig| !rig.held().is_empty()).await;
    let calls = bank.calls();
    assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= secs(59)), "{calls:?}");
    assert_eq!((rig.inbox("do-1").attempts, calls.len()), (2, 2), "one at first, and one later");
}

#[tokio::test(start_paused = true)]
async fn messages_with_one_key_run_one_after_another_in_order() {
    let handled = Arc::new(Mutex::new(Vec::new()));
    /// Takes its time with every other message.
    struct Slow(Arc<Mutex<Vec<u64>>>);
    #[async_trait]
    impl Handle<Do, MemoryStore> for Slow {
        async fn handle(&self, Do { n }: Do, _: &mut Context<'_, MemoryStore>) -> Result<Deed, HandlerError> {
            tokio::time::sleep(Duration::from_millis(10 * (n % 2))).await;
            self.0.lock().unwrap().push(n);
            Ok(Did { n }.into())
        }
    }
    let slow = Slow(handled.clone());
    let rig = Rig::start(|builder| {
        let builder = builder.settings(|settings| settings.handler_lanes = 4);
        builder.handle_with::<Do>(slow, |options| options.key(|it: &Do| it.n % 5))
    })
    .await;
    rig.broker.deliver_all((1..=50).map(command));
    rig.all_acked().await;
    for key in 0..5 {
        let of_key: Vec<u64> = handled.lock().unwrap().iter().copied().filter(|n| n % 5 == key).collect();
        assert_eq!(of_key.len(), 10);
        assert!(of_key.is_sorted(), "the order in which they came was expected: {of_key:?}");
    }
}

#[tokio::test]
async fn a_limit_for_each_key_needs_keys() {
    let started = Rig::start_on(MemoryStore::new(), Broker::new(), |builder| {
        let builder = builder.limit("bank", Limit::none().per_key(1, secs(1)));
        let builder = builder.limit("sms", Limit::none().per_key(0, secs(1)));
        let builder = builder.handle_with::<Do>(Bank::default(), limited);
        builder.subscribe_with::<Step>(Bank::default(), |options| options.key(customer))
    })
    .await;
    let Err(StartError::Definition(wrong)) = started.map(|_| ()) else { panic!("it starts") };
    let said = wrong.iter().map(|mistake| format!("{mistake}\n")).collect::<String>();
    for text in [
        "has the limit `bank`, which is for each key, and no key: `#[handler(key = ..)]`",
        "is read from another message",
        "limit `sms`: its rate is less than a call a day",
    ] {
        assert!(said.contains(text), "`{text}` was expected in:\n{said}");
    }
    assert_eq!(wrong.len(), 3, "{said}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stops_gives_back_what_waits_for_its_turn() {
    let bank = Bank::default();
    let rig = Rig::start(|builder| {
        builder.limit("bank", Limit::none().rate(1, secs(60))).handle_with::<Do>(bank.clone(), limited)
    })
    .await;
    rig.broker.deliver_all((1..=2).map(command));
    rig.until("the first call is made", |_| bank.calls().len() == 1).await;
    let began = Instant::now();
    rig.endpoint.stop().await.expect("it stops");
    assert!(began.elapsed() < secs(1), "stopping took {:?}", began.elapsed());
}

#[tokio::test]
async fn limits_and_their_handlers_must_fit() {
    let sharing = |options: HandlerOptions| options.limit("bank").shares_transactions();
    let started = Rig::start_on(MemoryStore::new(), Broker::new(), |builder| {
        let builder = builder.handle_with::<Do>(Bank::default(), sharing);
        let builder = builder.subscribe_with::<Step>(Bank::default(), |options| options.limit("post"));
        let builder = builder.limit("bank", Limit::none().per_second(5)).limit("bank", Limit::none());
        builder.limit("mail", Limit::none()).limit("sms", Limit::none().concurrent(0))
    })
    .await;
    let Err(StartError::Definition(wrong)) = started.map(|_| ()) else { panic!("it starts") };
    let said = wrong.iter().map(|mistake| format!("{mistake}\n")).collect::<String>();
    for text in [
        "has a limit and shares transactions",
        "limit `bank` is set twice",
        "handler `step watcher` has the limit `post`, which is not set",
        "no handler has the limit `mail`",
        "limit `sms`: no call at the same time is none at all",
    ] {
        assert!(said.contains(text), "`{text}` was expected in:\n{said}");
    }
    assert_eq!(wrong.len(), 5, "{said}");
    for limit in [Limit::none().per_second(0), Limit::none().rate(1, secs(90_000)), Limit::none().per_second(u32::MAX)]
    {
        let started = Rig::start_on(MemoryStore::new(), Broker::new(), |builder| {
            builder.limit("bank", limit).handle_with::<Do>(Bank::default(), limited)
        });
        assert!(matches!(started.await.map(|_| ()), Err(StartError::Definition(_))), "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r_041_an_endpoint_that_stops_between_two_runs_gives_the_message_back() {
    let bank = Bank::default();
    bank.down.store(true, Relaxed);
    let Rig { endpoint, broker, store } = Rig::start(|builder| {
        let builder = builder.retries(Retries::none().immediate(3)).limit("bank", Limit::none().per_second(1));
        builder.handle_with::<Do>(bank.clone(), limited)
    })
    .await;
    broker.deliver(command(1));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((bank.calls().len(), broker.open()), (1, 1), "it waits for its next call");
    endpoint.stop().await.expect("it stops");
    assert_eq!((broker.acked().len(), broker.given_back()), (0, 1), "nothing was settled");
    assert_eq!((store.inbox().len(), store.outbox().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_has_a_call_for_each_message_that_runs_by_itself() {
    let script = Script::new();
    script.plan(2, [Act::Fail]);
    let rig = Rig::start(|builder| {
        let builder = builder.limit("bank", Limit::none().per_second(10));
        builder.handle_batch_with::<Do>(Batches(script.clone()), limited)
    })
    .await;
    let began = Instant::now();
    rig.broker.deliver_all((1..=5).map(command));
    rig.all_acked().await;
    assert!(began.elapsed() >= Duration::from_millis(400), "five calls after the first took {:?}", began.elapsed());
    assert_eq!((rig.done(), script.batches()), (vec![1, 2, 3, 4, 5], vec![5, 1, 1, 1, 1, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_call_at_the_turn_of_its_key_waits_for_a_place_like_any_other() {
    let bank = Bank { takes: Duration::from_millis(300), ..Bank::default() };
    let rig = Rig::start(|builder| {
        let builder = builder.limit("bank", Limit::none().concurrent(1).per_key(1, secs(1)));
        builder.handle_with::<Do>(bank.clone(), keyed).settings(|settings| settings.handler_lanes = 2)
    })
    .await;
    // a lane has the first customer alone, and waits for its turns while the other one makes calls
    let lane = |customer: u64| crate::hash_of([customer.to_string().as_bytes()]).unsigned_abs() % 2;
    let others = (101..).filter(|n| lane(n - 100) != lane(0)).take(20);
    rig.broker.deliver_all((1..=5).chain(others).map(command));
    rig.until_within(secs(30), "all calls are made", |_| bank.calls().len() == 25).await;
    assert_eq!(bank.most.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn times_of_calls_that_have_passed_are_not_made_up_for() {
    let bank = Bank::default();
    let rig = Rig::start(|builder| {
        builder.limit("bank", Limit::none().per_second(100)).handle_with::<Do>(bank.clone(), limited)
    })
    .await;
    rig.broker.deliver(command(1)); // times are taken for a quarter of a second
    rig.all_acked().await;
    tokio::time::sleep(secs(10)).await;
    let began = Instant::now();
    rig.broker.deliver_all((2..=51).map(command));
    rig.until_within(secs(5), "all calls are made", |_| bank.calls().len() == 51).await;
    assert!(began.elapsed() >= Duration::from_millis(480), "50 calls at 100 a second took {:?}", began.elapsed());
}
