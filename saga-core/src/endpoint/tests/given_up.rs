//! Commands whose sender is told when they are given up.

use super::*;
use crate::{Command, Context, GiveUp, Handle, HandlerError, Outcome, Reply, SagaRef};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = Drawn, gives_up = NotDrawn)]
struct Draw {
    n: u64,
}

#[derive(Reply, Serialize, Deserialize)]
struct Drew {
    n: u64,
}

#[derive(Outcome)]
enum Drawn {
    Drew(Drew),
}

#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
struct NotDrawn {
    n: u64,
    why: String,
}

impl GiveUp<Draw> for NotDrawn {
    fn give_up(command: Draw, failure: &str) -> Self {
        assert!(command.n != 13, "an unlucky number");
        Self { n: command.n, why: failure.into() }
    }
}

/// Fails: for good when the number is even. It has written a row by then.
struct Pen;

#[async_trait]
impl Handle<Draw, MemoryStore> for Pen {
    async fn handle(&self, draw: Draw, cx: &mut Context<'_, MemoryStore>) -> Result<Drawn, HandlerError> {
        cx.tx().await?.insert("done", draw.n)?;
        let fails = if draw.n.is_multiple_of(2) { HandlerError::permanent } else { HandlerError::transient };
        Err(fails("no ink"))
    }
}

async fn rig(retries: Retries) -> Rig {
    Rig::start(|builder| builder.retries(retries).handle::<Draw>(Pen)).await
}

fn asked(n: u64) -> Envelope {
    let saga = Some(SagaRef { saga: "order".into(), id: "7".into(), entered: Some(2), timer: None });
    Envelope { reply_to: Some("asker".into()), saga, ..message(format!("draw-{n}"), &Draw { n }) }
}

#[tokio::test(start_paused = true)]
async fn the_asking_saga_gets_an_answer_instead_of_a_held_command() {
    let rig = rig(Retries::none().delayed([secs(60)])).await;
    rig.broker.deliver_all([asked(1), asked(2)]);
    rig.until("what fails for good is given up at once", |rig| rig.broker.sent_of("NotDrawn").len() == 1).await;
    rig.until_within(secs(120), "the other when its retries end", |rig| rig.broker.sent_of("NotDrawn").len() == 2)
        .await;
    for (sent, n) in rig.broker.sent_of("NotDrawn").iter().zip([2, 1]) {
        assert_eq!((sent.destination.name(), &sent.envelope.saga), ("asker", &asked(n).saga));
        assert_eq!(sent.envelope.causation_id, Some(format!("draw-{n}")));
        let answer: NotDrawn = serde_json::from_slice(&sent.envelope.body).unwrap();
        assert_eq!(answer, NotDrawn { n, why: "no ink".into() });
        let row = rig.inbox(&format!("draw-{n}"));
        assert_eq!((row.result, row.note.as_deref()), (InboxResult::Discarded, Some("no ink")));
        let effects = row.effects.expect("the journal names the answer");
        assert_eq!((effects[0].type_name.as_ref(), effects[0].to.as_deref()), ("NotDrawn", Some("asker")));
    }
    assert_eq!((rig.held(), rig.done()), (vec![], vec![]), "nothing is held, and failed runs leave nothing");
    // it comes again: the inbox knows it
    rig.broker.redeliver(asked(2), 1);
    rig.all_acked().await;
    assert_eq!(rig.broker.sent_of("NotDrawn").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn where_no_saga_waits_for_an_answer_it_is_held() {
    let rig = rig(Retries::none()).await;
    let request = Envelope { reply_to: Some("web-1-a#requests".into()), ..message("request", &Draw { n: 1 }) };
    let silent = Envelope { reply_to: None, message_id: "silent".into(), ..asked(1) };
    rig.broker.deliver_all([message("alone", &Draw { n: 1 }), request, silent]);
    rig.all_acked().await;
    let mut held = rig.held();
    held.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let failed = |id: &str| (id.to_owned(), HeldReason::Failed);
    assert_eq!(held, [failed("alone"), failed("request"), failed("silent")]);
    assert_eq!(rig.broker.sent_of("NotDrawn").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_answer_cannot_be_made_it_is_held() {
    let rig = rig(Retries::none()).await;
    rig.broker.deliver_all([asked(13)]);
    rig.all_acked().await;
    assert_eq!(rig.held(), [("draw-13".into(), HeldReason::Failed)]);
    assert_eq!(rig.the_held().error.as_deref(), Some("no ink"), "the handler's failure is the reason");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_discards_tells_the_sender_as_well() {
    let rig = rig(Retries::by(|_| crate::Decision::Discard)).await;
    rig.broker.deliver_all([asked(1), message("alone", &Draw { n: 3 })]);
    rig.all_acked().await;
    rig.until("the answer is sent", |rig| rig.broker.sent_of("NotDrawn").len() == 1).await;
    assert_eq!((rig.held(), rig.result("alone")), (vec![], InboxResult::Discarded));
}
