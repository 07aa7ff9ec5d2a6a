//! The envelope: everything about a message but its meaning.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Header names that Sagabus sets itself; a user's header may not bear one of them.
pub const RESERVED_HEADERS: [&str; 13] = [
    "causation-id",
    "saga",
    "saga-id",
    "entered",
    "receiver",
    "sent-at",
    "attempt",
    "round",
    "traceparent",
    "tracestate",
    "reply-to",
    "sender",
    "content-type",
];

/// A message with its properties and headers, as a transport carries it and the outbox keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Identity for deduplication; a uuid v7 when it is ours, any text when a stranger's.
    pub message_id: String,
    /// The logical name.
    pub type_name: String,
    /// The first message of the conversation that this one belongs to.
    pub conversation_id: String,
    /// The message that was being handled when this one was sent.
    pub causation_id: Option<String>,
    /// The instance that sent it; an outcome echoes the one that asked.
    pub saga: Option<SagaRef>,
    /// The only receiver at the endpoint (a retry, a timer, an answer to a saga's starter); else all that listen.
    pub receiver: Option<String>,
    /// Runs before this one, on a delayed retry; 0 for an ordinary message. The inbox takes a retry for what it
    /// is only if it knows the same number.
    pub attempt: i64,
    /// Which round of the retry policy this is; 0 for an ordinary message.
    pub round: u32,
    /// The endpoint or queue that an answer goes to.
    pub reply_to: Option<String>,
    /// The sending endpoint.
    pub sender: Option<String>,
    /// When it was sent: microseconds since 1970.
    pub sent_at_us: Option<i64>,
    /// The MIME type of the body; none counts as JSON.
    pub content_type: Option<String>,
    /// W3C trace context and the user's own headers.
    pub headers: BTreeMap<String, Value>,
    /// The body as it came or will go.
    pub body: Bytes,
}

/// A saga instance, and the entry of its state, that a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRef {
    /// The saga's logical name.
    pub saga: String,
    /// The instance.
    pub id: String,
    /// How many state entries the instance had made; none on a deadline.
    pub entered: Option<i64>,
}

impl Envelope {
    /// A hash of type and body that tells a redelivery from another message under the same id.
    pub fn body_hash(&self) -> i64 {
        hash_of([self.type_name.as_bytes(), &self.body])
    }

    /// The same message as every database can keep it, and what was wrong, if no database could: a U+0000 in a property or header
    /// (PostgreSQL's texts hold none), or an id too long for an index. The body is kept as bytes and may hold anything.
    pub fn storable(&self) -> Option<(Self, String)> {
        /// AMQP's own limit for properties, with room for other brokers.
        const PROPERTY_BYTES_MAX: usize = 1000;
        let is_bad = |text: &str| text.contains('\0') || text.len() > PROPERTY_BYTES_MAX;
        let saga = self.saga.iter().flat_map(|saga| [Some(&saga.saga), Some(&saga.id)]);
        let texts = [Some(&self.message_id), Some(&self.type_name), Some(&self.conversation_id)];
        let optional = [&self.causation_id, &self.receiver, &self.reply_to, &self.sender, &self.content_type];
        let mut texts = texts.into_iter().chain(optional.map(Option::as_ref)).chain(saga).flatten();
        let bad_header = self.headers.iter().any(|(name, value)| name.contains('\0') || has_nul(value));
        if !bad_header && !texts.any(|text| is_bad(text)) {
            return None;
        }
        let mut storable = self.clone();
        let mut wrong = String::new();
        let saga = storable.saga.iter_mut().flat_map(|saga| [("saga", &mut saga.saga), ("saga-id", &mut saga.id)]);
        let optional = [
            ("causation-id", &mut storable.causation_id),
            ("receiver", &mut storable.receiver),
            ("reply-to", &mut storable.reply_to),
            ("sender", &mut storable.sender),
            ("content-type", &mut storable.content_type),
        ];
        let texts = [
            ("message id", &mut storable.message_id),
            ("type", &mut storable.type_name),
            ("conversation id", &mut storable.conversation_id),
        ];
        let optional = optional.into_iter().filter_map(|(name, text)| Some((name, text.as_mut()?)));
        for (name, text) in texts.into_iter().chain(optional).chain(saga).filter(|(_, text)| is_bad(text)) {
            wrong = format!("{name} contains U+0000 or is longer than {PROPERTY_BYTES_MAX} bytes");
            let short: String = text.chars().take(PROPERTY_BYTES_MAX / 4).collect();
            *text = short.replace('\0', "\u{fffd}");
        }
        if bad_header {
            wrong = "a header contains U+0000".into();
            let headers = std::mem::take(&mut storable.headers).into_iter();
            storable.headers =
                headers.map(|(name, value)| (name.replace('\0', "\u{fffd}"), without_nul(value))).collect();
        }
        Some((storable, wrong))
    }

    /// The headers that the columns of the `outbox` and `held` tables do not hold, as one JSON object.
    /// `endpoint` is the row's: what follows from it is left out.
    pub fn stored_headers(&self, endpoint: &str) -> Value {
        let mut stored: serde_json::Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut put = |name: &str, value: Value| stored.insert(name.into(), value);
        if self.sender.as_deref() != Some(endpoint) {
            put("sender", self.sender.clone().into());
        }
        if self.reply_to.as_deref() != Some(endpoint) {
            put("reply-to", self.reply_to.clone().into());
        }
        if self.attempt > 0 {
            put("attempt", self.attempt.into());
        }
        if self.round > 0 {
            put("round", self.round.into());
        }
        if let Some(content_type) = &self.content_type {
            put("content-type", content_type.clone().into());
        }
        Value::Object(stored)
    }

    /// Takes back what [`Envelope::stored_headers`] put away.
    pub fn restore_headers(&mut self, endpoint: &str, stored: Value) {
        let Value::Object(mut stored) = stored else { return };
        let mut text = |name: &str| stored.remove(name).map(|value| value.as_str().map(str::to_owned));
        self.sender = text("sender").unwrap_or_else(|| Some(endpoint.to_owned()));
        self.reply_to = text("reply-to").unwrap_or_else(|| Some(endpoint.to_owned()));
        self.content_type = text("content-type").flatten();
        self.attempt = stored.remove("attempt").and_then(|value| value.as_i64()).unwrap_or(0);
        self.round = stored.remove("round").and_then(|value| value.as_u64()).unwrap_or(0) as u32;
        self.headers = stored.into_iter().collect();
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn without_nul(value: Value) -> Value {
    let clean = |text: String| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => clean(text).into(),
        Value::Array(values) => values.into_iter().map(without_nul).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (clean(name), without_nul(value))).collect(),
        other => other,
    }
}

/// A hash over parts (XXH3, 64 bits, each part seeded by those before it). The same in all versions and on all platforms, which `std`'s
/// hashers are not: processes of different versions must take the same locks.
pub fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> i64 {
    parts.into_iter().fold(0, |seed, part| xxhash_rust::xxh3::xxh3_64_with_seed(part, seed)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_columns_do_not_hold_survives_the_way_through_the_store() {
        let mut envelope = Envelope {
            message_id: "m".into(),
            type_name: "t".into(),
            conversation_id: "c".into(),
            causation_id: None,
            saga: None,
            receiver: None,
            attempt: 3,
            round: 1,
            reply_to: None,
            sender: Some("other".into()),
            sent_at_us: None,
            content_type: Some("application/json".into()),
            headers: BTreeMap::from([("tenant".into(), "é".into()), ("empty".into(), "".into())]),
            body: Bytes::from_static(b"{}"),
        };
        let before = envelope.clone();
        let stored = envelope.stored_headers("mine");
        envelope.headers.clear();
        envelope.attempt = 0;
        envelope.restore_headers("mine", stored);
        assert_eq!(envelope, before);
    }

    #[test]
    fn r_039_what_no_database_can_keep_is_made_storable_and_said() {
        let plain =
            crate::StoredEnvelope { message_id: "m".into(), headers: "{}".into(), ..Default::default() }.restore("e");
        assert_eq!(plain.storable(), None);
        let header = Envelope { headers: BTreeMap::from([("h".into(), "a\0b".into())]), ..plain.clone() };
        let (clean, why) = header.storable().expect("a NUL in a header was expected to be noticed");
        assert_eq!((clean.headers["h"].as_str(), why.as_str()), (Some("a\u{fffd}b"), "a header contains U+0000"));
        let (clean, why) = Envelope { message_id: "x\0".repeat(600), ..plain }
            .storable()
            .expect("a bad id was expected to be noticed");
        assert!(
            clean.message_id.len() <= 1000 && !clean.message_id.contains('\0') && why.contains("message id"),
            "{why}"
        );
    }

    #[test]
    fn the_hash_keeps_parts_apart() {
        assert_ne!(hash_of([b"ab".as_slice(), b"c"]), hash_of([b"a".as_slice(), b"bc"]));
        // stored and shared between processes: it may never change
        assert_eq!(hash_of([b"saga".as_slice(), b"7"]), -2_168_416_078_465_198_018);
    }
}
