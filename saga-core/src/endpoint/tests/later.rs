//! Answers that come later.

use super::*;
use crate::{Either, HandleLater, HandlerOptions, Later};
use async_trait::async_trait;
use std::sync::{Arc, Mutex};

/// Keeps whom the answers go to; answers `Do { n: 0 }` at once.
#[derive(Clone, Default)]
struct Clerk(Arc<Mutex<Vec<Later>>>);

#[async_trait]
impl HandleLater<Do, MemoryStore> for Clerk {
    async fn handle(
        &self,
        command: Do,
        cx: &mut crate::Context<'_, MemoryStore>,
    ) -> Result<Either<Deed, Later>, crate::HandlerError> {
        if command.n == 0 {
            return Ok(Either::A(Did { n: 0 }.into()));
        }
        self.0.lock().unwrap().push(cx.later());
        Ok(Either::B(cx.later()))
    }
}

async fn rig() -> (Rig, Clerk) {
    let clerk = Clerk::default();
    let rig = Rig::start(|builder| builder.__later_handler::<Do>(clerk.clone(), HandlerOptions::default())).await;
    (rig, clerk)
}

fn asked(n: u64) -> Envelope {
    let saga = Some(SagaRef { saga: "order".into(), id: "7".into(), entered: Some(2), timer: None });
    Envelope { reply_to: Some("asker".into()), saga, ..command(n) }
}

#[tokio::test(start_paused = true)]
async fn f11_an_answer_that_comes_later_goes_to_the_very_instance_that_asked_and_once() {
    let (rig, clerk) = rig().await;
    rig.broker.deliver_all([asked(1)]);
    rig.all_acked().await;
    assert_eq!(rig.broker.sent().len(), 0, "nothing is answered at once");
    let stored = serde_json::to_string(&clerk.0.lock().unwrap()[0]).unwrap();
    let later: Later = serde_json::from_str(&stored).unwrap();

    let mut session = rig.endpoint.session().await.unwrap();
    assert!(session.answer::<Do>(&later, Did { n: 1 }).await.unwrap(), "it is the first answer");
    assert!(!session.answer::<Do>(&later, Did { n: 2 }).await.unwrap(), "not the second of one session");
    session.commit().await.unwrap();
    rig.until("the answer is sent", |rig| rig.broker.sent_of("shop.Did").len() == 1).await;
    let sent = rig.broker.sent().remove(0);
    assert_eq!(sent.destination.name(), "asker");
    assert_eq!(sent.envelope.saga, asked(1).saga, "the answer echoes the instance");
    assert_eq!(sent.envelope.causation_id.as_deref(), Some(asked(1).message_id.as_str()));

    let mut session = rig.endpoint.session().await.unwrap();
    assert!(!session.answer::<Do>(&later, Did { n: 3 }).await.unwrap(), "a second answer is told so");
    session.commit().await.unwrap();
    tokio::time::sleep(secs(10)).await;
    assert_eq!(rig.broker.sent_of("shop.Did").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_answers_at_the_same_time_one_is_a_conflict() {
    let (rig, clerk) = rig().await;
    rig.broker.deliver_all([asked(1)]);
    rig.all_acked().await;
    let later = clerk.0.lock().unwrap()[0].clone();
    let (mut first, mut second) = (rig.endpoint.session().await.unwrap(), rig.endpoint.session().await.unwrap());
    assert!(first.answer::<Do>(&later, Did { n: 1 }).await.unwrap());
    assert!(second.answer::<Do>(&later, Did { n: 2 }).await.unwrap());
    first.commit().await.unwrap();
    let error = second.commit().await.expect_err("the other one was faster");
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    rig.until("one answer is sent", |rig| rig.broker.sent_of("shop.Did").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_rolled_back_has_not_answered() {
    let (rig, clerk) = rig().await;
    rig.broker.deliver_all([asked(1), asked(0)]);
    rig.all_acked().await;
    rig.until("what can be answered at once is", |rig| rig.broker.sent_of("shop.Did").len() == 1).await;
    let later = clerk.0.lock().unwrap()[0].clone();
    let mut session = rig.endpoint.session().await.unwrap();
    assert!(session.answer::<Do>(&later, Did { n: 1 }).await.unwrap());
    session.rollback().await.unwrap();
    let mut session = rig.endpoint.session().await.unwrap();
    assert!(session.answer::<Do>(&later, Did { n: 1 }).await.unwrap(), "nobody has answered yet");
    session.commit().await.unwrap();
    rig.until("the answer is sent", |rig| rig.broker.sent_of("shop.Did").len() == 2).await;
}
