//! Messages that come before anybody takes them, or after everybody did.

use super::{sagas::*, *};
use saga_core::{Moment, saga, states};
use serde_json::json;
use std::time::SystemTime;

/// A walk through two states. Writes down what transitions are told of their surroundings.
mod walk {
    use super::*;

    #[states]
    pub(crate) enum Walk {
        #[waits]
        Here { seen: Vec<String> },
        #[waits]
        There { seen: Vec<String> },
        #[done]
        Over { seen: Vec<String> },
    }

    #[saga(name = "walk", id = key: u64)]
    impl Walk {
        fn opened(_: Opened, at: &Moment) -> Here {
            Here { seen: vec![notes(at)] }
        }

        /// Here alone.
        fn labelled(it: Here, _: Labelled, at: &Moment) -> Here {
            Here { seen: and(it.seen, at) }
        }

        fn left(it: Here, _: Left, at: &Moment) -> There {
            There { seen: and(it.seen, at) }
        }

        /// There alone.
        fn added(it: There, _: Added, at: &Moment) -> There {
            There { seen: and(it.seen, at) }
        }

        fn ended(it: There, _: Ended, at: &Moment) -> Over {
            Over { seen: and(it.seen, at) }
        }
    }

    fn and(mut seen: Vec<String>, at: &Moment) -> Vec<String> {
        seen.push(notes(at));
        seen
    }

    fn notes(at: &Moment) -> String {
        let us = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let sent = at.sent_at().map(us).unwrap_or_default();
        let tenant = at.header("tenant").and_then(|tenant| tenant.as_str()).unwrap_or("-");
        let (id, saga_id, seq, now) = (at.message_id(), at.saga_id(), at.seq(), us(at.now()));
        format!("{id} sent {sent} of {saga_id} after {seq} for {tenant} at {now}")
    }
}

/// What an instance has seen: notes, and when.
fn seen(instance: &InstanceView) -> Vec<(String, u64)> {
    let lines: Vec<String> = serde_json::from_value(instance.data["seen"].clone()).expect("it is a list");
    let split = |line: &String| {
        let (notes, at) = line.rsplit_once(" at ").expect("it says when");
        (notes.to_owned(), at.parse().expect("it is a time"))
    };
    lines.iter().map(split).collect()
}

/// A message with a header, sent at a time of its own.
fn from(tenant: &str, sent_at_us: i64, mut envelope: Envelope) -> Envelope {
    envelope.headers.insert("tenant".into(), tenant.into());
    envelope.sent_at_us = Some(sent_at_us);
    envelope
}

/// S-030, S-036, S-037: what was early keeps its own headers and times; all of them are one commit, at one time.
pub(crate) async fn s_030_s_036_s_037_a_chain_of_early_messages_is_one_commit_of_messages_as_they_came<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    const SECOND: i64 = 1_000_000;
    const SENT: i64 = 1_795_000_000 * SECOND;
    let process = service.start(0, |builder| builder.saga::<walk::Walk>()).await;
    let mut stranger = service.stranger(0, "guide").await;
    publish(&process, [Opened { key: 1 }]).await;
    service.reaches("walk", "1", "Here", 1).await;
    for (n, tenant) in [(1, "a"), (2, "b"), (3, "c")] {
        let early = message(&format!("early-{n}"), &Added { key: 1, n });
        tell(&mut stranger, [from(tenant, SENT + n as i64 * SECOND, early)]).await;
        eventually("it to be held", || async { (service.held().await.len() == n as usize).then_some(()) }).await;
    }
    assert!(service.held().await.iter().all(|held| (held.reason.as_str(), held.attempts) == ("early", 0)));
    let watch = async {
        let seq = "SELECT CAST(seq AS text) FROM {s}saga WHERE id = '1'";
        loop {
            match service.db().text(seq).await.as_str() {
                "1" => tokio::task::yield_now().await,
                all => break assert_eq!(all, "5", "nobody sees a part of the chain"),
            }
        }
    };
    let go = tell(&mut stranger, [from("d", SENT, message("go", &Left { key: 1 }))]);
    // the look begins before the message is on its way
    let both = async { tokio::join!(watch, go) };
    tokio::time::timeout(tests::PATIENCE, both).await.expect("it goes on");
    let instance = service.reaches("walk", "1", "There", 5).await;
    let seen = seen(&instance);
    let expected = [("go", 0, 1, "d"), ("early-1", 1, 2, "a"), ("early-2", 2, 3, "b"), ("early-3", 3, 4, "c")];
    for ((notes, at), (id, n, seq, tenant)) in seen[1..].iter().zip(expected) {
        assert_eq!(*notes, format!("{id} sent {} of 1 after {seq} for {tenant}", SENT + n * SECOND));
        assert_eq!(*at, seen[1].1, "one time for one commit: {seen:?}");
    }
    assert!(seen[1].1 > seen[0].1, "{seen:?}");
    assert_eq!((seen.len(), service.held().await.len()), (5, 0));
    stop([process]).await;
}

/// S-039: what no state ahead takes waits for nobody.
pub(crate) async fn s_039_a_message_that_no_state_ahead_takes_is_late<Db: Base, T: Transport + Clone>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<walk::Walk>()).await;
    publish(&process, [Opened { key: 1 }]).await;
    publish(&process, [Labelled { key: 1 }]).await;
    publish(&process, [Left { key: 1 }]).await;
    let before = service.reaches("walk", "1", "There", 3).await;
    publish(&process, [Labelled { key: 1 }]).await;
    service.journaled("walk", "1", 4).await;
    let late = service.journal("walk", "1").await.pop().expect("it has lines");
    assert_eq!((late.result.as_str(), late.from_state.as_deref(), late.to_state), ("ignored", Some("There"), None));
    let after = service.reaches("walk", "1", "There", 3).await;
    assert_eq!((after.data, after.updated_at_us), (before.data, before.updated_at_us));
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}

/// S-046: the broker may bring a message as often as it likes.
pub(crate) async fn s_046_an_early_message_that_comes_again_is_held_once_and_handled_once<
    Db: Base,
    T: Transport + Clone,
>(
    service: Service<Db, T>,
) {
    let process = service.start(0, |builder| builder.saga::<sound::Counter>()).await;
    let mut stranger = service.stranger(0, "shop").await;
    let early = || message("early", &Added { key: 1, n: 5 });
    tell(&mut stranger, [early()]).await;
    let held = tests::house::one_held(service.db()).await;
    assert_eq!((held.reason.as_str(), held.attempts, held.saga_id.as_deref()), ("early", 0, Some("1")));
    // it comes again before the start, with it, and afterwards
    tell(&mut stranger, [early(), message("other", &Opened { key: 2 })]).await;
    service.reaches("counter", "2", "Open", 1).await;
    assert_eq!(service.held().await.len(), 1, "one row for one message");
    tell(&mut stranger, [early(), message("start", &Opened { key: 1 }), early()]).await;
    service.reaches("counter", "1", "Open", 2).await;
    tell(&mut stranger, [early(), message("last", &Added { key: 1, n: 6 })]).await;
    let instance = service.reaches("counter", "1", "Open", 3).await;
    assert_eq!(instance.data, json!({ "added": [5, 6] }), "it counts once");
    let expected = ["Opened", "Added", "Added"].map(|name| (format!("service.{name}"), "handled".to_owned()));
    assert_eq!(service.journaled("counter", "1", 3).await, expected);
    assert_eq!(service.held().await.len(), 0);
    stop([process]).await;
}
