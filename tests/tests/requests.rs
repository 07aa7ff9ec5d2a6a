//! Requests: a caller outside any handler waits for the outcome of a command.

use async_trait::async_trait;
use saga_core::{
    Command, Context, Endpoint, Event, Handle, HandlerError, HeldReason, Inspect, OutboxFilter, Outcome, Pending,
    Replies, Reply, RequestErrorKind, Requested, Sends, Store, Transport, hours, reply, saga, seconds, send, states,
    testing::MemoryStore,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{
    PATIENCE, Vhost, endpoint_suite, eventually,
    house::{held, one_held, retry},
    model::Effects,
};
use tokio::{sync::Semaphore, time::Instant};
use transports::InProcess;

#[derive(Command, Serialize, Deserialize)]
#[command(to = "desk", outcome = CheckedIn)]
struct CheckIn {
    ticket: u64,
}

#[derive(Debug, PartialEq, Outcome)]
enum CheckedIn {
    Pass(BoardingPass),
    Refused(CheckInRefused),
}

#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
#[reply(from = "desk")]
struct BoardingPass {
    ticket: u64,
}

/// Published as well.
#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(from = "desk")]
struct CheckInRefused {
    ticket: u64,
}

/// Begins a saga.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "desk", outcome = GroupOutcome)]
struct CheckInGroup {
    group: u64,
}

#[derive(Debug, PartialEq, Outcome)]
enum GroupOutcome {
    In(GroupIn),
}

#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
#[reply(from = "desk")]
struct GroupIn {
    group: u64,
}

/// For an endpoint that never runs.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "nobody", outcome = GroupOutcome)]
struct Shout {
    n: u64,
}

#[states]
enum Group {
    AwaitingDesk,
    #[done]
    Seated,
}

#[saga(name = "group", id = group: u64, by(BoardingPass = echo, CheckInRefused = echo))]
impl Group {
    fn begins(it: CheckInGroup) -> (AwaitingDesk, Sends<CheckIn>) {
        (AwaitingDesk, send(CheckIn { ticket: it.group }))
    }
    fn pass(_: AwaitingDesk, it: BoardingPass) -> (Seated, Replies<GroupIn>) {
        (Seated, reply(GroupIn { group: it.ticket }))
    }
    fn refused(_: AwaitingDesk, it: CheckInRefused) -> (Seated, Replies<GroupIn>) {
        (Seated, reply(GroupIn { group: it.ticket }))
    }
}

/// Refuses odd tickets; waits for a permit of the gate first.
#[derive(Clone)]
struct Desk {
    gate: Arc<Semaphore>,
}

impl Desk {
    fn open() -> Self {
        Self { gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    fn shut() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)) }
    }

    fn let_one_in(&self) {
        self.gate.add_permits(1);
    }
}

#[async_trait]
impl<Db: Store> Handle<CheckIn, Db> for Desk {
    async fn handle(&self, it: CheckIn, _: &mut Context<'_, Db>) -> Result<CheckedIn, HandlerError> {
        self.gate.acquire().await.map_err(HandlerError::transient)?.forget();
        let ticket = it.ticket;
        Ok(if ticket.is_multiple_of(2) { BoardingPass { ticket }.into() } else { CheckInRefused { ticket }.into() })
    }
}

async fn start<Db: Store>(transport: impl Transport, store: Db, desk: &Desk) -> Endpoint<Db> {
    let desk = Endpoint::builder("desk", transport, store).handle::<CheckIn>(desk.clone()).saga::<Group>();
    desk.start().await.unwrap()
}

fn expected(ticket: u64) -> CheckedIn {
    if ticket.is_multiple_of(2) { BoardingPass { ticket }.into() } else { CheckInRefused { ticket }.into() }
}

fn answered<C: Command>(requested: Requested<C>) -> C::Outcome {
    match requested {
        Requested::Answered(outcome) => outcome,
        Requested::Pending(pending) => panic!("an answer was expected: {pending:?}"),
    }
}

fn pending<C: Command>(requested: Requested<C>) -> Pending<C> {
    match requested {
        Requested::Pending(pending) => pending,
        Requested::Answered(_) => panic!("nothing was expected to be answered yet"),
    }
}

async fn quiet(store: &impl Inspect) {
    eventually("an empty outbox", || async {
        (store.outbox_count(&OutboxFilter::default()).await.ok()? == 0).then_some(())
    })
    .await;
}

/// A handler answers, a reply or an event; and a saga that the request begins, with what it replies.
async fn a_request_gets_the_outcome_of_a_handler_and_of_a_saga<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let desk = start(transport.clone(), first, &Desk::open()).await;
    let web = Endpoint::builder("web", transport, second).start().await.unwrap();
    for ticket in 0..4 {
        let outcome = answered(web.request(CheckIn { ticket }).within(PATIENCE).await.unwrap());
        assert_eq!(outcome, expected(ticket));
    }
    let outcome = answered(web.request(CheckInGroup { group: 8 }).within(PATIENCE).await.unwrap());
    assert_eq!(outcome, GroupIn { group: 8 }.into());
    quiet(desk.store()).await;
    assert_eq!(held(desk.store()).await.len(), 0);
    for endpoint in [web, desk] {
        endpoint.stop().await.unwrap();
    }
}

/// A slow answer: pending first, then waited for again; one for which nobody waits leaves nothing.
async fn t_036_a_slow_answer_is_pending_and_a_late_one_leaves_nothing<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let gate = Desk::shut();
    let desk = start(transport.clone(), first, &gate).await;
    let web = Endpoint::builder("web", transport, second).start().await.unwrap();
    let waits = pending(web.request(CheckIn { ticket: 2 }).within(Duration::from_millis(300)).await.unwrap());
    gate.let_one_in();
    assert_eq!(answered(waits.within(PATIENCE).await.unwrap()), expected(2));

    drop(pending(web.request(CheckIn { ticket: 4 }).within(Duration::from_millis(300)).await.unwrap()));
    gate.let_one_in();
    eventually("the late answer to leave", || async { (gate.gate.available_permits() == 0).then_some(()) }).await;
    quiet(desk.store()).await;
    assert_eq!(held(desk.store()).await.len(), 0);
    for endpoint in [web, desk] {
        endpoint.stop().await.unwrap();
    }
}

/// An endpoint that never ran is told at once, not when the time is up.
async fn a_request_to_nobody_fails_at_once<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, ..]: [Db; 3],
) {
    let web = Endpoint::builder("web", transport, first).start().await.unwrap();
    let began = Instant::now();
    let error = web.request(Shout { n: 1 }).within(hours(1)).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unroutable, "{error}");
    assert!(error.to_string().contains("`nobody` has no queue"), "{error}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    web.stop().await.unwrap();
}

/// A handler that fails for good, until it is repaired.
#[derive(Clone, Default)]
struct Broken {
    is_repaired: Arc<AtomicBool>,
}

#[async_trait]
impl<Db: Store> Handle<CheckIn, Db> for Broken {
    async fn handle(&self, it: CheckIn, _: &mut Context<'_, Db>) -> Result<CheckedIn, HandlerError> {
        if self.is_repaired.load(Ordering::SeqCst) {
            return Ok(BoardingPass { ticket: it.ticket }.into());
        }
        Err(HandlerError::permanent("the printer is broken"))
    }
}

/// A command that fails for good is held, and its caller's time runs out. A person's retry answers who still waits.
async fn t_037_a_request_whose_handler_fails_for_good_is_pending_and_a_retry_answers_it<
    Db: Effects + Inspect,
    T: Transport + Clone,
>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let broken = Broken::default();
    let desk = Endpoint::builder("desk", transport.clone(), first).handle::<CheckIn>(broken.clone()).start();
    let desk = desk.await.unwrap();
    let web = Endpoint::builder("web", transport, second).start().await.unwrap();
    let asked = web.request(CheckIn { ticket: 2 });
    let id = asked.message_id();
    let waits = pending(asked.within(seconds(1)).await.unwrap());
    let held = one_held(desk.store()).await;
    assert_eq!((held.message_id.as_str(), waits.id()), (id.to_string().as_str(), id));
    assert_eq!(held.reason, HeldReason::Failed.as_str());
    broken.is_repaired.store(true, Ordering::SeqCst);
    assert_eq!(retry(desk.store(), &held).await, 1);
    assert_eq!(answered(waits.within(PATIENCE).await.unwrap()), expected(2));
    for endpoint in [web, desk] {
        endpoint.stop().await.unwrap();
    }
}

/// Handled at the front by a request to the desk.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "front", outcome = CheckedIn)]
struct PassOn {
    ticket: u64,
}

struct Front<Db: Store> {
    itself: Arc<OnceLock<Endpoint<Db>>>,
}

#[async_trait]
impl<Db: Store> Handle<PassOn, Db> for Front<Db> {
    async fn handle(&self, it: PassOn, cx: &mut Context<'_, Db>) -> Result<CheckedIn, HandlerError> {
        cx.tx().await?; // a transaction is open: the request does not wait for its commit
        let itself = self.itself.get().ok_or_else(|| HandlerError::transient("it is starting"))?;
        match itself.request(CheckIn { ticket: it.ticket }).within(PATIENCE).await.map_err(HandlerError::transient)? {
            Requested::Answered(outcome) => Ok(outcome),
            Requested::Pending(_) => Err(HandlerError::transient("the desk is slow")),
        }
    }
}

async fn t_038_a_request_inside_a_handler_is_sent_at_once<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, third]: [Db; 3],
) {
    let desk = start(transport.clone(), first, &Desk::open()).await;
    let itself = Arc::new(OnceLock::new());
    let front =
        Endpoint::builder("front", transport.clone(), second).handle::<PassOn>(Front { itself: itself.clone() });
    assert!(itself.set(front.start().await.unwrap()).is_ok(), "it is set once");
    let web = Endpoint::builder("web", transport, third).start().await.unwrap();
    assert_eq!(answered(web.request(PassOn { ticket: 3 }).within(PATIENCE).await.unwrap()), expected(3));
    for endpoint in [web, desk] {
        endpoint.stop().await.unwrap();
    }
}

/// A thousand at a time: each gets its own answer.
async fn a_thousand_requests_at_a_time_get_their_own_answers<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, _]: [Db; 3],
) {
    let desk = start(transport.clone(), first, &Desk::open()).await;
    let web = Endpoint::builder("web", transport, second).start().await.unwrap();
    let asked = (0..1000).map(|ticket| web.request(CheckIn { ticket }).within(PATIENCE));
    let began = Instant::now();
    for (ticket, outcome) in (0..).zip(futures_util::future::join_all(asked).await) {
        assert_eq!(answered(outcome.unwrap()), expected(ticket));
    }
    println!("1,000 requests: {:?}", began.elapsed());
    quiet(desk.store()).await;
    for endpoint in [web, desk] {
        endpoint.stop().await.unwrap();
    }
}

endpoint_suite! {
    a_request_gets_the_outcome_of_a_handler_and_of_a_saga
    t_036_a_slow_answer_is_pending_and_a_late_one_leaves_nothing
    a_request_to_nobody_fails_at_once
    t_037_a_request_whose_handler_fails_for_good_is_pending_and_a_retry_answers_it
    t_038_a_request_inside_a_handler_is_sent_at_once
    a_thousand_requests_at_a_time_get_their_own_answers
}

#[tokio::test]
async fn on_a_store_in_memory_as_well() {
    let bus = InProcess::new();
    let gate = Desk::shut();
    let desk = start(bus.clone(), MemoryStore::new(), &gate).await;
    let web = Endpoint::builder("web", bus, MemoryStore::new()).start().await.unwrap();
    let waits = pending(web.request(CheckIn { ticket: 1 }).within(Duration::from_millis(50)).await.unwrap());
    gate.let_one_in();
    assert_eq!(answered(waits.within(PATIENCE).await.unwrap()), expected(1));
    let lost = pending(web.request(CheckIn { ticket: 2 }).within(Duration::from_millis(50)).await.unwrap());
    web.stop().await.unwrap();
    assert_eq!(lost.within(PATIENCE).await.unwrap_err().kind(), RequestErrorKind::Stopped);
    gate.let_one_in();
    desk.stop().await.unwrap();
}

/// The queues for answers: name, and what the broker says of them.
async fn queues_for_answers(vhost: &Vhost) -> Vec<serde_json::Value> {
    let queues = vhost.list("queues").await;
    let named = |queue: &serde_json::Value| queue["name"].as_str().is_some_and(|name| name.ends_with("#requests"));
    queues.into_iter().filter(named).collect()
}

/// Each process has a queue of its own, exclusive, from its first request until it ends; and its own answers.
#[tokio::test(flavor = "multi_thread")]
async fn t_035_f12_two_processes_have_their_own_queues_and_answers() {
    let vhost = Vhost::create().await;
    let desk = start(vhost.transport(), MemoryStore::new(), &Desk::open()).await;
    let web = async || Endpoint::builder("web", vhost.transport(), MemoryStore::new()).start().await.unwrap();
    let (one, two) = (web().await, web().await);
    assert_eq!(queues_for_answers(&vhost).await.len(), 0, "nobody has asked yet");
    let ask = async |web: &Endpoint<MemoryStore>, tickets: std::ops::Range<u64>| {
        let asked = tickets.clone().map(|ticket| web.request(CheckIn { ticket }).within(PATIENCE));
        for (ticket, outcome) in tickets.zip(futures_util::future::join_all(asked).await) {
            assert_eq!(answered(outcome.unwrap()), expected(ticket));
        }
    };
    tokio::join!(ask(&one, 0..100), ask(&two, 100..200));
    let queues = eventually("two queues for answers", || async {
        Some(queues_for_answers(&vhost).await).filter(|queues| queues.len() == 2)
    })
    .await;
    for queue in &queues {
        assert_eq!((&queue["exclusive"], &queue["durable"]), (&true.into(), &false.into()), "{queue}");
    }
    one.stop().await.unwrap();
    eventually("the queue to go with its process", || async {
        (queues_for_answers(&vhost).await.len() == 1).then_some(())
    })
    .await;
    two.stop().await.unwrap();
    desk.stop().await.unwrap();
}

/// All connections break while a request waits: its queue comes back under its name, and the answer finds it.
#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_a_request_survives_the_loss_of_the_link() {
    let vhost = Vhost::create().await;
    let gate = Desk::shut();
    let desk = start(vhost.transport(), MemoryStore::new(), &gate).await;
    let web = Endpoint::builder("web", vhost.transport(), MemoryStore::new()).start().await.unwrap();
    let waits = pending(web.request(CheckIn { ticket: 2 }).within(seconds(1)).await.unwrap());
    let asked = web.request(CheckIn { ticket: 4 }).within(PATIENCE);
    let break_all = async {
        // the management interface knows of a connection after some seconds: until it knows the six at once
        eventually("all connections to be closed", || async { (vhost.close_connections().await >= 6).then_some(()) })
            .await;
        gate.gate.add_permits(10); // a run that the break has cut off took one
    };
    let (asked, ()) = tokio::join!(asked, break_all);
    assert_eq!(answered(asked.unwrap()), expected(4));
    assert_eq!(answered(waits.within(PATIENCE).await.unwrap()), expected(2));
    assert_eq!(answered(web.request(CheckIn { ticket: 6 }).within(PATIENCE).await.unwrap()), expected(6));
    web.stop().await.unwrap();
    desk.stop().await.unwrap();
}
