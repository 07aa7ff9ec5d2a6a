//! Bundles on RabbitMQ: what strangers get, what a bundle may have, and when it is acknowledged.

use saga_core::{Delivery, Destination, Envelope, Link, Outgoing, Transport};
use serde_json::json;
use std::{collections::VecDeque, sync::Arc};
use tests::{
    Vhost,
    link::{
        attach, attach_taking, close, delivery, event, limits, number, outgoing, provision, provision_taking, receive,
        send, to, topology,
    },
    plain::{Plain, assert_numbers, assert_single, bodies, bundle_body, is_bundle, read},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_consumer_gets_every_command_and_event_singly_and_in_order() {
    let vhost = Vhost::create().await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.queue("plain").await;
    plain.queue("listening").await;
    plain.bind("listening", "test.Happened").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, (1..=300).map(|n| outgoing(n, to("plain")))).await;
    send(&mut sender, (301..=600).map(|n| outgoing(n, Destination::ReplyTo("plain".into())))).await;
    send(&mut sender, (1..=300).map(|n| outgoing(n, event("test.Happened")))).await;
    assert_single(&read(&plain, "plain", 600).await, 1..=600);
    assert_single(&read(&plain, "listening", 300).await, 1..=300);
}

/// Such a policy finds what reaches no queue. A bundle that no queue takes must come back to its sender all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_an_alternate_exchange_for_all_takes_no_bundle() {
    let vhost = Vhost::create().await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.queue("plain").await;
    plain.queue("unrouted").await;
    plain.bind("unrouted", "lost-and-found").await;
    vhost.policy("exchanges", ".*", &json!({ "alternate-exchange": "lost-and-found" })).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, (1..=300).map(|n| outgoing(n, to("plain")))).await;
    assert_single(&read(&plain, "plain", 300).await, 1..=300);
    assert_eq!(vhost.list("exchanges").await.iter().filter(|it| it["name"] == "sagabus.bundles.v1").count(), 1);
}

/// Also of an endpoint that takes bundles of what is sent to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_bundles_gets_single_messages_and_each_gets_events_singly() {
    let vhost = Vhost::create().await;
    provision(&vhost.transport(), "without", &[]).await;
    let listening = tests::with!(topology("with", &["test.Happened"]), bundles = true);
    close(vhost.transport().attach(listening, limits()).await.expect("the endpoint attaches")).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, (1..=500).map(|n| outgoing(n, to("without")))).await;
    send(&mut sender, (1..=500).map(|n| outgoing(n, event("test.Happened")))).await;
    let plain = Plain::connect(&vhost.url()).await;
    assert_single(&read(&plain, "without", 500).await, 1..=500);
    assert_single(&read(&plain, "with", 500).await, 1..=500);
}

/// Version skew and rollback: what is in the queue is read by a process that does not want any, and the publisher that
/// believes it wants them is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_turns_bundles_off_reads_what_is_there_and_gets_no_more() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, (1..=1000).map(|n| outgoing(n, to("receiver")))).await;
    let mut off = attach(&vhost.transport(), "receiver", &[]).await;
    receive(&mut off, 1..=1000).await;
    send(&mut sender, (1001..=1500).map(|n| outgoing(n, to("receiver")))).await;
    receive(&mut off, 1001..=1500).await;
    close(off).await;
    send(&mut sender, (1501..=1600).map(|n| outgoing(n, to("receiver")))).await;
    let plain = Plain::connect(&vhost.url()).await;
    assert_single(&read(&plain, "receiver", 100).await, 1501..=1600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_for_one_queue_need_few_amqp_messages() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    // other destinations between them change nothing
    plain_queue(&vhost, "other").await;
    let both = (1..=1000).flat_map(|n| [outgoing(n, to("receiver")), outgoing(10_000 + n, to("other"))]);
    send(&mut sender, both).await;
    let plain = Plain::connect(&vhost.url()).await;
    let came = read(&plain, "receiver", 1000).await;
    assert!(came.len() <= 200, "at most 200 AMQP messages were expected for 1,000 messages, {} came", came.len());
    assert_numbers(&came, 1..=1000);
    assert_single(&read(&plain, "other", 1000).await, 10_001..=11_000);
    let largest = came.iter().map(|came| bodies(came).len()).max();
    assert_eq!(largest, Some(100), "full bundles were expected to have 100 messages");

    send(&mut sender, (1..=1000).map(|n| outgoing(n, to("receiver")))).await;
    let mut receiver = attach_taking(&vhost, "receiver", limits()).await;
    receive(&mut receiver, 1..=1000).await;
}

async fn plain_queue(vhost: &Vhost, name: &str) {
    let plain = Plain::connect(&vhost.url()).await;
    plain.queue(name).await;
    plain.close().await;
}

/// A message whose body is a JSON text of a bit more than so many bytes, beginning with its number.
fn sized(n: u128, bytes: usize) -> Outgoing {
    let message = outgoing(n, to("receiver"));
    let mut envelope = (*message.envelope).clone();
    envelope.body = format!("\"{n}{}\"", "x".repeat(bytes)).into();
    tests::with!(message, envelope = Arc::new(envelope))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_bounded_and_a_larger_message_goes_alone_in_order() {
    const MAX: usize = 128 << 10;
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    let sizes = [100, 30_000, 5_000, MAX + 1, 60_000, 60_000, 20_000, 300_000, 200];
    let all: Vec<Outgoing> = (0..300).map(|n| sized(n, sizes[n as usize % sizes.len()])).collect();
    let texts: Vec<String> =
        all.iter().map(|message| String::from_utf8_lossy(&message.envelope.body).into_owned()).collect();
    send(&mut sender, all.clone()).await;
    let plain = Plain::connect(&vhost.url()).await;
    let came = read(&plain, "receiver", 300).await;
    let in_order: Vec<String> = came.iter().flat_map(bodies).collect();
    assert!(in_order == texts, "every body was expected unchanged and in order");
    for came in &came {
        let (bytes, messages) = (came.data.len(), bodies(came).len());
        let fits = bytes <= MAX && messages <= 100;
        assert!(fits || !is_bundle(&came.properties), "{messages} messages of {bytes} bytes in a bundle");
    }
    assert!(came.iter().any(|came| is_bundle(&came.properties)), "bundles were expected of the smaller ones");

    send(&mut sender, all).await;
    let mut receiver = attach_taking(&vhost, "receiver", limits()).await;
    for text in texts {
        let came = delivery(&mut receiver).await;
        assert!(came.envelope.body == text, "{} was expected unchanged and in order", &text[..10]);
        came.ack.ack();
    }
}

/// What a producer of bundles writes.
fn envelopes(numbers: impl IntoIterator<Item = u128>) -> Vec<Envelope> {
    numbers.into_iter().map(|n| Envelope::new(format!("m-{n}"), "test.Happened", n.to_string())).collect()
}

/// Takes so many deliveries that come without a pause of their own.
async fn take(link: &mut Link, count: usize) -> Vec<Delivery> {
    let mut came = Vec::new();
    while came.len() < count {
        came.push(delivery(link).await);
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_acknowledged_when_its_last_message_is_settled() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("receiver", "b-1", &bundle_body(&envelopes(1..=100))).await;
    let mut first = attach_taking(&vhost, "receiver", limits()).await;
    let mut came = take(&mut first, 100).await;
    let last = came.remove(37);
    came.into_iter().for_each(|delivery| delivery.ack.ack());
    vhost.close_connections().await; // the process dies: what is not acknowledged comes again
    let again = take(&mut first, 100).await;
    assert!(again.iter().map(number).eq(1..=100), "the whole bundle was expected again");
    last.ack.ack(); // of the old channel: means nothing now
    again.into_iter().for_each(|delivery| delivery.ack.ack());
    close(first).await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_one("receiver", &envelopes([101])[0]).await;
    let mut second = attach_taking(&vhost, "receiver", limits()).await;
    receive(&mut second, [101]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_which_one_message_is_given_back_comes_again_whole() {
    let vhost = Vhost::create().await;
    let all = tests::with!(limits(), prefetch = 1000);
    let mut link = attach_taking(&vhost, "receiver", all).await;
    let plain = Plain::connect(&vhost.url()).await;
    plain.publish_bundle("receiver", "b-1", &bundle_body(&envelopes(1..=100))).await;
    plain.publish_one("receiver", &envelopes([101])[0]).await;
    let mut came = take(&mut link, 101).await;
    assert!(came.iter().map(number).eq(1..=101), "in order");
    drop(came.remove(50));
    // while other messages of it are in hand, it does not come: those that are sent later do
    for n in 102..=103 {
        plain.publish_one("receiver", &envelopes([n])[0]).await;
        receive(&mut link, [n]).await;
    }
    came.into_iter().for_each(|delivery| delivery.ack.ack());
    let again = take(&mut link, 100).await;
    assert!(again.iter().map(number).eq(1..=100), "the whole bundle was expected again, in order");
    assert!(again.iter().all(|delivery| delivery.delivery_count == 1), "each was delivered once before");
    again.into_iter().for_each(|delivery| delivery.ack.ack());
    plain.publish_one("receiver", &envelopes([104])[0]).await;
    receive(&mut link, [104]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t_015_the_prefetch_bounds_messages_in_hand_although_a_bundle_has_more() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let plain = Plain::connect(&vhost.url()).await;
    let mut n = 0;
    let mut some = |count: u128| {
        n += count;
        envelopes(n - count + 1..=n)
    };
    for count in [100, 1, 100, 7, 1, 1, 100, 3] {
        match &some(count)[..] {
            [one] => plain.publish_one("receiver", one).await,
            many => plain.publish_bundle("receiver", "b", &bundle_body(many)).await,
        }
    }
    let ten = tests::with!(limits(), prefetch = 10);
    let mut link = attach_taking(&vhost, "receiver", ten).await;
    let mut open = VecDeque::new();
    for expected in 1..=n {
        if open.len() == 10 {
            // one at a time, or several, as an endpoint does
            let settled = if expected % 3 == 0 { 4 } else { 1 };
            open.drain(..settled).for_each(|delivery: Delivery| delivery.ack.ack());
        }
        let came = delivery(&mut link).await;
        assert_eq!(number(&came), expected, "in order");
        open.push_back(came);
        let in_hand = open.len() + link.deliveries.len();
        assert!(in_hand <= 10, "at most 10 messages in hand were expected, there are {in_hand}");
    }
    open.drain(..).for_each(|delivery| delivery.ack.ack());
}

/// A bundle is JSON that any tool can show, and carries all that an envelope says.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_can_be_read_by_any_amqp_tool() {
    let vhost = Vhost::create().await;
    provision_taking(&vhost, "receiver").await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    send(&mut sender, (1..=1000).map(|n| outgoing(n, to("receiver")))).await;
    let plain = Plain::connect(&vhost.url()).await;
    let came = read(&plain, "receiver", 1000).await;
    let bundle = came.iter().find(|came| is_bundle(&came.properties)).expect("a bundle was expected");
    let kind = bundle.properties.content_type().as_ref().map(|kind| kind.as_str().to_owned());
    assert_eq!(kind.as_deref(), Some(tests::plain::BUNDLE_V1));
    assert_eq!(*bundle.properties.delivery_mode(), Some(2), "it survives a restart of the broker");
    assert!(bundle.properties.message_id().is_some(), "it has an id, by which a return of it is known");
    let parts = tests::plain::parts(&bundle.data);
    let n = parts[0]["body"].as_u64().expect("its body is bare JSON");
    let envelope = json!({
        "message_id": format!("m-{n}"), "type": "test.Happened", "conversation_id": "conversation",
        "reply_to": "sender", "sender": "sender", "sent_at_us": 1_795_000_000_000_000_u64,
    });
    assert_eq!(parts[0], json!({ "envelope": envelope, "body": n }));
}
