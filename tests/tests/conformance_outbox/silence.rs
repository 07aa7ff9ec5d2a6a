//! A RabbitMQ that accepts and does not answer, and connections that end without a word.

use super::*;
use saga_core::{Ended, Fate, LinkState, TransportErrorKind};
use std::{collections::HashSet, time::Instant};
use tests::{
    PATIENCE, eventually,
    link::{delivery, event, limits, number, outgoing, report, topology},
    model::Arrived,
    proxy::Proxy,
};
use tokio::time::timeout;

/// A proxy in front of the broker, and the transport through it.
async fn proxied(vhost: &Vhost) -> (Proxy, RabbitMq) {
    let url = vhost.url();
    let server = url.rsplit('@').next().and_then(|place| place.split('/').next()).expect("it names a server");
    let proxy = Proxy::to(server.to_owned()).await;
    let transport = RabbitMq::new(&proxy.instead_of(&url)).expect("the address is an AMQP URL");
    (proxy, transport)
}

/// O-038: a confirm that does not come in time has its message sent again, and it is reported once.
#[tokio::test(flavor = "multi_thread")]
async fn o_038_a_message_whose_confirm_was_lost_is_sent_again_and_reported_once() {
    let vhost = Vhost::create().await;
    let (proxy, transport) = proxied(&vhost).await;
    let mut receiver = attach(&vhost.transport(), "receiver", &[]).await;
    let quick = tests::with!(limits(), confirm = Duration::from_secs(1));
    let mut sender = transport.attach(topology("sender", &[]), quick).await.expect("it attaches");
    sender.outgoing.send(outgoing(0, to("receiver"))).expect("the link is open");
    delivery(&mut receiver).await.ack.ack();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed); // now it knows the way
    proxy.hold_answers();
    sender.outgoing.send(outgoing(1, to("receiver"))).expect("the link is open");
    let first = delivery(&mut receiver).await;
    first.ack.ack();
    timeout(PATIENCE, sender.state.wait_for(|state| matches!(state, LinkState::Down(_))))
        .await
        .expect("the time for its confirm was expected to pass")
        .expect("the link is open");
    assert!(sender.reports.try_recv().is_err(), "nobody knows what became of it");
    proxy.release_answers();
    let second = delivery(&mut receiver).await;
    assert_eq!((number(&second), &second.envelope), (1, &first.envelope), "a receiver's inbox knows it");
    second.ack.ack();
    sender.outgoing.send(outgoing(2, to("receiver"))).expect("the link is open");
    for n in 1..=2 {
        let report = report(&mut sender).await;
        assert_eq!((report.row.as_u128(), report.fate), (n, Fate::Confirmed));
    }
}

/// T-019: sockets that are cut lose nothing, and nothing overtakes.
#[tokio::test(flavor = "multi_thread")]
async fn t_019_a_socket_that_is_cut_loses_no_message_and_keeps_the_order() {
    let vhost = Vhost::create().await;
    let (proxy, transport) = proxied(&vhost).await;
    let (mut sender, mut receiver) =
        (attach(&transport, "sender", &[]).await, attach(&transport, "receiver", &[]).await);
    let send = sender.outgoing.clone();
    tokio::spawn(async move {
        for n in 1..=1000 {
            send.send(outgoing(n, to("receiver"))).expect("the link is open");
        }
    });
    let receiving = async {
        let mut last = 0;
        while last < 1000 {
            let came = delivery(&mut receiver).await;
            let n = number(&came);
            assert!(n <= last + 1, "{n} came behind {last}: one was overtaken");
            last = last.max(n);
            came.ack.ack();
            if n == 300 {
                proxy.cut();
            }
        }
    };
    let reporting = async {
        let mut reported = HashSet::new();
        while reported.len() < 1000 {
            let report = report(&mut sender).await;
            assert_eq!(report.fate, Fate::Confirmed);
            assert!(reported.insert(report.row), "{} was reported twice", report.row);
        }
    };
    tokio::join!(receiving, reporting);
}

/// T-019: what waits for an exchange when the socket is cut goes on the next connection, with all behind it.
#[tokio::test(flavor = "multi_thread")]
async fn t_019_what_waits_for_an_exchange_when_its_socket_is_cut_is_not_forgotten() {
    let vhost = Vhost::create().await;
    let (proxy, transport) = proxied(&vhost).await;
    let (mut sender, mut receiver) =
        (attach(&transport, "sender", &[]).await, attach(&vhost.transport(), "receiver", &[]).await);
    sender.outgoing.send(outgoing(0, to("receiver"))).expect("the link is open");
    delivery(&mut receiver).await.ack.ack();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed); // now it knows the way
    proxy.hold_answers();
    for n in 1..=200 {
        let destination = if n == 100 { event("test.New") } else { to("receiver") };
        sender.outgoing.send(outgoing(n, destination)).expect("the link is open");
    }
    eventually("the event's exchange to be declared", || async {
        vhost.list("exchanges").await.iter().any(|exchange| exchange["name"] == "test.New").then_some(())
    })
    .await;
    proxy.cut();
    proxy.release_answers();
    let mut reported = HashSet::new();
    while reported.len() < 200 {
        let report = report(&mut sender).await;
        assert_eq!(report.fate, Fate::Confirmed);
        assert!(reported.insert(report.row), "{} was reported twice", report.row);
    }
    let mut last = 0;
    while last < 200 {
        let came = delivery(&mut receiver).await;
        let n = number(&came);
        assert!(n <= last + if last == 99 { 2 } else { 1 }, "{n} came behind {last}: one was overtaken");
        last = last.max(n);
        came.ack.ack();
    }
}

/// T-020: whatever waits for a broker that does not answer ends in its time.
#[tokio::test(flavor = "multi_thread")]
async fn t_020_a_broker_that_does_not_answer_holds_up_neither_start_nor_stop() {
    let (vhost, file) = (Vhost::create().await, File::create());
    let (proxy, transport) = proxied(&vhost).await;
    proxy.hold();
    let short = tests::with!(limits(), connect = Duration::from_secs(1));
    let refused = timeout(Duration::from_secs(5), transport.attach(topology("sender", &[]), short)).await;
    let error = refused.expect("it was expected to give up").expect_err("nobody answers");
    assert_eq!(error.kind(), TransportErrorKind::Unreachable, "{error}");
    proxy.release();

    let builder = Endpoint::builder("sender", transport, file.store("one.db").await);
    let builder = builder.settings(|settings| settings.stop = Duration::from_secs(2));
    let endpoint = builder.start().await.unwrap();
    proxy.hold();
    publish(&endpoint, [Arrived { id: 1 }]).await; // the commit waits for no broker
    let (began, store) = (Instant::now(), endpoint.store().clone());
    let ended = endpoint.stop().await.expect_err("one message is not confirmed");
    assert!(matches!(&ended, Ended::CutOff(why) if why.contains("not confirmed")), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    proxy.release();

    let endpoint = Endpoint::builder("sender", vhost.transport(), store.clone());
    let endpoint = endpoint.settings(|settings| settings.lease = Duration::from_secs(3)).start().await.unwrap();
    tests::eventually("another process to send it", || async {
        (store.text("SELECT CAST(count(*) AS text) FROM {s}outbox").await == "0").then_some(())
    })
    .await;
    stop([endpoint]).await;
}
