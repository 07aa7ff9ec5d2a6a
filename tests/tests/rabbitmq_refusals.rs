//! What RabbitMQ refuses: a message, an exchange, a queue, a connection. A refusal never affects other messages.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use saga_core::{Destination, Fate, Link, LinkState, Transport, TransportErrorKind};
use serde_json::json;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE, Vhost, eventually,
    link::{attach, delivery, event, fates, limits, number, outgoing, provision, report, to, topology, with_header},
};
use tokio::time::timeout;
use transports::RabbitMq;

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker lets us in");
    let channel = connection.create_channel().await.expect("a channel opens");
    (connection, channel)
}

/// Receives until the last number has come; checks that all but these came, in order, each at most twice.
async fn all_but(missing: &[u128], last: u128, receiver: &mut Link) {
    let mut times: HashMap<u128, u32> = HashMap::new();
    let mut newest = 0;
    let expected = last as usize - missing.len();
    while times.len() < expected {
        let delivery = delivery(receiver).await;
        let n = number(&delivery);
        assert!(!missing.contains(&n), "{n} was refused, and came");
        let times = times.entry(n).or_default();
        *times += 1;
        assert!(*times <= 2, "{n} came {times} times");
        if *times == 1 {
            assert!(n > newest, "{n} was overtaken by {newest}");
            newest = n;
        }
        delivery.ack.ack();
    }
}

/// Of many messages, those that the broker refuses are reported, and all others arrive in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_refuses_takes_no_other_with_it() {
    let vhost = Vhost::create().await;
    let narrow = vhost.url_with_writes("^(sender|test[.]Happened|receiver|amq[.]default)$").await;
    let mut receiver = attach(&vhost.transport(), "receiver", &["test.Happened"]).await;
    // another program's exchange, to which this user may not write
    let (_connection, strange) = channel(&vhost.url()).await;
    for exchange in ["test.Secret", "test.Other"] {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        strange.exchange_declare(exchange.into(), ExchangeKind::Fanout, durable, FieldTable::default()).await.unwrap();
    }
    let mut sender = attach(&RabbitMq::new(&narrow).unwrap(), "sender", &[]).await;
    let messages = 1000;
    for n in 1..=messages {
        let plain = outgoing(n, event("test.Happened"));
        let message = match n {
            100 => outgoing(n, event("test.Secret")),
            300 => with_header(plain, "deep", (0..40).fold(json!(1), |inner, _| json!([inner]))),
            500 => outgoing(n, event("test.Other")),
            501 => outgoing(n, event("test.Secret")),
            700 => with_header(plain, "note", json!("h".repeat(200_000))),
            701 => with_header(plain, &"n".repeat(300), json!(1)),
            _ => plain,
        };
        sender.outgoing.send(message).expect("the link is open");
    }
    let bad = [100, 300, 500, 501, 700, 701];
    let receiving = all_but(&bad, messages, &mut receiver);
    let (fates, ()) = tokio::join!(fates(&mut sender, messages as usize), receiving);
    let mut refused: Vec<u128> = fates.iter().filter(|(_, fate)| **fate != Fate::Confirmed).map(|(n, _)| *n).collect();
    refused.sort_unstable();
    assert_eq!(refused, bad, "{fates:?}");
    let words = |n: u128| match &fates[&n] {
        Fate::Refused(words) => words.clone(),
        other => panic!("{n}: {other:?}"),
    };
    assert!(words(100).contains("ACCESS_REFUSED") && words(100).contains("test.Secret"), "{}", words(100));
    assert!(words(300).contains("nested deeper"), "{}", words(300));
    assert!(words(500).contains("test.Other"), "{}", words(500));
    assert!(words(700).contains("frame_max"), "{}", words(700));
    assert!(words(701).contains("255 bytes"), "{}", words(701));
    timeout(PATIENCE, sender.state.wait_for(|state| *state == LinkState::Up)).await.expect("it is up").unwrap();
}

/// Provisioned by hand: an exchange that is missing, and one that is deleted meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn t_010_a_passive_publisher_is_told_which_exchange_is_missing() {
    let vhost = Vhost::create().await;
    let mut receiver = attach(&vhost.transport(), "receiver", &["test.Happened"]).await;
    provision(&vhost.transport(), "sender", &["test.Gone"]).await;
    let passive = tests::with!(topology("sender", &[]), passive = true);
    let mut sender = vhost.transport().attach(passive, limits()).await.expect("its queue is there");
    sender.outgoing.send(outgoing(1, event("test.Gone"))).unwrap();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    let (_connection, strange) = channel(&vhost.url()).await;
    strange.exchange_delete("test.Gone".into(), Default::default()).await.unwrap();
    let messages = 1000;
    for n in 1..=messages {
        let name = match n {
            200 | 201 => "test.Gone",
            400 => "test.Missing",
            _ => "test.Happened",
        };
        sender.outgoing.send(outgoing(n, event(name))).expect("the link is open");
    }
    let receiving = all_but(&[200, 201, 400], messages, &mut receiver);
    let (fates, ()) = tokio::join!(fates(&mut sender, messages as usize), receiving);
    for (n, fate) in fates {
        match fate {
            Fate::Refused(words) => {
                assert!([200, 201, 400].contains(&n) && words.contains("no exchange"), "{n}: {words}");
            }
            fate => assert!(fate == Fate::Confirmed && ![200, 201, 400].contains(&n), "{n}: {fate:?}"),
        }
    }
}

/// A message that is refused again and again is not sent in a hot loop, and the link stays up for others.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_destination_is_asked_about_only_now_and_then() {
    let vhost = Vhost::create().await;
    let narrow = vhost.url_with_writes("^(sender|test[.]Happened|receiver|amq[.]default)$").await;
    let (_connection, strange) = channel(&vhost.url()).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    strange.exchange_declare("test.Secret".into(), ExchangeKind::Fanout, durable, FieldTable::default()).await.unwrap();
    let mut sender = attach(&RabbitMq::new(&narrow).unwrap(), "sender", &[]).await;
    let began = Instant::now();
    sender.outgoing.send(outgoing(1, event("test.Secret"))).unwrap();
    assert!(matches!(report(&mut sender).await.fate, Fate::Refused(_)));
    // it publishes again
    sender.outgoing.send(outgoing(0, event("test.Happened"))).unwrap();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    sender.state.mark_unchanged();
    for n in 2..200 {
        sender.outgoing.send(outgoing(n, event("test.Secret"))).unwrap();
        assert!(matches!(report(&mut sender).await.fate, Fate::Refused(words) if words.contains("test.Secret")));
    }
    let is_soon = began.elapsed() < Duration::from_secs(4); // it is asked about again after 5
    assert!(!is_soon || !sender.state.has_changed().unwrap(), "the channel broke again within seconds");
}

/// Replies to other programs are each for a queue of their own.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_queue_may_be_written_to_replies_break_the_channel_only_now_and_then() {
    let vhost = Vhost::create().await;
    let narrow = vhost.url_with_writes("^(sender|test[.]Happened)$").await;
    let mut sender = attach(&RabbitMq::new(&narrow).unwrap(), "sender", &[]).await;
    let reply = |n: u128| outgoing(n, Destination::ReplyTo(format!("reply-{n}")));
    let began = Instant::now();
    sender.outgoing.send(reply(1)).unwrap();
    assert!(matches!(report(&mut sender).await.fate, Fate::Refused(_)));
    // it publishes again
    sender.outgoing.send(outgoing(0, event("test.Happened"))).unwrap();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    for n in 2..200 {
        sender.outgoing.send(reply(n)).unwrap();
        assert!(matches!(report(&mut sender).await.fate, Fate::Refused(_)), "{n} was expected to be refused");
    }
    // each break is followed by a pause of 50 ms at least
    assert!(began.elapsed() < Duration::from_secs(6), "the channel broke for each: {:?}", began.elapsed());
}

/// T-014: an event's exchange that is deleted while running is declared again. No event is lost: none is published
/// before the subscribers are bound again.
#[tokio::test(flavor = "multi_thread")]
async fn t_014_a_deleted_exchange_loses_no_event() {
    let vhost = Vhost::create().await;
    let mut receiver = attach(&vhost.transport(), "receiver", &["test.Happened"]).await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    let (_connection, strange) = channel(&vhost.url()).await;
    let send = async {
        let mut waited = false;
        for n in 1..=400 {
            if n == 100 {
                strange.exchange_delete("test.Happened".into(), Default::default()).await.unwrap();
            }
            let until = Instant::now() + PATIENCE;
            loop {
                sender.outgoing.send(outgoing(n, event("test.Happened"))).unwrap();
                match report(&mut sender).await.fate {
                    Fate::Confirmed => break,
                    Fate::Refused(words) if words.contains("yet to bind") => waited = true,
                    fate => panic!("{n}: {fate:?}"),
                }
                assert!(Instant::now() < until, "the exchange was not usable again within {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(100)).await; // as an outbox would
            }
        }
        assert!(waited, "events wait for their subscribers");
    };
    tokio::join!(send, all_but(&[], 400, &mut receiver));
}

/// A subscriber notices by itself that its queue lost an exchange.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_declares_its_exchanges_again() {
    let vhost = Vhost::create().await;
    let _receiver = attach(&vhost.transport(), "receiver", &["test.Happened"]).await;
    let (_connection, strange) = channel(&vhost.url()).await;
    for exchange in ["test.Happened", "receiver"] {
        strange.exchange_delete(exchange.into(), Default::default()).await.unwrap();
    }
    for exchange in ["test.Happened", "receiver"] {
        let vhost = &vhost;
        eventually("the binding is there again", || async move {
            let bindings = vhost.list("bindings").await;
            bindings.iter().any(|b| b["source"] == exchange && b["destination"] == "receiver").then_some(())
        })
        .await;
    }
}

/// An event that is no longer subscribed to is unbound; a missing exchange of such an event does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn t_005_what_is_no_longer_subscribed_to_is_unbound() {
    let vhost = Vhost::create().await;
    provision(&vhost.transport(), "receiver", &["test.Kept", "test.Left"]).await;
    let dropped = vec!["test.Left".into(), "test.NeverThere".into(), "test.Kept".into()];
    let later = tests::with!(topology("receiver", &["test.Kept"]), dropped = dropped);
    let _link = vhost.transport().attach(later, limits()).await.expect("it attaches");
    let bindings = vhost.list("bindings").await;
    let is_bound = |event: &str| bindings.iter().any(|b| b["source"] == event && b["destination"] == "receiver");
    assert!(is_bound("test.Kept") && !is_bound("test.Left"), "{bindings:?}");
}

/// RabbitMQ's direct reply-to gets an answer once.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_reply_is_sent_once() {
    let vhost = Vhost::create().await;
    let mut link = attach(&vhost.transport(), "receiver", &[]).await;
    let (_connection, asker) = channel(&vhost.url()).await;
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let direct = "amq.rabbitmq.reply-to";
    let mut answers = asker.basic_consume(direct.into(), "".into(), no_ack, FieldTable::default()).await.unwrap();
    let question = BasicProperties::default()
        .with_message_id("q".into())
        .with_type("test.Question".into())
        .with_reply_to(direct.into());
    let options = BasicPublishOptions::default();
    asker.basic_publish("".into(), "receiver".into(), options, b"{}", question).await.unwrap();
    let asked = delivery(&mut link).await;
    let reply_to = asked.envelope.reply_to.clone().expect("the broker wrote an address");
    asked.ack.ack();
    link.outgoing.send(outgoing(1, Destination::ReplyTo(reply_to))).unwrap();
    assert_eq!(report(&mut link).await.fate, Fate::Confirmed);
    let answer = timeout(PATIENCE, answers.next()).await.expect("an answer was expected").unwrap().unwrap();
    assert_eq!(answer.data, b"1");
}

/// Limits of the virtual host: the endpoint waits for connections, and one queue too many is not reported as a
/// difference.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_virtual_host_are_told_from_other_refusals() {
    let vhost = Vhost::create().await;
    let first = attach(&vhost.transport(), "one", &[]).await;
    vhost.limit("max-connections", 2).await;
    let short = tests::with!(limits(), connect = Duration::from_secs(1));
    let began = Instant::now();
    let error = vhost.transport().attach(topology("two", &[]), short).await.unwrap_err();
    assert!(error.kind() == TransportErrorKind::Unreachable && error.to_string().contains("limit"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "it keeps to its time");
    // a rolling restart: the old process stops, the new one gets its connections
    let transport = vhost.transport();
    let patient = tests::with!(limits(), connect = PATIENCE);
    let (second, ()) = tokio::join!(transport.attach(topology("one", &[]), patient), async { drop(first) });
    let second = second.expect("there is room for it");

    vhost.limit("max-connections", 10).await;
    vhost.limit("max-queues", 1).await;
    let error = vhost.transport().attach(topology("two", &[]), limits()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("limit") && !text.contains("declared otherwise"), "{text}");
    drop(second);
}

/// A connection that allows too few channels is an error at the start.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_channels_are_an_error_at_the_start() {
    let vhost = Vhost::create().await;
    let narrow = RabbitMq::new(&format!("{}?channel_max=1", vhost.url())).unwrap();
    let error = narrow.attach(topology("one", &[]), limits()).await.unwrap_err();
    assert!(error.kind() == TransportErrorKind::Invalid && error.to_string().contains("channel_max"), "{error}");
}

/// Bodies that are not acknowledged are bounded in bytes.
#[tokio::test(flavor = "multi_thread")]
async fn t_015_unacknowledged_bodies_are_bounded_in_bytes() {
    const MB: usize = 1_000_000;
    let vhost = Vhost::create().await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    provision(&vhost.transport(), "receiver", &[]).await;
    let messages = 150;
    for n in 0..messages {
        let mut message = outgoing(n, to("receiver"));
        let mut envelope = (*message.envelope).clone();
        envelope.body = vec![b'x'; MB].into();
        message.envelope = envelope.into();
        sender.outgoing.send(message).unwrap();
    }
    assert!(fates(&mut sender, messages as usize).await.values().all(|fate| *fate == Fate::Confirmed));
    let few = tests::with!(limits(), prefetch = 1000, prefetch_bytes = 16 * MB);
    let mut link = vhost.transport().attach(topology("receiver", &[]), few).await.expect("it attaches");
    let (mut open, mut done, mut most) = (std::collections::VecDeque::new(), 0, 0);
    while done < messages {
        match timeout(Duration::from_millis(30), link.deliveries.recv()).await {
            Ok(delivery) => open.push_back(delivery.expect("the link is open")),
            Err(_) => {
                // nothing more comes: handle the oldest now
                if let Some(oldest) = open.pop_front() {
                    oldest.ack.ack();
                    done += 1;
                }
            }
        }
        most = most.max(open.len());
        assert!(most <= 18, "{most} MB at a time");
    }
    assert!(most >= 8, "only {most} at a time");
}
