use super::*;
use bytes::Bytes;

fn encoded(kind: MessageKind) -> Encoded {
    Encoded { type_name: "bank.Paid", kind, body: Bytes::from_static(b"{}"), masked: &[] }
}

fn asker() -> Option<(String, Option<SagaRef>)> {
    Some(("shop".into(), Some(SagaRef { saga: "order".into(), id: "7".into(), entered: Some(2), timer: None })))
}

fn answered(kind: MessageKind, asker: Option<(String, Option<SagaRef>)>) -> Emission {
    let message = encoded(kind);
    let id = Uuid::from_u128(1);
    answer(id, &message, envelope("bank", id, &message, None, 0), asker)
}

#[test]
fn a_reply_goes_to_the_asking_instance_alone() {
    let Emission { rows, effect } = answered(MessageKind::Reply, asker());
    let [reply] = &rows[..] else { panic!("one row was expected: {rows:?}") };
    assert_eq!(reply.destination, Destination::ReplyTo("shop".into()));
    let saga = reply.envelope.saga.as_ref().expect("it names the asking instance");
    assert_eq!((saga.id.as_str(), saga.entered), ("7", Some(2)));
    assert_eq!(reply.envelope.receiver.as_deref(), Some("order"));
    assert_eq!(effect.to.as_deref(), Some("shop"));
}

#[test]
fn an_event_that_answers_is_published_too_under_one_id() {
    let Emission { rows, .. } = answered(MessageKind::Event, asker());
    let [reply, event] = &rows[..] else { panic!("two rows were expected: {rows:?}") };
    assert_eq!(event.destination, Destination::Event("bank.Paid".into()));
    assert_eq!(reply.envelope.message_id, event.envelope.message_id);
    assert_ne!(reply.id, event.id);
    assert_eq!((&event.envelope.saga, &event.envelope.receiver), (&None, &None), "it is everybody's");
}

#[test]
fn an_answer_that_nobody_asked_for_is_published_or_journaled() {
    let Emission { rows, effect } = answered(MessageKind::Reply, None);
    assert!(rows.is_empty(), "{rows:?}");
    assert_eq!((effect.id, effect.note), (None, Some("nobody asked")));
    let Emission { rows, .. } = answered(MessageKind::Event, None);
    assert_eq!(rows[0].destination, Destination::Event("bank.Paid".into()));
}
