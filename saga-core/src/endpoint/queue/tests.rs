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

fn suspect(instance: &str, id: &str) -> Item {
    let mut item = item(instance, id);
    item.suspect = true;
    item
}

fn ids(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.envelope.message_id.as_str()).collect()
}

struct Lane {
    queue: Queue,
    /// The keys of the batches that run.
    running: VecDeque<(Vec<Item>, Vec<i64>)>,
}

impl Lane {
    fn new(batch_max: usize) -> Self {
        Self { queue: Queue::new(batch_max), running: VecDeque::new() }
    }

    fn push(&mut self, items: impl IntoIterator<Item = Item>) {
        self.queue.push(&mut items.into_iter().collect());
    }

    /// What begins now.
    fn next(&mut self) -> Vec<String> {
        let Some(batch) = self.queue.next() else { return Vec::new() };
        let ids = ids(&batch.items).into_iter().map(String::from).collect();
        self.running.push_back(batch.part());
        ids
    }

    /// The batch that began first ends.
    fn end(&mut self, leave: impl FnOnce(&mut Left, Vec<Item>)) {
        let (items, keys) = self.running.pop_front().expect("a batch runs");
        let mut left = Left::default();
        leave(&mut left, items);
        self.queue.ended(&keys, left);
    }
}

fn lock(left: &mut Left, items: Vec<Item>) {
    items.into_iter().filter(|item| item.key.as_ref().is_some_and(|key| key.id == "a")).for_each(|it| left.locked(it));
}

#[tokio::test(start_paused = true)]
async fn what_comes_for_a_locked_instance_waits_behind_it_and_others_go_on() {
    let mut lane = Lane::new(100);
    lane.push([item("a", "1"), item("b", "2")]);
    assert_eq!(lane.next(), ["1", "2"]);
    lane.push([item("a", "3"), item("b", "4")]);
    lane.end(lock);
    assert_eq!(lane.next(), ["4"], "message 3 would overtake message 1");
    lane.end(|_, _| ());
    assert!(lane.next().is_empty());
    lane.queue.due().await;
    lane.push([item("a", "5")]);
    assert_eq!(lane.next(), ["1", "3", "5"]);
}

#[tokio::test(start_paused = true)]
async fn each_instance_has_its_own_pause() {
    let mut lane = Lane::new(100);
    lane.push([item("a", "1")]);
    for n in 0..12 {
        if n > 0 {
            lane.queue.due().await;
        }
        assert_eq!(lane.next(), ["1"]);
        lane.end(lock);
    }
    let began = Instant::now();
    lane.push([item("b", "2")]);
    assert_eq!(lane.next(), ["2"]);
    lane.end(|left, items| items.into_iter().for_each(|item| left.locked(item)));
    lane.queue.due().await;
    assert!(began.elapsed() <= LOCKED_PAUSE_MIN, "`b` was locked once: {:?}", began.elapsed());
    assert_eq!(lane.next(), ["2"]);
    lane.end(|_, _| ());
    lane.queue.due().await;
    assert!(began.elapsed() > LOCKED_PAUSE_MAX / 2, "`a` was locked a dozen times: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_instance_goes_on_at_once_behind_others() {
    let mut lane = Lane::new(100);
    lane.push([item("a", "1")]);
    assert_eq!(lane.next(), ["1"]);
    lane.push([item("b", "2"), item("a", "3")]);
    lane.end(|left, items| items.into_iter().for_each(|item| left.unfinished(item)));
    assert_eq!(lane.next(), ["2", "1", "3"]);
}

#[tokio::test]
async fn a_second_unit_runs_beside_the_first_when_it_is_large_enough() {
    let mut lane = Lane::new(8);
    lane.push([item("a", "1")]);
    assert_eq!(lane.next(), ["1"]);
    lane.push([item("a", "2"), item("b", "3"), item("c", "4"), item("d", "5")]);
    assert!(lane.next().is_empty(), "three messages of other instances are not worth a unit");
    lane.push([item("e", "6")]);
    assert_eq!(lane.next(), ["3", "4", "5", "6"], "message 2 waits for message 1");
    lane.push((7..20).map(|n| item(&n.to_string(), &n.to_string())));
    assert!(lane.next().is_empty(), "two run");
    lane.end(|_, _| ());
    assert_eq!(lane.next(), ["2", "7", "8", "9", "10", "11", "12", "13"], "no more than a batch");
}

#[tokio::test]
async fn a_suspect_runs_alone_and_nothing_overtakes_it() {
    let mut lane = Lane::new(4);
    lane.push([item("a", "1"), suspect("b", "2"), item("c", "3"), item("d", "4")]);
    assert_eq!(lane.next(), ["1"]);
    assert!(lane.next().is_empty(), "message 1 runs");
    lane.end(|_, _| ());
    assert_eq!(lane.next(), ["2"]);
    assert!(lane.next().is_empty(), "the suspect runs alone");
    lane.end(|_, _| ());
    assert_eq!(lane.next(), ["3", "4"]);
}

#[tokio::test]
async fn an_item_behind_one_that_its_batch_has_left_does_not_run() {
    let mut left = Left::default();
    left.locked(item("a", "1"));
    let free = left.keep_back(vec![item("b", "2"), item("a", "3")]);
    assert_eq!((ids(&free), ids(&left.items)), (vec!["2"], vec!["1", "3"]));
}

/// Its lock would be due for ever, and the lane would look at nothing else.
#[tokio::test(start_paused = true)]
async fn what_the_broker_takes_back_leaves_no_lock_behind() {
    let mut lane = Lane::new(100);
    let channel = Arc::new(());
    let key = InstanceKey { saga: "s".into(), id: "a".into() };
    let guard = Guard::new(Ack::of_channel(&channel, |_| ()), 1);
    let envelope = Arc::new(Envelope::new("1", "t", "{}"));
    let content = Content::Message(DecodedOnce::new(None));
    lane.push([Item::new(guard, envelope, Receiver::Saga(0), To::Instance(key), content)]);
    assert_eq!(lane.next(), ["1"]);
    lane.end(lock);
    drop(channel);
    tokio::time::advance(LOCKED_PAUSE_MAX).await;
    assert!(lane.next().is_empty());
    let never = tokio::time::timeout(LOCKED_PAUSE_MAX * 9, lane.queue.due()).await;
    assert!(never.is_err(), "nothing waits for that lock: {:?}", lane.queue.busy);
}
