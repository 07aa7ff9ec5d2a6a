//! Bundles: many messages in one AMQP message. RabbitMQ's price is per AMQP message, not per byte, and most of what a
//! client library costs is too. So direct messages that are ready together for one queue travel together, in order.
//!
//! A bundle's body is a JSON array, which any AMQP tool can show: `[{"envelope":{…},"body":{…}}, …]`. A body that is
//! not JSON stands as `"base64":"…"`. A queue may belong to a program that knows no bundles: only a queue whose
//! endpoint has said that it takes them gets any (`bundling.rs`).

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use lapin::{BasicProperties, types::ShortString};
use saga_core::{Destination, Envelope, Outgoing};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashMap, fmt};

/// The AMQP property `type` of a bundle.
const TYPE: &str = "sagabus.bundle";
/// The only format so far: the version is a part of the content type.
const CONTENT_TYPE: &str = "application/vnd.sagabus.bundle.v1+json";
/// The most messages in a bundle.
const MESSAGES_MAX: usize = 100;
/// The most bytes of a bundle. A larger message goes alone.
pub(super) const BYTES_MAX: usize = 128 << 10;
/// The largest bundle that is read, in bytes. A forged one could be large, and headers take many times their size in
/// memory.
const READ_BYTES_MAX: usize = 1 << 20;
/// Roughly what an envelope takes.
const ENVELOPE_BYTES: usize = 400;

/// Puts messages for one queue together. Those for one queue keep their order; `queue` names it, or is `None` for a
/// message that goes alone. A message does not join others that were ready before an event of the same instance: its
/// receiver may subscribe to that event, and it was sent later.
pub(super) fn parcels(
    messages: impl IntoIterator<Item = Outgoing>,
    queue: impl Fn(&Outgoing) -> Option<Cow<'_, str>>,
) -> Vec<Vec<Outgoing>> {
    let mut parcels: Vec<Vec<Outgoing>> = Vec::new();
    let mut last: HashMap<String, usize> = HashMap::new();
    let mut events: HashMap<Option<(String, String)>, usize> = HashMap::new();
    let sender = |message: &Outgoing| message.envelope.saga.as_ref().map(|saga| (saga.saga.clone(), saga.id.clone()));
    for message in messages {
        let joins = queue(&message).and_then(|queue| {
            let after = if events.is_empty() { None } else { events.get(&sender(&message)).copied() };
            let fits = |place: &usize| parcels[*place].len() < MESSAGES_MAX && after.is_none_or(|event| *place > event);
            let place = last.get(&*queue).copied().filter(fits);
            if place.is_none() {
                last.insert(queue.into_owned(), parcels.len());
            }
            place
        });
        match joins {
            Some(place) => parcels[place].push(message),
            None => {
                if matches!(message.destination, Destination::Event(_)) {
                    events.insert(sender(&message), parcels.len());
                }
                parcels.push(vec![message]);
            }
        }
    }
    parcels
}

/// A bundle with the first of these messages, and how many fit; `None` if not even two do.
pub(super) fn body<'a>(envelopes: impl Iterator<Item = Cow<'a, Envelope>>, bytes_max: usize) -> Option<(usize, Bytes)> {
    let mut body = Vec::with_capacity(envelopes.size_hint().0 * 2 * ENVELOPE_BYTES);
    let mut messages = 0;
    body.push(b'[');
    for envelope in envelopes {
        let before = body.len();
        body.extend_from_slice(if messages > 0 { b",{\"envelope\":" } else { b"{\"envelope\":" });
        serde_json::to_writer(&mut body, &*envelope).ok()?;
        if is_bare_json(&envelope.body) {
            body.extend_from_slice(b",\"body\":");
            body.extend_from_slice(&envelope.body);
        } else {
            body.extend_from_slice(b",\"base64\":\"");
            body.extend_from_slice(BASE64_STANDARD.encode(&envelope.body).as_bytes());
            body.push(b'"');
        }
        body.push(b'}');
        if body.len() >= bytes_max {
            body.truncate(before);
            break;
        }
        messages += 1;
    }
    body.push(b']');
    (messages > 1).then(|| (messages, body.into()))
}

/// Whether a body is JSON that is read back byte for byte: blanks around a value are not.
fn is_bare_json(body: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(body).is_ok_and(|value| value.get().len() == body.len())
}

/// The AMQP properties of a bundle with this id.
pub(super) fn properties(id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_message_id(id.into())
        .with_type(TYPE.into())
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(2)
}

/// The messages of a bundle, or why it cannot be read; `None`: it is no bundle.
pub(super) fn read(properties: &BasicProperties, body: &Bytes) -> Option<Result<Vec<Envelope>, String>> {
    properties.kind().as_ref().filter(|kind| kind.as_str() == TYPE)?;
    let format = properties.content_type().as_ref().map_or("", ShortString::as_str);
    Some(match format == CONTENT_TYPE {
        true if body.len() > READ_BYTES_MAX => Err(format!("a bundle of more than {READ_BYTES_MAX} bytes")),
        true => messages(body),
        false => Err(format!("a bundle in the format `{format}`; this version of Sagabus reads `{CONTENT_TYPE}`")),
    })
}

fn messages(body: &Bytes) -> Result<Vec<Envelope>, String> {
    let Parts(parts) = serde_json::from_slice(body).map_err(|error| format!("a bundle that is broken: {error}"))?;
    if parts.is_empty() {
        return Err("a bundle without messages".into());
    }
    let envelopes = parts.into_iter().map(|part| {
        let mut envelope = part.envelope;
        envelope.body = match (part.body, part.base64) {
            (Some(json), None) => body.slice_ref(json.get().as_bytes()),
            (None, Some(text)) => BASE64_STANDARD.decode(&*text).map_err(|error| error.to_string())?.into(),
            _ => return Err("a bundle with a message that has no body, or two".into()),
        };
        Ok(envelope)
    });
    envelopes.collect()
}

#[derive(Deserialize)]
struct Part<'a> {
    envelope: Envelope,
    // `null` is a body too
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// At most [`MESSAGES_MAX`] of them.
struct Parts<'a>(Vec<Part<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Vec<Part<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    if parts.len() == MESSAGES_MAX {
                        return Err(A::Error::custom(format!("more than {MESSAGES_MAX} messages")));
                    }
                    parts.push(part);
                }
                Ok(parts)
            }
        }
        deserializer.deserialize_seq(Bounded).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use saga_core::SagaRef;
    use serde_json::json;
    use std::sync::Arc;
    use uuid::Uuid;

    fn outgoing(n: u128, to: &str) -> Outgoing {
        let destination = match to.strip_prefix("event ") {
            Some(event) => Destination::Event(event.into()),
            None => Destination::Endpoint(to.into()),
        };
        Outgoing::new(Uuid::from_u128(n), destination, Arc::new(Envelope::new(n.to_string(), "t", "1")))
    }

    fn of_saga(id: &str, mut message: Outgoing) -> Outgoing {
        let mut envelope = (*message.envelope).clone();
        envelope.saga = Some(SagaRef { saga: "s".into(), id: id.into(), entered: None, timer: None });
        message.envelope = Arc::new(envelope);
        message
    }

    fn rows(messages: impl IntoIterator<Item = Outgoing>) -> Vec<Vec<u128>> {
        let parcels = parcels(messages, |message| match &message.destination {
            Destination::Endpoint(name) => Some(name.into()),
            _ => None,
        });
        parcels.iter().map(|parcel| parcel.iter().map(|message| message.row.as_u128()).collect()).collect()
    }

    fn read_back(envelopes: &[Envelope]) -> Result<Vec<Envelope>, String> {
        let (messages, body) = body(envelopes.iter().map(Cow::Borrowed), BYTES_MAX).expect("two fit");
        assert_eq!(messages, envelopes.len());
        read(&properties("b"), &body).expect("it is a bundle")
    }

    #[test]
    fn each_queue_has_its_parcel_in_order() {
        let to = ["a", "b", "a", "event e", "b", "event e", "a"];
        let messages = to.iter().zip(1..).map(|(to, n)| of_saga(&n.to_string(), outgoing(n, to)));
        assert_eq!(rows(messages), [vec![1, 3, 7], vec![2, 5], vec![4], vec![6]]);
    }

    #[test]
    fn a_message_does_not_overtake_an_event_of_its_instance() {
        let to = [("x", "a"), ("i", "event e"), ("i", "a"), ("y", "a"), ("i", "a")];
        let messages = to.iter().zip(1..).map(|((id, to), n)| of_saga(id, outgoing(n, to)));
        assert_eq!(rows(messages), [vec![1], vec![2], vec![3, 4, 5]]);
    }

    #[test]
    fn a_bundle_is_bounded_in_messages_and_bytes() {
        let many = rows((0..250).map(|n| outgoing(n, "a")));
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let fit = |sizes: &[usize]| {
            let of = |size: &usize| Cow::Owned(Envelope::new("m", "t", vec![b'1'; *size]));
            let (messages, body) = body(sizes.iter().map(of), BYTES_MAX)?;
            assert!(body.len() <= BYTES_MAX, "{} bytes", body.len());
            assert_eq!(read(&properties("b"), &body).unwrap().unwrap().len(), messages);
            Some(messages)
        };
        assert_eq!(fit(&[50_000, 50_000, 50_000]), Some(2));
        assert_eq!(fit(&[1, BYTES_MAX]), None);
        assert_eq!(fit(&[BYTES_MAX, 1]), None);
    }

    #[test]
    fn everything_survives_a_bundle() {
        let mut full = Envelope::new("m", "ordering.Pay", r#"{"a": [1e400, "\ud800", {"b" : null}]}"#);
        full.conversation_id = "c".into();
        full.causation_id = Some("before".into());
        full.saga = Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3), timer: None });
        full.receiver = Some("s".into());
        full.attempt = 4;
        full.reply_to = Some("ordering".into());
        full.sender = Some("ordering".into());
        full.sent_at_us = Some(1_795_000_000_123_456);
        full.content_type = Some("text/plain".into());
        full.headers.insert("list".into(), json!([true, null, 1.5, "é\0"]));
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let bodies: [&[u8]; 10] = [
            b"null",
            b"{}",
            b" {}",
            b"{} ",
            b"",
            b"\xef\xbb\xbf{}",
            b"\xff\x00",
            b"{\"a\":",
            b"1e400",
            deep.as_bytes(),
        ];
        let others = bodies.iter().map(|body| Envelope::new("n", "t", body.to_vec()));
        let envelopes: Vec<Envelope> = std::iter::once(full).chain(others).collect();
        assert_eq!(read_back(&envelopes), Ok(envelopes));
    }

    #[test]
    fn what_is_no_bundle_of_ours_is_refused_with_the_reason() {
        let of = |body: &str| read(&properties("b"), &Bytes::from(body.to_owned())).unwrap().unwrap_err();
        assert!(of("[]").contains("without messages"));
        assert!(of("{").contains("broken"));
        assert!(of(r#"[{"envelope":{"message_id":"a","type":"t"}}]"#).contains("no body, or two"));
        assert!(of(r#"[{"envelope":{"type":"t"},"body":1}]"#).contains("message_id"));
        let one = r#"{"envelope":{"message_id":"a","type":"t"},"body":1}"#;
        assert!(of(&format!("[{}]", vec![one; MESSAGES_MAX + 1].join(","))).contains("more than 100 messages"));
        assert!(of(&" ".repeat(READ_BYTES_MAX + 1)).contains("more than 1048576 bytes"));
        let newer = properties("b").with_content_type("application/vnd.sagabus.bundle.v2+json".into());
        assert!(read(&newer, &Bytes::new()).unwrap().unwrap_err().contains("bundle.v2+json"));
        assert!(read(&BasicProperties::default().with_type("t".into()), &Bytes::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_body_survives(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..5)) {
            let envelopes: Vec<_> = bodies.into_iter().map(|body| Envelope::new("m", "t", body)).collect();
            prop_assert_eq!(read_back(&envelopes), Ok(envelopes));
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&properties("b"), &body.into());
        }
    }

    #[test]
    fn fuzz_bundle() {
        let mut full = Envelope::new("m", "ordering.OrderPlaced", "{\"order_id\":7}");
        full.saga = Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3), timer: None });
        full.headers.insert("list".into(), json!([true, null, 1.5, "é"]));
        let of = |envelopes: &[Envelope]| {
            body(envelopes.iter().map(Cow::Borrowed), usize::MAX).expect("they fit into a bundle").1
        };
        let samples = [of(&[full.clone(), full.clone()]), of(&[full, Envelope::new("n", "t", b"\xff".to_vec())])];
        fuzz::each(&samples.each_ref().map(|sample| &**sample), |input| {
            let Some(Ok(envelopes)) = read(&properties("b"), &Bytes::copy_from_slice(input)) else { return };
            assert!((1..=MESSAGES_MAX).contains(&envelopes.len()), "{} messages", envelopes.len());
            for envelope in envelopes {
                let (envelope, _) = super::super::wire::bundled(envelope);
                assert!(!envelope.message_id.is_empty(), "it is held by its id");
            }
        });
    }
}
