//! Messages on their way from endpoint to endpoint: their order, and what they say of their origin.

use super::*;
use async_trait::async_trait;
use saga_core::{Context, Handle, HandlerError, Publishes, publish as tell, saga, states};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use tests::{
    eventually,
    model::{Arrived, Listener},
};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Opened {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Tell {
    id: u64,
    n: u32,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Shut {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "teller")]
struct Told {
    n: u32,
}

/// Says on what it is told.
#[states]
enum Teller {
    Telling {
        told: u32,
    },
    #[done]
    Silent,
}

#[saga(name = "teller", id = id: u64)]
impl Teller {
    fn opened(_: Opened) -> Telling {
        Telling { told: 0 }
    }

    fn tell(state: Telling, it: Tell) -> (Telling, Publishes<Told>) {
        (Telling { told: state.told + 1 }, tell(Told { n: it.n }))
    }

    fn shut(_: Telling, _: Shut) -> Silent {
        Silent
    }
}

/// Hears, one after the other.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<u32>>>);

#[async_trait]
impl<Db: Effects> Handle<Told, Db> for Ear {
    async fn handle(&self, told: Told, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        Db::effect(cx.tx().await?, told.n.into()).await?; // so that lanes have something to wait for
        self.0.lock().expect("nobody panics with this lock").push(told.n);
        Ok(())
    }
}

/// O-051: what one instance sends is of one order key.
pub(crate) async fn o_051_what_one_instance_sends_is_handled_in_order_by_any_number_of_lanes<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    two.db().create_effects().await;
    let ear = Ear::default();
    let teller = two.endpoint(0, "teller").saga::<Teller>().start().await.unwrap();
    let builder = two.endpoint(0, "ear").settings(|settings| settings.handler_lanes = 8);
    let listener = builder.subscribe::<Told>(ear.clone()).start().await.unwrap();
    publish(&teller, [Opened { id: 1 }]).await;
    publish(&teller, (0..100).map(|n| Tell { id: 1, n })).await;
    let heard = || ear.0.lock().expect("nobody panics with this lock").clone();
    eventually("a hundred to be heard", || async { (heard().len() >= 100).then_some(()) }).await;
    assert_eq!(heard(), (0..100).collect::<Vec<_>>());
    publish(&teller, [Shut { id: 1 }]).await;
    eventually("an empty outbox", || async { (two.count("{s}outbox").await == 0).then_some(()) }).await;
    stop([teller, listener]).await;
}

/// O-049: three messages due in an hour. Then the hour has passed.
pub(crate) async fn o_049_a_delayed_message_is_cancelled_by_the_commit_alone_and_one_that_was_sent_says_so<
    Db: Effects + Base,
    T: Transport + Clone,
>(
    two: Two<Db, T>,
) {
    let (hour, heard) = (Duration::from_secs(3600), Listener::default());
    let endpoint = two.endpoint(0, "ear").subscribe::<Arrived>(heard.clone()).start().await.unwrap();
    let mut session = endpoint.session().await.unwrap();
    let [kept, gone, never] = [1, 2, 3].map(|id| session.publish(Arrived { id }).delay(hour).message_id());
    assert!(session.cancel(never).await.unwrap(), "what is not committed yet does not leave either");
    session.commit().await.unwrap();
    assert_eq!(two.count("{s}outbox").await, 2);
    for (id, commit) in [(kept, false), (gone, true)] {
        let mut session = endpoint.session().await.unwrap();
        assert!(session.cancel(id).await.unwrap());
        assert!(!session.cancel(id).await.unwrap(), "once");
        if commit { session.commit().await.unwrap() } else { session.rollback().await.unwrap() }
    }
    two.db().age("outbox", "due_at", hour).await;
    eventually("the one that was kept", || async { (heard.heard() == [1]).then_some(()) }).await;
    eventually("an empty outbox", || async { (two.count("{s}outbox").await == 0).then_some(()) }).await;
    let mut session = endpoint.session().await.unwrap();
    for id in [kept, gone, never] {
        assert!(!session.cancel(id).await.unwrap(), "it was sent, or is gone already");
    }
    session.commit().await.unwrap();
    stop([endpoint]).await;
    assert_eq!(heard.heard(), [1]);
}

/// Says how far a message has come.
#[derive(Event, Serialize, Deserialize)]
#[event(from = "client")]
struct Hop {
    n: u64,
}

/// The messages of one chain; one of three takes each, and sends the next.
#[derive(Clone)]
struct Hopper {
    place: u64,
    took: Arc<Mutex<Vec<Envelope>>>,
}

#[async_trait]
impl<Db: Effects> Handle<Hop, Db> for Hopper {
    async fn handle(&self, hop: Hop, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        if hop.n % 3 == self.place {
            self.took.lock().expect("nobody panics with this lock").push(cx.envelope().clone());
            if hop.n < 4 {
                cx.publish(Hop { n: hop.n + 1 });
            }
        }
        Ok(())
    }
}

/// T-031: five messages, one conversation, each caused by the one before. T-032: a session begins it.
pub(crate) async fn t_031_a_chain_over_three_endpoints_is_one_conversation<Db: Effects + Base, T: Transport + Clone>(
    two: Two<Db, T>,
) {
    let took = Arc::new(Mutex::new(Vec::new()));
    let mut endpoints = Vec::new();
    for (place, name) in ["one", "two", "three"].into_iter().enumerate() {
        let hopper = Hopper { place: place as u64, took: took.clone() };
        endpoints.push(two.endpoint(0, name).subscribe::<Hop>(hopper).start().await.unwrap());
    }
    publish(&endpoints[2], [Hop { n: 0 }]).await;
    let chain: Vec<Envelope> = eventually("five messages", || async {
        let took = took.lock().expect("nobody panics with this lock");
        (took.len() == 5).then(|| took.clone())
    })
    .await;
    let mut before: Option<&Envelope> = None;
    for message in &chain {
        assert_eq!(message.conversation_id, chain[0].message_id);
        assert_eq!(message.causation_id.as_ref(), before.map(|before| &before.message_id));
        before = Some(message);
    }
    let conversations = two.db().text("SELECT CAST(count(DISTINCT conversation_id) AS text) FROM {s}inbox").await;
    assert_eq!(conversations, "1", "the journals say the same");
    stop(endpoints).await;
}

/// T-039, RabbitMQ: each endpoint gets each event once, and the processes of one endpoint share theirs.
#[tokio::test(flavor = "multi_thread")]
async fn t_039_the_processes_of_an_endpoint_share_the_events_that_each_endpoint_gets() {
    on_postgres(|two| async move {
        let heard: [Listener; 5] = Default::default();
        let mut endpoints = Vec::new();
        for (name, heard) in ["shared", "shared", "shared", "one", "two"].into_iter().zip(&heard) {
            endpoints.push(two.endpoint(0, name).subscribe::<Arrived>(heard.clone()).start().await.unwrap());
        }
        publish(&endpoints[0], (0..100).map(|id| Arrived { id })).await;
        let all = "{s}inbox WHERE result = 'handled' AND attempts = 1";
        eventually("three hundred to be handled", || async { (two.count(all).await >= 300).then_some(()) }).await;
        let sorted = |of: &[Listener]| {
            let mut ids: Vec<u64> = of.iter().flat_map(Listener::heard).collect();
            ids.sort_unstable();
            ids
        };
        for of in [&heard[..3], &heard[3..4], &heard[4..]] {
            assert_eq!(sorted(of), (0..100).collect::<Vec<_>>());
        }
        assert!(heard[..3].iter().all(|heard| !heard.heard().is_empty()), "each process was expected to have a share");
        stop(endpoints).await;
    })
    .await;
}
