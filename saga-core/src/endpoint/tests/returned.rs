//! `#[starts(return)]`: a repeated start is answered with what the instance has replied.

use super::*;
use crate::{Command, Outcome, Publishes, Replies, SagaRef, publish, reply, saga, states};
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = Boarding)]
struct CheckIn {
    id: u64,
}

#[derive(Outcome)]
enum Boarding {
    Pass(Pass),
}

#[derive(Debug, PartialEq, crate::Event, Serialize, Deserialize)]
struct Pass {
    id: u64,
    seat: String,
}

#[derive(crate::Event, Serialize, Deserialize)]
struct SeatFound {
    id: u64,
    seat: String,
}

#[derive(crate::Event, Serialize, Deserialize)]
struct PlaneFilled {
    id: u64,
}

#[states]
enum Passenger {
    #[waits]
    AwaitingSeat,
    #[done]
    Seated,
}

#[saga(name = "passenger", id = id: u64)]
impl Passenger {
    #[starts(return)]
    fn check_in(_: CheckIn) -> AwaitingSeat {
        AwaitingSeat
    }
    /// The reply is not the last thing that it says.
    fn found(_: AwaitingSeat, it: SeatFound) -> (Seated, Replies<Pass>, Publishes<PlaneFilled>) {
        (Seated, reply(Pass { id: it.id, seat: it.seat }), publish(PlaneFilled { id: it.id }))
    }
}

/// A check-in of passenger 7 that this one asks for.
fn asked(message_id: &str, asker: Option<&str>) -> Envelope {
    let saga = Some(SagaRef { saga: "trip".into(), id: message_id.into(), entered: Some(1), timer: None });
    Envelope { reply_to: asker.map(Into::into), saga, ..message(message_id, &CheckIn { id: 7 }) }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_gets_the_reply_again_and_for_itself() {
    let rig = Rig::start(|builder| builder.saga::<Passenger>()).await;
    rig.broker.deliver_all([asked("first", Some("one")), asked("early", Some("two"))]);
    rig.all_acked().await;
    assert_eq!(rig.result("early"), InboxResult::Ignored, "there is nothing to return yet");
    rig.broker.deliver(message("found", &SeatFound { id: 7, seat: "12A".into() }));
    rig.until("the first is answered", |rig| rig.broker.sent().len() == 3).await; // it is published as well

    rig.broker.deliver_all([asked("again", Some("three")), asked("silent", None)]);
    rig.until("the repeated one is answered", |rig| rig.broker.sent().len() == 4).await;
    rig.all_acked().await;
    let answers: Vec<_> = rig.broker.sent().into_iter().filter(|it| it.envelope.causation_id.is_some()).collect();
    let (first, again) = (&answers[0], &answers[answers.len() - 1]);
    assert_eq!((first.destination.name(), again.destination.name()), ("one", "three"), "each to its own asker");
    assert_eq!(again.envelope.causation_id.as_deref(), Some("again"));
    assert_eq!(again.envelope.saga, asked("again", None).saga, "it echoes the instance that asked");
    assert_eq!(first.envelope.body, again.envelope.body);
    assert_ne!(first.envelope.message_id, again.envelope.message_id);
    let row = rig.inbox("again");
    assert_eq!((row.result, row.from_state.as_deref(), row.seq), (InboxResult::Handled, Some("Seated"), None));
    assert!(row.note.as_deref().is_some_and(|note| note.starts_with("answered again")), "{:?}", row.note);
    let effects = rig.inbox("silent").effects.expect("the journal says that nobody asked");
    assert_eq!((effects[0].type_name.as_ref(), effects[0].note), ("Pass", Some("nobody asked")));
    // the same message once more is a duplicate, as any
    rig.broker.redeliver(asked("again", Some("three")), 1);
    rig.all_acked().await;
    tokio::time::sleep(secs(10)).await;
    assert_eq!(rig.broker.sent().len(), 4);
}
