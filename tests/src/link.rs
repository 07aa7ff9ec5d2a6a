//! A link of a transport, as the tests of transports use it.

use crate::{PATIENCE, Vhost};
use saga_core::{Delivery, Destination, Envelope, Fate, Link, LinkLimits, Outgoing, Report, Topology, Transport};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// Limits that only tests about limits reach.
pub fn limits() -> LinkLimits {
    crate::with!(
        LinkLimits::default(),
        prefetch = 100,
        prefetch_bytes = 64 << 20,
        body_bytes_max = 4 << 20,
        window = 2000,
        confirm = Duration::from_secs(10),
        connect = Duration::from_secs(10)
    )
}

/// What an endpoint declares that subscribes to these events.
pub fn topology(endpoint: &str, subscribes: &[&str]) -> Topology {
    let subscribes = subscribes.iter().map(|event| (*event).to_owned()).collect();
    crate::with!(Topology::new(endpoint), subscribes = subscribes)
}

/// Attaches an endpoint.
///
/// # Panics
/// When the transport refuses.
pub async fn attach(transport: &impl Transport, endpoint: &str, subscribes: &[&str]) -> Link {
    transport.attach(topology(endpoint, subscribes), limits()).await.expect("the endpoint attaches")
}

/// Declares what an endpoint needs; the link is closed when this returns.
///
/// # Panics
/// When the transport does not let us, or the link does not close.
pub async fn provision(transport: &impl Transport, endpoint: &str, subscribes: &[&str]) {
    close(attach(transport, endpoint, subscribes).await).await;
}

/// Closes a link; all its deliveries must be settled or dropped.
///
/// # Panics
/// When it does not close.
pub async fn close(link: Link) {
    let Link { mut state, deliveries, outgoing, reports, .. } = link;
    drop((deliveries, outgoing, reports));
    let closed = timeout(PATIENCE, async { while state.changed().await.is_ok() {} }).await;
    closed.expect("the link was expected to close");
}

/// A message with the number in its row, its id and its body.
pub fn outgoing(n: u128, destination: Destination) -> Outgoing {
    let mut envelope = Envelope::new(format!("m-{n}"), "test.Happened", format!("{n}"));
    envelope.conversation_id = "conversation".into();
    envelope.reply_to = Some("sender".into());
    envelope.sender = Some("sender".into());
    envelope.sent_at_us = Some(1_795_000_000_000_000);
    Outgoing::new(Uuid::from_u128(n), destination, Arc::new(envelope))
}

/// The same with another envelope.
pub fn with_envelope(outgoing: Outgoing, envelope: Envelope) -> Outgoing {
    crate::with!(outgoing, envelope = Arc::new(envelope))
}

/// The same with a header.
pub fn with_header(outgoing: Outgoing, name: &str, value: serde_json::Value) -> Outgoing {
    let mut envelope = (*outgoing.envelope).clone();
    envelope.headers.insert(name.into(), value);
    crate::with!(outgoing, envelope = Arc::new(envelope))
}

/// The queue of an endpoint.
pub fn to(endpoint: &str) -> Destination {
    Destination::Endpoint(endpoint.into())
}

/// An event by its name.
pub fn event(name: &str) -> Destination {
    Destination::Event(name.into())
}

/// The next delivery.
///
/// # Panics
/// When none comes.
pub async fn delivery(link: &mut Link) -> Delivery {
    timeout(PATIENCE, link.deliveries.recv()).await.expect("a delivery was expected").expect("the link is open")
}

/// The number of a delivery.
///
/// # Panics
/// When its body is not a number.
pub fn number(delivery: &Delivery) -> u128 {
    String::from_utf8_lossy(&delivery.envelope.body).parse().expect("the body is a number")
}

/// The next report.
///
/// # Panics
/// When none comes.
pub async fn report(link: &mut Link) -> Report {
    timeout(PATIENCE, link.reports.recv()).await.expect("a report was expected").expect("the link is open")
}

/// The fates of this many messages, by their number.
///
/// # Panics
/// When a message is reported twice, or too few are.
pub async fn fates(link: &mut Link, messages: usize) -> HashMap<u128, Fate> {
    let mut fates = HashMap::new();
    while fates.len() < messages {
        let report = report(link).await;
        let before = fates.insert(report.row.as_u128(), report.fate);
        assert!(before.is_none(), "{} was reported twice", report.row);
    }
    fates
}

/// Of an endpoint that takes bundles.
pub fn taking(endpoint: &str) -> Topology {
    crate::with!(topology(endpoint, &[]), bundles = true)
}

/// Attaches an endpoint that takes bundles.
///
/// # Panics
/// When the transport refuses.
pub async fn attach_taking(vhost: &Vhost, endpoint: &str, limits: LinkLimits) -> Link {
    vhost.transport().attach(taking(endpoint), limits).await.expect("the endpoint attaches")
}

/// Declares a queue that takes bundles; nobody consumes it when this returns.
///
/// # Panics
/// When the transport refuses.
pub async fn provision_taking(vhost: &Vhost, endpoint: &str) {
    close(attach_taking(vhost, endpoint, limits()).await).await;
}

/// Sends all at once, and expects that all are confirmed, each once.
///
/// # Panics
/// When not.
pub async fn send(sender: &mut Link, messages: impl IntoIterator<Item = Outgoing>) {
    let messages: Vec<Outgoing> = messages.into_iter().collect();
    let count = messages.len();
    for message in messages {
        sender.outgoing.send(message).expect("the link is open");
    }
    confirmed(sender, count).await;
}

/// Expects that so many messages are confirmed, each once.
///
/// # Panics
/// When not.
pub async fn confirmed(sender: &mut Link, messages: usize) {
    let fates = fates(sender, messages).await;
    assert!(fates.values().all(|fate| *fate == Fate::Confirmed), "all were expected to be confirmed: {fates:?}");
}

/// Receives these numbers, in order, and acknowledges each.
///
/// # Panics
/// When something else comes.
pub async fn receive(link: &mut Link, numbers: impl IntoIterator<Item = u128>) {
    for expected in numbers {
        let came = delivery(link).await;
        assert_eq!((number(&came), &came.fault), (expected, &None), "they were expected once and in order");
        came.ack.ack();
    }
}
