//! What is specific to RabbitMQ: the topology, the wire, connections that break.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicNackOptions, BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use saga_core::{Destination, Fate, LinkState, Topology, Transport, TransportErrorKind};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};
use tests::{
    PATIENCE, Vhost, eventually,
    link::{attach, close, delivery, limits, number, outgoing, provision, report, to, topology},
    plain::Plain,
    proxy::Proxy,
};
use tokio::time::timeout;
use transports::RabbitMq;

/// T-001: what is declared, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn t_001_the_topology_is_as_documented() {
    let vhost = Vhost::create().await;
    let _link = attach(&vhost.transport(), "ordering", &["test.Happened"]).await;
    let queues = vhost.list("queues").await;
    assert_eq!(queues.len(), 1, "{queues:?}");
    assert_eq!(
        (&queues[0]["name"], &queues[0]["durable"], &queues[0]["arguments"]["x-queue-type"]),
        (&"ordering".into(), &true.into(), &"quorum".into())
    );
    let exchanges = vhost.list("exchanges").await;
    let mut own: Vec<&str> = exchanges
        .iter()
        .filter(|exchange| exchange["type"] == "fanout" && exchange["durable"] == true)
        .filter_map(|exchange| exchange["name"].as_str())
        .filter(|name| !name.starts_with("amq."))
        .collect();
    own.sort_unstable();
    assert_eq!(own, ["ordering", "test.Happened"]);
    let bindings = vhost.list("bindings").await;
    let bound = |source: &str| {
        let mut to_queue =
            bindings.iter().filter(|b| b["destination"] == "ordering" && b["destination_type"] == "queue");
        to_queue.any(|b| b["source"] == source)
    };
    assert!(bound("ordering") && bound("test.Happened"), "{bindings:?}");
}

/// T-002: whoever declares again changes nothing, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_002_declaring_again_changes_nothing() {
    let vhost = Vhost::create().await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    provision(&vhost.transport(), "ordering", &["test.Happened"]).await;
    for n in 1..=10 {
        sender.outgoing.send(outgoing(n, to("ordering"))).expect("the link is open");
        assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    }
    let declared = async || {
        let mut all = Vec::new();
        for (what, fields) in [
            ("queues", ["name", "durable", "arguments", "auto_delete"]),
            ("exchanges", ["name", "durable", "arguments", "type"]),
            ("bindings", ["source", "destination", "destination_type", "routing_key"]),
        ] {
            let rows = vhost.list(what).await;
            let mut rows: Vec<String> =
                rows.iter().map(|row| format!("{:?}", fields.map(|field| &row[field]))).collect();
            rows.sort_unstable();
            all.push(rows);
        }
        all
    };
    let before = declared().await;
    let transport = vhost.transport();
    let (one, two) = tokio::join!(
        attach(&transport, "ordering", &["test.Happened"]),
        attach(&transport, "ordering", &["test.Happened"])
    );
    assert_eq!(declared().await, before, "two processes at once");
    close(one).await;
    close(two).await;
    let mut again = attach(&transport, "ordering", &["test.Happened"]).await;
    assert_eq!(declared().await, before, "a restart");
    let mut came = HashSet::new();
    while came.len() < 10 {
        let delivery = delivery(&mut again).await;
        came.insert(number(&delivery));
        delivery.ack.ack();
    }
    assert_eq!(came, (1..=10).collect());
}

/// T-003: a queue that was declared differently is a clear error.
#[tokio::test(flavor = "multi_thread")]
async fn t_003_a_queue_that_differs_is_a_clear_error() {
    let vhost = Vhost::create().await;
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("ordering".into(), durable, FieldTable::default()).await.unwrap();
    let topology = Topology::new("ordering");
    let error = vhost.transport().attach(topology, limits()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.kind() == TransportErrorKind::Mismatch && text.contains("x-queue-type") && text.contains("'quorum'"),
        "{text}"
    );
}

/// T-004: provisioned by hand.
#[tokio::test(flavor = "multi_thread")]
async fn t_004_a_passive_endpoint_declares_nothing() {
    let vhost = Vhost::create().await;
    let passive = || tests::with!(Topology::new("ordering"), passive = true);
    let missing = vhost.transport().attach(passive(), limits()).await.unwrap_err().to_string();
    assert!(missing.contains("ordering"), "{missing}");
    drop(attach(&vhost.transport(), "ordering", &[]).await);
    vhost.transport().attach(passive(), limits()).await.expect("the queue is there now");
}

/// refused credentials end at once, without the password in the message.
#[tokio::test(flavor = "multi_thread")]
async fn r_040_wrong_credentials_are_refused_at_once() {
    let vhost = Vhost::create().await;
    let url = vhost.url().replace("guest:guest", "guest:wr0ng-secret");
    let topology = Topology::new("ordering");
    let long = tests::with!(limits(), connect = Duration::from_secs(300));
    let refused = timeout(PATIENCE, RabbitMq::new(&url).unwrap().attach(topology, long))
        .await
        .expect("no waiting for what cannot change");
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Denied, "{error:?}");
    assert!(!error.to_string().contains("wr0ng-secret"), "{error}");
}

/// A broker that starts, or moves the leader of a queue, may accept a connection and fail over the first declaration.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_connection_breaks_while_it_declares_tries_again() {
    let vhost = Vhost::create().await;
    let url = vhost.url();
    let host = url.rsplit_once('@').and_then(|(_, rest)| rest.split('/').next()).expect("it names a host");
    let proxy = Proxy::to(host.to_owned()).await;
    let transport = RabbitMq::new(&proxy.instead_of(&url)).unwrap();
    let long = tests::with!(limits(), connect = Duration::from_secs(30));
    let attaching = tokio::spawn(async move { transport.attach(topology("ordering", &["test.Happened"]), long).await });
    for n in 0..12 {
        while proxy.accepted() <= n && !attaching.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // a little later each time: in the handshake, over the queue, over an exchange
        tokio::time::sleep(Duration::from_millis(6 + 6 * n)).await;
        proxy.cut();
    }
    attaching.await.unwrap().expect("the endpoint was expected to attach in the end");
}

/// T-006: the broker does not drop what came back often.
#[tokio::test(flavor = "multi_thread")]
async fn t_006_a_message_that_came_back_a_thousand_times_is_still_there() {
    let vhost = Vhost::create().await;
    let transport = vhost.transport();
    provision(&transport, "receiver", &[]).await;
    let mut sender = attach(&transport, "sender", &[]).await;
    sender.outgoing.send(outgoing(1, to("receiver"))).expect("the link is open");
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    let plain = Plain::connect(&vhost.url()).await;
    let mut consumer = plain.consume("receiver").await;
    let back = BasicNackOptions { requeue: true, ..Default::default() };
    for n in 0..1000 {
        let came = timeout(PATIENCE, consumer.next()).await.expect("it comes again").expect("the consumer lives");
        let came = came.unwrap_or_else(|error| panic!("after {n} times: {error}"));
        came.acker.nack(back).await.expect("the broker takes it back");
    }
    plain.close().await;
    let mut receiver = attach(&transport, "receiver", &[]).await;
    let came = delivery(&mut receiver).await;
    assert!(number(&came) == 1 && came.delivery_count >= 999, "{came:?}");
    came.ack.ack();
}

/// T-025: several hosts, of which the first does not answer; a virtual host whose name has a slash.
#[tokio::test(flavor = "multi_thread")]
async fn t_025_the_next_host_is_tried_and_a_slash_in_a_name_is_encoded() {
    let vhost = Vhost::create_named("a/b").await;
    let url = vhost.url();
    assert!(url.ends_with("a%2Fb"), "{url}");
    let host = url.rsplit('@').next().and_then(|place| place.split('/').next()).expect("it has a host");
    let several = url.replace(host, &format!("127.0.0.1:1,{host}"));
    let link = attach(&RabbitMq::new(&several).expect("the address is right"), "ordering", &[]).await;
    assert_eq!(vhost.list("queues").await.len(), 1, "it is in the virtual host that was named");
    close(link).await;
}

/// T-012: any AMQP client can read us.
#[tokio::test(flavor = "multi_thread")]
async fn t_012_a_plain_client_finds_everything_where_it_is_documented() {
    let vhost = Vhost::create().await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare("plain".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    sender.outgoing.send(outgoing(7, Destination::ReplyTo("plain".into()))).unwrap();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    let message =
        eventually("the message", || async { channel.basic_get("plain".into(), Default::default()).await.unwrap() })
            .await;
    let properties = &message.properties;
    let text = |property: &Option<lapin::types::ShortString>| property.as_ref().map(|text| text.as_str().to_owned());
    assert_eq!(text(properties.message_id()).as_deref(), Some("m-7"));
    assert_eq!(text(properties.kind()).as_deref(), Some("test.Happened"));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(text(properties.app_id()).as_deref(), Some("sender"));
    assert_eq!(text(properties.reply_to()).as_deref(), Some("sender"));
    assert_eq!(text(properties.correlation_id()).as_deref(), Some("conversation"));
    assert_eq!((*properties.delivery_mode(), *properties.timestamp()), (Some(2), Some(1_795_000_000)));
    assert_eq!(message.data, b"7");
}

/// T-026: another program need only set id, type and body.
#[tokio::test(flavor = "multi_thread")]
async fn t_026_a_stranger_needs_little() {
    let vhost = Vhost::create().await;
    let mut link = attach(&vhost.transport(), "ordering", &[]).await;
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let properties = BasicProperties::default().with_message_id("s-1".into()).with_type("x.Y".into());
    let options = BasicPublishOptions::default();
    channel.basic_publish("ordering".into(), "".into(), options, b"{}", properties).await.unwrap();
    channel.basic_publish("ordering".into(), "".into(), options, b"{}", BasicProperties::default()).await.unwrap();
    let good = delivery(&mut link).await;
    assert_eq!((good.envelope.message_id.as_str(), good.fault.as_deref()), ("s-1", None));
    let bad = delivery(&mut link).await;
    assert!(bad.fault.as_ref().is_some_and(|fault| fault.contains("message_id")), "{:?}", bad.fault);
}

/// T-019: broken connections are opened again, and no message under way is lost.
#[tokio::test(flavor = "multi_thread")]
async fn t_019_a_broken_connection_is_made_anew() {
    let vhost = Vhost::create().await;
    let (mut sender, mut receiver) =
        (attach(&vhost.transport(), "sender", &[]).await, attach(&vhost.transport(), "receiver", &[]).await);
    let unsettled = {
        sender.outgoing.send(outgoing(1, to("receiver"))).unwrap();
        delivery(&mut receiver).await
    };
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    // those that are new may not be in the list yet
    eventually("all connections to be closed", || async { (vhost.close_connections().await >= 4).then_some(()) }).await;
    timeout(PATIENCE, sender.state.wait_for(|state| matches!(state, LinkState::Down(_))))
        .await
        .expect("the break was expected to show")
        .unwrap();
    let again = delivery(&mut receiver).await;
    assert_eq!(again.envelope.message_id, "m-1", "what was not acknowledged comes again");
    unsettled.ack.ack(); // of the old channel: must not touch the new one
    again.ack.ack();
    timeout(PATIENCE, sender.state.wait_for(|state| *state == LinkState::Up))
        .await
        .expect("a new connection was expected")
        .unwrap();
    for n in 2..50 {
        sender.outgoing.send(outgoing(n, to("receiver"))).unwrap();
        delivery(&mut receiver).await.ack.ack();
        assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    }
}

/// Messages in flight when a connection broke are published again, and nothing overtakes them; each message is reported
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn t_019_a_broken_connection_loses_no_message_and_keeps_the_order() {
    let vhost = Vhost::create().await;
    let (mut sender, mut receiver) =
        (attach(&vhost.transport(), "sender", &[]).await, attach(&vhost.transport(), "receiver", &[]).await);
    let messages = 3000;
    let send = sender.outgoing.clone();
    tokio::spawn(async move {
        for n in 1..=messages {
            send.send(outgoing(n, to("receiver"))).expect("the link is open");
        }
    });
    let receiving = async {
        let mut last = 0;
        let mut seen = HashSet::new();
        while seen.len() < messages as usize {
            let delivery = delivery(&mut receiver).await;
            let n = number(&delivery);
            if seen.insert(n) {
                assert_eq!(n, last + 1, "a message was overtaken");
                last = n;
            }
            delivery.ack.ack();
            if seen.len() == 500 {
                vhost.close_connections().await;
            }
        }
    };
    let reporting = async {
        let mut reported = HashMap::new();
        while reported.len() < messages as usize {
            let report = report(&mut sender).await;
            assert_eq!(report.fate, Fate::Confirmed);
            assert!(reported.insert(report.row, ()).is_none(), "{} was reported twice", report.row);
        }
    };
    tokio::join!(receiving, reporting);
}

/// The prefetch begins small and grows. Messages that come meanwhile keep their order, and come once.
#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_that_grows_keeps_the_order() {
    let vhost = Vhost::create().await;
    let mut sender = attach(&vhost.transport(), "sender", &[]).await;
    provision(&vhost.transport(), "receiver", &[]).await;
    let messages = 5000;
    for n in 1..=messages {
        sender.outgoing.send(outgoing(n, to("receiver"))).expect("the link is open");
    }
    for _ in 1..=messages {
        assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    }
    let many = tests::with!(limits(), prefetch = 1000);
    let mut receiver = vhost.transport().attach(topology("receiver", &[]), many).await.expect("it attaches");
    let mut open = VecDeque::new();
    let mut most = 0;
    for n in 1..=messages {
        let delivery = delivery(&mut receiver).await;
        assert_eq!((number(&delivery), delivery.delivery_count), (n, 0));
        open.push_back(delivery);
        most = most.max(open.len());
        // as many stay open as behind busy handlers, once the prefetch allows it
        if open.len() > 14 && receiver.deliveries.is_empty() {
            open.drain(..open.len() / 2).for_each(|delivery| delivery.ack.ack());
        }
    }
    assert!(most > 400, "at most {most} were open at a time");
}

/// T-022: a queue that is deleted while running is declared again.
#[tokio::test(flavor = "multi_thread")]
async fn t_022_a_deleted_queue_is_declared_again() {
    let vhost = Vhost::create().await;
    let (mut sender, mut receiver) =
        (attach(&vhost.transport(), "sender", &[]).await, attach(&vhost.transport(), "receiver", &[]).await);
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete("receiver".into(), Default::default()).await.unwrap();
    // a missing queue takes nothing, and one that is deleted while a message is on its way nacks: the sender learns it,
    // and sends again
    let until = Instant::now() + PATIENCE;
    let mut sent = 1;
    loop {
        sender.outgoing.send(outgoing(sent, to("receiver"))).unwrap();
        match report(&mut sender).await.fate {
            Fate::Confirmed => break,
            fate => {
                let told = matches!(fate, Fate::Unroutable(_) | Fate::QueueRefused(_));
                assert!(told && Instant::now() < until, "{fate:?}");
            }
        }
        sent += 1;
    }
    let arrived = delivery(&mut receiver).await;
    assert_eq!(arrived.envelope.message_id, format!("m-{sent}"), "the confirmed message was expected");
    arrived.ack.ack();
}
