//! Messages that name their instance by an alias, a value in its data.

use super::*;
use crate::{hash_of, *};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Ordered {
    id: u64,
}

/// The provider knows the payment by this reference from now on; by none if it is empty.
#[derive(Event, Serialize, Deserialize)]
struct Registered {
    id: u64,
    reference: String,
}

/// The provider does not know the id.
#[derive(Event, Serialize, Deserialize)]
struct Settled {
    reference: String,
    n: u32,
}

/// The same, for a person to decide about when it cannot be handled.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", name = "Refund")]
struct Refund {
    reference: Option<String>,
}

#[derive(Event, Serialize, Deserialize)]
struct Ended {
    id: u64,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Payment {
    reference: Option<String>,
    settled: Vec<u32>,
}

#[states(data = Payment)]
enum Card {
    Open,
    #[done]
    Over,
}

#[saga(name = "card", id = id: u64, alias(reference = Settled.reference, reference = Refund.reference))]
impl Card {
    fn ordered(_: Ordered) -> (Payment, Open) {
        (Payment::default(), Open)
    }

    fn registered(_: Open, registered: Registered, payment: &mut Payment) -> Open {
        payment.reference = Some(registered.reference).filter(|reference| !reference.is_empty());
        Open
    }

    fn settled(_: Open, settled: Settled, payment: &mut Payment) -> Open {
        payment.settled.push(settled.n);
        Open
    }

    fn refund(_: Open, _: Refund, payment: &mut Payment) -> Open {
        payment.settled.clear();
        Open
    }

    fn ended(_: Open, _: Ended) -> Over {
        Over
    }
}

fn ordered(id: u64) -> Envelope {
    message(format!("ordered-{id}"), &Ordered { id })
}

fn registered(id: u64, reference: &str) -> Envelope {
    message(format!("registered-{id}-{reference}"), &Registered { id, reference: reference.into() })
}

fn settled(reference: &str, n: u32) -> Envelope {
    message(format!("settled-{reference}-{n}"), &Settled { reference: reference.into(), n })
}

async fn cards() -> Rig {
    Rig::start(|builder| builder.saga::<Card>()).await
}

impl Rig {
    /// Delivers them one after the other.
    async fn each(&self, envelopes: impl IntoIterator<Item = Envelope>) {
        for envelope in envelopes {
            self.broker.deliver(envelope);
            self.all_acked().await;
        }
    }

    /// What has settled at a card.
    fn settled(&self, id: u64) -> Vec<u32> {
        let found = self.store.instances().into_iter().find(|found| found.row.key.id == id.to_string());
        let row = found.unwrap_or_else(|| panic!("no instance {id}; {}", self.says())).row;
        let data: serde_json::Value = serde_json::from_str(&row.data).expect("a state is JSON");
        serde_json::from_value(data["data"]["settled"].clone()).expect("a card has what has settled")
    }

    fn aliases(&self) -> Vec<(String, String)> {
        self.store.aliases().into_iter().map(|row| (row.field.id, row.instance.id)).collect()
    }
}

/// The lock of an alias.
fn lock(reference: &str) -> i64 {
    hash_of([b"card by reference", reference.as_bytes()])
}

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|&(value, id)| (value.into(), id.into())).collect()
}

#[tokio::test(start_paused = true)]
async fn s_081_a_message_finds_its_instance_by_a_value_in_the_data() {
    let rig = cards().await;
    rig.each([ordered(1), ordered(2), registered(1, "a"), registered(2, "b")]).await;
    assert_eq!(rig.aliases(), rows(&[("a", "1"), ("b", "2")]));
    rig.broker.deliver_all([settled("b", 1), settled("a", 2), settled("b", 3), settled("a", 4)]);
    rig.all_acked().await;
    assert_eq!((rig.settled(1), rig.settled(2)), (vec![2, 4], vec![1, 3]));
    let row = rig.inbox("settled-a-2");
    assert_eq!((row.receiver.as_str(), row.saga_id.as_deref()), ("card", Some("1")), "the journal names the instance");
    assert_eq!((rig.held(), rig.broker.sent().len()), (vec![], 0), "nothing goes through the broker again");
}

#[tokio::test(start_paused = true)]
async fn s_082_a_message_before_its_alias_waits_and_is_offered_where_the_alias_is_taken() {
    let rig = cards().await;
    rig.each([settled("a", 1), ordered(1), settled("a", 2)]).await;
    let held = rig.store.held();
    assert_eq!(rig.held(), [("settled-a-1".into(), HeldReason::Early), ("settled-a-2".into(), HeldReason::Early)]);
    assert_eq!(held[0].error.as_deref(), Some("card by reference `a`: no instance has it yet"));
    // what comes for the instance after the alias was taken waits behind what waited for the alias
    rig.broker.deliver_all([registered(1, "a"), message("end", &Ended { id: 1 })]);
    rig.all_acked().await;
    assert_eq!((rig.settled(1), rig.held()), (vec![1, 2], vec![]));
    let row = rig.inbox("settled-a-1");
    assert_eq!((row.result, row.saga_id.as_deref()), (InboxResult::Handled, Some("1")));
    let seq = |id: &str| rig.inbox(id).seq;
    assert_eq!((seq("settled-a-1"), seq("settled-a-2"), seq("end")), (Some(3), Some(4), Some(5)));
    rig.each([settled("a", 3)]).await;
    assert_eq!(rig.result("settled-a-3"), InboxResult::Ignored, "a done instance keeps its alias: it is late");
}

#[tokio::test(start_paused = true)]
async fn s_083_an_alias_that_never_comes_ends_as_an_instance_that_never_comes() {
    let rig = cards().await;
    let refund = message("refund", &Refund { reference: Some("a".into()) });
    rig.each([settled("a", 1), refund]).await;
    rig.until_within(secs(3800), "the event expires", |rig| rig.result("settled-a-1") == InboxResult::Discarded).await;
    rig.until_within(secs(200), "the command too", |rig| rig.the_held().reason == HeldReason::Failed).await;
    // who asks again later does so in vain until a person has retried it
    rig.each([ordered(1), registered(1, "a"), settled("a", 2)]).await;
    assert_eq!((rig.settled(1), rig.the_held().envelope.message_id.as_str()), (vec![2], "refund"));
}

#[tokio::test(start_paused = true)]
async fn duplicates_by_alias_run_once_before_and_after_it_is_taken() {
    let rig = cards().await;
    rig.broker.deliver_all([settled("a", 1), settled("a", 1), ordered(1)]);
    rig.all_acked().await;
    assert_eq!(rig.held().len(), 1);
    rig.each([settled("a", 1), registered(1, "a"), settled("a", 1)]).await;
    rig.broker.deliver_all([settled("a", 2), settled("a", 2)]);
    rig.all_acked().await;
    assert_eq!((rig.settled(1), rig.held()), (vec![1, 2], vec![]));
    let other = message("settled-a-2", &Settled { reference: "z".into(), n: 9 });
    rig.each([other]).await;
    let held = rig.the_held();
    assert_eq!(held.reason, HeldReason::Rejected, "another message under the same id: {:?}", held.error);
}

#[tokio::test(start_paused = true)]
async fn s_084_a_second_instance_with_the_same_alias_waits_for_a_person_and_others_go_on() {
    let rig = cards().await;
    rig.each([ordered(1), ordered(2), ordered(3), registered(1, "a")]).await;
    rig.broker.deliver_all([registered(2, "a"), registered(3, "c"), registered(2, "b")]);
    rig.all_acked().await;
    let held = rig.store.held();
    let error = "instance card/2 takes the reference `a`, which instance card/1 has: an alias is one instance's";
    assert_eq!((held[0].reason, held[0].error.as_deref()), (HeldReason::Failed, Some(error)));
    assert_eq!((held.len(), held[1].reason), (2, HeldReason::Paused), "later messages wait behind it");
    rig.each([settled("a", 1), settled("c", 3)]).await;
    assert_eq!((rig.settled(1), rig.settled(2), rig.settled(3)), (vec![1], vec![], vec![3]));
    assert_eq!(rig.aliases(), rows(&[("a", "1"), ("c", "3")]));
}

#[tokio::test(start_paused = true)]
async fn s_085_an_alias_that_changes_is_found_by_the_new_value_alone() {
    let rig = cards().await;
    rig.each([ordered(1), ordered(2), registered(1, "a"), settled("b", 1), registered(1, "b")]).await;
    assert_eq!((rig.aliases(), rig.settled(1)), (rows(&[("b", "1")]), vec![1]));
    rig.each([settled("a", 2)]).await;
    assert_eq!(rig.the_held().reason, HeldReason::Early, "nobody has the old one");
    rig.each([registered(2, "a")]).await;
    assert_eq!((rig.settled(2), rig.held()), (vec![2], vec![]), "another may take it");
    rig.each([registered(1, "")]).await;
    assert_eq!(rig.aliases(), rows(&[("a", "2")]), "an empty text is no alias");
}

/// Rule 9a: of instances in one lane, who has an alias depends on the order of the messages alone.
#[tokio::test(start_paused = true)]
async fn what_becomes_of_aliases_does_not_depend_on_how_the_batches_fall() {
    let mut seed = 1_u64;
    let mut below = move |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let mut conflicts = 0;
    for case in 0..60 {
        let moves: Vec<Envelope> = (0..6)
            .map(|n| {
                let (id, reference) = (1 + below(3), ["a", "b", ""][below(3) as usize]);
                message(format!("move-{n}"), &Registered { id, reference: reference.into() })
            })
            .collect();
        let (one_by_one, together) = (cards().await, cards().await);
        for rig in [&one_by_one, &together] {
            rig.each([ordered(1), ordered(2), ordered(3)]).await;
        }
        one_by_one.each(moves.clone()).await;
        together.broker.deliver_all(moves.clone());
        together.all_acked().await;
        let after = |rig: &Rig| {
            let instances: Vec<_> =
                rig.store.instances().into_iter().map(|it| (it.row.data, it.row.paused_by)).collect();
            (instances, rig.aliases(), rig.held())
        };
        assert_eq!(after(&one_by_one), after(&together), "case {case}: {moves:?}");
        conflicts += usize::from(one_by_one.held().iter().any(|(_, reason)| *reason == HeldReason::Failed));
    }
    assert!(conflicts > 10, "the cases were expected to conflict: {conflicts}");
}

#[tokio::test(start_paused = true)]
async fn an_alias_that_another_process_works_on_parks_its_instance_and_others_go_on() {
    let rig = cards().await;
    rig.each([ordered(1), ordered(2)]).await;
    let elsewhere = rig.store.begin(&[lock("a")], secs(600)).await.unwrap();
    rig.broker.deliver_all([registered(1, "a"), registered(2, "b")]);
    rig.until("the other one goes on", |rig| rig.aliases() == rows(&[("b", "2")])).await;
    tokio::time::sleep(secs(5)).await;
    assert_eq!((rig.broker.open(), rig.held()), (1, vec![]), "it waits without an effect");
    elsewhere.rollback().await.unwrap();
    rig.all_acked().await;
    assert_eq!(rig.aliases(), rows(&[("a", "1"), ("b", "2")]));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_not_held_while_another_process_takes_its_alias() {
    let rig = cards().await;
    rig.each([ordered(1)]).await;
    let mut elsewhere = rig.store.begin(&[lock("a")], secs(600)).await.unwrap();
    rig.broker.deliver_all([settled("a", 1), settled("b", 2)]);
    rig.until("the other one is held", |rig| rig.held().len() == 1).await;
    tokio::time::sleep(secs(2)).await;
    let key = |saga: &str, id: &str| InstanceKey { saga: saga.into(), id: id.into() };
    let taken = FieldRow::alias(key("card by reference", "a"), key("card", "1"));
    let write = Write { endpoint: NAME.into(), fields_in: vec![taken], ..Write::default() };
    elsewhere.write(&write).await.unwrap();
    elsewhere.commit().await.unwrap();
    rig.all_acked().await;
    assert_eq!((rig.settled(1), rig.the_held().envelope.message_id.as_str()), (vec![1], "settled-b-2"));
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_a_message_with_an_alias_waits() {
    let rig = cards().await;
    rig.each([ordered(1), registered(1, "a")]).await;
    away(&rig.store, Operation::Aliases, StoreErrorKind::Unavailable);
    rig.broker.deliver_all([settled("a", 1), settled("b", 2), registered(1, "b")]);
    tokio::time::sleep(secs(30)).await;
    assert_eq!((rig.broker.open(), rig.settled(1)), (3, vec![]));
    rig.store.heal();
    rig.all_acked().await;
    let mut settled = rig.settled(1);
    settled.sort_unstable();
    assert_eq!((settled, rig.held()), (vec![1, 2], vec![]), "two aliases have no order between them");
}

#[tokio::test(start_paused = true)]
async fn what_a_message_has_in_place_of_an_alias_must_be_a_value() {
    let rig = cards().await;
    let long = message("long", &Settled { reference: "x".repeat(1001), n: 2 });
    rig.each([settled("", 1), message("none", &Refund { reference: None }), long]).await;
    let errors: Vec<_> = rig.store.held().into_iter().filter_map(|row| row.error).collect();
    let of = |name: &str, fault: &str| format!("{name}: `reference`, the alias `reference` of saga `card`, {fault}");
    assert_eq!(
        errors,
        [of("Settled", "is empty"), of("Refund", "is empty"), of("Settled", "is longer than 1000 bytes")]
    );
}

/// Called like an alias.
#[states]
enum Impostor {
    #[done]
    There,
}

#[saga(name = "card by reference", id = id: u64)]
impl Impostor {
    fn ordered(_: Ordered) -> There {
        There
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_called_like_an_alias_is_refused() {
    let builder = Endpoint::builder(NAME, Broker::new(), MemoryStore::new());
    let error = builder.saga::<Card>().saga::<Impostor>().start().await.unwrap_err().to_string();
    assert!(error.contains("`card by reference` is the name of an alias"), "{error}");
}
