//! Limits of what stands behind handlers.

use super::*;
use crate::{Context, Handle, HandlerError, HandlerOptions, Limit, async_trait};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use tokio::time::Instant;

/// A service behind handlers.
#[derive(Clone, Default)]
struct Bank {
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

    fn calls(&self) -> Vec<Instant> {
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

fn limited(options: HandlerOptions) -> HandlerOptions {
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
    rig.until_within(secs(25), "all calls are made", |_| bank.calls().len() == 600).await;
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
    let said = wrong.join("\n");
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
