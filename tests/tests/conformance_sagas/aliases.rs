//! Messages that name their instance by an alias, in two processes of one service.

use super::*;
use saga_core::{saga, states};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Ordered {
    id: u64,
}

#[derive(Event, Serialize, Deserialize)]
struct Registered {
    id: u64,
    reference: String,
}

/// The provider knows no id.
#[derive(Event, Serialize, Deserialize)]
struct Settled {
    card: CardUsed,
}

#[derive(Serialize, Deserialize)]
struct CardUsed {
    reference: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Payment {
    reference: Option<String>,
}

#[states(data = Payment)]
enum Card {
    Open,
    #[done]
    Paid,
}

#[saga(name = "card", id = id: u64, alias(reference = Settled.card.reference))]
impl Card {
    fn ordered(_: Ordered) -> (Payment, Open) {
        (Payment::default(), Open)
    }

    fn registered(_: Open, registered: Registered, payment: &mut Payment) -> Open {
        payment.reference = Some(registered.reference);
        Open
    }

    fn settled(_: Open, _: Settled) -> Paid {
        Paid
    }
}

fn registered(id: u64, reference: impl Into<String>) -> Registered {
    Registered { id, reference: reference.into() }
}

fn settled(reference: impl Into<String>) -> Settled {
    Settled { card: CardUsed { reference: reference.into() } }
}

fn cards<Db: Base>(builder: EndpointBuilder<Db>) -> EndpointBuilder<Db> {
    builder.saga::<Card>()
}

/// The aliases, each with its instance.
async fn aliases<Db: Base>(db: &Db) -> String {
    let sql = "SELECT coalesce((SELECT min(name || ' ' || value || ' is ' || saga || ' ' || id) FROM {s}field), '')
        || ', ' || count(*) FROM {s}field";
    db.text(sql).await
}

/// S-081, S-082: whatever comes first, and in whichever process, each message finds its instance, and none is lost.
pub(crate) async fn s_081_s_082_whoever_is_first_a_message_meets_the_instance_that_takes_its_alias<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    const CARDS: u64 = 200;
    let processes = [service.start(0, cards).await, service.start(1, cards).await];
    let [a, b] = &processes;
    publish(a, (0..CARDS).map(|id| Ordered { id })).await;
    service.count("card", "Open", CARDS).await;
    // the two race: a message is held before its alias is taken, finds it, or meets it in the middle
    tokio::join!(
        publish(a, (0..CARDS).map(|id| registered(id, format!("ref-{id}")))),
        publish(b, (0..CARDS).map(|id| settled(format!("ref-{id}"))))
    );
    service.count("card", "Paid", CARDS).await;
    eventually("nothing to be held", || async { service.held().await.is_empty().then_some(()) }).await;
    for id in 0..CARDS {
        let journal = service.journaled("card", &id.to_string(), 3).await;
        assert!(journal.iter().all(|(_, result)| result == "handled"), "card {id}: {journal:?}");
    }
    assert!(aliases(service.db()).await.ends_with(&format!(", {CARDS}")));
    publish(b, [settled("ref-7")]).await;
    let late = service.journaled("card", "7", 4).await.pop().expect("it has lines");
    assert_eq!(late.1, "ignored", "a done instance keeps its alias");
    service.quiet().await;
    stop(processes).await;
}

/// S-084: the message that would give a second instance the alias is held; a person decides who keeps it.
pub(crate) async fn s_084_two_instances_with_one_alias_are_a_persons_business<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let processes = [service.start(0, cards).await, service.start(1, cards).await];
    let [a, b] = &processes;
    publish(a, [Ordered { id: 1 }, Ordered { id: 2 }]).await;
    service.count("card", "Open", 2).await;
    publish(a, [registered(1, "x")]).await;
    service.reaches("card", "1", "Open", 2).await;
    publish(b, [registered(2, "x")]).await;
    let held = tests::house::one_held(service.db()).await;
    let error = "instance card/2 takes the reference `x`, which instance card/1 has: an alias is one instance's";
    assert_eq!((held.reason.as_str(), held.error.as_deref()), ("failed", Some(error)));
    assert_eq!(aliases(service.db()).await, "card by reference x is card 1, 1");
    // the wrong one is given up, and the other may have it
    let first = InstanceFilter { saga: Some("card".into()), id: Some("1".into()), ..InstanceFilter::default() };
    let wrong = &service.db().instances(&first, 1).await.expect("the database answers")[0];
    let done = service.db().saga_cancel(&wrong.key(), &wrong.seen(), "ann", "ordered twice").await;
    assert_eq!(done.expect("it is cancelled").result, "cancelled");
    assert_eq!(tests::house::retry(service.db(), &held).await, 1);
    service.reaches("card", "2", "Open", 2).await;
    publish(a, [settled("x")]).await;
    service.reaches("card", "2", "Paid", 3).await;
    assert_eq!(aliases(service.db()).await, "card by reference x is card 2, 1");
    stop(processes).await;
}

/// S-083, S-085: what waited in vain is offered again by a person, when an instance has changed to its alias.
pub(crate) async fn s_085_an_alias_that_changes_is_found_by_its_new_value<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let processes = [service.start(0, cards).await, service.start(1, cards).await];
    let [a, b] = &processes;
    publish(a, [Ordered { id: 1 }]).await;
    service.reaches("card", "1", "Open", 1).await;
    publish(a, [registered(1, "x")]).await;
    service.reaches("card", "1", "Open", 2).await;
    publish(a, [registered(1, "y")]).await;
    service.reaches("card", "1", "Open", 3).await;
    publish(b, [settled("x")]).await;
    let held = tests::house::one_held(service.db()).await;
    assert_eq!((held.reason.as_str(), held.saga_id.as_deref()), ("early", Some("x")));
    assert_eq!(held.saga.as_deref(), Some("card by reference"));
    assert_eq!(aliases(service.db()).await, "card by reference y is card 1, 1");
    let card = service.instance("card", "1").await.expect("it is there");
    assert_eq!(card.aliases, [("reference".to_owned(), "y".to_owned())].into(), "an operator sees the new one alone");
    publish(b, [settled("y")]).await;
    service.reaches("card", "1", "Paid", 4).await;
    stop(processes).await;
}
