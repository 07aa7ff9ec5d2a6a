//! Which instance a message is for, and whom an instance answers.

use super::{sagas::*, *};
use saga_core::{
    After, Command, Context, Either, Handle, HandlerError, Outcome, Replies, Reply, SagaRef, Sends, after, days, reply,
    saga, send, states,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tests::with;

/// Found by a text, which one message has inside of a field.
mod naming {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "service")]
    pub(crate) struct Named {
        pub(crate) name: String,
    }
    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "service")]
    pub(crate) struct LabelScanned {
        pub(crate) label: ScannedLabel,
    }
    #[derive(Serialize, Deserialize)]
    pub(crate) struct ScannedLabel {
        pub(crate) order: String,
    }

    #[states]
    pub(crate) enum Naming {
        #[waits]
        Known { scans: u32 },
    }

    #[saga(name = "naming", id = name: String, by(LabelScanned = label.order))]
    impl Naming {
        fn named(_: Named) -> Known {
            Known { scans: 0 }
        }

        fn scanned(it: Known, _: LabelScanned) -> Known {
            Known { scans: it.scans + 1 }
        }
    }
}

/// S-016, S-017: a field inside of a field names the instance; where it is missing the message is held, nobody paused.
pub(crate) async fn s_016_s_017_a_nested_field_names_the_instance_and_one_that_is_missing_is_named<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    use naming::*;
    let process = service.start(0, |builder| builder.saga::<Naming>()).await;
    publish(&process, ["a", "b"].map(|name| Named { name: name.into() })).await;
    service.count("naming", "Known", 2).await;
    let broken = [
        ("service.Named", "{}", "`name`"),
        ("service.Named", r#"{"name":null}"#, "`name`"),
        ("service.Named", r#"{"name":""}"#, "`name`"),
        ("service.LabelScanned", r#"{"label":{}}"#, "`label.order`"),
        ("service.LabelScanned", r#"{"label":{"order":""}}"#, "`label.order`"),
    ];
    let mut stranger = service.stranger(0, "scanner").await;
    let messages = broken.iter().enumerate().map(|(n, (name, body, _))| Envelope::new(format!("m-{n}"), *name, *body));
    tell(&mut stranger, messages).await;
    let scan = |order: &str| LabelScanned { label: ScannedLabel { order: order.into() } };
    publish(&process, [scan("b"), scan("b")]).await;
    let scanned = service.reaches("naming", "b", "Known", 3).await;
    assert_eq!((scanned.data, scanned.paused_by), (json!({ "scans": 2 }), None));
    let other = service.reaches("naming", "a", "Known", 1).await;
    assert_eq!((other.data, other.paused_by), (json!({ "scans": 0 }), None));
    let held = eventually("each that names nobody to be held", || async {
        Some(service.held().await).filter(|held| held.len() == broken.len())
    })
    .await;
    for (n, (name, body, field)) in broken.into_iter().enumerate() {
        let row = held.iter().find(|row| row.message_id == format!("m-{n}")).expect("it is held");
        let error = row.error.as_deref().unwrap_or_default();
        assert_eq!((row.reason.as_str(), row.saga_id.as_deref()), ("undecodable", None), "{body}");
        for part in [name, field, "saga `naming`"] {
            assert!(error.contains(part), "{part} was expected for {body}: {error}");
        }
    }
    stop([process]).await;
}

/// Asks for money; the outcome says nothing of who asked.
mod shopper {
    use super::*;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "service", outcome = ChargeOutcome)]
    pub(crate) struct Charge {
        pub(crate) cents: u64,
    }
    #[derive(Reply, Serialize, Deserialize)]
    #[reply(from = "service")]
    pub(crate) struct Charged {
        pub(crate) cents: u64,
    }
    #[derive(Outcome)]
    pub(crate) enum ChargeOutcome {
        Charged(Charged),
    }

    #[states]
    pub(crate) enum Shopper {
        #[waits]
        Asking,
        #[done]
        Settled { cents: u64 },
    }

    #[saga(name = "shopper", id = key: u64, by(Charged = echo))]
    impl Shopper {
        fn entered(it: Entered) -> (Asking, Sends<Charge>) {
            (Asking, send(Charge { cents: it.key * 100 }))
        }

        fn charged(_: Asking, it: Charged) -> Settled {
            Settled { cents: it.cents }
        }
    }
}

struct Till;

#[async_trait]
impl<Db: Base> Handle<shopper::Charge, Db> for Till {
    async fn handle(
        &self,
        it: shopper::Charge,
        _: &mut Context<'_, Db>,
    ) -> Result<shopper::ChargeOutcome, HandlerError> {
        Ok(shopper::Charged { cents: it.cents + 7 }.into())
    }
}

/// S-018: a hundred at once, by two processes.
pub(crate) async fn s_018_outcomes_without_an_id_reach_the_instances_that_asked<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let build = |it: EndpointBuilder<Db>| it.saga::<shopper::Shopper>().handle::<shopper::Charge>(Till);
    let processes = [service.start(0, build).await, service.start(1, build).await];
    publish(&processes[0], (0..50).map(|key| Entered { key })).await;
    publish(&processes[1], (50..100).map(|key| Entered { key })).await;
    service.count("shopper", "Settled", 100).await;
    for key in 0..100_u64 {
        let instance = service.reaches("shopper", &key.to_string(), "Settled", 2).await;
        assert_eq!(instance.data, json!({ "cents": key * 100 + 7 }), "{key}");
    }
    assert_eq!(service.held().await.len(), 0);
    stop(processes).await;
}

/// S-019, S-022: the `saga` headers name an instance of another saga, which is not ours, and then nothing at all.
pub(crate) async fn s_019_s_022_headers_name_an_instance_of_their_saga_alone<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let build = |it: EndpointBuilder<Db>| it.saga::<sound::Counter>().saga::<shopper::Shopper>();
    let process = service.start(0, build).await;
    publish(&process, [1, 2].map(|key| Opened { key })).await;
    publish(&process, [Entered { key: 1 }]).await;
    service.count("counter", "Open", 2).await;
    service.reaches("shopper", "1", "Asking", 1).await;
    let from = |saga: &str, id: &str, envelope: Envelope| {
        let of = SagaRef { saga: saga.into(), id: id.into(), entered: None, timer: None };
        with!(envelope, saga = Some(of))
    };
    let mut stranger = service.stranger(0, "bank").await;
    let other = from("other", "1", message("m-1", &Added { key: 2, n: 5 }));
    tell(&mut stranger, [other]).await;
    let counted = service.reaches("counter", "2", "Open", 2).await;
    assert_eq!(counted.data, json!({ "added": [5] }), "the body names the instance");
    service.reaches("counter", "1", "Open", 1).await;

    let nobody = from("shopper", "one", message("m-2", &shopper::Charged { cents: 5 }));
    tell(&mut stranger, [with!(nobody, receiver = Some("shopper".into()))]).await;
    // the question that shopper 1 asks is held too: nobody here handles it
    let held = tests::eventually("m-2 to be held", || async {
        service.held().await.into_iter().find(|row| row.message_id == "m-2")
    });
    let held = held.await;
    let error = "header saga-id `one` is not a u64 (saga `shopper`)";
    assert_eq!((held.reason.as_str(), held.attempts, held.error.as_deref()), ("undecodable", 0, Some(error)));
    assert_eq!(service.reaches("shopper", "1", "Asking", 1).await.paused_by, None);
    stop([process]).await;
}

/// Borrows from a bank whose answer others may hear of too, and hears of it itself.
mod borrower {
    use super::*;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "service", outcome = LendOutcome)]
    pub(crate) struct Lend {
        pub(crate) key: u64,
    }
    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "service")]
    pub(crate) struct Lent {
        pub(crate) key: u64,
    }
    #[derive(Outcome)]
    pub(crate) enum LendOutcome {
        Lent(Lent),
    }

    #[states]
    pub(crate) enum Borrower {
        #[waits]
        Borrowing { times: u32 },
        #[done]
        Gone { times: u32 },
    }

    #[saga(name = "borrower", id = key: u64)]
    impl Borrower {
        fn entered(it: Entered) -> (Borrowing, Sends<Lend>) {
            (Borrowing { times: 0 }, send(Lend { key: it.key }))
        }

        #[on(anyone)]
        fn lent(it: Borrowing, _: Lent) -> Borrowing {
            Borrowing { times: it.times + 1 }
        }

        fn left(it: Borrowing, _: Left) -> Gone {
            Gone { times: it.times }
        }
    }
}

struct Bank;

#[async_trait]
impl<Db: Base> Handle<borrower::Lend, Db> for Bank {
    async fn handle(&self, it: borrower::Lend, _: &mut Context<'_, Db>) -> Result<borrower::LendOutcome, HandlerError> {
        Ok(borrower::Lent { key: it.key }.into())
    }
}

/// S-020: the answer to the one who asked, and the event that it subscribes to, are one message.
pub(crate) async fn s_020_of_an_outcome_that_comes_on_two_routes_one_copy_counts<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let build = |it: EndpointBuilder<Db>| it.saga::<borrower::Borrower>().handle::<borrower::Lend>(Bank);
    let process = service.start(0, build).await;
    publish(&process, (0..20).map(|key| Entered { key })).await;
    for key in 0..20 {
        service.reaches("borrower", &key.to_string(), "Borrowing", 2).await;
    }
    // both copies have left, and what is sent now comes after them
    service.quiet().await;
    publish(&process, (0..20).map(|key| Left { key })).await;
    for key in 0..20 {
        let instance = service.reaches("borrower", &key.to_string(), "Gone", 3).await;
        assert_eq!(instance.data, json!({ "times": 1 }), "{key}");
        assert_eq!(service.journaled("borrower", &key.to_string(), 3).await.len(), 3, "{key}");
    }
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// A parent and its child in one endpoint: the child answers at once, or when it has slept for days.
mod raising {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(from = "service")]
    pub(crate) struct Raise {
        pub(crate) key: u64,
        pub(crate) naps: bool,
    }
    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "service", outcome = Raised)]
    pub(crate) struct Grow {
        pub(crate) child: u64,
        pub(crate) naps: bool,
    }
    #[derive(Reply, Serialize, Deserialize)]
    #[reply(from = "service")]
    pub(crate) struct Grown {
        pub(crate) child: u64,
    }
    #[derive(Outcome)]
    pub(crate) enum Raised {
        Grown(Grown),
    }

    #[states]
    pub(crate) enum Raiser {
        #[waits]
        Raising,
        #[done]
        Proud { child: u64 },
    }

    #[saga(name = "raiser", id = key: u64, by(Grown = echo))]
    impl Raiser {
        fn raise(it: Raise) -> (Raising, Sends<Grow>) {
            (Raising, send(Grow { child: it.key + 1000, naps: it.naps }))
        }

        fn grown(_: Raising, it: Grown) -> Proud {
            Proud { child: it.child }
        }
    }

    #[states]
    pub(crate) enum Growing {
        Napping {
            child: u64,
        },
        #[done]
        Adult,
    }

    #[saga(name = "growing", id = child: u64)]
    impl Growing {
        fn grow(it: Grow) -> Either<(Adult, Replies<Grown>), (Napping, After<Idle>)> {
            let child = it.child;
            match it.naps {
                false => Either::A((Adult, reply(Grown { child }))),
                true => Either::B((Napping { child }, after(days(3), Idle {}))),
            }
        }

        fn idle(it: Napping, _: Idle) -> (Adult, Replies<Grown>) {
            (Adult, reply(Grown { child: it.child }))
        }
    }
}

/// S-021: no ids are mixed up, however long it takes.
pub(crate) async fn s_021_a_child_of_the_same_endpoint_answers_its_parent_at_once_or_days_later<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let build = |it: EndpointBuilder<Db>| it.saga::<raising::Raiser>().saga::<raising::Growing>();
    let process = service.start(0, build).await;
    publish(&process, (1..=4).map(|key| raising::Raise { key, naps: key > 2 })).await;
    service.count("growing", "Napping", 2).await;
    let proud = async |key: u64| {
        let parent = service.reaches("raiser", &key.to_string(), "Proud", 2).await;
        assert_eq!(parent.data, json!({ "child": key + 1000 }), "{key}");
    };
    for key in 1..=2 {
        proud(key).await;
    }
    service.later(days(2)).await;
    service.count("raiser", "Raising", 2).await;
    service.count("growing", "Napping", 2).await;
    service.later(days(2)).await;
    for key in 3..=4 {
        proud(key).await;
    }
    service.count("growing", "Adult", 4).await;
    assert_eq!((service.db().count("saga").await, service.held().await.len()), (8, 0));
    stop([process]).await;
}

/// S-063: a command that wants no answer.
pub(crate) async fn s_063_a_reply_without_addressee_is_journaled_and_goes_nowhere<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<family::Child>()).await;
    let mut stranger = service.stranger(0, "stork").await;
    tell(&mut stranger, [message("m-1", &family::BringUp { key: 1 })]).await;
    service.reaches("child", "1", "Small", 1).await;
    publish(&process, [Left { key: 1 }]).await;
    service.reaches("child", "1", "Big", 2).await;
    let journal = service.journal("child", "1").await;
    let answer = &journal[1].effects[0];
    assert_eq!((&answer["type"], &answer["note"]), (&json!("service.GrownUp"), &json!("nobody asked")), "{answer}");
    assert!(answer["to"].is_null(), "it goes nowhere: {answer}");
    service.quiet().await;
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}
