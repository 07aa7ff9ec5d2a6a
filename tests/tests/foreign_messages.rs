//! Messages of other programs that a client library cannot read. Each becomes a delivery with a fault, and does not
//! affect its neighbours.

use saga_core::{Delivery, Link, LinkLimits, LinkState, Transport};
use std::collections::HashMap;
use tests::{
    Vhost,
    link::{attach, delivery, topology},
    raw::{RawPublisher, nested, short, table},
};

const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;
const TYPE: u16 = 1 << 5;
const APP_ID: u16 = 1 << 3;

/// A good message.
async fn publish_good(raw: &mut RawPublisher, id: &str) {
    let properties = [short(id.as_bytes()), short(b"test.Happened")].concat();
    raw.publish("", b"receiver", MESSAGE_ID | TYPE, &properties, b"{}").await;
}

/// This many deliveries by their message ids, all acknowledged.
async fn deliveries(link: &mut Link, count: usize) -> HashMap<String, Delivery> {
    let mut came = HashMap::new();
    while came.len() < count {
        let delivery = delivery(link).await;
        assert_eq!(delivery.delivery_count, 0, "it came once: {delivery:?}");
        let before = came.insert(delivery.envelope.message_id.clone(), delivery);
        assert!(before.is_none(), "{before:?} came twice");
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_are_not_utf8_cost_no_neighbour() {
    let vhost = Vhost::create().await;
    let mut link = attach(&vhost.transport(), "receiver", &[]).await;
    let mut raw = RawPublisher::connect(&vhost.url()).await;
    let (kind, latin) = (short(b"test.Happened"), b"B\xfcro".as_slice());
    let id = |id: &[u8]| short(id);
    publish_good(&mut raw, "before").await;
    let app_id = [id(b"app"), kind.clone(), short(latin)].concat();
    raw.publish("", b"receiver", MESSAGE_ID | TYPE | APP_ID, &app_id, b"1").await;
    let message_id = [id(latin), kind.clone()].concat();
    raw.publish("", b"receiver", MESSAGE_ID | TYPE, &message_id, b"2").await;
    let type_name = [id(b"type"), short(latin)].concat();
    raw.publish("", b"receiver", MESSAGE_ID | TYPE, &type_name, b"3").await;
    let header = [table(b"\x02\xfcxt\x01\x01hS\0\0\0\x01v"), id(b"header"), kind.clone()].concat();
    raw.publish("", b"receiver", HEADERS | MESSAGE_ID | TYPE, &header, b"4").await;
    // the routing key is not a property: nothing is wrong with the message
    let routed = [id(b"routed"), kind.clone()].concat();
    raw.publish("receiver", latin, MESSAGE_ID | TYPE, &routed, b"{}").await;
    // lapin can read a value that is not UTF-8
    let value = [table(b"\x01hS\0\0\0\x02\xfcx"), id(b"value"), kind].concat();
    raw.publish("", b"receiver", HEADERS | MESSAGE_ID | TYPE, &value, b"{}").await;
    for n in 0..5 {
        publish_good(&mut raw, &format!("after-{n}")).await;
    }
    raw.done().await;
    let came = deliveries(&mut link, 12).await;
    let fault = |id: &str| came[id].fault.as_deref();
    assert_eq!(fault("app"), Some("property `app_id` is not UTF-8"));
    assert_eq!(fault(r"B\xfcro"), Some("property `message_id` is not UTF-8"));
    assert_eq!(fault("type"), Some("property `type` is not UTF-8"));
    assert_eq!(fault("header"), Some("the name of a header is not UTF-8"));
    assert_eq!(came["app"].envelope.body, "1", "the body is as it came");
    assert_eq!(came["app"].envelope.type_name, "test.Happened");
    let original = came["app"].envelope.headers["sagabus-unreadable-properties"].as_str().unwrap();
    assert!(original.ends_with("0442fc726f"), "the bytes are kept: {original}");
    for id in ["before", "routed", "value", "after-0", "after-1", "after-2", "after-3", "after-4"] {
        assert_eq!(fault(id), None, "{id}");
    }
    assert_eq!(*link.state.borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_nested_too_deep_cost_no_neighbour() {
    let vhost = Vhost::create().await;
    let mut link = attach(&vhost.transport(), "receiver", &[]).await;
    let mut raw = RawPublisher::connect(&vhost.url()).await;
    for depth in [32, 33, 1_000, 10_000] {
        let id = format!("deep-{depth}");
        let properties = [nested(depth), short(id.as_bytes()), short(b"test.Happened")].concat();
        raw.publish("", b"receiver", HEADERS | MESSAGE_ID | TYPE, &properties, b"{}").await;
    }
    for n in 0..5 {
        publish_good(&mut raw, &format!("after-{n}")).await;
    }
    raw.done().await;
    let came = deliveries(&mut link, 9).await;
    for depth in [33, 1_000, 10_000] {
        let fault = came[&format!("deep-{depth}")].fault.as_deref();
        assert_eq!(fault, Some("headers are nested deeper than 32"));
    }
    for id in ["deep-32", "after-0", "after-1", "after-2", "after-3", "after-4"] {
        assert_eq!(came[id].fault, None, "{id}");
    }
    assert_eq!(*link.state.borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn r_018_a_message_without_an_id_gets_one_if_the_endpoint_is_set_so() {
    let vhost = Vhost::create().await;
    let mut topology = topology("receiver", &[]);
    topology.generates_ids = true;
    let mut link = vhost.transport().attach(topology, LinkLimits::default()).await.expect("it attaches");
    let mut raw = RawPublisher::connect(&vhost.url()).await;
    let kind = short(b"test.Happened");
    raw.publish("", b"receiver", TYPE, &kind, b"{}").await;
    raw.publish("", b"receiver", MESSAGE_ID | TYPE, &[short(b""), kind].concat(), b"{}").await;
    raw.done().await;
    let came = deliveries(&mut link, 2).await;
    assert!(came.iter().all(|(id, delivery)| delivery.fault.is_none() && id.len() == 36), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_counts_make_no_suspect() {
    let vhost = Vhost::create().await;
    let mut link = attach(&vhost.transport(), "receiver", &[]).await;
    let mut raw = RawPublisher::connect(&vhost.url()).await;
    let entries =
        [b"\x10x-delivery-countl\0\0\0\0\0\0\0\x07".as_slice(), b"\x07attemptl\x7f\xff\xff\xff\xff\xff\xff\xff"];
    let properties = [table(&entries.concat()), short(b"forged"), short(b"test.Happened")].concat();
    raw.publish("", b"receiver", HEADERS | MESSAGE_ID | TYPE, &properties, b"{}").await;
    raw.done().await;
    let first = delivery(&mut link).await;
    assert_eq!((first.delivery_count, first.envelope.attempt), (0, 0));
    drop(first); // given back: now the broker counts
    let again = delivery(&mut link).await;
    assert!(again.delivery_count >= 1, "{again:?}");
}
