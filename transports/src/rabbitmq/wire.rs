//! The native format: the body is the message's JSON, everything else is in AMQP's properties and headers.

use super::{
    amqp::{from_amqp, header_frame_bytes, header_name, to_amqp},
    readable::UNREADABLE,
};
use bytes::Bytes;
use jiff::Timestamp;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use saga_core::{Envelope, SagaRef};
use serde_json::Value;
use std::collections::BTreeMap;

/// The last second that counts as a time: some producers write milliseconds where AMQP means seconds.
const YEAR_9999: u64 = 253_402_300_799;
/// More runs of one message than any retry policy makes: a larger number is not a count.
const ATTEMPT_MAX: i64 = 1_000_000;
/// Headers whose values RabbitMQ reads as further routing keys. What came with them has gone there already: a retry
/// must not go there once more, and not where its sender may not write.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// Properties and headers of an outgoing message, or why the broker would refuse them: it would close the channel, or
/// even the connection. `frame_max` is the largest frame that the broker takes, 0 for any.
pub(super) fn properties(envelope: &Envelope, frame_max: usize) -> Result<BasicProperties, String> {
    let short = |text: &str| {
        ShortString::try_new(text)
            .map_err(|_| format!("`{text}` is longer than the 255 bytes that an AMQP property holds"))
    };
    let mut headers = FieldTable::default();
    for (name, value) in &envelope.headers {
        if ROUTING_HEADERS.contains(&name.as_str()) {
            continue;
        }
        headers.insert(header_name(name)?, to_amqp(value, 0).map_err(|why| format!("header `{name}`: {why}"))?);
    }
    let mut put = |name: &'static str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    let text = |text: &str| AMQPValue::LongString(text.into());
    if let Some(causation_id) = &envelope.causation_id {
        put("causation-id", text(causation_id));
    }
    if let Some(saga) = &envelope.saga {
        put("saga", text(&saga.saga));
        put("saga-id", text(&saga.id));
        if let Some(entered) = saga.entered {
            put("entered", AMQPValue::LongLongInt(entered));
        }
        if let Some(timer) = saga.timer {
            put("timer", AMQPValue::LongLongInt(timer));
        }
    }
    if let Some(receiver) = &envelope.receiver {
        put("receiver", text(receiver));
    }
    if envelope.attempt > 0 {
        put("attempt", AMQPValue::LongLongInt(envelope.attempt));
    }
    let mut properties = BasicProperties::default()
        .with_message_id(short(&envelope.message_id)?)
        .with_type(short(&envelope.type_name)?)
        .with_correlation_id(short(&envelope.conversation_id)?)
        .with_content_type(short(envelope.content_type.as_deref().unwrap_or("application/json"))?)
        .with_delivery_mode(2);
    if let Some(sent_at) = envelope.sent_at_us.and_then(|us| Timestamp::from_microsecond(us).ok()) {
        put("sent-at", text(&format!("{sent_at:.6}")));
        properties = properties.with_timestamp(sent_at.as_second().max(0) as u64);
    }
    if let Some(sender) = &envelope.sender {
        properties = properties.with_app_id(short(sender)?);
    }
    if let Some(reply_to) = &envelope.reply_to {
        properties = properties.with_reply_to(short(reply_to)?);
    }
    let properties = properties.with_headers(headers);
    let bytes = header_frame_bytes(&properties);
    if frame_max > 0 && bytes > frame_max {
        return Err(format!("headers and properties take {bytes} bytes; this broker allows {frame_max} (`frame_max`)"));
    }
    Ok(properties)
}

/// The envelope of an incoming message, and what is wrong with it, if that is known before its body is read.
///
/// With `generates_ids` a message without an id gets one, and nothing is wrong with it.
pub(super) fn envelope(properties: &BasicProperties, body: Bytes, generates_ids: bool) -> (Envelope, Option<String>) {
    let own = |property: &Option<ShortString>| {
        property.as_ref().map(|text| text.as_str().to_owned()).filter(|t| !t.is_empty())
    };
    let mut headers: BTreeMap<String, Value> = BTreeMap::new();
    let (mut causation_id, mut saga, mut saga_id, mut receiver) = (None, None, None, None);
    let (mut entered, mut timer, mut sent_at, mut attempt, mut unreadable) = (None, None, None, None, None);
    for (name, value) in properties.headers().iter().flat_map(|table| table.inner()) {
        let text = || match from_amqp(value) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match name.as_str() {
            "causation-id" => causation_id = Some(text()),
            "saga" => saga = Some(text()),
            "saga-id" => saga_id = Some(text()),
            "receiver" => receiver = Some(text()),
            "entered" => entered = text().parse().ok(),
            "timer" => timer = text().parse().ok(),
            "sent-at" => sent_at = text().parse::<Timestamp>().ok().map(|at| at.as_microsecond()),
            "attempt" => attempt = text().parse().ok().filter(|attempt| (0..=ATTEMPT_MAX).contains(attempt)),
            count if COUNTS.contains(&count) => {} // the broker's own
            UNREADABLE => unreadable = Some(text()),
            other => drop(headers.insert(other.to_owned(), from_amqp(value))),
        }
    }
    let generated = || uuid::Uuid::now_v7().to_string();
    let message_id = own(properties.message_id()).or_else(|| generates_ids.then(generated));
    let type_name = own(properties.kind());
    let content_type = own(properties.content_type());
    let fault = unreadable.or_else(|| {
        nameless(message_id.as_deref(), type_name.as_deref())
            .or_else(|| foreign(own(properties.content_encoding()).as_deref(), content_type.as_deref()))
    });
    // a message without an id is held under a generated one, so that nothing is lost
    let message_id = message_id.unwrap_or_else(generated);
    let mut envelope = Envelope::new(message_id, type_name.unwrap_or_default(), body);
    if let Some(conversation_id) = own(properties.correlation_id()) {
        envelope.conversation_id = conversation_id;
    }
    envelope.causation_id = causation_id;
    envelope.saga = saga.zip(saga_id).map(|(saga, id)| SagaRef { saga, id, entered, timer });
    envelope.receiver = receiver;
    envelope.attempt = attempt.unwrap_or(0);
    envelope.reply_to = own(properties.reply_to());
    envelope.sender = own(properties.app_id());
    let seconds = properties.timestamp().filter(|seconds| *seconds <= YEAR_9999);
    envelope.sent_at_us = sent_at.or_else(|| seconds.map(|seconds| seconds as i64 * 1_000_000));
    envelope.content_type = content_type.filter(|kind| kind != "application/json");
    envelope.headers = headers;
    (envelope, fault)
}

/// An envelope from a bundle, and what is wrong with it: the same as if it had come alone.
pub(super) fn bundled(mut envelope: Envelope) -> (Envelope, Option<String>) {
    let fault = nameless(Some(&envelope.message_id), Some(&envelope.type_name))
        .or_else(|| foreign(None, envelope.content_type.as_deref()));
    if envelope.message_id.is_empty() {
        envelope.message_id = uuid::Uuid::now_v7().to_string();
    }
    if !(0..=ATTEMPT_MAX).contains(&envelope.attempt) {
        envelope.attempt = 0;
    }
    (envelope, fault)
}

fn nameless(message_id: Option<&str>, type_name: Option<&str>) -> Option<String> {
    let is_missing = |text: Option<&str>| text.is_none_or(str::is_empty);
    if is_missing(message_id) {
        return Some(
            "no message_id: without one a redelivery cannot be told from a new message; have the producer set it, or \
             let the endpoint's `Settings::generate_ids` give each message an id, and some be handled twice"
                .into(),
        );
    }
    is_missing(type_name)
        .then(|| "no type: have the producer set the AMQP property `type` to the message's logical name".into())
}

/// Why a body is not UTF-8 text, according to its producer.
fn foreign(content_encoding: Option<&str>, content_type: Option<&str>) -> Option<String> {
    let is_utf8 =
        |charset: &str| ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known));
    // some clients name the character set here
    if let Some(encoding) = content_encoding
        && !encoding.eq_ignore_ascii_case("identity")
        && !is_utf8(encoding)
    {
        return Some(format!(
            "the body is encoded (content_encoding `{encoding}`): have the producer send plain UTF-8"
        ));
    }
    let mut parameters = content_type?.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, charset) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    let charset = charset.trim().trim_matches('"');
    (!is_utf8(charset)).then(|| {
        format!("the body is not in UTF-8 (charset `{charset}` in content_type): have the producer send UTF-8")
    })
}

/// The headers in which a quorum queue counts deliveries. RabbitMQ 4.3 leaves out of the first what a consumer gave
/// back.
const COUNTS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// How often a quorum queue delivered the message before. The queue counts in headers that it sets on redelivered
/// messages only: on any other message they are copies made by the producer.
pub(super) fn delivery_count(properties: &BasicProperties, is_redelivered: bool) -> u32 {
    let table = properties.headers().as_ref().filter(|_| is_redelivered);
    let count = |name| table.and_then(|table| from_amqp(table.inner().get(name)?).as_u64()).unwrap_or(0);
    COUNTS.map(count).into_iter().max().unwrap_or(0).try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sent() -> Envelope {
        let mut sent = Envelope::new("m", "ordering.OrderPlaced", "{}");
        sent.conversation_id = "c".into();
        sent.causation_id = Some("before".into());
        sent.saga = Some(SagaRef { saga: "s".into(), id: "7".into(), entered: Some(3), timer: None });
        sent.receiver = Some("s".into());
        sent.attempt = 4;
        sent.reply_to = Some("ordering".into());
        sent.sender = Some("ordering".into());
        sent.sent_at_us = Some(1_795_000_000_123_456);
        sent.headers = BTreeMap::from([
            ("tenant".into(), json!("é")),
            ("n".into(), json!(7)),
            ("list".into(), json!([true, null])),
        ]);
        sent
    }

    #[test]
    fn an_envelope_survives_the_wire() {
        let mut sent = sent();
        for us in [0, 7, 951_782_400_000_000, 1_795_000_000_123_456, 4_102_444_799_999_999] {
            sent.sent_at_us = Some(us);
            let made = properties(&sent, 0).unwrap();
            assert_eq!(envelope(&made, sent.body.clone(), false), (sent.clone(), None));
        }
    }

    #[test]
    fn times_are_written_as_documented() {
        let mut sent = sent();
        sent.sent_at_us = Some(951_782_400_000_007);
        let made = properties(&sent, 0).unwrap();
        let written = from_amqp(&made.headers().as_ref().unwrap().inner()["sent-at"]);
        assert_eq!((written, *made.timestamp()), (json!("2000-02-29T00:00:00.000007Z"), Some(951_782_400)));
        sent.sent_at_us = Some(i64::MAX);
        assert_eq!(*properties(&sent, 0).unwrap().timestamp(), None, "no calendar has it");
    }

    #[test]
    fn t_026_a_stranger_needs_only_id_type_and_body() {
        let properties = BasicProperties::default().with_message_id("m-1".into()).with_type("t".into());
        let (came, fault) = envelope(&properties, Bytes::from_static(b"{}"), false);
        assert_eq!((came.message_id.as_str(), came.conversation_id.as_str(), fault), ("m-1", "m-1", None));
        let (_, fault) = envelope(&BasicProperties::default().with_type("t".into()), Bytes::new(), false);
        assert!(fault.unwrap().contains("no message_id"));
    }

    #[test]
    fn r_018_a_message_without_an_id_is_held_or_gets_one() {
        for id in [None, Some("")] {
            let mut properties = BasicProperties::default().with_type("t".into());
            if let Some(id) = id {
                properties = properties.with_message_id(id.into());
            }
            let came = |generates_ids| envelope(&properties, Bytes::from_static(b"{}"), generates_ids);
            let (held, fault) = came(false);
            let fault = fault.expect("it is held");
            assert!(fault.contains("no message_id") && fault.contains("`Settings::generate_ids`"), "{fault}");
            assert!(!held.message_id.is_empty(), "under an id all the same");
            let (one, other) = (came(true), came(true));
            assert_eq!((one.1, other.1), (None, None));
            assert_ne!(one.0.message_id, other.0.message_id);
        }
        let nameless = BasicProperties::default();
        assert!(envelope(&nameless, Bytes::new(), true).1.expect("it is held").contains("no type"));
    }

    #[test]
    fn r_017_a_message_without_a_type_is_kept_and_says_what_it_lacks() {
        for properties in [BasicProperties::default(), BasicProperties::default().with_type("".into())] {
            let (came, fault) = envelope(&properties.with_message_id("m-1".into()), Bytes::from_static(b"{}"), false);
            assert_eq!((came.message_id.as_str(), came.type_name.as_str(), &came.body[..]), ("m-1", "", &b"{}"[..]));
            assert!(fault.unwrap().starts_with("no type"), "it says what to set");
        }
    }

    /// The broker has delivered it there, if its sender may write there; and closes the channel over another value.
    #[test]
    fn what_came_with_further_routing_keys_goes_there_no_more() {
        for name in ["CC", "BCC"] {
            for value in [json!(["ledger"]), json!("bob@example.com"), json!(7), json!(null), json!({})] {
                let mut sent = sent();
                sent.headers.insert(name.into(), value.clone());
                sent.headers.insert("Cc".into(), json!("a header like any other"));
                let properties = properties(&sent, 131_072).unwrap();
                let headers = properties.headers().as_ref().unwrap().inner();
                assert!(!headers.contains_key(name) && headers.contains_key("Cc"), "{name}: {value}");
            }
        }
    }

    #[test]
    fn what_the_broker_would_refuse_is_refused_before() {
        let refused = |name: &str, value: Value| {
            let mut sent = sent();
            sent.headers.insert(name.into(), value);
            properties(&sent, 131_072).err()
        };
        assert!(refused("note", json!("h".repeat(200_000))).unwrap().contains("frame_max"));
        assert_eq!(refused("note", json!("h".repeat(130_000))), None);
        assert!(refused(&"n".repeat(256), json!(1)).unwrap().contains("255 bytes"));
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        assert!(refused("deep", deep).unwrap().contains("nested deeper"));
        let mut sent = sent();
        sent.message_id = "m".repeat(256);
        assert!(properties(&sent, 0).unwrap_err().contains("255 bytes"));
    }

    #[test]
    fn forged_headers_mean_nothing() {
        let mut headers = FieldTable::default();
        for attempt in [i64::MAX, i64::MIN, -1] {
            headers.insert("attempt".into(), AMQPValue::LongLongInt(attempt));
            headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(7));
            let properties = BasicProperties::default()
                .with_message_id("m".into())
                .with_type("t".into())
                .with_headers(headers.clone());
            assert_eq!(envelope(&properties, Bytes::new(), false).0.attempt, 0);
            assert_eq!((delivery_count(&properties, false), delivery_count(&properties, true)), (0, 7));
        }
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(i64::MAX));
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(delivery_count(&properties, true), u32::MAX);
    }

    /// RabbitMQ 4.3: given back by a consumer twice, and once by a connection that broke.
    #[test]
    fn what_a_consumer_gave_back_is_a_delivery_too() {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(1));
        headers.insert("x-acquired-count".into(), AMQPValue::LongLongInt(3));
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!((delivery_count(&properties, false), delivery_count(&properties, true)), (0, 3));
        assert!(envelope(&properties, Bytes::from_static(b"{}"), false).0.headers.is_empty(), "they are the broker's");
    }

    #[test]
    fn a_body_that_is_not_utf8_is_told_by_what_its_producer_says() {
        let fault = |encoding: Option<&'static str>, kind: &'static str| {
            let mut properties = BasicProperties::default()
                .with_message_id("m".into())
                .with_type("t".into())
                .with_content_type(kind.into());
            if let Some(encoding) = encoding {
                properties = properties.with_content_encoding(encoding.into());
            }
            envelope(&properties, Bytes::from_static(b"{}"), false).1
        };
        assert!(fault(Some("gzip"), "application/json").unwrap().contains("content_encoding `gzip`"));
        assert!(fault(None, "application/json; charset=ISO-8859-1").unwrap().contains("charset `ISO-8859-1`"));
        assert!(fault(None, "application/json;Charset=\"utf-16\"").unwrap().contains("charset `utf-16`"));
        for encoding in [None, Some("utf-8"), Some("UTF-8"), Some("identity")] {
            for kind in ["application/json", "application/json; charset=utf-8", "text/plain;charset=us-ascii;x=y"] {
                assert_eq!(fault(encoding, kind), None);
            }
        }
    }
}
