//! Which instance a message is for, and whom an instance answers.

use super::{dialects::Begin, *};
use crate::*;
use serde::{Deserialize, Serialize};

/// Both outcomes say nothing of who asked.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = ChargeOutcome)]
struct Charge {
    cents: u64,
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
struct Charged {
    cents: u64,
}
#[derive(Outcome)]
enum ChargeOutcome {
    Charged(Charged),
}

#[states]
enum Shopper {
    Asking {
        cents: u64,
    },
    #[done]
    Settled {
        cents: u64,
    },
}

#[saga(name = "shopper", id = id: u64, by(Charged = echo))]
impl Shopper {
    fn begin(begin: Begin) -> (Asking, Sends<Charge>) {
        let cents = begin.id * 100;
        (Asking { cents }, send(Charge { cents }))
    }

    fn charged(_: Asking, charged: Charged) -> Settled {
        Settled { cents: charged.cents }
    }
}

impl Rig {
    /// State and data of an instance.
    fn instance(&self, saga: &str, id: &str) -> Option<(String, serde_json::Value)> {
        let found = self.store.instances().into_iter().find(|it| it.row.key.saga == saga && it.row.key.id == id)?;
        Some((found.row.state, serde_json::from_str(&found.row.data).expect("a state is JSON")))
    }

    fn state_of(&self, saga: &str, id: &str) -> Option<String> {
        Some(self.instance(saga, id)?.0)
    }

    /// The results of an instance's messages.
    fn journal(&self, saga: &str, id: &str) -> Vec<InboxResult> {
        let rows = self.store.inbox().into_iter();
        let rows = rows.filter(|row| row.receiver == saga && row.saga_id.as_deref() == Some(id));
        rows.map(|row| row.result).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn s_018_outcomes_without_an_id_reach_the_instances_that_asked() {
    let rig = Rig::start(|builder| builder.saga::<Shopper>()).await;
    rig.broker.deliver_all((0..100).map(begin));
    rig.until("all have asked", |rig| rig.broker.sent_of("bank.Charge").len() == 100).await;
    let mut answers: Vec<Envelope> = (rig.broker.sent_of("bank.Charge").iter())
        .map(|asked| {
            let charge: Charge = serde_json::from_slice(&asked.envelope.body).expect("it is a charge");
            let saga = asked.envelope.saga.clone();
            assert_eq!(saga.as_ref().map(|saga| saga.saga.as_str()), Some("shopper"));
            let answer = message(format!("answer to {}", charge.cents), &Charged { cents: charge.cents + 7 });
            Envelope { saga, receiver: Some("shopper".into()), ..answer }
        })
        .collect();
    answers.sort_by_key(|answer| answer.body_hash()); // in no order that the instances know
    rig.broker.deliver_all(answers);
    rig.all_acked().await;
    for id in 0..100_u64 {
        let expected = ("Settled".to_owned(), serde_json::json!({ "cents": id * 100 + 7 }));
        assert_eq!(rig.instance("shopper", &id.to_string()), Some(expected));
        assert_eq!(rig.journal("shopper", &id.to_string()), [InboxResult::Handled; 2], "one outcome each");
    }
    assert_eq!(rig.held(), []);
}

#[tokio::test(start_paused = true)]
async fn s_019_the_id_of_another_sagas_instance_is_not_ours() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), begin(2), from_instance("other", "1", step(2, 5))]);
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.steps(2)), (vec![], vec![5]));
}

#[tokio::test(start_paused = true)]
async fn s_022_a_header_that_is_no_id_of_its_saga_is_named() {
    let rig = Rig::start(|builder| builder.saga::<Shopper>()).await;
    rig.broker.deliver_all([begin(1), from_instance("shopper", "one", message("m", &Charged { cents: 5 }))]);
    rig.all_acked().await;
    let held = rig.the_held();
    let error = held.error.expect("it says why");
    assert_eq!((held.reason, held.attempts), (HeldReason::Undecodable, 0));
    assert_eq!(error, "header saga-id `one` is not a u64 (saga `shopper`)");
    assert_eq!(rig.state_of("shopper", "1").as_deref(), Some("Asking"));
}

#[derive(Event, Serialize, Deserialize)]
struct Named {
    name: String,
}
#[derive(Event, Serialize, Deserialize)]
struct LabelScanned {
    label: ScannedLabel,
}
#[derive(Serialize, Deserialize)]
struct ScannedLabel {
    order: String,
}

/// Found by a text, which one message has inside of a field.
#[states]
enum Naming {
    Known {
        scans: u32,
    },
    #[done]
    Forgotten,
}

#[saga(name = "naming", id = name: String, by(LabelScanned = label.order))]
impl Naming {
    fn named(_: Named) -> Known {
        Known { scans: 0 }
    }

    fn scanned(state: Known, _: LabelScanned) -> Known {
        Known { scans: state.scans + 1 }
    }

    fn again(_: Known, _: Named) -> Forgotten {
        Forgotten
    }
}

#[tokio::test(start_paused = true)]
async fn s_017_a_nested_field_names_the_instance() {
    let rig = Rig::start(|builder| builder.saga::<Naming>()).await;
    let scan = |id: &str, order: &str| message(id, &LabelScanned { label: ScannedLabel { order: order.into() } });
    let named = |name: &str| message(name, &Named { name: name.into() });
    rig.broker.deliver_all([named("a"), named("b"), scan("1", "b"), scan("2", "b")]);
    rig.all_acked().await;
    let scans = |name: &str| rig.instance("naming", name).expect("it was named").1["scans"].clone();
    assert_eq!((scans("a"), scans("b")), (0.into(), 2.into()));
}

#[tokio::test(start_paused = true)]
async fn s_016_a_message_without_an_id_is_held_and_says_where_the_id_should_be() {
    let broken = [
        ("Named", r"{}", "name"),
        ("Named", r#"{"name":null}"#, "name"),
        ("Named", r#"{"name":""}"#, "name"),
        ("LabelScanned", r#"{"label":{}}"#, "label.order"),
        ("LabelScanned", r#"{"label":{"order":null}}"#, "label.order"),
        ("LabelScanned", r#"{"label":{"order":""}}"#, "label.order"),
    ];
    for (type_name, body, field) in broken {
        let rig = Rig::start(|builder| builder.saga::<Naming>()).await;
        rig.broker.deliver_all([message("a", &Named { name: "a".into() }), Envelope::new("m", type_name, body)]);
        rig.all_acked().await;
        let held = rig.the_held();
        let error = held.error.expect("it says why");
        assert_eq!((held.reason, held.envelope.message_id.as_str()), (HeldReason::Undecodable, "m"));
        for part in [type_name, &format!("`{field}`"), "saga `naming`"] {
            assert!(error.contains(part), "{part} was expected for {body}: {error}");
        }
        let instances = rig.store.instances();
        assert_eq!((instances.len(), instances[0].row.paused_by.as_ref()), (1, None), "no instance, no pause");
    }
}

/// An event that others may hear of too.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "bank")]
struct Lent {
    id: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = LendOutcome)]
struct Lend {
    id: u64,
}
#[derive(Outcome)]
enum LendOutcome {
    Lent(Lent),
}

#[states]
enum Borrower {
    Borrowing { times: u32 },
}

#[saga(name = "borrower", id = id: u64)]
impl Borrower {
    fn begin(begin: Begin) -> (Borrowing, Sends<Lend>) {
        (Borrowing { times: 0 }, send(Lend { id: begin.id }))
    }

    #[on(anyone)]
    fn lent(state: Borrowing, _: Lent) -> Borrowing {
        Borrowing { times: state.times + 1 }
    }

    fn begin_again(state: Borrowing, _: Begin) -> Borrowing {
        state
    }
}

#[tokio::test(start_paused = true)]
async fn s_020_of_an_outcome_that_comes_on_two_routes_one_copy_counts() {
    for (reply_first, together) in [(true, true), (true, false), (false, true), (false, false)] {
        let rig = Rig::start(|builder| builder.saga::<Borrower>()).await;
        rig.broker.deliver(begin(1));
        rig.until("it has asked", |rig| rig.broker.sent_of("bank.Lend").len() == 1).await;
        let saga = rig.broker.sent_of("bank.Lend")[0].envelope.saga.clone();
        let published = message("lent", &Lent { id: 1 });
        let replied = Envelope { saga, receiver: Some("borrower".into()), ..published.clone() };
        let copies = if reply_first { [replied, published] } else { [published, replied] };
        if together {
            rig.broker.deliver_all(copies);
        } else {
            for copy in copies {
                rig.broker.deliver(copy);
                rig.all_acked().await;
            }
        }
        rig.all_acked().await;
        let expected = ("Borrowing".to_owned(), serde_json::json!({ "times": 1 }));
        assert_eq!(rig.instance("borrower", "1"), Some(expected), "reply first: {reply_first}, together: {together}");
        assert_eq!(rig.journal("borrower", "1"), [InboxResult::Handled; 2], "the second copy is a duplicate");
        assert_eq!((rig.held(), rig.broker.acked().len()), (vec![], 3));
    }
}

#[derive(Event, Serialize, Deserialize)]
struct Raise {
    id: u64,
    naps: bool,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = Raised)]
struct Grow {
    child: u64,
    naps: bool,
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct Grown {
    child: u64,
}
#[derive(Outcome)]
enum Raised {
    Grown(Grown),
}

#[states]
enum Parent {
    Raising,
    #[done]
    Proud {
        child: u64,
    },
}

#[saga(name = "parent", id = id: u64, by(Grown = echo))]
impl Parent {
    fn raise(raise: Raise) -> (Raising, Sends<Grow>) {
        (Raising, send(Grow { child: raise.id + 1000, naps: raise.naps }))
    }

    fn grown(_: Raising, grown: Grown) -> Proud {
        Proud { child: grown.child }
    }
}

#[states]
enum Child {
    Napping {
        child: u64,
    },
    #[done]
    Adult,
}

#[saga(name = "child", id = child: u64)]
impl Child {
    fn grow(grow: Grow) -> Either<(Adult, Replies<Grown>), (Napping, After<Tired>)> {
        let child = grow.child;
        match grow.naps {
            false => Either::A((Adult, reply(Grown { child }))),
            true => Either::B((Napping { child }, after(days(3), Tired {}))),
        }
    }

    fn tired(state: Napping, _: Tired) -> (Adult, Replies<Grown>) {
        (Adult, reply(Grown { child: state.child }))
    }
}

#[tokio::test(start_paused = true)]
async fn s_021_a_child_of_the_same_endpoint_answers_its_parent_at_once_or_days_later() {
    let rig = Rig::start(|builder| builder.saga::<Parent>().saga::<Child>()).await;
    rig.broker.deliver_all((1..=4).map(|id| message(format!("raise-{id}"), &Raise { id, naps: id > 2 })));
    let proud = |rig: &Rig, id: u64| {
        rig.instance("parent", &id.to_string()) == Some(("Proud".into(), serde_json::json!({ "child": id + 1000 })))
    };
    rig.until("the first two are answered", |rig| (1..=2).all(|id| proud(rig, id))).await;
    tokio::time::sleep(secs(2 * 86_400)).await;
    for id in 3..=4_u64 {
        assert_eq!(rig.state_of("parent", &id.to_string()).as_deref(), Some("Raising"));
        assert_eq!(rig.state_of("child", &(id + 1000).to_string()).as_deref(), Some("Napping"));
    }
    rig.until_within(secs(86_500), "the others are answered", |rig| (3..=4).all(|id| proud(rig, id))).await;
    assert_eq!((rig.store.instances().len(), rig.held()), (8, vec![]), "no ids are mixed up");
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = Advice)]
struct Ask {
    id: u64,
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct Advised {
    times: u32,
}
#[derive(Outcome)]
enum Advice {
    Advised(Advised),
}

#[states]
enum Adviser {
    Thinking {
        times: u32,
    },
    #[done]
    Spoken,
}

#[saga(name = "adviser", id = id: u64)]
impl Adviser {
    fn ask(_: Ask) -> Thinking {
        Thinking { times: 0 }
    }

    fn think(state: Thinking, _: Step) -> Thinking {
        Thinking { times: state.times + 1 }
    }

    fn speak(state: Thinking, _: Finish) -> (Spoken, Replies<Advised>) {
        (Spoken, reply(Advised { times: state.times }))
    }
}

/// Asked by instance 5 of `puzzled` at endpoint `p`, then told by endpoint `q` to speak.
async fn advised(reply_to: Option<&str>) -> Rig {
    let rig = Rig::start(|builder| builder.saga::<Adviser>()).await;
    let asked = from_instance("puzzled", "5", message("ask", &Ask { id: 1 }));
    let asked = Envelope { conversation_id: "of p".into(), reply_to: reply_to.map(Into::into), ..asked };
    rig.broker.deliver(asked);
    rig.all_acked().await;
    rig.broker.deliver_all((1..=10).map(|n| step(1, n)));
    rig.all_acked().await;
    let Rig { store, broker, endpoint } = rig;
    endpoint.stop().await.expect("it stops");
    let rig = Rig::start_on(store, broker, |builder| builder.saga::<Adviser>()).await.expect("it starts again");
    let finish = Envelope {
        conversation_id: "of q".into(),
        reply_to: Some("q".into()),
        ..from_instance("another", "6", message("finish", &Finish { id: 1 }))
    };
    rig.broker.deliver(finish);
    rig.all_acked().await;
    assert_eq!(rig.state_of("adviser", "1").as_deref(), Some("Spoken"));
    rig
}

#[tokio::test(start_paused = true)]
async fn s_061_s_062_a_reply_goes_to_the_instance_that_started_the_saga() {
    let rig = advised(Some("p")).await;
    rig.until("it is sent", |rig| rig.broker.sent_of("shop.Advised").len() == 1).await;
    let sent = rig.broker.sent_of("shop.Advised").remove(0);
    assert_eq!(sent.destination, Destination::ReplyTo("p".into()));
    let Envelope { causation_id, conversation_id, saga, receiver, body, .. } = (*sent.envelope).clone();
    assert_eq!((causation_id.as_deref(), conversation_id.as_str()), (Some("ask"), "of p"));
    let saga = saga.expect("it names the instance");
    assert_eq!((saga.saga.as_str(), saga.id.as_str(), receiver.as_deref()), ("puzzled", "5", Some("puzzled")));
    assert_eq!(&body[..], br#"{"times":10}"#);
    assert_eq!(rig.broker.sent().len(), 1, "nothing goes to anybody else");
}

#[tokio::test(start_paused = true)]
async fn s_063_a_reply_without_addressee_is_journaled_and_goes_nowhere() {
    let rig = advised(None).await;
    let effects = rig.inbox("finish").effects.expect("the journal has effects");
    let effects: Vec<_> = effects.iter().map(|it| (it.type_name.as_ref(), it.to.as_deref(), it.note)).collect();
    assert_eq!(effects, [("shop.Advised", None, Some("nobody asked"))]);
    assert_eq!((rig.store.outbox().len(), rig.broker.sent().len()), (0, 0));
}
