//! The conformance suite of the port `Transport`: both transports pass the same tests; then tests of the in-process
//! transport.

use saga_core::{Destination, Fate, Transport, TransportErrorKind};
use std::collections::HashMap;
use tests::{
    PATIENCE, Vhost,
    link::{attach, delivery, event, limits, number, outgoing, report, to, topology},
};
use tokio::time::timeout;
use transports::InProcess;

/// T-008: each message is confirmed exactly once, and each arrives.
async fn t_008_each_message_is_confirmed_once(transport: impl Transport + Clone) {
    let (mut sender, mut receiver) =
        (attach(&transport, "sender", &[]).await, attach(&transport, "receiver", &[]).await);
    let messages = 2000;
    let send = sender.outgoing.clone();
    tokio::spawn(async move {
        for n in 1..=messages {
            send.send(outgoing(n, to("receiver"))).expect("the link is open");
        }
    });
    let receiving = async {
        let mut bodies = Vec::new();
        while bodies.len() < messages as usize {
            let delivery = delivery(&mut receiver).await;
            bodies.push(number(&delivery));
            delivery.ack.ack();
        }
        bodies
    };
    let reporting = async {
        let mut confirmed = HashMap::new();
        while confirmed.len() < messages as usize {
            let report = report(&mut sender).await;
            assert_eq!(report.fate, Fate::Confirmed);
            assert!(confirmed.insert(report.row, ()).is_none(), "{} was reported twice", report.row);
        }
    };
    let (bodies, ()) = tokio::join!(receiving, reporting);
    assert!(bodies.iter().copied().eq(1..=messages), "all messages were expected in the order of their sending");
}

/// T-009: a command without a queue is reported unroutable, and its neighbours are not.
async fn t_009_a_command_to_nobody_is_unroutable(transport: impl Transport + Clone) {
    let (mut sender, mut receiver) =
        (attach(&transport, "sender", &[]).await, attach(&transport, "receiver", &[]).await);
    for n in 1..=100 {
        let destination = match n % 20 {
            0 => to("nobody"),
            10 => Destination::ReplyTo("nobody".into()),
            _ => to("receiver"),
        };
        sender.outgoing.send(outgoing(n, destination)).expect("the link is open");
    }
    let receiving = async {
        for _ in 0..90 {
            delivery(&mut receiver).await.ack.ack();
        }
    };
    let reporting = async {
        for _ in 0..100 {
            let report = report(&mut sender).await;
            let expected = report.row.as_u128() % 10 == 0;
            assert_eq!(matches!(report.fate, Fate::Unroutable(_)), expected, "{report:?}");
        }
    };
    tokio::join!(receiving, reporting);
}

/// O-037, T-007, T-039: an event reaches every subscriber; without subscribers it is confirmed.
async fn o_037_t_007_t_039_an_event_reaches_every_subscriber(transport: impl Transport + Clone) {
    let mut sender = attach(&transport, "sender", &[]).await;
    sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed, "no subscriber is fine");
    let (mut one, mut two) =
        (attach(&transport, "one", &["test.Happened"]).await, attach(&transport, "two", &["test.Happened"]).await);
    sender.outgoing.send(outgoing(2, event("test.Happened"))).expect("the link is open");
    for link in [&mut one, &mut two] {
        let delivery = delivery(link).await;
        assert_eq!(&delivery.envelope.body[..], b"2");
        delivery.ack.ack();
    }
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
}

/// A delivery that is dropped is not lost: it comes again, or its sender learns of it.
async fn a_dropped_delivery_is_not_lost(transport: impl Transport + Clone) {
    let (mut sender, mut receiver) =
        (attach(&transport, "sender", &[]).await, attach(&transport, "receiver", &[]).await);
    sender.outgoing.send(outgoing(1, to("receiver"))).expect("the link is open");
    drop(delivery(&mut receiver).await);
    let failed = async {
        loop {
            let report = report(&mut sender).await;
            if report.fate != Fate::Confirmed {
                return report;
            }
        }
    };
    let again = tokio::select! {
        again = delivery(&mut receiver) => again,
        report = failed => {
            assert!(matches!(report.fate, Fate::Unknown(_)), "{report:?}");
            sender.outgoing.send(outgoing(1, to("receiver"))).expect("the link is open");
            delivery(&mut receiver).await
        }
    };
    assert_eq!(again.envelope.message_id, "m-1");
    again.ack.ack();
}

/// A link whose ends are dropped closes, which frees the endpoint's name.
async fn a_link_can_be_closed_and_attached_again(transport: impl Transport + Clone) {
    let mut link = attach(&transport, "sender", &[]).await;
    drop((link.deliveries, link.outgoing));
    timeout(PATIENCE, async { while link.state.changed().await.is_ok() {} })
        .await
        .expect("the link was expected to close");
    drop(attach(&transport, "sender", &[]).await);
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod in_process {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(InProcess::new()).await;
            })*
        }
        mod rabbitmq {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let vhost = Vhost::create().await;
                super::$test(vhost.transport()).await;
            })*
        }
    };
}

suite! {
    t_008_each_message_is_confirmed_once
    t_009_a_command_to_nobody_is_unroutable
    o_037_t_007_t_039_an_event_reaches_every_subscriber
    a_dropped_delivery_is_not_lost
    a_link_can_be_closed_and_attached_again
}

#[tokio::test]
async fn in_process_an_event_waits_for_the_endpoints_that_were_named() {
    let bus = InProcess::of(&["sender", "late"]);
    let mut sender = attach(&bus, "sender", &[]).await;
    sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
    assert!(matches!(report(&mut sender).await.fate, Fate::Unroutable(why) if why.contains("late")));
    let _late = attach(&bus, "late", &[]).await;
    sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
}

#[tokio::test]
async fn t_042_in_process_a_message_is_confirmed_only_after_its_last_receiver_committed() {
    let bus = InProcess::new();
    let mut sender = attach(&bus, "sender", &[]).await;
    let (mut one, mut two) =
        (attach(&bus, "one", &["test.Happened"]).await, attach(&bus, "two", &["test.Happened"]).await);
    sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
    delivery(&mut one).await.ack.ack();
    let last = delivery(&mut two).await;
    assert!(sender.reports.try_recv().is_err(), "one receiver has not committed");
    last.ack.ack();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
}

#[tokio::test]
async fn t_042_in_process_an_endpoint_that_is_away_does_not_make_the_others_run_again() {
    let bus = InProcess::of(&["sender", "one", "two"]);
    let mut sender = attach(&bus, "sender", &[]).await;
    let mut one = attach(&bus, "one", &["test.Happened"]).await;
    for _ in 0..3 {
        sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
        // delivered the first time, but not again
        tokio::select! {
            biased;
            report = report(&mut sender) => assert!(matches!(report.fate, Fate::Unroutable(_)), "{report:?}"),
            delivery = delivery(&mut one) => {
                assert_eq!(number(&delivery), 1);
                delivery.ack.ack();
                assert!(matches!(report(&mut sender).await.fate, Fate::Unroutable(why) if why.contains("two")));
            }
        }
    }
    let mut two = attach(&bus, "two", &["test.Happened"]).await;
    sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
    delivery(&mut two).await.ack.ack();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
    assert!(one.deliveries.try_recv().is_err(), "it had the message already");
    // a row of the same number is another message now
    sender.outgoing.send(outgoing(1, event("test.Happened"))).expect("the link is open");
    delivery(&mut one).await.ack.ack();
    delivery(&mut two).await.ack.ack();
    assert_eq!(report(&mut sender).await.fate, Fate::Confirmed);
}

#[tokio::test]
async fn in_process_only_dead_processes_make_a_suspect() {
    let bus = InProcess::new();
    let (sender, mut receiver) = (attach(&bus, "sender", &[]).await, attach(&bus, "receiver", &[]).await);
    for (attempts, expired) in [(7, 0), (7, 2)] {
        let message = tests::with!(outgoing(1, to("receiver")), attempts = attempts, expired = expired);
        sender.outgoing.send(message).expect("the link is open");
        assert_eq!(delivery(&mut receiver).await.delivery_count, expired);
    }
}

#[tokio::test]
async fn in_process_a_name_is_taken_once() {
    let bus = InProcess::new();
    let _link = attach(&bus, "ordering", &[]).await;
    let error = bus.attach(topology("ordering", &[]), limits()).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Invalid);
    assert_eq!(error.to_string(), "endpoint `ordering` runs in this process already [SB0019]");
}
