//! Bundles that the broker does not take, or that no queue takes: each message of them has its fate, and none is lost.

use saga_core::{Fate, Link, LinkState, Outgoing};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use tests::{
    PATIENCE, Vhost, eventually,
    link::{
        attach, attach_taking, confirmed, event, fates, limits, number, outgoing, provision_taking, receive, send, to,
        with_envelope,
    },
    plain::{Plain, assert_single, bodies, is_bundle, next, read},
};
use tokio::time::{Instant, timeout};
use transports::RabbitMq;

fn messages(numbers: impl IntoIterator<Item = u128>) -> impl Iterator<Item = Outgoing> {
    numbers.into_iter().map(|n| outgoing(n, to("receiver")))
}

/// Hands messages to the link one by one, while it publishes.
async fn put(sender: &Link, numbers: impl IntoIterator<Item = u128>) {
    for message in messages(numbers) {
        sender.outgoing.send(message).expect("the link is open");
        tokio::task::yield_now().await;
    }
}

/// Receives up to the last number; each comes once or, when a channel broke, twice, and none is overtaken.
async fn receive_in_order(link: &mut Link, last: u128) {
    let mut times: HashMap<u128, u32> = HashMap::new();
    let mut newest = 0;
    while times.len() < last as usize {
        let came = tests::link::delivery(link).await;
        let n = number(&came);
        let times = times.entry(n).or_default();
        *times += 1;
        assert!(*times <= 2, "{n} was expected twice at most");
        if *times == 1 {
            assert_eq!(n, newest + 1, "the next one was expected");
            newest = n;
        }
        came.ack.ack();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_from_an_unbound_exchange_goes_singly_and_in_order() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, messages(1..=500)).await; // it knows that bundles are taken
    let plain = Plain::connect(&vhost.url()).await;
    assert!(read(&plain, "receiver", 500).await.iter().any(|came| is_bundle(&came.properties)), "bundles at first");
    plain.unbind_bundles("receiver").await;
    send(&mut sender, messages(501..=501)).await; // even a single message
    send(&mut sender, messages(502..=1500)).await;
    assert_single(&read(&plain, "receiver", 1000).await, 501..=1500);
}

/// The queue listens to the event as well, and its endpoint takes no bundles: nobody knows before the first comes back.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_does_not_overtake_the_first_bundle_to_a_queue_that_takes_none() {
    const QUEUES: u128 = 20;
    let vhost = Vhost::create().await;
    let plain = Plain::connect(&vhost.url()).await;
    let (queue, happened) = (|n| format!("plain-{n}"), |n| format!("test.Happened{n}"));
    for n in 0..QUEUES {
        plain.queue(&queue(n)).await;
        plain.bind(&queue(n), &happened(n)).await;
    }
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    // it knows the exchanges, and publishes without looking for them
    send(&mut sender, (0..QUEUES).map(|n| outgoing(10 * n, event(&happened(n))))).await;
    let sent = |n: u128| {
        let commands = [1, 2].map(|it| outgoing(10 * n + it, to(&queue(n))));
        commands.into_iter().chain([outgoing(10 * n + 3, event(&happened(n)))])
    };
    send(&mut sender, (0..QUEUES).flat_map(sent)).await;
    for n in 0..QUEUES {
        assert_single(&read(&plain, &queue(n), 4).await, 10 * n..=10 * n + 3);
    }
}

/// It goes singly, and the way of the bundles all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_for_a_bundle_overtakes_none_that_comes_back() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, messages(1..=300)).await; // it knows that bundles are taken
    let plain = Plain::connect(&vhost.url()).await;
    read(&plain, "receiver", 300).await;
    plain.unbind_bundles("receiver").await;
    let sized = |message: Outgoing| {
        let n = message.row.as_u128();
        let mut envelope = (*message.envelope).clone();
        let blanks = if n.is_multiple_of(50) { 200_000 } else { 0 };
        envelope.body = format!("{}{n}", " ".repeat(blanks)).into();
        with_envelope(message, envelope)
    };
    send(&mut sender, messages(301..=400).map(sized)).await;
    let came = read(&plain, "receiver", 100).await;
    let numbers: Vec<u128> = came.iter().map(|came| bodies(came)[0].trim().parse().expect("a number")).collect();
    assert!(numbers.iter().copied().eq(301..=400), "in the order of their sending: {numbers:?}");
}

/// What was on its way arrives, what comes back goes again before anything else.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_unbound_while_bundles_flow_costs_no_message_and_no_order() {
    let vhost = Vhost::create().await;
    let mut receiver = attach_taking(&vhost, "receiver", limits()).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    let plain = Plain::connect(&vhost.url()).await;
    let all = 5000;
    let sending = async {
        put(&sender, 1..=all).await;
        confirmed(&mut sender, all as usize).await;
    };
    let receiving = async {
        receive(&mut receiver, 1..=1000).await;
        plain.unbind_bundles("receiver").await;
        receive(&mut receiver, 1001..=all).await;
    };
    tokio::join!(sending, receiving);
}

/// The broker closes the channel over it.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_deleted_while_bundles_flow_costs_no_message_and_no_order() {
    let vhost = Vhost::create().await;
    let mut receiver = attach_taking(&vhost, "receiver", limits()).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    let plain = Plain::connect(&vhost.url()).await;
    let all = 5000;
    let sending = async {
        put(&sender, 1..=2499).await;
        plain.delete_bundles().await;
        put(&sender, 2500..=all).await;
        confirmed(&mut sender, all as usize).await;
    };
    tokio::join!(sending, receive_in_order(&mut receiver, all));
}

/// A single message goes the way of the bundles, when there were any.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_message_is_not_refused_because_the_exchange_for_bundles_is_gone() {
    let vhost = Vhost::create().await;
    let mut receiver = attach_taking(&vhost, "receiver", limits()).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, messages(1..=300)).await;
    receive(&mut receiver, 1..=300).await;
    Plain::connect(&vhost.url()).await.delete_bundles().await;
    send(&mut sender, messages(301..=301)).await;
    receive(&mut receiver, 301..=301).await;
}

const WITHOUT_BUNDLES: &str = "^(sender|receiver|amq[.]default)$";

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_may_not_write_bundles_sends_singly_and_keeps_its_channel() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let narrow = RabbitMq::new(&vhost.url_with_writes(WITHOUT_BUNDLES).await).expect("a URL");
    let mut sender = attach(&narrow, "sender", &[]).await;
    send(&mut sender, messages(1..=1000)).await;
    timeout(PATIENCE, sender.state.wait_for(|state| *state == LinkState::Up)).await.expect("it is up").unwrap();
    sender.state.mark_unchanged();
    for first in (1001..=2000).step_by(100) {
        send(&mut sender, messages(first..first + 100)).await;
    }
    assert!(!sender.state.has_changed().unwrap(), "the channel was expected to break once, and broke again");
    let plain = Plain::connect(&vhost.url()).await;
    let mut consumer = plain.consume("receiver").await;
    let (mut seen, mut newest) = (HashSet::new(), 0);
    while seen.len() < 2000 {
        let came = next(&mut consumer).await;
        assert!(!is_bundle(&came.properties), "single messages were expected");
        let n: u128 = bodies(&came)[0].parse().expect("a number");
        if seen.insert(n) {
            assert_eq!(n, newest + 1, "the next one was expected");
            newest = n;
        }
    }
}

/// A full queue refuses: what it did not take is reported, message by message, and only that.
#[tokio::test(flavor = "multi_thread")]
async fn t_011_a_full_queue_refuses_each_message_of_a_bundle() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    vhost.policy("queues", "^receiver$", &json!({ "max-length": 3, "overflow": "reject-publish" })).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    // the broker applies the policy, and tells channels that the queue is full, when it gets to it
    let (mut all, mut told, until) = (0, HashMap::new(), Instant::now() + PATIENCE);
    while !told.values().any(|fate| matches!(fate, Fate::QueueRefused(_))) {
        assert!(Instant::now() < until, "some of {all} messages were expected to be refused within {PATIENCE:?}");
        for message in messages(all + 1..=all + 200) {
            sender.outgoing.send(message).expect("the link is open");
        }
        told.extend(fates(&mut sender, 200).await);
        all += 200;
    }
    let mut confirmed = Vec::new();
    for n in 1..=all {
        match &told[&n] {
            Fate::Confirmed => confirmed.push(n),
            Fate::QueueRefused(words) => assert!(words.contains("nack"), "{n}: {words}"),
            fate => panic!("{n} was expected to be confirmed or refused: {fate:?}"),
        }
    }
    let plain = Plain::connect(&vhost.url()).await;
    let came = read(&plain, "receiver", confirmed.len()).await;
    assert!(came.iter().any(|came| is_bundle(&came.properties)), "bundles were expected");
    let came: Vec<String> = came.iter().flat_map(bodies).collect();
    let confirmed: Vec<String> = confirmed.iter().map(u128::to_string).collect();
    assert_eq!(came, confirmed, "what was confirmed was expected in the queue, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_whose_queue_was_deleted_is_reported_message_by_message() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, messages(1..=300)).await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.channel.queue_delete("receiver".into(), Default::default()).await.expect("the queue is there");
    for message in messages(301..=600) {
        sender.outgoing.send(message).expect("the link is open");
    }
    for (n, fate) in fates(&mut sender, 300).await {
        assert!(matches!(fate, Fate::Unroutable(_)), "{n} was expected to be unroutable: {fate:?}");
    }
    // the endpoint comes back, and all of them again, as an outbox sends them
    let mut receiver = attach_taking(&vhost, "receiver", limits()).await;
    eventually("the queue", || async { (vhost.list("queues").await.len() >= 2).then_some(()) }).await;
    send(&mut sender, messages(301..=600)).await;
    receive(&mut receiver, 301..=600).await;
}
