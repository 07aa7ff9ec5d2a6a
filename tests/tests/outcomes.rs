//! An outcome goes to the instance that asked, and to nobody else unless it is an event that others subscribe to.

use async_trait::async_trait;
use saga_core::{
    Command, Context, Endpoint, Event, Handle, HandlerError, Inspect, InstanceFilter, InstanceKey, OutboxFilter,
    Outcome, Reply, Sends, Store, Transport, saga, send, states,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use tests::{endpoint_suite, eventually, house::held, model::Effects};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = PayOutcome)]
struct Pay {
    id: u64,
    /// What the answer's body says instead of the id.
    answer_id: u64,
    decline: bool,
}

#[derive(Outcome)]
enum PayOutcome {
    Paid(Paid),
    Declined(Declined),
}

/// Others may subscribe to it.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "bank")]
struct Paid {
    id: u64,
}

/// For the requester alone.
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
struct Declined {
    id: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct PlaceOne {
    id: u64,
    decline: bool,
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct PlaceTwo {
    id: u64,
    answer_id: u64,
}

#[states]
enum One {
    Waiting,
    #[done]
    Done,
}

#[saga(name = "one", id = id: u64)]
impl One {
    fn placed(place: PlaceOne) -> (Waiting, Sends<Pay>) {
        (Waiting, send(Pay { id: place.id, answer_id: place.id, decline: place.decline }))
    }
    fn paid(_: Waiting, _: Paid) -> Done {
        Done
    }
    fn declined(_: Waiting, _: Declined) -> Done {
        Done
    }
}

#[derive(Serialize, Deserialize)]
struct Waiting2 {}
#[derive(Serialize, Deserialize)]
struct Done2 {}

#[states]
enum Two {
    Waiting(Waiting2),
    #[done]
    Done(Done2),
}

#[saga(name = "two", id = id: u64)]
impl Two {
    fn placed(place: PlaceTwo) -> (Waiting2, Sends<Pay>) {
        (Waiting2 {}, send(Pay { id: place.id, answer_id: place.answer_id, decline: false }))
    }
    fn paid(_: Waiting2, _: Paid) -> Done2 {
        Done2 {}
    }
    fn declined(_: Waiting2, _: Declined) -> Done2 {
        Done2 {}
    }
}

struct Bank;

#[async_trait]
impl<Db: Store> Handle<Pay, Db> for Bank {
    async fn handle(&self, pay: Pay, _: &mut Context<'_, Db>) -> Result<PayOutcome, HandlerError> {
        let id = pay.answer_id;
        Ok(if pay.decline { Declined { id }.into() } else { Paid { id }.into() })
    }
}

/// Hears of every payment.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<u64>>>);

#[async_trait]
impl<Db: Store> Handle<Paid, Db> for Ledger {
    async fn handle(&self, paid: Paid, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.0.lock().expect("nobody panics with this lock").push(paid.id);
        Ok(())
    }
}

async fn publish<Db: Effects + Inspect, E: Event>(endpoint: &Endpoint<Db>, events: impl IntoIterator<Item = E>) {
    let mut session = endpoint.session().await.unwrap();
    for event in events {
        session.publish(event);
    }
    session.commit().await.unwrap();
}

async fn done(store: &impl Inspect, saga: &str, expected: usize) {
    let filter = InstanceFilter { saga: Some(saga.into()), state: Some("Done".into()), ..Default::default() };
    eventually(&format!("{expected} instances of `{saga}` to be done"), || async {
        (store.instances_count(&filter).await.ok()? == expected as u64).then_some(())
    })
    .await;
}

async fn quiet(store: &impl Inspect) {
    eventually("an empty outbox", || async {
        (store.outbox_count(&OutboxFilter::default()).await.ok()? == 0).then_some(())
    })
    .await;
}

/// How many messages of each type an instance's endpoint handled for it.
async fn journal(store: &impl Inspect, saga: &str, id: u64) -> Vec<(String, String)> {
    let key = InstanceKey { saga: saga.into(), id: id.to_string() };
    let lines = store.journal(&key, 100).await.unwrap();
    lines.into_iter().map(|line| (line.type_name, line.result)).collect()
}

fn once_asked_and_answered(starts: &str) -> Vec<(String, String)> {
    [starts, "bank.Paid"].map(|type_name| (type_name.into(), "handled".into())).to_vec()
}

/// Two services ask the same third one, with the same ids: each gets its own answers, and no row of the other's.
async fn two_services_that_ask_one_bank_get_their_own_answers<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, third]: [Db; 3],
) {
    let bank = Endpoint::builder("bank", transport.clone(), third).handle::<Pay>(Bank).start().await.unwrap();
    let one = Endpoint::builder("one", transport.clone(), first).saga::<One>().start().await.unwrap();
    let two = Endpoint::builder("two", transport.clone(), second).saga::<Two>().start().await.unwrap();
    publish(&one, (0..100).map(|id| PlaceOne { id, decline: false })).await;
    done(one.store(), "one", 100).await;
    publish(&one, (100..110).map(|id| PlaceOne { id, decline: true })).await;
    done(one.store(), "one", 110).await;
    for endpoint in [&one, &two, &bank] {
        quiet(endpoint.store()).await;
    }
    assert_eq!(held(two.store()).await.len(), 0, "answers to `one` were expected to leave nothing at `two`");
    publish(&two, [PlaceTwo { id: 3, answer_id: 3 }]).await;
    done(two.store(), "two", 1).await;
    assert_eq!(journal(two.store(), "two", 3).await, once_asked_and_answered("client.PlaceTwo"));
    assert_eq!(journal(one.store(), "one", 3).await, once_asked_and_answered("client.PlaceOne"));
    for endpoint in [one, two, bank] {
        endpoint.stop().await.unwrap();
    }
}

/// Two sagas of the same endpoint ask with equal ids; one answer's body even has the id of another instance.
async fn two_sagas_in_one_endpoint_get_their_own_answers<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, _, third]: [Db; 3],
) {
    let bank = Endpoint::builder("bank", transport.clone(), third).handle::<Pay>(Bank).start().await.unwrap();
    let both = Endpoint::builder("both", transport.clone(), first).saga::<One>().saga::<Two>().start().await.unwrap();
    publish(&both, (0..20).map(|id| PlaceOne { id, decline: false })).await;
    publish(&both, (0..20).map(|id| PlaceTwo { id, answer_id: 19 - id })).await;
    done(both.store(), "one", 20).await;
    done(both.store(), "two", 20).await;
    for id in 0..20 {
        assert_eq!(journal(both.store(), "one", id).await, once_asked_and_answered("client.PlaceOne"));
        assert_eq!(journal(both.store(), "two", id).await, once_asked_and_answered("client.PlaceTwo"));
    }
    assert_eq!(held(both.store()).await.len(), 0);
    both.stop().await.unwrap();
    bank.stop().await.unwrap();
}

/// An outcome that is an event reaches the requester and each subscriber once, even if both are the same endpoint; one
/// that is a reply reaches the requester alone.
async fn a_published_outcome_reaches_asker_and_subscriber_once_each<Db: Effects + Inspect, T: Transport + Clone>(
    transport: T,
    [first, second, third]: [Db; 3],
) {
    let (near, far) = (Ledger::default(), Ledger::default());
    let bank = Endpoint::builder("bank", transport.clone(), third).handle::<Pay>(Bank).start().await.unwrap();
    let ledger = Endpoint::builder("ledger", transport.clone(), second).subscribe::<Paid>(far.clone()).start().await;
    let ledger = ledger.unwrap();
    let one = Endpoint::builder("one", transport.clone(), first).saga::<One>().subscribe::<Paid>(near.clone());
    let one = one.start().await.unwrap();
    publish(&one, (0..20).map(|id| PlaceOne { id, decline: id >= 15 })).await;
    done(one.store(), "one", 20).await;
    let heard = |ledger: &Ledger| {
        let mut heard = ledger.0.lock().expect("nobody panics with this lock").clone();
        heard.sort_unstable();
        heard
    };
    for (whose, listener) in [("the requester's endpoint", &near), ("another endpoint", &far)] {
        eventually(&format!("15 payments to be heard at {whose}"), || async {
            (heard(listener).len() >= 15).then_some(())
        })
        .await;
    }
    for endpoint in [&one, &ledger, &bank] {
        quiet(endpoint.store()).await;
    }
    let all: Vec<u64> = (0..15).collect();
    assert_eq!((heard(&near), heard(&far)), (all.clone(), all), "each payment was expected once");
    for id in 0..15 {
        assert_eq!(journal(one.store(), "one", id).await, once_asked_and_answered("client.PlaceOne"));
    }
    assert_eq!(held(ledger.store()).await.len(), 0);
    for endpoint in [one, ledger, bank] {
        endpoint.stop().await.unwrap();
    }
}

endpoint_suite! {
    two_services_that_ask_one_bank_get_their_own_answers
    two_sagas_in_one_endpoint_get_their_own_answers
    a_published_outcome_reaches_asker_and_subscriber_once_each
}
