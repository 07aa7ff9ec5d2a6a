//! Who takes a message beside whom, which transition of a saga does, and what goes out with it.

use super::{sagas::*, *};
use saga_core::{Command, Context, Delivery, Handle, HandlerError, Publishes, SagaRef, Sends, saga, send, states};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tests::link;

/// Takes what the counter takes, under the same ids; the number 13 is too much for it.
mod twin {
    use super::*;

    #[states]
    pub(crate) enum Twin {
        #[waits]
        Along { added: Vec<u64> },
    }

    #[saga(name = "twin", id = key: u64)]
    impl Twin {
        fn opened(_: Opened) -> Along {
            Along { added: Vec::new() }
        }

        fn added(mut it: Along, added: Added) -> Along {
            assert_ne!(added.n, 13, "unlucky");
            it.added.push(added.n);
            it
        }
    }
}

/// S-011: each has its own row, its own journal and its own trouble.
pub(crate) async fn s_011_two_sagas_take_one_event_and_a_panic_of_one_is_not_the_others<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |it| it.saga::<sound::Counter>().saga::<twin::Twin>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    publish(&process, [Added { key: 1, n: 1 }]).await;
    for (saga, state) in [("counter", "Open"), ("twin", "Along")] {
        let instance = service.reaches(saga, "1", state, 2).await;
        assert_eq!(instance.data, json!({ "added": [1] }), "{saga}");
    }
    publish(&process, [Added { key: 1, n: 13 }]).await;
    publish(&process, [Added { key: 1, n: 14 }]).await;
    let counter = service.reaches("counter", "1", "Open", 4).await;
    assert_eq!((counter.data, counter.paused_by), (json!({ "added": [1, 13, 14] }), None));
    let held =
        eventually("two held messages", || async { Some(service.held().await).filter(|it| it.len() == 2) }).await;
    let rows: Vec<_> = held.iter().map(|it| (it.receiver.as_str(), it.reason.as_str())).collect();
    assert_eq!(rows, [("twin", "failed"), ("twin", "paused")]);
    let twin = service.reaches("twin", "1", "Along", 2).await;
    assert_eq!((twin.data, twin.paused_by.as_ref()), (json!({ "added": [1] }), Some(&held[0].message_id)));
    stop([process]).await;
}

/// Keeps the numbers that it was given.
#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<u64>>>);

#[async_trait]
impl<Db: Base> Handle<Added, Db> for Ears {
    async fn handle(&self, added: Added, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        self.0.lock().expect("nobody panics with this lock").push(added.n);
        Ok(())
    }
}

/// S-012: the saga's half of the event waits for its instance, the handler's does not.
pub(crate) async fn s_012_a_saga_and_a_handler_take_one_event_and_neither_waits_for_the_other<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let ears = Ears::default();
    let build = |it: EndpointBuilder<Db>| it.saga::<sound::Counter>().subscribe::<Added>(ears.clone());
    let process = service.start(0, build).await;
    let heard = async |expected: &[u64]| {
        eventually(&format!("the handler to hear {expected:?}"), || async {
            (*ears.0.lock().expect("nobody panics with this lock") == expected).then_some(())
        })
        .await;
    };
    publish(&process, [Added { key: 1, n: 1 }]).await;
    heard(&[1]).await;
    let early = tests::house::one_held(service.db()).await;
    assert_eq!((early.receiver.as_str(), early.reason.as_str()), ("counter", "early"));
    publish(&process, [Opened { key: 1 }]).await;
    service.reaches("counter", "1", "Open", 2).await;
    publish(&process, [Added { key: 1, n: 2 }]).await;
    let counter = service.reaches("counter", "1", "Open", 3).await;
    assert_eq!(counter.data, json!({ "added": [1, 2] }));
    heard(&[1, 2]).await;
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// A lamp that is closed in a way of its own while it is on.
mod lamp {
    use super::*;

    #[states]
    pub(crate) enum Lamp {
        #[waits]
        Off,
        #[waits]
        On,
        #[done]
        Broken,
    }

    #[saga(name = "lamp", id = key: u64)]
    impl Lamp {
        fn opened(_: Opened) -> Off {
            Off
        }

        fn labelled(_: Off, _: Labelled) -> On {
            On
        }

        fn closed(_: On, _: Closed) -> Off {
            Off
        }

        fn broken(self, _: Closed) -> Broken {
            Broken
        }
    }
}

/// S-026, S-027: the enum's transition runs in every state that is not done and has none of its own.
pub(crate) async fn s_026_s_027_the_states_own_transition_goes_before_the_enums<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<lamp::Lamp>()).await;
    publish(&process, [1, 2].map(|key| Opened { key })).await;
    publish(&process, [Closed { key: 1 }]).await;
    service.reaches("lamp", "1", "Broken", 2).await;
    publish(&process, [Labelled { key: 2 }]).await;
    service.reaches("lamp", "2", "On", 2).await;
    publish(&process, [Closed { key: 2 }]).await;
    service.reaches("lamp", "2", "Off", 3).await;
    publish(&process, [Closed { key: 2 }]).await;
    service.reaches("lamp", "2", "Broken", 4).await;
    publish(&process, [1, 2].map(|key| Closed { key })).await;
    for (id, lines) in [("1", 3), ("2", 5)] {
        let last = service.journaled("lamp", id, lines).await.pop().expect("it has lines");
        assert_eq!(last, ("service.Closed".to_owned(), "ignored".to_owned()), "{id} is done");
    }
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// Tells a lab and everybody else.
mod teller {
    use super::*;
    use saga_core::publish;

    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "lab")]
    pub(crate) struct Weigh {
        pub(crate) key: u64,
    }
    #[derive(Command, Serialize, Deserialize)]
    #[command(to = "lab")]
    pub(crate) struct Write {
        pub(crate) key: u64,
        pub(crate) copies: u64,
    }

    #[states]
    pub(crate) enum Teller {
        #[waits]
        Telling,
    }

    #[saga(name = "teller", id = key: u64)]
    impl Teller {
        fn opened(_: Opened) -> Telling {
            Telling
        }

        fn three(it: Telling, closed: Closed) -> (Telling, Sends<Weigh>, Publishes<Rung>, Sends<Write>) {
            let key = closed.key;
            (it, send(Weigh { key }), publish(Rung { key, times: 1 }), send(Write { key, copies: 2 }))
        }

        fn many(it: Telling, added: Added) -> (Telling, Option<Publishes<Rung>>, Vec<Sends<Write>>) {
            let Added { key, n } = added;
            let rung = (n > 0).then(|| publish(Rung { key, times: 1 }));
            (it, rung, (0..n).map(|copies| send(Write { key, copies })).collect())
        }
    }
}

/// S-023, S-024: in the outbox and on their way; what is `None` or empty is nowhere.
pub(crate) async fn s_023_s_024_effects_leave_in_their_order_and_bear_what_caused_them<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let mut lab = link::attach(&service.transports[0], "lab", &["service.Rung"]).await;
    let process = service.start(0, |builder| builder.saga::<teller::Teller>()).await;
    let mut stranger = service.stranger(0, "desk").await;
    let talk =
        |id: &str, envelope: Envelope| tests::with!(envelope, message_id = id.into(), conversation_id = "talk".into());
    let closed = talk("three", message("", &Closed { key: 1 }));
    tell(&mut stranger, [message("open", &Opened { key: 1 }), closed]).await;
    let mut came: Vec<Delivery> = Vec::new();
    while came.len() < 3 {
        came.push(link::delivery(&mut lab).await);
    }
    let names: Vec<_> = came.iter().map(|it| it.envelope.type_name.as_str()).collect();
    assert_eq!(names, ["lab.Weigh", "service.Rung", "lab.Write"]);
    for delivery in came {
        let Envelope { causation_id, conversation_id, saga, .. } = &*delivery.envelope;
        assert_eq!((causation_id.as_deref(), conversation_id.as_str()), (Some("three"), "talk"));
        let of = SagaRef { saga: "teller".into(), id: "1".into(), entered: Some(1), timer: None };
        assert_eq!(saga.as_ref(), Some(&of));
        delivery.ack.ack();
    }
    let types = async |line: usize| {
        let journal = service.journal("teller", "1").await;
        let effects = journal[line].effects.as_array().cloned().expect("a transition has effects");
        effects.into_iter().map(|effect| effect["type"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(1).await, names_of(&["lab.Weigh", "service.Rung", "lab.Write"]));

    tell(&mut stranger, [message("none", &Added { key: 1, n: 0 })]).await;
    service.reaches("teller", "1", "Telling", 3).await;
    assert_eq!(types(2).await, names_of(&[]));
    tell(&mut stranger, [message("many", &Added { key: 1, n: 3 })]).await;
    service.reaches("teller", "1", "Telling", 4).await;
    let mut bodies = Vec::new();
    while bodies.len() < 4 {
        let delivery = link::delivery(&mut lab).await;
        bodies.push(String::from_utf8_lossy(&delivery.envelope.body).into_owned());
        delivery.ack.ack();
    }
    let copies = [0, 1, 2].map(|copies| format!("{{\"key\":1,\"copies\":{copies}}}"));
    assert_eq!((bodies[0].as_str(), &bodies[1..]), (r#"{"key":1,"times":1}"#, &copies[..]));
    service.quiet().await;
    stop([process]).await;
}

fn names_of(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
