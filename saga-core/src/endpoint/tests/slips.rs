//! Routing slips: steps that travel with the message, forth and back.

use super::*;
use crate::{
    Activity, Command, Context, Event, HandlerError, Irreversible, Outcome, Outgoing, Reply, Slip, SlipEnd, Stamp,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = RoomOutcome)]
struct ReserveRoom {
    trip: u64,
}
#[derive(Outcome)]
enum RoomOutcome {
    Reserved(RoomReserved),
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct RoomReserved {
    room: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = CancelOutcome)]
struct CancelRoom {
    room: u64,
}
#[derive(Outcome)]
enum CancelOutcome {
    Cancelled(RoomCancelled),
    Kept(RoomKept),
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct RoomCancelled {}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct RoomKept {}

impl Activity for ReserveRoom {
    type Undo = CancelRoom;
    fn stamp(outcome: &RoomOutcome) -> Stamp<CancelRoom> {
        let RoomOutcome::Reserved(it) = outcome;
        Stamp::Done(CancelRoom { room: it.room })
    }
    fn undone(outcome: &CancelOutcome) -> Result<(), String> {
        match outcome {
            CancelOutcome::Cancelled(_) => Ok(()),
            CancelOutcome::Kept(_) => Err("the hotel keeps the money".into()),
        }
    }
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop")]
struct SendMail {
    trip: u64,
}
impl Activity for SendMail {
    type Undo = Irreversible;
    fn stamp(_: &()) -> Stamp<Irreversible> {
        Stamp::Final
    }
    fn undone(_: &()) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = TicketOutcome)]
struct IssueTicket {
    seats: u64,
}
#[derive(Outcome)]
enum TicketOutcome {
    Issued(TicketIssued),
    SoldOut(SoldOut),
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct TicketIssued {}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "shop")]
struct SoldOut {}
impl Activity for IssueTicket {
    type Undo = Irreversible;
    fn stamp(outcome: &TicketOutcome) -> Stamp<Irreversible> {
        match outcome {
            TicketOutcome::Issued(_) => Stamp::Final,
            TicketOutcome::SoldOut(_) => Stamp::Failed("sold out".into()),
        }
    }
    fn undone(_: &()) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct TripBooked {
    trip: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct TripFailed {
    trip: u64,
}

/// Rooms above 100 cannot be given back.
struct Travel;

#[crate::handlers]
impl Travel {
    async fn reserve(&self, it: ReserveRoom, cx: &mut Context<'_, MemoryStore>) -> Result<RoomOutcome, HandlerError> {
        cx.tx().await?.insert("done", it.trip)?;
        cx.variables().insert("room".into(), it.trip.into());
        Ok(RoomReserved { room: it.trip }.into())
    }
    async fn cancel(&self, it: CancelRoom, cx: &mut Context<'_, MemoryStore>) -> Result<CancelOutcome, HandlerError> {
        if it.room > 100 {
            return Ok(RoomKept {}.into());
        }
        cx.tx().await?.insert("undone", it.room)?;
        Ok(RoomCancelled {}.into())
    }
    async fn mail(&self, it: SendMail, cx: &mut Context<'_, MemoryStore>) -> Result<(), HandlerError> {
        Ok(cx.tx().await?.insert("mails", it.trip)?)
    }
    async fn issue(&self, it: IssueTicket, cx: &mut Context<'_, MemoryStore>) -> Result<TicketOutcome, HandlerError> {
        let room = cx.variables().get("room").and_then(serde_json::Value::as_u64);
        assert_eq!(room, Some(7), "an earlier step has set it");
        cx.variables().insert("ticket".into(), "T-1".into());
        Ok(if it.seats > 0 { TicketIssued {}.into() } else { SoldOut {}.into() })
    }
}

/// Two rooms, a mail, and a ticket.
fn slip(second: u64, seats: u64) -> Slip<ReserveRoom> {
    let room = |trip| ReserveRoom { trip };
    let rooms = Slip::begin(room(second)).then(room(7)).then(SendMail { trip: 7 });
    let ticket = rooms.then(IssueTicket { seats }).with("customer", "Ann");
    ticket.completed(TripBooked { trip: 7 }).failed(TripFailed { trip: 7 })
}

async fn rig() -> Rig {
    Rig::start(|builder| {
        let builder = builder.retries(Retries::none()).activity::<ReserveRoom>(Travel);
        builder.irreversible_activity::<SendMail>(Travel).irreversible_activity::<IssueTicket>(Travel)
    })
    .await
}

/// Plays the broker, which delivers each command of the slip twice, until an event of this type is published.
async fn travel(rig: &Rig, slip: Slip<ReserveRoom>, until: &str) -> Outgoing {
    let mut session = rig.endpoint.session().await.unwrap();
    session.send(slip);
    session.commit().await.unwrap();
    carry(rig, 0, until).await
}

async fn carry(rig: &Rig, mut delivered: usize, until: &str) -> Outgoing {
    loop {
        if let Some(event) = rig.broker.sent_of(until).first() {
            return event.clone();
        }
        rig.until("the slip travels", |rig| rig.broker.sent().len() > delivered).await;
        for Outgoing { envelope, destination, .. } in rig.broker.sent().drain(delivered..) {
            delivered += 1;
            if destination == crate::Destination::Endpoint(NAME.into()) {
                let envelope = Arc::unwrap_or_clone(envelope);
                rig.broker.deliver_all([envelope.clone(), envelope]);
            }
        }
        rig.all_acked().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slip_goes_from_step_to_step_and_each_is_done_once() {
    let rig = rig().await;
    let event = travel(&rig, slip(6, 1), TripBooked::TYPE).await;
    assert_eq!((rig.done(), rig.store.rows("mails").len()), (vec![6, 7], 1));
    let end = SlipEnd::of(&event.envelope);
    assert_eq!(end.failure, None);
    let variables = serde_json::json!({ "customer": "Ann", "room": 7, "ticket": "T-1" });
    assert_eq!(serde_json::Value::Object(end.variables), variables);
    assert_eq!(&event.envelope.body[..], br#"{"trip":7}"#);
    assert_eq!(rig.broker.sent_of("shop.RoomReserved").len(), 2, "an outcome that is an event is published");
    assert_eq!((rig.broker.sent_of(TripFailed::TYPE).len(), rig.held().len()), (0, 0));
    let types: Vec<String> = rig.broker.sent().into_iter().map(|it| it.envelope.type_name.clone()).collect();
    assert!(types.contains(&"slip.shop.IssueTicket".into()), "{types:?}");
    let row = rig.store.inbox().into_iter().find(|row| row.receiver == "slip.shop.IssueTicket");
    let effects = row.and_then(|row| row.effects).expect("the journal knows what the step caused");
    assert_eq!(effects[0].type_name, TripBooked::TYPE);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_slip_travels_back_the_last_step_first() {
    let rig = rig().await;
    let event = travel(&rig, slip(6, 0), TripFailed::TYPE).await;
    let undone: Vec<_> = rig.store.rows("undone");
    assert_eq!(undone, [7, 6], "and the mail cannot be undone");
    let failure = SlipEnd::of(&event.envelope).failure.expect("it says why");
    assert_eq!((failure.at.as_str(), failure.reason.as_str()), ("shop.IssueTicket", "sold out"));
    assert_eq!((rig.broker.sent_of(TripBooked::TYPE).len(), rig.held().len()), (0, 0));
    let conversations: std::collections::HashSet<String> =
        rig.broker.sent().iter().map(|it| it.envelope.conversation_id.clone()).collect();
    assert_eq!(conversations.len(), 1, "one conversation");
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_leaves_the_slip_held_with_all_it_carries() {
    let rig = rig().await;
    let mut session = rig.endpoint.session().await.unwrap();
    session.send(slip(101, 0));
    session.commit().await.unwrap();
    let carried = tokio::time::timeout(secs(600), carry(&rig, 0, TripFailed::TYPE));
    let held = rig.until_within(secs(300), "it is held", |rig| rig.held().len() == 1);
    tokio::select! { _ = carried => panic!("it is not undone"), () = held => {} }
    let held = rig.the_held();
    assert_eq!(held.reason, HeldReason::Failed);
    assert!(held.error.as_ref().is_some_and(|it| it.contains("the hotel keeps the money")), "{:?}", held.error);
    assert_eq!(held.envelope.type_name, "slip.undo.shop.ReserveRoom");
    let body = String::from_utf8_lossy(&held.envelope.body).into_owned();
    assert!(body.contains("sold out") && body.contains(r#""room":101"#), "{body}");
    assert_eq!(rig.store.rows("undone"), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_cannot_be_encoded_is_refused_when_the_slip_is_sent() {
    let rig = rig().await;
    let mut session = rig.endpoint.session().await.unwrap();
    session.send(Slip::begin(SendMail { trip: 8 }).then(Weight { kilos: f64::NAN }));
    let refused = session.commit().await.expect_err("NaN is no JSON").to_string();
    assert!(refused.contains("shop.Weight") && refused.contains("NaN"), "{refused}");
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop")]
struct Weight {
    kilos: f64,
}
impl Activity for Weight {
    type Undo = Irreversible;
    fn stamp(_: &()) -> Stamp<Irreversible> {
        Stamp::Final
    }
    fn undone(_: &()) -> Result<(), String> {
        Ok(())
    }
}
