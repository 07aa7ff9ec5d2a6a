//! What an endpoint sends: windows, leases, destinations that are closed.

use super::*;
use crate::{Destination, Fate, LinkState, Outgoing};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::Instant;

async fn asker() -> (Rig, Script) {
    let script = Script::new();
    (Rig::scripted(&script).await, script)
}

/// A command whose answer goes to `to`.
fn from(to: &str, n: u64) -> Envelope {
    Envelope { reply_to: Some(to.into()), ..command(n) }
}

/// A destination that is closed until the test opens it; when it was tried.
fn closed(rig: &Rig, name: &'static str) -> (Arc<AtomicBool>, Arc<Mutex<Vec<Instant>>>) {
    let (open, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (is_open, tries) = (open.clone(), tried.clone());
    rig.broker.fates(move |message: &Outgoing| {
        if message.destination.name() != name || is_open.load(Ordering::Relaxed) {
            return Some(Fate::Confirmed);
        }
        tries.lock().unwrap().push(Instant::now());
        Some(Fate::Unroutable("no queue".into()))
    });
    (open, tried)
}

#[tokio::test(start_paused = true)]
async fn o_036_what_no_queue_takes_waits_behind_one_probe_and_leaves_when_it_is_back() {
    let (rig, _script) = asker().await;
    let (open, tried) = closed(&rig, "later");
    rig.broker.deliver_all((1..=50).map(|n| from("later", n)));
    rig.all_acked().await;
    tokio::time::sleep(secs(60)).await;
    let before = tried.lock().unwrap().len();
    tokio::time::sleep(secs(3600)).await;
    rig.broker.deliver_all((51..=100).map(|n| from("later", n)));
    rig.broker.deliver_all((101..=110).map(|n| from("there", n)));
    rig.all_acked().await;
    rig.until("what goes elsewhere goes", |rig| rig.store.outbox().len() == 100).await;
    let probes = tried.lock().unwrap().len() - before;
    assert!((11..30).contains(&probes), "one every five minutes or so: {probes} probes in an hour");
    let rows = rig.store.outbox();
    assert!(rows.iter().all(|row| row.waits_for.as_deref() == Some("later")));
    assert!(rows.iter().filter(|row| row.attempts > 1).count() < 40, "waiting is not a try");
    open.store(true, Ordering::Relaxed);
    rig.until_within(secs(310), "all leave", |rig| rig.store.outbox().is_empty()).await;
    let mut answered: Vec<_> = rig.broker.sent_of("shop.Did").iter().map(|sent| sent.envelope.body.clone()).collect();
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered.len(), 110);
}

#[tokio::test(start_paused = true)]
async fn all_that_waits_leaves_within_seconds_of_the_first_that_arrives() {
    let (rig, _script) = asker().await;
    let (open, _) = closed(&rig, "later");
    rig.broker.deliver_all((1..=300).map(|n| from("later", n)));
    rig.all_acked().await;
    tokio::time::sleep(secs(3600)).await;
    open.store(true, Ordering::Relaxed);
    rig.until_within(secs(310), "the probe arrives", |rig| rig.store.outbox().len() < 300).await;
    rig.until_within(secs(2), "the others follow", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn o_035_t_011_what_is_refused_or_unknown_is_sent_again_with_pauses() {
    for fate in [Fate::Refused("full".into()), Fate::Unknown("no confirm".into())] {
        let (rig, _script) = asker().await;
        let (answer, sent) = (fate.clone(), Arc::new(Mutex::new(Vec::new())));
        let tries = sent.clone();
        rig.broker.fates(move |_| {
            let mut tries = tries.lock().unwrap();
            tries.push(Instant::now());
            Some(if tries.len() < 20 { answer.clone() } else { Fate::Confirmed })
        });
        rig.broker.deliver(from("asker", 1));
        rig.until_within(secs(1200), "it arrives", |rig| rig.store.outbox().is_empty() && rig.broker.is_done()).await;
        let tries = sent.lock().unwrap().clone();
        assert_eq!(tries.len(), 20);
        let pauses: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| *pause <= secs(61)), "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| *pause >= secs(40)), "{pauses:?}");
        let rows: std::collections::HashSet<_> = rig.broker.sent().iter().map(|sent| sent.row).collect();
        assert_eq!(rows.len(), 1, "one message, again and again");
    }
}

#[tokio::test(start_paused = true)]
async fn o_022_more_than_the_window_holds_goes_through_the_relay_in_order() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|settings| settings.window = 10)).await;
    rig.broker.deliver(begin(1));
    rig.broker.deliver_all((1..=300).map(|n| step(1, n)));
    rig.all_acked().await;
    rig.until("all is sent", |rig| rig.store.outbox().is_empty()).await;
    let sent: Vec<u32> = rig
        .broker
        .sent_of("Stepped")
        .iter()
        .map(|sent| serde_json::from_slice::<Stepped>(&sent.envelope.body).unwrap().n)
        .collect();
    assert_eq!(sent, (1..=300).collect::<Vec<_>>());
    // and from memory again
    rig.broker.deliver(step(1, 301));
    rig.until_within(Duration::from_millis(50), "it is sent at once", |rig| rig.broker.sent_of("Stepped").len() == 301)
        .await;
}

#[tokio::test(start_paused = true)]
async fn o_023_a_message_that_comes_alone_waits_for_no_other() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.saga::<Walk>().handle::<Do>(script.clone());
        builder.settings(|settings| settings.poll = secs(3600))
    })
    .await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    for (n, envelope) in [(1, from("asker", 1)), (2, step(1, 1))] {
        let began = Instant::now();
        rig.broker.deliver(envelope);
        let settled = |rig: &Rig| rig.broker.is_done() && rig.broker.sent().len() == n;
        rig.until_within(Duration::from_millis(50), "it is acknowledged, and what it sends is sent", settled).await;
        assert!(began.elapsed() <= Duration::from_millis(20), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_full_lets_nothing_more_out_until_confirms_come() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|settings| settings.window = 10)).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(begin(1));
    for n in 1..=100 {
        rig.broker.deliver(step(1, n));
        rig.until("handled", |rig| rig.broker.is_done()).await;
    }
    tokio::time::sleep(secs(20)).await;
    assert_eq!(rig.broker.sent().len(), 10);
    rig.broker.fates(|_| Some(Fate::Confirmed));
    for sent in rig.broker.sent() {
        rig.broker.report(sent.row, Fate::Confirmed);
    }
    rig.until("all is sent", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(rig.broker.sent().len(), 100, "leases were renewed while the window was full");
}

#[tokio::test(start_paused = true)]
async fn o_034_what_a_process_was_publishing_when_its_lease_ran_out_is_another_processs() {
    let (rig, _script) = asker().await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(from("asker", 1));
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    let row = rig.the_outbox();
    assert_eq!(row.lease_owner.as_deref(), Some(rig.endpoint.owner()));
    away(&rig.store, Operation::Renew, StoreErrorKind::Unavailable);
    let other = broker::Broker::new();
    let other = Rig::start_on(rig.store.clone(), other, |builder| builder.handle::<Do>(Script::new())).await;
    let other = other.expect("a second process starts");
    other.until_within(secs(40), "the other sends it", |rig| rig.broker.sent().len() == 1).await;
    assert_eq!(other.broker.sent()[0].expired, 1);
    rig.store.heal();
    rig.until("the row is gone", |rig| rig.store.outbox().is_empty()).await;
    rig.broker.report(row.id, Fate::Unknown("late".into()));
    tokio::time::sleep(secs(60)).await;
    assert!(rig.broker.sent().len() <= 2 && rig.store.outbox().is_empty(), "{:?}", rig.broker.sent());
    rig.endpoint.stop().await.expect("what it lost is not waited for");
}

#[tokio::test(start_paused = true)]
async fn o_034_what_a_living_process_is_publishing_is_no_other_ones() {
    let (rig, _script) = asker().await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(from("asker", 1));
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    let other = broker::Broker::new();
    let other = Rig::start_on(rig.store.clone(), other, |builder| builder.handle::<Do>(Script::new())).await;
    let other = other.expect("a second process starts");
    tokio::time::sleep(10 * Settings::default().lease).await;
    assert_eq!((rig.broker.sent().len(), other.broker.sent().len()), (1, 0), "its lease is renewed in time");
    rig.broker.report(rig.the_outbox().id, Fate::Confirmed);
    rig.until("the row is gone", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn r_041_a_stop_does_not_wait_for_what_another_process_sends_by_now() {
    let (rig, _script) = asker().await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(from("asker", 1));
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    away(&rig.store, Operation::Renew, StoreErrorKind::Unavailable);
    let other = broker::Broker::new();
    let other = Rig::start_on(rig.store.clone(), other, |builder| builder.handle::<Do>(Script::new())).await;
    let other = other.expect("a second process starts");
    other.until_within(secs(40), "the other sends it", |rig| rig.broker.sent().len() == 1).await;
    rig.store.heal();
    tokio::time::sleep(secs(20)).await; // the next renewal tells that the lease was lost
    let began = Instant::now();
    rig.endpoint.stop().await.expect("no confirm is waited for");
    assert!(began.elapsed() < secs(1), "stopping took {:?}", began.elapsed());
}

/// The numbers of the steps that were sent, in their order.
fn stepped(rig: &Rig) -> Vec<u32> {
    let sent = rig.broker.sent_of("Stepped");
    sent.iter().map(|sent| serde_json::from_slice::<Stepped>(&sent.envelope.body).unwrap().n).collect()
}

#[tokio::test(start_paused = true)]
async fn o_018_what_was_committed_unheard_is_not_overtaken() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    rig.store.lose_next_commit(true);
    for n in 1..=5 {
        rig.broker.deliver(step(1, n));
        rig.all_acked().await;
    }
    rig.until("all is sent", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(stepped(&rig), [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn r_035_what_was_leased_unheard_is_not_overtaken() {
    use crate::{
        LeaseRequest, Store,
        port::{OutboxKind, OutboxRow, Unit, Write},
    };
    let rig = Rig::walk().await;
    let put = async |n| {
        let to = Destination::Event("Stepped".into());
        let stepped = Arc::new(message(format!("stepped-{n}"), &Stepped { id: 1, n }));
        let row = OutboxRow::new(uuid::Uuid::now_v7(), OutboxKind::Event, to, stepped);
        let mut unit = rig.store.begin(&[], secs(30)).await.expect("the store takes units");
        let write = Write { endpoint: NAME.into(), outbox: vec![row], ..Write::default() };
        unit.write(&write).await.expect("a row of the outbox");
        unit.commit().await.expect("the store takes it");
    };
    put(1).await;
    // the database leases the row to this process, which does not hear of it
    let Settings { lease, retention, .. } = Settings::default();
    let request = LeaseRequest::new(NAME, rig.endpoint.owner(), 10, lease, retention);
    assert_eq!(rig.store.lease(&request).await.expect("it is due").rows.len(), 1);
    rig.store.fail_next(Operation::Lease, StoreErrorKind::Unavailable);
    put(2).await;
    rig.until("all is sent", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(stepped(&rig), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_the_relay_leases_nothing() {
    let (rig, _script) = asker().await;
    rig.broker.link(LinkState::Down("gone".into()));
    rig.broker.fates(|_| Some(Fate::Unknown("gone".into())));
    rig.broker.deliver(from("asker", 1));
    rig.all_acked().await;
    rig.until("it failed", |rig| rig.the_outbox().lease_owner.is_none()).await;
    let sent = rig.broker.sent().len();
    tokio::time::sleep(secs(600)).await;
    assert_eq!((rig.broker.sent().len(), rig.the_outbox().lease_owner), (sent, None));
    assert_eq!(rig.endpoint.link(), LinkState::Down("gone".into()));
    rig.broker.fates(|_| Some(Fate::Confirmed));
    rig.broker.link(LinkState::Up);
    rig.until("it arrives", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn while_nothing_but_consuming_is_away_the_relay_goes_on() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), message("buy", &Buy { id: 1 })]);
    rig.all_acked().await;
    rig.broker.consuming_is_down();
    rig.until("it is known", |rig| rig.endpoint.link() != LinkState::Up).await;
    tokio::time::sleep(secs(3610)).await;
    assert_eq!(rig.broker.sent_of("Tired").len(), 1, "the timer was due");
}

#[tokio::test(start_paused = true)]
async fn o_039_confirmed_rows_wait_for_the_database_to_be_deleted() {
    let (rig, _script) = asker().await;
    away(&rig.store, Operation::Delete, StoreErrorKind::Unavailable);
    rig.broker.deliver_all((1..=20).map(|n| from("asker", n)));
    rig.all_acked().await;
    tokio::time::sleep(secs(25)).await; // less than a lease: a relay would send them again
    assert_eq!(rig.store.outbox().len(), 20);
    rig.store.heal();
    rig.until("they are gone", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!(rig.broker.sent().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_timer_comes_when_its_time_has_come_and_to_its_own_entry() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), message("buy", &Buy { id: 1 })]);
    rig.all_acked().await;
    let timer = rig.store.outbox().into_iter().find(|row| row.envelope.type_name == "Tired").expect("it is set");
    assert_eq!(timer.destination, Destination::Endpoint(NAME.into()));
    assert_eq!(timer.envelope.receiver.as_deref(), Some("walk"));
    tokio::time::sleep(secs(3590)).await;
    assert_eq!(rig.walk_at(1).0, "Here");
    rig.until_within(secs(15), "the timer fires", |rig| rig.walk_at(1).0 == "Over").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_for_the_queue_of_waiting_commands_comes_when_nothing_can_wait_any_more() {
    use crate::{
        Store,
        port::{OutboxKind, OutboxRow, Unit, Write},
    };
    let (rig, script) = asker().await;
    let envelope = Arc::new(command(1));
    let to = Destination::Endpoint("shop.low".into());
    let row = OutboxRow::new(uuid::Uuid::now_v7(), OutboxKind::Retry, to, envelope);
    let mut unit = rig.store.begin(&[], secs(30)).await.expect("the store takes units");
    let write = Write { endpoint: NAME.into(), outbox: vec![row], ..Write::default() };
    unit.write(&write).await.expect("a row of the outbox");
    unit.commit().await.expect("the store takes it");
    rig.until("it is handled", |_| script.runs_of(1) == 1).await;
}
