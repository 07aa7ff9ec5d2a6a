//! Bundles: many messages in one AMQP message. RabbitMQ's price is per AMQP message, not per byte, and most of what a
//! client library costs is too. So direct messages that are ready together for one queue travel together, in order.
//!
//! A bundle's body is a JSON array, which any AMQP tool can show: `[{"envelope":{…},"body":{…}}, …]`. A body that is not
//! JSON stands as `"base64":"…"`. A queue may belong to a program that knows no bundles: only a queue whose endpoint has
//! said that it takes them gets any (`addresses.rs`).

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use lapin::{BasicProperties, types::ShortString};
use saga_core::{Envelope, Outgoing};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashMap, fmt};

/// The AMQP property `type` of a bundle.
pub(super) const TYPE: &str = "sagabus.bundle";
/// The only format so far: the version is a part of the content type.
const CONTENT_TYPE: &str = "application/vnd.sagabus.bundle.v1+json";
/// The most messages in a bundle.
const MESSAGES_MAX: usize = 100;
/// The most bytes of bodies in a bundle. A larger message goes alone.
const BYTES_MAX: usize = 128 << 10;
/// The most messages in a bundle that is read: a forged one could have a million in little space.
const READ_MAX: usize = 1000;
/// Roughly what an envelope takes.
const ENVELOPE_BYTES: usize = 400;

/// Puts messages for one queue together, as far as they fit. Those for one queue keep their order; `queue` names it, or
/// is `None` for a message that goes alone.
pub(super) fn parcels(
    messages: impl IntoIterator<Item = Outgoing>,
    queue: impl Fn(&Outgoing) -> Option<Cow<'_, str>>,
) -> Vec<Vec<Outgoing>> {
    let mut parcels: Vec<Vec<Outgoing>> = Vec::new();
    // the last parcel for each queue, and the bytes in it
    let mut last: HashMap<String, (usize, usize)> = HashMap::new();
    for message in messages {
        let bytes = message.envelope.body.len();
        let joins = match queue(&message) {
            None => None,
            Some(queue) => match last.get_mut(&*queue) {
                Some((place, sum)) if parcels[*place].len() < MESSAGES_MAX && *sum + bytes <= BYTES_MAX => {
                    *sum += bytes;
                    Some(*place)
                }
                _ => {
                    last.insert(queue.into_owned(), (parcels.len(), bytes));
                    None
                }
            },
        };
        match joins {
            Some(place) => parcels[place].push(message),
            None => parcels.push(vec![message]),
        }
    }
    parcels
}

/// The body of a bundle.
pub(super) fn body<'a>(envelopes: impl Iterator<Item = Cow<'a, Envelope>>) -> Result<Bytes, String> {
    let mut body = vec![b'['];
    for envelope in envelopes {
        body.reserve(ENVELOPE_BYTES + envelope.body.len());
        body.extend_from_slice(if body.len() > 1 { b",{\"envelope\":" } else { b"{\"envelope\":" });
        serde_json::to_writer(&mut body, &*envelope).map_err(|error| error.to_string())?;
        if is_bare_json(&envelope.body) {
            body.extend_from_slice(b",\"body\":");
            body.extend_from_slice(&envelope.body);
        } else {
            body.extend_from_slice(b",\"base64\":\"");
            body.extend_from_slice(BASE64_STANDARD.encode(&envelope.body).as_bytes());
            body.push(b'"');
        }
        body.push(b'}');
    }
    body.push(b']');
    Ok(body.into())
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
    let text = |property: &Option<ShortString>| property.as_ref().map(|text| text.as_str().to_owned());
    if text(properties.kind()).as_deref() != Some(TYPE) {
        return None;
    }
    let format = text(properties.content_type()).unwrap_or_default();
    Some(match format == CONTENT_TYPE {
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
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

/// At most [`READ_MAX`] of them.
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
                    if parts.len() == READ_MAX {
                        return Err(A::Error::custom(format!("more than {READ_MAX} messages")));
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
    use saga_core::{Destination, SagaRef};
    use serde_json::json;
    use std::sync::Arc;
    use uuid::Uuid;

    fn outgoing(n: u128, to: &str, bytes: usize) -> Outgoing {
        let envelope = Envelope::new(n.to_string(), "t", vec![b'1'; bytes]);
        Outgoing::new(Uuid::from_u128(n), Destination::Endpoint(to.into()), Arc::new(envelope))
    }

    fn rows(messages: Vec<Outgoing>) -> Vec<Vec<u128>> {
        let parcels = parcels(messages, |message| match &message.destination {
            Destination::Endpoint(name) if name != "alone" => Some(name.into()),
            _ => None,
        });
        parcels.iter().map(|parcel| parcel.iter().map(|message| message.row.as_u128()).collect()).collect()
    }

    fn read_back(envelopes: &[Envelope]) -> Result<Vec<Envelope>, String> {
        let body = body(envelopes.iter().map(Cow::Borrowed))?;
        read(&properties("b"), &body).expect("it is a bundle")
    }

    #[test]
    fn each_queue_has_its_bundle_in_order() {
        let to = ["a", "b", "a", "alone", "b", "alone", "a"];
        let messages = to.iter().zip(1..).map(|(to, n)| outgoing(n, to, 10)).collect();
        assert_eq!(rows(messages), [vec![1, 3, 7], vec![2, 5], vec![4], vec![6]]);
    }

    #[test]
    fn a_bundle_is_bounded_in_messages_and_bytes() {
        let many = rows((0..250).map(|n| outgoing(n, "a", 1)).collect());
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let sizes = [50_000, 50_000, 50_000, BYTES_MAX, 1, BYTES_MAX + 1, 1];
        let large = rows(sizes.iter().zip(0..).map(|(size, n)| outgoing(n, "a", *size)).collect());
        assert_eq!(large, [vec![0, 1], vec![2], vec![3], vec![4], vec![5], vec![6]], "in order");
    }

    #[test]
    fn everything_survives_a_bundle() {
        let mut full = Envelope::new("m", "ordering.Pay", r#"{"a": [1e400, "\ud800", {"b" : null}]}"#);
        full.conversation_id = "c".into();
        full.causation_id = Some("before".into());
        full.saga = Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3) });
        full.receiver = Some("s".into());
        full.attempt = 4;
        full.reply_to = Some("ordering".into());
        full.sender = Some("ordering".into());
        full.sent_at_us = Some(1_795_000_000_123_456);
        full.content_type = Some("text/plain".into());
        full.headers.insert("list".into(), json!([true, null, 1.5, "é\0"]));
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let bodies: [&[u8]; 9] =
            [b"{}", b" {}", b"{} ", b"", b"\xef\xbb\xbf{}", b"\xff\x00", b"{\"a\":", b"1e400", deep.as_bytes()];
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
        assert!(of(&format!("[{}]", vec![one; READ_MAX + 1].join(","))).contains("more than 1000 messages"));
        let newer = properties("b").with_content_type("application/vnd.sagabus.bundle.v2+json".into());
        assert!(read(&newer, &Bytes::new()).unwrap().unwrap_err().contains("bundle.v2+json"));
        assert!(read(&BasicProperties::default().with_type("t".into()), &Bytes::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_body_survives(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5)) {
            let envelopes: Vec<_> = bodies.into_iter().map(|body| Envelope::new("m", "t", body)).collect();
            prop_assert_eq!(read_back(&envelopes), Ok(envelopes));
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&properties("b"), &body.into());
        }
    }
}
