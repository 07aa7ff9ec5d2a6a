use super::*;
use crate::{
    Ack, Envelope, InstanceKey,
    endpoint::{
        guard::Guard,
        router::{Content, DecodedOnce, Receiver, To},
    },
};
use std::sync::Arc;

fn item(instance: &str, id: &str) -> Item {
    let key = InstanceKey { saga: "s".into(), id: instance.into() };
    let envelope = Arc::new(Envelope::new(id, "t", "{}"));
    Item::new(
        Guard::new(Ack::new(|_| ()), 1),
        envelope,
        Receiver::Saga(0),
        To::Instance(key),
        Content::Message(DecodedOnce::new(None)),
    )
}

fn ids(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.envelope.message_id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_comes_for_a_locked_instance_waits_behind_it_and_others_go_on() {
    let mut parked = Parked::default();
    let batch = parked.next_batch(&mut vec![item("a", "1"), item("b", "2")]);
    assert_eq!(ids(&batch), ["1", "2"]);
    parked.locked(item("a", "1"));
    let batch = parked.next_batch(&mut vec![item("a", "3"), item("b", "4")]);
    let batch = parked.keep_back(batch);
    assert_eq!(ids(&batch), ["4"], "message 3 would overtake message 1");
    parked.due().await;
    let batch = parked.next_batch(&mut vec![item("a", "5")]);
    assert_eq!(ids(&parked.keep_back(batch)), ["1", "3", "5"]);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_instance_is_due_at_once() {
    let mut parked = Parked::default();
    parked.unfinished(item("a", "1"));
    let began = Instant::now();
    parked.due().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ids(&parked.next_batch(&mut vec![item("a", "2")])), ["1", "2"]);
}
